"""A tiny MIMIC-CXR in its real layout: DICOM, reports, and the three lists; labels come from the JPG project."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.generators.small import mimic_cxr_jpg as jpg
from tests.generators.small.pictures import dicom

if TYPE_CHECKING:
    from pathlib import Path

    from tests.generators.small.released import Released

REPORT = " " * 33 + "FINAL REPORT\n EXAMINATION:  CHEST\n \n IMPRESSION: \n \n Study {study}: no acute process.\n"


def write_lists(root: Path) -> None:
    """Write what the DICOM project has at its top."""
    root.mkdir(parents=True, exist_ok=True)
    records = [f"{image[1]},{image[2]},{image[0]},{jpg.stem(image)}.dcm" for image in jpg.IMAGES]
    jpg.write_lines(root / "cxr-record-list.csv.gz", ["subject_id,study_id,dicom_id,path", *records])
    reports = {study: f"files/p{str(subject)[:2]}/p{subject}/s{study}.txt" for study, subject in jpg.SUBJECTS.items()}
    studies = [f"{jpg.SUBJECTS[study]},{study},{path}" for study, path in reports.items()]
    jpg.write_lines(root / "cxr-study-list.csv.gz", ["subject_id,study_id,path", *studies])
    header = "subject_id,study_id,ordering_provider_id,attending_provider_id,resident_provider_id"
    providers = [f"{subject},{study},P003AB,P004CD," for study, subject in jpg.SUBJECTS.items()]
    jpg.write_lines(root / "cxr-provider-list.csv.gz", [header, *providers])
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        for study, path in reports.items():
            archive.writestr(zipfile.ZipInfo(path), REPORT.format(study=study))
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(REPORT.format(study=study), encoding="ascii")


def write(root: Path, *, images: bool = True, labels: bool = True) -> Released:
    """Write the release below ``root``; with ``labels`` the JPG project's tables lie beside, as labs keep them."""
    write_lists(root)
    for index, image in enumerate(jpg.IMAGES if images else ()):
        dicom(root / f"{jpg.stem(image)}.dcm", index)
    found = jpg.released()
    if labels:
        jpg.write_tables(root)
        (root / "IMAGE_FILENAMES").unlink()
    else:
        found = replace(found, splits={"": 7}, labels={})
    return replace(found, images=tuple(path.replace(".jpg", ".dcm") for path in found.images))


def write_patients(path: Path) -> None:
    """MIMIC-IV's patients: two of the three; one of them over 89."""
    header = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"
    jpg.write_lines(path, [header, "10000032,F,52,2180,2014 - 2016,", "10000764,M,91,2132,2014 - 2016,"])
