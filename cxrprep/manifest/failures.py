"""``failures.parquet``: what failed in the last run, a row an item; absent when nothing did."""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.manifest import FAILURES_NAME
from cxrprep.schemas import FAILURES
from cxrprep.storage.parquet import read_rows, write_table

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_ROWS: Final = 8192
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that failed; ``error`` is the class of the error, ``hint`` what to do about it."""

    path: str
    stage: str
    error: str
    message: str
    hint: str = ""
    image_id: str | None = None


class FailureRows:
    """Failures, gathered one by one and kept as columns, for a folder in which everything fails.

    ``first`` are the messages that come first in the alphabet, for a person.
    """

    def __init__(self) -> None:
        self.first: list[str] = []
        self._tables: list[pa.Table] = []
        self._rows: list[Failure] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._rows) + sum(len(table) for table in self._tables)

    def add(self, failure: Failure) -> None:
        """Take one in."""
        bisect.insort(self.first, failure.message)
        del self.first[_SHOWN:]
        self._rows.append(failure)
        if len(self._rows) == _ROWS:
            self._fold()

    def _fold(self) -> None:
        self._tables.append(pa.Table.from_pylist([asdict(failure) for failure in self._rows], schema=FAILURES))
        self._rows = []

    def table(self) -> pa.Table:
        """All of them, sorted by path."""
        self._fold()
        return pa.concat_tables(self._tables).unify_dictionaries().sort_by("path").combine_chunks()


def write_failures(failures: FailureRows, folder: Path) -> Path | None:
    """Write ``failures.parquet`` into ``folder``, sorted by path; without failures an earlier one is removed."""
    path = folder / FAILURES_NAME
    if not len(failures):
        path.unlink(missing_ok=True)
        return None
    write_table(failures.table(), path, name="failures", made_from={}, listed=False)
    return path


def forget_failures(paths: Collection[str], folder: Path) -> None:
    """Take items that were done since out of ``failures.parquet`` of ``folder``."""
    if failed_paths(folder) & frozenset(paths):
        path = folder / FAILURES_NAME
        left = read_rows(path)
        left = left.filter(pc.invert(pc.is_in(left["path"], pa.array(sorted(paths), left["path"].type))))
        if left.num_rows:
            write_table(left, path, name="failures", made_from={}, listed=False)
        else:
            path.unlink()


def failed_paths(folder: Path) -> frozenset[str]:
    """The items that ``failures.parquet`` of ``folder`` names; none where there is no table that can be read."""
    try:
        return frozenset(read_rows(folder / FAILURES_NAME, columns=["path"]).column("path").to_pylist())
    except (OSError, pa.ArrowException):
        return frozenset()
