"""Collections as people find them: each kind of table in the words of a dataset's file, and each key in an example."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from cxrprep.api.dataset_check import check_dataset
from cxrprep.datasets import declaration as written
from cxrprep.datasets.catalog import find_dataset
from cxrprep.datasets.declaration_check import _CELLS, _RULES
from cxrprep.errors import CxrprepError
from cxrprep.labels.extract import read_labels
from tests.datasets.test_declaration import PROJECT, declarations
from tests.sample import some

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = """
format = 1
name = "{name}"
title = "Found"
summary = "A collection that somebody found."
releases = ["1"]
default_release = "1"
"""
BLOCKS = {
    "table": written.DeclaredTable,
    "paths": written.PathRule,
    "image": written.ImageRule,
    "link": written.LinkRule,
    "vocabulary": written.VocabularyRule,
    "labels": written.LabelRule,
    "boxes": written.BoxRule,
    "masks": written.MaskRule,
    "reports": written.ReportRule,
    "splits": written.DeclaredSplit,
    "cells": written.CellRule,
}


def put(root: Path, files: dict[str, str | None]) -> Path:
    """Files below a folder; those without text are pictures."""
    for number, (name, text) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            grey = np.random.default_rng(number).integers(0, 255, (300, 260), dtype=np.uint8)
            cv2.imwrite(str(path), grey)
        else:
            path.write_text(text)
    return root


def keys_in(value: Any) -> Iterator[tuple[str, str]]:
    """The keys of values, wherever they are."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield "value", key
        yield from keys_in(inner)
    for inner in value if isinstance(value, list) else ():
        yield from keys_in(inner)


def test_each_key_is_in_an_example_that_is_run():
    built_in = (path.read_text(encoding="utf-8") for path in (PROJECT / "cxrprep" / "datasets").glob("*.toml"))
    used: set[tuple[str, str]] = set()
    for text in (*built_in, *declarations()):
        for block, content in tomllib.loads(text).items() if "\nformat = 1" in f"\n{text}" else ():
            for one in content if isinstance(content, list) else [content] if block in BLOCKS else []:
                if isinstance(one, dict):
                    used |= {(block, key) for key in one} | set(keys_in(one))
                    used |= {("cells", key) for rule in one.get("cells", {}).values() for key in rule}
    known = {(block, one.name) for block, kind in BLOCKS.items() for one in dataclasses.fields(kind)}
    assert sorted((known | {("value", key) for key in (*_CELLS, *_RULES)}) - used) == []


def test_the_second_file_of_the_guide_reads_what_the_guide_says(tmp_path):
    root = put(
        tmp_path / "data",
        {
            **dict.fromkeys(("east/1.png", "east/2.png", "west/3.png"), None),
            "list.txt": "east/1.png m1 v1\neast/2.png m1 v2\nwest/3.png m2 v3\n",
            "visits.csv": "visit,day,born,part,number\nv1,01.03.2020,01.03.1950,A,1\nv2,01.03.2021,01.03.1950,A,100\n"
            "v3,05.05.2020,05.05.1990,B,0\n",
            "people.csv": "mrn,diagnosis,final\nm1,pneumonia,1\nm2,scoliosis,1\nm1,scoliosis,0\n",
            "drawn.json": json.dumps(
                [{"picture": "1", "labels": ["nodule"], "circles": [[50, 60, 20, 10]], "scores": [0.5]}]
            ),
            "outlines.csv": "picture,path,runs,by,sure\n3,west/3.png,260 2 520 2,R2,0.75\n",
        },
    )
    file = tmp_path / "ward-8.toml"
    file.write_text(declarations()[1])
    checked = check_dataset(file, root, contract=True)
    assert [clause for clause in checked.value.contract if not clause.holds] == []
    assert (checked.value.boxes, checked.value.masks) == (1, 1)
    labels = read_labels(find_dataset(str(file)), root)
    first, second, third = labels.table.sort_by("image_id").to_pylist()
    assert [row["patient_id"] for row in (first, second, third)] == ["m1", "m1", "m2"]
    assert [row["label_pneumonia"] for row in (first, second, third)] == [1, 1, 0]
    assert third["label_ward8__scoliosis"] == 1
    assert first["label_ward8__scoliosis"] == 0
    assert (round(first["age_years"]), first["split"], first["follow_up"]) == (70, "train", 1)
    assert (third["split"], third["follow_up"], second["follow_up"]) == ("test", 0, None)
    assert third["path_raw"] == "west/3.png"
    (box,) = first["boxes"]
    assert (box["x"], box["y"], box["w"], box["h"], box["score"]) == (40, 55, 20, 10, 0.5)
    (mask,) = labels.masks.to_pylist()
    assert (mask["image_id"], mask["label"], mask["reader"], mask["score"]) == ("3", "nodule", "R2", 0.75)


