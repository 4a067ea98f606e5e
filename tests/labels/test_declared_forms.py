"""Tables of a declared dataset that are no CSV, what is drawn on images, and reports: read as they are meant."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from cxrprep.api.convert import convert
from cxrprep.api.pairs import pairs
from cxrprep.api.verify import verify
from cxrprep.datasets.catalog import find_dataset
from cxrprep.datasets.declaration import MaskRule
from cxrprep.errors import ConfigError, TableError, UsageError
from cxrprep.labels.declared_marks import _column_runs, compressed
from cxrprep.labels.declared_values import _group
from cxrprep.labels.extract import read_labels
from cxrprep.labels.label_rows import LabelOptions
from cxrprep.labels.source_vocabulary import box_categories
from cxrprep.manifest.load import load
from tests.generators.small import declared
from tests.tables_made import build_manifest, extract_labels

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEAD = """
format = 1
name = "ward"
title = "Ward"
summary = "Ours."
releases = ["1"]
default_release = "1"
[paths]
image = '(?P<id>a\\d+)\\.png$'
[vocabulary]
namespace = "ward"
open = true
[vocabulary.same]
"Effusion" = "pleural_effusion"
"""


def read(folder: Path, blocks: str, files: dict[str, object], *, head: str = HEAD, **options: object):
    (folder / "ward.toml").write_text(head + blocks)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_labels(find_dataset(str(folder / "ward.toml")), folder, **options)


@pytest.mark.parametrize(
    "pattern", [r"^(.+)\.png$", r"^(\w+)-1\.png$", r"^(a\.b)\.png$", r"^([^(]+)png$", r"^(.+)\.png"]
)
def test_a_pattern_of_all_but_an_ending_finds_what_its_group_finds(pattern):
    cells = ["a-1.png", "a.b.png", "c.png.jpg", ".png", "\u00e9-1.png", "a\n.png", None, ""]
    found = _group(pa.array(cells), pattern, "").to_pylist()
    matches = [re.search(pattern, cell or "", re.ASCII) for cell in cells]
    assert found == [match and match[1] for match in matches]


# ---- ids that another program saved ----

TWO_TABLES = """
[[table]]
name = "images"
patterns = ["images.csv"]
[[table]]
name = "boxes"
patterns = ["boxes.csv"]
[image]
table = "images"
id = "id"
patient = { column = "id", match = '^([a-z]+)' }
[[labels]]
source = "r"
table = "images"
shape = "columns"
columns = { "Effusion" = "Effusion" }
values = { "1" = 1, "0" = 0 }
[[boxes]]
table = "boxes"
image = "file"
label = "label"
corner_size = ["x", "y", "w", "h"]
"""
ANY_WORD = HEAD.replace(r"a\d+", r"\w+")
IMAGES = "id,Effusion\na_b1,1\na_b2,0\n"


@pytest.mark.parametrize(
    "spelled", ["A_B1", " a_b1 ", "a_b1.png", "/data/A_B1.PNG", "C:\\x\\a_b1.dcm", "a_b1.0", "a_b1\0"]
)
def test_where_any_word_is_an_id_the_only_image_that_a_cell_can_mean_is_meant(tmp_path, spelled):
    said: list[str] = []
    files = {"images.csv": IMAGES, "boxes.csv": f"file,label,x,y,w,h\n{spelled},Effusion,1,2,3,4\n"}
    found = read(
        tmp_path, TWO_TABLES, files, head=ANY_WORD, on_event=lambda event: said.append(getattr(event, "message", ""))
    )
    assert [len(boxes or []) for boxes in found.table["boxes"].to_pylist()] == [1, 0]
    assert any("file" in note for note in said), said


def test_a_cell_that_can_mean_two_images_means_none_and_is_counted(tmp_path):
    said: list[str] = []
    files = {"images.csv": "id,Effusion\na_b1,1\na_B1,0\n", "boxes.csv": "file,label,x,y,w,h\nA_B1,Effusion,1,2,3,4\n"}
    read(tmp_path, TWO_TABLES, files, head=ANY_WORD, on_event=lambda event: said.append(getattr(event, "message", "")))
    assert "1 of 1 rows are on images that no table lists" in said


def test_rows_that_name_no_image_are_said_with_their_place_and_refused_where_none_does(tmp_path):
    said: list[str] = []
    files = {"images.csv": "id,Effusion\na1,1\nTotal,\n", "boxes.csv": "file,label,x,y,w,h\na1,Effusion,1,2,3,4\n"}
    read(tmp_path, TWO_TABLES, files, on_event=lambda event: said.append(getattr(event, "message", "")))
    assert any("1 cells hold none, and are left out; the first: line 3, column 'id'" in note for note in said), said
    with pytest.raises(TableError, match=r"images.csv, line 2, column 'id': .*'b1' is not one"):
        read(tmp_path, TWO_TABLES, {**files, "images.csv": "id,Effusion\nb1,1\nb2,\n"})


KIND = """
[[table]]
name = "t"
patterns = ["t.csv"]
[image]
table = "t"
id = "id"
view = "view"
sex = { column = "sex", map = { Male = "M", Female = "F" }, else = "null" }
[views]
"Postero-anterior" = { view = "PA", projection = "frontal" }
[[labels]]
source = "r"
table = "t"
shape = "rows"
name = "finding"
absent = 0
"""


def test_words_in_other_capitals_are_those_of_the_file(tmp_path):
    said = "id,view,sex,finding\na1,{0},{1},{2}\na2,,,\n"
    plain = read(tmp_path, KIND, {"t.csv": said.format("Postero-anterior", "Female", "Effusion")}).table
    spelled = read(tmp_path, KIND, {"t.csv": said.format("POSTERO-ANTERIOR", "FEMALE", "effusion")}).table
    assert plain.column("label_pleural_effusion").to_pylist() == [1, 0]
    kept = [name for name in plain.column_names if name not in ("view_raw", "table_digest", "labels_raw")]
    assert spelled.select(kept).equals(plain.select(kept))


# ---- where a wrong cell stands ----

CELLS = """
[[table]]
name = "t"
patterns = ["t.*"]
form = "{form}"
rename = {{ YEARS = "age" }}
[image]
table = "t"
id = {{ column = "{image}", match = '^(a\\d+)' }}
study = {{ column = "{image}", match = '^a(\\d)' }}
{more}
"""
AGE = 'age = { column = "age", use = "number" }\n'
BY_STUDY = """[[labels]]
source = "r"
table = "t"
study = "study"
shape = "columns"
columns = { fluid = "Effusion" }
values = { yes = 1 }
"""
BOX = """[[boxes]]
table = "t"
image = "image"
label = { text = "box" }
corner_size = ["x", "y", "w", "h"]
"""
SPLIT = """[[splits]]
table = "t"
image = "name"
split = { column = "name", map = { a1 = "test" } }
"""


@pytest.mark.parametrize(
    ("form", "more", "content", "place"),
    [
        ("csv", AGE, 'image,note,YEARS\n\na1,"two\nlines",50\na2,,old\n', r"line 5, column 'YEARS'"),
        ("csv", AGE, "sep=;\nimage;YEARS\na1;x\n", r"line 3, column 'YEARS'"),
        ("csv", BY_STUDY, "image,study,fluid\na11,1,yes\na12,1,yes\na2,2,no\n",
         r"line 4, column 'fluid'"),
        ("json", AGE, [{"image": "a1", "YEARS": 50}, {"image": "a2", "YEARS": "x"}],
         r"row 2, column 'YEARS'"),
        ("names", SPLIT, "a1\na2\n", r"line 2: \[\[splits\]\]"),
        ("csv", BOX, "\nimage,x,y,w,h\na1,1,2,3,4\na1,,,,\na2,1,2,'3,4\n", r"line 5, column 'w'"),
    ],
    ids=["line breaks", "sep=", "by study", "json", "names", "box"],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_file_line_and_column(tmp_path, form, more, content, place):
    blocks = CELLS.format(form=form, image="name" if form == "names" else "image", more=more)
    with pytest.raises(TableError, match=rf"t\.{form}, {place}"):
        read(tmp_path, blocks, {f"t.{form}": content})


def test_cells_that_are_no_number_are_said_with_count_line_and_column(tmp_path):
    blocks = CELLS.format(form="csv", image="image", more='age = "age"\n')
    labels = read(tmp_path, blocks, {"t.csv": "image,YEARS\na1,50\na2,old\na3,old\na4,\n"})
    assert labels.table.column("age_years").to_pylist() == [50, None, None, None]
    said = "[image] age: 2 cells are no number, read as blank; the first: line 3, column 'YEARS'"
    assert said in [message for message, _, _ in labels.notes]


def test_findings_that_are_under_themselves_are_an_error_with_line(tmp_path):
    under = '[vocabulary.under]\nrib = "bone"\nbone = "rib"\n'
    with pytest.raises(ConfigError, match=r"ward\.toml.*(?s:.)*'rib' is under itself") as refused:
        read(tmp_path, under + CELLS.format(form="csv", image="image", more=""), {"t.csv": "image\na1\n"})
    assert "line" in str(refused.value) or ":16" in str(refused.value)


STRICT = """
[[table]]
name = "t"
patterns = ["t.csv"]
columns = ["image", "age"]
[table.cells]
image = { trim = '^.*/(a\\d+)$', match = '^a\\d+$', what = "a name such as a1", unique = true }
age = { match = '^\\d+$', what = "an age", blank = true }
[[table]]
name = "train"
form = "names"
patterns = ["train.txt"]
[[table]]
name = "test"
form = "names"
patterns = ["test.txt"]
[image]
table = "t"
id = "image"
age = { column = "age", use = "number" }
oldest = 90
[[labels]]
source = "r"
table = "t"
shape = "list"
names = { column = "image", map = {}, else = "null" }
[[splits]]
table = "train"
image = "name"
split = "train"
[[splits]]
table = "test"
image = "name"
split = "test"
"""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"t.csv": "image,age\na1,1\nb1,2\n"}, r"t\.csv, line 3, column 'image': expected a name such as a1 \('b1'\)"),
        ({"t.csv": "image,age\na1,1\n,2\n"}, r"t\.csv, line 3, column 'image': this cell must not be blank"),
        ({"t.csv": "image,age\na1,x\n"}, r"t\.csv, line 2, column 'age': expected an age \('x'\)"),
        ({"t.csv": "image,age\na1,1\nx/a1,2\n"}, r"t\.csv, line 3, column 'image': 'a1' stands in line 2 already"),
        ({"t.csv": "image,sex\na1,1\n"}, r"t\.csv, line 1: column 'age' is missing"),
        ({"t.csv": "image,age\na1,1\n", "train.txt": "a2\na1\n", "test.txt": "a3\n\na1\n"},
         r"test\.txt, line 3: a1 stands in train\.txt as well"),
    ],
)  # fmt: skip
def test_what_cells_must_be_and_lists_that_disagree(tmp_path, files, said):
    with pytest.raises(TableError, match=said):
        read(tmp_path, STRICT, files)


def test_cells_that_are_as_stated_are_read(tmp_path):
    labels = read(tmp_path, STRICT, {"t.csv": "image,age,note\nx/a1,91,n\na2,,\n"})
    rows = labels.table.select(["image_id", "age_years", "age_flag"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [("a1", None, "implausible"), ("a2", None, None)]
    said = " ".join(message for message, _, _ in labels.notes)
    for part in (
        "read as a1 is for x/a1",
        "does not have, kept as text: note",
        "no split lists are here (train.txt, test.txt)",
    ):
        assert part in said


def test_a_file_of_ones_own_names_no_code(tmp_path):
    file = tmp_path / "ward.toml"
    file.write_text(HEAD.replace("format = 1", 'format = 1\nmodule = "nih_chestxray14"') + STRICT)
    with pytest.raises(ConfigError, match=r"ward\.toml: module = 'nih_chestxray14' names a Python module"):
        find_dataset(str(file))


# ---- run lengths ----


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_the_pixels_that_coco_reads(seed):
    rng = random.Random(seed)
    height, width = rng.randint(1, 40), rng.randint(1, 40)
    pixels = np.array([[rng.random() < 0.5 for _ in range(width)] for _ in range(height)])
    order = rng.choice(["columns", "rows"])
    flat = pixels.ravel(order="F" if order == "columns" else "C").astype(int)
    changes = np.flatnonzero(np.diff([0, *flat, 0]))
    starts, ends = changes[0::2], changes[1::2]
    relative = rng.random() < 0.5
    first = starts - np.array([0, *ends[:-1]])[: len(starts)] if relative else starts + 1
    text = " ".join(f"{a} {b}" for a, b in zip(first, ends - starts, strict=True))
    rule = MaskRule("t", "i", "l", "rle", order=order, start="relative" if relative else "absolute")
    counts = compressed(_column_runs(rule, text, height, width))
    assert (coco.decode({"size": [height, width], "counts": counts}) == pixels).all()
    assert counts == coco.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("text", ["1 2 3", "1 -2", "1 5 3 9", "1 900", "one 2"])
def test_run_lengths_that_are_none_are_an_error_and_not_another_mask(tmp_path, text):
    blocks = """
