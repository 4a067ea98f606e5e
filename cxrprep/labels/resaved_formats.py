"""Tables that were saved again as Parquet, Arrow, JSON or a workbook of Excel, as the text of a CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cxrprep.errors import MissingExtraError, TableError
from cxrprep.extras import install_command
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ARROW: Final = (b"PAR1", b"ARROW1")
"""How Parquet and Arrow files begin."""
_NO_RECORDS: Final = "save it as CSV; what is a message of a server in place of the table: fetch it again"
_LINES: Final = re.compile(r"\.(jsonl|ndjson)\b", re.IGNORECASE)
_NO_WORKBOOK: Final = (
    OSError, KeyError, ValueError, IndexError, AttributeError, TypeError, zipfile.BadZipFile, SyntaxError,
)  # fmt: skip
# A program that writes a workbook leaves what its formulas come to for Excel.
_NO_RESULT: Final = re.compile(rb"(?:</f>|<f\b[^>]*/>)\s*(?:<v\s*/>|<v></v>)?\s*</c>")
_INDEX: Final = "__index_level_0__"  # pandas' own numbers of rows


def csv_of_arrow(path: Path, data: bytes, notes: list[str]) -> bytes:
    """The cells of a Parquet or Arrow file as CSV. Lists are JSON. Raises ``TableError`` where it is damaged."""
    parquet = data.startswith(ARROW[0])
    notes.append(f"{'a Parquet' if parquet else 'an Arrow'} file: its rows are counted as lines from 2")
    try:
        source = pa.BufferReader(data)
        table = pq.read_table(source) if parquet else pa.ipc.open_file(source).read_all()
        columns = {name: _words(table.column(name)) for name in table.column_names if name != _INDEX}
        out = io.BytesIO()
        pacsv.write_csv(pa.table(columns), out)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise TableError(
            f"{path} cannot be read as a table: {error}", hint="save it as CSV, with text and numbers alone"
        ) from error
    return out.getvalue()


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        return pa.chunked_array(
            [[None if cell is None else json.dumps(cell, default=str) for cell in column.to_pylist()]]
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "True", "False")
    if pa.types.is_timestamp(column.type):
        days = pc.all(pc.equal(pc.floor_temporal(column, unit="day"), column)).as_py()
        return pc.strftime(column, format="%Y-%m-%d" if days else "%Y-%m-%d %H:%M:%S")
    return column.cast(pa.string())


def csv_of_workbook(path: Path, data: bytes, notes: list[str]) -> bytes:
    """The cells of a workbook's first sheet as CSV; ``notes`` gets the name of a sheet that is left out."""
    sheets = sheets_of(path, data)
    # Blank rows stand before a header now and then, or are all of a sheet.
    begun = [
        (name, [*itertools.dropwhile(lambda row: all(cell is None for cell in row), rows)])
        for name, rows in sheets.items()
    ]
    (name, rows), *others = [one for one in begun if one[1]] or [("", [])]
    notes.append("a workbook of Excel" + (f": its sheet {name!r} alone is read" if others else ""))
    return _csv([_word(cell) for cell in row] for row in rows)


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def csv_of_json(path: Path, data: bytes, notes: list[str]) -> bytes:
    """The cells of JSON as CSV: a list of objects, an object a line, or what ``to_json`` of pandas writes.

    What stands in an object of its own is columns beside the others. Raises ``TableError`` for any other JSON.
    """

    def parsed(text: str) -> Any:
        # Numbers as they are written: 1.0 is no 1, and an id may have more digits than a float.
        return parse_json(text, parse_float=str, parse_int=str, parse_constant=lambda _: None)

    try:
        text = data.decode("utf-8-sig")
        try:
            value = parsed(text)
        except ValueError:
            value = [parsed(line) for line in text.split("\n") if line.strip()]
        # One line of JSON lines is an object like any message of a server: the name tells them apart.
        alone = isinstance(value, dict) and _LINES.search(path.name)
        found = [_flat(row) for row in ([value] if alone else _rows_of(value))]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise TableError(f"{path}, line 1: this is JSON, and no list of rows ({error})", hint=_NO_RECORDS) from error
    names = [*dict.fromkeys(name for row in found for name in row)]
    if not names or any(isinstance(cell, list) for row in found for cell in row.values()):
        raise TableError(f"{path}, line 1: this is JSON, and its rows hold nothing, or lists", hint=_NO_RECORDS)
    notes.append("JSON: its rows are counted as lines from 2")
    return _csv([names, *([row.get(name) for name in names] for row in found)])


def _rows_of(value: Any) -> Iterable[dict[str, Any]]:
    """The rows of a list, of columns as lists, or of what pandas writes: by columns or index, names or types apart."""
    if isinstance(value, list):
        return value
    if "data" in value:
        names = value.get("columns")
        return value["data"] if names is None else [dict(zip(names, row, strict=True)) for row in value["data"]]
    if all(isinstance(column, list) for column in value.values()):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    rows = next(iter(value.values()))
    numbered = all(name.isdecimal() for name in value)
    return value.values() if numbered else [{name: column[row] for name, column in value.items()} for row in rows]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    inner = [cell for cell in row.values() if isinstance(cell, dict)]
    return {name: cell for one in (row, *inner) for name, cell in one.items() if not isinstance(cell, dict)}


def sheets_of(path: Path, data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each sheet by its name. Raises ``TableError``, and ``MissingExtraError`` without openpyxl."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name} needs openpyxl", hint=install_command("xlsx")) from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = [archive.read(name) for name in archive.namelist() if name.startswith("xl/worksheets/")]
        if any(map(_NO_RESULT.search, parts)):
            raise TableError(f"{path} has formulas whose results nobody stored", hint="save it as CSV, then run again")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
        book.close()
    except _NO_WORKBOOK as error:
        raise TableError(f"{path} cannot be read as a workbook: {error}", hint="fetch it again") from error
    return sheets


def _word(cell: Any) -> Any:
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return cell.date()
    return cell
