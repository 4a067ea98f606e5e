"""Table of text cells, whose errors name file, line and column: translation, uniqueness and form of its columns."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.labels.csv_text import AGAIN, AS_IT_STANDS, Written, line_of, read_content
from cxrprep.labels.joins import all_distinct, are_eight_digits
from cxrprep.storage.value_codes import as_dictionary, flat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cxrprep.model import Digest

# Blanks of all kinds, zero bytes, byte order marks, and marks for the direction of writing.
_UNSEEN: Final = (
    "\0\t\n\r\v\f \x85\xa0\u2000\u2001\u2002\u2003\u2007\u2009\u200a\u202f\u3000\u200b\u200c\u200d\u200e\u200f\ufeff"
)
_EIGHT_DIGITS: Final = re.compile(r"\^(\d)\\d\{7\}\$")


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
    matched: frozenset[tuple[str, str]] = frozenset()
    """Columns of which every cell is known to match a pattern."""
    written: Written = AS_IT_STANDS

    @property
    def rows(self) -> int:
        """The number of data rows."""
        return int(self.columns.num_rows)

    def __contains__(self, name: object) -> bool:
        """Whether the table has a column of that name."""
        return name in self.columns.column_names

    def column(self, name: str) -> pa.Array:
        """One column as a single array."""
        return flat(self.columns.column(name))

    def text(self, name: str) -> pa.Array:
        """One column as plain strings."""
        return self.column(name).cast(pa.string())

    def ordered(self, order: pa.Array) -> TextTable:
        """The same rows in another order; errors still name the lines of the file."""
        columns = self.columns.take(order).combine_chunks()
        return replace(self, columns=columns, origin=order if self.origin is None else self.origin.take(order))

    def trimmed(self, name: str, pattern: str, ending: str = "") -> TextTable:
        """The table with only the first group of ``pattern`` (RE2) left of each cell of a column, and ``ending``.

        For ids with a letter before or ``.0`` behind them. A cell that does not match stays as it is, for
        ``require_match`` to refuse; what changed is said in ``notes``.
        """
        # measured: 377,110 ids are looked at in 0.03 s, and taken apart in 0.4 s
        plain = plain_form(pattern, ending)
        if (name, plain) in self.matched:
            return self
        column = self.text(name)
        if are_plain(column, plain):
            return replace(self, matched=self.matched | {(name, plain)})
        cleaned = pc.replace_substring_regex(column, pattern, "\\1" + ending.replace("\\", r"\\"))
        changed = int(pc.sum(pc.not_equal(cleaned, column)).as_py() or 0)
        if not changed:
            return self
        row = first_true(pc.not_equal(cleaned, column))
        note = f"column {name!r}: {changed:,} ids are read as {cleaned[row]} is for {column[row]}"
        place = self.columns.column_names.index(name)
        return replace(self, columns=self.columns.set_column(place, name, cleaned), notes=(*self.notes, note))

    def without_edges(self, name: str) -> TextTable:
        """The table without blanks, zero bytes and marks that nobody sees around the cells of a column."""
        before = words_of(self.columns.column(name))

        def trimmed(words: pa.Array) -> pa.Array:
            found = pc.utf8_trim(words, characters=_UNSEEN)
            # A spreadsheet puts an apostrophe before a number that is to stay text.
            if len(found) and pc.all(pc.starts_with(found, "'")).as_py():
                found = pc.utf8_slice_codeunits(found, 1)
            return found

        columns = with_words(self.columns, name, trimmed)
        if columns is self.columns:
            return self
        example = before[first_true(pc.not_equal(trimmed(before), before))].as_py()
        note = f"column {name!r}: blanks and invisible characters around cells are left out, as in {example!r}"
        return replace(self, columns=columns, notes=(*self.notes, note))

    def known_from(self, other: TextTable | None) -> TextTable:
        """The table with what is known of the columns that are the same in another one.

        measured: 0.001 s for 377,110 image ids, which a pattern is held against in 0.05 s.
        """
        if other is None:
            return self
        names = {name for name, _ in other.matched if name in self and self.text(name).equals(other.text(name))}
        known = {(name, pattern) for name, pattern in other.matched if name in names}
        return replace(self, matched=self.matched | known)

    def with_slashes(self, name: str) -> TextTable:
        """The table with ``/`` for each backslash in a plain column: paths that were written on Windows."""
        return replace(
            self, columns=with_words(self.columns, name, lambda words: pc.replace_substring(words, "\\", "/"))
        )

    def _place(self, row: int) -> int:
        return row if self.origin is None else int(self.origin[row].as_py())

    def error(self, row: int, column: str, what: str, hint: str = AGAIN) -> TableError:
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
        line = line_of(read_content(self.path, self.written), self._place(row))
        return TableError(f"{self.path}, line {line}, column {column!r}: {what} ({shown})", hint=hint)

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
        column = as_dictionary(self.columns.column(name))
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
            return pa.array(found, kind).take(column.indices)
        except (OverflowError, pa.ArrowInvalid):
            code = max(range(len(found)), key=lambda at: abs(found[at] or 0))
            row = pc.index(column.indices, pa.scalar(code, column.indices.type)).as_py()
            raise self.error(row, name, f"{what}, smaller than this number") from None

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

    def require_match(self, name: str, pattern: str, what: str, *, blank: bool = False) -> None:
        """Refuse a column with a word of another form; each word is looked at once.

        Args:
            name: The column.
            pattern: A regular expression (RE2).
            what: What was expected, for the error.
            blank: Whether cells may be blank.

        Raises:
            TableError: At the first cell that ``pattern`` does not match.
        """
        if (name, pattern) in self.matched:
            return
        if not blank:
            self.require(name)
        strange = pc.invert(pc.match_substring_regex(words_of(self.columns.column(name)), pattern))
        if pc.any(strange).as_py():
            row = first_true(of_words(self.column(name), strange))
            if row >= 0:
                raise self.error(row, name, what)

    def require_unique(self, name: str) -> None:
        """Raise ``TableError`` when a key stands in two rows; the message names both lines."""
        column = self.text(name)
        if all_distinct(column):
            return
        seen: dict[str, int] = {}
        data = read_content(self.path, self.written)
        for row, key in enumerate(column.to_pylist()):
            if key in seen:
                raise TableError(
                    f"{self.path}, line {line_of(data, self._place(row))}, column {name!r}: {key!r} stands in line "
                    f"{line_of(data, self._place(seen[key]))} already",
                    hint="a key must be unique: remove one of the rows, or fetch the table again",
                )
            seen[key] = row


def words_of(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The cells of a column, each word of a dictionary once."""
    whole = flat(column)
    return whole.dictionary if pa.types.is_dictionary(whole.type) else whole


