"""Values of a declared table: which cells a block names, and what ``split``, ``use``, ``match``, ``map`` make of them.

See ``cxrprep.datasets.declaration`` for the form. A cell is text, a list (a value that XML or JSON has several of), or
null where nothing is stated.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import ConfigError, TableError, did_you_mean
from cxrprep.labels.columns import is_grouped
from cxrprep.labels.declared_columns import TableRead, has_columns, named_columns
from cxrprep.storage.value_codes import as_dictionary
from cxrprep.system import see_pandas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray


see_pandas()

# What spreadsheets and databases make of 1 and 0.
TRUTH: Final = {
    **dict.fromkeys(("TRUE", "True", "true", "1.0"), "1"),
    **dict.fromkeys(("FALSE", "False", "false", "0.0"), "0"),
}
_NUMBERS: Final = ("number", "dicom-age")
# What a cell of another form than it should have may raise, also one that is nested without end.
_NOT_READ: Final = (ValueError, KeyError, SyntaxError, RecursionError, TypeError, MemoryError, OverflowError)
# A pattern that takes a whole cell apart: one group, and a plain ending behind it.
_ALL_BUT_AN_ENDING: Final = re.compile(r"\^\((?!\?)(?:[^()\\]|\\[^Q])+\)(?P<ending>(?:\\\.|[\w-])+)\$")


class MissingColumnError(TableError):
    """Raise when a table lacks a column that a block of its dataset's file names.

    Do not raise for a cell, or for a column that may be absent.
    """

    column = ""
    place = ""
    """The block that names the column."""


@dataclass(frozen=True, slots=True)
class DeclaredValue:
    """A value of a declaration, as a block takes it from the rows of a table.

    ``frame`` are the rows, ``value`` is a column's name or a table of rules, ``place`` the block that wants it, and
    ``where`` the table, for errors. Methods raise ``ConfigError`` for a value that is none of the declared forms, and
    ``TableError`` for a column that is missing, or a cell that is not what the rules expect.
    """

    frame: pd.DataFrame
    value: Any
    place: str
    where: TableRead

    @property
    def column(self) -> str:
        """The first column that it is taken from; empty where there is none."""
        return next(named_columns(self.value), "")

    @property
    def _rules(self) -> Mapping[str, Any]:
        return {"column": self.value} if isinstance(self.value, str) else self.value

    def cells(self) -> pd.Series:
        """Text (or numbers, after ``use``), a cell for each row; null where nothing is stated."""
        return self._made(lambda cells: cells)

    def numbers(self, *, thousands: bool = False, most: float = (1 << 31) - 1) -> pd.Series:
        """The same as numbers; null where a cell is none, or larger than ``most``, which ``where.notes`` then says.

        With ``thousands`` commas stand between thousands, as in 3,056, and not for decimals.
        """
        strange: list[Any] = []

        def numbers(cells: pd.Series) -> pd.Series:
            if thousands:
                cells = texts((one.replace(",", "") if is_grouped(one) else one for one in cells), cells.index)
            made = pd.to_numeric(cells, errors="coerce").astype(float)
            made = made.where(made.abs() <= most)
            strange.extend(cells.index[made.isna() & cells.notna()])
            return made

        made = self._made(numbers)
        if strange:
            count = int((made.isna() & self.cells().notna()).sum())
            named = self.where.spelled.get(self.column, self.column)
            first = self.where.place_of(min(strange))
            self.where.notes.append(
                f"{self.place}: {count:,} cells are no number, read as blank; the first: {first}, column {named!r}"
            )
        return made

    def matched_text(self) -> pa.Array | None:
        """What its pattern, its only rule, finds in a whole column of ``where.plain``; ``None`` for any other value.

        A text for each row, null where the pattern does not match.
        """
        rules = self.value
        if not isinstance(rules, dict) or rules.keys() != {"column", "match"} or self.frame is not self.where.cells:
            return None
        plain = self.where.plain.get(rules["column"])
        return None if plain is None else _group(plain, rules["match"], self.place)

    def _made(self, last: Callable[[pd.Series], pd.Series]) -> pd.Series:
        if (found := self.matched_text()) is not None:
            return last(pd.Series(found.to_numpy(zero_copy_only=False), self.frame.index, dtype=object))
        if "column" in self._rules:
            cells = column_of(self.frame, self._rules["column"], self.place, self.where, whole=True)
            if isinstance(cells.dtype, pd.CategoricalDtype):
                return by_word(cells, lambda words: last(self._ruled(words)))
        return last(self._ruled(self._base()))

    def _base(self) -> pd.Series:
        """The cells before any rule."""
        frame, rules = self.frame, self._rules
        if "column" in rules:
            cells = column_of(frame, rules["column"], self.place, self.where)
            if are_texts(cells.to_numpy(object)):
                return cells
            lists = rules.get("use") in ("all", "python-list", "json-list")
            return cells.map(_texts_of if lists else _first, na_action="ignore")
        if "columns" in rules:
            columns = (column_of(frame, name, self.place, self.where) for name in rules["columns"])
            joined, *parts = (cells.map(_first, na_action="ignore") for cells in columns)
            for part in parts:
                joined = joined.str.cat(part, sep=rules.get("with", ""))
            return joined
        if "text" in rules:
            return pd.Series([rules["text"]] * len(frame), index=frame.index, dtype=object)
        if "first_of" in rules:
            told = [one for one in rules["first_of"] if has_columns(frame, one)] or rules["first_of"]
            first, *others = (DeclaredValue(frame, one, self.place, self.where).cells() for one in told)
            for other in others:
                first = first.where(first.notna(), other)
            return first
        what = f"{self.place}: a value names column, columns, text or first_of"
        raise ConfigError(what, hint="see docs/howto/own-dataset.md")

    def _ruled(self, series: pd.Series) -> pd.Series:
        """The cells after its rules."""
        rules = self._rules
        if "split" in rules:
            series = _each(series, lambda cell: cell.split(rules["split"]))
        if rules.get("use", "all") != "all":
            series = self._used(series, rules["use"])
        if rules.get("lower"):
            series = _each(series, str.lower)
        if "match" in rules:
            series = _matched(series, rules["match"], self.place)
        for words in rules.get("replace", ()):
            series = _each(series, methodcaller("replace", *words))  # old, new, and maybe how often
        if "map" in rules:
            series = self._mapped(series)
        for bound, test in (("min", pd.Series.lt), ("max", pd.Series.gt)):
            if bound in rules:
                series = series.mask(test(pd.to_numeric(series), rules[bound]))
        return series

    def _used(self, series: pd.Series, transform: str) -> pd.Series:
        name, _, detail = transform.partition(":")
        known: dict[str, Callable[[str], Any]] = {
            "number": float,
            "dicom-age": partial(_dicom_age, days=detail or "365.2425"),
            "python-list": _list_of(ast.literal_eval),
            "json-list": _list_of(json.loads),
            # A spreadsheet writes the number that a day is with .0 behind it.
            "date": lambda cell: pd.to_datetime(cell.removesuffix(".0"), format=detail),
        }
        if name not in known:
            what = f"{self.place}: there is no transform {transform!r}"
            raise ConfigError(what, hint=f"known: {', '.join(known)}, all")
        distinct: dict[str, Any] = {}
        for row, cell in series.dropna().sort_index().items():
            # JSON has lists themselves.
            if not isinstance(cell, list) and cell not in distinct:
                try:
                    distinct[cell] = known[name](cell)
                except _NOT_READ as error:
                    what = f"{self.place} expects {transform}, found {cell[:80]!r}"
                    raise self.where.error(row, self.column, what) from error
        made = texts((cell if isinstance(cell, list) else distinct.get(cell) for cell in series), series.index)
        return pd.to_datetime(made) if name == "date" else pd.to_numeric(made) if name in _NUMBERS else made

    def _mapped(self, series: pd.Series) -> pd.Series:
        words, otherwise = in_any_capitals(self._rules["map"], series), self._rules.get("else", "error")
        unknown = series[series.notna() & ~series.isin(list(words))].sort_index()
        if len(unknown) and otherwise == "error":
            hint = 'add the word to the map, or say else = "null" in the dataset\'s file'
            what = f"{self.place} does not know {unknown.iloc[0]!r}"
            raise self.where.error(unknown.index[0], self.column, what, hint)
        return texts((words.get(cell, cell if otherwise == "keep" else None) for cell in series), series.index)


def categories_of(column: pa.Array) -> pd.Categorical:
    """A column of text as codes and words: rules are asked of each word once, and not of each row."""
    encoded = as_dictionary(column)
    words = pd.Index(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    return pd.Categorical.from_codes(encoded.indices.fill_null(-1).to_numpy(), words)


def texts(cells: Iterable[Any], index: pd.Index) -> pd.Series:
    """Cells as Python's own objects. pandas would make text of them that is slow to walk through."""
    made = np.empty(len(index), object)
    for place, cell in enumerate(cells):
        made[place] = cell
    return pd.Series(made, index=index, dtype=object)


