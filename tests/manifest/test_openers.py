"""The manifest as users open it: each of these readers for real, on a manifest that the tools wrote."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import MissingExtraError
from cxrprep.executors import Engine
from tests.manifest.made import made
from tests.parts import need

TABLES = ("images", "studies", "labels")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    return made("mimic-cxr-jpg", tmp_path_factory.mktemp("mimic"))


@pytest.fixture(scope="module", params=["nih-chestxray14", "mimic-cxr-jpg", "chexpert"])
def root(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("root"))


def expected(root, name):
    return pq.read_table(root / "manifests" / f"{name}.parquet")


@pytest.mark.parametrize("name", TABLES)
def test_pandas_has_categories_and_the_same_cells(root, name):
    import pandas as pd

    frame = pd.read_parquet(root / "manifests" / f"{name}.parquet")
    table = expected(root, name)
    assert len(frame) == table.num_rows
    assert isinstance(frame["split"].dtype, pd.CategoricalDtype)
    assert frame["patient_id"].tolist() == table.column("patient_id").to_pylist()
    positive = table.column("label_pneumonia").to_pylist().count(1)
    assert int((frame["label_pneumonia"] == 1).sum()) == positive


@pytest.mark.parametrize("name", TABLES)
def test_pyarrow_dataset_filters_by_any_column(root, name):
    scanned = pa.dataset.dataset(root / "manifests" / f"{name}.parquet")
    kept = scanned.to_table(filter=pa.dataset.field("split") == "test").num_rows
    assert kept == expected(root, name).column("split").to_pylist().count("test")


@pytest.mark.parametrize("name", TABLES)
def test_duckdb_queries_the_file_as_it_is(root, name):
    need("duckdb")
    import duckdb

    path = root / "manifests" / f"{name}.parquet"
    counted = duckdb.sql(f"select split, count(*) from '{path}' group by split").fetchall()
    wanted = expected(root, name).column("split").to_pylist()
    assert dict(counted) == {word: wanted.count(word) for word in set(wanted)}
    uncertain = duckdb.sql(f"select count(*) from '{path}' where label_edema = -1").fetchall()
    assert uncertain == [(expected(root, name).column("label_edema").to_pylist().count(-1),)]


def test_duckdb_reaches_into_boxes(nih):
    need("duckdb")
    import duckdb

    path = nih / "manifests" / "images.parquet"
    found = duckdb.sql(f"select box.label, box.w from (select unnest(boxes) as box from '{path}')").fetchall()
    boxes = [box for boxes in expected(nih, "images").column("boxes").to_pylist() for box in boxes or ()]
    assert sorted(found) == sorted((box["label"], box["w"]) for box in boxes)
    assert found


@pytest.mark.parametrize("name", TABLES)
def test_polars_reads_and_scans(root, name):
    need("polars")
    import polars as pl

    path = root / "manifests" / f"{name}.parquet"
    table = expected(root, name)
    assert pl.read_parquet(path).shape == (table.num_rows, table.num_columns)
    frame = pl.scan_parquet(path).filter(pl.col("label_cardiomegaly") == 1).select("patient_id").collect()
    positive = table.filter(pa.compute.equal(table.column("label_cardiomegaly"), 1)).column("patient_id")
    assert frame["patient_id"].to_list() == positive.to_pylist()


@pytest.mark.parametrize("name", TABLES)
def test_hugging_face_datasets_load_the_parquet_itself(root, name, tmp_path):
    need("datasets")
    import datasets

    path = str(root / "manifests" / f"{name}.parquet")
    loaded = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path))
    table = expected(root, name)
    assert loaded.num_rows == table.num_rows
    assert loaded["patient_id"][:] == table.column("patient_id").to_pylist()
    assert loaded["label_edema"][:] == table.column("label_edema").to_pylist()


def test_a_hugging_face_data_set_with_images_comes_from_the_folder(nih):
    need("datasets")
    loaded = cxrprep.load(nih, uncertain="ones").hf()
    first = expected(nih, "images").to_pylist()[0]
    row = loaded[0]
    assert row["image_id"] == first["image_id"]
    assert row["image"].size == (first["width"], first["height"])


def test_a_torch_data_loader_gives_batches(nih):
    need("torch")
    from torch.utils.data import DataLoader, Dataset

    dataset = cxrprep.load(nih, uncertain="ignore", observations="chexpert-competition").torch(
        lambda image: image[:, :32, :32]
    )
    assert isinstance(dataset, Dataset)
    batches = list(DataLoader(dataset, batch_size=2))
    assert sum(len(batch["image_id"]) for batch in batches) == len(dataset)
    assert batches[0]["image"].shape == (2, 1, 32, 32)
    assert batches[0]["labels"].shape == batches[0]["mask"].shape == (2, 5)
    assert 0 <= float(batches[0]["image"].min()) <= float(batches[0]["image"].max()) <= 1


def test_without_torch_the_package_is_named(nih, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "cxrprep.manifest.torch_dataset", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        cxrprep.load(nih).torch()
    assert caught.value.hint == "pip install torch"


# ---- what lies beside it ----


def test_every_field_says_what_it_holds_and_the_footer_where_it_comes_from(root):
    for name in TABLES:
        schema = pq.read_schema(root / "manifests" / f"{name}.parquet")
        assert [field.name for field in schema if not (field.metadata or {}).get(b"description")] == []
        footer = json.loads(schema.metadata[b"cxrprep"])
        assert footer["schema"] == name
        assert footer["schema_version"] == 1
        assert footer["tool"] == f"cxrprep {cxrprep.__version__}"
        for table in footer["tables"]:
            assert table["digest"].startswith("sha256:")
            assert table["used"] <= table["rows"]


# The reader's own library warns of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_croissant_is_valid_and_its_records_are_the_rows(root, caplog):
    need("mlcroissant")
    import mlcroissant as mlc

    dataset = mlc.Dataset(str(root / "manifests" / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings, caplog.messages) == (set(), set(), [])
    records = list(dataset.records("images"))
    table = expected(root, "images")
    assert [record["images/image_id"].decode() for record in records] == table.column("image_id").to_pylist()
    for record, boxes in zip(records, table.column("boxes").to_pylist(), strict=True):
        drawn = [box["images/boxes/label"] for box in record["images/boxes"]]
        assert drawn == ([None] if boxes is None else [box["label"].encode() for box in boxes])
    assert len(list(dataset.records("studies"))) == expected(root, "studies").num_rows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("recipe", ["square-224", "shortest-320-jpg"])
def test_the_croissant_of_converted_images_hands_them_over(nih, tmp_path, caplog, recipe):
    need("mlcroissant")
    import mlcroissant as mlc

    out = tmp_path / "out"
    cxrprep.convert(nih, recipe=recipe, out=out, engine=Engine("inline"))
    cxrprep.build_manifest(out)
    dataset = mlc.Dataset(str(out / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings, caplog.messages) == (set(), set(), [])
    rows = {row["path"]: row for row in pq.read_table(out / "manifests" / "images.parquet").to_pylist()}
    found = {}
    for record in dataset.records("image-contents"):
        picture = record["image-contents/content"]
        found[record["image-contents/path"].decode()] = picture.size
    assert found == {path: (row["width"], row["height"]) for path, row in rows.items()}
    labels = [record["images/label_mass"] for record in dataset.records("images")]
    assert labels == [row["label_mass"] for row in rows.values()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["parquet", "webdataset", "hf", "export-webdataset"])
def test_the_croissant_of_shards_hands_their_images_over(nih, tmp_path, caplog, form):
    need("mlcroissant")
    import mlcroissant as mlc

    out = tmp_path / "out"
    if form in ("parquet", "webdataset"):
        cxrprep.convert(nih, recipe="square-224", out=out, to=form, per_shard=3, engine=Engine("inline"))
        cxrprep.build_manifest(out)
    else:
        cxrprep.export(nih, form=form.removeprefix("export-"), out=out, uncertain="ignore")
    dataset = mlc.Dataset(str(out / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings, caplog.messages) == (set(), set(), [])
    held = json.loads((out / "croissant.json").read_text())
    (files,) = (each for each in held["distribution"] if each["@type"] == "cr:FileSet")
    assert {path for glob in files["includes"] for path in out.glob(glob)} == {
        path for path in out.rglob("*") if path.suffix in (".tar", ".parquet") and path.parent.name != "manifests"
    }
    digest = cxrprep.digest(out if form in ("parquet", "webdataset") else nih).value.value
    assert (held["identifier"] == f"cxrprep-set/1:{digest}") == (form in ("parquet", "webdataset"))
    (splits,) = (each for each in held["recordSet"] if each["@id"] == "splits")
    assert {row["splits/name"] for row in splits["data"]} == {"train_val", "test"}
    assert f"uncertain labels: {'ignore' if form.endswith(('hf', 'export-webdataset')) else 'keep'}" in str(held)
    rows = {row["image_id"]: row for row in expected(nih, "images").to_pylist()}
    if "webdataset" in form:
        return
    records = list(dataset.records("samples"))
    assert sorted(record["samples/image_id"].decode() for record in records) == sorted(rows)
    for record in records:
        assert record["samples/image"].size[0] > 10
        if form == "hf":
            row = rows[record["samples/image_id"].decode()]
            assert record["samples/label_mass"] == row["label_mass"]
            drawn = [box["samples/boxes/label"] for box in record["samples/boxes"]]
            assert drawn == ([None] if row["boxes"] is None else [box["label"].encode() for box in row["boxes"]])


def test_the_croissant_holds_no_rows(mimic):
    text = (mimic / "manifests" / "croissant.json").read_text(encoding="utf-8")
    row = expected(mimic, "images").to_pylist()[0]
    assert row["patient_id"] not in text
    assert row["image_id"] not in text


def test_the_croissant_names_splits_and_who_labelled(nih):
    held = json.loads((nih / "manifests" / "croissant.json").read_text(encoding="utf-8"))
    assert held["conformsTo"][0].endswith("/croissant/1.1")
    splits = next(each for each in held["recordSet"] if each["@id"] == "splits")
    wanted = {word for word in expected(nih, "images").column("split").to_pylist() if word}
    assert {row["splits/name"] for row in splits["data"]} == wanted
    assert held["rai:machineAnnotationTools"] == "nih-textmined"
    assert "uncertain labels: keep" in held["rai:dataImputationProtocol"]
