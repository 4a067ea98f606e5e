"""Text of a CSV file and its records: gzip, zip, Parquet, a workbook by content; the delimiter; line numbers."""

from __future__ import annotations

import bz2
import csv
import hashlib
import io
import lzma
import os
import re
import zipfile
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from zlib_ng import zlib_ng

from cxrprep.datasets.facts import PART_FILE
from cxrprep.errors import TableError, UsageError
from cxrprep.humanize import format_count
from cxrprep.labels.resaved_formats import ARROW, csv_of_arrow, csv_of_json, csv_of_workbook
from cxrprep.model import Digest
from cxrprep.storage.small_files import GZIP, encoding_of, open_file, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_LIMIT: Final = 2 << 30
_ZIP: Final = b"PK\x03\x04"
AGAIN: Final = "fetch the table again, or correct that line by hand"
_ALL_PARTS: Final = "fetch the folder again with all of its files, or save the table as one CSV"
_CHECKSUM: Final = re.compile(r"((?:.*/)?)\.([^/]+)\.crc")
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"  # Spark's word, in the name of a folder
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]")
_DELIMITERS: Final = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# What Excel writes and reads; saved again by another program it has quotation marks, or blanks.
_NAMED_DELIMITER: Final = re.compile(rb'"?sep\s*=\s*([,;\t|])"?[,;\t|]*\r?\n', re.IGNORECASE)
_OF_A_MAC: Final = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._)")
# Before a header PowerShell writes a remark; a header that begins so has several columns. DOS ended text with Ctrl-Z.
_BEFORE: Final = re.compile(rb"(?:(?:[ ]*|#[^,;\t|\r\n]*)\r?\n)+")
_ROW_COUNT: Final = re.compile(rb"\n\(\d+ rows?\)\s*\Z")
_BLANK_END: Final = re.compile(rb"(?:\r?\n[ ]*)+\x1a?\Z")

# A formula that keeps a spreadsheet from taking 007 for a number: the whole cell is ="007", or that in quotation marks.
_TEXT_FORMULA: Final = re.compile(rb'(^|[,;\t|])(?:="([^"\r\n]*)"|"=""([^"\r\n]*)""")(?=[,;\t|\r\n]|\Z)', re.MULTILINE)


class CsvContent(NamedTuple):
    """A table's bytes: as they lie on the disk, and as text; what stands before the header; what was understood."""

    packed: bytes
    data: bytes
    delimiter: str = ","
    lines_before: int = 0
    notes: tuple[str, ...] = ()


class Written(NamedTuple):
    """How a CSV is written where it does not tell itself: ``header`` are the names that it lacks."""

    delimiter: str = ""
    header: tuple[str, ...] = ()


AS_IT_STANDS: Final = Written()


def read_content(path: Path, written: Written = AS_IT_STANDS) -> CsvContent:
    """The file's contents. Raises ``UsageError`` where there is none, ``TableError`` where it cannot be read."""
    try:
        packed = read_file(path)
    except IsADirectoryError:
        return _of_parts(path, written)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}", hint="check the path") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    notes: list[str] = []
    data = _uncompressed(path, packed, notes)
    if len(data) > _LIMIT:
        raise TableError(
            f"{path} is larger than {_LIMIT >> 30} GiB", hint="no published table is that large: fetch it again"
        )
    data = _with_line_ends(_as_utf8(path, data, notes), notes)
    if _JSON.match(data):
        data = csv_of_json(path, data, notes)
    content = _delimited(
        packed, _without_blank_end(_without_row_count(_without_formulas(data, notes), notes)), notes, written.delimiter
    )
    if not written.header:
        return content
    names = io.StringIO()
    csv.writer(names, delimiter=content.delimiter, lineterminator="\n").writerow(written.header)
    data = names.getvalue().encode() + content.data.removeprefix(b"\xef\xbb\xbf")
    return content._replace(data=data, lines_before=content.lines_before - 1)


