"""MIMIC-CXR-JPG of any size whose images are links to a few: millions of names on a disk that has no room for bytes.

usage: python -m tests.generators.full.linked FOLDER IMAGES
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from tests.generators.full import pixels
from tests.generators.full.mimic_cxr import Mimic

# Images of one part: each of its 16 files gets about 16,000 names, and a file of ext4 has 65,000 at most.
_PART = 250_000
_SMALL = {"LICENSE.txt": "Generated: no licence needed.\n", "README": "A generated release.\n"}


def write(folder: Path, images: int, seed: int = 7) -> int:
    """Write the release to ``folder``, tables and ``SHA256SUMS.txt`` as published; how many images it has."""
    release = Mimic.generate(images, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _tables(release, folder)
    starts = range(0, len(release.stems), _PART)
    with (
        ProcessPoolExecutor(4) as processes,
        (folder / "SHA256SUMS.txt").open("w", encoding="ascii", newline="\n") as sums,
    ):
        for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS.txt"):
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n")
        parts = (release.stems[start : start + _PART] for start in starts)
        for lines in processes.map(_links, repeat(folder), parts, range(len(starts))):
            sums.writelines(lines)
    return int(release.images.sum())


def _tables(release: Mimic, folder: Path) -> None:
    for name, text in _SMALL.items():
        (folder / name).write_text(text)
    parts = {
        "mimic-cxr-2.0.0-metadata.csv.gz": release.metadata(),
        "mimic-cxr-2.0.0-split.csv.gz": release.splits(),
        "mimic-cxr-2.0.0-chexpert.csv.gz": release.labels("chexpert"),
        "mimic-cxr-2.0.0-negbio.csv.gz": release.labels("negbio"),
    }
    for name, lines in parts.items():
        with gzip.open(folder / name, "wt", compresslevel=1, encoding="ascii", newline="\n") as table:
            table.writelines(f"{line}\n" for line in lines)
    for name, lines in (
        ("IMAGE_FILENAMES", release.paths("mimic-cxr-jpg")),
        ("mimic-cxr-2.1.0-test-set-labeled.csv", release.radiologist()),
    ):
        with (folder / name).open("w", encoding="ascii", newline="\n") as table:
            table.writelines(f"{line}\n" for line in lines)


def _links(below: Path, stems: list[str], part: int) -> list[str]:
    """Make the images of one part, names of files of its own; their lines of the sums."""
    root, made = str(below), ""
    seeds, lines = [], []
    for drawing in range(pixels.DRAWN):
        data = pixels.jpeg_like(drawing, f"{part}")
        seed = below / f".drawing-{part:03d}-{drawing:02d}.jpg"
        seed.write_bytes(data)
        seeds.append((str(seed), hashlib.sha256(data).hexdigest()))
    for stem in stems:
        folder, _, name = stem.rpartition("/")
        if folder != made:
            # Plain text: a Path for each took a third of the time. One call where the patient's folder is there.
            try:
                os.mkdir(f"{root}/{folder}")  # noqa: PTH102
            except OSError:
                os.makedirs(f"{root}/{folder}", exist_ok=True)  # noqa: PTH103
            made = folder
        # Rows and columns of the metadata are those of the drawing that the name asks for.
        seed_path, digest = seeds[pixels.which(name)]
        os.link(seed_path, f"{root}/{stem}.jpg")
        lines.append(f"{digest} {stem}.jpg\n")
    for seed_path, _ in seeds:
        os.unlink(seed_path)  # noqa: PTH108
    return lines


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2])), "images")
