"""Cache of checks, so that an interrupted verification goes on and a quick one reads little.

``.cxrprep/checks.parquet`` has, for every file of the last full checks, its size, modification time, inode and digests
at that moment. A check in progress writes a journal under ``.cxrprep/checks/``; whoever finishes folds it in.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.storage.atomic import replace_file
from cxrprep.storage.journal import Journal, journal_name, read_journal
from cxrprep.storage.locks import writer_is_gone
from cxrprep.storage.small_files import regular
from cxrprep.storage.sorted_tables import PART_ROWS, Rows, SortedCursor, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("digests", pa.string()),
    ]
)


# A check that nobody went on with for a week is forgotten: what it read says too little about today.
_MEMORY_SECONDS: Final = 7 * 86_400


class Checks:
    """The memory of checks of one folder; a damaged or missing one is an empty one."""

    def __init__(self, cache: Path) -> None:
        """Read what earlier and interrupted checks left in the folder ``cache``."""
        self._path = cache / "checks.parquet"
        self._folder = cache / "checks"
        self._journal = Journal(self._folder / journal_name())
        journals = sorted(self._folder.glob("*.jsonl"))
        self._old = [path for path in journals if time.time() - path.stat().st_mtime > _MEMORY_SECONDS]
        self._others = [path for path in journals if path not in self._old]

    def known(self, *, quick: bool) -> Callable[[pa.Table], pa.ChunkedArray]:
        """What to ask, for one part of the disk after another, for the digests found when its files were the same.

        Null where size, modification time or inode differ, or nothing is known. An interrupted check is always gone on
        with; ``quick`` believes finished ones too.
        """
        walks = [SortedCursor(self._interrupted(), SCHEMA)] if self._others else []
        if quick:
            walks.append(SortedCursor(self._finished(), SCHEMA))

        def ask(disk: pa.Table) -> pa.ChunkedArray:
            known = pa.chunked_array([pa.nulls(disk.num_rows, pa.string())])
            for walk in walks:
                source = walk.among(disk["path"])
                same = source.take(pc.index_in(disk["path"], value_set=source["path"]))
                unchanged = pc.and_(
                    pc.and_(pc.equal(same["size"], disk["size"]), pc.equal(same["mtime_ns"], disk["mtime_ns"])),
                    pc.equal(same["inode"], disk["inode"]),
                )
                known = pc.coalesce(known, pc.if_else(unchanged, same["digests"], None))
            return known

        return ask

    def add(self, files: pa.Table) -> None:
        """Remember files that were just read (``SCHEMA``), so that a killed check need not read them again."""
        if files.num_rows:
            self._journal.append({name: files[name].to_pylist() for name in SCHEMA.names})

    def finish(self, disk: Rows, *, keep_others: bool = False) -> None:
        """Fold this check into the memory; of files that are not on ``disk`` only with ``keep_others``."""
        self._journal.close()

        def write(part: Path) -> None:
            # Newest first: the first word on a path counts. A journal has its files in the order of the disk.
            walks = [
                SortedCursor(tables, SCHEMA)
                for tables in (_read_journals([self._journal.path]), self._interrupted(), self._finished())
            ]
            with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
                for here in disk.tables(["path"]):
                    last = here["path"][-1].as_py()
                    rows = _first_each(pa.concat_tables([walk.upto(last) for walk in walks]))
                    if not keep_others:
                        rows = rows.filter(pc.is_in(rows["path"], value_set=here["path"]))
                    writer.write_table(rows)
                if keep_others:
                    writer.write_table(_first_each(pa.concat_tables([walk.upto(None) for walk in walks])))

        replace_file(self._path, write)
        for path in (*self._old, *self._others, self._journal.path):
            # The other shards of a job array are still writing theirs.
            if path in self._old or path == self._journal.path or writer_is_gone(path.name):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what was read so far; the next check goes on from there."""
        self._journal.close()

    def _interrupted(self) -> Iterator[pa.Table]:
        rows = list(_read_journals(self._others[::-1]))
        if rows:
            yield from parts(_first_each(pa.concat_tables(rows)))

    def _finished(self) -> Iterator[pa.Table]:
        try:
            with pq.ParquetFile(regular(self._path)) as file:
                for batch in file.iter_batches(batch_size=PART_ROWS, use_threads=False):
                    yield pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException):
            # A cache: what cannot be read here is read from the files themselves.
            return


def _first_each(rows: pa.Table) -> pa.Table:
    """The first row of every path, sorted by path."""
    paths = rows["path"]
    return rows.take(pc.index_in(pc.unique(paths), value_set=paths)).sort_by("path")


def _read_journals(journals: list[Path]) -> Iterator[pa.Table]:
    for path in journals:
        for item, _ in read_journal(path):
            try:
                columns = [pa.array(item[field.name], field.type) for field in SCHEMA]
                yield pa.Table.from_arrays(columns, schema=SCHEMA)
            except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException):
                # A cache: what cannot be read here is read from the files themselves.
                continue
