"""Label tables of any labeler, by the names of their columns: CSV, Parquet, cxrprep's own, NIH's list."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import TableError, UsageError
from cxrprep.labels.csv_text import read_content, records_of
from cxrprep.vocabulary import CHEXPERT, NIH, column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    _Rows = Iterator[tuple[int, list[Any]]]
    """Each row with its line in the file; of Parquet its number, the header counted."""

IMAGE_KEYS: Final = ("dicom_id", "image_id", "image index", "path", "filename", "fpath", "path_to_image")
"""Columns that name an image."""
_KEYS: Final = (
    "report_id",
    "study_id",
    "study",
    "uid",
    "id",
    *IMAGE_KEYS,
    "subject_id",
    "patient_id",
    "reports",
    "report impression",
)
# Columns of our own tables that look like an observation and are none.
_NO_OBSERVATIONS: Final = frozenset(("label_source", "labels_raw"))
_LIST: Final = "Finding Labels"
_REPORT_FILE: Final = re.compile(r"(?:.*/)?s(\d{8})(?:\.txt)?")
_CELLS: Final[Mapping[str, int | None]] = {
    "": None, "_": None,
    "nan": None, "none": None, "null": None, "1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1,
    "true": 1, "false": 0, "positive": 1, "negative": 0, "uncertain": -1, "not mentioned": None,
}  # fmt: skip
_NUMBER: Final = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[-+]?\d+)?%?")
# What CheXbert's program writes: the number of the class, and a text in each row.
_CHEXBERT_TEXT: Final = "report impression"
_CHEXBERT_CLASSES: Final[Mapping[str, str]] = {"0": "", "1": "1", "2": "0", "3": "-1"}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels by row: ``columns`` maps published names to a value per row, ``ids`` the id columns to a key per row.

    Keys are text; a study is the same study as ``files/p10/p10000032/s50414267.txt``, ``50414267`` and ``50414267.0``.
    ``extra`` holds further columns that nothing but labels stand in, by their own names; ``left_out`` are the others,
    with the line of the first cell that is no label.
    """

    path: Path
    ids: dict[str, tuple[str, ...]]
    columns: dict[str, tuple[int | None, ...]]
    extra: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))


def read_label_table(path: Path, *, key: str | None = None, source: str | None = None) -> LabelTable:
    """The labels of ``path``: Parquet, JSON, CSV (also gzipped) of chexpert-labeler, CheXbert, NegBio and others.

    Columns are known by their names in any order and spelling ("Airspace Opacity", ``label_pleural_effusion``); NIH's
    "Finding Labels" is a list of what is there, so that what it does not name is 0.

    Args:
        path: the table.
        key: the id column; without it all that are known by their names are taken, and there may be none.
        source: the label source whose rows are read, of a table with a column ``label_source``.

    Raises:
        TableError: the table cannot be read, or a cell is no label.
        UsageError: there is no such column or label source, or the table has several and none is named.
    """
    header, rows = _csv(path)
    rows = _of_chexbert(header, rows)
    rows = _of_source(path, header, rows, source)
    header, rows = _without_repeated_columns(path, header, rows)
    if _LIST in header:
        header, rows = _listed(path, header, rows)
    places = {name: place for place, name in enumerate(header)}
    chosen = _observations(path, header)
    keyed = _key_columns(path, header, key)
    keys: dict[str, list[str]] = {name: [] for name in keyed}
    columns: dict[str, list[int | None]] = {name: [] for name in chosen}
    taken = {*(places[name] for name in keyed), *chosen.values()}
    further = {name: _Further() for name in header if name and places[name] not in taken}
    for number, row in rows:
        for name in keyed:
            keys[name].append(_plain_key(row[places[name]]))
        for name, place in chosen.items():
            columns[name].append(_value(row[place], path, number, name))
        for name, column in further.items():
            column.add(row[places[name]], number)
    for name, column in further.items():
        column.refuse_slip(path, name)
    return LabelTable(
        path,
        {name: tuple(values) for name, values in keys.items()},
        {name: tuple(values) for name, values in columns.items()},
        {name: tuple(one.labels) for name, one in further.items() if not one.first and one.stated},
        {name: one.first for name, one in further.items() if one.first},
    )


def _of_chexbert(header: Sequence[str], rows: _Rows) -> _Rows:
    """The rows with labels for the numbers of CheXbert's classes: 0 blank, 1 positive, 2 negative, 3 uncertain.

    Other copies of its program write labels; those leave blank what is not mentioned, and numbers never do.
    """
    places = [place for place, name in enumerate(header) if name in CHEXPERT.names]
    if not places or _CHEXBERT_TEXT not in [name.strip().lower() for name in header]:
        return rows
    held = [*rows]
    if not held or not all(str(row[place]).strip() in _CHEXBERT_CLASSES for _, row in held for place in places):
        return iter(held)
    return (
        (line, [_CHEXBERT_CLASSES[str(cell).strip()] if at in places else cell for at, cell in enumerate(row)])
        for line, row in held
    )


def _of_source(path: Path, header: Sequence[str], rows: _Rows, source: str | None) -> _Rows:
    """The rows of one label source, where the table has a column for it."""
    if "label_source" not in header:
        if source is not None:
            raise UsageError(f"{path} has no label sources", hint=f"name the table alone: --compare {path} OTHER")
        return rows
    place = [*header].index("label_source")
    held = [(line, row) for line, row in rows if row[place]]
    there = sorted({str(row[place]) for _, row in held})
    if source is None and len(there) > 1:
        raise UsageError(
            f"{path} has {len(there)} label sources",
            hint=f"compare two of them by name: cxrprep extract-labels ROOT --compare {there[0]} {there[1]}",
        )
    if source is not None and source not in there:
        raise UsageError(f"{path} has no labels of {source}", hint=f"its label sources: {', '.join(there) or 'none'}")
    return ((line, row) for line, row in held if source is None or row[place] == source)


