"""CSV tables read as text, column by column, with errors that name file, line and column.

Nothing is interpreted here: a blank cell is null, every other cell the text that stands there. Names bind columns,
never positions; what a release does wrong in its header a ``header`` function of the dataset's own module puts right.

People save tables again, with pandas, Excel or a browser: what such a program does to a table (another delimiter, a
``sep=`` line, ``nan`` for blank, gzip or zip by content whatever the name, one more column) is read where the meaning
is plain, and said in ``notes``.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import deque
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from cxrprep.digests import digest_of
from cxrprep.errors import TableError, did_you_mean
from cxrprep.humanize import format_count
from cxrprep.labels.csv_text import AGAIN, AS_IT_STANDS, CsvContent, Written, read_content, records_of
from cxrprep.labels.text_table import TextTable, first_true, of_words, with_words, words_of
from cxrprep.schemas import TEXT
from cxrprep.storage.value_codes import flat
from cxrprep.system import available_cores
from cxrprep.vocabulary import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cxrprep.model import Digest


# What stays in a processor's cache while its columns are taken apart; a cell with line breaks may be of any length.
_BLOCK: Final = 2 << 20
_AROUND_NAMES: Final = ' \t",;\x00'
# What pandas, Excel, R, SPSS, SAS and databases write where a cell is blank; no published table has these words.
_MISSING: Final = (
    "", "nan", "NaN", "NaT", "<NA>", "NULL", "null", "None", "NA", "N/A", "#N/A", "n/a", "#NULL!", ".", r"\N", "(null)",
    "[NULL]", "<null>",
)  # fmt: skip
# What no table begins with: what it is, and what helps. A zero or another sign of no text may stand in a cell alone.
_NO_TABLE: Final = (
    (rb"\s*<", "a web page, or other XML", "sign in at the source, then fetch it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS, in place of the file", "git lfs pull, then run again"),
    (rb"/annex/objects/", "a pointer of git-annex, in place of the file", "git annex get, then run again"),
    (rb"\xd0\xcf\x11\xe0", "a workbook of Excel 97", "save it as CSV or .xlsx, then run again"),
    (rb"[^\n]*[\0-\x08\x0e-\x1f]", "no text", "save it as CSV, then run again"),
)
_NUMBERED: Final = r"^\d+,"
_DECIMAL_COMMA: Final = r"^(-?\d+),(\d+)$"
# With which separators a spreadsheet writes decimal commas, and what shows that they are none between thousands.
_WITH_DECIMAL_COMMAS: Final = {";": _DECIMAL_COMMA, "\t": r"^-?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))$"}
_MORE_DECIMALS: Final = r"^(-?\d+\.0)0+$"
# After an error some of Arrow's threads are still at the blocks that follow. A buffer of Python's needs the interpreter
# when it is let go, and a thread that asks for it while the program ends takes the program down: it is held here. That
# it is no copy of Arrow's own saves 0.085 s of CPU time for the four tables of MIMIC-CXR-JPG (measured).
_HELD: Final[deque[pa.Buffer]] = deque(maxlen=2)


@dataclass(frozen=True, slots=True)
class Form:
    """What a table must look like.

    ``required`` columns must be there, ``optional`` ones may; any other is kept as text and said, unless it looks like
    a misspelt one; ``open`` keeps any without a word. ``plain`` columns hold mostly different values. ``drop`` columns
    are recognised and not read. ``header`` turns the header's fields, as a CSV reader sees them, into column names.
    ``multiline`` cells may hold line breaks. ``written`` says what the file does not tell itself.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    header: Callable[[list[str]], list[str]] | None = None
    multiline: bool = False
    open: bool = False
    written: Written = AS_IT_STANDS


def _refuse_no_text(data: bytes, path: Path) -> None:
    """Raise ``TableError`` for what is neither a table nor a list, by what it is."""
    for begin, what, hint in _NO_TABLE:
        if re.match(begin, data[: 1 << 12].removeprefix(b"\xef\xbb\xbf")):
            raise TableError(f"{path}, line 1: this is {what}", hint=hint)


def _head(content: CsvContent, path: Path) -> tuple[list[str], list[str]]:
    """The fields of the header and of the first data row."""
    _refuse_no_text(content.data, path)
    again = "fetch the table again"
    records = iter(records_of(content._replace(data=content.data[: 1 << 20])))
    try:
        header = next(records, (0, []))[1]
        first = next(records, (0, []))[1]
    except csv.Error as error:
        raise TableError(f"{path}, line 1: {error}", hint=again) from error
    if not any(map(str.strip, header)):
        raise TableError(f"{path} is empty, or its header is", hint=again)
    if not first:
        raise TableError(f"{path} has a header and no rows", hint=again)
    return header, first


