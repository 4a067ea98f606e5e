"""A dataset that one TOML file describes: found, checked, and right in every verb."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrprep.api.dataset_check import check_dataset
from cxrprep.datasets.catalog import find_dataset, parse_spec
from cxrprep.errors import ConfigError, ExitCode, TableError
from cxrprep.labels.extract import read_labels
from cxrprep.manifest.load import load
from tests.tables_made import extract_labels

PROJECT = Path(__file__).parents[2]
FINDINGS = ["effusion", "opacity|scoliosis", "", "scoliosis"]


def declarations() -> list[str]:
    """The files of the guide, so that the guide is right."""
    page = (PROJECT / "docs" / "howto" / "own-dataset.md").read_text(encoding="utf-8")
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)


def declaration() -> str:
    return declarations()[0]


def ward(root: Path, images: int = 12) -> Path:
    (root / "images").mkdir(parents=True)
    rows = ["file,view,sex,findings"]
    for n in range(images):
        name = f"w{n // 2}_{n % 2}"
        rng = np.random.default_rng(n)
        cv2.imwrite(str(root / "images" / f"{name}.png"), rng.integers(0, 255, (300, 260), dtype=np.uint8))
        rows.append(f"{name}.png,{'PA' if n % 2 else 'LAT'},{'M' if n % 3 else 'F'},{FINDINGS[n % 4]}")
    (root / "findings.csv").write_text("\n".join(rows) + "\n")
    (root / "test.txt").write_text("w0_0.png\nw0_1.png\n")
    return root


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog" / "ward-7.toml"
    path.parent.mkdir()
    path.write_text(declaration())
    return path


def read(file: Path, root: Path):
    return read_labels(find_dataset(str(file)), root).table


def test_labels_views_splits_and_ids_come_from_the_tables(file, tmp_path):
    table = read(file, ward(tmp_path / "data"))
    assert table.column("image_id").to_pylist()[:3] == ["w0_0", "w0_1", "w1_0"]
    assert table.column("patient_id").to_pylist()[:3] == ["w0", "w0", "w1"]
    assert table.column("projection").to_pylist()[:2] == ["lateral", "frontal"]
    assert table.column("split").to_pylist()[:3] == ["test", "test", None]
    assert table.column("label_pleural_effusion").to_pylist()[:4] == [1, 0, None, 0]
    assert table.column("label_ward7__scoliosis").to_pylist()[:4] == [0, 1, None, 1]
    assert table.column("labels_raw").to_pylist()[:2] == [["effusion"], ["opacity", "scoliosis"]]


def test_a_shared_name_with_a_loss_has_a_column_of_its_own_too(file, tmp_path):
    table = read(file, ward(tmp_path / "data"))
    assert table.column("label_lung_opacity").equals(table.column("label_ward7__opacity"))
    assert "label_ward7__effusion" not in table.column_names
    described = table.schema.field("label_ward7__scoliosis").metadata[b"description"]
    assert described.startswith(b"1 if scoliosis, as ward-7 words it")


def test_the_same_tables_give_the_same_rows_in_any_order(file, tmp_path):
    root = ward(tmp_path / "data")
    before = read(file, root)
    lines = (root / "findings.csv").read_text().splitlines()
    (root / "findings.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert read(file, root).drop_columns("table_digest").equals(before.drop_columns("table_digest"))


READERS = """
[[table]]
name = "boxes"
patterns = ["boxes.csv"]
[[labels]]
source = "radiologist"
table = "boxes"
shape = "rows"
image = "image"
name = "finding"
reader = "reader"
absent = 0
also = { any = "any", majority = "majority", all = "all" }
[[boxes]]
table = "boxes"
image = "image"
label = "finding"
corners = ["x1", "y1", "x2", "y2"]
where = { finding = { not = ["none"] } }
"""


def with_readers(file: Path, root: Path) -> None:
    file.write_text(declaration() + READERS)
    (root / "boxes.csv").write_text(
        "image,finding,reader,x1,y1,x2,y2\n"
        "w0_0,nodule,R1,10,20,30,60\nw0_0,nodule,R2,11,20,30,60\nw0_0,none,R3,,,,\n"
        "w0_1,nodule,R1,1,2,3,4\nw0_1,none,R2,,,,\nw0_1,none,R3,,,,\n"
    )


def test_each_reader_is_a_source_and_so_is_what_they_agree_on(file, tmp_path):
    root = ward(tmp_path / "data")
    with_readers(file, root)
    rows = read(file, root).select(["label_source", "image_id", "label_ward7__nodule"]).to_pylist()
    said = {(row["label_source"], row["image_id"]): row["label_ward7__nodule"] for row in rows}
    assert [said[source, "w0_0"] for source in ("any", "majority", "all")] == [1, 1, 0]
    assert [said[source, "w0_1"] for source in ("any", "majority", "all")] == [1, 0, 0]
    assert said["radiologist-R1", "w0_0"] == said["radiologist-R2", "w0_0"] == 1
    assert said["radiologist-R3", "w0_0"] == 0
    assert ("radiologist-R1", "w1_0") not in said


def test_a_row_that_names_no_reader_is_left_out_and_said(file, tmp_path):
    root = ward(tmp_path / "data")
    with_readers(file, root)
    with (root / "boxes.csv").open("a") as table:
        table.write("w1_0,none,,,,,\n")
    notes = []
    table = read_labels(find_dataset(str(file)), root, on_event=notes.append).table
    assert {"radiologist-R1", "radiologist-R2", "radiologist-R3"} < set(table.column("label_source").to_pylist())
    assert any("1 rows name no reader: left out" in str(note) for note in notes)


def test_boxes_follow_with_the_words_of_the_release(file, tmp_path):
    root = ward(tmp_path / "data")
    with_readers(file, root)
    boxes = [row["boxes"] for row in read(file, root).select(["boxes"]).to_pylist() if row["boxes"]]
    assert sorted(len(one) for one in boxes) == [1, 2]
    (two,) = [one for one in boxes if len(one) == 2]
    assert two[0] == {"label": "nodule", "x": 10.0, "y": 20.0, "w": 20.0, "h": 40.0}


COLUMNS = """
[[table]]
name = "grid"
patterns = ["grid.csv"]
[[labels]]
source = "grid"
table = "grid"
shape = "columns"
image = "image"
values = { yes = 1, no = 0, maybe = -1 }
"""


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("w0_0,sure\n", r"grid\.csv, line 2, column 'effusion': 'sure' is no label"),
        ("w0_0,yes\nw0_0,no\n", r"grid\.csv, line 3: two rows say different things of w0_0: this one, and line 2"),
    ],
)
def test_cells_that_no_rule_covers_are_named(file, tmp_path, cells, message):
    root = ward(tmp_path / "data")
    file.write_text(declaration() + COLUMNS)
    (root / "grid.csv").write_text("image,effusion\n" + cells)
    with pytest.raises(TableError, match=message):
        read(file, root)


def test_labels_in_columns(file, tmp_path):
    root = ward(tmp_path / "data")
    file.write_text(declaration() + COLUMNS)
    (root / "grid.csv").write_text("image,effusion,rib\nw0_0,yes,no\nw0_1,maybe,\n")
    table = read(file, root)
    rows = table.filter(pc.equal(table.column("label_source").cast("string"), "grid"))
    assert rows.column("label_pleural_effusion").to_pylist() == [1, -1]
    assert rows.column("label_ward7__rib").to_pylist() == [0, None]


_MORE = '[[table]]\nname = "test"\npatterns = ["more.txt"]\n'
_BOX = '[[boxes]]\ntable = "test"\nimage = "name"\nlabel = "name"\ncorners = ["a", "b"]\n'
MISTAKES = {
    "an unknown key": (("summary =", "sumary ="), r"line \d+: unknown key 'sumary'"),
    "a table that is not declared": (('table = "test"', 'table = "tset"'), r"\[\[splits\]\] names the table 'tset'"),
    "a shape": (('shape = "list"', 'shape = "lists"'), r"shape 'lists' is not one of columns, list, rows, class"),
    "a shared observation": (('"pleural_effusion"', '"pleural"'), r"'pleural' is not a shared observation"),
    "a release": (('default_release = "2026"', 'default_release = "2027"'), r"default_release '2027'"),
    "a pattern": (("(?P<id>", "(?P<id"), r"not a regular expression"),
    "another format": (("format = 1", "format = 9"), r"format 9 is not known"),
    "two tables of a name": (("[image]", _MORE + "[image]"), r"two \[\[table\]\] have the name 'test'"),
    "sides of a box": (("[image]", _BOX + "[image]"), r"\[\[boxes\]\] needs the four columns"),
    "a number for a table": (
        ("[image]", _BOX.replace('"test"', "5") + "[image]"),
        r"\[\[boxes\]\] table: expected a name",
    ),
    "a path out of the folder": (("test.txt", "../test.txt"), r"'\.\./test\.txt' leads out of the folder"),
    "a view": (('view = "PA"', 'view = "PX"'), r"view 'PX' is not one of PA, AP"),
    "a name": (('name = "ward-7"', 'name = "Ward 7"'), r"name 'Ward 7': only small letters"),
    "a namespace": (('namespace = "ward7"', 'namespace = "Ward 7"'), r"namespace 'Ward 7'"),
    "a list without names": (("names = {", "name = {"), r"shape = 'list' needs names"),
    "a template": (("{id}.png", "{uid}.png"), r"place: the group 'uid' is not one of id, patient"),
    "look-around": (("(?:^|/)images", "(?<=/)images"), r"is not a regular expression of RE2"),
    "no group": (("'^(w\\d+)_'", "'^w\\d+_'"), r"has 0 groups, and needs one"),
    "two kinds of cells": (('sex = "sex"', 'sex = { column = "sex", text = "F" }'), r"not column and text"),
    "a number for a value": (('sex = "sex"', "sex = 3"), r"expected a column's name, or a table"),
    "an unknown rule": (('sex = "sex"', 'sex = { column = "sex", upper = true }'), r"'upper' is no rule of a value"),
    "a transform": (('sex = "sex"', 'age = { column = "age", use = "years" }'), r"use is one of number, .*not 'years'"),
    "a sex": (
        ('sex = "sex"', 'sex = { column = "sex", map = { M = "man" } }'),
        r"map makes 'man'",
    ),
    "otherwise": (
        ('sex = "sex"', 'sex = { column = "sex", map = {}, else = "nil" }'),
        r"else is one of error",
    ),
    "what is absent": (("absent = 0", "absent = 2"), r"absent is 0, or left out, and not 2"),
    "readers who agree": (
        ("absent = 0", 'absent = 0\nalso = { x = "most" }'),
        r"also.x 'most' is not one",
    ),
    "no namespace": (('namespace = "ward7"', ""), r"findings of its own need a namespace"),
    "no release of a table": (
        ('name = "test"', 'name = "test"\nrelease = "2031"'),
        r"release '2031' is not one of 2026",
    ),
    "no pattern of a file": (('patterns = ["test.txt"]', "patterns = []"), r"patterns has no name of a file"),
    "a pattern of cells": (
        ("[image]", "[table.cells]\nname = { match = '(a' }\n[image]"),
        r"cells.name: match: .*not a regular expression",
    ),
    "a column twice": (('name = "test"', 'name = "test"\ncolumns = ["a", "a"]'), r"columns: 'a' stands there twice"),
    "a column renamed to another": (
        ('name = "test"', 'name = "test"\nrename = { a = "b", c = "b" }'),
        r"rename: 'b' stands there twice",
    ),
    "a place above": (('"images/{id}.png"', '"../{id}.png"'), r"place '../\{id\}.png' leads out of the folder"),
    "a file above": (("place =", 'files = ["../x.csv"]\nplace ='), r"files: '../x.csv' leads out of the folder"),
    "a name of any file": (("place =", 'sure = ["*"]\nplace ='), r"sure: '\*' is the name of any file"),
    "a suffix": (("[image]", '[images]\nsuffixes = ["png"]\nformats = ["PNG"]\n[image]'), r"suffixes: 'png' is none"),
    "a count": (("[image]", "[counts]\nimages = -8\n[image]"), r"images is a number above 0, not -8"),
    "another count": (("[image]", "[counts]\nimage = 8\n[image]"), r"'image' is not one of .*did you mean images"),
    "bounds": (('sex = "sex"', 'age = { column = "a", min = 9, max = 0 }'), r"min 9 is above max 0"),
    "a frontal lateral": (('projection = "frontal"', 'projection = "lateral"'), r"PA is frontal, and not lateral"),
    "no finding": (
        ("open = true", 'open = true\nno_finding = "efusion"'),
        r"'efusion' is declared nowhere .*mean effusion",
    ),
    "a key of a shared name": (("loss =", "los ="), r"'los' is none of is, loss"),
    "one name twice": (
        ("[[labels]]", '[vocabulary.own]\n"effusion" = "x"\n[[labels]]'),
        r"is in \[vocabulary.same\] too",
    ),
    "two names of a column": (
        ("[[labels]]", '[vocabulary.own]\n"Big heart" = "x"\n"big-heart" = "x"\n[[labels]]'),
        r"would be one column, label_ward7__big_heart",
    ),
    "a key of another shape": (("absent = 0", 'name = "x"'), r"shape = 'list' does not read name"),
    "labels without values": (('shape = "list"', 'shape = "columns"'), r"shape = 'columns' needs values"),
    "no source": (('\nsource = "readers"', '\nsource = ""'), r"source has no name"),
    "a space of boxes": (
        ("[image]", _BOX + 'space = "percent"\n[image]'),
        r"unknown key 'boxes.space'",
    ),
    "a fact of words": (
        ("[image]", '[[fact]]\nid = "f"\nmeasure = "images"\nvalue = "8"\nsource = "s"\n[image]'),
        r"value is a number or numbers, and not '8'",
    ),
    "a label source": (("default_label_source = ", 'default_label_source = "x" # '), r"'x' is none of the \[\[labels"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_the_file_are_named(mistake):
    (old, new), message = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=message) as refused:
        parse_spec(declaration().replace(old, new), "ward.toml")
    assert re.search(r"line \d+", str(refused.value))


FACT = '\n[[fact]]\nid = "W-1"\nmeasure = "images"\nvalue = 12\nsource = "counted"\n'


def test_facts_of_the_file_are_compared_with_the_folder(file, tmp_path):
    root = ward(tmp_path / "data")
    file.write_text(declaration() + FACT)
    assert check_dataset(file, root).exit_code == ExitCode.DONE
    file.write_text(declaration() + FACT.replace("12", "13"))
    checked = check_dataset(file, root)
    assert checked.exit_code == ExitCode.INTEGRITY
    assert "W-1" in str(checked)
    for old, new, message in (
        ('measure = "images"', 'measure = "imags"', r"line \d+: .*no measure 'imags'"),
        ('name = "ward-7"', 'name = "nih"', "'nih' names nih-chestxray14, which cxrprep knows"),
    ):
        file.write_text((declaration() + FACT).replace(old, new))
        with pytest.raises(ConfigError, match=message):
            check_dataset(file)
    # Whoever asks for that dataset later gets it, and not the file that was refused.
    assert find_dataset("nih").name == "nih-chestxray14"


def test_a_box_that_ends_before_it_begins_is_named_by_its_line(file, tmp_path):
    root = ward(tmp_path / "data")
    box = '[[table]]\nname = "b"\npatterns = ["b.csv"]\n[[boxes]]\ntable = "b"\nimage = "i"\nlabel = "l"\n'
    file.write_text(f'{declaration()}{box}corners = ["x", "y", "X", "Y"]\n'.replace("table.x", ""))
    (root / "b.csv").write_text("i,l,x,y,X,Y\nw0_0,effusion,1,1,5,5\nw0_1,effusion,5,1,1,5\n")
    with pytest.raises(TableError, match=r"b.csv, line 3, column 'X': .*ends before it begins"):
        read(file, root)


def test_a_word_that_is_no_split_is_refused_where_it_stands(file, tmp_path):
    file.write_text(declaration().replace('split = "test"', 'split = "tests"'))
    with pytest.raises(TableError, match=r"line 1: 'tests' is not one of train, validate, test, train_val"):
        read(file, ward(tmp_path / "data"))


def test_a_file_that_says_no_format_or_is_called_as_a_built_in_dataset_is_refused(file):
    file.write_text(declaration().replace("format = 1", ""))
    with pytest.raises(ConfigError, match="does not say format = 1"):
        check_dataset(file)
    file.write_text(declaration().replace('name = "ward-7"', 'name = "chexpert"'))
    with pytest.raises(ConfigError, match="'chexpert' names chexpert, which cxrprep knows"):
        check_dataset(file)


def test_a_finding_that_a_closed_vocabulary_lacks_is_an_error_and_not_lost(file, tmp_path):
    file.write_text(declaration().replace("open = true", "open = false"))
    with pytest.raises(ConfigError, match="does not know 'scoliosis'"):
        read(file, ward(tmp_path / "data"))


def cxrprep(*words: object, catalog: Path, packages: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(PROJECT), packages)))
    env = {**os.environ, "CXRPREP_CATALOG": str(catalog), "PYTHONPATH": path}
    command = [sys.executable, "-m", "cxrprep", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.slow
def test_every_verb_works_on_it(file, tmp_path):
    root = ward(tmp_path / "data")
    for words in (
        ("extract-labels", root),
        ("verify", root, "--images"),
        ("convert", root, "--recipe", "square-224"),
        ("manifest", root),
        ("status", root),
        ("report", root),
        ("export", root, "--format", "csv", "--out", tmp_path / "csv"),
        ("datasets", "show", "ward-7"),
        ("datasets", "check", file, root),
    ):
        done = cxrprep(*words, catalog=file.parent)
        assert done.returncode == 0, (words, done.stderr)
    images = pq.read_table(root / "manifests" / "images.parquet")
    assert images.column("label_ward7__scoliosis").to_pylist()[:4] == [0, 1, None, 1]
    assert "ward7: scoliosis" in (root / "manifests" / "report.html").read_text()
    (source,) = extract_labels(find_dataset(str(file)), root).sources
    assert [row.positive for row in source.labels if row.observation == "ward7__scoliosis"] == [6]
    assert "12 in the tables, 12 files here" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_findings_of_ones_own_and_who_drew_a_box_are_in_every_table(file, tmp_path):
    root = ward(tmp_path / "data")
    with_readers(file, root)
    file.write_text(file.read_text().replace('label = "finding"', 'label = "finding"\nreader = "reader"'))
    assert cxrprep("extract-labels", root, catalog=file.parent).returncode == 0
    assert cxrprep("manifest", root, "--label-source", "any", catalog=file.parent).returncode == 0
    assert cxrprep("convert", root, "--recipe", "square-224", catalog=file.parent).returncode == 0
    small = root / "derived" / "square-224"
    for place in (root, small):
        images = pq.read_table(place / "manifests" / "images.parquet")
        assert images.column("label_ward7__nodule").to_pylist()[:3] == [1, 1, None]
        assert {box["reader"] for box in images.column("boxes").to_pylist()[0]} == {"R1", "R2"}
        studies = pq.read_table(place / "manifests" / "studies.parquet")
        assert studies.column("label_ward7__nodule").to_pylist()[:2] == [1, 1]
    # Another source's word is never left beside this one's.
    chosen = load(small, label_source="all", observations="ward7:nodule,Pleural Effusion")
    assert chosen.labels().column_names == ["ward7__nodule", "Pleural Effusion"]
    assert chosen.labels().column("ward7__nodule").to_pylist()[:3] == [0, 0, None]
    export = cxrprep("export", small, "--format", "csv", "--out", tmp_path / "csv", catalog=file.parent)
    assert export.returncode == 0, export.stderr
    header = next((tmp_path / "csv").glob("*.csv")).read_text().partition("\n")[0]
    assert "ward7__nodule" in header
    # Nothing new to do, and nothing less known.
    before = (small / "manifests" / "images.parquet").read_bytes()
    assert cxrprep("convert", root, "--recipe", "square-224", catalog=file.parent).returncode == 0
    assert (small / "manifests" / "images.parquet").read_bytes() == before


def installed(site: Path, named: str) -> str:
    """A folder with a package that brings datasets, as an installer lays it out."""
    about = site / "wardpkg-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wardpkg\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[cxrprep.datasets]\nward = {named}\n")
    sets = site / "wardpkg" / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    (sets.parent / "__init__.py").write_text(
        "from pathlib import Path\nFOLDER = Path(__file__).parent / 'sets'\nNONE = 3\n"
    )
    (sets / "ward-7.toml").write_text(declaration())
    (sets.parent / "broken.py").write_text("raise RuntimeError('no licence')")
    return str(site)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("wardpkg.sets", ""),
        ("wardpkg:FOLDER", ""),
        ("wardpkg:NONE", "names its datasets as wardpkg:NONE, and 3 is not a folder"),
        ("wardpkg.gone", "wardpkg names its datasets as wardpkg.gone, which cannot be loaded"),
        ("wardpkg.broken", "wardpkg names its datasets as wardpkg.broken, which cannot be loaded: no licence"),
        ("json.decoder", "which cannot be loaded"),
    ],
)
def test_a_package_brings_datasets_or_is_named(tmp_path, named, said):
    (tmp_path / "none").mkdir()
    done = cxrprep(
        "datasets", "show", "ward-7", catalog=tmp_path / "none", packages=installed(tmp_path / "site", named)
    )
    assert done.returncode == (2 if said else 0), done.stderr
    assert said in " ".join(done.stderr.split()), done.stderr


def test_a_dataset_of_a_package_and_of_a_catalog_are_named_both(file, tmp_path):
    done = cxrprep("datasets", catalog=file.parent, packages=installed(tmp_path / "site", "wardpkg.sets"))
    assert done.returncode == 2
    assert done.stderr.count("ward-7.toml") == 2


def test_two_files_of_one_name_are_named_both(file):
    (file.parent / "again.toml").write_text(declaration())
    done = cxrprep("datasets", catalog=file.parent)
    assert done.returncode == 2
    assert "again.toml" in done.stderr
    assert "ward-7.toml" in done.stderr


def test_other_files_have_a_place_and_names_that_no_other_collection_has_tell_the_folder(file, tmp_path):
    path = file.with_name("paths.toml")
    text = file.read_text(encoding="utf-8").replace("\\.png$'\nplace", "\\.(?P<suffix>png|dcm)$'\nplace")
    more = 'files = ["pictures_*.tar.gz", "README.md", "second/*.csv"]\nsure = ["ward7_*.xml"]'
    text = text.replace('place = "images/{id}.png"', 'place = "images/{id}.{suffix}"\n' + more)
    path.write_text(text, encoding="utf-8")
    layout = find_dataset(str(path)).layout()
    places = {
        key: layout.place(f"mirror/{key}", release="2026")
        for key in ("images/w3_0.dcm", "PICTURES_7.tar.gz", "readme.md", "second/labels.csv", "third/labels.csv")
    }
    assert list(places.values()) == ["images/w3_0.dcm", "PICTURES_7.tar.gz", "README.md", "second/labels.csv", None]
    assert layout.recognise(frozenset({"sub/WARD7_2.xml", "a.txt", "b.txt"})) == 1
    assert layout.recognise(frozenset({"ward8_2.xml", "a.txt", "b.txt"})) == 0


def yolo(root: Path) -> Path:
    """Two patients' images with a line for each box, of one nothing was found."""
    for part, image, lines in (
        ("train", "p1_1", "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.125 0.25\n"),
        ("train", "p1_2", ""),
        ("val", "p2_1", "1 0.5 0.5 1 1"),
    ):
        for folder in ("images", "labels"):
            (root / folder / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"images/{part}/{image}.png"), np.zeros((48, 64), np.uint8))
        (root / f"labels/{part}/{image}.txt").write_text(lines)
    return root


