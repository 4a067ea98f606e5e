"""A column as numbers: its distinct values, and for each row which of them it has.

Counting small numbers with NumPy costs a tenth of grouping long ids as text.

measured: 1.77 -> 0.16 s CPU for the counts by split of 377,110 images; and Arrow's own ``group_by`` loads
``pyarrow.dataset``, which loads pandas (0.4 s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ValueCodes:
    """``at[row]`` is the place of a row's value in ``values``, -1 where it has none."""

    values: pa.Array
    at: NDArray[np.int32]

    def counts(self) -> NDArray[np.int64]:
        """How many rows have each value; the last number is of the rows without one."""
        return np.bincount(np.where(self.at < 0, len(self.values), self.at), minlength=len(self.values) + 1)

    def distinct(self) -> int:
        """How many values the rows have."""
        return int(np.count_nonzero(self.counts()[:-1]))

    def first_rows(self) -> NDArray[np.int64]:
        """The first row of each value, in the order of the rows."""
        first = np.full(len(self.values) + 1, -1)
        # Of several the last one written stays, so they are written from behind.
        first[self.at[::-1]] = np.arange(len(self.at))[::-1]
        return np.sort(first[:-1][first[:-1] >= 0])

    def beside(self, other: ValueCodes) -> NDArray[np.bool_]:
        """Whether a row has value ``i`` here and ``j`` there: ``[i, j]``, the last row and column for no value."""
        seen = np.zeros((len(self.values) + 1, len(other.values) + 1), bool)
        seen[self.at, other.at] = True
        return seen


def value_codes(column: pa.Array | pa.ChunkedArray) -> ValueCodes:
    """The distinct values of a column, in the order of their first rows (or of its dictionary), and where they are."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    at = pc.fill_null(coded.indices.cast(pa.int32()), -1)
    return ValueCodes(coded.dictionary, at.to_numpy(zero_copy_only=False))


def with_codes(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table with these columns as dictionaries: rows that are taken of it need not be coded again."""
    for name in names:
        column = table[name].combine_chunks()
        if not pa.types.is_dictionary(column.type):
            table = table.set_column(table.schema.get_field_index(name), name, column.dictionary_encode())
    return table


def value_counts(column: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    """How often each value occurs, ``None`` among them where rows have none."""
    codes = value_codes(column)
    counts = zip([*codes.values.to_pylist(), None], codes.counts().tolist(), strict=True)
    return {value: count for value, count in counts if count}
