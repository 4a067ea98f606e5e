"""Tables as people have them, of every dataset: saved by another program, from another system, under another name.

What is plain is read as it was, with a note where a cell was understood; what is not is refused with file and hint.
"""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import shutil
import zipfile
from functools import reduce
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.api.verify import verify
from cxrprep.datasets.catalog import catalog, declaration_of
from cxrprep.datasets.patterns import group_in
from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.labels.columns import label_of
from cxrprep.labels.extract import read_labels
from cxrprep.verification.finding import Kind
from tests.datasets.test_catalog import NAMES, generate
from tests.parts import need
from tests.sample import some_of_each

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Edit = "Callable[[list[list[str]]], bytes]"
_NUMBER = re.compile(r"[1-9]\d{0,8}")
_DECIMAL = re.compile(r"^(-?\d+)\.(\d+)$")
_PATH = re.compile(r"[^/]\.(png|jpe?g|dcm|dicom)$")


def saved(rows: list[list[str]], **form: object) -> bytes:
    out = io.StringIO()
    csv.writer(out, **{"lineterminator": "\n", **form}).writerows(rows)  # type: ignore[arg-type]  # its options
    return out.getvalue().encode()


def cell_by_cell(change: Callable[[str], str]) -> Edit:
    return lambda rows: saved([rows[0], *([change(cell) for cell in row] for row in rows[1:])])


def column_more(rows: list[list[str]]) -> bytes:
    return saved([[*row, "3" if number else "fold"] for number, row in enumerate(rows)])


def index(name: str) -> Edit:
    return lambda rows: saved([[str(number - 1) if number else name, *row] for number, row in enumerate(rows)])


def reversed_columns(rows: list[list[str]]) -> bytes:
    return saved([row[::-1] for row in rows])


def by_r(rows: list[list[str]]) -> bytes:
    head, *body = rows
    names = ["", *(re.sub(r"[^A-Za-z0-9]", ".", name) or "X" for name in head)]
    return saved(
        [names, *([str(n), *(cell or "NA" for cell in row)] for n, row in enumerate(body, 1))], quoting=csv.QUOTE_ALL
    )


def by_database(rows: list[list[str]]) -> bytes:
    head, *body = rows
    names = [re.sub(r"[^a-z0-9]+", "_", name.lower()) for name in head]
    return saved(
        [names, *([cell or null for cell, null in zip(row, itertools.cycle(NULLS), strict=False)] for row in body)]
    )


