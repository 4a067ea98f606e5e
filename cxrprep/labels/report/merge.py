"""Joins the tables of shards into one, row by row in the collection's order, a batch in memory at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.errors import UsageError
from cxrprep.labels.report import tables
from cxrprep.schemas import FOOTER_KEY, read_footer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def merge(out_dir: Path, count: int, batch: int) -> tuple[Path, Path | None, dict[str, int]]:
    """Write the joined tables; returns their paths and how many reports have which status."""
    labels = _join(out_dir, tables.LABELS_NAME, count, batch)
    if labels is None:
        raise UsageError(
            f"{out_dir} does not hold the tables of all {count} shards", hint="run the shards that are missing"
        )
    mentions = _join(out_dir, tables.MENTIONS_NAME, count, batch)
    statuses = pq.read_table(labels, columns=["status"])["status"].cast(pa.string()).value_counts().to_pylist()
    return labels, mentions, dict(sorted((row["values"], row["counts"]) for row in statuses))


def _join(out_dir: Path, name: str, count: int, batch: int) -> Path | None:
    paths = [out_dir / f"{name}-{index}-of-{count}.parquet" for index in range(1, count + 1)]
    paths = [path for path in paths if path.exists() or name == tables.LABELS_NAME]
    if not paths or not all(path.exists() for path in paths):
        return None
    footers = {json.dumps(read_footer(path), sort_keys=True) for path in paths}
    if len(footers) > 1:
        raise UsageError(
            f"the {name} of the shards in {out_dir} were made by different rules", hint="run them all again"
        )
    metadata = pq.read_schema(paths[0]).metadata
    schema = pq.read_schema(paths[0]).remove_metadata()
    target = out_dir / f"{name}.parquet"
    tables.write_stream(_batches(paths, batch), schema, target, {FOOTER_KEY: metadata[FOOTER_KEY]})
    return target


def _batches(paths: Sequence[Path], batch: int) -> Iterator[pa.Table]:
    shards = [_Shard(path) for path in paths]
    begin = 0
    while any(not shard.exhausted for shard in shards):
        found = pa.concat_tables([shard.below(begin + batch) for shard in shards])
        # Rows of one report stand together in one shard and keep their order: the sort is stable.
        order = pc.sort_indices(found, [("row", "ascending")])
        yield found.take(order)
        begin += batch


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