def of_words(column: pa.Array | pa.ChunkedArray, values: pa.Array) -> pa.Array:
    """For each cell what ``values`` says of ``words_of`` its column."""
    whole = flat(column)
    return values.take(whole.indices) if pa.types.is_dictionary(whole.type) else values


def with_words(table: pa.Table, name: str, respelled: Callable[[pa.Array], pa.Array]) -> pa.Table:
    """The table with other words in a column, null for empty ones; itself where they are the same."""
    column = table.column(name)
    words = words_of(column)
    changed = respelled(words)
    if changed.equals(words):
        return table
    cells = of_words(column, pc.if_else(pc.equal(changed, ""), None, changed))
    cells = cells.dictionary_encode() if pa.types.is_dictionary(column.type) else cells
    return table.set_column(table.column_names.index(name), name, cells)


def are_plain(cells: pa.Array, form: str) -> bool:
    """Whether no cell is blank and each is of a form, so that there is nothing to trim."""
    eight = _EIGHT_DIGITS.fullmatch(form)
    if eight and are_eight_digits(cells, eight[1]):
        return True
    return not cells.null_count and bool(pc.all(pc.match_substring_regex(cells, form)).as_py())


def plain_form(pattern: str, ending: str = "") -> str:
    """The pattern of what a trimming pattern leaves: its one capturing group alone, and ``ending``."""
    found = re.search(r"(?<!\\)\((?!\?)", pattern)
    begin = end = found.end() if found else 0
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(pattern[end], 0) if pattern[end - 1] != "\\" else 0
        end += 1
    return f"^{pattern[begin : end - 1]}{re.escape(ending)}$"


def first_true(mask: Any) -> int:
    """The first row where ``mask`` is true, or -1."""
    return int(pc.index(mask, pa.scalar(True)).as_py())
