"""Two label tables side by side: agreement, Cohen's kappa and the confusion over 1, 0, -1 and null."""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import TableError, UsageError
from cxrprep.vocabulary import CHEXPERT, column_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

VALUES: Final = (1, 0, -1, None)
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
_REPORT_FILE: Final = re.compile(r"(?:.*/)?s(\d{8})(?:\.txt)?")
_CELLS: Final[Mapping[str, int | None]] = {
    "": None, "_": None,
    "nan": None, "none": None, "null": None, "1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1,
    "positive": 1, "negative": 0, "uncertain": -1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels by row: ``columns`` maps published names to a value per row, ``ids`` the id columns to a key per row.

    Keys are text; a study is the same study as ``files/p10/p10000032/s50414267.txt``, ``50414267`` and ``50414267.0``.
    ``extra`` holds further columns that nothing but labels stand in, by their own names.
    """

    path: Path
    ids: dict[str, tuple[str, ...]]
    columns: dict[str, tuple[int | None, ...]]
    extra: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two tables agree on one observation.

    ``confusion[a, b]`` counts reports that are ``a`` in the first and ``b`` in the second table. ``kappa`` is Cohen's
    over the four classes, ``None`` where both tables always say the same one thing. ``f1`` holds the positive, negative
    and uncertain classes, with the first table as the reference; ``None`` where neither table has the class.
    """

    observation: str
    confusion: dict[tuple[int | None, int | None], int]
    agreement: float
    kappa: float | None
    f1: dict[int, float | None]

    def precision(self, value: int) -> float | None:
        """The share of the second table's ``value`` that the first has too; ``None`` where the second has none."""
        given = sum(self.confusion[a, value] for a in VALUES)
        return self.confusion[value, value] / given if given else None

    def recall(self, value: int) -> float | None:
        """The share of the first table's ``value`` that the second has too; ``None`` where the first has none."""
        true = sum(self.confusion[value, b] for b in VALUES)
        return self.confusion[value, value] / true if true else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables over the keys that both have; ``keys`` are the id columns that were matched."""

    keys: tuple[str, str]
    common: int
    only_first: int
    only_second: int
    observations: tuple[Agreement, ...]


def read_label_table(path: Path, *, key: str | None = None) -> LabelTable:
    """The labels in ``path``: our Parquet, or a CSV (also gzipped) of chexpert-labeler, CheXbert, NegBio or MIMIC.

    Columns are known by their names in any order and spelling ("Airspace Opacity", ``label_pleural_effusion``). ``key``
    names the id column; without it all that are known by their names are taken, and there may be none. Raises
    ``TableError`` and ``UsageError``.
    """
    header, rows = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    places = {name: place for place, name in enumerate(header)}
    chosen = _observations(path, header)
    keyed = _key_columns(path, header, key)
    keys: dict[str, list[str]] = {name: [] for name in keyed}
    columns: dict[str, list[int | None]] = {name: [] for name in chosen}
    taken = {*(places[name] for name in keyed), *chosen.values()}
    extra: dict[str, list[int | None]] = {name: [] for name in header if name and places[name] not in taken}
    for number, row in enumerate(rows, 2):
        for name in keyed:
            keys[name].append(_plain_key(row[places[name]]))
        for name, place in chosen.items():
            columns[name].append(_value(row[place], path, number, name))
        _add_labels(extra, row, places)
    return LabelTable(
        path,
        {name: tuple(values) for name, values in keys.items()},
        {name: tuple(values) for name, values in columns.items()},
        {name: tuple(values) for name, values in extra.items() if any(value is not None for value in values)},
    )


def _add_labels(extra: dict[str, list[int | None]], row: Sequence[Any], places: Mapping[str, int]) -> None:
    """Add a row to the further columns; one with a cell that is no label is none of them."""
    for name in [*extra]:
        cell = row[places[name]]
        text = "" if cell is None else str(cell).strip().lower()
        if text in _CELLS:
            extra[name].append(_CELLS[text])
        else:
            del extra[name]


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


def _value(cell: Any, path: Path, line: int, name: str) -> int | None:
    text = "" if cell is None else str(cell).strip().lower()
    try:
        return _CELLS[text]
    except KeyError:
        raise TableError(
            f"{path}, line {line}, {name}: {text[:20]!r} is no label", hint="expected 1, 0, -1 or a blank"
        ) from None


def _csv(path: Path) -> tuple[list[str], Iterator[list[str]]]:
    csv.field_size_limit(128 << 20)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    rows = csv.reader(io.StringIO(text.replace("\0", " "), newline=""))
    header = next(rows, None)
    if not header:
        raise TableError(f"{path} is empty")
    return [name.strip() for name in header], _full_rows(path, rows, len(header))


def _full_rows(path: Path, rows: Any, width: int) -> Iterator[list[str]]:
    for row in rows:
        if not row:
            continue
        if len(row) != width:
            raise TableError(f"{path}, line {rows.line_num}: {len(row)} cells, the header has {width}")
        yield row


def _parquet(path: Path) -> tuple[list[str], Iterator[list[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        # Text that is no UTF-8 shows only now.
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"{path} is no readable Parquet file: {error}") from error
    return table.column_names, (list(row) for row in zip(*columns, strict=True))


def compare_tables(first: Path, second: Path, *, key: str | None = None) -> Comparison:
    """How the labels of ``second`` agree with those of ``first``, over the keys and observations that both have.

    Raises ``TableError`` for a table that cannot be read or has a key twice, ``UsageError`` when nothing is common.
    """
    a, b = read_label_table(first, key=key), read_label_table(second, key=key)
    keys = _matching(a, b)
    rows_a, rows_b = _rows(a, keys[0]), _rows(b, keys[1])
    common = [row for row in rows_a if row in rows_b]
    pairs = [(rows_a[row], rows_b[row]) for row in common]
    names = [name for name in a.columns if name in b.columns]
    if not names:
        raise UsageError(f"{first} and {second} have no observation in common")
    return Comparison(
        keys,
        len(common),
        len(rows_a) - len(common),
        len(rows_b) - len(common),
        tuple(agreement_of(name, [(a.columns[name][i], b.columns[name][j]) for i, j in pairs]) for name in names),
    )


def _matching(a: LabelTable, b: LabelTable) -> tuple[str, str]:
    """The id columns of two tables that have most keys in common: both may name a report in several ways."""
    sets_a, sets_b = ({name: set(keys) - {""} for name, keys in table.ids.items()} for table in (a, b))
    shared = {(x, y): len(sets_a[x] & sets_b[y]) for x in sets_a for y in sets_b}
    best = max(shared, key=lambda pair: (shared[pair], pair[0] == pair[1]), default=None)
    if best is None or not shared[best]:
        about = [f"{table.path} ({', '.join(table.ids) or 'no id column'})" for table in (a, b)]
        raise UsageError(f"{about[0]} and {about[1]} have no key in common", hint="name the id column with --key NAME")
    return best


def _rows(table: LabelTable, key: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, value in enumerate(table.ids[key]):
        # Two images of one study have the same labels of it.
        if value and rows.setdefault(value, row) != row and not _same(table, rows[value], row):
            # A key may be the text of a report, which no message may show.
            raise TableError(
                f"{table.path}: rows {rows[value] + 1} and {row + 1} have the same {key}",
                hint="name an id column that tells the rows apart: --key NAME",
            )
    return rows


def _same(table: LabelTable, first: int, second: int) -> bool:
    return all(values[first] == values[second] for values in table.columns.values())


def agreement_of(observation: str, pairs: Iterable[tuple[int | None, int | None]]) -> Agreement:
    """Agreement, kappa, F1 and confusion of pairs of labels (reference, other)."""
    confusion: dict[tuple[int | None, int | None], int] = {(a, b): 0 for a in VALUES for b in VALUES}
    for pair in pairs:
        confusion[pair] += 1
    total = sum(confusion.values())
    first = {a: sum(confusion[a, b] for b in VALUES) for a in VALUES}
    second = {b: sum(confusion[a, b] for a in VALUES) for b in VALUES}
    same = sum(confusion[value, value] for value in VALUES) / total if total else 1.0
    chance = sum(first[value] * second[value] for value in VALUES) / total**2 if total else 1.0
    f1: dict[int, float | None] = {}
    for value in (1, 0, -1):
        size = first[value] + second[value]
        f1[value] = 2 * confusion[value, value] / size if size else None
    return Agreement(observation, confusion, same, (same - chance) / (1 - chance) if chance < 1 else None, f1)
