"""What the tests of verification share: small whole releases with a record, ways to break them, and a real decoder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

from cxrprep.collection import DatasetFolder
from cxrprep.datasets.catalog import catalog
from cxrprep.datasets.facts import DatasetSpec
from cxrprep.labels.extract import read_labels
from cxrprep.model import Digest, ImageCheck
from cxrprep.record.entry import FileEntry, Origin
from cxrprep.record.record import Record
from cxrprep.storage.patient_table import OneRange
from cxrprep.verification.options import VerifyOptions
from cxrprep.verification.report import VerifyReport
from cxrprep.verification.verifier import verify
from tests.generators.small import mimic_cxr_jpg, nih_chestxray14

OWN = ("cxrprep.", ".cxrprep", "manifests")


def nih_spec(size: int = 1024) -> DatasetSpec:
    """NIH as in the catalog, but for the size of its images: the generator draws small ones."""
    spec = catalog()["nih-chestxray14"]
    return dataclasses.replace(spec, images=dataclasses.replace(spec.images, width=size, height=size))


MIMIC = catalog()["mimic-cxr-jpg"]


def files(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).as_posix().startswith(OWN)
    ]


def remember(
    root: Path, spec: DatasetSpec, release: str, *, mirror: str = "", origin: Origin = Origin.FIRST_READ
) -> None:
    """Record every file of ``root`` as a download would have."""
    with Record.open(root) as record:
        record.describe(dataset=spec.name, release=release, mirror=mirror, tool="cxrprep test")
        for path in files(root):
            data = path.read_bytes()
            digest = Digest("sha256", hashlib.sha256(data).hexdigest())
            record.add(FileEntry(path.relative_to(root).as_posix(), len(data), digest, origin))


def nih(root: Path, *, record: bool = True, change: Callable[[Path], object] | None = None) -> Path:
    """A whole small NIH; ``change`` alters it before it is recorded, as if it had come so."""
    nih_chestxray14.write(root)
    if change is not None:
        change(root)
    if record:
        remember(root, nih_spec(), "v2020", mirror="box")
    return root


def mimic(root: Path, *, record: bool = True, mirror: str = "physionet", sums: bool = True) -> Path:
    """A small MIMIC-CXR-JPG with its SHA256SUMS.txt, in PhysioNet's form: one space."""
    mimic_cxr_jpg.write(root)
    if sums:
        write_sums(root)
    if record:
        remember(root, MIMIC, "2.1.0", mirror=mirror, origin=Origin.PUBLISHED)
    return root


def write_sums(root: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root).as_posix()}\n" for path in files(root)
    ]
    (root / "SHA256SUMS.txt").write_text("".join(lines))


def check(
    root: Path, spec: DatasetSpec | None = None, release: str = "v2020", *, labels: bool = True, **more: Any
) -> VerifyReport:
    """Verify ``root``; keywords that ``VerifyOptions`` knows are options."""
    spec = spec or nih_spec()
    names = {field.name for field in dataclasses.fields(VerifyOptions)}
    options = VerifyOptions(**{name: more.pop(name) for name in list(more) if name in names})
    state = more.pop("state", None)

    def rows() -> OneRange:
        return OneRange(read_labels(spec, root, release=release).table)

    folder = DatasetFolder(root, state or root, spec, release, Record.open(root, state))
    return verify(folder, options=options, labels=rows if labels else None, **more)


def found(report: VerifyReport) -> list[tuple[str, str]]:
    """Every finding as kind and path, in order of both."""
    assert len(report.findings) == sum(report.counts.values())
    return sorted((str(finding.kind), finding.path) for finding in report.findings)


def flip(path: Path, at: int = -20) -> None:
    """Change one byte and nothing else: not the size, not the time."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def decode(path: Path, *, pixels: bool = True) -> ImageCheck:
    """A small but real image checker; at module level, so that it can go to another process."""
    data = path.read_bytes()
    if data[128:132] == b"DICM":
        dataset = pydicom.dcmread(path)
        if "PixelData" not in dataset:
            return ImageCheck("DICOM", has_pixels=False)
        return _described("DICOM", dataset.pixel_array, str(dataset.PhotometricInterpretation), pixels)
    form = {b"\x89PN": "PNG", b"\xff\xd8\xff": "JPEG"}.get(data[:3], "")
    if form == "PNG" and b"IEND" not in data[-12:]:
        return ImageCheck(form, error="PNG cut short", truncated=True)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if form else None
    if image is None:
        return ImageCheck(form, error="neither PNG nor JPEG" if not form else "cannot be decoded")
    mode = {2: "L" if image.dtype == np.uint8 else "I;16", 3: {3: "RGB", 4: "RGBA"}.get(image.shape[-1], "?")}
    return _described(form, image, mode[image.ndim], pixels)


def _described(form: str, image: np.ndarray, mode: str, pixels: bool) -> ImageCheck:
    return ImageCheck(
        form,
        width=image.shape[1],
        height=image.shape[0],
        mode=mode,
        bits=image.dtype.itemsize * 8,
        constant=bool((image == image.flat[0]).all()),
        pixels=f"sha256:{hashlib.sha256(image.tobytes()).hexdigest()}" if pixels else None,
    )
