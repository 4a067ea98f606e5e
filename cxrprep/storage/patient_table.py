"""A table of patients' rows on the disk: of some patients after others, so that none of it is held whole."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.storage.parquet import check_columns, readable, stated_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


# Groups of rows that a range has.
_GROUPS: Final = 2


class ByPatient(Protocol):
    """Rows that are read in parts, as often as they are asked for."""

    def ranges(self) -> Iterator[pa.Table]:
        """All of them; no patient, and so no study and no image, is in two parts."""
        ...

    def values(self, *names: str) -> Iterator[pa.Table]:
        """Some columns of them, in parts of any kind."""
        ...


@dataclass(frozen=True, slots=True)
class OneRange:
    """``ByPatient`` of a table in memory: all of it is one part."""

    table: pa.Table

    def ranges(self) -> Iterator[pa.Table]:
        """See ``ByPatient``."""
        yield self.table

    def values(self, *names: str) -> Iterator[pa.Table]:
        """See ``ByPatient``."""
        yield self.table.select(list(names))


class NotByPatientError(Exception):
    """Raise when a table cannot be read patient by patient, or what is made so would know less than what is there."""


class PatientTable:
    """A table on the disk whose groups of rows say by their footer which patients they are of."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        """Some columns of it, or all. Raises ``NotByPatientError`` where a group does not say that."""
        with readable(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        self.path = path
        self.schema = self._file.schema_arrow
        self._columns = list(columns or self.schema.names)
        check_columns(self.schema, path, self._columns)
        ends = (stated_range(self._file.metadata, number, "patient_id") for number in range(self._file.num_row_groups))
        self._ends = [end for end in ends if end is not None]
        if len(self._ends) < self._file.num_row_groups:
            raise NotByPatientError

    @classmethod
    def at(cls, path: Path, needed: str) -> Self | None:
        """All columns of the table; ``None`` where there is none, or one that has no column ``needed``."""
        if not path.is_file():
            return None
        table = cls(path)
        return table if {needed, "patient_id"} <= set(table.schema.names) else None

    def rows_in_order(self) -> Iterator[tuple[tuple[str | None, str | None], pa.Table]]:
        """All rows as they stand, those of some patients after those of others, and the bounds of each range.

        Raises ``NotByPatientError`` where patients stand in another order.
        """
        if self._ends != sorted(self._ends):
            raise NotByPatientError
        for bounds in self._bounds(1):
            rows = self.between(*bounds)
            patients = rows.column("patient_id").combine_chunks()
            if pc.any(pc.greater(patients[:-1], patients[1:])).as_py():
                raise NotByPatientError
            yield bounds, rows

    def between(self, after: str | None, last: str | None) -> pa.Table:
        """The rows of the patients behind ``after``, up to ``last``; ``None`` is no bound."""
        found = [pa.schema([self.schema.field(name) for name in self._columns]).empty_table()]
        for number, (low, high) in enumerate(self._ends):
            if (last is None or low <= last) and (after is None or high > after):
                found.append(self._rows(number, after, last))
        return pa.concat_tables(found).unify_dictionaries().combine_chunks().replace_schema_metadata(None)

    def of(self, patients: pa.Array) -> pa.Table:
        """The rows of these patients; groups of rows that can have none of them are not read."""
        held = sorted(patients.to_pylist())
        found = [pa.schema([self.schema.field(name) for name in self._columns]).empty_table()]
        for number, (low, high) in enumerate(self._ends):
            if bisect.bisect_left(held, low) < bisect.bisect_right(held, high):
                group = self._group(number)
                found.append(group.filter(pc.is_in(group.column("patient_id"), value_set=patients)))
        return pa.concat_tables(found).unify_dictionaries().combine_chunks()

    def ranges(self) -> Iterator[pa.Table]:
        """All rows, those of some patients after those of others, about 260,000 at a time."""
        return (self.between(*bounds) for bounds in self._bounds(_GROUPS))

    def _bounds(self, groups: int) -> Iterator[tuple[str | None, str | None]]:
        """Behind which patient and up to which each range of about so many groups of rows is; ``None`` is no bound."""
        ends = [None, *sorted({high for _, high in self._ends})[groups - 1 : -1 : groups], None]
        return itertools.pairwise(ends)

    def values(self, *names: str) -> Iterator[pa.Table]:
        """Some columns, group by group."""
        for number in range(self._file.num_row_groups):
            with readable(self.path):
                yield self._file.read_row_group(number, list(names), use_threads=False).select(list(names))

    def _group(self, number: int) -> pa.Table:
        with readable(self.path):
            return self._file.read_row_group(number, self._columns, use_threads=False)

    def _rows(self, number: int, after: str | None, last: str | None) -> pa.Table:
        group = self._group(number)
        patients = group.column("patient_id")
        behind = pc.is_valid(patients) if after is None else pc.greater(patients, after)
        return group.filter(behind if last is None else pc.and_(behind, pc.less_equal(patients, last)))


@dataclass(slots=True)
class IdsOfRanges:
    """Ids as numbers, by which a label is found that names an image or study of another range of patients."""

    here: list[NDArray[np.uint64]] = field(default_factory=list)
    elsewhere: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, ids: pa.Array | pa.ChunkedArray, named: pa.ChunkedArray | None) -> None:
        """The ids of a range, and those that its rows of labels name."""
        self.here.append(_numbers(pc.unique(ids.drop_null())))
        if named is not None:
            others = named.filter(pc.invert(pc.is_in(named, value_set=ids)))
            self.elsewhere.append(_numbers(pc.unique(others.drop_null())))

    def check(self) -> None:
        """Raise ``NotByPatientError`` where two ranges have one id, or one names what another has."""
        here = np.sort(np.concatenate(self.here))
        named = np.unique(np.concatenate(self.elsewhere)) if self.elsewhere else here[:0]
        if bool((here[1:] == here[:-1]).any()) or bool(np.isin(named, here).any()):
            raise NotByPatientError


def _numbers(ids: pa.Array) -> NDArray[np.uint64]:
    from pandas.util import hash_array

    return hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)
