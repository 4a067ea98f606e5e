"""An export is the same whatever part of the manifest is held at a time, and its whole is not."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

import cxrprep
from cxrprep.labels.splits import SplitRule
from cxrprep.manifest.export import original
from cxrprep.manifest.export.csv import write_csv
from cxrprep.manifest.load import load
from cxrprep.model import Selection, Split
from cxrprep.storage.parquet import read_footer, read_rows, write_table
from cxrprep.storage.table_on_disk import TableOnDisk
from tests.manifest.made import made


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same images twice: the manifest of the second is written two rows at a time."""
    first, second = (made("nih-chestxray14", tmp_path_factory.mktemp(name) / "nih") for name in ("one", "two"))
    path = second / "manifests" / "images.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrprep.storage.parquet._ROWS", 2)
        write_table(read_rows(path), path, name="images", made_from=read_footer(path))
    return first, second


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split": "test"},
        {"sample": 3, "uncertain": "ones", "derive": True},
        {"split_by": "patient", "split_within": "train_val", "folds": 2, "limit": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["csv", "coco", "webdataset", "hf", "original"])
def test_an_export_holds_a_part_of_the_manifest_and_writes_the_same(roots, tmp_path, monkeypatch, form, options):
    whole = cxrprep.export(roots[0], form=form, out=tmp_path / "whole", **options).value
    monkeypatch.setattr("cxrprep.manifest.load._PART", 3)
    monkeypatch.setattr(TableOnDisk, "whole", lambda _: pytest.fail("all rows are held"))
    monkeypatch.setattr("cxrprep.manifest.relabel.read_rows", lambda _: pytest.fail("all rows are held"))
    parts = cxrprep.export(roots[1], form=form, out=tmp_path / "parts", **options).value
    assert (parts.images, parts.left_out) == (whole.images, whole.left_out)
    names = [file.relative_to(tmp_path / "whole").as_posix() for file in whole.files]
    assert names == [file.relative_to(tmp_path / "parts").as_posix() for file in parts.files]
    assert len(names) >= 1
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("order", ["of patients", "turned", "another patient's label"])
@pytest.mark.parametrize(
    ("name", "source"),
    [("mimic-cxr-jpg", "negbio"), ("mimic-cxr-jpg", "chexpert-labeler,negbio"), ("chexpert", "radiologist")],
)
def test_labels_of_another_source_are_the_same_some_patients_after_others(tmp_path, monkeypatch, name, source, order):
    root = made(name, tmp_path / "root")
    path = root / "manifests" / "images.parquet"
    rule = SplitRule(seed=3, folds=2)
    with monkeypatch.context() as patch:
        patch.setattr("cxrprep.storage.parquet._ROWS", 2)
        for place in ("images", "labels"):
            table = read_rows(path.with_stem(place))
            if order == "turned" and place == "images":
                table = table.take(list(range(len(table)))[::-1])
            if order == "another patient's label" and place == "labels":
                patients = table["patient_id"].to_pylist()
                table = table.set_column(
                    table.column_names.index("patient_id"), "patient_id", pa.array([*patients[1:], patients[0]])
                )
            write_table(table, path.with_stem(place), name=place, made_from=read_footer(path.with_stem(place)))
    words = {"label_source": source, "split": rule, "selection": Selection(splits=frozenset({Split.TRAIN}))}
    whole = load(root, **words)
    at_once = []
    monkeypatch.setattr("cxrprep.manifest.relabel.read_rows", lambda *asked: at_once.append(asked) or read_rows(*asked))
    parts = load(root, **words, held=False)
    # What has no order of patients is read whole as well.
    assert len(at_once) == (0 if order == "of patients" else 2)
    assert isinstance(parts.stated, TableOnDisk) == (order == "of patients")
    assert parts.to_arrow().equals(whole.to_arrow())
    assert (len(parts) > 0, parts.observations, parts.made_from) == (True, whole.observations, whole.made_from)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *((name, "of patients") for name in ("nih-chestxray14", "chexpert", "mimic-cxr-jpg")),
        ("mimic-cxr-jpg", "turned"),
        ("nih-chestxray14", "one patient's"),
    ],
)
def test_the_original_form_holds_some_patients_rows_and_writes_the_same(tmp_path, monkeypatch, name, order):
    root = made(name, tmp_path / "root")
    with monkeypatch.context() as patch:
        patch.setattr("cxrprep.storage.parquet._ROWS", 2)
        for place in ("images", "labels"):
            path = root / "manifests" / f"{place}.parquet"
            table = read_rows(path)
            if order == "turned" and place == "images":
                table = table.take(list(range(len(table)))[::-1])
            if order == "one patient's":
                one = pa.array(["00000001"] * len(table)) if place == "images" else pa.nulls(len(table), pa.string())
                table = table.set_column(table.column_names.index("patient_id"), "patient_id", one)
            write_table(table, path, name=place, made_from=read_footer(path))
    at_once = []
    monkeypatch.setattr(original, "read_rows", lambda *words: at_once.append(words) or read_rows(*words))
    whole = cxrprep.export(root, form="original", out=tmp_path / "whole").value
    # What has no order of patients is held whole as well.
    monkeypatch.setattr(original, "_ROWS", 5)
    parts = cxrprep.export(root, form="original", out=tmp_path / "parts").value
    assert len(at_once) == {"of patients": 0, "turned": 2, "one patient's": 2}[order]
    assert (parts.images, parts.left_out) == (whole.images, whole.left_out)
    assert len(parts.files) == len(whole.files) > 1
    for one, other in zip(parts.files, whole.files, strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_a_few_images_have_their_own_rows_in_the_original_form(tmp_path):
    root = made("chexpert", tmp_path / "root")
    cxrprep.export(root, form="original", out=tmp_path / "whole")
    lines = (tmp_path / "whole" / "train.csv").read_text().splitlines()
    for seed in range(3):
        cxrprep.export(root, form="original", out=tmp_path / f"{seed}", split="train", sample=2, seed=seed)
        few = (tmp_path / f"{seed}" / "train.csv").read_text().splitlines()
        assert (len(few), set(few) <= set(lines)) == (3, True)


def test_the_original_form_has_the_cells_of_the_labels_beside_a_manifest_elsewhere(tmp_path):
    root, notes = made("mimic-cxr-jpg", tmp_path / "root"), []
    (tmp_path / "state").mkdir()
    (root / "manifests").rename(tmp_path / "state" / "manifests")
    cxrprep.export(root, form="original", state=tmp_path / "state", out=tmp_path / "out", on_event=notes.append)
    assert "no labels.parquet is here" not in str(notes)
    for name in ("metadata", "chexpert"):
        file = f"mimic-cxr-2.0.0-{name}.csv.gz"
        wanted, found = (
            {*gzip.decompress((folder / file).read_bytes()).split()} for folder in (root, tmp_path / "out")
        )
        assert wanted == found


def test_a_table_whose_first_piece_has_no_rows_is_written_as_it_is(tmp_path):
    table = pa.table({"path": ["images/00000001_000.png"], "label": [1]})
    expected = b"path,label\nimages/00000001_000.png,1\n"
    for parts in ([pa.concat_tables([table.slice(0, 0), table])], [table], [table.slice(0, 0), table]):
        write_csv(tmp_path / "one.csv", lambda parts=parts: parts)
        assert (tmp_path / "one.csv").read_bytes() == expected
