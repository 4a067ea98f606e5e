"""Each form of export, opened by the reader that it is made for."""

from __future__ import annotations

import contextlib
import csv
import gc
import gzip
import io
import json
import math
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import NothingSelectedError, StorageError, TableError, UsageError
from cxrprep.executors import Engine
from cxrprep.labels.splits import SplitRule
from cxrprep.manifest.export.coco import _of_runs, runs_of
from cxrprep.manifest.export.target import Target
from cxrprep.model import LabelTest, Selection, Split
from tests.commands import cxrprep as command
from tests.commands import ok
from tests.generators.small import chexpert, declared
from tests.manifest.made import made, remade
from tests.parts import need

FORMS = ("csv", "coco", "webdataset", "hf", "original")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def cx(tmp_path_factory):
    root = tmp_path_factory.mktemp("cx")
    chexpert.write(root)
    chexpert.write_chexbert(root)
    return remade("chexpert", root)


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    return made("mimic-cxr-jpg", tmp_path_factory.mktemp("mimic"))


def rows_of(path):
    data = path.read_bytes()
    text = gzip.decompress(data).decode() if path.suffix == ".gz" else data.decode()
    return list(csv.DictReader(io.StringIO(text)))


def images(root):
    return pq.read_table(root / "manifests" / "images.parquet").to_pylist()


# ---- csv ----


def test_csv_has_a_row_an_image_and_blanks_for_nulls(cx, tmp_path):
    result = cxrprep.export(cx, form="csv", out=tmp_path).value
    rows = rows_of(tmp_path / "images.csv")
    assert result.images == len(rows) == len(images(cx))
    for row, image in zip(rows, images(cx), strict=True):
        assert (row["path"], row["image_id"], row["split"]) == (image["path"], image["image_id"], image["split"])
        value = image["label_edema"]
        assert row["Edema"] == ("" if value is None else str(value))


def test_ignored_labels_have_a_mask_and_are_told_from_what_was_not_mentioned(cx, tmp_path):
    cxrprep.export(cx, form="csv", out=tmp_path, uncertain="ignore", blank="zeros", observations=["Edema"])
    rows = {row["image_id"]: (row["Edema"], row["mask Edema"]) for row in rows_of(tmp_path / "images.csv")}
    stated = {image["image_id"]: image["label_edema"] for image in images(cx)}
    meant = {1: ("1", "1"), 0: ("0", "1"), -1: ("", "0"), None: ("0", "1")}
    assert rows == {name: meant[value] for name, value in stated.items()}
    assert {-1, None, 1} <= set(stated.values())


def test_csv_and_coco_may_be_a_file(nih, tmp_path):
    for form, name in (("csv", "table.csv"), ("coco", "boxes.json")):
        made = cxrprep.export(nih, form=form, out=tmp_path / name).value
        assert made.files == (tmp_path / f"{name.partition('.')[0]}.README.md", tmp_path / name)
        assert all(path.is_file() for path in made.files)
    with pytest.raises(UsageError, match="is a file"):
        cxrprep.export(nih, form="hf", out=tmp_path / "table.csv")


