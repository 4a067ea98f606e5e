"""Published numbers against the release's own tables: the real ones hold, and each change contradicts what it must."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cxrprep.datasets.catalog import catalog
from cxrprep.datasets.facts import DatasetSpec
from cxrprep.labels.extract import read_labels
from cxrprep.storage.patient_table import OneRange
from cxrprep.storage.value_codes import shared_patients
from cxrprep.verification.finding import Finding, Level
from cxrprep.verification.measures import MEASURES, READ_BY, Subject, measure
from cxrprep.verification.published_facts import FactStatus, check_facts, fact_columns
from tests.generators.small import chexpert, mimic_cxr_jpg
from tests.parts import shared_data
from tests.verification.trees import MIMIC, check, found, nih, remember

NIH = catalog()["nih-chestxray14"]


@cache
def real(release: str = "v2020") -> pa.Table:
    return read_labels(NIH, shared_data("nih-chestxray14"), release=release).table


def checked(labels: pa.Table, release: str = "v2020", **more: bool) -> tuple[dict[str, FactStatus], list[Finding]]:
    done = check_facts(NIH, release, Path("/nowhere"), OneRange(labels), **more)
    return {fact.id: fact.status for fact, _ in done}, [finding for _, several in done for finding in several]


def replaced(labels: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """``labels`` with one cell changed."""
    field = labels.schema.field(name)
    values = labels[name].cast(pa.string()) if pa.types.is_dictionary(field.type) else labels[name]
    cells = values.to_pylist()
    cells[row] = value
    return labels.set_column(labels.schema.get_field_index(name), field, pa.array(cells, field.type))


# ---- the catalog ----


@pytest.mark.parametrize("spec", catalog().values(), ids=lambda spec: spec.name)
def test_every_fact_has_an_id_a_source_a_level_and_a_measure_that_exists(spec: DatasetSpec) -> None:
    rows = real().slice(0, 3)
    assert len({fact.id for fact in spec.fact}) == len(spec.fact) > (0 if spec.module == "declared" else 10)
    for fact in spec.fact:
        assert fact.source
        assert fact.release in ("", *spec.releases)
        Level(fact.level)
        names = tuple(fact.value) if isinstance(fact.value, dict) else ()
        measure(fact.measure, Subject(rows, spec, spec.default_release, Path("/nowhere"), names))


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_measure_reads_no_column_but_those_that_are_read_for_it(name: str) -> None:
    spec = replace(NIH, fact=(replace(NIH.fact[0], release="", table="", measure=name),))
    name = {"splits": "splits.images"}.get(name, name)
    rows = real().slice(0, 3)
    columns = fact_columns(spec, "v2020", rows.schema.names)
    subject = Subject(rows.select(columns), spec, "v2020", Path("/nowhere"))
    assert measure(name, subject) == measure(name, replace(subject, rows=rows))
    assert {*READ_BY.values()} & {*columns} <= {READ_BY.get(name)}


@pytest.mark.parametrize("release", ["v2020", "2017"])
def test_the_real_tables_of_nih_hold_what_is_published(release: str) -> None:
    statuses, findings = checked(real(release), release)
    assert findings == []
    about_texts = {"NI-05-texts"} | ({"NI-04"} if release == "v2020" else set())
    assert {name for name, status in statuses.items() if status is FactStatus.EXPLAINED} == about_texts
    assert {name for name, status in statuses.items() if status is FactStatus.ABSENT} == {"NI-10"}
    assert set(statuses.values()) == {FactStatus.HOLDS, FactStatus.EXPLAINED, FactStatus.ABSENT}


# ---- contradictions ----


def ids(findings: list[Finding]) -> set[str]:
    return {finding.detail.split(":")[0] for finding in findings}


def test_a_lost_row_contradicts_the_counts_that_it_was_in() -> None:
    labels = real()
    row = labels.slice(0, 1).to_pylist()[0]
    assert (row["labels_raw"], row["split"], row["sex"], row["view"]) == (["Cardiomegaly"], "train_val", "M", "PA")
    _, findings = checked(labels.slice(1))
    assert {(one.detail.split(",")[0], one.found) for one in findings} == {
        ("NI-01-rows: rows is 112", "112119"),
        ("NI-02-images: splits.images of train_val is 86", "86523"),
        ("NI-03-train-val: finding@train_val of Cardiomegaly is 1", "1706"),
        ("NI-09-views: view of PA is 67", "67309"),
        ("NI-09-sex: sex of M is 63", "63339"),
    }
    assert all(one.level is Level.ERROR and "NIH" not in one.path for one in findings)


def test_one_changed_finding_is_named_with_its_number_and_source() -> None:
    _, findings = checked(replaced(real(), "labels_raw", 0, ["Hernia"]))
    assert ids(findings) == {"NI-03-train-val"}
    assert sorted((one.expected, one.found) for one in findings) == [("141", "142"), ("1707", "1706")]
    assert "counted in the release's tables has 141" in {one.found: one.detail for one in findings}["142"]


def test_no_finding_beside_a_finding_is_a_contradiction() -> None:
    _, findings = checked(replaced(real(), "labels_raw", 0, ["Cardiomegaly", "No Finding"]))
    assert "NI-01-alone" in ids(findings)


def test_a_view_that_nobody_published_is_a_contradiction() -> None:
    _, findings = checked(replaced(real(), "view_raw", 0, "LL"))
    assert {one.detail for one in findings} == {
        "NI-09-views: view of PA is 67,309, where counted in the release's tables has 67,310",
        "NI-09-views: view has 'LL' 1 times, where counted in the release's tables has 0",
    }


def test_a_patient_in_two_splits_is_counted_and_named() -> None:
    labels = replaced(real(), "split", 0, "test")
    _, findings = checked(labels)
    assert {"NI-02-shared", "NI-02-patients", "NI-02-images"} <= ids(findings)
    assert shared_patients(labels) == [("00000001", ["test", "train_val"])]
    assert shared_patients(real()) == []


def test_a_lost_box_and_one_outside_its_image_are_contradictions() -> None:
    labels = real()
    row = next(n for n, boxes in enumerate(labels["boxes"].to_pylist()) if boxes)
    boxes = labels["boxes"][row].as_py()
    _, findings = checked(replaced(labels, "boxes", row, None))
    assert {"NI-05-boxes", "NI-05-images", "NI-05-labels"} == ids(findings)
    boxes[0]["x"] = 1020.0
    _, findings = checked(replaced(labels, "boxes", row, boxes))
    assert ids(findings) == {"NI-05-inside"}


def test_an_impossible_age_is_a_warning() -> None:
    _, findings = checked(replaced(real(), "age_years", 0, 96.0))
    assert [(one.level, one.found) for one in findings] == [(Level.WARNING, "96.0")]


def test_the_wrong_release_contradicts_the_other_ones_numbers() -> None:
    _, findings = checked(real("2017"), "v2020")
    assert "NI-03-test-v2020" in ids(findings)


# ---- parts of a release ----


def test_of_a_part_only_what_holds_for_a_part_is_checked() -> None:
    part = real().slice(1000, 20_000)
    statuses, findings = checked(part)
    assert findings == []
    assert statuses["NI-01-rows"] is FactStatus.PART
    assert statuses["NI-03-train-val"] is FactStatus.PART
    assert statuses["NI-02-shared"] is FactStatus.HOLDS
    # The only patient here is not the published youngest one, and no contradiction.
    assert checked(part.slice(0, 1))[0]["NI-08-youngest"] is FactStatus.PART
    _, demanded = checked(part, complete=True)
    assert {"NI-01-rows", "NI-01-patients", "NI-02-images"} <= ids(demanded)


def test_a_part_may_not_have_more_than_the_whole() -> None:
    part = real().slice(0, 20_000)
    hernias = pa.array([["Hernia"]] * part.num_rows, part.schema.field("labels_raw").type)
    part = part.set_column(part.schema.get_field_index("labels_raw"), part.schema.field("labels_raw"), hernias)
    _, findings = checked(part)
    assert ids(findings) == {"NI-03-train-val", "NI-03-test-v2020"}


def test_lists_and_boxes_that_are_not_here_are_not_checked() -> None:
    labels = real()
    for name in ("split", "boxes"):
        field = labels.schema.field(name)
        nulls = pa.nulls(labels.num_rows, field.type)
        labels = labels.set_column(labels.schema.get_field_index(name), field, nulls)
    statuses, findings = checked(labels)
    assert {name for name, status in statuses.items() if status is FactStatus.ABSENT} >= {
        "NI-02-images", "NI-02-shared", "NI-05-boxes", "NI-05-labels",
    }  # fmt: skip
    assert findings == []


# ---- CheXpert and MIMIC ----


@pytest.mark.long
def test_a_train_table_of_chexperts_size_is_held_against_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(chexpert.full_table(), encoding="ascii")
    spec = catalog()["chexpert"]
    labels = read_labels(spec, tmp_path, release="v1.0-small").table
    done = {fact.id: (fact, several) for fact, several in check_facts(spec, "v1.0-small", tmp_path, OneRange(labels))}
    for name in ("CX-01-rows", "CX-01-patients", "CX-01-studies", "CX-02", "CX-08", "CX-09-paths", "CX-09-studies"):
        assert done[name][0].status is FactStatus.HOLDS, done[name]
    # The published table of 14 x 4 numbers holds, and notices one cell that changed.
    assert done["CX-04-images"][0].status is FactStatus.HOLDS
    other = replaced(labels, "raw_Edema", 0, "1.0" if labels["raw_Edema"][0].as_py() != "1.0" else "0.0")
    noticed = {fact.id: fact.status for fact, _ in check_facts(spec, "v1.0-small", tmp_path, OneRange(other))}
    assert noticed["CX-04-images"] is FactStatus.CONTRADICTED
    assert done["CX-07-images"][0].status is FactStatus.EXPLAINED
    assert done["CX-06-images"][0].status is FactStatus.ABSENT
    # One image of a study with another label than its sister.
    several = pc.value_counts(labels["study_id"])
    study = several.filter(pc.greater(several.field(1), 1))[0]["values"].as_py()
    labels = labels.filter(pc.equal(labels["study_id"], study))
    labels = replaced(labels, "label_edema", 0, 1 if labels["label_edema"][0].as_py() != 1 else 0)
    again = {fact.id: fact for fact, _ in check_facts(spec, "v1.0-small", tmp_path, OneRange(labels))}
    assert (again["CX-08"].status, again["CX-08"].found) == (FactStatus.CONTRADICTED, 1)


def test_gaps_in_the_numbers_of_studies_and_views_are_counted() -> None:
    rows = pa.table(
        {
            "patient_id": ["patient00001"] * 4,
            "study_id": [f"patient00001/study{n}" for n in (1, 1, 3, 3)],
            "image_id": [f"patient00001/study{n}/view{v}_frontal" for n, v in ((1, 1), (1, 2), (3, 1), (3, 3))],
        }
    )
    subject = Subject(rows, catalog()["chexpert"], "v1.0", Path("/nowhere"))
    assert measure("study_gaps", subject) == 1
    assert measure("view_gaps", subject) == 1
    assert measure("study_gaps", subject.of(rows.slice(0, 2))) == 0


def test_a_small_mimic_is_a_part_without_contradiction(tmp_path: Path) -> None:
    mimic_cxr_jpg.write(tmp_path)
    remember(tmp_path, MIMIC, "2.1.0")
    report = check(tmp_path, MIMIC, "2.1.0")
    assert found(report) == []
    by_id = {fact.id: fact for fact in report.facts}
    assert (by_id["MI-01-images"].found, by_id["MI-01-images"].status) == (7, FactStatus.PART)
    assert by_id["MI-03-shared"].status is FactStatus.HOLDS
    assert by_id["MI-08"].status is FactStatus.HOLDS
    assert by_id["MI-02"].found == {"train": 4, "validate": 2, "test": 1}
    # A study that the labelers left out names no table: with the rows of the table alone it would be none.
    assert (by_id["MI-04"].found, by_id["MI-09"].found) == (1, 1)
    assert any("of the whole release" in sentence for sentence in report.not_checked)
    # The release's own number, not the stale one that some pages still have.
    (shown,) = [text for name, text in report.rows() if name == "published facts"]
    assert "of 65,379 patients" in shown
    assert "64,588" not in shown


@pytest.mark.parametrize("spec", catalog().values(), ids=lambda spec: spec.name)
def test_no_table_that_is_read_is_called_extra(spec: DatasetSpec, tmp_path: Path) -> None:
    for table in (one for one in spec.table if one.role != "reports"):  # an archive
        for pattern in table.patterns:
            for end in ("", ".gz", ".zip"):
                path = tmp_path / f"{pattern.replace('*', 'x').removesuffix('.gz')}{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"a,b\n1,2\n")
    assert "extra" not in {one.kind for one in check(tmp_path, spec, spec.default_release, labels=False).findings}


# ---- rows and images that belong together ----


def test_an_image_that_no_table_names(tmp_path: Path) -> None:
    def more(root: Path) -> None:
        (root / "images" / "00000009_000.png").write_bytes((root / "images" / "00000001_000.png").read_bytes())

    report = check(nih(tmp_path, change=more))
    assert found(report) == [("image-without-row", "images/00000009_000.png")]
    assert (report.exit_code, check(tmp_path, strict=True).exit_code) == (0, 4)


def test_a_patient_on_both_lists_is_leakage(tmp_path: Path) -> None:
    def move(root: Path) -> None:
        for name, old, new in (("test_list.txt", "00000003_001.png\n", ""), ("train_val_list.txt", "", "")):
            text = (root / name).read_text().replace(old, new) if old else (root / name).read_text()
            (root / name).write_text(text if old else text + "\n00000003_001.png")

    report = check(nih(tmp_path, change=move))
    assert found(report) == [("contradicts-fact", "Data_Entry_2017*"), ("leakage", "")]
    assert "patient 00000003 stands in test and train_val" in {one.detail for one in report.findings}
    assert report.exit_code == 4


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("Data_Entry_2017_v2020.csv", "00000001_000.png,Mass,0,1,57,M,PA,2682,2749,0.143,0.143\n", "00000001_000"),
        ("Data_Entry_2017_v2020.csv", "00000007_000.png,Measles,0,7,57,M,PA,2682,2749,0.143,0.143\n", "Measles"),
        ("test_list.txt", "\n00000001_000.png", "00000001_000.png"),
    ],
)
def test_a_table_that_contradicts_itself_is_a_finding_with_its_line(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    def spoil(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(text)

    report = check(nih(tmp_path, change=spoil))
    assert [one.kind for one in report.findings] == ["unreadable-table"]
    assert says in report.findings[0].detail
    assert "line" in report.findings[0].detail
    assert report.exit_code == 4


def test_rows_that_stand_twice_are_named(tmp_path: Path) -> None:
    from cxrprep.verification.table_checks import duplicate_rows

    labels = real().slice(0, 100)
    assert list(duplicate_rows(labels)) == []
    (twice,) = duplicate_rows(pa.concat_tables([labels, labels.slice(5, 1)]).unify_dictionaries())
    assert (twice.kind, twice.path, twice.found) == ("duplicate-rows", "Data_Entry_2017_v2020.csv", "2")
    assert labels["image_id"][5].as_py() in twice.detail


def test_without_tables_nothing_is_said_about_facts(tmp_path: Path) -> None:
    def only_images(root: Path) -> None:
        for path in (*root.glob("*.csv"), *root.glob("*.txt")):
            path.unlink()

    report = check(nih(tmp_path, change=only_images))
    assert (found(report), report.facts) == ([], ())
    assert any(sentence.startswith("tables and published facts") for sentence in report.not_checked)


@pytest.mark.parametrize("seed", range(3))
def test_label_counts_agree_with_counting_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = np.array(["1.0", "0.0", "-1.0", None])[rng.integers(0, 4, 300)]
    rows = pa.table(
        {"raw_Edema": pa.array(cells.tolist()).dictionary_encode(), "study_id": [str(n // 3) for n in range(300)]}
    )
    subject = Subject(rows, NIH, "v2020", Path("/nowhere"), ("Edema",))
    by_hand = [int(np.sum(cells == value)) for value in ("1.0", "0.0", "-1.0", None)]
    assert measure("label", subject) == {"Edema": by_hand}
    assert measure("study_label", subject) == {
        "Edema": [int(np.sum(cells[::3] == value)) for value in ("1.0", "0.0", "-1.0", None)]
    }


def test_a_project_without_a_list_of_reports_says_nothing_of_reports(tmp_path: Path) -> None:
    mimic_cxr_jpg.write(tmp_path)
    labels = read_labels(MIMIC, tmp_path, release="2.1.0").table
    by_id = {fact.id: fact for fact, _ in check_facts(MIMIC, "2.1.0", tmp_path, OneRange(labels), complete=True)}
    assert by_id["MI-11"].status is FactStatus.ABSENT
    assert by_id["MI-01-images"].status is FactStatus.CONTRADICTED
