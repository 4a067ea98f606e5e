"""Labels of large tables, read some patients at a time, are those of the tables read whole; so is every refusal."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.datasets.catalog import catalog
from cxrprep.errors import CxrprepError
from cxrprep.labels import locate_tables, mimic_parts
from cxrprep.labels.agreement import source_agreements
from cxrprep.storage.parquet import read_footer
from cxrprep.storage.patient_table import OneRange, PatientTable
from cxrprep.verification.published_facts import _together, check_facts
from tests.generators.full.__main__ import write

METADATA, SPLIT = "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-split.csv.gz"
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv.gz"


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in change(lines)).encode()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write("mimic-cxr-jpg", tmp_path, images=150)
    return tmp_path


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tables of any size are read in parts; how many rows each of them had."""
    monkeypatch.setattr(mimic_parts, "_LARGE", 0)
    monkeypatch.setattr(mimic_parts, "_IMAGES", 20)
    monkeypatch.setattr(mimic_parts, "_BLOCK", 2_000)
    read: list[int] = []
    add = mimic_parts.LabelParts.add

    def counted(self: mimic_parts.LabelParts, rows: Any) -> None:
        add(self, rows)
        read.append(sum(block.num_rows for block in rows.blocks))

    monkeypatch.setattr(mimic_parts.LabelParts, "add", counted)
    return read


def made(root: Path) -> tuple[Any, ...]:
    """What a run says and writes, or how it is refused."""
    events: list[Any] = []
    try:
        found = cxrprep.extract_labels(root, dataset="mimic-cxr-jpg", on_event=events.append)
    except CxrprepError as error:
        return str(error), error.hint, error.exit_code
    path = root / "manifests" / "labels.parquet"
    result = found.to_dict(), events, pq.read_table(path).to_pylist(), read_footer(path)
    path.unlink()
    return result


def test_parts_give_what_the_whole_gives(root: Path, request: pytest.FixtureRequest) -> None:
    whole = made(root)
    parts = request.getfixturevalue("parts")
    assert made(root) == whole
    assert len(parts) > 3
    assert sum(parts) == len(whole[2])
    # The radiologist's table names studies alone, and its rows are in several parts.
    assert any(row["label_source"] == "radiologist" for row in whole[2])


SPOILT: dict[str, tuple[str, Callable[[list[str]], list[str]]]] = {
    "in another order": (METADATA, lambda lines: [lines[0], *reversed(lines[1:])]),
    "a split of no kind": (SPLIT, lambda lines: [*lines[:-1], lines[-1].replace("train", "tain").replace("test", "t")]),
    "a label of no kind": (CHEXPERT, lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",7.0"]),
    "a study of a patient that has no image": (
        CHEXPERT,
        lambda lines: [*lines, "19999999,59999999" + lines[-1][lines[-1].index(",", 9) :]],
    ),
    "quotation marks": (METADATA, lambda lines: ['"' + line.replace(",", '",', 1) for line in lines]),
    "a view of no kind": (METADATA, lambda lines: [*lines[:-1], lines[-1].replace(",", ",X", 4)]),
    "saved with decimals": (METADATA, lambda lines: [lines[0], *(line.replace(",", ".0,", 2) for line in lines[1:])]),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_is_not_plain_is_said_as_of_the_whole(spoilt: str, root: Path, request: pytest.FixtureRequest) -> None:
    name, change = SPOILT[spoilt]
    edit(root / name, change)
    whole = made(root)
    request.getfixturevalue("parts")
    assert made(root) == whole


def test_parts_that_would_lose_labels_are_refused(root: Path, parts: list[int]) -> None:
    cxrprep.extract_labels(root, dataset="mimic-cxr-jpg")
    edit(root / CHEXPERT, lambda lines: [lines[0], *(line[:17] + "," * 14 for line in lines[1:])])
    with pytest.raises(cxrprep.errors.UsageError, match=r"would lose [\d,]+ labels of chexpert-labeler"):
        cxrprep.extract_labels(root, dataset="mimic-cxr-jpg")


