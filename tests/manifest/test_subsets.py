"""A subset's export has the schema of the whole: numbers, order and names do not depend on what is present."""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.images.decode import measure
from cxrprep.model import Selection
from tests.generators.small import chexpert, declared
from tests.manifest.made import made, remade
from tests.sample import some_of_each
from tests.tables_made import build_manifest

DATASETS = ("chexpert", "mimic-cxr-jpg", "nih-chestxray14")


@pytest.fixture(scope="module", params=DATASETS)
def root(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def cx(tmp_path_factory):
    return made("chexpert", tmp_path_factory.mktemp("cx"))


def images(root):
    return pq.read_table(root / "manifests" / "images.parquet").to_pylist()


def subsets(root):
    """The whole, each split, and each single image."""
    rows = images(root)
    yield Selection()
    for split in {row["split"] for row in rows}:
        yield Selection(images=frozenset(row["image_id"] for row in rows if row["split"] == split))
    for row in rows:
        yield Selection(images=frozenset({row["image_id"]}))


def header_of(path):
    return next(csv.reader(path.read_text().splitlines()))


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_csv_columns_and_their_order(root, tmp_path):
    headers = set()
    for number, selection in enumerate(subsets(root)):
        cxrprep.export(root, form="csv", out=tmp_path / f"{number}", selection=selection, uncertain="ignore")
        headers.add(tuple(header_of(tmp_path / f"{number}" / "images.csv")))
    assert len(headers) == 1
    known = find_dataset(images(root)[0]["dataset"]).vocabulary
    assert len([name for name in headers.pop()[9:] if not name.startswith("mask ")]) == {"chexpert": 14}.get(known, 15)


def mixed(root):
    """Images of one's own in three formats, with another labeler's table."""
    rows = ["image_id,Edema,Mass"]
    for number in range(7):
        path = root / f"i{number}{('.png', '.jpg', '.jpeg')[number % 3]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, np.full((40, 50), number, np.uint8))[1].tobytes())
        rows.append(f"{path.name},{number % 2},{-1 if number == 3 else ''}")
    (root / "theirs.csv").write_text("\n".join(rows) + "\n")
    cxrprep.import_labels(root, root / "theirs.csv", name="theirs")
    cxrprep.build_manifest(root, label_source="theirs")
    return root


def described(root, name):
    """A collection that is described by one file; this one's images are ``.dcm`` and ``.dicom``, with boxes."""
    declared.write(root, name, images=6)
    cxrprep.extract_labels(root, dataset=name)
    cxrprep.build_manifest(root, dataset=name)
    return root


@pytest.fixture(scope="module", params=[*DATASETS, "vindr-cxr", "own"])
def any_root(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "root"
    if request.param in DATASETS:
        return made(request.param, folder)
    return mixed(folder) if request.param == "own" else described(folder, request.param)


def shapes(out):
    """What an export says of itself, piece by piece: columns, categories, members, types, split names."""
    head = (out / "README.md").read_text().split("---\n")[1] if (out / "README.md").exists() else ""
    yield from (line for line in head.splitlines() if "path:" not in line and "- split:" not in line)
    for path in sorted(out.rglob("*")):
        if path.name == "annotations.json":
            yield json.dumps(json.loads(path.read_text())["categories"])
        elif path.suffix in (".csv", ".gz"):
            data = path.read_bytes()
            yield path.name + str((gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()[0])
        elif path.suffix == ".parquet":
            yield str(pq.read_schema(path))
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                for member in archive:
                    yield member.name.partition(".")[2]
                    if member.name.endswith(".json"):
                        about = json.load(archive.extractfile(member))
                        yield json.dumps([list(value) for value in (about, about["labels"], about["mask"])])


def drawn(rng, root):
    """Options of an export, and a part of its images."""
    rows, known = images(root), list(cxrprep.load(root).observations)
    options = {"uncertain": rng.choice(["keep", "ones", "ignore"]), "derive": rng.random() < 0.3}
    if rng.random() < 0.4:
        options |= {"split_by": "patient", "folds": rng.choice([0, 3])}
    if rng.random() < 0.4:
        options["observations"] = rng.sample(known, rng.randint(1, len(known)))
    row = rng.choice(rows)
    part = rng.choice(
        [
            {"selection": Selection(images=frozenset({row["image_id"]}))},
            {"split": row["split"]} if row["split"] else {"limit": 1},
            {"view": row["projection"] or "frontal"} if row["projection"] else {"limit": 2},
            {"label": f"{rng.choice(known)}={rng.choice(['1', '0', 'null'])}"},
            {"sample": rng.randint(1, 3), "seed": rng.randint(0, 9)},
            {"include": f"*{row['path'][-8:]}"},
        ]
    )
    return options, part


@pytest.mark.parametrize(
    ("any_root", "form"),
    some_of_each([*DATASETS, "vindr-cxr", "own"], ["csv", "coco", "hf", "webdataset", "original"], one_in=5),
    indirect=["any_root"],
)
def test_a_random_part_has_the_shape_of_the_whole(any_root, form, tmp_path, request):
    rng = random.Random(f"7 {request.node.name}")
    for number in range(2):
        options, part = drawn(rng, any_root)
        try:
            cxrprep.export(any_root, form=form, out=tmp_path / f"{number}-whole", **options)
            cxrprep.export(any_root, form=form, out=tmp_path / f"{number}-part", **options, **part)
        except (NothingSelectedError, UsageError):
            # No such image, no box, or a form that is the three collections' own.
            continue
        whole, found = (set(shapes(tmp_path / f"{number}-{word}")) for word in ("whole", "part"))
        # The original form has a file for each split.
        assert found == whole or (form == "original" and found < whole), (options, part)
        loaded, less = cxrprep.load(any_root, **options), cxrprep.load(any_root, **options, **part)
        assert loaded.to_arrow().schema == less.to_arrow().schema
        assert loaded.observations == less.observations


def test_category_and_image_ids_of_every_boxed_image(nih, tmp_path):
    cxrprep.export(nih, form="coco", out=tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert [c["id"] for c in whole["categories"]] == list(range(1, 15))
    numbers = {image["image_id"]: image["id"] for image in whole["images"]}
    assert len(set(numbers.values())) == len(numbers)
    assert len({a["id"] for a in whole["annotations"]}) == len(whole["annotations"])
    boxed = [row for row in images(nih) if row["boxes"]]
    assert len({box["label"] for row in boxed for box in row["boxes"]}) > 1
    for row in boxed:
        selection = Selection(images=frozenset({row["image_id"]}))
        cxrprep.export(nih, form="coco", out=tmp_path / "one.json", selection=selection)
        one = json.loads((tmp_path / "one.json").read_text())
        assert one["categories"] == whole["categories"]
        assert {image["image_id"]: image["id"] for image in one["images"]} == {
            row["image_id"]: numbers[row["image_id"]]
        }
        mine = [a for a in whole["annotations"] if a["image_id"] == numbers[row["image_id"]]]
        assert one["annotations"] == mine


def test_a_blank_becomes_0_in_every_subset_or_in_none(root):
    def cells(dataset):
        names = dataset.stated.column("image_id").to_pylist()
        rows = zip(names, dataset.labels().to_pylist(), dataset.mask().to_pylist(), strict=True)
        return {name: (label, mask) for name, label, mask in rows}

    whole = cells(cxrprep.load(root, blank="zeros"))
    for selection in subsets(root):
        part = cells(cxrprep.load(root, blank="zeros", selection=selection))
        assert part == {name: whole[name] for name in part}


def test_a_folder_whose_tables_were_not_read_yet_has_the_columns_too(tmp_path):
    chexpert.write(tmp_path / "cx")
    build_manifest(find_dataset("chexpert"), tmp_path / "cx", measure=measure)
    made_ = cxrprep.export(tmp_path / "cx", form="csv", out=tmp_path / "out")
    assert len(header_of(tmp_path / "out" / "images.csv")) == 9 + 14
    assert made_.value.images == 10


# ---- what is filled, and what is not ----


def test_derived_parents_are_handed_over_and_nothing_else_is_filled(nih, tmp_path):
    cxrprep.export(nih, form="csv", out=tmp_path, derive=True)
    rows = rows_of(tmp_path / "images.csv")
    by_id = {row["image_id"]: row for row in rows}
    for image in images(nih):
        row = by_id[image["image_id"]]
        assert row["Lung Lesion"] == ("1" if 1 in (image["label_mass"], image["label_nodule"]) else "")
        assert row["Mass"] == str(image["label_mass"])
    assert {row["Lung Lesion"] for row in rows} == {"1", ""}


def test_an_uncertain_child_says_nothing_of_its_parent(cx):
    stated = {row["image_id"]: row for row in images(cx)}
    unsure = {i for i, row in stated.items() if row["label_pneumonia"] == -1 and row["label_consolidation"] is None}
    assert unsure
    for uncertain in ("keep", "ones", "zeros", "ignore"):
        for row in cxrprep.load(cx, derive=True, uncertain=uncertain).to_arrow().to_pylist():
            if row["image_id"] in unsure:
                assert row["label_consolidation"] is None


def test_a_study_that_the_labelers_left_out_is_not_labelled(tmp_path):
    root = made("mimic-cxr-jpg", tmp_path / "mimic")
    left_out = [row for row in images(root) if row["label_source"] is None]
    assert [row["study_id"] for row in left_out] == ["51803001"] or len(left_out) == 1
    assert {row["table_name"] for row in left_out} == {None}
    loaded = cxrprep.load(root, blank="zeros")
    place = loaded.stated.column("image_id").to_pylist().index(left_out[0]["image_id"])
    assert set(loaded.labels().to_pylist()[place].values()) == {None}
    assert set(loaded.mask().to_pylist()[place].values()) == {0}
    result = remade_result(root)
    assert (result.images, result.labelled, result.without_row) == (7, 6, 0)


def remade_result(root):
    return build_manifest(find_dataset("mimic-cxr-jpg"), root, measure=measure)


# ---- folders that know less ----


@pytest.mark.parametrize("form", ["csv", "webdataset", "hf"])
def test_images_without_any_label_are_exported(tmp_path, form):
    root = made("nih-chestxray14", tmp_path / "nih")
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in sorted((root / "images").glob("*.png"))[:3]:
        shutil.copy(path, plain / f"scan-{path.name[-5]}{path.stem[-5]}.png")
    cxrprep.convert(plain, recipe="square-224", out=tmp_path / "out")
    result = cxrprep.export(tmp_path / "out", form=form, out=tmp_path / "e").value
    assert result.images == len(list(plain.iterdir()))
    loaded = cxrprep.load(tmp_path / "out")
    assert loaded.observations == ()
    assert loaded.labels().num_rows == loaded.mask().num_rows == len(loaded)


def test_the_original_form_of_a_folder_that_was_moved(tmp_path):
    for name in DATASETS:
        root = made(name, tmp_path / name)
        cxrprep.convert(root, recipe="square-224", out=tmp_path / f"{name}-small")
        here = cxrprep.export(root, form="original", out=tmp_path / f"{name}-here").value
        shutil.rmtree(root)
        moved = cxrprep.export(tmp_path / f"{name}-small", form="original", out=tmp_path / f"{name}-moved").value
        assert moved.images == here.images
        assert {path.name for path in here.files} <= {path.name for path in moved.files}
        if name == "chexpert":
            for path in here.files:
                before = rows_of(path)
                after = rows_of(moved.out / path.name)
                plain = [{**row, "Path": row["Path"].removesuffix(".jpg")} for row in before]
                assert [{**row, "Path": row["Path"].removesuffix(".png")} for row in after] == plain
        # Without the cells of the release's table those of the manifest are spelled as it does.
        (tmp_path / f"{name}-small" / "manifests" / "labels.parquet").unlink(missing_ok=True)
        last = cxrprep.export(tmp_path / f"{name}-small", form="original", out=tmp_path / f"{name}-last").value
        assert last.images == here.images
        if name == "chexpert":
            for path in moved.files:
                known, told = rows_of(path), rows_of(last.out / path.name)
                # An age of 0 was dropped as implausible.
                assert told == [{**row, "Age": "" if row["Age"] == "0" else row["Age"]} for row in known]


def test_labels_of_a_source_that_the_catalog_does_not_know_are_those_that_it_gave(cx, tmp_path):
    root = tmp_path / "cx"
    shutil.copytree(cx, root)
    path = root / "manifests" / "images.parquet"
    table = pq.read_table(path)
    index = table.schema.get_field_index("label_source")
    other = pa.array(["our-reader"] * table.num_rows).dictionary_encode().cast(table.schema.field(index).type)
    footer = json.loads(table.schema.metadata[b"cxrprep"]) | {"label_source": "our-reader"}
    table = table.set_column(index, table.schema.field(index), other)
    pq.write_table(table.replace_schema_metadata({b"cxrprep": json.dumps(footer).encode()}), path)
    with pytest.warns(UserWarning, match="was altered"):
        loaded, one = cxrprep.load(root), cxrprep.load(root, selection=Selection(limit=1))
    assert loaded.observations == one.observations
    assert set(loaded.observations) == {
        name.removeprefix("label_")
        for name in table.column_names
        if name.startswith("label_") and name != "label_source" and table.column(name).null_count < table.num_rows
    }


def test_remaking_keeps_what_is_exported(tmp_path):
    root = made("chexpert", tmp_path)
    cxrprep.export(root, form="csv", out=tmp_path / "a")
    remade("chexpert", root)
    cxrprep.export(root, form="csv", out=tmp_path / "b")
    assert (tmp_path / "a" / "images.csv").read_bytes() == (tmp_path / "b" / "images.csv").read_bytes()


def test_the_split_of_the_release_and_the_fold_go_along(nih, tmp_path):
    released = {row["image_id"]: row["release_split"] for row in images(nih)}
    for form in ("csv", "hf", "webdataset"):
        made_ = cxrprep.export(nih, form=form, out=tmp_path / form, split_by="patient", folds=2).value
        rows = []
        for path in made_.files:
            if path.suffix == ".csv":
                rows += rows_of(path)
            elif path.suffix == ".parquet":
                rows += pq.read_table(path).to_pylist()
            elif path.suffix == ".tar":
                with tarfile.open(path) as archive:
                    rows += [json.load(archive.extractfile(m)) for m in archive if m.name.endswith(".json")]
        assert {row["image_id"]: row["release_split"] for row in rows} == released
        # A test split is in no fold.
        assert all((row["fold"] in (None, "", -1)) == (row["split"] == "test") for row in rows)
        assert {row["split"] for row in rows} > {"train"}


def in_groups(root, folder, rows_each, table=None):
    """A copy of the manifest below ``root``, or another table of its columns, with few rows in each group."""
    path = root / "manifests" / "images.parquet"
    (folder / "manifests").mkdir(parents=True)
    held = pq.read_table(path) if table is None else table
    pq.write_table(held, folder / "manifests" / "images.parquet", row_group_size=rows_each)
    return folder


def test_a_manifest_of_many_groups_is_selected_of_as_one_group(root, tmp_path):
    apart = in_groups(root, tmp_path / "apart", 2)
    rows = images(root)
    wanted = [
        {"sample": 3}, {"sample": 3, "seed": 7}, {"limit": 2}, {"include": [rows[0]["path"]]}, {"view": "frontal"},
        {"patients": [rows[-1]["patient_id"]]}, {"label": "No Finding=1"}, {"where": "bytes>1"},
        {"view": "PA", "limit": 1},
        *({"selection": Selection(splits=frozenset({row["split"]}))} for row in rows if row["split"]),
    ]  # fmt: skip
    for words in wanted:
        whole, parts = cxrprep.load(root, **words), cxrprep.load(apart, **words)
        assert parts.to_arrow().to_pylist() == whole.to_arrow().to_pylist(), words
        # Divided by nothing, all rows are read and then selected of.
        divided = cxrprep.load(root, split_by="patient", fractions="0.8,0.1,0.1", **words) if "limit" in words else None
        assert divided is None or divided.stated["path"].to_pylist() == parts.stated["path"].to_pylist()
        assert (parts.observations, parts.box_categories, parts.policy.knows) == (
            whole.observations, whole.box_categories, whole.policy.knows,
        )  # fmt: skip
    for words in ({"view": "upside-down"}, {"where": "no_column>1"}, {"label": "none:such"}):
        with pytest.raises(UsageError):
            cxrprep.load(apart, **words)


def test_a_sample_of_many_images_does_not_hold_them_all(cx, tmp_path):
    some, count = pq.read_table(cx / "manifests" / "images.parquet"), 200_000
    many = some.take(pa.array(np.arange(count) % len(some)))
    for name in ("image_id", "path"):
        values = pa.array([f"{number:09d}-{'x' * 60}" for number in range(count)])
        many = many.set_column(many.column_names.index(name), name, values)
    folder = in_groups(cx, tmp_path / "many", 10_000, many.replace_schema_metadata(some.schema.metadata))
    code = (
        "import cxrprep, pyarrow as pa, sys\n"
        "print(len(cxrprep.load(sys.argv[1], sample=10)), pa.default_memory_pool().max_memory())"
    )
    words = [sys.executable, "-c", code, str(folder)]
    held, peak = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert held == 10
    assert peak < many.nbytes / 3
