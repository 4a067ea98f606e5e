"""Sorted tables: more rows than memory should hold, kept on the disk in runs and merged as they are read."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

PART_ROWS: Final = 16_384
PATHS: Final = pa.schema([("path", pa.string())])
# Of a run so many rows are in memory at a time, of each run that overlaps with others.
_BLOCK_ROWS: Final = 4_096
_RUN_ROWS: Final = 65_536


def by_path(table: pa.Table) -> pa.Table:
    """``table`` sorted by path; itself when it is so already."""
    return _by(table, "path")


def _by(table: pa.Table, key: str) -> pa.Table:
    values = table[key]
    if table.num_rows < 2 or pc.all(pc.less_equal(values[:-1], values[1:])).as_py():
        return table
    return table.sort_by(key)


def parts(table: pa.Table) -> Iterator[pa.Table]:
    """``table`` some thousand rows at a time, without copying."""
    for batch in table.to_batches(max_chunksize=PART_ROWS):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


class Rows(Protocol):
    """Rows in order of path, read as often as they are asked for."""

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, some thousands at a time; with ``columns`` those alone."""
        ...


class HeldRows:
    """``Rows`` of a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        """``table`` is sorted by path."""
        self._table = table

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """See ``Rows``."""
        return parts(self._table if columns is None else self._table.select(list(columns)))


class FilteredRows:
    """Those of ``rows`` whose path is wanted."""

    def __init__(self, rows: Rows, wanted: Callable[[list[str]], pa.Array]) -> None:
        """``wanted`` says of paths which ones."""
        self._rows, self._wanted = rows, wanted

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """See ``Rows``."""
        names = None if columns is None else list(dict.fromkeys(["path", *columns]))
        for table in self._rows.tables(names):
            chosen = table.filter(self._wanted(table["path"].to_pylist()))
            if chosen.num_rows:
                yield chosen if columns is None else chosen.select(list(columns))


class SortedCursor:
    """Goes through tables that are sorted by path, or by another column ``key``, as far as it is asked to."""

    def __init__(self, tables: Iterable[pa.Table], schema: pa.Schema, key: str = "path") -> None:
        """Walk ``tables``, which are of ``schema`` and follow one another in order of ``key``."""
        self._rest = iter(tables)
        self._ahead = schema.empty_table()
        self._key = key

    def upto(self, path: Any) -> pa.Table:
        """The rows after those of the last call whose key is not behind ``path``; ``None`` asks for all the rest."""
        taken = []
        while True:
            ahead = self._ahead
            if ahead.num_rows:
                count = ahead.num_rows if path is None else pc.sum(pc.less_equal(ahead[self._key], path)).as_py()
                taken.append(ahead.slice(0, count))
                self._ahead = ahead.slice(count)
                if self._ahead.num_rows:
                    break
            following = next(self._rest, None)
            if following is None:
                break
            self._ahead = following
        return pa.concat_tables([*taken, self._ahead.slice(0, 0)])

    def back(self, rows: pa.Table) -> None:
        """Let the last one of the rows that ``upto`` gave come again, for another row of its path."""
        if rows.num_rows:
            self._ahead = pa.concat_tables([rows.slice(rows.num_rows - 1), self._ahead])

    def among(self, keys: pa.ChunkedArray) -> pa.Table:
        """The rows up to the last of some sorted ``keys`` that have one of them; the others are held in parts."""
        last, end, found = keys[-1].as_py(), "", list[pa.Table]()
        while end <= last and (end := self.end_of_next()) is not None:
            near = self.upto(min(end, last))
            found.append(near.filter(pc.is_in(near[self._key], value_set=keys)))
        return pa.concat_tables(found or [self._ahead.slice(0, 0)])

    def end_of_next(self) -> Any:
        """The last key of the rows that are in memory; ``None`` after the last row."""
        while not self._ahead.num_rows:
            following = next(self._rest, None)
            if following is None:
                return None
            self._ahead = following
        return self._ahead[self._key][-1].as_py()

    def in_order(self, rows: pa.Table) -> pa.Table:
        """``rows`` in order of the key; those of equal keys stay as they are."""
        return _by(rows, self._key)


def merged(cursors: Sequence[SortedCursor]) -> Iterator[pa.Table]:
    """The rows that are left of several cursors by one key, in order of it; of equal ones the first cursor's first."""
    while ends := [end for end in (cursor.end_of_next() for cursor in cursors) if end is not None]:
        bound = min(ends)
        yield cursors[0].in_order(pa.concat_tables([cursor.upto(bound) for cursor in cursors]))


def _close(file: IO[bytes]) -> None:
    # On a full disk the rest cannot be written, and nobody reads it any more.
    with contextlib.suppress(OSError):
        file.close()


