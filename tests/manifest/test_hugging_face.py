"""Every folder that Hugging Face might open: ``load_dataset(FOLDER)`` gives its splits, counts, types and nulls."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cxrprep
from cxrprep.executors import Engine
from tests.api.convert import hospital
from tests.generators.small import chexpert, nih_chestxray14
from tests.manifest.made import made, remade
from tests.manifest.test_subsets import described, mixed
from tests.parts import need

DATASETS = ("chexpert", "mimic-cxr-jpg", "nih-chestxray14")
NAMES = {"validate": "validation", None: "unsplit"}


@pytest.fixture(scope="module", params=DATASETS)
def root(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("root"))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    need("datasets")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")


def opened(folder, tmp_path, *, name=None, streaming=False):
    import datasets

    return datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"), streaming=streaming)


def images(root):
    return pq.read_table(root / "manifests" / "images.parquet").to_pylist()


def by_split(rows):
    counts = {}
    for row in rows:
        split = NAMES.get(row["split"], row["split"])
        counts[split] = counts.get(split, 0) + 1
    return counts


def check_sample(row, stated, *, suffix, labels):
    about = row["json"]
    assert about["image_id"] == stated["image_id"]
    assert about["view"] == (stated["view"] or "")
    assert about["age_years"] == (-1 if stated["age_years"] is None else stated["age_years"])
    assert row[suffix].size
    for name, value in labels(stated).items():
        assert (about["labels"][name], about["mask"][name]) == (value or 0, int(value is not None))
    assert about["boxed"] == int(stated["boxes"] is not None)
    assert len(about["boxes"]) == len(stated["boxes"] or ())


def cells(root):
    labelled = cxrprep.load(root)
    names = labelled.stated.column("image_id").to_pylist()
    return dict(zip(names, labelled.labels().to_pylist(), strict=True))


@pytest.mark.parametrize("streaming", [False, True])
def test_tar_shards_of_an_export(root, tmp_path, streaming):
    cxrprep.export(root, form="webdataset", out=tmp_path / "out")
    found = opened(tmp_path / "out", tmp_path, streaming=streaming)
    by_id, labels = {row["image_id"]: row for row in images(root)}, cells(root)
    seen = {}
    for split, part in found.items():
        for row in part:
            stated = by_id[row["json"]["image_id"]]
            assert NAMES.get(stated["split"], stated["split"]) == split
            suffix = next(name for name in row if name in ("jpg", "png"))
            check_sample(row, stated, suffix=suffix, labels=lambda one: labels[one["image_id"]])
            seen[split] = seen.get(split, 0) + 1
    assert seen == by_split(images(root))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_shards_of_a_conversion(root, tmp_path, form, streaming):
    out = tmp_path / "out"
    cxrprep.convert(root, recipe="square-224", to=form, out=out, per_shard=2, engine=Engine("inline"))
    by_id, labels = {row["image_id"]: row for row in images(root)}, cells(root)
    seen = {}
    for split, part in opened(out, tmp_path, streaming=streaming).items():
        for row in part:
            about = row["json"] if form == "webdataset" else row
            stated = by_id[about["image_id"]]
            assert NAMES.get(stated["split"], stated["split"]) == split
            assert (row["png"] if form == "webdataset" else row["image"]).size == (224, 224)
            for name in (name for name in stated if name.startswith("label_") and name != "label_source"):
                if name not in about:
                    assert stated[name] is None
                elif form == "parquet":
                    assert about[name] == stated[name]
                else:
                    mask = about[f"mask_{name.removeprefix('label_')}"]
                    assert (about[name], mask) == (stated[name] or 0, int(stated[name] is not None))
            seen[split] = seen.get(split, 0) + 1
    assert seen == by_split(images(root))
    assert len(labels) == sum(seen.values())


def test_labels_that_are_null_in_the_first_samples(tmp_path):
    chexpert.write(tmp_path / "cx")
    table = tmp_path / "cx" / "CheXpert-v1.0-small" / "train.csv"
    header, *rows = table.read_text().splitlines()
    names = header.split(",")
    place = names.index("Fracture")
    for number, row in enumerate(rows):
        cells_ = row.split(",")
        cells_[place] = "1.0" if number == len(rows) - 1 else ""
        rows[number] = ",".join(cells_)
    table.write_text("\n".join([header, *rows]) + "\n")
    root = remade("chexpert", tmp_path / "cx")
    cxrprep.export(root, form="webdataset", out=tmp_path / "out")
    found = opened(tmp_path / "out", tmp_path)
    assert sum(row["json"]["labels"]["Fracture"] for row in found["train"]) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_manifests_open_table_by_table(root, tmp_path, streaming):
    for name in (None, "images", "studies", "labels"):
        found = opened(root / "manifests", tmp_path, name=name, streaming=streaming)
        # One file holds the rows of all splits: to call it train would hand test images to a training loop.
        assert list(found) == ["all_splits"]
        table = pq.read_table(root / "manifests" / f"{name or 'images'}.parquet")
        rows = list(found["all_splits"])
        assert [row["patient_id"] for row in rows] == table.column("patient_id").to_pylist()
        assert [row["label_edema"] for row in rows] == table.column("label_edema").to_pylist()
        assert [row["split"] for row in rows] == table.column("split").cast(pa.string()).to_pylist()
        assert set(rows[0]) == set(table.column_names)


def test_converted_files_open_as_the_table_of_them(root, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        cxrprep.convert(root, recipe="square-224", out=out, engine=Engine("inline"))
    for folder in (out, out / "manifests"):
        rows = list(opened(folder, tmp_path)["all_splits"])
        assert sorted(row["path"] for row in rows) == sorted(row["path"] for row in images(out))
        assert {row["width"] for row in rows} == {224}


@pytest.mark.parametrize("streaming", [False, True])
def test_csv_and_its_blanks(root, tmp_path, streaming):
    cxrprep.export(root, form="csv", out=tmp_path / "out", uncertain="ignore")
    rows = list(opened(tmp_path / "out", tmp_path, streaming=streaming)["all_splits"])
    labelled = cxrprep.load(root, uncertain="ignore")
    for row, stated, labels in zip(rows, images(root), labelled.labels().to_pylist(), strict=True):
        # The package's CSV reader takes digits for a number before it looks at the card: its leading zeros are gone.
        assert row["patient_id"] == stated["patient_id"].lstrip("0")
        assert row["image_id"] == stated["image_id"]
        assert {name: row[name] for name in labels} == labels


@pytest.mark.parametrize("streaming", [False, True])
def test_the_original_form_and_its_blanks(root, tmp_path, streaming):
    made_ = cxrprep.export(root, form="original", out=tmp_path / "out").value
    tables = {"metadata": "metadata.csv.gz", "chexpert": "chexpert.csv.gz", "split": "split.csv.gz"}
    names = [*tables] if any(path.suffix == ".gz" for path in made_.files) else [None]
    for name in names:
        found = opened(tmp_path / "out", tmp_path, name=name, streaming=streaming)
        paths = sorted(path for path in made_.files if path.name.endswith(tables.get(name, ".csv")))
        texts = (gzip.decompress(path.read_bytes()) if name else path.read_bytes() for path in paths)
        held = [list(csv.DictReader(text.decode().splitlines())) for text in texts]
        assert list(map(len, held)) == [len(list(part)) for part in found.values()]
        for rows, part in zip(held, found.values(), strict=True):
            for row, cells_ in zip(part, rows, strict=True):
                for column, cell in cells_.items():
                    # Leading zeros are gone, as of every text of digits in a CSV file.
                    value = float(cell) if cell and isinstance(row[column], float) else cell.lstrip("0")
                    assert row[column] in (value, cell) if cell else row[column] is None
        if not name and len(paths) > 1:
            assert list(found) == ["train", "validation"]


def test_lists_of_a_coco_file(tmp_path):
    root = made("nih-chestxray14", tmp_path / "nih")
    cxrprep.export(root, form="coco", out=tmp_path / "out")
    held = json.loads((tmp_path / "out" / "annotations.json").read_text())
    for name in ("images", "annotations", "categories"):
        rows = list(opened(tmp_path / "out", tmp_path, name=name)["all_splits"])
        assert [row["id"] for row in rows] == [row["id"] for row in held[name]]


@pytest.mark.parametrize("kind", ["mixed", "dicom"])
def test_images_of_several_formats_and_those_that_the_package_cannot_open(kind, tmp_path):
    root = mixed(tmp_path / "own") if kind == "mixed" else described(tmp_path / "vindr", "vindr-cxr")
    bytes_of = {row["image_id"]: (root / row["path"]).read_bytes() for row in images(root)}
    for form, streaming in (("hf", False), ("hf", True), ("webdataset", False), ("webdataset", True)):
        cxrprep.export(root, form=form, out=tmp_path / form)
        seen = {}
        for part in opened(tmp_path / form, tmp_path / f"{form}-cache", streaming=streaming).values():
            for row in part:
                about = row if form == "hf" else row["json"]
                image = row["image"] if form == "hf" else row["jpg" if kind == "mixed" else "dcm"]
                seen[about["image_id"]] = image
        assert seen.keys() == bytes_of.keys()
        for name, image in seen.items():
            if kind == "mixed":
                assert image.tobytes() == Image.open(io.BytesIO(bytes_of[name])).tobytes()
            else:
                assert (image["bytes"] if form == "hf" else image) == bytes_of[name]


def test_a_folder_of_one_s_own_has_one_split(tmp_path):
    source = hospital.write(tmp_path / "in")
    for form in ("webdataset", "parquet"):
        out = tmp_path / form
        made_ = cxrprep.convert(source, recipe="square-224", to=form, out=out, engine=Engine("inline")).value
        found = opened(out, tmp_path)
        assert {name: len(part) for name, part in found.items()} == {"train": made_.images}


def test_images_without_a_split_do_not_land_among_those_for_training(tmp_path):
    nih_chestxray14.write(tmp_path / "nih")
    root = remade("nih-chestxray14", tmp_path / "nih")
    path = root / "manifests" / "images.parquet"
    Image.new("L", (8, 8)).save(root / "images" / "00000009_000.png")
    remade("nih-chestxray14", root)
    assert None in {row["split"] for row in pq.read_table(path).to_pylist()}
    for form in ("webdataset", "parquet"):
        out = tmp_path / form
        cxrprep.convert(root, recipe="square-224", to=form, out=out, engine=Engine("inline"))
        assert {n: len(p) for n, p in opened(out, tmp_path).items()} == {"train_val": 4, "unsplit": 1, "test": 3}


def test_a_card_of_one_s_own_stays(tmp_path):
    source = hospital.write(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("my notes\n")
    notes = []
    cxrprep.convert(source, recipe="square-224", out=out, engine=Engine("inline"), on_event=notes.append)
    assert (out / "README.md").read_text() == "my notes\n"
    assert any("README.md was not written by cxrprep" in getattr(note, "message", "") for note in notes)


def test_no_member_of_a_sample_is_null(root, tmp_path):
    cxrprep.export(root, form="webdataset", out=tmp_path / "out", uncertain="ignore")
    cxrprep.convert(root, recipe="square-224", to="webdataset", out=tmp_path / "shards", engine=Engine("inline"))
    found = 0
    for path in [*(tmp_path / "out").glob("*.tar"), *(tmp_path / "shards").glob("*.tar")]:
        with tarfile.open(path) as archive:
            for member in archive:
                data = archive.extractfile(member).read()
                if member.name.endswith(".json"):
                    assert b"null" not in data
                    found += 1
                else:
                    Image.open(io.BytesIO(data)).verify()
    assert found == 2 * len(images(root))
