"""MIMIC-CXR-JPG of any size whose images are links to a few: millions of names on a disk that has no room for bytes.

usage: python -m tests.generators.full.linked FOLDER IMAGES
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.generators.full import pixels
from tests.generators.full.mimic_cxr import Mimic

# A file of ext4 has 65,000 names at most.
_NAMES = 60_000
_SMALL = {"LICENSE.txt": "Generated: no licence needed.\n", "README": "A generated release.\n"}


def write(folder: Path, images: int, seed: int = 7) -> int:
    """Write the release to ``folder``, tables and ``SHA256SUMS.txt`` as published; how many images it has."""
    release = Mimic.generate(images, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _tables(release, folder)
    with (folder / "SHA256SUMS.txt").open("w", encoding="ascii", newline="\n") as sums:
        for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS.txt"):
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n")
        for name, digest in _links(release, folder):
            sums.write(f"{digest} {name}\n")
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


def _links(release: Mimic, folder: Path) -> Iterator[tuple[str, str]]:
    """Make each image; its path and SHA-256."""
    seeds: dict[int, Path] = {}
    names = dict.fromkeys(range(pixels.DRAWN), 0)
    digests: dict[int, str] = {}
    root, made = str(folder), ""
    for path in release.paths("mimic-cxr-jpg"):
        below, _, name = path.rpartition("/")
        if below != made:
            # Plain text: a Path for each took a third of the time.
            os.makedirs(f"{root}/{below}", exist_ok=True)  # noqa: PTH103
            made = below
        # Rows and columns of the metadata are those of the drawing that the name asks for.
        drawing = pixels.which(name.removesuffix(".jpg"))
        if names[drawing] % _NAMES == 0:
            if drawing in seeds:
                seeds[drawing].unlink()
            seeds[drawing] = folder / f".drawing-{drawing:02d}.jpg"
            data = pixels.jpeg_like(drawing, f"{names[drawing] // _NAMES}")
            seeds[drawing].write_bytes(data)
            digests[drawing] = hashlib.sha256(data).hexdigest()
        names[drawing] += 1
        os.link(seeds[drawing], f"{root}/{path}")
        yield path, digests[drawing]
    for seed in seeds.values():
        seed.unlink()


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(sys.argv[2])), "images")
