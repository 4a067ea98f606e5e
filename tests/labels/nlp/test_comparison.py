"""Label tables of any labeler: read, taken over, and laid side by side."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.api.compare_labels import agreement_rows, compare_labels, confusion_rows
from cxrprep.api.report_labels import import_labels
from cxrprep.errors import TableError, UsageError
from cxrprep.labels.agreement import Scores, agreement_of, compare_tables
from cxrprep.labels.label_table import read_label_table
from cxrprep.labels.nlp.label_collection import label_collection
from cxrprep.labels.nlp.ruleset import OBSERVATIONS
from tests.labels.nlp.collections import labels, member, mimic_zip, table_csv
from tests.labels.nlp.test_label_sources import run

CHEXPERT_LABELER = (
    "Reports", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip


def test_kappa_and_f1_of_a_worked_example() -> None:
    # 20 reports: observed agreement 0.7, by chance 0.5, so kappa is 0.4.
    pairs = [(1, 1)] * 7 + [(1, 0)] * 3 + [(0, 1)] * 3 + [(0, 0)] * 7
    found = agreement_of("Edema", Counter(pairs))
    assert found.agreement == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.f1 == {1: pytest.approx(0.7), 0: pytest.approx(0.7), -1: None}
    assert found.confusion[1, 0] == 3
    assert sum(found.confusion.values()) == 20


def test_tables_that_always_say_one_thing_have_no_kappa() -> None:
    assert agreement_of("Edema", {(None, None): 4}).kappa is None


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (CHEXPERT_LABELER, ["No edema.", "1.0", *[""] * 4, "0.0", *[""] * 8, ""][:15], {"No Finding": 1, "Edema": 0}),
        (("Report Impression", "Airspace Opacity", "edema"), ("x", "-1", "1.0"), {"Lung Opacity": -1, "Edema": 1}),
        (("subject_id", "study_id", "Pleural Effusion"), ("1", "50000000", "-1.0"), {"Pleural Effusion": -1}),
        (("Image Index", "id", "Effusion", "label_edema"), ("x", "1", "1", ""), {"Pleural Effusion": 1, "Edema": None}),
    ],
)
def test_other_labelers_are_known_by_their_columns(
    tmp_path: Path, header: tuple[str, ...], row: list[str], expected: dict[str, int]
) -> None:
    read = read_label_table(table_csv(tmp_path / "theirs.csv", header, [row]))
    assert {name: read.columns[name][0] for name in expected} == expected


def test_a_gzipped_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mimic-cxr-2.0.0-negbio.csv.gz"
    path.write_bytes(gzip.compress(b"subject_id,study_id,Edema\n1,50000000,1.0\n"))
    assert read_label_table(path).columns == {"Edema": (1,)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,Edema\n1,2\n", "line 2, Edema: '2' is no label"),
        ("id,Edema\n1\n", "line 2: 1 cells, the header has 2"),
        ("id,view\n1,PA\n", "no column that names an observation"),
        ("", "is empty"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(TableError, match=complaint):
        read_label_table(path)


def test_our_table_meets_one_that_names_studies_otherwise(tmp_path: Path) -> None:
    ours = label_collection(mimic_zip(tmp_path / "r.zip", 30), tmp_path).labels
    rows = [(f"s{50_000_000 + n}", "1" if row["label_edema"] == 1 else "0") for n, row in enumerate(labels(ours))]
    theirs = table_csv(tmp_path / "theirs.csv", ("study", "Edema"), [*rows[:20], ("s59999999", "1")])
    found = compare_tables(theirs, ours)
    assert (found.common, found.only_first, found.only_second) == (20, 1, 10)
    assert found.keys[0] == "study"
    by_name = table_csv(tmp_path / "names.csv", ("path", "Edema"), [(member(3), "1")])
    assert compare_tables(by_name, ours).common == 1


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    a = table_csv(tmp_path / "a.csv", ("id", "Edema"), [("1", "1"), ("2", "0")])
    with pytest.raises(UsageError, match="no key in common"):
        compare_tables(a, table_csv(tmp_path / "b.csv", ("id", "Edema"), [("3", "1")]))
    with pytest.raises(UsageError, match="no observation in common"):
        compare_tables(a, table_csv(tmp_path / "c.csv", ("id", "Fracture"), [("1", "1")]))
    with pytest.raises(UsageError, match="no id column"):
        compare_tables(a, table_csv(tmp_path / "d.csv", ("number", "Edema"), [("1", "1")]))
    with pytest.raises(TableError, match="rows 1 and 2 have the same id"):
        compare_tables(table_csv(tmp_path / "e.csv", ("id", "Edema"), [("1", "1"), ("1", "0")]), a)
    with pytest.raises(UsageError, match="has no column 'nr'"):
        compare_tables(a, a, key="nr")
    named = table_csv(tmp_path / "f.csv", ("id", "nr", "Edema"), [("x", "1", "1")])
    assert compare_tables(named, named, key="nr").keys == ("nr", "nr")


def test_the_verb_gives_rows_for_people_and_confusion_for_machines(tmp_path: Path) -> None:
    a = table_csv(tmp_path / "a.csv", ("id", "Edema"), [("1", "1"), ("2", "0"), ("3", ""), ("4", "-1")])
    b = table_csv(tmp_path / "b.csv", ("id", "Edema"), [("1", "1"), ("2", "-1"), ("3", ""), ("4", "-1")])
    result = compare_labels(a, b)
    (edema,) = result.to_dict()["observations"]
    assert edema["agreement"] == pytest.approx(0.75)
    assert {"first": 0, "second": -1, "count": 1} in edema["confusion"]
    row, micro, macro, weighted = agreement_rows(result.value)
    assert (row["agreement"], row["positive"]) == ("0.750", "1.000 1.000 1.000")
    assert (row["uncertain"], row["negative"]) == ("0.500 1.000 0.667", "  -   0.000 0.000")
    assert [one["observation"] for one in (micro, macro, weighted)] == ["micro", "macro", "weighted"]
    (counts,) = confusion_rows(result.value)
    assert (counts["of_positive"], counts["of_negative"], counts["of_null"]) == ("1 0 0 0", "0 0 1 0", "0 0 0 1")


def test_means_of_a_worked_example(tmp_path: Path) -> None:
    header = ("id", "Edema", "Fracture", "Pneumonia")
    # Edema: 3 true, 2 given, 2 both. Fracture: 1 true, 2 given, 1 both. Pneumonia: nobody has it.
    a = table_csv(tmp_path / "a.csv", header, [("1", "1", "1", ""), ("2", "1", "0", ""), ("3", "1", "0", "")])
    b = table_csv(tmp_path / "b.csv", header, [("1", "1", "1", ""), ("2", "1", "1", ""), ("3", "", "0", "")])
    found = compare_tables(a, b)
    assert found.micro(1) == Scores(pytest.approx(3 / 4), pytest.approx(3 / 4), pytest.approx(3 / 4))
    assert found.macro(1) == Scores(pytest.approx(3 / 4), pytest.approx(5 / 6), pytest.approx((4 / 5 + 2 / 3) / 2))
    assert found.weighted(1).f1 == pytest.approx((3 * 4 / 5 + 2 / 3) / 4)
    assert found.micro(-1) == Scores(None, None, None)
    data = compare_labels(a, b).to_dict()["summary"]
    assert data["macro"]["positive"]["recall"] == pytest.approx(5 / 6)


def test_label_sources_of_a_folder_and_the_list_of_nih(tmp_path: Path) -> None:
    rows = {
        "image_id": ["00000001_000.png", "00000001_001.png"] * 3, "study_id": ["1", "2"] * 3,
        "label_source": ["nih"] * 2 + ["readers"] * 2 + ["cxrprep"] * 2, "label_edema": [1, 0, 1, 1, 1, -1],
    }  # fmt: skip
    (tmp_path / "manifests").mkdir()
    labels_table = tmp_path / "manifests" / "labels.parquet"
    pq.write_table(pa.table(rows), labels_table)
    listed = table_csv(
        tmp_path / "Data_Entry_2017_v2020.csv",
        ("Image Index", "Finding Labels", "Patient ID"),
        [("00000001_000.png", "Edema|Pleural_Thickening", "1"), ("00000001_001.png", "No Finding", "1")],
    )
    compared = compare_labels("readers", "nih", "cxrprep", listed, root=tmp_path).value
    edema = [one.observations[0].confusion for one in (compared, *compared.others)]
    assert [each[1, 1] for each in edema] == [1, 1, 1]
    assert [each[1, 0] for each in edema] == [1, 0, 1]
    assert edema[1][1, -1] == 1
    assert read_label_table(listed).columns["No Finding"] == (0, 1)
    told = run("extract-labels", tmp_path, "--compare", "readers", "nih", "--also", listed)
    assert "readers as the reference" in told
    assert "weighted" in told
    found = json.loads(run("extract-labels", tmp_path, "--compare", "readers", "nih", "--also", "cxrprep", "--json"))
    assert [one["second"] for one in found["comparisons"]] == ["nih", "cxrprep"]
    with pytest.raises(UsageError, match="3 label sources"):
        compare_tables(labels_table, listed)
    with pytest.raises(UsageError, match="no labels of chexbert") as unknown:
        compare_labels("nih", "chexbert", root=tmp_path)
    assert "cxrprep, nih, readers" in str(unknown.value.hint)
    # The hint.
    run("extract-labels", tmp_path, "--compare", "cxrprep", "nih")
    wrong = table_csv(tmp_path / "x.csv", ("Image Index", "Finding Labels"), [("a.png", "Edema|Odema")])
    with pytest.raises(TableError, match="line 2, Finding Labels: 'Odema' is not a finding"):
        read_label_table(wrong)


def test_another_labelers_table_becomes_ours_without_its_texts(tmp_path: Path) -> None:
    text = "Secret words of a report."
    source = table_csv(
        tmp_path / "labeled_reports.csv", CHEXPERT_LABELER, [[text, "1", *[""] * 13], ["b", *["0"] * 14]]
    )
    made = import_labels(tmp_path / "out", source).value
    rows = labels(made.labels)
    assert [row["report_id"] for row in rows] == ["row-0", "row-1"]
    assert [row["label_no_finding"] for row in rows] == [1, 0]
    assert made.observations == OBSERVATIONS
    assert text.encode() not in made.labels.read_bytes()
    assert not any(text in str(row) for row in rows)


def test_an_import_keeps_ids_and_can_be_compared(tmp_path: Path) -> None:
    header = ("subject_id", "study_id", "Edema", "Airspace Opacity")
    source = table_csv(tmp_path / "negbio.csv", header, [("10000032", "50414267", "1.0", "-1.0")])
    made = import_labels(tmp_path / "out", source).value
    (row,) = labels(made.labels)
    assert (row["report_id"], row["patient_id"], row["study_id"]) == ("50414267", "10000032", "50414267")
    assert (row["label_edema"], row["label_lung_opacity"]) == (1, -1)
    assert compare_tables(source, made.labels).observations[0].agreement == 1


def test_precision_and_recall_of_a_worked_example() -> None:
    found = agreement_of("Edema", {(1, 1): 6, (1, 0): 2, (0, 1): 4, (None, None): 3})
    assert found.precision(1) == pytest.approx(0.6)
    assert found.recall(1) == pytest.approx(0.75)
    assert found.precision(-1) is None
    assert found.recall(-1) is None


def test_our_own_tables_and_blanks_of_the_human_one_are_read(tmp_path: Path) -> None:
    human = table_csv(tmp_path / "human.csv", ("study_id", "Edema", "Pneumonia"), [("50", "1", "_"), ("51", "0", "1")])
    ours = tmp_path / "images.parquet"
    rows = {
        "image_id": ["a", "b", "c"], "study_id": ["50", "50", "51"], "label_source": ["cxrprep"] * 3,
        "label_edema": [1, 1, 0], "label_pneumonia": [None, None, 1],
    }  # fmt: skip
    pq.write_table(pa.table(rows), ours)
    compared = compare_tables(human, ours)
    assert (compared.keys, compared.common) == (("study_id", "study_id"), 2)
    assert [one.agreement for one in compared.observations] == [1, 1]