# ---- coco ----


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_are_read_by_pycocotools(tmp_path, capsys):
    need("pycocotools")
    from pycocotools.coco import COCO

    root, out = tmp_path / "copy", tmp_path / "out"
    declared.write(root, "chexlocalize")
    cxrprep.extract_labels(root, dataset="chexlocalize")
    result = cxrprep.export(root, form="coco", out=out).value
    coco = COCO(str(out / "annotations.json"))
    capsys.readouterr()
    drawn = [one for one in coco.dataset["annotations"] if "segmentation" in one]
    masks = pq.read_table(root / "manifests" / "masks.parquet").to_pylist()
    assert len(drawn) == len(masks)
    assert result.images == len({row["image_id"] for row in masks})
    for one in drawn:
        pixels = coco.annToMask(one)
        if isinstance(one["segmentation"], dict):
            rows, columns = np.nonzero(pixels)
            assert one["area"] == pixels.sum() == 5
            assert one["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        else:
            assert one["bbox"] == [1, 2, 8, 6.5]
            assert one["area"] == 26
    # Of another size they would lie elsewhere.
    cxrprep.convert(root, recipe="square-224", out=tmp_path / "small")
    said = []
    with pytest.raises(NothingSelectedError, match="or a mask in its own pixels"):
        cxrprep.export(tmp_path / "small", form="coco", out=tmp_path / "none", on_event=said.append)
    assert any("masks are left out" in getattr(event, "message", "") for event in said)


def test_every_form_has_the_regions_that_a_release_draws(tmp_path):
    need("datasets")
    from datasets import load_dataset

    root = tmp_path / "copy"
    declared.write(root, "chexlocalize")
    cxrprep.extract_labels(root, dataset="chexlocalize")
    rows = pq.read_table(root / "manifests" / "masks.parquet").to_pylist()
    due = {}
    for row in rows:
        due.setdefault(row["image_id"], []).append((row["label"], row["label_source"], row["counts"], row["polygons"]))

    def held(drawn):
        return [tuple(one[name] or None for name in ("label", "label_source", "counts", "polygons")) for one in drawn]

    loaded = cxrprep.load(root)
    assert loaded.regions().num_rows == len(rows)
    assert {row["image_id"]: held(row["regions"]) for row in loaded.hf() if row["regions"]} == due
    # What is handed over of one image has the same columns as of all.
    one = loaded[:1].hf()
    assert one.features["regions"] == loaded.hf().features["regions"]

    for form in ("csv", "hf", "webdataset"):
        cxrprep.export(root, form=form, out=tmp_path / form)
    opened = load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {r["image_id"]: held(r["regions"]) for part in opened.values() for r in part if r["regions"]} == due
    sample = {}
    for shard in sorted((tmp_path / "webdataset").glob("*.tar")):
        with tarfile.open(shard) as archive:
            told = [json.load(archive.extractfile(name)) for name in archive.getnames() if name.endswith(".json")]
        sample |= {one["image_id"]: held(one["regions"]) for one in told if one["regions"]}
        assert "null" not in json.dumps(told)
    assert sample == due
    written = rows_of(tmp_path / "csv" / "masks.csv")
    assert [(r["image_id"], r["label"], r["counts"] or None) for r in written] == [
        (row["image_id"], row["label"], row["counts"])
        for row in sorted(rows, key=lambda row: [*due].index(row["image_id"]))
    ]
    assert [json.loads(row["polygons"] or "null") for row in written if row["polygons"]] == [
        row["polygons"] for row in rows if row["polygons"]
    ]
    # Beside a file that was named, and never over one that nobody exported.
    cxrprep.export(root, form="csv", out=tmp_path / "two" / "chest.csv")
    assert rows_of(tmp_path / "two" / "chest.masks.csv") == written
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "chest.masks.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"chest\.masks\.csv is here already"):
        cxrprep.export(root, form="csv", out=tmp_path / "other" / "chest.csv")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("seed", range(20))
def test_area_and_box_of_run_lengths(seed):
    need("pycocotools")
    from pycocotools import mask

    rng = np.random.default_rng(seed)
    pixels = (rng.random((rng.integers(1, 30), rng.integers(1, 30))) < rng.choice([0.02, 0.5, 1])).astype(np.uint8)
    run = mask.encode(np.asfortranarray(pixels))
    box, area = _of_runs(runs_of(run["counts"].decode()), len(pixels))
    assert (box, area) == (mask.toBbox(run).tolist(), mask.area(run))


def test_coco_boxes_are_read_by_pycocotools(nih, tmp_path, capsys):
    need("pycocotools")
    from pycocotools.coco import COCO

    cxrprep.export(nih, form="coco", out=tmp_path)
    found = COCO(tmp_path / "annotations.json")
    names = {category["id"]: category["name"] for category in found.loadCats(found.getCatIds())}
    read = {}
    for image in found.loadImgs(found.getImgIds()):
        assert (nih / image["file_name"]).is_file()
        annotations = found.loadAnns(found.getAnnIds(imgIds=image["id"]))
        read[image["image_id"]] = sorted((names[a["category_id"]], *a["bbox"]) for a in annotations)
    drawn = {
        image["image_id"]: sorted((box["label"], *(round(box[side], 3) for side in "xywh")) for box in image["boxes"])
        for image in images(nih)
        if image["boxes"] is not None
    }
    assert read == drawn
    assert drawn


def test_images_without_boxes_are_counted_and_none_at_all_is_said(nih, cx, tmp_path):
    result = cxrprep.export(nih, form="coco", out=tmp_path).value
    without = sum(image["boxes"] is None for image in images(nih))
    assert result.left_out == (("without boxes", without),)
    assert result.images + without == len(images(nih))
    with pytest.raises(NothingSelectedError, match="none of these images has a box"):
        cxrprep.export(cx, form="coco", out=tmp_path)


# ---- webdataset ----


# The reader leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_read_by_webdataset(cx, tmp_path):
    need("webdataset")
    import webdataset

    result = cxrprep.export(cx, form="webdataset", out=tmp_path, uncertain="ignore").value
    shards = [str(path) for path in result.files if path.suffix == ".tar"]
    read, sizes = {}, {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"):
        about = sample["json"]
        assert sample["__key__"] == about["image_id"].replace("/", "__")
        read[about["image_id"]] = about
        sizes[about["image_id"]] = sample["jpg"].size
    gc.collect()
    for image in images(cx):
        about = read[image["image_id"]]
        assert sizes[image["image_id"]] == (image["width"], image["height"])
        value = image["label_edema"]
        assert about["labels"]["Edema"] == (0 if value == -1 else value or 0)
        assert about["mask"]["Edema"] == int(value in (0, 1))
        assert about["patient_id"] == image["patient_id"]
    assert len(read) == len(images(cx))


def test_shards_hold_as_many_samples_as_they_should_and_one_split_each(cx, tmp_path):
    from cxrprep.manifest.export.run import ExportOptions, export
    from cxrprep.manifest.load import load

    result = export(load(cx), "webdataset", tmp_path, options=ExportOptions(per_shard=3, sample=0))
    names = [path.name for path in result.files if path.suffix == ".tar"]
    assert names == [
        "chexpert-train-000000.tar", "chexpert-train-000001.tar", "chexpert-train-000002.tar",
        "chexpert-validate-000000.tar",
    ]  # fmt: skip


# ---- hf ----


def test_the_folder_is_opened_by_load_dataset(nih, tmp_path):
    need("datasets")
    import datasets

    cxrprep.export(nih, form="hf", out=tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {str(image["split"]) for image in images(nih)}
    by_id = {image["image_id"]: image for image in images(nih)}
    seen = 0
    for split in found:
        for row in found[split]:
            image = by_id[row["image_id"]]
            assert row["image"].size == (image["width"], image["height"])
            assert (row["label_cardiomegaly"], row["patient_id"]) == (image["label_cardiomegaly"], image["patient_id"])
            assert row["boxes"] == image["boxes"]
            seen += 1
    assert seen == len(by_id)


def test_the_package_calls_validate_validation(cx, tmp_path):
    need("datasets")
    import datasets

    cxrprep.export(cx, form="hf", out=tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 8, "validation": 2}


# ---- original ----


def test_chexperts_own_tables_come_back_cell_for_cell(cx, tmp_path):
    result = cxrprep.export(cx, form="original", out=tmp_path).value
    assert [path.name for path in result.files] == ["train.csv", "valid.csv"]
    for name in ("train.csv", "valid.csv"):
        source = cx / "CheXpert-v1.0-small" / name
        assert (tmp_path / name).read_text().splitlines()[0] == source.read_text().splitlines()[0]
        assert sorted((tmp_path / name).read_text().splitlines()) == sorted(source.read_text().splitlines())


def test_cells_that_need_quotation_marks_have_them(tmp_path):
    import pyarrow as pa

    from cxrprep.manifest.export.csv import write_csv

    file = tmp_path / "one.csv"
    table = pa.table({"a": ["x", 'say "no", please', None], "b": [1, None, 3]})
    write_csv(file, lambda: [table.slice(0, 1), table.slice(1)])
    assert list(csv.reader(io.StringIO(file.read_text()))) == [
        ["a", "b"], ["x", "1"], ['say "no", please', ""], ["", "3"],
    ]  # fmt: skip
    write_csv(file, lambda: [table.slice(0, 1)])
    assert file.read_bytes() == b"a,b\nx,1\n"


def test_nihs_own_tables_come_back_cell_for_cell(nih, tmp_path):
    cxrprep.export(nih, form="original", out=tmp_path)
    name = "Data_Entry_2017_v2020.csv"
    here = {image["image_id"] for image in images(nih)}
    header, *lines = (nih / name).read_text().splitlines()
    kept = [line for line in lines if line.partition(",")[0][:-4] in here]
    assert (tmp_path / name).read_text().splitlines()[0] == header
    assert sorted((tmp_path / name).read_text().splitlines()[1:]) == sorted(kept)
    for listing in ("train_val_list.txt", "test_list.txt"):
        kept = [line for line in (nih / listing).read_text().split() if line[:-4] in here]
        assert sorted((tmp_path / listing).read_text().split()) == sorted(kept)


def test_mimics_own_tables_come_back_cell_for_cell(mimic, tmp_path):
    cxrprep.export(mimic, form="original", out=tmp_path)
    for name in ("metadata", "split", "chexpert"):
        file = f"mimic-cxr-2.0.0-{name}.csv.gz"
        wanted = {tuple(sorted(row.items())) for row in rows_of(mimic / file)}
        found = {tuple(sorted(row.items())) for row in rows_of(tmp_path / file)}
        assert found == wanted


def test_a_policy_changes_the_label_cells_and_nothing_else(cx, tmp_path):
    cxrprep.export(cx, form="original", out=tmp_path, uncertain="ones")
    source = {row["Path"]: row for row in rows_of(cx / "CheXpert-v1.0-small" / "train.csv")}
    for row in rows_of(tmp_path / "train.csv"):
        assert row == {name: "1.0" if cell == "-1.0" else cell for name, cell in source[row["Path"]].items()}


def read_by_torchxrayvision(name, images_of, tables):
    import torchxrayvision as xrv

    both = {"views": ["PA", "AP"], "unique_patients": False}
    if name == "nih":
        return xrv.datasets.NIH_Dataset(
            imgpath=str(images_of / "images"),
            csvpath=str(tables / "Data_Entry_2017_v2020.csv"),
            bbox_list_path=str(images_of / "none.csv"),
            **both,
        )
    if name == "cx":
        return xrv.datasets.CheX_Dataset(
            imgpath=str(images_of / "CheXpert-v1.0-small"), csvpath=str(tables / "train.csv"), **both
        )
    return xrv.datasets.MIMIC_Dataset(
        imgpath=str(images_of / "files"),
        csvpath=str(tables / "mimic-cxr-2.0.0-chexpert.csv.gz"),
        metacsvpath=str(tables / "mimic-cxr-2.0.0-metadata.csv.gz"),
        **both,
    )


@pytest.mark.parametrize("recipe", ["", "shortest-320-jpg"])
@pytest.mark.parametrize("name", ["nih", "cx", "mimic"])
def test_torchxrayvision_reads_the_original_form(request, name, recipe, tmp_path):
    """Its classes find every frontal image, raw and converted, with the labels that the manifest has."""
    need("torchxrayvision")
    root = out = request.getfixturevalue(name)
    if recipe:
        out = tmp_path / "out"
        cxrprep.convert(root, recipe=recipe, out=out, engine=Engine("inline"))
    (tmp_path / "tables").mkdir()
    if name == "nih":
        (out / "none.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    cxrprep.export(out, form="original", out=tmp_path / "tables")
    read = read_by_torchxrayvision(name, out, tmp_path / "tables")
    dataset = cxrprep.load(out)
    wanted = [
        row
        for row in dataset
        if row["view"] in ("PA", "AP")
        and (row["split"] == "train" or name != "cx")
        # The class starts at the table of labels, which lacks studies that the labeler left out.
        and row["table_name"]
    ]
    assert len(read) == len(wanted) > 1
    key = {"nih": "Image Index", "cx": "Path", "mimic": "dicom_id"}[name]
    by_name = {row["path"].rpartition("/")[2].partition(".")[0] if name != "cx" else row["path"]: row for row in wanted}
    ours = {"Pleural_Thickening": "Pleural_Thickening", "Effusion": "Pleural Effusion"}
    for index in range(len(read)):
        stated = read.csv.iloc[index][key]
        row = by_name[stated if name == "cx" else stated.partition(".")[0]]
        assert read[index]["img"].shape == (1, row["height"], row["width"])
        for place, finding in enumerate(read.pathologies):
            value = row["labels"][ours.get(finding, finding)]
            if row["labels"].get("No Finding") == 1 and (name, finding) != ("cx", "Support Devices"):
                value = 0
            found = read.labels[index][place]
            assert math.isnan(found) if value in (None, -1) else found == value, (stated, finding)


def test_a_jpeg_of_mimic_lies_where_readers_of_the_release_look_for_it(mimic, tmp_path):
    """torchxrayvision's MIMIC_Dataset puts the path together from the table's ids, and .jpg."""
    out = tmp_path / "out"
    cxrprep.convert(mimic, recipe="shortest-320-jpg", out=out, engine=Engine("inline"))
    cxrprep.export(out, form="original", out=tmp_path / "tables")
    rows = rows_of(tmp_path / "tables" / "mimic-cxr-2.0.0-metadata.csv.gz")
    paths = [
        f"files/p{row['subject_id'][:2]}/p{row['subject_id']}/s{row['study_id']}/{row['dicom_id']}.jpg" for row in rows
    ]
    assert sorted(paths) == sorted(image["path"] for image in images(out))
    assert all((out / path).is_file() for path in paths)


# ---- what all have in common ----


@pytest.mark.parametrize("form", FORMS)
def test_a_rerun_gives_the_same_bytes(nih, tmp_path, form):
    contents = []
    for _ in range(2):
        result = cxrprep.export(nih, form=form, out=tmp_path / "out").value
        contents.append([(path.name, path.read_bytes()) for path in result.files])
    assert contents[0] == contents[1]


def test_the_card_counts_each_split(nih, tmp_path):
    cxrprep.export(nih, form="csv", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for split in {image["split"] for image in images(nih)}:
        chosen = [image for image in images(nih) if image["split"] == split]
        patients = len({image["patient_id"] for image in chosen})
        assert f"| {split} | {len(chosen)} | {len(chosen)} | {patients} |" in card
        one = sum(image["label_pleural_effusion"] == 1 for image in chosen)
        zero = sum(image["label_pleural_effusion"] == 0 for image in chosen)
        weight = f"{zero / one:.3f}" if one else "-"
        assert f"| Pleural Effusion | {one} | {zero} | 0 | 0 | {weight} |" in card
    assert "## Citation" in card
    assert "@" in card.partition("## Citation")[2]
    assert "## Licence" in card
    assert "Data_Entry_2017_v2020.csv, sha256:" in card


def test_mean_and_deviation_are_those_of_the_pixels(nih, tmp_path):
    import numpy as np
    from PIL import Image

    cxrprep.export(nih, form="csv", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for split in {image["split"] for image in images(nih)}:
        paths = [nih / image["path"] for image in images(nih) if image["split"] == split]
        pixels = np.concatenate([np.asarray(Image.open(path).convert("L"), float).ravel() / 255 for path in paths])
        assert f"| {pixels.mean():.4f} | {pixels.std():.4f} |" in card


def test_labels_of_another_source(cx, tmp_path):
    cxrprep.export(cx, form="csv", out=tmp_path, label_source="visualchexbert")
    rows = {row["image_id"]: row["Lung Opacity"] for row in rows_of(tmp_path / "images.csv")}
    assert rows["patient00002/study2/view1_frontal"] == "0"
    assert rows["patient64541/study1/view1_frontal"] == ""
    with pytest.raises(UsageError) as caught:
        cxrprep.export(cx, form="csv", out=tmp_path, label_source="nobody")
    assert "visualchexbert" in caught.value.hint


def test_a_selection_a_split_and_a_preset(cx, tmp_path):
    selection = Selection(splits=frozenset({Split.TRAIN}), labels=(LabelTest("Edema", -1), LabelTest("Edema", 1)))
    cxrprep.export(cx, form="csv", out=tmp_path, selection=selection, observations="chexpert-competition")
    rows = rows_of(tmp_path / "images.csv")
    assert {row["Edema"] for row in rows} == {"1", "-1"}
    names = list(rows[0])[9:]
    assert names == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    everyone = cxrprep.export(cx, form="csv", out=tmp_path, split_by=SplitRule((0.5, 0.5), seed=1)).value
    placed = {row["patient_id"]: row["split"] for row in rows_of(tmp_path / "images.csv")}
    assert everyone.images == len(images(cx))
    assert placed == {patient: str(SplitRule((0.5, 0.5), seed=1).place(patient)) for patient in placed}


def test_patients_may_be_named_as_people_write_them(cx, tmp_path):
    result = cxrprep.export(cx, form="csv", out=tmp_path, selection=Selection(patients=frozenset({"2"}))).value
    assert result.images == 3


def test_nothing_left_and_unknown_words_are_said(cx, tmp_path):
    with pytest.raises(NothingSelectedError):
        cxrprep.export(cx, form="csv", out=tmp_path, selection=Selection(patients=frozenset({"99999"})))
    with pytest.raises(UsageError, match="unknown form 'tfrecord'"):
        cxrprep.export(cx, form="tfrecord", out=tmp_path)
    with pytest.raises(UsageError, match="unknown policy 'often'"):
        cxrprep.export(cx, form="csv", out=tmp_path, uncertain="often")
    with pytest.raises(UsageError, match="unknown observation 'Edma'"):
        cxrprep.export(cx, form="csv", out=tmp_path, observations=["Edma"])
    with pytest.raises(UsageError, match="has no split 'test'"):
        cxrprep.export(cx, form="csv", out=tmp_path, selection=Selection(splits=frozenset({Split.TEST})))
    with pytest.raises(UsageError, match="has no manifest"):
        cxrprep.export(tmp_path, form="csv")


def test_exports_in_root_are_no_part_of_the_release(tmp_path):
    root = made("nih-chestxray14", tmp_path)
    before = json.dumps(images(root), default=str)
    for form in FORMS:
        assert cxrprep.export(root, form=form).value.out == root / "export" / form
    remade("nih-chestxray14", root)
    assert json.dumps(images(root), default=str) == before
    assert not cxrprep.verify(root).exit_code
    assert "export" not in (root / "manifests" / "verify.parquet").read_bytes().decode("latin-1")


# ---- load ----


def test_one_split_is_loaded_by_its_name(cx):
    assert len(cxrprep.load(cx, split="valid")) == 2
    assert cxrprep.load(cx, split="train").splits == ("train",)
    with pytest.raises(UsageError, match="unknown split 'dev'") as caught:
        cxrprep.load(cx, split="dev")
    assert "train, validate" in caught.value.hint
    with pytest.raises(UsageError, match="no image here is in the split test"):
        cxrprep.load(cx, split="test")


def test_a_manifest_with_a_policy_is_loaded_with_another_from_what_was_stated(tmp_path):
    from cxrprep.labels.policy import Policy

    root = made("chexpert", tmp_path)
    stated = [image["label_edema"] for image in images(root)]
    remade("chexpert", root, policy=Policy.parse(uncertain="ones"))
    assert -1 not in [image["label_edema"] for image in images(root)]
    loaded = cxrprep.load(root, uncertain="zeros").to_pandas()["label_edema"]
    assert [None if value is None else int(value) for value in loaded.astype(object).where(loaded.notna(), None)] == [
        0 if value == -1 else value for value in stated
    ]
    (root / "manifests" / "labels.parquet").unlink()
    with pytest.raises(UsageError, match="changed by a policy already"):
        cxrprep.load(root, uncertain="zeros")


def test_the_manifest_stays_as_it_was_chosen_until_it_is_made_anew(tmp_path):
    root = made("chexpert", tmp_path)
    from cxrprep.labels.policy import Policy

    rule = SplitRule((0.5, 0.25, 0.25), seed=4)
    cxrprep.build_manifest(root, policy=Policy.parse(uncertain="ones"), split_by=rule)
    chosen = images(root)
    cxrprep.extract_labels(root)
    assert images(root) == chosen
    cxrprep.build_manifest(root)
    assert {image["split"] for image in images(root)} == {"train", "validate"}
    assert -1 in [image["label_edema"] for image in images(root)]


def test_a_damaged_manifest_is_named(tmp_path):
    root = made("nih-chestxray14", tmp_path)
    path = root / "manifests" / "images.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError, match=r"images\.parquet"):
        cxrprep.load(root)


@pytest.mark.parametrize("verb", ["export", "digest"])
def test_a_folder_whose_originals_were_dropped_leads_to_its_converted_images(tmp_path, verb):
    root = made("nih-chestxray14", tmp_path)
    ok("convert", root, "--recipe", "square-224")
    for path in (root / "images").iterdir():
        path.unlink()
    ok("manifest", root)
    more = ("--format", "csv") if verb == "export" else ()
    done = command(verb, root, *more)
    assert done.returncode == 8, done
    ok(verb, done.stderr.split("its converted images: ")[1].strip(), *more)


# ---- where it goes ----


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["webdataset", "hf", "original"])
def test_what_an_earlier_export_left_does_not_mix_with_this_one(cx, tmp_path, form):
    from cxrprep.manifest.export.run import ExportOptions, export
    from cxrprep.manifest.load import load

    few = load(cx).split("train")
    export(few, form, tmp_path / "fresh", options=ExportOptions(sample=0))
    export(load(cx), form, tmp_path / "again", options=ExportOptions(per_shard=1, sample=0))
    (tmp_path / "again" / "notes.txt").write_text("mine")
    notes = []
    export(few, form, tmp_path / "again", options=ExportOptions(sample=0), on_event=notes.append)
    assert any("of an earlier export removed" in str(note) for note in notes)
    again = contents(tmp_path / "again")
    assert again.pop("notes.txt") == b"mine"
    assert again == contents(tmp_path / "fresh")


@pytest.mark.parametrize(("form", "name"), [("original", "train.csv"), ("csv", "README.md"), ("csv", "images.csv")])
def test_a_file_that_no_export_wrote_is_never_replaced(cx, tmp_path, form, name):
    (tmp_path / name).write_text("the only copy")
    with pytest.raises(UsageError, match=f"{name} is here already"):
        cxrprep.export(cx, form=form, out=tmp_path)
    assert (tmp_path / name).read_text() == "the only copy"
    (tmp_path / name).unlink()
    for _ in range(2):
        cxrprep.export(cx, form=form, out=tmp_path)


def test_the_release_s_own_tables_are_not_replaced(tmp_path):
    root = made("nih-chestxray14", tmp_path)
    before = contents(root)
    with pytest.raises(UsageError, match="is here already, and no export wrote it"):
        cxrprep.export(root, form="original", out=root)
    assert contents(root) == before


def test_a_file_of_one_s_own_is_kept_where_one_file_is_named(cx, tmp_path):
    out = tmp_path / "cohort.csv"
    for _ in range(2):
        cxrprep.export(cx, form="csv", out=out)
    (tmp_path / "mine.csv").write_text("the only copy")
    with pytest.raises(UsageError, match=r"mine\.csv is here already"):
        cxrprep.export(cx, form="csv", out=tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "the only copy"


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(("form", "name"), [("csv", "cohort.csv"), ("coco", "boxes.json")])
def test_one_file_that_was_named_is_known_again_wherever_its_export_ended(tmp_path, monkeypatch, form, name, beside):
    """A full disk between the file and its card: the next run took the file for somebody else's, exit code 2."""
    root = made("nih-chestxray14", tmp_path / "nih")
    out = tmp_path / "out" / name
    if beside:
        out.parent.mkdir()
        (out.parent / "notes.txt").write_text("mine")
    write, finish = Target.write, Target.finish

    def full(target, *args, **options):
        if not room:
            raise StorageError("no space left", hint="free space")
        room.pop()
        return (write if args else finish)(target, *args, **options)

    for files in range(4):
        room = [None] * files
        with monkeypatch.context() as disk:
            disk.setattr(Target, "write", full)
            disk.setattr(Target, "finish", full)
            with contextlib.suppress(StorageError):
                cxrprep.export(root, form=form, out=out)
        cxrprep.export(root, form=form, out=out)
        assert out.is_file()
        for path in out.parent.iterdir():
            if path.name != "notes.txt":
                path.unlink()


def test_a_list_from_elsewhere_removes_nothing_outside_of_its_folder(cx, tmp_path):
    out = tmp_path / "out"
    cxrprep.export(cx, form="csv", out=out)
    (tmp_path / "mine.txt").write_text("the only copy")
    listing = out / ".cxrprep-export.json"
    held = json.loads(listing.read_text())
    held["csv"] += ["../mine.txt", str(tmp_path / "mine.txt")]
    listing.write_text(json.dumps(held))
    cxrprep.export(cx, form="csv", out=out)
    assert (tmp_path / "mine.txt").read_text() == "the only copy"


def test_forms_share_a_folder(cx, tmp_path):
    for form in (*FORMS, *FORMS):
        if form != "coco":
            cxrprep.export(cx, form=form, out=tmp_path)
    assert {"images.csv", "data", "train.csv", "chexpert-train-000000.tar"} <= {
        path.name for path in tmp_path.iterdir()
    }


@pytest.mark.parametrize("moment", [0, 3, 6])
def test_an_export_that_was_killed_is_done_again(cx, tmp_path, monkeypatch, moment):
    from cxrprep.manifest.export import target

    class Killed(BaseException):
        pass

    left = [moment]
    put = target.replace_file

    def dies(path, fill):
        if not left[0]:
            raise Killed
        left[0] -= 1
        put(path, fill)

    with monkeypatch.context() as patch:
        patch.setattr(target, "replace_file", dies)
        with contextlib.suppress(Killed):
            cxrprep.export(cx, form="hf", out=tmp_path / "out")
    cxrprep.export(cx, form="hf", out=tmp_path / "out")
    cxrprep.export(cx, form="hf", out=tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
