"""Joins the tables of shards into one, row by row in the collection's order, a batch in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.labels.report import tables
from cxrprep.labels.report.batches import BATCH
from cxrprep.model import Shard
from cxrprep.schemas import FOOTER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Joined:
    """The table of all shards, or ``None`` and the shards that are still to come (or were made by other rules)."""

    labels: Path | None
    waiting_for: tuple[int, ...] = ()


def shard_folder(out_dir: Path, shard: Shard) -> Path:
    """Where one shard's tables lie until all are there, and after."""
    return out_dir / "shards" / f"{shard.index}-of-{shard.count}"


def merge_shards(out_dir: Path, shard: Shard) -> Joined:
    """Join the tables of all shards, once the last is there: the bytes of a run without shards.

    Shards that were made by other rules, or from another source, than ``shard`` count as not there. They stay where
    they are, since two that end in the same moment both join them. Raises ``StorageError``.
    """
    folders = [shard_folder(out_dir, Shard(index, shard.count)) for index in range(1, shard.count + 1)]
    ours = tables.making(shard_folder(out_dir, shard) / f"{tables.LABELS_NAME}.parquet")
    waiting = tuple(
        index
        for index, folder in enumerate(folders, 1)
        if ours is None or tables.making(folder / f"{tables.LABELS_NAME}.parquet") != ours
    )
    if waiting:
        return Joined(None, waiting)
    if all((folder / f"{tables.MENTIONS_NAME}.parquet").exists() for folder in folders):
        _join(folders, tables.MENTIONS_NAME, out_dir)
    return Joined(_join(folders, tables.LABELS_NAME, out_dir))


def _join(folders: Sequence[Path], name: str, out_dir: Path) -> Path:
    paths = [folder / f"{name}.parquet" for folder in folders]
    found = pq.read_schema(paths[0])
    target = out_dir / f"{name}.parquet"
    footer = {FOOTER_KEY: found.metadata[FOOTER_KEY]}
    tables.write_stream(_batches(paths), found.remove_metadata(), target, footer)
    return target


def _batches(paths: Sequence[Path]) -> Iterator[pa.Table]:
    shards = [_Shard(path) for path in paths]
    begin = 0
    while any(not shard.exhausted for shard in shards):
        found = pa.concat_tables([shard.below(begin + BATCH) for shard in shards])
        # Rows of one report stand together in one shard and keep their order: the sort is stable.
        order = pc.sort_indices(found, [("row", "ascending")])
        yield found.take(order)
        begin += BATCH


class _Shard:
    """The rows of one shard's table, handed out in order."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self._group = 0
        self._rest: pa.Table = self._file.schema_arrow.empty_table()

    @property
    def exhausted(self) -> bool:
        """Whether every row was handed out."""
        return bool(self._rest.num_rows == 0 and self._group >= self._file.num_row_groups)

    def below(self, row: int) -> pa.Table:
        """The rows not yet handed out whose report stands before ``row``."""
        while self._group < self._file.num_row_groups and not self._reaches(row):
            self._rest = pa.concat_tables([self._rest, self._file.read_row_group(self._group)])
            self._group += 1
        inside: Any = pc.less(self._rest["row"], row)
        found = self._rest.filter(inside)
        self._rest = self._rest.filter(pc.invert(inside))
        return found

    def _reaches(self, row: int) -> bool:
        return bool(self._rest.num_rows > 0 and self._rest["row"][-1].as_py() >= row)
