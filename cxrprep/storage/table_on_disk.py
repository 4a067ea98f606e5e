"""Rows of a Parquet file that stand for a table in memory: columns and slices are read when they are asked for."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import weakref
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.storage.parquet import check_columns, readable, stated_range
from cxrprep.storage.value_codes import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

# Values that are looked for in what a file states of each group of its rows.
_FEW: Final = 10_000


@dataclasses.dataclass(slots=True, eq=False)
class TableOnDisk:
    """A table as it was when it was opened, or some of its rows in their order; each page is held to its checksum.

    It has those names of a ``pyarrow.Table`` by which one is worked through part by part. ``masks`` say which rows of
    each group of the file these are (``None``: all), ``starts`` where each group begins among them, and where the last
    one ends. ``last`` is the group, with its number, that a slice was taken of.
    """

    path: Path
    file: pq.ParquetFile
    schema: pa.Schema
    masks: list[Any]
    starts: list[int]
    last: tuple[int, pa.Table] | None = None

    @classmethod
    def open(cls, path: Path, columns: Collection[str] | None = None, held: BinaryIO | None = None) -> Self:
        """All rows of a file. Raises ``OSError``, ``UnreadableTableError``, as do all that read it.

        ``columns`` are those that are checked now, and not when they are read; all by default. An open file may hold
        rows that were made of those at ``path``, by which they are called.
        """
        with readable(path):
            file = pq.ParquetFile(held or path, page_checksum_verification=True)
        if held is not None:
            weakref.finalize(file, held.close)
        check_columns(file.schema_arrow, path, columns)
        counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        return cls(path, file, file.schema_arrow, [None] * len(counts), [0, *itertools.accumulate(counts)])

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.starts[-1]

    def groups(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns, some ten thousand rows at a time; one table without rows where there is no group."""
        names = list(columns)
        yield from (self._group(number, names) for number in range(len(self.masks)))
        if not self.masks:
            yield self.schema.empty_table().select(names)

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Columns of all rows, in memory."""
        with readable(self.path):
            check_columns(self.schema, self.path, columns)
        return pa.concat_tables(self.groups(columns)).unify_dictionaries()

    def whole(self) -> pa.Table:
        """All columns of all rows, in memory; rows that were chosen in one piece."""
        found = self.select(self.column_names)
        return found if self.masks.count(None) == len(self.masks) else found.combine_chunks()

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows, in memory."""
        return self.select([name]).column(0)

    def slice(self, start: int, count: int) -> pa.Table:
        """Some rows that follow each other, in memory."""
        found = []
        for number, (first, after) in enumerate(itertools.pairwise(self.starts)):
            here, end = max(start, first), min(start + count, after)
            if here < end:
                if self.last is None or self.last[0] != number:
                    self.last = number, self._group(number, self.column_names)
                found.append(self.last[1].slice(here - first, end - here))
        return pa.concat_tables(found or [self.schema.empty_table()]).unify_dictionaries()

    def where(self, columns: Sequence[str], wanted: Callable[[pa.Table], Any]) -> Self:
        """The rows that ``wanted`` says of each group of rows with these columns."""
        return self._narrowed([wanted(group) for group in self.groups(columns)] if self.masks else [])

    def among(self, column: str, values: pa.Array | list[str]) -> Self:
        """The rows that have one of the values in this column; of a few, groups of rows without any are not read."""
        values = pa.array(values, pa.string()) if isinstance(values, list) else values
        return self.near(column, values).where([column], lambda rows: pc.is_in(rows[column], value_set=values))

    def near(self, column: str, values: pa.Array) -> Self:
        """Without groups of rows of which the file states that none has one of these values, where they are few."""
        if len(values) > _FEW:
            return self
        held = sorted(values.drop_null().to_pylist())

        def may_have_one(number: int) -> bool:
            found = stated_range(self.file.metadata, number, column)
            # A row without a value may be wanted for another one.
            return found is None or bisect.bisect_left(held, found[0]) < bisect.bisect_right(held, found[1])

        counts = (after - start for start, after in itertools.pairwise(self.starts))
        return self._narrowed([pa.repeat(may_have_one(number), count) for number, count in enumerate(counts)])

    def filter(self, mask: Any) -> Self:
        """The rows where ``mask`` (an Arrow Boolean array) is true."""
        return self._narrowed([mask.slice(start, end - start) for start, end in itertools.pairwise(self.starts)])

    # ---- inside ----

    def _narrowed(self, masks: Sequence[Any]) -> Self:
        """Those of its rows that the masks, one a group of rows, want."""
        plain = [pc.fill_null(flat(mask), fill_value=False) for mask in masks]
        both = zip(self.masks, plain, strict=True)
        inside = [mask if before is None else pc.replace_with_mask(before, before, mask) for before, mask in both]
        starts = [0, *itertools.accumulate(mask.true_count for mask in plain)]
        return dataclasses.replace(self, masks=inside, starts=starts, last=None)

    def _group(self, number: int, names: list[str]) -> pa.Table:
        if self.starts[number] == self.starts[number + 1]:
            return self.schema.empty_table().select(names)
        with readable(self.path):
            # In the order of the names, which that of the file need not be.
            group = self.file.read_row_group(number, names, use_threads=False).select(names)
        return group if self.masks[number] is None else group.filter(self.masks[number])
