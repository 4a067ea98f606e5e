"""Tables that were saved again as Parquet, Arrow or a workbook of Excel, as the text of a CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cxrprep.errors import MissingExtraError, TableError
from cxrprep.extras import install_command

if TYPE_CHECKING:
    from pathlib import Path

ARROW: Final = (b"PAR1", b"ARROW1")
"""How Parquet and Arrow files begin."""
_INDEX: Final = "__index_level_0__"  # pandas' own numbers of rows


def csv_of_arrow(path: Path, data: bytes, notes: list[str]) -> bytes:
    """The cells of a Parquet or Arrow file as CSV. Raises ``TableError`` for one that is damaged, or holds lists."""
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
    (name, rows), *others = [(name, rows) for name, rows in sheets.items() if rows] or [("", [])]
    notes.append("a workbook of Excel" + (f": its sheet {name!r} alone is read" if others else ""))
    out = io.StringIO(newline="")
    csv.writer(out).writerows([_word(cell) for cell in row] for row in rows)
    return out.getvalue().encode()


def sheets_of(path: Path, data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each sheet by its name. Raises ``TableError``, and ``MissingExtraError`` without openpyxl."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name} needs openpyxl", hint=install_command("xlsx")) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
        book.close()
    except (
        OSError,
        KeyError,
        ValueError,
        IndexError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        SyntaxError,
    ) as error:
        raise TableError(f"{path} cannot be read as a workbook: {error}", hint="fetch it again") from error
    return sheets


def _word(cell: Any) -> Any:
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return cell.date()
    return cell
