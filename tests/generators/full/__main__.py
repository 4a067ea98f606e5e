"""Writes a generated release of real layout and numbers.

usage: python -m tests.generators.full DATASET FOLDER [--images N] [--seed S] [--files]

DATASET is mimic-cxr, mimic-cxr-jpg, chexpert or nih-chestxray14. MIMIC's images are left out unless ``--files``, since
``tests.generators.full.server`` makes them on demand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.generators.full.chexpert import PATIENTS, Chexpert
from tests.generators.full.mimic_cxr import IMAGES, Mimic
from tests.generators.full.nih_chestxray14 import IMAGES as NIH_IMAGES
from tests.generators.full.nih_chestxray14 import Nih

_CHEXPERT_IMAGES = 223_648


def write(dataset: str, folder: Path, *, images: int | None = None, seed: int = 7, files: bool = False) -> int:
    """Write ``dataset`` with about ``images`` images (all of them by default) to ``folder``; how many it has."""
    if dataset == "nih-chestxray14":
        return Nih.generate(images or NIH_IMAGES, seed).write(folder)
    if dataset == "chexpert":
        patients = PATIENTS if images is None else max(40, round(images * PATIENTS / _CHEXPERT_IMAGES))
        return Chexpert.generate(patients, seed).write(folder)
    release = Mimic.generate(images or IMAGES, seed)
    release.write_tables(dataset, folder)
    if files:
        release.write_files(dataset, folder)
    return int(release.images.sum())


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=("mimic-cxr", "mimic-cxr-jpg", "chexpert", "nih-chestxray14"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--files", action="store_true", help="write MIMIC's images as well")
    options = parser.parse_args()
    count = write(options.dataset, options.folder, images=options.images, seed=options.seed, files=options.files)
    print(f"{count} images of a generated {options.dataset} in {options.folder}")


if __name__ == "__main__":
    main()
