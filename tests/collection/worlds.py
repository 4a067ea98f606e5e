"""The folders with which a random sequence begins: a release, its mirror, a hospital's own, reports and labels."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tests.api.convert import hospital
from tests.collection.sequences import World
from tests.generators.small import declared
from tests.manifest.made import made, remade

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("nih-chestxray14", "chexpert", "mimic-cxr", "mimic-cxr-jpg")
DECLARED = (
    "openi", "padchest", "vindr-cxr", "rsna-pneumonia", "siim-acr-pneumothorax", "shenzhen-tb", "montgomery-tb",
    "brax", "chexlocalize",
)  # fmt: skip
_JOB = """dataset = "{name}"
root = "{root}"
[download]
source = "{source}"
[convert]
recipe = "square-224"
"""
_WORDS = """[[observation]]
name = "Large Heart"
findings = ["heart is enlarged"]
"""
_REPORTS = ("FINDINGS: The heart is enlarged.\nIMPRESSION: No pneumothorax.", "IMPRESSION: Edema.")


def release(name: str, folder: Path) -> Path:
    """A tiny release with labels and manifest, and a hospital's folder, to be copied."""
    if name in DECLARED:
        declared.write(folder / "raw", name)
        remade(name, folder / "raw")
    else:
        made(name, folder / "raw")
    shutil.copytree(folder / "raw", folder / "mirror", ignore=shutil.ignore_patterns("manifests"))
    hospital.write(folder / "own")
    table = pq.read_table(folder / "raw/manifests/studies.parquet", columns=["study_id"])
    (folder / "words.toml").write_text(_WORDS)
    studies = sorted(set(table["study_id"].to_pylist()))
    for number, text in enumerate(_REPORTS, 1):
        lines = [f'{study},"{text}"' for study in studies]
        (folder / f"reports{number}.csv").write_text("\n".join(["study_id,report", *lines]) + "\n")
        lines = [f"{study},{number % 2},," for study in studies]
        (folder / f"theirs{number}.csv").write_text("\n".join(["study_id,Edema,Pneumonia,Cardiomegaly", *lines]) + "\n")
    return folder


def world(folder: Path, home: Path, name: str, rng: random.Random) -> World:
    """A copy of what ``release`` made, in ``home``."""
    shutil.copytree(folder, home, dirs_exist_ok=True)
    for root in ("raw", "fetched"):
        (home / f"{root}.toml").write_text(_JOB.format(name=name, root=home / root, source=home / "mirror"))
    return World(home, name, rng)
