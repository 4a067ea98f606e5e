"""What earlier checks found, so that an interrupted one goes on and a quick one need not read.

``.cxrprep/checks.parquet`` has, for every file of the last full checks, its size, modification time, inode and digests
at that moment. A check in progress writes a journal under ``.cxrprep/checks/``; whoever finishes folds it in.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.durable import Journal, journal_name, read_journal, replace_file, writer_is_gone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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


_ROWS: Final = 16_384
# A check that nobody went on with for a week is forgotten: what it read says too little about today.
_MEMORY_SECONDS: Final = 7 * 86_400


class Checked(NamedTuple):
    """A file as it was when it was read; ``digests`` is ``"sha256:... md5:..."``."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    digests: str


class Checks:
    """The memory of checks of one folder; a damaged or missing one is an empty one."""

    def __init__(self, cache: Path) -> None:
        """Read what earlier and interrupted checks left in the folder ``cache``."""
        self._path = cache / "checks.parquet"
        self._folder = cache / "checks"
        self._journal = Journal(self._folder / journal_name())
        self.finished = self._read()
        journals = sorted(self._folder.glob("*.jsonl"))
        self._old = [path for path in journals if time.time() - path.stat().st_mtime > _MEMORY_SECONDS]
        self._others = [path for path in journals if path not in self._old]
        self.interrupted = _read_all(self._others)

    def known(self, disk: pa.Table, *, quick: bool) -> pa.ChunkedArray:
        """For each row of ``disk`` the digests found when size, time and inode were the same; else null.

        An interrupted check is always gone on with; ``quick`` believes finished ones too.
        """
        sources = [self.interrupted, self.finished] if quick else [self.interrupted]
        known = pa.chunked_array([pa.nulls(disk.num_rows, pa.string())])
        for source in sources:
            if source.num_rows == 0:
                continue
            same = source.take(pc.index_in(disk["path"], value_set=source["path"]))
            unchanged = pc.and_(
                pc.and_(pc.equal(same["size"], disk["size"]), pc.equal(same["mtime_ns"], disk["mtime_ns"])),
                pc.equal(same["inode"], disk["inode"]),
            )
            known = pc.coalesce(known, pc.if_else(unchanged, same["digests"], None))
        return known

    def add(self, files: Iterable[Checked]) -> None:
        """Remember files that were just read, so that a killed check need not read them again."""
        self._journal.append({"files": [list(one) for one in files]})

    def finish(self, disk: pa.Table) -> None:
        """Fold this check into the memory; files that are no longer on ``disk`` are dropped."""
        self._journal.close()
        merged = pa.concat_tables([self.finished, self.interrupted, _read_all([self._journal.path])])
        if merged.num_rows:
            # The last word on a path counts: look paths up from the end.
            newest = merged.take(pa.array(range(merged.num_rows - 1, -1, -1), pa.int64()))
            places = pc.index_in(disk["path"], value_set=newest["path"])
            merged = newest.take(places.drop_null())
        replace_file(self._path, lambda part: pq.write_table(merged, part, compression="zstd"))
        for path in (*self._old, *self._others, self._journal.path):
            # The other shards of a job array are still writing theirs.
            if path in self._old or path == self._journal.path or writer_is_gone(path.name):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what was read so far; the next check goes on from there."""
        self._journal.close()

    def _read(self) -> pa.Table:
        try:
            with pq.ParquetFile(self._path) as file:
                return file.read(use_threads=False).select(SCHEMA.names).cast(SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException):
            # A cache: what cannot be read is read from the files themselves.
            return SCHEMA.empty_table()


def _read_all(journals: list[Path]) -> pa.Table:
    rows = (
        row
        for path in journals
        for item, _ in read_journal(path)
        for row in item.get("files", ())
        if isinstance(row, list) and len(row) == len(SCHEMA)
    )
    try:
        return pa.Table.from_batches(iter(partial(_next_batch, rows), None), SCHEMA)
    except (TypeError, ValueError, pa.ArrowException):
        return SCHEMA.empty_table()


def _next_batch(rows: Iterator[list[object]]) -> pa.RecordBatch | None:
    taken = list(islice(rows, _ROWS))
    if not taken:
        return None
    columns = [pa.array(values, field.type) for values, field in zip(zip(*taken, strict=True), SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
