"""The folders with which a random sequence begins: a release, its mirror, a hospital's own, reports and labels."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from tests.api.convert import hospital
from tests.collection.sequences import Store, World
from tests.commands import ok
from tests.datasets.test_declaration import ward
from tests.generators.small import declared
from tests.manifest.made import made, remade

if TYPE_CHECKING:
    from pathlib import Path

WARD = "ward-7"
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
    if name == WARD:
        # The dataset of the guide: its file is in a catalog that CXRPREP_CATALOG names.
        ward(folder / "raw")
        ok("extract-labels", folder / "raw", "--dataset", name)
    elif name in DECLARED:
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


def world(
    folder: Path, home: Path, name: str, rng: random.Random, *, shared: bool = False, store: Store | None = None
) -> World:
    """A copy of what ``release`` made, in ``home``.

    Args:
        folder: What ``release`` made.
        home: Where the copy goes.
        name: The dataset.
        rng: Draws the commands.
        shared: Have one more copy of the release that may only be read.
        store: A bucket.

    Returns:
        The folders of a sequence.
    """
    shutil.copytree(folder, home, dirs_exist_ok=True)
    if shared:
        shutil.copytree(folder / "raw", home / "shared")
    for root in ("raw", "fetched"):
        (home / f"{root}.toml").write_text(_JOB.format(name=name, root=home / root, source=home / "mirror"))
    return World(home, name, rng, store=store)