def _of_parts(path: Path, written: Written) -> CsvContent:
    """The contents of a folder that Spark or Dask wrote a table into; lines are counted through all of its parts.

    Raises ``TableError`` where a part is missing, or has other columns. What is empty has no part, so that numbers may
    be left out; on a disk Spark writes a checksum beside each.
    """
    names = {one.relative_to(path).as_posix() for one in path.rglob("*")}
    matched = ((found, name) for name in names if (found := PART_FILE.match(name)))
    of_parts = sorted((name.rpartition("/")[0], int(found[1] or found[2] or 0), name) for found, name in matched)
    parts = {
        name: _with_columns(one, path / name, inner.split("/"))
        for inner, _, name in of_parts
        if (one := read_content(path / name, written)).packed
    }
    lost = {f"{sum_of[1]}{sum_of[2]}" for name in names if (sum_of := _CHECKSUM.fullmatch(name))} - names
    if not parts or lost or "_temporary" in names:
        what = f"{min(lost)} is missing" if lost else "it is still being written" if parts else "it holds no part files"
        raise TableError(f"{path} is a folder, not a table: {what}", hint=_ALL_PARTS)
    (first, whole), *others = parts.items()
    header = whole.data.partition(b"\n")[0]
    for name, part in others:
        if part.data.partition(b"\n")[0] != header:
            raise TableError(f"{path / name}, line 1: its header is another than that of {first}", hint=_ALL_PARTS)
    rows = filter(None, (part.data.partition(b"\n")[2].rstrip(b"\r\n") for part in parts.values()))
    said = "" if "_SUCCESS" in names else "; without _SUCCESS, which says that they are all"
    notes = (f"a folder of {format_count(len(parts), 'part file')}{said}", *whole.notes)
    # What folders say of columns counts too.
    packed = b"".join(os.fsencode(name.rpartition("/")[0]) + part.packed for name, part in parts.items())
    return whole._replace(packed=packed, data=b"\n".join((header, *rows)) + b"\n", notes=notes)


