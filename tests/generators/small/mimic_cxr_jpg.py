"""A tiny MIMIC-CXR-JPG in its real layout, with the headers of the release's tables."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from tests.generators.small.pictures import jpeg
from tests.generators.small.released import Released

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
_CODES = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral", "LL": "left lateral"}
# dicom id, subject, study, view, rows, columns, date, time, split
IMAGES = (
    (
        "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014",
        10000032,
        50414267,
        "PA",
        3056,
        2544,
        21800506,
        "213014.531",
        "train",
    ),
    (
        "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962",
        10000032,
        50414267,
        "LATERAL",
        3056,
        2544,
        21800506,
        "213014.531",
        "train",
    ),
    (
        "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab",
        10000032,
        53189527,
        "PA",
        3056,
        2544,
        21800626,
        "165500.312",
        "train",
    ),
    (
        "68b5c4b1-227d0485-9cc38c3f-7b84ab51-4b472714",
        10000032,
        53911762,
        "AP",
        2705,
        2539,
        21800723,
        "80556.875",
        "train",
    ),
    ("8061113f-c019f3ae-fd1b7c54-33e8690d-be838099", 10000764, 57375967, "", 3056, 2544, 21321015, "930.5", "validate"),
    (
        "b79e55c3-735ce5ac-64412506-cdc9ea79-f1af521f",
        10000764,
        57375967,
        "LL",
        3056,
        2544,
        21321015,
        "930.5",
        "validate",
    ),
    (
        "dcfeeac4-1597e318-d0e6736a-8b2c2238-47ac3f1b",
        10000898,
        50771383,
        "AP AXIAL",
        2544,
        3056,
        21880323,
        "10203.0",
        "test",
    ),
)
# study without usable text, so that no labeler has a row for it
UNLABELLED = 53911762
LABELS = {
    50414267: {"No Finding": 1},
    53189527: {"Pneumonia": -1, "Pleural Effusion": 0, "Lung Opacity": 1},
    57375967: {},
    50771383: {"Cardiomegaly": 1, "Edema": 1, "Support Devices": 1},
}
SUBJECTS = {study: subject for _, subject, study, *_ in IMAGES}


def write_lines(path: Path, lines: list[str]) -> None:
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _cells(labels: dict[str, int]) -> str:
    return ",".join(f"{labels[name]}.0" if name in labels else "" for name in NAMES)


def stem(image: tuple[object, ...]) -> str:
    name, subject, study = image[:3]
    return f"files/p{str(subject)[:2]}/p{subject}/s{study}/{name}"


def write_tables(root: Path) -> None:
    """Write the tables of the JPG project."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, subject, study, view, height, width, date, time, _ in IMAGES:
        procedure = "CHEST (PORTABLE AP)" if view == "AP" else "CHEST (PA AND LAT)"
        rows.append(
            f"{name},{subject},{study},{procedure},{view},{height},{width},{date},{time},"
            f"{procedure.replace('AND', 'and')},{_CODES.get(view, '')},Erect"
        )
    write_lines(root / "mimic-cxr-2.0.0-metadata.csv.gz", [METADATA, *rows])
    splits = [f"{name},{study},{subject},{split}" for name, subject, study, *_, split in reversed(IMAGES)]
    write_lines(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id,study_id,subject_id,split", *splits])
    for labeler, extra in (("chexpert", {}), ("negbio", {"Fracture": 0})):
        labels = [f"{SUBJECTS[study]},{study},{_cells({**known, **extra})}" for study, known in LABELS.items()]
        write_lines(root / f"mimic-cxr-2.0.0-{labeler}.csv.gz", [f"subject_id,study_id,{','.join(NAMES)}", *labels])
    header = "study_id," + ",".join(NAMES).replace("Lung Opacity", "Airspace Opacity")
    cells = _cells({"Cardiomegaly": 1, "Lung Opacity": -1, "No Finding": 0}).split(",")
    cells[0] = "_"
    write_lines(root / "mimic-cxr-2.1.0-test-set-labeled.csv", [header, f"50771383,{','.join(cells)}"])
    write_lines(root / "IMAGE_FILENAMES", sorted(f"{stem(image)}.jpg" for image in IMAGES))


def released() -> Released:
    return Released(
        "2.1.0",
        tuple(f"{stem(image)}.jpg" for image in IMAGES),
        patients=3,
        studies=5,
        splits={"train": 4, "validate": 2, "test": 1},
        labels={"chexpert-labeler": 7, "negbio": 7, "radiologist": 1},
    )


def write(root: Path, *, images: bool = True) -> Released:
    """Write the release below ``root`` as PhysioNet serves it."""
    write_tables(root)
    for index, image in enumerate(IMAGES if images else ()):
        jpeg(root / f"{stem(image)}.jpg", index)
    return released()