def zip_of_a_mac(rows: list[list[str]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (("t.csv", saved(rows)), ("__MACOSX/._t.csv", b"\0\5\x16\7"), (".DS_Store", b"\0")):
            archive.writestr(name, data)
    return out.getvalue()


NULLS = [r"\N", "(null)", " ", "NaT", "#NULL!"]
# The form, and what is said of it.
FORMS: dict[str, tuple[Edit, str]] = {
    "BOM, CRLF": (lambda rows: b"\xef\xbb\xbf" + saved(rows, lineterminator="\r\n"), ""),
    "Excel's sep=": (lambda rows: b"sep=,\r\n" + saved(rows), "its first line names the delimiter"),
    "semicolons": (lambda rows: saved(rows, delimiter=";"), "separated by semicolons"),
    "tabs": (lambda rows: saved(rows, delimiter="\t"), "separated by tabs"),
    "quoted": (lambda rows: saved(rows, quoting=csv.QUOTE_ALL), ""),
    "NaN": (cell_by_cell(lambda cell: cell or "NaN"), ""),
    "None": (cell_by_cell(lambda cell: cell or "None"), ""),
    "floats": (cell_by_cell(lambda cell: f"{cell}.0" if _NUMBER.fullmatch(cell) else cell), ""),
    "a blank behind each comma": (
        lambda rows: saved([[row[0], *(" " + cell for cell in row[1:])] for row in rows]), "a blank stands behind",
    ),
    "capitals": (lambda rows: saved([[name.upper() for name in rows[0]], *rows[1:]]), ""),
    "a database": (by_database, ""),
    "backslashes": (cell_by_cell(lambda cell: cell.replace("/", "\\") if _PATH.search(cell) else cell), ""),
    "a folder before paths": (cell_by_cell(lambda cell: f"/mnt/x/{cell}" if _PATH.search(cell) else cell), ""),
    "validation": (cell_by_cell(lambda cell: {"validate": "Validation", "test": "TEST"}.get(cell, cell)), ""),
    "valid": (cell_by_cell(lambda cell: {"validate": "valid"}.get(cell, cell).replace("/valid/", "/val/")), ""),
    "a column more": (column_more, ""),
    "an index": (index(""), ""),
    "an index with a name": (index("Unnamed: 0"), ""),
    "columns in another order": (reversed_columns, ""),
    "gzip": (lambda rows: gzip.compress(saved(rows), mtime=0), ""),
    "Excel's Unicode text": (
        lambda rows: saved(rows, delimiter="\t", lineterminator="\r\n").decode().encode("utf-16"), "in UTF-16",
    ),
    "true and false": (cell_by_cell(lambda cell: {"1.0": "TRUE", "0.0": "FALSE"}.get(cell, cell)), ""),
    "blank lines at the end": (lambda rows: saved(rows) + b"\r\n\n\n", ""),
    "a line of blanks at the end": (lambda rows: saved(rows) + b"  \n \n", ""),
    "blank lines at the start": (lambda rows: b"\n \r\n" + saved(rows), "blank lines or remarks stand before"),
    "sep= in quotation marks": (
        lambda rows: b'\xef\xbb\xbf"sep=;"\r\n' + saved(rows, delimiter=";"), "its first line names the delimiter",
    ),
    "bars": (lambda rows: saved(rows, delimiter="|"), "separated by bars"),
    "R": (by_r, ""),
    "psql's count of rows": (
        lambda rows: saved(rows) + f"({len(rows) - 1} rows)\n\n".encode(), "its last line is psql's count",
    ),
    "JSON of columns as lists": (
        lambda rows: json.dumps({name: cells for name, *cells in zip(*rows, strict=True)}).encode(), "JSON: its rows",
    ),
    "Excel's text": (
        lambda rows: b"\r\n".join(b",".join(f'="{cell}"'.encode() for cell in row) for row in rows), "cells that a",
    ),
    "Excel's text in quotation marks": (
        lambda rows: saved([[f'="{cell}"' if number else cell for cell in row] for number, row in enumerate(rows)]),
        "cells that a",
    ),
    "Excel's errors": (cell_by_cell(lambda cell: cell or "#N/A"), ""),
    "decimal commas": (
        lambda rows: saved([[_DECIMAL.sub(r"\1,\2", cell) for cell in row] for row in rows], delimiter=";"), "",
    ),
    "a blank before each comma": (
        lambda rows: saved([[f"{cell} " for cell in row] for row in rows]), "a blank stands before",
    ),
    "a column with line breaks": (
        lambda rows: saved([[*row, "two\nlines" if number else "note"] for number, row in enumerate(rows)]), "",
    ),
    "a zip of a Mac": (zip_of_a_mac, ""),
    "xz": (lambda rows: lzma.compress(saved(rows)), "compressed by xz"),
    "bzip2": (lambda rows: bz2.compress(saved(rows)), "compressed by bzip2"),
    "zstd": (lambda rows: pa.compress(saved(rows), codec="zstd", asbytes=True), "compressed by zstd"),
    "two decimals": (cell_by_cell(lambda cell: re.sub(r"^(-?\d{1,8})(\.0)?$", r"\1.00", cell)), ""),
    "true and false in small letters": (
        cell_by_cell(lambda cell: {"1.0": "true", "0.0": "false", "True": "true"}.get(cell, cell)), "",
    ),
    "a comma behind each row": (
        lambda rows: saved([rows[0], *([*row, ""] for row in rows[1:])]), "a separator stands behind each row",
    ),
    "a comma behind each line": (lambda rows: saved([[*row, ""] for row in rows]), ""),
    "two files one after the other": (
        lambda rows: saved([*rows[:3], rows[0], *rows[3:]]), "its header stands in 1 more lines",
    ),
    "two files with BOM one after the other": (
        lambda rows: b"\xef\xbb\xbf" + saved(rows[:3]) + b"\xef\xbb\xbf" + saved([rows[0], *rows[3:]]),
        "its header stands in 1 more lines",
    ),
    "UTF-16 without a mark": (lambda rows: saved(rows).decode().encode("utf-16-le"), "in UTF-16"),
    "UTF-16 of another byte order": (lambda rows: saved(rows).decode().encode("utf-16-be"), "in UTF-16"),
    "an old Mac": (lambda rows: saved(rows, lineterminator="\r"), "a carriage return alone"),
    "lines of blanks in the middle": (
        lambda rows: saved(rows[:2]) + b"\n   \n" + saved(rows[2:3]) + b"\t\n" + saved(rows[3:]), "",
    ),
    "rows of blank cells in the middle": (
        lambda rows: saved([*rows[:2], [""] * len(rows[0]), *rows[2:]]), "of blank cells",
    ),
    "decimal commas and tabs": (
        lambda rows: saved([[_DECIMAL.sub(r"\1,\2", cell) for cell in row] for row in rows], delimiter="\t"), "",
    ),
    "blanks around names": (lambda rows: saved([[f"  {name} " for name in rows[0]], *rows[1:]]), ""),
    "rows of blank cells at the end": (
        lambda rows: saved([*rows, *([""] * len(rows[0]) for _ in range(3))]), "of blank cells left out",
    ),
    "names of several lines": (
        lambda rows: saved([[re.sub(r"[ _]", "\n", name) for name in rows[0]], *rows[1:]]), "",
    ),
    "names in one word": (lambda rows: saved([[re.sub(r"[ _]", "", name) for name in rows[0]], *rows[1:]]), ""),
    "rows that R numbered": (
        lambda rows: saved(
            [rows[0], *([f"{number}", *(cell or "NA" for cell in row)] for number, row in enumerate(rows[1:], 1))]
        ),
        "",
    ),
    "two columns without a name": (lambda rows: saved([["", "", *row] for row in rows]), ""),
}  # fmt: skip


def by_pandas(save: Callable[[pd.DataFrame, io.BytesIO], None]) -> Edit:
    def edit(rows: list[list[str]]) -> bytes:
        out = io.BytesIO()
        need("openpyxl")
        # pandas' own strings would be of another type from version to version.
        save(pd.read_csv(io.BytesIO(saved(rows)), dtype_backend="numpy_nullable"), out)
        return out.getvalue()

    return edit


FORMS |= {
    "Parquet": (by_pandas(lambda table, out: table.to_parquet(out, index=False)), "a Parquet file"),
    "Arrow": (by_pandas(lambda table, out: table.to_feather(out)), "an Arrow file"),
    "a workbook": (by_pandas(lambda table, out: table.to_excel(out, index=False)), "a workbook of Excel"),
    "a workbook with an index": (by_pandas(lambda table, out: table.to_excel(out)), "a workbook of Excel"),
    "a workbook that begins with blank rows": (
        by_pandas(lambda table, out: table.to_excel(out, index=False, startrow=2)),
        "a workbook of Excel",
    ),
    "JSON": (by_pandas(lambda table, out: table.to_json(out, orient="records")), "JSON: its rows"),
    "JSON as pandas writes it": (by_pandas(lambda table, out: table.to_json(out)), "JSON: its rows"),
    "JSON with names apart": (by_pandas(lambda table, out: table.to_json(out, orient="split")), "JSON: its rows"),
    "JSON with types": (
        by_pandas(lambda table, out: table.to_json(out, orient="table", index=False)),
        "JSON: its rows",
    ),
    "JSON by index": (by_pandas(lambda table, out: table.to_json(out, orient="index")), "JSON: its rows"),
    "JSON lines": (by_pandas(lambda table, out: table.to_json(out, orient="records", lines=True)), "JSON: its rows"),
    "gzip in gzip": (lambda rows: gzip.compress(gzip.compress(saved(rows), mtime=0), mtime=0), "compressed by gzip"),
    "a remark of PowerShell": (lambda rows: b"#TYPE System.Object\r\n" + saved(rows), "remarks stand before"),
    "the end mark of DOS": (lambda rows: saved(rows) + b"\x1a", ""),
}
# Names that a program cannot keep apart, and numbers that are ids: neither is plain.
NOT_PLAIN = {
    ("siim-acr-pneumothorax", "floats"),
    ("siim-acr-pneumothorax", "two decimals"),
    # A table of one row in it is an object as any message of a server is.
    ("mimic-cxr", "JSON lines"),
    ("mimic-cxr-jpg", "JSON lines"),
}


def tables(root: Path) -> list[Path]:
    found = [path for path in sorted(root.rglob("*")) if re.search(r"\.csv(\.gz)?$", path.name)]
    return [path for path in found if path.name != "BBox_List_2017.csv"]  # its header has commas of its own


def read(name: str, root: Path) -> tuple[list[dict[str, object]], list[str]]:
    said: list[str] = []
    labels = read_labels(catalog()[name], root, on_event=lambda event: said.append(getattr(event, "message", "")))
    other = ("table_digest", "path_raw")
    kept = [one for one in labels.table.column_names if one not in other and not one.startswith("raw_")]
    return labels.table.select(kept).to_pylist(), said


@pytest.fixture(scope="module", params=NAMES)
def copy(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("copy") / "release"
    generate(request.param, root)
    return request.param, root, read(request.param, root)[0]


@pytest.mark.parametrize(
    ("copy", "form"),
    some_of_each(NAMES, FORMS, one_in=16),
    indirect=["copy"],
)
def test_tables_in_any_form_are_read_as_they_were(copy, form):
    name, root, before = copy
    edit, note = FORMS[form]
    if (name, form) in NOT_PLAIN:
        pytest.skip("the meaning is not plain")
    kept = {path: path.read_bytes() for path in tables(root)}
    try:
        for path, data in kept.items():
            packed = data.startswith(b"\x1f\x8b")
            edited = edit(list(csv.reader(io.StringIO((gzip.decompress(data) if packed else data).decode()))))
            path.write_bytes(gzip.compress(edited, mtime=0) if packed and form != "gzip" else edited)
        after, said = read(name, root)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    assert [{k: v for k, v in row.items() if not str(k).endswith("__fold")} for row in after] == before
    assert any(note in one for one in said) or not note or not kept, said


LABELS = {
    "1.": 1, "+1": 1, "1.000000000000000000e+00": 1, " 0 ": 0, "-0.0": 0, "\u22121": -1, "-1e+00": -1, "1.000\xa0": 1,
    "Yes": 1, "N": 0, "T": 1, "f": 0, "_": None,
}  # fmt: skip


@pytest.mark.parametrize(("cell", "label"), LABELS.items())
def test_a_label_is_read_as_any_program_writes_it(cell, label):
    assert label_of(cell) == label


@pytest.mark.parametrize("cell", ["2", "0.5", "nan", "inf", "10", "?", "-", "negative finding"])
def test_what_is_no_label_is_refused(cell):
    with pytest.raises((KeyError, ValueError)):
        label_of(cell)


ENDS = (".parquet", ".xlsx", ".tsv", ".csv.xz", ".csv.txt", ".json", ".jsonl")


@pytest.mark.parametrize(("copy", "end"), some_of_each(NAMES, ENDS, one_in=7), indirect=["copy"])
def test_tables_under_the_name_of_their_form_are_found_and_are_not_extra(copy, end, tmp_path):
    name, root, before = copy
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    edit = FORMS[
        {
            ".parquet": "Parquet",
            ".xlsx": "a workbook",
            ".tsv": "tabs",
            ".csv.xz": "xz",
            ".csv.txt": "quoted",
            ".json": "JSON",
            ".jsonl": "JSON lines",
        }[end]
    ][0]
    here = tables(tmp_path)
    for path in here:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        path.with_name(re.sub(r"\.csv(\.gz)?$", end, path.name)).write_bytes(edit(list(csv.reader(io.StringIO(text)))))
        path.unlink()
    after, said = read(name, tmp_path)
    assert [row | {"table_name": ""} for row in after] == [row | {"table_name": ""} for row in before]
    assert end != ".csv.txt" or not here or any("its name ends in .txt" in one for one in said)
    findings = verify(tmp_path, dataset=name).value.findings
    assert [one for one in findings if one.path.endswith(end) and one.kind is Kind.EXTRA] == []


def test_a_copy_that_is_cut_short_gives_way_to_one_that_is_whole(tmp_path):
    name = "mimic-cxr-jpg"
    generate(name, tmp_path)
    before, here = read(name, tmp_path)[0], tables(tmp_path)
    for path in here:
        packed, plain = path.read_bytes(), path.with_name(path.name.removesuffix(".gz"))
        if path != plain:
            plain.write_bytes(gzip.decompress(packed))
            path.write_bytes(packed[: len(packed) // 2])
    after, said = read(name, tmp_path)
    assert [row | {"table_name": ""} for row in after] == [row | {"table_name": ""} for row in before]
    assert any("is another copy of the same table" in one for one in said)


# What desktops, browsers and wget call a file that they have already, and what a name gets by hand.
COPIES = {
    "Copy of X": lambda name: f"Copy of {name}",
    "X (1)": lambda name: (
        name.replace(".", " (1).", 1) if name.count(".") == 1 else re.sub(r"(\.csv)", r" (1)\1", name)
    ),
    "X(2)": lambda name: re.sub(r"(\.csv)", r"(2)\1", name),
    "X.csv (1)": lambda name: re.sub(r"\.csv(.*)$", r".csv (1)\1", name),
    "X - Copy": lambda name: re.sub(r"(\.csv)", r" - Copy\1", name),
    "X copy 2": lambda name: re.sub(r"(\.csv)", r" copy 2\1", name),
    "X.csv.1": lambda name: f"{name}.1",
    "a blank": lambda name: re.sub(r"(\.csv)", r" \1", name),
    "capitals": str.upper,
}


@pytest.mark.parametrize(
    ("copy", "called"),
    some_of_each(NAMES, COPIES, one_in=7),
    indirect=["copy"],
)
def test_a_copy_by_its_name_is_the_table_where_that_is_not_here(copy, called, tmp_path):
    name, root, before = copy
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    here = [path.rename(path.with_name(COPIES[called](path.name))) for path in tables(tmp_path)]
    after, said = read(name, tmp_path)
    assert [row | {"table_name": ""} for row in after] == [row | {"table_name": ""} for row in before]
    # Their own name has a place for anything.
    unsaid = name in ("padchest", "nih-chestxray14") or called == "capitals"
    assert unsaid or sum("a copy by its name" in one for one in said) == len(here)
    assert [one for one in verify(tmp_path, dataset=name).value.findings if one.kind is Kind.EXTRA] == []


def test_a_copy_stands_behind_the_table_itself(copy, tmp_path):
    name, root, before = copy
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    for path in tables(tmp_path):
        # Nearer by its name and by its folder, and of other contents.
        (tmp_path / f"Copy of {path.name}").write_bytes(path.read_bytes()[:-9])
    assert read(name, tmp_path)[0] == before


@pytest.mark.parametrize(("copy", "depth"), some_of_each(NAMES, [3, 4], one_in=7), indirect=["copy"])
def test_tables_far_down_are_found(copy, depth, tmp_path):
    name, root, before = copy
    inner = tmp_path.joinpath(*(f"level {number}" for number in range(depth)))
    inner.mkdir(parents=True)
    for path in tables(root):
        place = inner / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    if tables(root):
        assert {row["image_id"] for row in read(name, tmp_path)[0]} <= {row["image_id"] for row in before} != set()


def in_parts(path: Path, form: str) -> Path:
    """A table as Spark writes it: a folder with its name, of part files, their checksums and a mark of success."""
    data = path.read_bytes()
    head, *rows = list(csv.reader(io.StringIO((gzip.decompress(data) if path.suffix == ".gz" else data).decode())))
    path.unlink()
    folder = path.with_name(
        path.name.removesuffix(".gz") if form == "csv" else re.sub(r"\.csv(\.gz)?$", ".parquet", path.name)
    )
    folder.mkdir()
    third = len(rows) // 3 + 1
    for number, place in enumerate(range(0, len(rows), third)):
        part = folder / f"part-{number:05}-0b1c-c000.{'csv' if form == 'csv' else 'snappy.parquet'}"
        part.write_bytes((saved if form == "csv" else FORMS["Parquet"][0])([head, *rows[place : place + third]]))
        part.with_name(f".{part.name}.crc").write_bytes(b"crc\0")
    (folder / "_SUCCESS").touch()
    (folder / "part-00009-0b1c-c000.csv").touch()  # of nothing
    return folder


@pytest.mark.parametrize(("copy", "form"), some_of_each(NAMES, ["csv", "parquet"], one_in=7), indirect=["copy"])
def test_a_folder_of_part_files_is_a_table_and_is_not_extra(copy, form, tmp_path):
    name, root, before = copy
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    folders = [in_parts(path, form) for path in tables(tmp_path)]
    after, said = read(name, tmp_path)
    assert [row | {"table_name": ""} for row in after] == [row | {"table_name": ""} for row in before]
    assert sum(bool(re.match(r"a folder of \d part files?$", one)) for one in said) == len(folders)
    findings = verify(tmp_path, dataset=name).value.findings
    assert [one for one in findings if one.kind is Kind.EXTRA] == []
    # Again, with nothing new.
    assert read(name, tmp_path)[0] == after


def test_a_folder_of_part_files_that_lacks_one_is_refused(tmp_path):
    generate("vindr-cxr", tmp_path)
    folder = in_parts(next(tmp_path.rglob("image_labels_train.csv")), "csv")
    first, second = sorted(folder.glob("part-0000[01]*"))
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(CxrprepError, match=f"{second.name} is missing"):
        read("vindr-cxr", tmp_path)
    second.write_bytes(kept.replace(b"rad_id", b"reader"))
    with pytest.raises(CxrprepError, match=f"{second.name}, line 1: its header is another than that of {first.name}"):
        read("vindr-cxr", tmp_path)
    second.write_bytes(kept)
    (folder / "_SUCCESS").unlink()
    assert any("without _SUCCESS" in one for one in read("vindr-cxr", tmp_path)[1])
    (folder / "_temporary").mkdir()
    with pytest.raises(CxrprepError, match="it is still being written"):
        read("vindr-cxr", tmp_path)


def test_part_files_in_folders_of_a_column_are_a_table_with_that_column(tmp_path):
    generate("rsna-pneumonia", tmp_path)
    before = read("rsna-pneumonia", tmp_path)[0]
    path = next(tmp_path.rglob("stage_2_train_labels.csv"))
    head, *rows = csv.reader(io.StringIO(path.read_text()))
    place = head.index("Target")
    path.unlink()
    for number, target in enumerate(sorted({row[place] for row in rows})):
        part = path / f"Target={target}/part-0000{number}-0b.c000.csv"
        part.parent.mkdir(parents=True)
        whole = [head, *(row for row in rows if row[place] == target)]
        part.write_bytes(saved([[*row[:place], *row[place + 1 :]] for row in whole]))
        part.with_name(f".{part.name}.crc").touch()
    (path / "_SUCCESS").touch()
    after, said = read("rsna-pneumonia", tmp_path)
    assert sorted(after, key=str) == sorted(before, key=str)
    assert "a folder of 4 part files" in said
    assert [one for one in verify(tmp_path, dataset="rsna-pneumonia").value.findings if one.kind is Kind.EXTRA] == []
    # What a folder says is a part of what the digest is of.
    digests = read_labels(catalog()["rsna-pneumonia"], tmp_path).table.column("table_digest").unique().to_pylist()
    (path / "Target=1").rename(path / "Target=1%2E0")
    again = read_labels(catalog()["rsna-pneumonia"], tmp_path)
    assert not {*digests} & {*again.table.column("table_digest").unique().to_pylist()} - {None}
    part.with_name(f".{part.name}.crc").rename(path / "Target=0" / ".part-7.csv.crc")
    with pytest.raises(CxrprepError, match=r"Target=0/part-7.csv is missing"):
        read("rsna-pneumonia", tmp_path)


NIH_CELLS = {
    "no ending": lambda row: [row[0].removesuffix(".png"), *row[1:]],
    "jpg": lambda row: [row[0].replace(".png", ".jpg"), *row[1:]],
    "PNG": lambda row: [row[0].replace(".png", ".PNG"), *row[1:]],
    "a path without an ending": lambda row: ["D:\\x\\" + row[0].removesuffix(".png"), *row[1:]],
    "semicolons": lambda row: [row[0], row[1].replace("|", ";"), *row[2:]],
    "commas and blanks": lambda row: [row[0], row[1].replace("|", ", "), *row[2:]],
    "blanks around bars": lambda row: [row[0], row[1].replace("|", " | "), *row[2:]],
    "a list of Python": lambda row: [row[0], repr(row[1].split("|")), *row[2:]],
    "small letters": lambda row: [row[0], row[1].lower().replace("_", " "), *row[2:]],
}


@pytest.mark.parametrize("edit", NIH_CELLS)
def test_names_and_findings_of_nih_are_read_as_they_are_meant(edit, tmp_path):
    generate("nih-chestxray14", tmp_path)
    before = read("nih-chestxray14", tmp_path)[0]
    assert any("|" in "|".join(row["labels_raw"] or ()) for row in before)
    for path in (tmp_path / "Data_Entry_2017_v2020.csv", tmp_path / "train_val_list.txt"):
        head, *rows = csv.reader(io.StringIO(path.read_text()))
        if path.suffix == ".txt":
            path.write_text("\n".join(NIH_CELLS[edit]([row[0], ""])[0] for row in [head, *rows]))
        else:
            path.write_bytes(saved([head, *map(NIH_CELLS[edit], rows)]))
    after, said = read("nih-chestxray14", tmp_path)
    assert after == before
    assert any("ids are read as" in one or "joined by |" in one for one in said)


def test_rows_that_repeat_another_are_left_out_and_contradictions_refused(tmp_path):
    generate("nih-chestxray14", tmp_path)
    before = read("nih-chestxray14", tmp_path)[0]
    path = tmp_path / "Data_Entry_2017_v2020.csv"
    head, *rows = csv.reader(io.StringIO(path.read_text()))
    path.write_bytes(saved([head, *rows, *rows[:2]]))
    after, said = read("nih-chestxray14", tmp_path)
    assert after == before
    assert "2 rows that repeat another one left out" in said
    other = "Mass" if rows[0][1] != "Mass" else "Nodule"
    path.write_bytes(saved([head, *rows, rows[1], [rows[0][0], other, *rows[0][2:]]]))
    with pytest.raises(CxrprepError, match=rf"line {len(rows) + 3}.*stands in line 2 already"):
        read("nih-chestxray14", tmp_path)


@pytest.mark.parametrize(
    ("copy", "edit"), some_of_each(NAMES, ["gone", "more", "thousands"], one_in=13), indirect=["copy"]
)
def test_a_column_that_is_gone_or_more_is_said_and_sizes_may_have_commas(copy, edit):
    name, root, before = copy
    declared = declaration_of(name).image if catalog()[name].declared or name == "nih-chestxray14" else None
    sizes = {"Rows", "Columns"} if declared is None else {declared.width, declared.height}
    quiet = set(read(name, root)[1])
    for path in tables(root):
        kept = path.read_bytes()
        packed = kept.startswith(b"\x1f\x8b")
        rows = list(csv.reader(io.StringIO((gzip.decompress(kept) if packed else kept).decode())))
        columns = list(enumerate(rows[0] if edit != "more" else ["Sarcoidosis"]))
        # Of many columns most are labels, which are of one kind.
        for place, column in columns[:6] + columns[6:-2:5] + columns[6:][-2:]:
            if edit == "gone":
                edited = [[*row[:place], *row[place + 1 :]] for row in rows]
            elif edit == "more":
                edited = [[*row, str(number % 2) if number else column] for number, row in enumerate(rows)]
            elif column in sizes:
                grouped = [f"{int(row[place]):,}" if row[place].isdecimal() else row[place] for row in rows]
                edited = [[*row[:place], cell, *row[place + 1 :]] for row, cell in zip(rows, grouped, strict=True)]
            else:
                continue
            path.write_bytes(gzip.compress(saved(edited), mtime=0) if packed else saved(edited))
            refused: CxrprepError | None = None
            try:
                after, said = read(name, root)
            except CxrprepError as error:
                refused = error
            finally:
                path.write_bytes(kept)
            if refused is not None:
                assert refused.hint
                continue
            told = any(column in note for note in said if note not in quiet)
            same = [{k: v for k, v in row.items() if not str(k).endswith("__sarcoidosis")} for row in after] == before
            assert same or (edit == "gone" and told), (path.name, column, said)
            assert edit != "more" or same == told or after == before, (path.name, said)


# An id as another program saved it, and whether that can be read in some dataset.
IDS: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "small letters": str.lower,
    "unseen": lambda cell: f" {cell}\u00a0\0\u200b",
    "a path from Windows": lambda cell: f"C:\\data\\{cell}",
    "a folder": lambda cell: f"images/{cell}",
    "one more ending": lambda cell: f"{cell}.png",
    "no ending": lambda cell: re.sub(r"\.(png|jpg|dcm)$", "", cell),
    "an apostrophe": lambda cell: f"'{cell}",
    "a number of many digits": lambda cell: f"{cell[:1]}.58e+{cell}",
    "other signs": lambda cell: cell.replace("_", "+").replace("-", "+").replace(".", "+"),
    "blank": lambda cell: "",
}


@pytest.mark.parametrize(
    ("copy", "edit"),
    some_of_each([name for name in NAMES if catalog()[name].declared], IDS, one_in=7),
    indirect=["copy"],
)
def test_ids_in_another_form_are_read_as_they_were_or_refused_by_line(copy, edit):
    name, root, before = copy
    form = re.compile(group_in(declaration_of(name).paths.image, "id"))
    for path in (path for path in tables(root) if path.suffix == ".csv"):
        kept = path.read_bytes()
        rows = list(csv.reader(io.StringIO(kept.decode())))
        path.write_bytes(saved([[IDS[edit](cell) if form.search(cell) else cell for cell in row] for row in rows]))
        try:
            after, refused = read(name, root)[0], None
        except CxrprepError as error:
            after, refused = before, error
        finally:
            path.write_bytes(kept)
        assert after == before
        assert refused is None or (edit != "unseen" and refused.hint)
        assert refused is None or re.search(rf"{path.name}(, line \d| has a header and rows of blank)", str(refused))


def workbook(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names or ("[Content_Types].xml", "xl/workbook.xml", "xl/worksheets/sheet1.xml"):
            archive.writestr(name, "<a/>")
    return out.getvalue()


def parquet(data: bytes | list[bytes]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"table": [data]}), out)
    return out.getvalue()


def without_results(data: bytes) -> bytes:
    need("openpyxl")
    import openpyxl

    book, out = openpyxl.Workbook(), io.BytesIO()
    for number, row in enumerate(csv.reader(io.StringIO(data.decode()))):
        book.active.append([f'="{cell}"' if number else cell for cell in row])
    book.save(out)
    return out.getvalue()


DAMAGED = {
    "empty": lambda data: b"",
    "a workbook whose formulas were never worked out": without_results,
    "cut within quotation marks": lambda data: data + b'"cut',
    "a header of blanks": lambda data: re.sub(rb"^[^\n]*", lambda head: b"," * head[0].count(b","), data),
    "header alone": lambda data: data.partition(b"\n")[0] + b"\n",
    "a web page": lambda data: b"<!DOCTYPE html><html><body>sign in</body></html>",
    "half of UTF-16": lambda data: data.decode().encode("utf-16")[:-1],
    "a workbook": lambda data: workbook(),
    "a workbook, compressed": lambda data: gzip.compress(workbook(), mtime=0),
    "Parquet": lambda data: parquet(data)[:-8],
    "lists in Parquet": lambda data: parquet([data]),
    "an old workbook": lambda data: b"\xd0\xcf\x11\xe0" + data,
    "no UTF-8": lambda data: data.replace(b"\n", b"\xe9\n", 2),
    "another table": lambda data: b"a,b\n1,2\n",
    "noise": lambda data: bytes(range(256)) * 4,
    "a workbook of LibreOffice": lambda data: workbook("mimetype", "content.xml", "META-INF/manifest.xml"),
    "JSON": lambda data: b'{"message": "Not Found"}',
    "JSON of lists": lambda data: b'[{"id": [1]},\n{"id": [2]}]',
    "an error of a bucket": lambda data: b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "a pointer of Git LFS": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n",
    "a pointer of git-annex": lambda data: b"/annex/objects/SHA256E-s12--4d.csv\n",
    "gzip within gzip": lambda data: reduce(lambda packed, _: gzip.compress(packed, mtime=0), range(12), data),
}
# What is said of some of them.
SAID = {
    "a workbook of LibreOffice": "is a workbook of LibreOffice",
    "a workbook whose": "has formulas whose results nobody stored",
    "a workbook": "cannot be read as a workbook",
    "an old workbook": "this is a workbook of Excel 97",
    "Parquet": "cannot be read as a table",
    "JSON": "this is JSON",
    "an error of a bucket": "this is a web page, or other XML",
    "a pointer": "in place of the file",
    "gzip within": "this is no text",
    "noise": "this is no text",
}


@pytest.mark.parametrize(("copy", "damage"), some_of_each(NAMES, DAMAGED, one_in=13), indirect=["copy"])
def test_what_is_no_table_is_refused_with_its_name_and_a_hint(copy, damage):
    if damage.startswith("a workbook"):
        need("openpyxl")
    name, root, _ = copy
    for path in tables(root):
        kept = path.read_bytes()
        packed = kept.startswith(b"\x1f\x8b")
        path.write_bytes(DAMAGED[damage](gzip.decompress(kept) if packed else kept))
        try:
            with pytest.raises(CxrprepError) as caught:
                read(name, root)
        finally:
            path.write_bytes(kept)
        assert caught.value.exit_code in (ExitCode.INTEGRITY, ExitCode.USAGE)
        assert path.name in str(caught.value)
        assert caught.value.hint
        said = next((words for begin, words in SAID.items() if damage.startswith(begin)), "")
        assert said in str(caught.value)


def test_one_table_alone_is_read_or_refused_by_name(copy, tmp_path):
    name, root, _ = copy
    for number, path in enumerate(tables(root)):
        alone = tmp_path / str(number) / path.relative_to(root)
        alone.parent.mkdir(parents=True)
        alone.write_bytes(path.read_bytes())
        with contextlib.suppress(CxrprepError):
            # Anything else that is raised is a fault; a table that is read has rows.
            assert read(name, tmp_path / str(number))[0]


def test_behind_a_second_header_and_blank_rows_a_wrong_cell_is_named_by_its_line(copy):
    name, root, _ = copy
    for path in (path for path in tables(root) if path.suffix == ".csv"):
        kept = path.read_bytes()
        rows = list(csv.reader(io.StringIO(kept.decode())))
        # The whole row is none of the release's.
        wrong = ["7" if cell else "" for cell in rows[-1]]
        edited = [*rows[:2], [""] * len(rows[0]), rows[0], *rows[2:-1], wrong]
        path.write_bytes(saved(edited))
        try:
            with pytest.raises(CxrprepError) as caught:
                read(name, root)
        finally:
            path.write_bytes(kept)
        assert f"{path.name}, line {len(edited)}" in str(caught.value)