def _with_columns(part: CsvContent, path: Path, folders: Sequence[str]) -> CsvContent:
    """The part with the columns that its folders name, such as ``split=train``. Raises ``TableError``."""
    stated = [unquote(folder).encode().decode("latin-1").split("=", 1) for folder in folders if folder]
    if not stated:
        return part
    out = io.StringIO(newline="")
    # As Latin-1 each byte stays as it is.
    text = io.StringIO(part.data.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    names, values = zip(*((name, "" if value == _NO_VALUE else value) for name, value in stated), strict=True)
    try:
        header, *rows = filter(None, csv.reader(text, delimiter=part.delimiter))
        lines = [[*header, *names], *([*row, *values] for row in rows)]
        csv.writer(out, delimiter=part.delimiter, lineterminator="\n").writerows(lines)
    except (csv.Error, ValueError) as error:
        raise TableError(f"{path} cannot be read as CSV: {error}", hint=AGAIN) from error
    return part._replace(data=out.getvalue().encode("latin-1"))


def _with_line_ends(data: bytes, notes: list[str]) -> bytes:
    """The text with a line feed behind each line, and without the byte order marks of files that were joined."""
    if b"\r" in data and b"\n" not in data:
        notes.append("its lines end in a carriage return alone, as on an old Mac")
        data = data.replace(b"\r", b"\n")
    # A search for one byte is as good as free.
    return data.replace(b"\n\xef\xbb\xbf", b"\n") if data.find(b"\xef", 3) > 0 else data


def _without_formulas(data: bytes, notes: list[str]) -> bytes:
    """The text with ``"007"`` for ``="007"``: as it stands it would be an id that no image has."""
    plain, count = _TEXT_FORMULA.subn(rb'\1"\2\3"', data) if b'="' in data else (data, 0)
    if count:
        notes.append('cells that a spreadsheet wrote as ="..." are read as the text within')
    return plain


def _without_row_count(data: bytes, notes: list[str]) -> bytes:
    """The text without the line that psql writes below the rows, such as ``(3 rows)``."""
    found = _ROW_COUNT.search(data, max(0, len(data) - 256))
    if found:
        notes.append("its last line is psql's count of its rows: left out")
    return data[: found.start() + 1] if found else data


def _without_blank_end(data: bytes) -> bytes:
    """The text without the lines of blanks that end it: they would be rows of one cell."""
    ends = _BLANK_END.search(data, max(0, len(data) - 4096)) if data[-1:] in b" \n\x1a" else None
    return data[: ends.start()] + b"\n" if ends and (b" " in ends[0] or b"\x1a" in ends[0]) else data


def _uncompressed(path: Path, packed: bytes, notes: list[str]) -> bytes:
    """The bytes by what they are: browsers unpack on the way, and keep the name; Kaggle packs single files."""
    named = path.suffix.lower()
    if named == ".txt" and path.stem.lower().endswith((".csv", ".tsv")):
        notes.append("a table, although its name ends in .txt")
    if named == ".gz" and packed and not packed.startswith((GZIP, _ZIP)):
        notes.append("not compressed, although its name ends in .gz")
    # What is packed twice is a file that a program packed, and a server once more; a file of no end stops at eight.
    for begin, (what, end, unpack, refusal) in [*_PACKED.items()] * 8:
        if not packed.startswith(begin):
            continue
        if named != end:
            notes.append(f"compressed by {what}, whatever its name says")
        named = ""
        try:
            packed = unpack(packed)
        except refusal as error:
            raise TableError(
                f"{path} cannot be unpacked: {error}", hint="the file is cut short: fetch it again"
            ) from error
    if packed.startswith(_ZIP):
        return _only_member(path, packed, notes)
    return csv_of_arrow(path, packed, notes) if packed.startswith(ARROW) else packed


def _as_utf8(path: Path, data: bytes, notes: list[str]) -> bytes:
    """The text in UTF-8: Excel writes UTF-16 as "Unicode text", and says so by its first two bytes."""
    encoding = encoding_of(data)
    if not encoding.startswith("utf-16"):
        return data
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(f"{path} begins as text in UTF-16 and is not: {error.reason}", hint=AGAIN) from error
    notes.append("its text is in UTF-16")
    return text.encode()


def _only_member(path: Path, packed: bytes, notes: list[str]) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            # A Mac packs its own notes beside each file.
            members = [m for m in archive.infolist() if not (m.is_dir() or _OF_A_MAC.search(m.filename))]
            if len(members) == 1 and members[0].file_size <= _LIMIT:
                return archive.read(members[0])
            if any(member.filename.startswith("xl/") for member in members):
                if sum(member.file_size for member in members) > _LIMIT:
                    raise TableError(f"{path} is larger than {_LIMIT >> 30} GiB", hint="save it as CSV, then run again")
                return csv_of_workbook(path, packed, notes)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib_ng.error) as error:  # type: ignore[misc]  # as above
        raise TableError(f"{path} cannot be unpacked: {error}", hint="the file is cut short: fetch it again") from error
    if any(member.filename == "content.xml" for member in members):
        raise TableError(f"{path} is a workbook of LibreOffice", hint="save it as CSV or .xlsx, then run again")
    raise TableError(f"{path} is an archive of {len(members):,} files, not a table", hint="unpack it, then run again")