def test_an_image_in_two_parts_is_refused_as_in_the_whole(root: Path, request: pytest.FixtureRequest) -> None:
    def first_again(lines: list[str]) -> list[str]:
        return [*lines[:-1], lines[1][:44] + lines[-1][44:]]

    for name in (METADATA, SPLIT):
        edit(root / name, first_again)
    (root / "IMAGE_FILENAMES").unlink()
    whole = made(root)
    assert "stands in line 2 already" in whole[0]
    request.getfixturevalue("parts")
    assert made(root) == whole


def test_a_check_of_parts_finds_what_one_of_the_whole_finds(root: Path, request: pytest.FixtureRequest) -> None:
    def checked() -> dict[str, Any]:
        found = cxrprep.verify(root, dataset="mimic-cxr-jpg", complete=True).to_dict()
        return {name: value for name, value in found.items() if name != "seconds"}

    # Files of one image and of no row, and rows of images that are not here.
    listed = (root / "IMAGE_FILENAMES").read_text().splitlines()
    for path in (listed[0], listed[70], f"{listed[70][:-12]}00000000.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"no image")
    whole = checked()
    assert {"image-without-row", "row-without-image"} <= set(whole["counts"])
    parts = request.getfixturevalue("parts")
    assert checked() == whole
    assert len(parts) > 3


@pytest.mark.parametrize("verb", [cxrprep.verify, cxrprep.extract_labels], ids=["verify", "extract_labels"])
def test_tables_that_are_not_large_are_looked_for_once(
    verb: Callable[..., Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    listed = locate_tables._listed
    monkeypatch.setattr(locate_tables, "_listed", lambda base, depth: looked.append(base) or listed(base, depth))
    verb(root, dataset="mimic-cxr-jpg")
    assert looked == [root]


def test_numbers_of_labels_by_patient_are_those_of_the_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.storage.parquet._ROWS", 20)
    cxrprep.extract_labels(root, dataset="mimic-cxr-jpg")
    path, spec = root / "manifests" / "labels.parquet", catalog()["mimic-cxr-jpg"]
    whole, by_patient = OneRange(pq.read_table(path)), PatientTable(path)
    ranges = [set(part["patient_id"].to_pylist()) for part in by_patient.ranges()]
    assert len(ranges) > 3
    assert len(set().union(*ranges)) == sum(map(len, ranges))
    for complete in (False, True):
        facts = check_facts(spec, "2.1.0", root, by_patient, complete=complete)
        assert facts == check_facts(spec, "2.1.0", root, whole, complete=complete)
    agreements = source_agreements(by_patient)
    assert len(agreements) == 2
    assert agreements == source_agreements(whole)

    def page(name: str) -> str:
        text = cxrprep.report(root, out=root / name, images=0).value.path.read_text(encoding="utf-8")
        # A minute may end between the two.
        return re.sub(r"\d\d:\d\d UTC", "", text)

    in_memory = page("whole.html")
    monkeypatch.setattr("cxrprep.html_report.page.FILES_IN_MEMORY", 0)
    assert page("parts.html") == in_memory


def test_extremes_and_lines_of_parts_are_not_added_up() -> None:
    assert _together("age_min", 3.0, 7.0) == 3.0
    assert _together("age_max", 3.0, 7.0) == 7.0
    assert _together("lines.README", 12, 12) == 12
    assert _together("view@train", {"PA": 2, "AP": 1}, {"AP": 3, "LL": 1}) == {"PA": 2, "AP": 4, "LL": 1}
    assert _together("label", {"Edema": [1, 2, 3, 4]}, {"Edema": [1, 0, 0, 1]}) == {"Edema": [2, 2, 3, 5]}
    assert _together("boxes", None, 4) == 4