class StoredParts:
    """Tables of one schema in a temporary file, read again one by one. It has no name and goes with the object."""

    def __init__(self, schema: pa.Schema) -> None:
        """No table yet. Raises ``StorageError``, here and below, when the disk for temporary files refuses."""
        self.schema = schema
        self.num_rows = 0
        self._places: list[tuple[int, int]] = []
        self._file: IO[bytes] | None = None
        self._end = 0
        self._mutex = threading.Lock()

    def append(self, table: pa.Table) -> int:
        """Add a table; its number, from 0."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table.combine_chunks())
        data = sink.getvalue()
        with storage_errors(tempfile.gettempdir(), "write temporary files in"):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="cxrprep-")  # noqa: SIM115  # closed below
                weakref.finalize(self, _close, self._file)
            self._file.seek(self._end)
            self._file.write(data)
        self._places.append((self._end, len(data)))
        self._end += len(data)
        self.num_rows += table.num_rows
        return len(self._places) - 1

    def read(self, number: int) -> pa.Table:
        """One of the tables."""
        assert self._file is not None
        start, length = self._places[number]
        with self._mutex:
            self._file.seek(start)
            data = self._file.read(length)
        return pa.ipc.open_stream(data).read_all()

    def tables(self) -> Iterator[pa.Table]:
        """All of them, as they came."""
        return map(self.read, range(len(self._places)))


@dataclass(slots=True)
class _Run:
    """Sorted rows in the file: the numbers of their blocks, and the keys at both ends."""

    first: str
    last: str
    blocks: list[int]


class SortedTable:
    """Rows in order of one text column, in a temporary file; those of equal keys stay as they came.

    Its file has no name and goes with the object. Threads may read it side by side once all rows are in it.
    """

    def __init__(self, schema: pa.Schema, key: str = "path") -> None:
        """Rows of ``schema`` in order of the column ``key``, which has no nulls."""
        self.schema = schema
        self.num_rows = 0
        self._key = key
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._runs: list[_Run] = []
        self._stored = StoredParts(schema)

    @classmethod
    def of(cls, columns: Mapping[str, str], key: str) -> Self:
        """Rows of ``columns``: what pyarrow calls the type of each."""
        return cls(pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()]), key)

    def append(self, table: pa.Table) -> None:
        """Add rows, in any order. Raises ``StorageError`` when the disk for temporary files refuses."""
        if not table.num_rows:
            return
        self._held.append(table)
        self._held_rows += table.num_rows
        self.num_rows += table.num_rows
        if self._held_rows >= _RUN_ROWS:
            self._write_run()

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """The same for rows of plain values, some thousands of them at a time."""
        ahead = iter(rows)
        while some := list(islice(ahead, _BLOCK_ROWS)):
            columns = zip(zip(*some, strict=True), self.schema, strict=True)
            arrays = [pa.array(values, field.type) for values, field in columns]
            self.append(pa.Table.from_arrays(arrays, schema=self.schema))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order, some thousands at a time; with ``columns`` those alone."""
        names = self.schema.names if columns is None else list(columns)
        if not self._runs:
            yield from (part.select(names) for part in parts(_by(self._joined(), self._key)))
            return
        if self._held:
            self._write_run()
        for together in _overlapping(self._runs):
            yield from self._merged(together, names)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The same as plain values."""
        for table in self.tables():
            yield from zip(*(column.to_pylist() for column in table.columns), strict=True)

    # ---- inside ----

    def _joined(self) -> pa.Table:
        return pa.concat_tables([self.schema.empty_table(), *self._held])

    def _write_run(self) -> None:
        table = _by(self._joined(), self._key)
        keys = table[self._key]
        blocks = [
            self._stored.append(table.slice(start, _BLOCK_ROWS)) for start in range(0, table.num_rows, _BLOCK_ROWS)
        ]
        self._runs.append(_Run(keys[0].as_py(), keys[-1].as_py(), blocks))
        self._held, self._held_rows = [], 0

    def _blocks(self, run: _Run) -> Iterator[pa.Table]:
        return map(self._stored.read, run.blocks)

    def _merged(self, runs: Sequence[_Run], names: Sequence[str]) -> Iterator[pa.Table]:
        if len(runs) == 1:
            yield from (table.select(names) for table in self._blocks(runs[0]))
            return
        cursors = [SortedCursor(self._blocks(run), self.schema, self._key) for run in runs]
        yield from (table.select(names) for table in merged(cursors))


def _overlapping(runs: Iterable[_Run]) -> Iterator[list[_Run]]:
    """The runs in order of key, those together that have to be merged, each such group as it was written."""
    group: list[tuple[int, _Run]] = []
    last = ""
    for place, run in sorted(enumerate(runs), key=lambda found: found[1].first):
        if group and run.first > last:
            yield [each for _, each in sorted(group, key=lambda found: found[0])]
            group = []
        group.append((place, run))
        last = max(last, run.last) if len(group) > 1 else run.last
    if group:
        yield [each for _, each in sorted(group, key=lambda found: found[0])]