def looked_up(series: pd.Series, words: Mapping[Any, Any]) -> pd.Series:
    """What ``words`` says of each cell; null for what it does not know."""
    codes, distinct = pd.factorize(series)
    return by_code(codes, [words.get(word) for word in distinct], series.index)


def by_code(codes: NDArray[np.int64], values: Sequence[Any], index: pd.Index) -> pd.Series:
    """The value of each row's code; null for -1."""
    return pd.Series(np.array([*values, None], object)[codes], index=index, dtype=object)


def by_word(cells: pd.Series, change: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """What a column becomes where equal cells become equal values.

    Args:
        cells: A column; of one that has words and codes, as CSV has, each word is asked once.
        change: Gets the words, each under the first row that has it, or all the cells.

    Returns:
        A value for each row.
    """
    if not isinstance(cells.dtype, pd.CategoricalDtype):
        return change(cells)
    codes = cells.cat.codes.to_numpy()
    first_row = np.full(len(cells.cat.categories) + 1, -1, np.int64)
    # Of several the last one written stays, so they are written from behind; the last place is of blank cells.
    first_row[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    used = np.flatnonzero(first_row[:-1] >= 0)
    first = first_row[used]
    made = change(pd.Series(cells.cat.categories.to_numpy()[used], index=cells.index[first], dtype=object))
    place = np.full(len(cells.cat.categories) + 1, -1, np.int64)
    place[used] = np.arange(len(used))
    rows = place[codes]
    if made.dtype.kind in "fM":
        return pd.Series(made.array.take(rows, allow_fill=True), index=cells.index)
    held = np.full(len(made) + 1, None, object)
    held[:-1] = made.to_numpy(object)
    return pd.Series(held[rows], index=cells.index, dtype=object)


def column_of(frame: pd.DataFrame, name: str, place: str, where: TableRead, *, whole: bool = False) -> pd.Series:
    """A column by its name.

    Args:
        frame: the rows of a table.
        name: the column.
        place: the block that wants it, for errors.
        where: the table, for errors.
        whole: leave a column of words and codes as it is.

    Returns:
        Its cells.

    Raises:
        TableError: the table does not have it.
    """
    if name not in frame.columns:
        shown = ", ".join(map(str, frame.columns[:8]))
        error = MissingColumnError(
            f"{where.path}: column {name!r} is missing, which {place} names; it has {shown}",
            hint=did_you_mean(name, map(str, frame.columns))
            + "is this the right table? Correct the dataset's file if its columns are called otherwise",
        )
        error.column, error.place = name, place
        raise error
    return frame[name] if whole else by_word(frame[name], lambda words: words)


def _first(cell: Any) -> Any:
    made = _texts_of(cell)
    return (made[0] if made else None) if isinstance(made, list) else made


def _texts_of(cell: Any) -> Any:
    """A cell of JSON as text, or as a list of texts; numbers, lists and objects inside as JSON writes them."""
    if isinstance(cell, list):
        return [one if one is None or isinstance(one, str) else json.dumps(one) for one in cell]
    return json.dumps(cell) if isinstance(cell, dict) else cell


def _each(series: pd.Series, change: Callable[[str], Any]) -> pd.Series:
    """``change`` for each cell, or for each name in a cell's list."""
    return texts((_changed(cell, change) for cell in series), series.index)


def _changed(cell: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(cell, list):
        return [change(one) for one in cell]
    return change(cell) if isinstance(cell, str) else None if pd.isna(cell) else change(cell)


def _matched(series: pd.Series, pattern: str, place: str) -> pd.Series:
    """The one group of a pattern (RE2), of each cell or of each name in a cell's list; null where it does not match."""
    cells = series.to_numpy(object)
    lists = not are_texts(cells) and any(isinstance(cell, list) for cell in cells)
    names = {one: None for cell in series.dropna() for one in _names_in(cell)} if lists else cells
    distinct = pa.array(names, pa.string(), from_pandas=True)
    found = _group(distinct, pattern, place).to_numpy(zero_copy_only=False)
    if not lists:
        return pd.Series(found, index=series.index, dtype=object)
    return _each(series, dict(zip(distinct.to_pylist(), found, strict=True)).__getitem__)


def _group(cells: pa.Array, pattern: str, place: str) -> pa.Array:
    """What the one group of a pattern finds in each cell.

    measured: 0.033 -> 0.008 s of CPU for the 112,120 names of NIH's images, where all but an ending is asked for.
    """
    whole = _ALL_BUT_AN_ENDING.fullmatch(pattern)
    try:
        if whole is None:
            return pc.struct_field(pc.extract_regex(cells, _named(pattern)), 0)
        matches = pc.match_substring_regex(cells, pattern)
    except (pa.ArrowInvalid, IndexError) as error:
        raise ConfigError(
            f"{place}: match = {pattern!r} is not a regular expression with one group: {error}",
            hint="correct it in the dataset's file; it is RE2, without look-around and references back",
        ) from error
    found = pc.utf8_slice_codeunits(cells, 0, -len(whole["ending"].replace("\\", "")))
    return found if pc.all(matches, skip_nulls=False).as_py() else pc.if_else(matches, found, None)


def are_texts(cells: NDArray[Any]) -> bool:
    """Whether all cells are text or blank. pandas looks at 100,000 in a millisecond."""
    return pd.api.types.infer_dtype(cells, skipna=True) in ("string", "empty")


def _named(pattern: str) -> str:
    """The pattern with a name for its one capturing group, as Arrow wants it."""
    if "(?P<" in pattern:
        return pattern
    place = 0
    while (place := pattern.find("(", place)) >= 0:
        if pattern[place + 1 : place + 2] != "?" and pattern[place - 1 : place] != "\\":
            return f"{pattern[:place]}(?P<it>{pattern[place + 1 :]}"
        place += 1
    raise IndexError("it has no group")


def _names_in(cell: Any) -> Iterable[str]:
    return (one for one in cell if one is not None) if isinstance(cell, list) else (cell,)


def _dicom_age(cell: str, days: str) -> float:
    """Years; a number without a unit is of years. One below zero is for whoever asks what can be believed."""
    number = cell.removesuffix(".0")
    if number.removeprefix("-").isdecimal():
        return float(number)
    return int(cell[:-1]) / {"Y": 1.0, "M": 12.0, "W": float(days) / 7, "D": float(days)}[cell[-1].upper()]


def _list_of(parse: Callable[[str], Any]) -> Callable[[str], list[str]]:
    def read_list(cell: str) -> list[str]:
        found = parse(cell)
        if not isinstance(found, list):
            raise TypeError(cell)
        return [str(one).strip() for one in found]

    return read_list


def in_any_capitals(words: Mapping[str, Any], cells: pd.Series) -> Mapping[str, Any]:
    """A map that also knows the cells that differ from one of its words in capitals alone."""
    strange = [cell for cell in cells.dropna().unique() if isinstance(cell, str) and cell not in words]
    if not strange:
        return words
    plain: dict[str, list[str]] = {}
    for word in words:
        plain.setdefault(word.casefold(), []).append(word)
    meant = {cell: one[0] for cell in strange if len(one := plain.get(cell.casefold(), [])) == 1}
    return {**words, **{cell: words[word] for cell, word in meant.items()}}
