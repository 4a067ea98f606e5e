"""A tiny CheXpert in its real layout, and its training table at full size and form."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from tests.generators.full.chexpert import Chexpert
from tests.generators.small.pictures import jpeg
from tests.generators.small.released import Released

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(NAMES)}"
# patient/study/view, sex, age, side, beam, the labels that are not blank
TRAIN = (
    ("patient00001/study1/view1_frontal", "Female", 68, "Frontal", "AP", {"No Finding": 1, "Support Devices": 1}),
    (
        "patient00002/study2/view1_frontal",
        "Female",
        87,
        "Frontal",
        "AP",
        {"Lung Opacity": -1, "Edema": 1, "Fracture": 1},
    ),
    ("patient00002/study1/view1_frontal", "Female", 83, "Frontal", "AP", {"Cardiomegaly": 0, "Edema": -1}),
    ("patient00002/study1/view2_lateral", "Female", 83, "Lateral", "", {"Cardiomegaly": 0, "Edema": -1}),
    ("patient00003/study1/view1_frontal", "Male", 90, "Frontal", "PA", {"Pleural Effusion": 1, "Cardiomegaly": 1}),
    ("patient07958/study5/view2_frontal", "Male", 41, "Frontal", "LL", {"Atelectasis": -1}),
    ("patient33093/study1/view1_frontal", "Unknown", 51, "Frontal", "AP", {}),
    ("patient64538/study1/view1_frontal", "Male", 0, "Frontal", "AP", {"Pneumonia": -1, "Pneumothorax": 0}),
)
VALID = (
    ("patient64541/study1/view1_frontal", "Male", 73, "Frontal", "AP", {"Cardiomegaly": 1}),
    ("patient64542/study1/view1_frontal", "Male", 70, "Frontal", "PA", {"No Finding": 1}),
)
TEST = (
    ("patient64741/study1/view1_frontal", {"Support Devices": 1}),
    ("patient64741/study1/view2_lateral", {"Support Devices": 1}),
)


def _cells(labels: dict[str, int], *, blank: str, names: tuple[str, ...] = NAMES) -> str:
    return ",".join(f"{labels[name]}.0" if name in labels else blank for name in names)


def table(rows: tuple[tuple[object, ...], ...], part: str, prefix: str, *, blank: str = "") -> str:
    lines = [
        f"{prefix}/{part}/{image}.jpg,{sex},{age},{side},{beam},{_cells(labels, blank=blank)}"
        for image, sex, age, side, beam, labels in rows
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def write(root: Path, *, release: str = "v1.0-small", images: bool = True, layout: str = "released") -> Released:
    """Write the release below ``root``; ``layout`` is released, batches (the portal's) or kaggle (no top folder)."""
    prefix = f"CheXpert-{release}"
    top = {"released": root / prefix, "kaggle": root, "batches": root / "CheXpert-v1.0 batch 1 (validate & csv)"}[
        layout
    ]
    top.mkdir(parents=True, exist_ok=True)
    (top / "train.csv").write_text(table(TRAIN, "train", prefix), encoding="ascii")
    (top / "valid.csv").write_text(table(VALID, "valid", prefix, blank="0.0"), encoding="ascii")
    paths = []
    for part, rows in (("train", TRAIN), ("valid", VALID)):
        for index, row in enumerate(rows):
            if layout == "batches" and part == "train":
                path = f"CheXpert-v1.0 batch {2 + index % 3} (train {1 + index % 3})/{row[0]}.jpg"
            else:
                path = (top / part / f"{row[0]}.jpg").relative_to(root).as_posix()
            paths.append(path)
            if images:
                jpeg(root / path, index)
    return Released(
        release,
        tuple(paths),
        patients=8,
        studies=9,
        splits={"train": 8, "validate": 2},
        labels={"chexpert-labeler": 8, "radiologist": 2},
    )


def write_test_set(root: Path) -> None:
    """Add the test labels by image (CheXlocalize) and by study (the public repository), without a last line end."""
    lines = [f"test/{image}.jpg,{_cells(labels, blank='0.0').replace('.0', '')}" for image, labels in TEST]
    (root / "test_labels.csv").write_text("\n".join([f"Path,{','.join(NAMES)}", *lines, ""]), encoding="ascii")


def write_ground_truth(root: Path) -> None:
    cells = _cells({"Support Devices": 1}, blank="0.0").replace(".0", "")
    text = f"Study,{','.join(NAMES)}\nCheXpert-v1.0/test/patient64741/study1,{cells}"
    (root / "groundtruth.csv").write_text(text, encoding="ascii")


def write_chexbert(root: Path) -> None:
    """Add CheXbert's labels, No Finding last, and VisualCheXbert's without -1 and blanks; both with the full prefix."""
    order = (*NAMES[1:], "No Finding")
    for name, blank in (("train_cheXbert.csv", ""), ("train_visualCheXbert.csv", "0.0")):
        lines = [f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(order)}"]
        for image, sex, age, side, beam, labels in TRAIN:
            kept = {n: v for n, v in labels.items() if v != -1 or not blank}
            lines.append(
                f"CheXpert-v1.0/train/{image}.jpg,{sex},{age},{side},{beam},{_cells(kept, blank=blank, names=order)}"
            )
        (root / name).write_text("\n".join(lines) + "\n", encoding="ascii")


def full_table(seed: int = 5) -> str:
    """A ``train.csv`` of the release's size, with its counts of images and studies for each observation and value.

    Patients ascend and their rows do not, as in the released table.
    """
    header, *lines = Chexpert.generate(seed=seed).train_csv()
    rng = random.Random(seed)
    shuffled: list[str] = []
    for _, rows in itertools.groupby(lines, key=lambda line: line[: line.index("/study")]):
        of_patient = list(rows)
        rng.shuffle(of_patient)
        shuffled += of_patient
    return "\n".join([header, *shuffled]) + "\n"
