"""Writes a phantom collection in NIH ChestX-ray14's real layout, quirks included.

usage: phantom_nih.py FOLDER [--patients N] [--seed S] [--size PIXELS]

``images_901.tar.gz`` ... with members ``images/<name>.png`` and an ``MD5SUMS`` file; ``Data_Entry_2017_v2020.csv``,
``BBox_List_2017.csv``, ``train_val_list.txt`` and ``test_list.txt`` in the release's own form: unquoted commas in
header names, no newline at the end of the lists, ``Infiltrate`` for boxes of Infiltration, one RGBA image. Patient
numbers start at 90001 and archives at 901, so nothing of it can be mistaken for a file of the release.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from phantom import radiograph

_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_DRAWN = ("Cardiomegaly", "Effusion", "Mass", "Nodule", "Infiltration", "Pneumonia", "Atelectasis", "Pneumothorax")
_PER_ARCHIVE = 24


def _png(
    rng: np.random.Generator, size: int, findings: list[str], *, female: bool, rgba: bool
) -> tuple[bytes, dict[str, tuple[float, ...]]]:
    drawn, boxes = radiograph(rng, size=min(size, 512), findings=findings, female=female)
    scale = size / drawn.shape[0]
    image = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_CUBIC) if scale != 1 else drawn
    if rgba:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes(), {name: tuple(round(v * scale, 3) for v in box) for name, box in boxes.items()}


def _archive(path: Path, members: list[tuple[str, bytes]]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, data in members:
            entry = tarfile.TarInfo(f"images/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def write_collection(folder: Path, *, patients: int = 24, seed: int = 14, size: int = 1024) -> int:
    """Write the collection to ``folder``; the number of images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[str] = []
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    members: list[tuple[str, bytes]] = []
    for number in range(patients):
        patient, female, age = 90001 + number, bool(rng.random() < 0.45), int(rng.integers(18, 88))
        in_test = number % 5 == 4 or number == patients - 1
        for follow_up in range(int(rng.integers(1, 4))):
            findings = [name for name in _DRAWN if rng.random() < 0.16]
            if in_test and len(boxes) == 1 and not findings:
                # The release has no table of boxes without a box.
                findings = ["Mass"]
            name = f"{patient:08d}_{follow_up:03d}.png"
            data, drawn = _png(rng, size, findings, female=female, rgba=len(rows) == 7)
            members.append((name, data))
            view = "AP" if rng.random() < 0.4 else "PA"
            width, height = ((2500, 2048), (2992, 2991), (2048, 2500))[int(rng.integers(3))]
            words = "|".join(sorted(findings)) or "No Finding"
            sex = "F" if female else "M"
            rows.append(
                f"{name},{words},{follow_up},{patient},{min(age + follow_up, 95)},{sex},{view},"
                f"{width},{height},0.14300000000000002,0.14300000000000002"
            )
            lists["test_list.txt" if in_test else "train_val_list.txt"].append(name)
            if in_test:
                for finding, box in drawn.items():
                    word = "Infiltrate" if finding == "Infiltration" else finding
                    boxes.append(f"{name},{word},{','.join(str(v) for v in box)}")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([_HEADER, *rows]) + "\n", encoding="ascii")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n", encoding="ascii")
    for name, names in lists.items():
        (folder / name).write_text("\n".join(names), encoding="ascii")
    for index, start in enumerate(range(0, len(members), _PER_ARCHIVE), 901):
        _archive(folder / f"images_{index:03d}.tar.gz", members[start : start + _PER_ARCHIVE])
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(folder.iterdir())
        if path.name != "MD5SUMS"
    ]
    (folder / "MD5SUMS").write_text("\n".join(sums) + "\n", encoding="ascii")
    return len(members)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    count = write_collection(options.folder, patients=options.patients, seed=options.seed, size=options.size)
    print(f"{count} images of {options.patients} phantom patients in {options.folder}")


if __name__ == "__main__":
    main()
