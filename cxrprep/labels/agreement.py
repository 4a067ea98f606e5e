"""Agreement of labels: equal values, Cohen's kappa, precision, recall and F1 over 1, 0, -1 and null.

Of two label tables (``compare_tables``), and of the label sources of one ``labels.parquet`` (``source_agreements``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError, UsageError
from cxrprep.humanize import short_repr
from cxrprep.schemas import label_columns
from cxrprep.storage.value_codes import as_slice, numbers, value_codes, value_counts
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from cxrprep.labels.label_table import LabelTable
    from cxrprep.storage.patient_table import ByPatient

VALUES: Final = (1, 0, -1, None)
# The values of the codes that ``_codes`` gives a column.
_CODED: Final = (-1, 0, 1, None)
_BLANK: Final = 3


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

    def true(self, value: int | None) -> int:
        """How many the first table has, the reference."""
        return sum(self.confusion[value, b] for b in VALUES)

    def given(self, value: int | None) -> int:
        """How many the second table has."""
        return sum(self.confusion[a, value] for a in VALUES)

    def scores(self, value: int) -> Scores:
        """Precision, recall and F1 of a class, with the first table as the reference."""
        return Scores.of(self.true(value), self.given(value), self.confusion[value, value])

    def precision(self, value: int) -> float | None:
        """The share of the second table's ``value`` that the first has too; ``None`` where the second has none."""
        return self.scores(value).precision

    def recall(self, value: int) -> float | None:
        """The share of the first table's ``value`` that the second has too; ``None`` where the first has none."""
        return self.scores(value).recall


@dataclass(frozen=True, slots=True)
class Scores:
    """Precision, recall and F1 of one class; ``None`` where nothing has it."""

    precision: float | None
    recall: float | None
    f1: float | None

    @classmethod
    def of(cls, true: int, given: int, both: int) -> Scores:
        """From how many the reference has, how many the other, and how many both."""
        return cls(
            both / given if given else None,
            both / true if true else None,
            2 * both / (true + given) if true + given else None,
        )


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels to compare: a table, one label source of it where it has several, and what to call them."""

    path: Path
    source: str | None = None
    name: str = ""

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name or self.source or str(self.path)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables over the keys that both have; ``keys`` are the id columns that were matched."""

    __repr__ = short_repr

    keys: tuple[str, str]
    common: int
    only_first: int
    only_second: int
    observations: tuple[Agreement, ...]
    first: str = ""
    second: str = ""
    others: tuple[Comparison, ...] = ()

    def micro(self, value: int) -> Scores:
        """Over the reports of all observations as one."""
        counts = [(one.true(value), one.given(value), one.confusion[value, value]) for one in self.observations]
        return Scores.of(*(sum(column) for column in zip(*counts, strict=True)))

    def macro(self, value: int) -> Scores:
        """The mean of the observations, each counting the same; those that neither table has are left out."""
        return self._mean(value, lambda _: 1)

    def weighted(self, value: int) -> Scores:
        """The mean of the observations, each counting as often as the first table has the class."""
        return self._mean(value, lambda one: one.true(value))

    def _mean(self, value: int, weight: Callable[[Agreement], int]) -> Scores:
        def mean(found: Iterable[tuple[int, float | None]]) -> float | None:
            known = [(weighs, score) for weighs, score in found if score is not None]
            total = sum(weighs for weighs, _ in known)
            return sum(weighs * score for weighs, score in known) / total if total else None

        scores = [(weight(one), one.scores(value)) for one in self.observations]
        return Scores(
            mean((weighs, one.precision) for weighs, one in scores),
            mean((weighs, one.recall) for weighs, one in scores),
            mean((weighs, one.f1) for weighs, one in scores),
        )