[[table]]
name = "t"
patterns = ["t.csv"]
[image]
table = "t"
id = "image"
[[masks]]
table = "t"
image = "image"
label = { text = "Effusion" }
encoding = "rle"
runs = "runs"
size = [10, 10]
"""
    with pytest.raises(TableError, match=r"t\.csv, line 2, column 'runs': \[\[masks\]\] is no rle"):
        read(tmp_path, blocks, {"t.csv": f"image,runs\na1,{text}\n"})


def test_masks_are_kept_with_who_drew_them(tmp_path):
    root = tmp_path / "copy"
    declared.write(root, "chexlocalize")
    extract_labels(find_dataset("chexlocalize"), root)
    table = pq.read_table(root / "manifests" / "masks.parquet")
    rows = table.to_pylist()
    assert {row["label_source"] for row in rows} == {"radiologist", "radiologist-outline"}
    assert {row["label"] for row in rows} == {"Airspace Opacity"}
    assert {row["observation"] for row in rows} == {"label_lung_opacity"}
    (first, *_) = (row for row in rows if row["counts"])
    assert coco.decode({"size": [first["height"], first["width"]], "counts": first["counts"]}).sum() == 5
    assert next(row["polygons"] for row in rows if row["polygons"]) == [[1.0, 2.0, 9.0, 2.0, 9.0, 8.5]]
    build_manifest(find_dataset("chexlocalize"), root)
    convert(root, recipe="square-224", out=tmp_path / "small")
    assert (tmp_path / "small" / "manifests" / "masks.parquet").read_bytes() == (
        root / "manifests" / "masks.parquet"
    ).read_bytes()
    assert not verify(tmp_path / "small").exit_code
    # Fewer than before is a loss, as it is of labels.
    for name in ("val", "test"):
        (root / "CheXlocalize" / f"gt_annotations_{name}.json").write_text("{}")
    with pytest.raises(UsageError, match="masks"):
        extract_labels(find_dataset("chexlocalize"), root)


def test_masks_that_are_pictures_are_named(tmp_path):
    declared.write(tmp_path, "montgomery-tb")
    masks = read_labels(find_dataset("montgomery-tb"), tmp_path).masks.to_pylist()
    assert len(masks) == 12
    assert all((tmp_path / row["path"]).is_file() for row in masks)


# ---- forms ----

COCO = """
[[table]]
name = "t"
form = "coco"
patterns = ["t.json"]
[image]
table = "t"
id = { column = "file_name", match = '^(.+)\\.png$' }
[[labels]]
source = "readers"
table = "t"
shape = "rows"
image = { column = "file_name", match = '^(.+)\\.png$' }
name = "category"
absent = 0
[[boxes]]
table = "t"
image = { column = "file_name", match = '^(.+)\\.png$' }
label = "category"
score = "score"
corner_size = ["box_x", "box_y", "box_w", "box_h"]
"""


def test_coco_gives_labels_and_boxes_and_images_without_any(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "a1.png"}, {"id": 2, "file_name": "a2.png"}],
        # The same box a second time is that box.
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3.5, 4], "score": 0.5}] * 2,
        "categories": [{"id": 7, "name": "Effusion"}],
    }
    labels = read(tmp_path, COCO, {"t.json": data})
    table = labels.table
    assert table.column("label_pleural_effusion").to_pylist() == [1, 0]
    box = {"label": "Effusion", "x": 1.0, "y": 2.0, "w": 3.5, "h": 4.0, "reader": None, "score": 0.5}
    assert table.column("boxes").to_pylist() == [[box], None]
    (use,) = (use for use in labels.tables if use.role == "boxes")
    assert (use.rows, use.used, dict(use.apart)) == (3, 1, {"draw no box": 1, "repeat another box": 1})


CROWD = """
[[masks]]
table = "t"
image = { column = "file_name", match = '^(.+)\\.png$' }
label = "category"
encoding = "coco-rle"
runs = "segmentation"
size = [1, 1]
"""


def test_regions_of_crowds_are_masks_and_an_image_without_any_has_none(tmp_path):
    drawn = np.zeros((3, 4), np.uint8)
    drawn[1:, 2] = 1
    runs = [int(run) for run in (7, 2, 3)]
    data = {
        "images": [{"id": 1, "file_name": "a1.png"}, {"id": 2, "file_name": "a2.png"}],
        "categories": [{"id": 1, "name": "Effusion"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"size": [3, 4], "counts": runs}}],
    }
    labels = read(tmp_path, COCO + CROWD, {"t.json": data})
    (mask,) = labels.masks.to_pylist()
    assert (mask["image_id"], mask["observation"]) == ("a1", "label_pleural_effusion")
    found = coco.decode({"size": [mask["height"], mask["width"]], "counts": mask["counts"]})
    assert found.tolist() == drawn.tolist()


LOOSE = """
[[table]]
name = "flags"
patterns = ["flags.csv"]
[image]
table = "flags"
id = "id"
[[labels]]
source = "flags"
table = "flags"
shape = "columns"
image = "id"
columns = "all"
values = { "1" = 1, "0" = 0 }
"""


def test_columns_that_nobody_declared_are_findings_as_spreadsheets_and_pandas_write_them(tmp_path):
    table = "id,Mass,Cyst,fold\na1,TRUE,1.0,3\na2,,0.0,4\n"
    rows = read(tmp_path, LOOSE, {"flags.csv": table}).table.to_pylist()
    assert [(row["label_ward__mass"], row["label_ward__cyst"]) for row in rows] == [(1, 1), (None, 0)]
    assert "label_ward__fold" not in rows[0]


@pytest.mark.parametrize("data", [[], {"images": [{}]}, {"images": [], "annotations": [{"image_id": 9}]}])
def test_what_is_no_coco_is_said_with_its_file(tmp_path, data):
    with pytest.raises(TableError, match=r"t\.json is not the coco that t declares"):
        read(tmp_path, COCO, {"t.json": data})


JSON = """
[[table]]
name = "t"
form = "json"
patterns = ["t.json"]
keys = ["study"]
explode = ["images", "views"]
[image]
table = "t"
id = { column = "images", match = '/(a\\d+)\\.png$' }
study = "study"
view = "views"
[views]
PA = { view = "PA", projection = "frontal" }
[[reports]]
table = "t"
study = "study"
[reports.sections]
findings = "found"
impression = "said"
"""


def test_parallel_lists_and_sections(tmp_path):
    data = {
        "s1": {"images": ["x/a1.png", "x/a2.png"], "views": ["PA", None], "found": "Clear.", "said": None},
        "s2": {"images": ["x/a3.png"], "views": ["PA"], "found": "Big heart.", "said": "Cardiomegaly."},
    }
    table = read(tmp_path, JSON, {"t.json": data}, options=LabelOptions(report_text=True)).table
    assert table.column("view").to_pylist() == ["PA", None, "PA"]
    assert table.column("study_id").to_pylist() == ["s1", "s1", "s2"]
    texts = table.column("report_text").to_pylist()
    assert texts == ["FINDINGS: Clear."] * 2 + ["FINDINGS: Big heart.\n\nIMPRESSION: Cardiomegaly."]


def test_lists_of_unequal_length_are_an_error(tmp_path):
    with pytest.raises(TableError, match="not lists of one length"):
        read(tmp_path, JSON, {"t.json": {"s1": {"images": ["x/a1.png"], "views": []}}})


def test_report_texts_that_no_table_has_are_said(tmp_path):
    with pytest.raises(UsageError, match="no table here has those of ward"):
        read(tmp_path, COCO, {"t.json": {"images": [{"id": 1, "file_name": "a1.png"}]}},
             options=LabelOptions(report_text=True))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"), [("openi", "findings of"), ("padchest", "report "), ("shenzhen-tb", "male")]
)
def test_reports_in_tables_are_pairs_and_go_along_in_exports(tmp_path, name, found):
    declared.write(tmp_path, name)
    extract_labels(find_dataset(name), tmp_path)
    build_manifest(find_dataset(name), tmp_path)
    pairs(tmp_path)
    texts = load(tmp_path, text="findings").report_sections().column("findings").to_pylist()
    assert all(found in text for text in texts)


def test_xml_that_is_cut_short_is_named(tmp_path):
    declared.write(tmp_path, "openi")
    first = min((tmp_path / "ecgen-radiology").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    with pytest.raises(TableError, match=first.name):
        read_labels(find_dataset("openi"), tmp_path)


def test_a_second_table_tells_whose_the_images_are(tmp_path):
    declared.write(tmp_path, "rsna-pneumonia")
    spec = find_dataset("rsna-pneumonia")
    before = read_labels(spec, tmp_path).table
    assert before.column("patient_id").to_pylist() == before.column("image_id").to_pylist()
    ids = before.column("image_id").to_pylist()
    listed = [{"subset_img_id": image, "img_id": f"0000000{n // 2}_00{n}.png"} for n, image in enumerate(ids)]
    (tmp_path / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(listed))
    notes = []
    table = read_labels(spec, tmp_path, on_event=lambda event: notes.append(event.message)).table
    patients = dict(zip(table.column("image_id").to_pylist(), table.column("patient_id").to_pylist(), strict=True))
    assert [patients[image] for image in ids] == [f"0000000{n // 2}" for n in range(len(ids))]
    assert not any("does not say whose" in note for note in notes)


def test_categories_of_boxes_do_not_depend_on_what_is_drawn():
    names = box_categories("vindr-cxr", ["Nodule/Mass"])
    assert names == box_categories("vindr-cxr", ["Edema", "Clavicle fracture"])
    assert "No finding" not in names
    assert box_categories("vindr-cxr", ["Other"]) == (*names, "Other")


# ---- tables of other collections, as their publishers wrote them ----

NO_HEADER = """
[[table]]
name = "t"
patterns = ["lists/of/t.txt"]
delimiter = " "
header = ["patient", "file", "word", "age"]
has_header = false
[image]
table = "t"
id = { column = "file", match = '^(a\\d+)' }
patient = "patient"
age = { column = "age", use = "number" }
[[labels]]
source = "r"
table = "t"
shape = "columns"
image = { column = "file", match = '^(a\\d+)' }
columns = { word = "Effusion" }
values = { positive = 1, negative = 0 }
"""


@pytest.mark.parametrize("folder", ["lists/of", "images/lists/of"])
def test_a_table_without_a_header_loses_no_row_and_its_lines_are_counted_from_1(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    blocks = NO_HEADER.replace("lists/of", folder)
    text = "p1 a1.png  positive 40\np1 a2.png  negative 41\n  p2 a3.png positive 42 \r\n"
    table = read(tmp_path, blocks, {f"{folder}/t.txt": text}).table
    columns = (table.column(name).to_pylist() for name in ("image_id", "patient_id", "label_pleural_effusion"))
    assert [*zip(*columns, strict=True)] == [("a1", "p1", 1), ("a2", "p1", 0), ("a3", "p2", 1)]
    with pytest.raises(TableError, match=r"t\.txt, line 2, column 'word': 'maybe' is no label"):
        read(tmp_path, blocks, {f"{folder}/t.txt": text.replace("negative", "maybe")})
    with pytest.raises(TableError, match=r"line 1: its first line has 'a1\.png', and is no header") as refused:
        read(tmp_path, blocks.replace("has_header = false\n", ""), {f"{folder}/t.txt": text})
    assert "has_header = false" in refused.value.hint


NESTED = """
[[table]]
name = "list"
form = "json"
patterns = ["t.json"]
[[table]]
name = "drawn"
form = "json"
patterns = ["t.json"]
explode = ["found"]
[image]
table = "list"
id = "image"
[[labels]]
source = "r"
table = "drawn"
shape = "rows"
image = "image"
name = "what"
where = { sure = ["true"] }
absent = 0
[[boxes]]
table = "drawn"
image = "image"
label = "what"
corners = "box"
[[masks]]
table = "drawn"
image = "image"
label = "what"
encoding = "polygons"
points = "ring"
"""


def test_objects_in_a_list_are_rows_with_boxes_and_rings_in_one_cell(tmp_path):
    found = {"what": "Effusion", "sure": True, "box": [1, 2, 31.5, 42], "ring": [[1, 2], [30, 2], [30, 40]]}
    as_text = {"what": "rib", "sure": False, "box": "(5, 6, 7, 8)", "ring": "[[0, 0], [9, 0], [9, 9]]"}
    data = [{"image": "a1", "found": [found, as_text]}, {"image": "a2", "found": []}]
    labels = read(tmp_path, NESTED, {"t.json": data})
    assert labels.table.column("label_pleural_effusion").to_pylist() == [1, None]
    assert "label_ward__rib" not in labels.table.column_names
    boxes = [(box["x"], box["y"], box["w"], box["h"]) for box in labels.table.column("boxes").to_pylist()[0]]
    assert boxes == [(1, 2, 30.5, 40), (5, 6, 2, 2)]
    rings = [row["polygons"] for row in labels.masks.to_pylist()]
    assert rings == [[[1, 2, 30, 2, 30, 40]], [[0, 0, 9, 0, 9, 9]]]
    found["box"] = [1, 2, 3]
    with pytest.raises(
        TableError, match=r"t\.json, row 1, column 'box': \[\[boxes\]\] expects four numbers a box, found"
    ):
        read(tmp_path, NESTED, {"t.json": data})


PEOPLE = """
[[table]]
name = "t"
patterns = ["t.csv"]
[[table]]
name = "people"
patterns = ["people.csv"]
[image]
table = "t"
id = "image"
patient = "whose"
birth_year = { column = "born", use = "date:%d/%m/%Y" }
date = { column = "taken", use = "date:%Y%m%d" }
[[link]]
table = "people"
patient = "person"
sex = "sex"
"""


def test_a_table_of_patients_and_days_of_birth(tmp_path):
    files = {
        "t.csv": "image,whose,born,taken\na1,p1,31/12/1960,20200101\na2,p1,31/12/1960,20210101\na3,p2,,20200101\n",
        "people.csv": "person,sex\np1,F\np3,M\n",
    }
    labels = read(tmp_path, PEOPLE, files)
    assert labels.table.column("sex").to_pylist() == ["F", "F", None]
    assert labels.table.column("age_years").to_pylist() == pytest.approx([59.0, 60.0, None], abs=0.01, nan_ok=True)
    (use,) = (use for use in labels.tables if use.name == "people.csv")
    assert (use.rows, use.used) == (2, 1)
    # A day of birth that stands in another block than the day of the image gives no age, and that is said.
    notes = []
    apart = PEOPLE.replace("birth_year", "#").replace(
        'sex = "sex"', 'birth_year = { column = "sex", else = "null", map = {} }'
    )
    rows = read(tmp_path, apart, files, on_event=notes.append)
    assert rows.table.column("age_years").null_count == 3
    assert any("birth_year: no age is known without a date" in getattr(note, "message", "") for note in notes)
    with pytest.raises(ConfigError, match=r"\[\[link\]\] needs the image, the study or the patient"):
        read(tmp_path, PEOPLE.replace('patient = "person"\n', ""), files)


def test_a_column_that_is_missing_is_named_with_the_line_of_the_datasets_file(tmp_path):
    with pytest.raises(TableError, match=r"t\.csv: column 'taken' is missing") as refused:
        read(tmp_path, PEOPLE, {"t.csv": "image,whose,born\na1,p1,31/12/1960\n", "people.csv": "person,sex\np1,F\n"})
    line = (HEAD + PEOPLE).splitlines().index('date = { column = "taken", use = "date:%Y%m%d" }') + 1
    assert refused.value.hint.endswith(f"ward.toml, line {line}")


def test_images_may_have_no_ending(tmp_path):
    head = HEAD.replace(r"(?P<id>a\d+)\.png$", r"(?:^|/)(?P<id>1\.2[0-9.]*)$")
    blocks = '[images]\nsuffixes = [""]\nformats = ["DICOM"]\n' + STUDIES
    (tmp_path / "1.2.7").write_bytes(b"pixels")
    labels = read(tmp_path, blocks, {"t.csv": "image,whose\n1.2.7,p1\n"}, head=head)
    assert labels.table.column("image_id").to_pylist() == ["1.2.7"]
    extract_labels(find_dataset(str(tmp_path / "ward.toml")), tmp_path)
    made = build_manifest(find_dataset(str(tmp_path / "ward.toml")), tmp_path)
    assert (made.images, made.not_here) == (1, 0)


STUDIES = """
[[table]]
name = "t"
patterns = ["t.csv"]
[image]
table = "t"
id = "image"
patient = "whose"
"""


LISTS = """
[[table]]
name = "t"
form = "json"
patterns = ["t.json"]
[image]
table = "t"
id = "image"
age = { column = "age", use = "number" }
[[labels]]
source = "r"
table = "t"
shape = "list"
image = "image"
names = { column = "labels", use = "json-list" }
absent = 0
"""


@pytest.mark.parametrize("age", [50, [50], "50", {"a": 1}, [[1]], [{}]])
@pytest.mark.parametrize("labels", [["Effusion"], '["Effusion"]', [["Effusion"]], [{"a": 1}, 3]])
def test_json_of_any_form_in_a_cell_is_read_or_refused_by_its_row(tmp_path, age, labels):
    files = {"t.json": [{"image": "a1", "labels": labels, "age": age}]}
    if age not in (50, [50], "50"):
        with pytest.raises(TableError, match=r"t\.json, row 1, column 'age'"):
            read(tmp_path, LISTS, files)
        return
    (row,) = read(tmp_path, LISTS, files).table.to_pylist()
    assert row["age_years"] == 50
    assert labels not in (["Effusion"], '["Effusion"]') or row["label_pleural_effusion"] == 1


SHAPES = f"""{STUDIES}height = "rows"
width = "columns"
[[boxes]]
table = "t"
image = "image"
label = {{ text = "nodule" }}
corner_size = "drawn"
"""


def boxes_in(tmp_path, cells, more=""):
    rows = [f'a{n},P{n},100,200,"{cell}"' for n, cell in enumerate(cells, 1)]
    labels = read(tmp_path, SHAPES + more, {"t.csv": "\n".join(["image,whose,rows,columns,drawn", *rows]) + "\n"})
    found = labels.table.column("boxes").to_pylist()
    return [[tuple(box[side] for side in "xywh") for box in of or ()] for of in found], labels


@pytest.mark.parametrize("cell", ["1 2 3 4;5 6 7 8.5", "[[1,2,3,4],[5,6,7,8.5]]", "(1, 2, 3, 4) (5, 6, 7, 8.5)",
                                  "x1=1 y1=2 w=3 h=4 | x1=5 y1=6 w=7 h=8.5"])  # fmt: skip
def test_a_cell_holds_as_many_boxes_as_it_has_fours(tmp_path, cell):
    found, labels = boxes_in(tmp_path, [cell, "", "9 9 1 1"])
    assert found == [[(1, 2, 3, 4), (5, 6, 7, 8.5)], [], [(9, 9, 1, 1)]]
    (use,) = [use for use in labels.tables if use.role == "boxes"]
    assert (use.rows, use.used, use.apart) == (4, 3, (("draw no box", 1),))
    with pytest.raises(TableError, match=r"line 2, column 'drawn': .* expects four numbers a box"):
        boxes_in(tmp_path, [f"{cell} 3"])


def test_boxes_may_be_parts_of_their_images(tmp_path):
    cells = ["0.5 .25 0.125 0.5;0 0 1 1"]
    assert boxes_in(tmp_path, cells, "size = [80, 40]\n")[0] == [[(20, 20, 5, 40), (0, 0, 40, 80)]]
    assert boxes_in(tmp_path, cells, 'size = "image"\n')[0] == [[(100, 25, 25, 50), (0, 0, 200, 100)]]
    with pytest.raises(TableError, match=r"line 3, column 'drawn': .* 3 is no part of an image"):
        boxes_in(tmp_path, [*cells, "0.5 0.5 3 0.5"], "size = [80, 40]\n")
    with pytest.raises(TableError, match="no table says how large this image is"):
        read(tmp_path, SHAPES + 'size = "image"\n', {"t.csv": "image,whose,rows,columns,drawn\na1,P,100,,0 0 1 1\n"})
    with pytest.raises(ConfigError, match=r"size is \[height, width\] in pixels"):
        boxes_in(tmp_path, cells, "size = [0, 40]\n")


def test_polygons_as_databases_write_them(tmp_path):
    masks = SHAPES.split("[[boxes]]", maxsplit=1)[0] + (
        '[[masks]]\ntable = "t"\nimage = "image"\nlabel = { text = "n" }\nencoding = "polygons"\npoints = "drawn"\n'
    )
    head = "image,whose,rows,columns,drawn\n"
    two = "MULTIPOLYGON (((1 1, 9 1, 9 9, 1 1)), ((20 20, 30 20, 30.5 30)))"
    table = head + f'a1,P,1,1,"POLYGON((10 10,30 10,30 20,10 10))"\na2,P,1,1,"{two}"\na3,P,1,1,\n'
    rings = [row["polygons"] for row in read(tmp_path, masks, {"t.csv": table}).masks.to_pylist()]
    assert rings == [[[10, 10, 30, 10, 30, 20]], [[1, 1, 9, 1, 9, 9], [20, 20, 30, 20, 30.5, 30]]]
    hole = "POLYGON ((0 0, 9 0, 9 9, 0 0), (2 1, 3 1, 3 2, 2 1))"
    three, deep = "POLYGON Z ((1 2 3, 4 5 6, 7 8 9))", "[" * 100_000
    for cell, said in ((hole, "has a hole"), (three, "other than two numbers"), (deep, "nested too deeply")):
        with pytest.raises(TableError, match=f"line 2, column 'drawn': .*{said}"):
            read(tmp_path, masks, {"t.csv": f'{head}a1,P,1,1,"{cell}"\n'})


@pytest.mark.parametrize("broken", ["5.04E+07", "1,00e+07", "3-Jan", "Mar-01", "12-Dec-2023"])
@pytest.mark.parametrize("column", [0, 1])
def test_what_a_spreadsheet_made_of_ids_is_refused(tmp_path, broken, column):
    lines = [["a1", "P1"], ["a2", "P2"]]
    lines[1][column] = broken
    table = "image,whose,rows,columns,drawn\n" + "".join(f'"{a}","{b}",1,1,\n' for a, b in lines)
    name = ("image", "whose")[column]
    with pytest.raises(TableError, match=f"line 3, column '{name}': .*spreadsheet") as refused:
        read(tmp_path, SHAPES.replace("a\\d+", ".+"), {"t.csv": table})
    assert "with this column as text" in refused.value.hint


def test_ids_that_a_pattern_says_look_like_dates_are_ids(tmp_path):
    form = SHAPES.replace('patient = "whose"', "patient = { column = 'whose', match = '^(\\w+-\\w+)$' }")
    table = "image,whose,rows,columns,drawn\na1,3-Jan,1,1,\na2,4-Jan,1,1,\n"
    assert read(tmp_path, form, {"t.csv": table}).table.column("patient_id").to_pylist() == ["3-Jan", "4-Jan"]


def test_more_words_than_anyone_has_findings_are_refused(tmp_path):
    rule = '[[labels]]\nsource = "r"\ntable = "t"\nimage = "image"\nabsent = 0\n'
    table = "image,whose,rows,columns,drawn\n" + "".join(f"a{n},P,1,1,code {n}\n" for n in range(5001))
    form = SHAPES.split("[[boxes]]", maxsplit=1)[0] + rule
    for shape in ('shape = "rows"\nname = "drawn"\n', 'shape = "list"\nnames = { column = "drawn", split = "|" }\n'):
        with pytest.raises(TableError, match=r"column 'drawn': .*5,001 different words") as refused:
            read(tmp_path, form + shape, {"t.csv": table})
        assert "part lists by split" in refused.value.hint
