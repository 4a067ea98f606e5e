"""A tiny NIH ChestX-ray14 in its real layout, quirks of both label tables included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.generators.small.pictures import png
from tests.generators.small.released import Released

if TYPE_CHECKING:
    from pathlib import Path

_SIZES = "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
HEADER_V2020 = f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,{_SIZES}"
HEADER_2017 = f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,{_SIZES},"
# image, findings, follow-up of v2020, age, sex, view, width, height, spacing
ROWS = (
    ("00000001_000", "Cardiomegaly", 0, 57, "M", "PA", 2682, 2749, "0.143"),
    ("00000001_001", "Cardiomegaly|Emphysema", 1, 58, "M", "PA", 2894, 2729, "0.143"),
    ("00000002_000", "No Finding", 0, 80, "M", "PA", 2500, 2048, "0.171"),
    ("00000003_000", "Hernia", 1, 74, "F", "PA", 2500, 2048, "0.168"),
    ("00000003_001", "Hernia|Infiltration", 0, 73, "F", "AP", 3056, 2544, "0.139"),
    ("00000004_000", "Mass|Nodule|Pleural_Thickening", 0, 0, "M", "AP", 2500, 2048, "0.168"),
    ("00000005_000", "Effusion|Infiltration|Pneumonia", 0, 69, "F", "PA", 2048, 2500, "0.168"),
)
TEST = ("00000003_000", "00000003_001", "00000005_000")
BOXES = (
    ("00000003_001", "Infiltrate", 100.5, 200.25, 300.0, 80.5),
    ("00000005_000", "Effusion", 10.0, 20.0, 30.5, 40.5),
    ("00000005_000", "Infiltrate", 512.0, 500.0, 100.0, 90.0),
)


def table_v2020(rows: tuple[tuple[object, ...], ...] = ROWS) -> str:
    lines = [HEADER_V2020]
    for name, findings, follow_up, age, sex, view, width, height, spacing in rows:
        patient = int(str(name)[:8])
        lines.append(
            f"{name}.png,{findings},{follow_up},{patient},{age},{sex},{view},{width},{height},{spacing},{spacing}"
        )
    return "\n".join(lines) + "\n"


def table_2017(rows: tuple[tuple[object, ...], ...] = ROWS) -> str:
    lines = [HEADER_2017]
    for name, findings, _, age, sex, view, width, height, spacing in rows:
        words = str(findings).replace("|Pneumonia", "")  # v2020 adds findings to images of the test list
        shown = "018M" if age == 0 else f"{int(str(age)) + 1:03d}Y"
        lines.append(
            f"{name}.png,{words},{str(name)[9:]},{str(name)[:8]},{shown},{sex},{view},{width},{height},{spacing},{spacing}"
        )
    return "\r\n".join(lines) + "\r\n"


def write(root: Path, *, release: str = "v2020", images: bool = True, size: int = 64) -> Released:
    """Write the release below ``root`` as code written for it expects."""
    root.mkdir(parents=True, exist_ok=True)
    if release == "v2020":
        (root / "Data_Entry_2017_v2020.csv").write_bytes(table_v2020().encode())
    else:
        (root / "Data_Entry_2017.csv").write_bytes(table_2017().encode())
    names = [f"{row[0]}.png" for row in ROWS]
    test = [f"{name}.png" for name in TEST]
    (root / "test_list.txt").write_bytes("\n".join(test).encode())
    (root / "train_val_list.txt").write_bytes("\n".join(n for n in names if n not in test).encode())
    boxes = [f"{name}.png,{word},{x},{y},{w},{h}" for name, word, x, y, w, h in BOXES]
    (root / "BBox_List_2017.csv").write_bytes(
        "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes, ""]).encode()
    )
    for index, name in enumerate(names if images else ()):
        png(root / "images" / name, index, width=size, height=size, rgba=index == 1)
    return Released(
        release,
        tuple(f"images/{name}" for name in names),
        patients=5,
        studies=7,
        splits={"train_val": 4, "test": 3},
        labels={"nih-textmined": 7},
    )


def write_google(root: Path) -> None:
    """Add Google's adjudicated labels of one validation and one test image, with ages of neither final table."""
    header = (
        f"{HEADER_V2020.replace('Patient Sex', 'Patient Gender')},Fracture,Pneumothorax,Airspace opacity,Nodule or mass"
    )
    folder = root / "four_findings_expert_labels"
    folder.mkdir(parents=True)
    row = "{}.png,{},9,{},33,M,PA,2500,2048,0.168,0.168,{}\n"
    (folder / "validation_labels.csv").write_text(
        header + "\n" + row.format("00000002_000", "No Finding", 2, "YES,NO,NO,YES"), encoding="ascii"
    )
    (folder / "test_labels.csv").write_text(
        header + "\n" + row.format("00000003_000", "Hernia", 3, "NO,HEDGE,YES,NO"), encoding="ascii"
    )
