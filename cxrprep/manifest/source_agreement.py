"""Agreement between the label sources of a folder: share of equal values and Cohen's kappa, per observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.vocabulary import OBSERVATIONS, published_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SourceAgreement:
    """How far ``second`` agrees with ``first`` over the ``images`` that both have.

    ``rows`` are observation, percent of equal values (1, 0, -1 and blank are four values), and Cohen's kappa, which is
    ``None`` where both always say the same one thing.
    """

    first: str
    second: str
    images: int
    rows: tuple[tuple[str, float, float | None], ...]


def source_agreements(labels: pa.Table) -> tuple[SourceAgreement, ...]:
    """Every label source of a ``labels.parquet`` compared with the one of most rows; empty for a single source."""
    source = labels["label_source"].cast(pa.string())
    counted = sorted(pc.value_counts(source).to_pylist(), key=lambda item: (-item["counts"], item["values"]))
    if len(counted) < 2:
        return ()
    # The ids are long: they are taken apart once, and the columns that nobody compares not at all.
    columns = [f"label_{stem}" for stem in OBSERVATIONS if f"label_{stem}" in labels.column_names]
    known = pa.table({"key": _keys(labels), **{name: labels[name] for name in columns}})
    parts = {item["values"]: known.filter(pc.equal(source, item["values"])) for item in counted}
    (name, first), *others = parts.items()
    found = [_agreement(name, first, other, second) for other, second in others]
    return tuple(one for one in found if one.images)


def _agreement(name: str, first: pa.Table, other: str, second: pa.Table) -> SourceAgreement:
    index, both = _common(first["key"], second["key"])
    rows = []
    for stem in OBSERVATIONS:
        column = f"label_{stem}"
        if column in first.column_names and _speaks(first[column]) and _speaks(second[column]):
            rows.append((published_name(stem), *_kappa(_codes(first[column])[index], _codes(second[column])[both])))
    return SourceAgreement(name, other, len(index) if rows else 0, tuple(rows))


def _common(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which rows of ``second`` the first has too, and where it has them; most tables have all in the same order."""
    if first.equals(second):
        return np.arange(len(first)), np.ones(len(first), dtype=bool)
    place = pc.index_in(second, value_set=first).to_numpy()
    both = ~np.isnan(place)
    return place[both].astype(np.int64), both


def _keys(table: pa.Table) -> pa.ChunkedArray:
    """Images by their id; rows about studies alone by the study's."""
    images = table["image_id"]
    return images if not images.null_count else pc.coalesce(images, table["study_id"])


def _speaks(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count < len(column))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """0 for -1, 1 for 0, 2 for 1, 3 for blank."""
    codes: NDArray[np.int64] = pc.fill_null(pc.add(column.cast(pa.int64()), 1), 3).to_numpy()
    return codes


def _kappa(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[float, float | None]:
    if not len(first):
        return 0.0, None
    table = np.bincount(first * 4 + second, minlength=16).reshape(4, 4) / len(first)
    same, chance = float(np.trace(table)), float(table.sum(0) @ table.sum(1))
    return 100 * same, (same - chance) / (1 - chance) if chance < 1 else None
