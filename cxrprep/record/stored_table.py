"""File table of a large record: looked up, read through and replaced on the disk, without being held in memory."""

from __future__ import annotations

import bisect
import threading
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.record import file_table as files
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.parquet import row_groups
from cxrprep.storage.sorted_tables import SortedCursor, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cxrprep.model import Digest
    from cxrprep.record.entry import FileEntry

# Row groups that are kept for the next question after a path: threads ask in order, each a little behind another.
_GROUPS_HELD: Final = 4


class FileTable:
    """The rows in a Parquet file, as it was when it was opened; another one in its place changes nothing."""

    def __init__(self, path: Path) -> None:
        """Open it and check all rows. Raises what ``file_table.read`` explains."""
        self._parquet = pq.ParquetFile(path)
        self._mutex = threading.Lock()
        self._held: dict[int, pa.Table] = {}
        self._ends: list[str] = []
        self.num_rows, self.size = self._parquet.metadata.num_rows, 0
        self.unsafe: str | None = None
        before = ""
        for group in self._groups(["path", "size"]):
            self.unsafe = self.unsafe or files.unsafe_path(group)
            if self._ends and group["path"][0].as_py() <= before:
                raise ValueError("rows out of order")
            before = group["path"][-1].as_py()
            self._ends.append(before)
            self.size += pc.sum(group["size"]).as_py()

    def find(self, path: str) -> FileEntry | None:
        """The entry of a path, or ``None``."""
        number = bisect.bisect_left(self._ends, path)
        if number == len(self._ends):
            return None
        with self._mutex:
            group = self._held.get(number)
        if group is None:
            group = self._group(number, None)
            with self._mutex:
                self._held[number] = group
                while len(self._held) > _GROUPS_HELD:
                    del self._held[next(iter(self._held))]
        return files.find_entry(group, path)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order of path, some thousands at a time."""
        for group in self._groups(columns):
            yield from parts(group)

    def _groups(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        for number in range(self._parquet.num_row_groups):
            group = self._group(number, columns)
            if group.num_rows:
                yield group

    def _group(self, number: int, columns: Sequence[str] | None) -> pa.Table:
        there = self._parquet.schema_arrow.names
        names = None if columns is None else [name for name in columns if name in there]
        with self._mutex:
            group = self._parquet.read_row_group(number, columns=names, use_threads=False)
        return files.as_stated(group, columns)


class ChangedTable:
    """A stored table with what was changed since: rows that were added or replaced, and paths that were taken out."""

    def __init__(self, stored: FileTable) -> None:
        """Nothing was changed yet."""
        self._stored = stored
        self._changed = files.empty()
        self._removed: frozenset[str] = frozenset()

    @property
    def changes(self) -> int:
        """How many rows are in memory."""
        return int(self._changed.num_rows) + len(self._removed)

    def with_changes(self, changes: Mapping[str, FileEntry | None]) -> ChangedTable:
        """The same with more changes."""
        made = ChangedTable(self._stored)
        made._changed = files.merge(self._changed, changes)
        gone = {path for path, entry in changes.items() if entry is None}
        made._removed = (self._removed | gone) - (changes.keys() - gone)
        return made

    def find(self, path: str) -> FileEntry | None:
        """The entry of a path, or ``None``."""
        if path in self._removed:
            return None
        return files.find_entry(self._changed, path) or self._stored.find(path)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order of path, some thousands at a time."""
        if not self.changes:
            yield from self._stored.tables(columns)
            return
        wanted = list(dict.fromkeys(["path", *(files.schema().names if columns is None else columns)]))
        changed = self._changed.select(wanted)
        walk = SortedCursor(parts(changed), changed.schema)
        removed = pa.array(sorted(self._removed), pa.string())
        shown = wanted if columns is None else list(columns)
        for part in self._stored.tables(wanted):
            near = walk.upto(part["path"][-1].as_py())
            for paths in (near["path"], removed):
                if len(paths):
                    part = part.filter(pc.invert(pc.is_in(part["path"], value_set=paths)))  # noqa: PLW2901  # what is left of it
            if near.num_rows:
                part = pa.concat_tables([part, near]).unify_dictionaries().sort_by("path")  # noqa: PLW2901  # likewise
            if part.num_rows:
                yield part.select(shown)
        yield from (part.select(shown) for part in parts(walk.upto(None)))

    @property
    def num_rows(self) -> int:
        """How many files there are."""
        if not self.changes:
            return int(self._stored.num_rows)
        return sum(table.num_rows for table in self.tables(["path"]))


def write(
    tables: Iterable[pa.Table], path: Path, state: Mapping[str, Any], check: Callable[[], None] | None = None
) -> tuple[Digest, int, int]:
    """Write the table of a record from parts of it that follow one another.

    Args:
        tables: The parts.
        path: The file.
        state: Words for its metadata.
        check: Asked before the file gets its name: see ``replace_file``.

    Returns:
        The digest of the file, its rows, and the bytes of all files together.

    Raises:
        StorageError: The disk refuses.
    """
    count, size = 0, 0

    def fill(part: Path) -> None:
        nonlocal count, size
        with files.writer(part, state) as writer:
            for group in row_groups(tables, files.ROW_GROUP):
                writer.write_table(group, row_group_size=group.num_rows)
                count += group.num_rows
                size += pc.sum(group["size"]).as_py()

    replace_file(path, fill, check)
    return files.digest_of(path), count, size
