"""CSV tables read as text, column by column, with errors that name file, line and column.

Nothing is interpreted here: a blank cell is null, every other cell the text that stands there. Names bind columns,
never positions; what a release does wrong in its header a ``header`` function of the dataset's own module puts right.

People save tables again, with pandas, Excel or a browser: what such a program does to a table (another delimiter, a
``sep=`` line, ``nan`` for blank, gzip or zip by content whatever the name, one more column) is read where the meaning
is plain, and said in ``notes``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from zlib_ng import zlib_ng

from cxrprep.errors import TableError, did_you_mean
from cxrprep.model import Digest
from cxrprep.schemas import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_LIMIT: Final = 2 << 30
# What stays in a processor's cache while its columns are taken apart; a cell with line breaks may be of any length.
_BLOCK: Final = 4 << 20
_AGAIN: Final = "fetch the table again, or correct that line by hand"
# What other programs write where a cell is blank; no published table has these words.
_MISSING: Final = frozenset({"nan", "NaN", "<NA>", "NULL", "null", "None"})
_DELIMITERS: Final = {",": "commas", "\t": "tabs", ";": "semicolons"}


@dataclass(frozen=True, slots=True)
class Form:
    """What a table must look like.

    ``required`` columns must be there, ``optional`` ones may; any other is kept as text and said, unless it looks like
    a misspelt one; ``open`` keeps any without a word. ``plain`` columns hold mostly different values. ``drop`` columns
    are recognised and not read. ``header`` turns the header's fields, as a CSV reader sees them, into column names.
    ``multiline`` cells may hold line breaks.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    header: Callable[[list[str]], list[str]] | None = None
    multiline: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table as text. ``columns`` are dictionary-encoded but for the plain ones.

    ``origin`` is each row's place in the file, where the rows stand in another order than there. ``extra`` names the
    columns that the release does not have, ``notes`` says what was understood although the release writes otherwise.
    """

    path: Path
    digest: Digest
    columns: pa.Table
    names: tuple[str, ...]
    origin: pa.Array | None = None
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of data rows."""
        return int(self.columns.num_rows)

    def __contains__(self, name: object) -> bool:
        """Whether the table has a column of that name."""
        return name in self.columns.column_names

    def column(self, name: str) -> pa.Array:
        """One column as a single array."""
        return self.columns.column(name).combine_chunks()

    def text(self, name: str) -> pa.Array:
        """One column as plain strings."""
        return self.column(name).cast(pa.string())

    def ordered(self, order: pa.Array) -> TextTable:
        """The same rows in another order; errors still name the lines of the file."""
        columns = self.columns.take(order).combine_chunks()
        return replace(self, columns=columns, origin=order if self.origin is None else self.origin.take(order))

    def trimmed(self, name: str, pattern: str) -> TextTable:
        """The table with only the first group of ``pattern`` (RE2) left of each cell of a plain column.

        For ids with a letter before or ``.0`` behind them. A cell that does not match stays as it is, for
        ``require_match`` to refuse; what changed is said in ``notes``.
        """
        column = self.text(name)
        cleaned = pc.replace_substring_regex(column, pattern, r"\1")
        changed = int(pc.sum(pc.not_equal(cleaned, column)).as_py() or 0)
        if not changed:
            return self
        row = first_true(pc.not_equal(cleaned, column))
        note = f"column {name!r}: {changed:,} ids are read as {cleaned[row]} is for {column[row]}"
        place = self.columns.column_names.index(name)
        return replace(self, columns=self.columns.set_column(place, name, cleaned), notes=(*self.notes, note))

    def with_slashes(self, name: str) -> TextTable:
        """The table with ``/`` for each backslash in a plain column: paths that were written on Windows."""
        place = self.columns.column_names.index(name)
        return replace(
            self, columns=self.columns.set_column(place, name, pc.replace_substring(self.text(name), "\\", "/"))
        )

    def _place(self, row: int) -> int:
        return row if self.origin is None else int(self.origin[row].as_py())

    def error(self, row: int, column: str, what: str, hint: str = _AGAIN) -> TableError:
        """The error for a cell: it names file, line and column, and shows the cell.

        Args:
            row: Data row, from 0.
            column: Its name.
            what: What is wrong.
            hint: The next step.

        Returns:
            The error, not raised.
        """
        value = self.columns.column(column)[row].as_py() if column in self else None
        shown = "blank" if value is None else repr(value if len(value) < 80 else value[:77] + "...")
        line = _line_of(_read(self.path), self._place(row))
        return TableError(f"{self.path}, line {line}, column {column!r}: {what} ({shown})", hint=hint)

    def mapped(self, name: str, values: Mapping[str, Any], kind: pa.DataType, what: str) -> pa.Array:
        """A column with each text replaced by its value in ``values``; blank stays null.

        Args:
            name: The column.
            values: Text to value.
            kind: The type of the result.
            what: What was expected, for the error.

        Returns:
            As many values as the table has rows.

        Raises:
            TableError: At the first cell that ``values`` does not know.
        """
        return self.translated(name, values.__getitem__, kind, what)

    def translated(self, name: str, value_of: Callable[[str], Any], kind: pa.DataType, what: str) -> pa.Array:
        """A column with each distinct text replaced by what a function makes of it; blank stays null.

        Args:
            name: The column.
            value_of: Raises ``KeyError`` or ``ValueError`` for what it does not know.
            kind: The type of the result.
            what: What was expected, for the error.

        Returns:
            As many values as the table has rows.

        Raises:
            TableError: At the first cell that ``value_of`` does not know.
        """
        column = self.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        found = []
        for code, text in enumerate(column.dictionary.to_pylist()):
            try:
                found.append(value_of(text))
            except (KeyError, ValueError) as error:
                row = pc.index(column.indices, pa.scalar(code, column.indices.type)).as_py()
                if row < 0:
                    found.append(None)  # a word of the dictionary that no row uses
                    continue
                raise self.error(row, name, what) from error
        try:
            values = pa.array(found, kind)
        except (OverflowError, pa.ArrowInvalid):
            code = next(code for code, value in enumerate(found) if not _fits(value, kind))
            row = pc.index(column.indices, pa.scalar(code, column.indices.type)).as_py()
            raise self.error(row, name, f"{what}, and no number of this size") from None
        return values.take(column.indices)

    def lenient(
        self, name: str, value_of: Callable[[str], Any], kind: pa.DataType, note: Callable[[str], object]
    ) -> pa.Array:
        """As ``translated``, with null for what is not known.

        For what a table says beside its labels: one odd cell is no reason to refuse all the others.

        Args:
            name: The column.
            value_of: Raises ``KeyError`` or ``ValueError`` for what it does not know.
            kind: The type of the result.
            note: Gets a line about each such word.

        Returns:
            As many values as the table has rows.
        """

        def value_or_none(text: str) -> Any:
            try:
                return value_of(text)
            except (KeyError, ValueError):
                return None

        values = self.translated(name, value_or_none, kind, "")
        refused = pc.and_(pc.is_null(values), pc.is_valid(self.column(name)))
        row = first_true(refused)
        if row >= 0:
            count = int(pc.sum(refused).as_py())
            note(f"{self.error(row, name, 'not understood').message}: null in {count:,} rows, raw text kept")
        return values

    def require(self, name: str) -> None:
        """Raise ``TableError`` at the first blank cell of a column that must not have one."""
        column = self.column(name)
        if column.null_count:
            row = first_true(pc.is_null(column))
            raise self.error(row, name, "this cell must not be blank")

    def require_match(self, name: str, pattern: str, what: str, hint: str = _AGAIN) -> None:
        """Refuse a column with a cell of another form; blank is of another form.

        Args:
            name: The column.
            pattern: A regular expression (RE2).
            what: What was expected, for the error.
            hint: The next step.

        Raises:
            TableError: At the first cell that ``pattern`` does not match.
        """
        self.require(name)
        matches = pc.match_substring_regex(self.text(name), pattern)
        row = first_true(pc.invert(matches))
        if row >= 0:
            raise self.error(row, name, what, hint)

    def require_unique(self, name: str) -> None:
        """Raise ``TableError`` when a key stands in two rows; the message names both lines."""
        column = self.text(name)
        if pc.count_distinct(column).as_py() == len(column):
            return
        seen: dict[str, int] = {}
        data = _read(self.path)
        for row, key in enumerate(column.to_pylist()):
            if key in seen:
                raise TableError(
                    f"{self.path}, line {_line_of(data, self._place(row))}, column {name!r}: {key!r} stands in line "
                    f"{_line_of(data, self._place(seen[key]))} already",
                    hint="a key must be unique: remove one of the rows, or fetch the table again",
                )
            seen[key] = row


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (OverflowError, pa.ArrowInvalid):
        return False
    return True


