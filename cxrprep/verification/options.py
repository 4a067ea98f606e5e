"""Options of a verification: how far to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cxrprep.verification.finding import Kind

if TYPE_CHECKING:
    from cxrprep.model import Shard


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How far to look.

    ``quick`` believes size, time and inode of the last full check. ``complete`` demands the whole release. ``strict``
    counts warnings and notes as faults, but for the kinds in ``accept``. ``images`` decodes images, all or a ``sample``
    drawn by ``seed``; ``duplicates`` looks for images with the same pixels. ``jobs`` processes read files; ``None``
    means one per core.
    """

    quick: bool = False
    complete: bool = False
    strict: bool = False
    accept: frozenset[Kind] = frozenset()
    images: bool = False
    duplicates: bool = False
    sample: int | None = None
    seed: int = 0
    shard: Shard | None = None
    jobs: int | None = None

    @property
    def demanded(self) -> frozenset[Kind]:
        """The kinds of warnings and notes that count as faults."""
        return frozenset(Kind) - self.accept if self.strict else frozenset()

    @property
    def table_name(self) -> str:
        """The name of the table of findings: each part of a job array has one of its own."""
        return "verify.parquet" if self.shard is None else f"verify.{self.shard.in_names}.parquet"

    def mask(self, paths: list[str]) -> pa.Array:
        """Which paths are those of the part of a job array that is checked: all of them without one."""
        return pa.array([self.shard is None or self.shard.holds(path) for path in paths], pa.bool_())