def test_boxes_of_yolo_as_the_guide_declares_them(tmp_path):
    root, file = yolo(tmp_path / "data"), tmp_path / "ward-9.toml"
    file.write_text(declarations()[2])
    rows = {row["image_id"]: row for row in read(file, root).to_pylist()}
    assert rows["p1_1"]["boxes"] == [
        {"label": "nodule", "x": 24, "y": 12, "w": 16, "h": 24},
        {"label": "effusion", "x": 12, "y": 6, "w": 8, "h": 12},
    ]
    assert rows["p2_1"]["boxes"] == [{"label": "effusion", "x": 0, "y": 0, "w": 64, "h": 48}]
    said = [(row["label_ward9__nodule"], row["label_pleural_effusion"], row["split"]) for row in rows.values()]
    assert said == [(1, 1, "train"), (0, 0, "train"), (0, 1, "validate")]
    assert [clause for clause in check_dataset(file, root, contract=True).value.contract if not clause.holds] == []
    (root / "labels/val/p2_1.txt").write_text("1 0.5 0.5 1 1\n\n1 0.5 0.5 1\n")
    with pytest.raises(TableError, match=r"p2_1\.txt, line 3: 4 words, and not 5: class, x, y, w, h"):
        read(file, root)


def test_names_of_files_with_accents_apart_are_those_of_the_tables(file, tmp_path):
    root = tmp_path / "data"
    file.write_text(
        declaration().replace(r"(?P<patient>w\d+)_\d+", "[^/]+").replace("match = '^(w\\d+)_'", "match = '^(.+)\\.'")
    )
    (root / "images").mkdir(parents=True)
    for name in ("Mu\u0308ller", "A\u030angstro\u0308m"):
        cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tofile(root / "images" / f"{name}.png")
    table = "file,view,sex,findings\nM\u00fcller.png,PA,F,effusion\nA\u030angstr\u00f6m.png,PA,M,\n"
    (root / "findings.csv").write_text(table, encoding="utf-8")
    (root / "test.txt").write_text("M\u00fcller.png\n", encoding="utf-8")
    labels = read(file, root)
    assert labels.column("image_id").to_pylist() == ["M\u00fcller", "\u00c5ngstr\u00f6m"]
    assert check_dataset(file, root).value.images_matched == 2


def test_datasets_list_is_datasets(file):
    done = cxrprep("datasets", "list", "--quiet", catalog=file.parent)
    assert "ward-7" in done.stdout.split()
    assert done.stdout == cxrprep("datasets", "--quiet", catalog=file.parent).stdout