def _names(header: list[str], first: list[str], form: Form, path: Path) -> list[str]:
    names = [name.strip() for name in header]
    if form.header is not None:
        names = form.header(names)
    names = _spelled_as_released(names, form)
    if len(first) == len(names) + 1 and first[0] == "1" and first[-1]:
        names.insert(0, "")  # R's write.table numbers the rows, and gives the numbers no name
    while len(names) > len(first) and not names[-1]:
        names.pop()  # the header ends in a comma that the rows do not have
    missing = [name for name in form.required if name not in names]
    if missing:
        shown = ", ".join(header[:6]) + (", ..." if len(header) > 6 else "")
        raise TableError(
            f"{path}, line 1: column {missing[0]!r} is missing; the header begins with {shown[:200]}",
            hint=f"is this the right table, of the right release? It needs: {', '.join(form.required)}",
        )
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise TableError(f"{path}, line 1: column {twice[0]!r} appears twice", hint=AGAIN)
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
    """The names with the release's signs: databases write ``pleural_effusion``, R ``Pleural.Effusion``."""
    known = (*form.required, *form.optional, *form.drop)
    plain = {slug(name).replace("_", ""): name for name in known}
    spelled = [name if name in known else plain.get(slug(name).replace("_", ""), name) for name in names]
    return spelled if len(set(spelled)) == len(set(names)) else names


def _extra(names: Sequence[str], form: Form) -> tuple[str, ...]:
    known = {*form.required, *form.optional, *form.drop, ""}
    return tuple(name for name in names if name not in known and not name.startswith("Unnamed: "))


def read_table(path: Path, form: Form) -> TextTable:
    """The table in ``path``. gzip is unpacked; BOM, CRLF, mixed line ends and a missing last one are understood.

    Raises ``TableError``, with file, line and column, for a file that cannot be read, is no CSV, has rows of another
    width, lacks a column or has one that is spelled nearly as one of the release.
    """
    content = read_content(path, form.written)
    packed, data = content.packed, content.data
    if (line := _cut_cell(content)) is not None:
        where = f"{path}: the quotation mark that opens a cell in line {line} is never closed"
        raise TableError(where, hint="the file is cut short: fetch it again, or correct that line by hand")
    header, first = _head(content, path)
    names = _names(header, first, form, path)
    # The index column of a table that pandas saved has no name, or one that says so; it says nothing of the data.
    read = [name for name in names if name and not name.startswith("Unnamed: ") and name not in form.drop]
    # Without a quotation mark no cell has a line break, and several cores read at once.
    # No column of a release has line breaks, but one that somebody added may.
    multiline = (form.multiline or bool(_extra(names, form))) and b'"' in data
    try:
        table = _parsed(content, names, read, form, multiline=multiline)
    except pa.ArrowInvalid as error:
        content = _with_even_rows(content, len(names))
        if content.data is data:
            raise _explain(path, content, len(names), error) from error
        table = _parsed(content, names, read, form, multiline=multiline)
    table = table.unify_dictionaries().combine_chunks()
    table, trimmed = _trimmed(table, first)
    if content.delimiter in _WITH_DECIMAL_COMMAS:
        table, decimals = _with_points(table, _WITH_DECIMAL_COMMAS[content.delimiter])
        trimmed += decimals
    table, shorter = _with_one_decimal(table)
    trimmed += shorter
    table, blank = _blanked(table)
    table, kept, odd = _without_odd_rows(table, dict(zip(names, header, strict=False)), path)
    extra = () if form.open else tuple(name for name in _extra(names, form) if name in read)
    notes = [*content.notes, *trimmed, *blank, *odd]
    stated = [name.strip() for name in header]
    if not set(names) <= set(stated if form.header is None else form.header(stated)):
        notes.append("its header has other capitals or blanks than the release's")
    if extra:
        notes.append(f"columns that the release does not have, kept as text: {', '.join(extra)[:200]}")
    found = TextTable(path, digest_of(packed), table, tuple(read), kept, extra, tuple(notes), written=form.written)
    if b'"' in data and not form.multiline:
        _refuse_line_breaks(found, _extra(names, form))
    return found


def _cut_cell(content: CsvContent) -> int | None:
    """The line of the last record where the text ends within quotation marks: what follows is then a part of it."""
    if content.data.count(b'"') % 2 == 0:
        return None
    *_, (line, last) = records_of(content._replace(data=content.data + b"\nX"))
    return None if last == ["X"] else line