def compare_tables(first: Path | Labelled, second: Path | Labelled, *, key: str | None = None) -> Comparison:
    """How the labels of ``second`` agree with those of ``first``, over the keys and observations that both have.

    Raises ``TableError`` for a table that cannot be read or has a key twice, ``UsageError`` when nothing is common.
    """
    from cxrprep.labels.label_table import read_label_table

    one, other = (each if isinstance(each, Labelled) else Labelled(each) for each in (first, second))
    a, b = (read_label_table(each.path, key=key, source=each.source) for each in (one, other))
    keys = _matching(a, b)
    rows_a, rows_b = _rows(a, keys[0]), _rows(b, keys[1])
    common = [row for row in rows_a if row in rows_b]
    pairs = [(rows_a[row], rows_b[row]) for row in common]
    names = [name for name in a.columns if name in b.columns]
    if not names:
        raise UsageError(f"{one.title} and {other.title} have no observation in common")
    return Comparison(
        keys,
        len(common),
        len(rows_a) - len(common),
        len(rows_b) - len(common),
        tuple(
            agreement_of(name, Counter((a.columns[name][i], b.columns[name][j]) for i, j in pairs)) for name in names
        ),
        one.title,
        other.title,
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
        first = rows.setdefault(value, row) if value else row
        if any(values[first] != values[row] for values in table.columns.values()):
            # A key may be the text of a report, which no message may show.
            raise TableError(
                f"{table.path}: rows {first + 1} and {row + 1} have the same {key}",
                hint="name an id column that tells the rows apart: --key NAME",
            )
    return rows


def agreement_of(observation: str, counts: Mapping[tuple[int | None, int | None], int]) -> Agreement:
    """Agreement, kappa, F1 and confusion of pairs of labels (reference, other), by how often each pair occurs."""
    confusion = {(a, b): counts.get((a, b), 0) for a in VALUES for b in VALUES}
    total = sum(confusion.values())
    first = {a: sum(confusion[a, b] for b in VALUES) for a in VALUES}
    second = {b: sum(confusion[a, b] for a in VALUES) for b in VALUES}
    same = sum(confusion[value, value] for value in VALUES) / total if total else 1.0
    chance = sum(first[value] * second[value] for value in VALUES) / total**2 if total else 1.0
    f1 = {value: Scores.of(first[value], second[value], confusion[value, value]).f1 for value in (1, 0, -1)}
    return Agreement(observation, confusion, same, (same - chance) / (1 - chance) if chance < 1 else None, f1)


@dataclass(frozen=True, slots=True)
class SourceAgreement:
    """How far the label source ``second`` agrees with ``first`` over the ``images`` that both have."""

    first: str
    second: str
    images: int
    observations: tuple[Agreement, ...]


def source_agreements(labels: ByPatient) -> tuple[SourceAgreement, ...]:
    """Every label source of a ``labels.parquet`` compared with the one of most rows; empty for a single source."""
    counts = sum((Counter(value_counts(part.column(0))) for part in labels.values("label_source")), Counter[str]())
    ranked = sorted(filter(None, counts), key=lambda name: (-counts[name], name))
    images: Counter[str] = Counter()
    known: dict[str, set[str]] = {name: set() for name in ranked}
    pairs: dict[tuple[str, str], NDArray[np.int64]] = {}
    for part in labels.ranges() if len(ranked) > 1 else ():
        sources, keys = value_codes(part["label_source"]), value_codes(_keys(part)).at
        places = {name: place for place, name in enumerate(sources.values.to_pylist())}
        rows = {name: np.flatnonzero(sources.at == places.get(name, len(places))) for name in ranked}
        both = {name: _same_images(keys, rows[ranked[0]], rows[name]) for name in ranked[1:]}
        images.update({name: len(first) for name, (first, _) in both.items()})
        # Once and not for each column. measured: 157 -> 95 ms of CPU for two label sources of 377,110 images.
        of_source = {name: as_slice(these) for name, these in rows.items()}
        pairs_of = {name: tuple(map(as_slice, pair)) for name, pair in both.items()}
        for column in label_columns(part.schema):
            codes = _codes(part[column])
            for name, these in of_source.items():
                if column not in known[name] and (codes[these] != _BLANK).any():
                    known[name].add(column)
            for name, (first, second) in pairs_of.items():
                together = codes[first] * np.int8(4) + codes[second]
                pairs[name, column] = pairs.get((name, column), 0) + np.bincount(together, minlength=16)
    found = []
    for name in ranked[1:]:
        columns = [column for of, column in pairs if of == name and column in known[ranked[0]] & known[name]]
        agreements = tuple(_agreement_of_columns(column, pairs[name, column]) for column in columns)
        found.append(SourceAgreement(ranked[0], name, images[name], agreements))
    return tuple(one for one in found if one.images and one.observations)


def _same_images(
    keys: NDArray[np.int32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of ``first`` and of ``second`` that are of one image, pair by pair, in the order of ``second``."""
    place = np.full(keys.max(initial=-1) + 2, -1)
    # Of several rows of an image the first one counts, so they are written from behind; no key is the last place.
    place[keys[first[::-1]]] = first[::-1]
    place[-1] = -1
    at = place[keys[second]]
    return at[at >= 0], second[at >= 0]


def _keys(table: pa.Table) -> pa.ChunkedArray:
    """Images by their id; rows about studies alone by the study's."""
    images = table["image_id"]
    if not images.null_count:
        return images
    return pc.coalesce(images.cast(pa.string()), table["study_id"].cast(pa.string()))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int8]:
    """The place of each value in ``_CODED``."""
    codes: NDArray[np.int8] = numbers(column, 2).astype(np.int8) + np.int8(1)
    return codes


def _agreement_of_columns(column: str, counts: NDArray[np.int64]) -> Agreement:
    pairs = ((a, b) for a in _CODED for b in _CODED)
    numbers = zip(pairs, counts.tolist(), strict=True)
    return agreement_of(published_name(column.removeprefix("label_")), dict(numbers))
