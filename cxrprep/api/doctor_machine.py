"""Checks of this machine: Python, memory, decoders, disk, open files, the labeler."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from typing import TYPE_CHECKING, Final

from cxrprep._version import __version__
from cxrprep.api.doctor_check import Check, State
from cxrprep.api.report_labels import check_labeler
from cxrprep.datasets.catalog import catalog
from cxrprep.extras import install_command
from cxrprep.humanize import format_bytes
from cxrprep.storage.paths import nearest_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec, Mirror


_CODECS: Final = (
    ("cv2", "PNG and JPEG", "", State.PROBLEM),
    ("pydicom", "DICOM headers, uncompressed and RLE pixels", "", State.PROBLEM),
    ("imagecodecs", "compressed DICOM (JPEG, JPEG-LS, JPEG 2000), JPEG XL", "", State.PROBLEM),
)
_EXTRAS: Final = (
    ("distributed", "an existing Dask cluster", "dask"),
    ("s3fs", "buckets as folders: s3://", "s3"),
    ("gcsfs", "buckets as folders: gs://", "gcs"),
    ("adlfs", "buckets as folders: az://", "azure"),
    ("keyring", "credentials in the system's keyring", "keyring"),
    ("pylibjpeg", "compressed DICOM in colour", "codecs"),
    ("openpyxl", "CheXpert's demographics, a workbook", "xlsx"),
)


def machine_checks() -> Iterator[Check]:
    """Python, memory, decoders and the labeler."""
    about = f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield Check("machine", "cxrprep", State.OK, about)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("machine", "cores", State.OK, str(cores))
    for module, what, extra, missing in _CODECS:
        there = importlib.util.find_spec(module) is not None
        install = install_command(extra) if extra else "install cxrprep again: a package that it needs is missing"
        state, found, hint = (State.OK, what, "") if there else (missing, f"missing: {what}", install)
        yield Check("machine", f"codec {module}", state, found, hint)
    for module, what, extra in _EXTRAS:
        there = importlib.util.find_spec(module) is not None
        state = State.OK if there else State.OPTIONAL
        found = what if there else f"not installed; only needed for {what}"
        yield Check("machine", f"extra {extra}", state, found, "" if there else install_command(extra))
    yield _labeler()


def _labeler() -> Check:
    """The report labeler over its own examples, some tenths of a second."""
    checked = check_labeler().value
    if checked.passed:
        return Check("machine", "report labeler", State.OK, f"{checked.examples:,} examples labelled as they should be")
    found = f"{len(checked.failures):,} of {checked.examples:,} examples labelled wrongly"
    return Check("machine", "report labeler", State.PROBLEM, found, "look at them: cxrprep explain --selftest")


def disk_checks(
    root: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool, folder: Path | None = None
) -> Iterator[Check]:
    """Room on the disk of a folder, and how many files may be open.

    Args:
        root: The folder, which need not be there yet.
        spec: The dataset that is to come into it; ``None`` names the smallest and the largest.
        judged: The mirror that it is to come from.
        whole: Whether all of it is to come.
        folder: The folder that it is to come from, in the place of a mirror.

    Yields:
        What was looked at.
    """
    place = nearest_folder(root)
    try:
        yield _room(root, place, spec, judged, whole=whole, folder=folder)
    except OSError as error:
        yield Check("disk", str(place), State.PROBLEM, error.strerror or "the disk does not answer", "check the mount")
        return
    if not os.access(place, os.W_OK):
        hint = "name a folder of your own, or keep the record elsewhere with --state DIR"
        state = State.WARNING if spec is None else State.PROBLEM
        yield Check("disk", f"writable {place}", state, "no", hint)
    handle_limit = _open_files()
    if handle_limit is not None and handle_limit < 256:
        yield Check("disk", "open files", State.WARNING, str(handle_limit), "ulimit -n 4096")


def _room(
    root: Path, place: Path, spec: DatasetSpec | None, judged: Mirror | None, *, whole: bool, folder: Path | None
) -> Check:
    """Whether there is room: for the whole of ``spec`` beside what is in ``root`` already, else for any collection.

    Raises ``OSError`` when the disk cannot be asked.
    """
    usage = shutil.disk_usage(place)
    free, found = usage.free, f"{format_bytes(usage.free)} of {format_bytes(usage.total)}"
    if spec is None:
        needs = ", ".join(f"{name} {format_bytes(size)}" for name, size in _sizes())
        hint = "" if free >= 60e9 else f"the collections take: {needs}; choose a part: --limit, --view, --split"
        return Check("disk", f"free at {place}", State.WARNING if hint else State.OK, found, hint)
    need = (judged.size if judged else 0) or _size(spec)
    if folder is not None and free < need:
        # It may hold a part of the release.
        need = sum(size for _, size in _files(folder))
    here = sum(size for _, size in _files(root)) if free < need else 0
    if free + here >= need:
        return Check("disk", f"free at {place}", State.OK, found)
    hint = f"another disk, or a part: cxrprep download {spec.name} --limit 1000 --dry-run says what a part takes"
    state = State.PROBLEM if whole else State.WARNING
    return Check("disk", f"free at {place}", state, f"{found}; all of {spec.name} takes {format_bytes(need)}", hint)


def _files(root: Path) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  # a release has hundreds of thousands
            if os.path.exists(path):  # noqa: PTH110  # likewise; a dangling link has no size
                yield path, os.stat(path).st_size  # noqa: PTH116  # likewise


def _size(spec: DatasetSpec) -> int:
    return max([spec.counts.get("bytes", 0), *(mirror.size or 0 for mirror in spec.mirror)])


def _sizes() -> list[tuple[str, int]]:
    return [(spec.name, _size(spec)) for spec in catalog().values() if _size(spec)]


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