def _listed(path: Path, header: Sequence[str], rows: _Rows) -> tuple[list[str], _Rows]:
    """NIH's table with a column for each finding in place of the list of those that are there."""
    place = [*header].index(_LIST)
    names = [term.name for term in NIH.terms]

    def with_findings() -> _Rows:
        for number, row in rows:
            found = {word.strip() for word in str(row[place] or "").split("|")} - {""}
            unknown = sorted(found - set(names))
            if unknown:
                raise TableError(
                    f"{path}, line {number}, {_LIST}: {unknown[0][:20]!r} is not a finding of NIH ChestX-ray14"
                )
            yield number, [*row, *(int(name in found) if found else None for name in names)]

    return [*header, *(term.column for term in NIH.terms)], with_findings()


@dataclass(slots=True)
class _Further:
    """A column that is no known observation: its labels, and the cells that are none."""

    labels: list[int | None] = field(default_factory=list)
    first: int = 0
    """The line of the first cell that is no label, 0 where all are."""
    slips: int = 0
    """How many cells are words that are no label, -1 where some are other numbers: those are counted or measured."""
    word: str = ""

    @property
    def stated(self) -> int:
        """How many labels it has."""
        return sum(value is not None for value in self.labels)

    def add(self, cell: Any, line: int) -> None:
        """Add the cell of a line."""
        text = _plain(cell)
        self.labels.append(_CELLS.get(text))
        if text not in _CELLS:
            self.first = self.first or line
            self.word = self.word or text
            self.slips = -1 if self.slips < 0 or _NUMBER.fullmatch(text) else self.slips + 1

    def refuse_slip(self, path: Path, name: str) -> None:
        """Raise ``TableError`` where most cells are labels and some are words that are none: a slip of the pen."""
        if 0 < self.slips < self.stated:
            raise TableError(
                f"{path}, line {self.first}, {name}: {self.word[:20]!r} is no label, as {self.stated:,} cells of this "
                "column are",
                hint="expected 1, 0, -1 or a blank: correct the cell, or take the column out of the table",
            )


def _without_repeated_columns(path: Path, header: Sequence[str], rows: _Rows) -> tuple[list[str], _Rows]:
    """The table with each column once. Raises ``TableError`` where two of one name say different things."""
    first: dict[str, int] = {}
    again = [(place, first[name]) for place, name in enumerate(header) if first.setdefault(name, place) != place]
    again = [(place, before) for place, before in again if header[place]]
    if not again:
        return [*header], rows
    held = [*rows]
    for line, row in held:
        for place, before in again:
            if row[place] != row[before]:
                raise TableError(
                    f"{path}, line {line}: columns {before + 1} and {place + 1} are both called {header[place]!r}, and "
                    "say different things",
                    hint="give each column a name of its own, or take one of them out",
                )
    gone = {place for place, _ in again}
    kept = [place for place in range(len(header)) if place not in gone]
    return [header[place] for place in kept], ((line, [row[place] for place in kept]) for line, row in held)


def _observations(path: Path, header: Sequence[str]) -> dict[str, int]:
    published = {column_of(name): name for name in CHEXPERT.names}
    found: dict[str, int] = {}
    for place, title in enumerate(header):
        if title in _NO_OBSERVATIONS:
            continue
        try:
            column = column_of(title)
        except UsageError:
            column = title if title.startswith("label_") else ""
        if column:
            found.setdefault(published.get(column, column.removeprefix("label_").replace("_", " ").title()), place)
    if not found:
        raise TableError(f"{path} has no column that names an observation; its columns: {', '.join(header[:20])}")
    return found


def _key_columns(path: Path, header: Sequence[str], key: str | None) -> list[str]:
    if key is not None:
        if key not in header:
            raise UsageError(f"{path} has no column {key!r}", hint=f"its columns: {', '.join(header[:20])}")
        return [key]
    known = {name.strip().lower(): name for name in header}
    return [known[name] for name in _KEYS if name in known]


def _plain_key(cell: Any) -> str:
    text = "" if cell is None else str(cell).strip().removesuffix(".0")
    study = _REPORT_FILE.fullmatch(text)
    return study[1] if study else text


def _plain(cell: Any) -> str:
    """A cell as labels are compared: decimal commas are points."""
    return "" if cell is None else str(cell).strip().lower().replace(",", ".")


def _value(cell: Any, path: Path, line: int, name: str) -> int | None:
    text = _plain(cell)
    try:
        return _CELLS[text]
    except KeyError:
        raise TableError(
            f"{path}, line {line}, {name}: {text[:20]!r} is no label", hint="expected 1, 0, -1 or a blank"
        ) from None


def _csv(path: Path) -> tuple[list[str], _Rows]:
    content = read_content(path)
    if not content.data.strip():
        raise TableError(f"{path} is empty")
    records = iter(records_of(content._replace(data=content.data.replace(b"\0", b" "))))
    header = [name.strip() for name in next(records)[1]]
    return header, _full_rows(path, records, len(header))


def _full_rows(path: Path, records: _Rows, width: int) -> _Rows:
    for line, row in records:
        if len(row) != width:
            raise TableError(f"{path}, line {line}: {len(row)} cells, the header has {width}")
        yield line, row
