"""Merge join of the files on disk with those that are recorded or published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.record.entry import FileState
from cxrprep.storage.sorted_tables import PATHS, Rows, SortedCursor
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


_RECORDED: Final = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("digest", pa.string()), ("origin", pa.string())]
)
_PUBLISHED: Final = pa.schema([("path", pa.string()), ("digest", pa.string())])


class Row(NamedTuple):
    """A file on the disk beside what is known of it; ``None`` where nothing is."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    recorded_size: int | None
    recorded: str | None
    origin: str | None
    published: str | None
    known: str | None
    """Digests of an earlier check, when size, time and inode are still the same."""
    stated: str | None
    """The digest that a store states."""


def merge_join(
    disk: Iterable[pa.Table], record: Rows, published: Rows, known: Callable[[pa.Table], pa.ChunkedArray] | None
) -> Iterator[pa.Table]:
    """Each file on the disk with what is known of it. Everything is sorted by path.

    Args:
        disk: Tables of the files that are here.
        record: The files that are recorded.
        published: The digests that are published.
        known: Answers what earlier runs know of a part of the disk, one after another (see ``Checks.known``).

    Yields:
        Tables with the columns of ``Row``, as many rows at a time as ``disk`` gives.
    """
    recorded_rows = SortedCursor(_as(record, _RECORDED), _RECORDED)
    published_rows = SortedCursor(_as(published, _PUBLISHED), _PUBLISHED)
    for here in disk:
        last = here["path"][-1].as_py()
        near, stated = recorded_rows.upto(last), published_rows.upto(last)
        near = near.take(pc.index_in(here["path"], value_set=near["path"]))
        stated = stated.take(pc.index_in(here["path"], value_set=stated["path"]))
        yield pa.table(
            {
                "path": here["path"],
                "size": here["size"],
                "mtime_ns": here["mtime_ns"],
                "inode": here["inode"],
                "recorded_size": near["size"],
                "recorded": near["digest"],
                "origin": near["origin"],
                "published": stated["digest"],
                "known": pa.nulls(here.num_rows, pa.string()) if known is None else known(here),
                "stated": here["stated"],
            }
        )


def rows(table: pa.Table) -> Iterator[Row]:
    """The rows of such a table."""
    return map(Row._make, zip(*(column.to_pylist() for column in table.columns), strict=True))


def _as(rows: Rows, schema: pa.Schema) -> Iterator[pa.Table]:
    return (table.cast(schema) for table in rows.tables(schema.names))


def absent(disk: Rows, record: Rows, demanded: Mapping[str, Iterable[Rows]]) -> Iterator[Finding]:
    """The files that should be here and are not: recorded ones, and those of ``demanded`` that were not discarded.

    ``demanded`` has release paths by the reason why they should be here; a path is told once.
    """
    for part in _lacking(record.tables(["path", "size", "state"]), disk):
        gone = part.filter(pc.equal(part["state"].cast(pa.string()), str(FileState.HERE)))
        for path, size in zip(gone["path"].to_pylist(), gone["size"].to_pylist(), strict=True):
            yield make_finding(Kind.MISSING, path, "it was here when it was recorded", expected=size)
    reported: set[str] = set()
    for why, several in demanded.items():
        for paths in several:
            for part in _lacking(_lacking(paths.tables(["path"]), disk), record):
                for path in part["path"].to_pylist():
                    if path not in reported:
                        reported.add(path)
                        yield make_finding(Kind.MISSING, path, why)


def _lacking(wanted: Iterable[pa.Table], there: Rows) -> Iterator[pa.Table]:
    """The rows of ``wanted`` whose path is not in ``there``; both are sorted by path."""
    walk = SortedCursor(there.tables(["path"]), PATHS)
    for part in wanted:
        if part.num_rows:
            near = walk.upto(part["path"][-1].as_py())
            # Of a path that appears twice, the second may be the first of the next part.
            walk.back(near)
            yield part.filter(pc.invert(pc.is_in(part["path"], value_set=near["path"])))