def first_true(mask: Any) -> int:
    """The first row where ``mask`` is true, or -1."""
    return int(pc.index(mask, pa.scalar(True)).as_py())


def _digest(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


class _Content(NamedTuple):
    """A table's bytes: as they lie on the disk, and as text; what stands before the header; what was understood."""

    packed: bytes
    data: bytes
    delimiter: str = ","
    lines_before: int = 0
    notes: tuple[str, ...] = ()


def _read(path: Path) -> _Content:
    """The file's contents. Raises ``TableError`` for one that cannot be read or unpacked."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError as error:
        raise TableError(f"{path} is not there", hint="download the tables first, or name their folder") from error
    except OSError as error:
        raise TableError(
            f"cannot read {path}: {error.strerror}", hint="make the file readable, then run again"
        ) from error
    notes: list[str] = []
    data = _uncompressed(path, packed, notes)
    if len(data) > _LIMIT:
        raise TableError(f"{path} is larger than {_LIMIT >> 30} GiB", hint="no published table is: fetch it again")
    return _delimited(packed, data, notes)


def _uncompressed(path: Path, packed: bytes, notes: list[str]) -> bytes:
    """The bytes by what they are: browsers unpack on the way, and keep the name; Kaggle packs single files."""
    named = path.suffix.lower()
    if packed.startswith(b"\x1f\x8b"):
        if named != ".gz":
            notes.append("compressed by gzip, whatever its name says")
        try:
            return _unpacked(packed)
        except (EOFError, zlib_ng.error) as error:  # type: ignore[misc]  # its stub calls the class an instance
            raise TableError(
                f"{path} cannot be unpacked: {error}", hint="the file is cut short: fetch it again"
            ) from error
    if packed.startswith(b"PK\x03\x04"):
        return _only_member(path, packed)
    if named == ".gz" and packed:
        notes.append("not compressed, although its name ends in .gz")
    return packed


def _only_member(path: Path, packed: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) == 1 and members[0].file_size <= _LIMIT:
                return archive.read(members[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib_ng.error) as error:  # type: ignore[misc]  # as above
        raise TableError(f"{path} cannot be unpacked: {error}", hint="the file is cut short: fetch it again") from error
    raise TableError(f"{path} is an archive of {len(members):,} files, not a table", hint="unpack it, then run again")


def _delimited(packed: bytes, data: bytes, notes: list[str]) -> _Content:
    """The delimiter: what Excel's ``sep=`` line says, or else what the header has most of."""
    bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    first = data[bom : bom + 6].lower()
    if first.startswith(b"sep=") and first[5:6] in (b"\r", b"\n") and chr(first[4]) in _DELIMITERS:
        notes.append("its first line names the delimiter, as Excel writes it")
        rest = data[bom + 5 :]
        return _Content(packed, rest[2:] if rest[:2] == b"\r\n" else rest[1:], chr(first[4]), 1, tuple(notes))
    header = data[: 1 << 16].partition(b"\n")[0]
    count = {delimiter: header.count(delimiter.encode()) for delimiter in _DELIMITERS}
    delimiter = max(count, key=lambda one: (count[one], one == ","))
    if delimiter != ",":
        notes.append(f"its fields are separated by {_DELIMITERS[delimiter]}")
    return _Content(packed, data, delimiter, 0, tuple(notes))


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


def digest_of(path: Path) -> Digest:
    """The SHA-256 of a file that is not read as a table. Raises ``TableError`` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise TableError(
            f"cannot read {path}: {error.strerror}", hint="make the file readable, then run again"
        ) from error


def _records(content: _Content, *, skip_blank: bool = True) -> Iterable[tuple[int, list[str]]]:
    """Each record of a CSV with the line it begins on, from 1; blank lines are passed over as the fast reader does."""
    text = io.StringIO(content.data.decode("utf-8-sig", errors="replace"), newline="")
    reader = csv.reader(text, delimiter=content.delimiter)
    begins = 1 + content.lines_before
    for fields in reader:
        if fields or not skip_blank:
            yield begins, fields
        begins = reader.line_num + 1 + content.lines_before


def _line_of(content: _Content, row: int) -> int:
    for index, (line, _) in enumerate(_records(content)):
        if index == row + 1:
            return line
    return row + 2


def _is_web_page(data: bytes) -> bool:
    return data[: 1 << 12].lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))


def _head(content: _Content, path: Path) -> tuple[list[str], list[str]]:
    """The fields of the header and of the first data row."""
    data = content.data
    again = "fetch the table again"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TableError(f"{path}, line 1: the table is in UTF-16", hint="save it as CSV in UTF-8")
    if _is_web_page(data):
        raise TableError(
            f"{path}, line 1: this is a web page, not a table", hint=f"sign in at the source, then {again}"
        )
    records = iter(_records(content._replace(data=data[: 1 << 20])))
    try:
        header = next(records, (0, []))[1]
        first = next(records, (0, []))[1]
    except csv.Error as error:
        raise TableError(f"{path}, line 1: {error}", hint=again) from error
    if not header:
        raise TableError(f"{path} is empty", hint=again)
    if not first:
        raise TableError(f"{path} has a header and no rows", hint=again)
    return header, first


def _names(header: list[str], first: list[str], form: Form, path: Path) -> list[str]:
    names = [name.strip() for name in header]
    if form.header is not None:
        names = form.header(names)
    names = _spelled_as_released(names, form)
    while len(names) > len(first) and not names[-1]:
        names.pop()  # the header ends in a comma that the rows do not have
    missing = [name for name in form.required if name not in names]
    if missing:
        shown = ", ".join(header[:6]) + (", ..." if len(header) > 6 else "")
        raise TableError(
            f"{path}, line 1: column {missing[0]!r} is missing; the header begins with {shown[:200]}",
            hint=f"is this the right table, of the right release? It needs: {', '.join(form.required)}",
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TableError(f"{path}, line 1: column {twice[0]!r} stands there twice", hint=_AGAIN)
    if not form.open:
        absent = [name for name in (*form.optional, *form.drop) if name not in names]
        for name in _extra(names, form):
            if meant := did_you_mean(name, absent):
                raise TableError(
                    f"{path}, line 1: unknown column {name!r}",
                    hint=f"{meant}rename the column, or use the released table",
                )
    return names


def _spelled_as_released(names: list[str], form: Form) -> list[str]:
    """The names with the release's capitals and blanks: databases write ``pleural_effusion`` and ``DICOM_ID``."""
    plain = {_plain(name): name for name in (*form.required, *form.optional, *form.drop)}
    spelled = [plain.get(_plain(name), name) for name in names]
    return spelled if len(set(spelled)) == len(set(names)) else names


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _extra(names: Sequence[str], form: Form) -> tuple[str, ...]:
    known = {*form.required, *form.optional, *form.drop, ""}
    return tuple(name for name in names if name not in known and not name.startswith("Unnamed: "))


def read_table(path: Path, form: Form) -> TextTable:
    """The table in ``path``. gzip is unpacked; BOM, CRLF, mixed line ends and a missing last one are understood.

    Raises ``TableError``, with file, line and column, for a file that cannot be read, is no CSV, has rows of another
    width, lacks a column or has one that is spelled nearly as one of the release.
    """
    content = _read(path)
    packed, data = content.packed, content.data
    header, first = _head(content, path)
    names = _names(header, first, form, path)
    # The index column of a table that pandas saved has no name, or one that says so; it says nothing of the data.
    read = [name for name in names if name and not name.startswith("Unnamed: ") and name not in form.drop]
    plain = frozenset(form.plain)
    # The digest costs a tenth of the reading: another core may have it.
    with ThreadPoolExecutor(max_workers=1) as pool:
        digest = pool.submit(_digest, packed)
        try:
            table = pacsv.read_csv(
                pa.BufferReader(_owned_by_arrow(data)),
                read_options=pacsv.ReadOptions(
                    block_size=len(data) + 1 if form.multiline else min(len(data) + 1, _BLOCK),
                    column_names=_distinct(names),
                    skip_rows=1,
                ),
                parse_options=pacsv.ParseOptions(delimiter=content.delimiter, newlines_in_values=form.multiline),
                convert_options=pacsv.ConvertOptions(
                    include_columns=read,
                    column_types={name: pa.string() if name in plain else TEXT for name in read},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            raise _explain(path, content, len(names), error) from error
    table = table.unify_dictionaries().combine_chunks()
    table, trimmed = _trimmed(table, first)
    table, blank = _blanked(table)
    extra = () if form.open else tuple(name for name in _extra(names, form) if name in read)
    notes = [*content.notes, *trimmed, *blank]
    stated = [name.strip() for name in header]
    if not set(names) <= set(stated if form.header is None else form.header(stated)):
        notes.append("its header has other capitals or blanks than the release's")
    if extra:
        notes.append(f"columns that the release does not have, kept as text: {', '.join(extra)[:200]}")
    found = TextTable(path, digest.result(), table, tuple(read), extra=extra, notes=tuple(notes))
    if b'"' in data and not form.multiline:
        _refuse_line_breaks(found)
    return found


def _trimmed(table: pa.Table, first: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The table without the blank behind each separator, where the first row has one there."""
    cells = [cell for cell in first[1:] if cell]
    if not cells or not all(cell.startswith(" ") for cell in cells):
        return table, []
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        text = pc.if_else(pc.equal(text, ""), None, text)
        table = table.set_column(
            place, name, text.combine_chunks().dictionary_encode() if column.type == TEXT else text
        )
    return table, ["a blank stands behind each separator"]


def _blanked(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The table with nulls for words such as ``nan``, and a note for each column that has them."""
    notes = []
    for place, name in enumerate(table.column_names):
        column = table.column(name).combine_chunks()
        if not pa.types.is_dictionary(column.type):
            continue
        words = column.dictionary.to_pylist()
        missing = [code for code, word in enumerate(words) if word in _MISSING]
        absent = pc.is_in(column.indices, value_set=pa.array(missing, column.indices.type)) if missing else None
        count = int(pc.sum(absent).as_py() or 0) if absent is not None else 0
        if count:
            table = table.set_column(place, name, pc.if_else(absent, pa.scalar(None, column.type), column))
            notes.append(f"column {name!r}: {words[missing[0]]!r} is read as blank in {count:,} cells")
    return table, notes


def _owned_by_arrow(data: bytes) -> pa.Buffer:
    """A copy that Arrow's threads may let go of by themselves.

    After an error some of them are still at the blocks that follow. What belongs to Python needs the interpreter when
    it is let go, and a thread that asks for it while the program ends takes the program down.
    """
    copy = pa.allocate_buffer(len(data))
    memoryview(copy).cast("B")[:] = data
    return copy


def _distinct(names: Sequence[str]) -> list[str]:
    return [name or f"Unnamed: {index}" for index, name in enumerate(names)]


def _explain(path: Path, content: _Content, width: int, error: Exception) -> TableError:
    """The exact place of what the fast reader refused."""
    try:
        for line, fields in _records(content):
            if line > 1 + content.lines_before and len(fields) != width:
                return TableError(
                    f"{path}, line {line}, column {min(len(fields), width) + 1}: "
                    f"the line has {len(fields)} fields where the header has {width}",
                    hint="the file may be cut short: fetch it again",
                )
    except csv.Error as problem:
        return TableError(f"{path}: {problem}", hint=_AGAIN)
    for line, raw in enumerate(content.data.splitlines(), 1 + content.lines_before):
        try:
            raw.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            column = raw[: problem.start].count(content.delimiter.encode()) + 1
            return TableError(f"{path}, line {line}, column {column}: not UTF-8 text", hint=_AGAIN)
    return TableError(f"{path} cannot be read as CSV: {error}", hint=_AGAIN)


def _refuse_line_breaks(table: TextTable) -> None:
    for name in table.names:
        column = table.column(name)
        words = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pc.any(pc.match_substring(words, "\n")).as_py():
            row = first_true(pc.match_substring(table.text(name), "\n"))
            raise table.error(row, name, "a quotation mark opens here and is not closed on its line")


def read_names(path: Path) -> tuple[pa.Array, Digest]:
    """The lines of a list without a header (split lists), blank ones left out, and the file's digest."""
    packed, data, *_ = _read(path)
    if _is_web_page(data):
        raise TableError(f"{path}, line 1: this is a web page, not a list", hint="sign in at the source, then fetch it")
    if not data.strip():
        raise TableError(f"{path} is empty", hint="fetch the list again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TableError(f"{path}, line {line}: not UTF-8 text", hint=_AGAIN) from error
    # A spreadsheet puts quotation marks around each line, or a comma behind it.
    lines = pc.utf8_trim(pa.array(text.splitlines(), pa.string()), characters=' \t",;\x00')
    return lines.filter(pc.not_equal(lines, "")), _digest(packed)