def _delimited(packed: bytes, data: bytes, notes: list[str], stated: str) -> CsvContent:
    """The delimiter: what is stated, what Excel's ``sep=`` line says, or else what the header has most of."""
    bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    before = 0
    if blank := _BEFORE.match(data, bom):
        notes.append("blank lines or remarks stand before its header")
        before, data, bom = blank[0].count(b"\n"), data[blank.end() :], 0
    if named := _NAMED_DELIMITER.match(data, bom):
        notes.append("its first line names the delimiter, as Excel writes it")
        return CsvContent(packed, data[named.end() :], named[1].decode(), before + 1, tuple(notes))
    if stated:
        # Columns that are set apart by blanks mostly have as many as it takes to stand below each other.
        data = re.sub(rb" {2,}", b" ", re.sub(rb"(?m)^ +| +\r?$", b"", data)) if stated == " " else data
        return CsvContent(packed, data, stated, before, tuple(notes))
    header = data[: 1 << 16].partition(b"\n")[0]
    count = {delimiter: header.count(delimiter.encode()) for delimiter in _DELIMITERS}
    delimiter = max(count, key=lambda one: (count[one], one == ","))
    if delimiter != ",":
        notes.append(f"its fields are separated by {_DELIMITERS[delimiter]}")
    if data.endswith(delimiter.encode()):
        notes.append("its last line has no end and a blank last cell: it may be cut short")
    return CsvContent(packed, data, delimiter, before, tuple(notes))


def _unpacked(data: bytes) -> bytes:
    """The contents of gzip members, one after the other; no more than the limit and a byte."""
    parts: list[bytes] = []
    left = _LIMIT + 1
    while data and left > 0:
        # In one piece: a GzipFile takes a few kilobytes at a time.
        member = zlib_ng.decompressobj(wbits=31)
        parts.append(member.decompress(data, left))
        left -= len(parts[-1])
        if not member.eof and left > 0:
            raise EOFError("it ends before its end marker")
        # Padding with zeros is no further member.
        data = member.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


# How what pandas packs begins, by the ending that somebody names: what it is, how it is unpacked, what refuses it.
_PACKED: Final[dict[bytes, tuple[str, str, Callable[[bytes], bytes], tuple[type[Exception], ...]]]] = {
    GZIP: ("gzip", ".gz", _unpacked, (EOFError, zlib_ng.error)),  # type: ignore[dict-item]  # its stub calls the class an instance
    b"\xfd7zXZ\0": ("xz", ".xz", lambda data: lzma.LZMADecompressor().decompress(data, _LIMIT + 1), (lzma.LZMAError,)),
    b"BZh": ("bzip2", ".bz2", lambda data: bz2.BZ2Decompressor().decompress(data, _LIMIT + 1), (OSError,)),
    b"\x28\xb5\x2f\xfd": (
        "zstd", ".zst", lambda data: pa.input_stream(pa.py_buffer(data), "zstd").read(_LIMIT + 1), (OSError,),
    ),
}  # fmt: skip


def digest_of(path: Path) -> Digest:
    """The SHA-256 of a file that is not read as a table. Raises ``TableError`` when it cannot be read."""
    try:
        with open_file(path) as file:
            return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
    except IsADirectoryError:
        return Digest("sha256", hashlib.sha256(read_content(path).packed).hexdigest())
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> TableError:
    return TableError(f"cannot read {path}: {error.strerror}", hint="make the file readable, then run again")


def records_of(content: CsvContent) -> Iterable[tuple[int, list[str]]]:
    """Each record of a CSV with the line it begins on, from 1; blank lines are passed over, and lines of blanks."""
    # A cell may be as long as the table: behind a quotation mark that is never closed all of it is one.
    csv.field_size_limit(_LIMIT - 1)
    # Line by line: the text of a large table as a whole would take its memory again.
    text = io.TextIOWrapper(io.BytesIO(content.data), "utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, delimiter=content.delimiter)
    begins = 1 + content.lines_before
    for fields in reader:
        if len(fields) > 1 or (fields and fields[0].strip()):
            yield begins, fields
        begins = reader.line_num + 1 + content.lines_before


def line_of(content: CsvContent, row: int) -> int:
    """The line in the file at which a data row (from 0) begins."""
    for index, (line, _) in enumerate(records_of(content)):
        if index == row + 1:
            return line
    return row + 2