FOUND = {
    # ChestX-Det: an object for each image, with lists of one length.
    "lists in JSON": (
        """
[paths]
image = '(?:^|/)train_data/(?P<id>\\d+)\\.png$'
[[table]]
name = "images"
form = "json"
patterns = ["train.json"]
[[table]]
name = "drawn"
form = "json"
patterns = ["train.json"]
explode = ["syms", "boxes"]
[image]
table = "images"
id = { column = "file_name", match = '^(\\d+)\\.png$' }
[vocabulary]
namespace = "found"
open = true
[vocabulary.same]
"Effusion" = "pleural_effusion"
[[labels]]
source = "readers"
table = "images"
shape = "list"
names = "syms"
absent = 0
[[boxes]]
table = "drawn"
image = { column = "file_name", match = '^(\\d+)\\.png$' }
label = "syms"
corners = "boxes"
""",
        {
            "train_data/1.png": None,
            "train_data/2.png": None,
            "train.json": json.dumps(
                [
                    {"file_name": "1.png", "syms": ["Effusion", "Cyst"], "boxes": [[1, 2, 30, 40], [3, 4, 10, 12]]},
                    {"file_name": "2.png", "syms": [], "boxes": []},
                ]
            ),
        },
        {"label_pleural_effusion": [1, 0], "label_found__cyst": [1, 0]},
        2,
    ),
    # A name or a list of names: each is a label.
    "names of rows in JSON": (
        """
[paths]
image = '(?:^|/)(?P<id>\\d+)\\.png$'
[[table]]
name = "rows"
form = "json"
patterns = ["rows.json"]
[image]
table = "rows"
id = "id"
[vocabulary]
namespace = "found"
open = true
[vocabulary.same]
"Effusion" = "pleural_effusion"
[[labels]]
source = "readers"
table = "rows"
shape = "rows"
name = "findings"
absent = 0
""",
        {
            "1.png": None,
            "2.png": None,
            "3.png": None,
            "rows.json": json.dumps(
                [
                    {"id": "1", "findings": ["Effusion", "Cyst"]},
                    {"id": "2", "findings": "Cyst"},
                    {"id": "3", "findings": []},
                ]
            ),
        },
        {"label_pleural_effusion": [1, 0, 0], "label_found__cyst": [1, 1, 0]},
        0,
    ),
    # PASCAL VOC's form: a document for each image.
    "boxes in XML": (
        """
[paths]
image = '(?:^|/)JPEGImages/(?P<id>\\w+)\\.jpg$'
[images]
suffixes = [".jpg"]
[[table]]
name = "documents"
form = "xml"
patterns = ["Annotations/*.xml"]
[[table]]
name = "objects"
form = "xml"
rows = "object"
patterns = ["Annotations/*.xml"]
[image]
table = "documents"
id = { column = "filename", match = '^(\\w+)\\.jpg$' }
[vocabulary]
namespace = "found"
open = true
[[labels]]
source = "readers"
table = "documents"
shape = "list"
names = "object/name"
absent = 0
[[boxes]]
table = "objects"
image = { column = "/filename", match = '^(\\w+)\\.jpg$' }
label = "name"
corners = ["bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax"]
where = { difficult = { not = ["1"] } }
""",
        {
            "JPEGImages/a.jpg": None,
            "Annotations/a.xml": "<annotation><filename>a.jpg</filename>"
            + "".join(
                f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
                "<xmax>30</xmax><ymax>40</ymax></bndbox></object>"
                for name, hard in (("cyst", 0), ("nodule", 1))
            )
            + "</annotation>",
        },
        {"label_found__cyst": [1], "label_found__nodule": [1]},
        1,
    ),
    # Folders by class, as Kaggle's collections have them.
    "a folder in the path": (
        """
[paths]
image = '(?:^|/)(?P<kind>COVID|Normal)/images/(?P<id>[^/]+)\\.png$'
place = "{kind}/images/{id}.png"
[[table]]
name = "files"
form = "files"
patterns = ["*/images/*.png"]
groups = '(?P<kind>COVID|Normal)/images/(?P<id>[^/]+)\\.png$'
[image]
table = "files"
id = "id"
[vocabulary]
namespace = "found"
open = true
[vocabulary.same]
"Normal" = "no_finding"
[[labels]]
source = "folders"
table = "files"
shape = "class"
name = "kind"
absent = 0
""",
        {"COVID/images/COVID-1.png": None, "Normal/images/Normal-1.png": None},
        {"label_no_finding": [0, 1], "label_found__covid": [1, 0]},
        0,
    ),
    # RANZCR CLiP: columns of findings beside ids, of which none is taken for a finding.
    "ids beside findings": (
        """
[paths]
image = '(?:^|/)train/(?P<id>[\\d.]+)\\.png$'
[[table]]
name = "train"
patterns = ["train.csv"]
[image]
table = "train"
id = "UID"
patient = "Patient"
[vocabulary]
namespace = "found"
open = true
[[labels]]
source = "readers"
table = "train"
shape = "columns"
columns = "all"
values = { "1" = 1, "0" = 0 }
""",
        {
            "train/1.2.png": None,
            "train/1.3.png": None,
            "train.csv": "UID,Patient,ETT - Normal,CVC\n1.2,1,1,0\n1.3,0,0,1\n",
        },
        {"label_found__ett_normal": [1, 0], "label_found__cvc": [0, 1]},
        0,
    ),
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_collection_is_read_as_it_is(tmp_path, kind):
    blocks, files, expected, boxes = FOUND[kind]
    root = put(tmp_path / "data", files)
    file = tmp_path / "found.toml"
    file.write_text(HEAD.format(name="found") + blocks)
    said: list[str] = []
    checked = check_dataset(
        file, root, contract=True, on_event=lambda event: said.append(getattr(event, "message", ""))
    )
    assert [clause for clause in checked.value.contract if not clause.holds] == []
    assert checked.value.boxes == boxes
    table = read_labels(find_dataset(str(file)), root).table.sort_by("image_id")
    named = [name for name in table.column_names if name.startswith("label_") and name != "label_source"]
    found = {name: values for name in named if set(values := table.column(name).to_pylist()) != {None}}
    assert found == expected
    assert [one for one in said if "left out" in one and "not declared" in one] == []


def test_each_pattern_of_a_table_of_many_files_counts(tmp_path):
    blocks, files, *_ = FOUND["a folder in the path"]
    several = blocks.replace('["*/images/*.png"]', '["COVID/images/*.png", "Normal/images/*.png"]')
    root = put(tmp_path / "data", files)
    file = tmp_path / "found.toml"
    file.write_text(HEAD.format(name="found") + several)
    checked = check_dataset(file, root).value
    assert (checked.images_listed, checked.images_matched) == (2, 2)


WARD_8 = {
    **dict.fromkeys(("east/1.png", "west/3.png"), None),
    "list.txt": "east/1.png m1 v1\nwest/3.png m2 v3\n",
    "visits.csv": "visit,day,born,part,number\nv1,01.03.2020,01.03.1950,A,77\nv3,05.05.2020,05.05.1990,B,0\n",
    "people.csv": "mrn,diagnosis,final\nm1,pneumonia,1\nm2,scoliosis,1\n",
    "drawn.json": json.dumps([{"picture": "1", "labels": ["nodule"], "circles": [[50, 60, 20, 10]], "scores": [0.5]}]),
    "outlines.csv": "picture,path,runs,by,sure\n3,west/3.png,260 2 520 2,R2,0.75\n",
}
CELLS = [("visits.csv", cell) for cell in ("01.03.2020", "01.03.1950", "A", "77")] + [
    ("outlines.csv", cell) for cell in ("260 2", "520 2", "0.75", "west/3.png", "R2")
] + [("drawn.json", cell) for cell in ("50", "20", "0.5")]  # fmt: skip
NUMBER = 'follow_up = { column = "number", min = 0, max = 99 }'
STRANGE = ["1e400", "-1e400", "9" * 20, "9" * 400, "-7", "nan", "inf", "1.5", "", "40000", "9" * 400 + "Y"]


@pytest.mark.parametrize(("table", "cell"), some(CELLS, one_in=3))
def test_a_number_that_none_can_be_is_null_or_refused_by_its_place(tmp_path, table, cell):
    root = put(tmp_path / "data", WARD_8)
    file = tmp_path / "ward-8.toml"
    # Sizes and ages as tables mostly state them.
    file.write_text(
        declarations()[1].replace(NUMBER, 'follow_up = "number"\nwidth = "number"\nspacing = "number"\nsex = "part"')
    )
    for strange in STRANGE:
        (root / table).write_text(WARD_8[table].replace(cell, strange, 1))
        refused: CxrprepError | None = None
        images = {"1", "3"}
        try:
            images = {row["image_id"] for row in read_labels(find_dataset(str(file)), root).table.to_pylist()}
        except CxrprepError as error:
            refused = error
        assert images == {"1", "3"}
        assert refused is None or (table in str(refused) and refused.hint)
