"""Ids come as words, lists, CSV or Parquet; the most precise column decides, and a file without ids is named."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.config.job import SelectionSettings
from cxrprep.errors import NothingSelectedError, TableError, UsageError
from cxrprep.selection.options import selection_of


def test_words_and_files_mix(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("# the difficult ones\np3\n\np4\n")
    selection = selection_of(SelectionSettings(patients=("p1", "p2", str(tmp_path / "more.txt"))))
    assert selection.patients == {"p1", "p2", "p3", "p4"}


def test_a_heading_is_not_an_id(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("subject_id\n10000032\n")
    assert selection_of(SelectionSettings(patients=(str(tmp_path / "ids.csv"),))).patients == {"10000032"}


def test_the_column_of_the_kind_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("note,study_id,subject_id\nx,50414267,10000032\n")
    chosen_studies = selection_of(SelectionSettings(studies=(str(tmp_path / "ids.csv"),)))
    assert chosen_studies.studies == {"50414267"}
    assert not chosen_studies.patients


def test_images_decide_over_patients(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("dicom_id,study_id,subject_id\na,50,10\nb,51,10\n")
    selection = selection_of(SelectionSettings(ids=str(tmp_path / "ids.csv")))
    assert selection.images == {"a", "b"}
    assert not selection.studies
    assert not selection.patients


def test_parquet_with_numbers_is_read_as_text(tmp_path: Path) -> None:
    table = pa.table({"study_id": pa.array([50414267, None]), "other": ["x", "y"]})
    pq.write_table(table, tmp_path / "ids.parquet")
    assert selection_of(SelectionSettings(ids=str(tmp_path / "ids.parquet"))).studies == {"50414267"}


def test_a_plain_list_names_images(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf00000001_000\r\n00000001_001\r\n")
    assert selection_of(SelectionSettings(ids=str(tmp_path / "ids.txt"))).images == {"00000001_000", "00000001_001"}


@pytest.mark.parametrize(
    ("lines", "images"),
    [
        # NIH's own lists and table, CheXpert's table, MIMIC-CXR's list of records, and a converted folder's manifest.
        ("00000001_000.png\n00000013_005.png\n", {"00000001_000", "00000013_005"}),
        ("Image Index,Finding Labels,Patient ID\n00000001_000.png,No Finding,1\n", {"00000001_000"}),
        (
            "Path,Sex\nCheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male\n",
            {"patient64541/study1/view1_frontal"},
        ),
        (
            "path\nfiles/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.dcm\n",
            {"02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"},
        ),
        (
            "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg\n",
            {"02aa804e-bde0afdd-112c0b34-7bc16630-4e384014"},
        ),
        ("path\nimages/patient64541/study1/view1_frontal.png\n", {"patient64541/study1/view1_frontal"}),
    ],
)
def test_images_may_be_named_by_file_or_path(tmp_path: Path, lines: str, images: set[str]) -> None:
    (tmp_path / "ids.csv").write_text(lines)
    assert selection_of(SelectionSettings(ids=str(tmp_path / "ids.csv"))).images == images


def test_a_list_of_studies_with_their_reports_names_studies(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("subject_id,study_id,path\n10000032,50414267,files/p10/p10000032/s50414267.txt\n")
    selection = selection_of(SelectionSettings(ids=str(tmp_path / "ids.csv")))
    assert selection.studies == {"50414267"}
    assert not selection.images


@pytest.mark.parametrize("content", ["image_id\n", "patient_id\n", "# nobody\n", "patient_id,study_id\n,\n"])
@pytest.mark.parametrize("option", ["ids", "patients"])
def test_a_file_that_names_nobody_does_not_mean_everybody(tmp_path: Path, content: str, option: str) -> None:
    file = tmp_path / "cohort.csv"
    file.write_text(content)
    value = str(file) if option == "ids" else (str(file),)
    with pytest.raises((NothingSelectedError, UsageError), match=r"cohort\.csv"):
        selection_of(SelectionSettings(**{option: value}))


def test_a_study_may_be_named_with_its_patient() -> None:
    words = ("patient64541/study1", "p10000032/s50414267", "1/2")
    assert selection_of(SelectionSettings(studies=words)).studies == set(words)
    with pytest.raises(UsageError, match="there is no file lists/mine"):
        selection_of(SelectionSettings(studies=("lists/mine",)))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("x.csv", b"a,b\n1,2\n", UsageError),
        ("x.txt", b"", UsageError),
        ("x.txt", b"\xff\xfe\x00", UsageError),
        ("y.csv", b'"' + b"a" * 200_000, UsageError),
        ("x.parquet", b"PAR1", TableError),
    ],
)
def test_a_file_without_ids_is_named(tmp_path: Path, name: str, content: bytes, kind: type[Exception]) -> None:
    # Reading reports raises this limit for the whole process; here it is what a fresh one has.
    csv.field_size_limit(131_072)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=name):
        selection_of(SelectionSettings(ids=str(tmp_path / name)))


def test_a_missing_file_is_named() -> None:
    for settings in (SelectionSettings(ids="gone.csv"), SelectionSettings(patients=("lists/gone",))):
        with pytest.raises(UsageError, match="gone"):
            selection_of(settings)
