"""A manifest that is joined range by range of patients says what the one says that is joined at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.manifest import build, by_patient
from cxrprep.storage.parquet import read_footer
from cxrprep.storage.table_checksums import note_checksum
from tests.generators.small import mimic_cxr_jpg, nih_chestxray14

TABLES = ("images.parquet", "studies.parquet")


def release(kind: Any, root: Path) -> Path:
    """A folder with its labels, a foreign image, and one that went."""
    kind.write(root)
    cxrprep.extract_labels(root)
    pictures = sorted(path for path in root.rglob("*") if path.suffix in (".png", ".jpg"))
    shutil.copy(pictures[0], pictures[0].with_name("foreign" + pictures[0].suffix))
    pictures[-1].unlink()
    return root


def made(root: Path, **options: Any) -> tuple[Any, dict[str, tuple[list[Any], dict[str, Any]]], dict[str, bytes]]:
    """The counts of a manifest that is made now, its tables with their footers, and what describes them."""
    result = cxrprep.build_manifest(root, **options)
    folder = root / "manifests"
    # What differs is told by the rows, before their bytes are.
    tables = {name: (pq.read_table(folder / name).to_pylist(), read_footer(folder / name)) for name in TABLES}
    names = (*TABLES, "README.md", "croissant.json", "SHA256SUMS")
    return result.to_dict(), tables, {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(autouse=True)
def _short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.storage.parquet._ROWS", 4)


@pytest.fixture
def in_ranges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Folders of any size are joined range by range, of few images each; how many ranges there were."""
    monkeypatch.setattr("cxrprep.system.FILES_IN_MEMORY", 0)
    monkeypatch.setattr(by_patient, "ROWS", 3)
    ranges: list[int] = []
    whole = by_patient._found

    def counted(rows: pa.Table, *more: Any) -> Any:
        ranges.append(rows.num_rows)
        return whole(rows, *more)

    monkeypatch.setattr(by_patient, "_found", counted)
    return ranges


@pytest.mark.parametrize("kind", [mimic_cxr_jpg, nih_chestxray14])
@pytest.mark.parametrize(
    "source",
    [
        {},
        {"label_source": "negbio"},
        {"split_by": "patient", "fractions": "0.4,0.3,0.3", "seed": 5, "folds": 2},
        {"split_by": "patient", "fractions": "0.5,0.5", "split_within": "train"},
    ],
    ids=["plain", "negbio", "split", "split within"],
)
def test_ranges_give_what_one_join_gives(
    kind: Any, source: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind is nih_chestxray14:
        others = {"negbio": "nih-textmined", "train": "train_val"}
        source = {name: others.get(value, value) for name, value in source.items()}
    root = release(kind, tmp_path / "root")
    whole = made(root, allow_loss=True, **source)
    shutil.rmtree(root / "manifests" / "images.parquet", ignore_errors=True)
    ranges = request.getfixturevalue("in_ranges")
    parted = made(root, **source)
    assert len(ranges) > 1
    assert parted[0] == whole[0]
    for name in TABLES:
        assert parted[1][name] == whole[1][name], name
    assert parted[2] == whole[2]
    # A second time everything is known, and nothing lost.
    assert made(root, **source)[1:] == parted[1:]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_labels_are_put_in_place_with_the_manifest_that_is_joined_in_ranges(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    whole = cxrprep.extract_labels(root).value.sources
    manifests = root / "manifests"
    before = files_in(manifests)
    shutil.rmtree(manifests)
    ranges = request.getfixturevalue("in_ranges")
    with pytest.raises(UsageError):
        cxrprep.extract_labels(root, label_source="nobody")
    assert not manifests.exists()
    assert not list(root.rglob("labels.parquet"))
    assert cxrprep.extract_labels(root).value.sources == whole
    assert len(ranges) > 1
    assert files_in(manifests) == before
    assert not list((root / ".cxrprep").rglob("labels.parquet"))
    # Of labels that stay as they are nothing is written, and the manifest is made of the table that is there.
    assert cxrprep.extract_labels(root).value.sources == whole
    assert files_in(manifests) == before


def test_labels_are_let_go_before_a_manifest_of_fewer_files_is_made_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    rows = cxrprep.extract_labels(root).value.rows
    manifests = root / "manifests"
    before = files_in(manifests)
    shutil.rmtree(manifests)
    held: list[bool] = []
    prepare = build.prepare_manifest

    def asked(*given: Any, **options: Any) -> Any:
        held.append(options["labels"] is not None)
        return prepare(*given, **options)

    monkeypatch.setattr(build, "prepare_manifest", asked)
    monkeypatch.setattr("cxrprep.system.FILES_IN_MEMORY", 2 * rows)
    cxrprep.extract_labels(root)
    assert held == [False]
    assert files_in(manifests) == before


def test_more_than_half_of_what_a_list_in_memory_holds_is_joined_in_ranges(
    tmp_path: Path, in_ranges: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    rows = pq.read_metadata(root / "manifests" / "labels.parquet").num_rows
    for limit, parted in ((2 * rows, False), (2 * rows - 1, True)):
        (root / "manifests" / "studies.parquet").unlink()
        in_ranges.clear()
        monkeypatch.setattr("cxrprep.system.FILES_IN_MEMORY", limit)
        cxrprep.build_manifest(root, allow_loss=True)
        assert bool(in_ranges) == parted


@pytest.mark.parametrize("kind", [mimic_cxr_jpg, nih_chestxray14])
def test_a_folder_without_record_and_labels_is_joined_in_ranges_too(
    kind: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = release(kind, tmp_path / "root")
    shutil.rmtree(root / "manifests")
    whole = made(root)
    shutil.rmtree(root / "manifests")
    ranges = request.getfixturevalue("in_ranges")
    assert made(root) == whole
    assert len(ranges) > 1


@pytest.mark.parametrize("column", ["image_id", "study_id"])
def test_labels_of_another_patients_image_are_joined_all_at_once(
    column: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    path = root / "manifests" / "labels.parquet"
    labels = pq.read_table(path)
    patients = sorted(set(labels.column("patient_id").to_pylist()))
    # What one patient's row says is about what the last patient has.
    others = labels.filter(pc.equal(labels.column("patient_id"), patients[-1])).column(column)
    words = [others[0].as_py(), *labels.column(column).to_pylist()[1:]]
    place = labels.schema.get_field_index(column)
    field = labels.schema.field(place)
    pq.write_table(labels.set_column(place, field, pa.array(words, pa.string()).cast(field.type)), path)
    note_checksum(path)
    whole = made(root, allow_loss=True)
    ranges = request.getfixturevalue("in_ranges")
    assert made(root, allow_loss=True) == whole
    assert ranges


def test_what_would_be_lost_is_refused_in_the_same_words(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    cxrprep.build_manifest(root)
    (root / "manifests" / "labels.parquet").unlink()
    said = []
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            cxrprep.build_manifest(root)
        said.append((caught.value.message, caught.value.hint))
        request.getfixturevalue("in_ranges")
    assert said[0] == said[1]
    assert "would lose" in said[0][0]


def test_a_damaged_table_is_written_anew_where_that_is_asked_for(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = release(mimic_cxr_jpg, tmp_path / "root")
    whole = made(root, allow_loss=True)
    request.getfixturevalue("in_ranges")
    (root / "manifests" / "images.parquet").write_bytes(b"PAR1 and nothing else")
    assert made(root, allow_loss=True) == whole