def _parsed(content: CsvContent, names: Sequence[str], read: Sequence[str], form: Form, *, multiline: bool) -> pa.Table:
    """The cells of the columns ``read``, as text. Raises ``ArrowInvalid``."""
    data = content.data
    plain = frozenset(form.plain)
    # A name may be broken into lines, as a narrow column of a spreadsheet shows it.
    header, first = (line for line, _ in itertools.islice(records_of(content._replace(data=data[: 1 << 20])), 2))
    buffer = pa.py_buffer(data)
    try:
        return pacsv.read_csv(
            pa.BufferReader(buffer),
            read_options=pacsv.ReadOptions(
                block_size=len(data) + 1 if multiline else min(len(data) + 1, _BLOCK),
                column_names=[name or f"Unnamed: {index}" for index, name in enumerate(names)],
                skip_rows=first - header,
                # measured: with one core Arrow's threads cost 0.05 s of CPU for the four tables of MIMIC-CXR-JPG.
                use_threads=available_cores() > 1,
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=content.delimiter, quote_char='"' if b'"' in data else False, newlines_in_values=multiline
            ),
            convert_options=pacsv.ConvertOptions(
                check_utf8=not data.isascii(),
                include_columns=read,
                column_types={name: pa.string() if name in plain else TEXT for name in read},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except BaseException:
        _HELD.append(buffer)
        raise


def _with_even_rows(content: CsvContent, width: int) -> CsvContent:
    """The contents with rows of ``width`` cells, where only lines of blanks and blank cells behind rows are more.

    The same contents where anything else is.
    """
    rows = []
    try:
        content.data.decode()
        for _, fields in records_of(content):
            if len(fields) < width or any(map(str.strip, fields[width:])):
                return content
            rows.append(fields[:width])
    except (csv.Error, UnicodeDecodeError):
        return content
    text = io.StringIO()
    csv.writer(text, delimiter=content.delimiter, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    note = "a separator stands behind each row, or lines hold nothing but blanks"
    return content._replace(data=data, notes=(*content.notes, note))


def _trimmed(table: pa.Table, first: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The table without the blank behind or before each separator, where the first row has one there."""
    cells = [cell for cell in first[1:] if cell]
    where = next((w for w in ("startswith", "endswith") if all(getattr(cell, w)(" ") for cell in cells)), "")
    if not cells or not where:
        return table, []
    for name in table.column_names:
        table = with_words(table, name, pc.utf8_trim_whitespace)
    return table, [f"a blank stands {'behind' if where == 'startswith' else 'before'} each separator"]


def _with_points(table: pa.Table, decimal: str) -> tuple[pa.Table, list[str]]:
    """The table with points for the decimal commas of a spreadsheet in most of Europe, which ``decimal`` tells."""

    def has_commas(words: pa.Array) -> bool:
        return pc.any(pc.match_substring_regex(words, decimal)).as_py()  # type: ignore[no-any-return]  # Arrow's

    table, names = _respelled(table, has_commas, _DECIMAL_COMMA, r"\1.\2")
    return table, [f"decimal commas are read as points: {', '.join(names)[:200]}"] if names else []


def _respelled(
    table: pa.Table, are_meant: Callable[[pa.Array], bool], form: str, better: str
) -> tuple[pa.Table, list[str]]:
    """The table with ``better`` for what has ``form``, and the columns of whose words that is so."""
    names = [name for name in table.column_names if are_meant(words_of(table.column(name)))]
    for name in names:
        table = with_words(table, name, lambda words: pc.replace_substring_regex(words, form, better))
    return table, names


def _blanked(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The table with nulls for blanks and words such as ``nan``, and a note for each word."""
    found: dict[str, list[str]] = {}
    absent_words = pa.array(_MISSING)
    for place, name in enumerate(table.column_names):
        column = flat(table.column(name))
        if not pa.types.is_dictionary(column.type):
            continue
        blank = pc.is_in(pc.utf8_trim_whitespace(column.dictionary), value_set=absent_words)
        for word in column.dictionary.filter(blank).to_pylist():
            found.setdefault(word, []).append(name)
        if pc.any(blank).as_py():
            cells = pc.if_else(blank.take(column.indices), pa.scalar(None, column.type), column)
            table = table.set_column(place, name, cells)
    return table, [f"{word!r} is read as blank in {', '.join(names)}"[:300] for word, names in found.items()]


def _with_one_decimal(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The table with 1.0 for 1.00, in columns of which every number is whole and has more decimals than one."""

    def have_more(words: pa.Array) -> bool:
        first = next((word for word in words[:2].to_pylist() if word), "")
        return bool(re.match(_MORE_DECIMALS, first)) and pc.all(pc.match_substring_regex(words, _MORE_DECIMALS)).as_py()

    table, names = _respelled(table, have_more, _MORE_DECIMALS, r"\1")
    return table, [f"whole numbers with more than one decimal: {', '.join(names)[:200]}"] if names else []


def _without_odd_rows(
    table: pa.Table, header: Mapping[str, str], path: Path
) -> tuple[pa.Table, pa.Array | None, list[str]]:
    """The table without rows of blank cells, as a spreadsheet leaves them, and without its header in the middle.

    Beside it the places of its rows, where rows before the last went, and what was left out. ``header`` has the field
    of each column. Raises ``TableError`` where no other row is there.
    """
    odd, notes = None, []
    if all(column.null_count for column in table.columns):
        odd = reduce(pc.and_, (pc.is_null(column) for column in table.columns))
        if blank := int(pc.sum(odd).as_py() or 0):
            notes.append(f"{format_count(blank, 'row')} of blank cells left out")
    first = next((name for name in table.column_names if header.get(name)), "")
    # Two files that were put together have two headers.
    if first and pc.any(_is_field(table.column(first), header[first])).as_py():
        again = reduce(pc.and_, (_is_field(table.column(n), header[n]) for n in table.column_names if header.get(n)))
        if count := int(pc.sum(again).as_py() or 0):
            notes.append(f"its header stands in {count:,} more lines: left out")
            odd = again if odd is None else pc.or_(odd, again)
    if not notes:
        return table, None, []
    kept = pc.indices_nonzero(pc.invert(odd))
    if not len(kept):
        raise TableError(f"{path} has a header and rows of blank cells alone", hint=AGAIN)
    return table.take(kept).unify_dictionaries().combine_chunks(), kept, notes


def _is_field(column: pa.ChunkedArray, field: str) -> pa.Array:
    """Where a column has a field of the header."""
    found = pc.is_in(words_of(column), value_set=pa.array([field, field.strip()]))
    return pc.fill_null(of_words(column, found), fill_value=False)


def _explain(path: Path, content: CsvContent, width: int, error: Exception) -> TableError:
    """The exact place of what the fast reader refused."""
    try:
        for line, fields in records_of(content):
            if line > 1 + content.lines_before and len(fields) != width:
                return TableError(
                    f"{path}, line {line}, column {min(len(fields), width) + 1}: "
                    f"the line has {len(fields)} fields where the header has {width}",
                    hint="the file may be cut short: fetch it again",
                )
    except csv.Error as problem:
        return TableError(f"{path}: {problem}", hint=AGAIN)
    for line, raw in enumerate(content.data.splitlines(), 1 + content.lines_before):
        try:
            raw.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            column = raw[: problem.start].count(content.delimiter.encode()) + 1
            hint = "fetch it again, or save it as UTF-8 (Excel: CSV UTF-8; or iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"
            return TableError(f"{path}, line {line}, column {column}: not UTF-8 text", hint=hint)
    return TableError(f"{path} cannot be read as CSV: {error}", hint=AGAIN)


def _refuse_line_breaks(table: TextTable, but: Sequence[str]) -> None:
    for name in (name for name in table.names if name not in but):
        if pc.any(pc.match_substring(words_of(table.column(name)), "\n")).as_py():
            row = first_true(pc.match_substring(table.text(name), "\n"))
            raise table.error(row, name, "a quotation mark opens here and is not closed on its line")


def read_names(path: Path) -> tuple[pa.Array, Digest]:
    """The lines of a list without a header (split lists), blank ones left out, and the file's digest."""
    packed, data, *_ = read_content(path)
    _refuse_no_text(data, path)
    if not data.strip():
        raise TableError(f"{path} is empty", hint="fetch the list again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TableError(f"{path}, line {line}: not UTF-8 text", hint=AGAIN) from error
    # A spreadsheet puts quotation marks around each line, or a comma behind it.
    lines = pc.utf8_trim(pa.array(text.splitlines(), pa.string()), characters=_AROUND_NAMES)
    if pc.all(pc.match_substring_regex(lines[1:], _NUMBERED)).as_py() and len(lines) > 1:
        lines = pc.replace_substring_regex(lines, _NUMBERED, "")  # as pandas writes a list
    return lines.filter(pc.not_equal(lines, "")), digest_of(packed)


def line_of_name(path: Path, row: int) -> int:
    """The line of a list's name, the first of which is row 0."""
    lines = read_content(path).data.decode("utf-8-sig").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.strip(_AROUND_NAMES)][row]
