"""The files of a folder of any kind, with their digests, as one table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.lineage import FolderKind, Lineage, ShardFile
from cxrprep.errors import TableError
from cxrprep.storage.parquet import read_rows, read_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cxrprep.record.record import Record

SCHEMA: Final = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("digest", pa.string()), ("state", pa.string())]
)


def files_of(record: Record, lineage: Lineage | None, image_tables: Sequence[Path]) -> pa.Table:
    """Path, size in bytes, digest and state of every file that a folder should hold, sorted by path.

    ``digest`` is null where none is known. Raises ``TableError`` for an image table that cannot be read.
    """
    if lineage is None:
        table = record.table(["path", "size", "digest", "state"])
        return table.cast(SCHEMA).replace_schema_metadata(None)
    if lineage.kind is FolderKind.EXPORTED or lineage.form != "files":
        return _of_shards(lineage.shards)
    return pa.concat_tables([_of_images(path) for path in image_tables]).sort_by("path").combine_chunks()


def _of_shards(shards: Iterable[ShardFile]) -> pa.Table:
    rows = sorted(shards, key=lambda shard: shard.name)
    columns = [
        pa.array([shard.name for shard in rows], pa.string()),
        pa.array([shard.size if shard.size >= 0 else None for shard in rows], pa.int64()),
        pa.array([shard.digest or None for shard in rows], pa.string()),
        pa.array(["here"] * len(rows), pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _of_images(path: Path) -> pa.Table:
    try:
        return files_of_images(read_rows(path, columns=["path", "bytes", "digest"]))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="convert again into this folder") from error


_ROW: Final = ("path", "bytes", "digest", "width", "height", "source_path", "source_digest")
_IN_SHARD: Final = re.compile(r"(.+?\.(?:tar|parquet))/")


def image_rows(tables: Sequence[Path]) -> pa.Table:
    """Of each image that the image tables name: path, bytes, digest, width, height in pixels, and its source's digest.

    Raises ``TableError`` for one that cannot be read.
    """
    return pa.concat_tables([_rows_of(path) for path in tables])


def _rows_of(path: Path) -> pa.Table:
    try:
        names = set(read_schema(path).names)
        table = read_rows(path, columns=[name for name in _ROW if name in names])
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="convert again into this folder") from error
    for name in _ROW:
        if name not in names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table.select(list(_ROW))


def files_of_images(images: pa.Table) -> pa.Table:
    """The files of a folder of which only the image table says anything."""
    columns = [*(images[name].combine_chunks() for name in ("path", "bytes", "digest")), ["here"] * images.num_rows]
    return pa.table(columns, names=SCHEMA.names).cast(SCHEMA)


def with_others(files: pa.Table, others: pa.Table) -> pa.Table:
    """``files`` and those of ``others`` that are none of them, sorted by path."""
    new = pc.invert(pc.is_in(others["path"], value_set=files["path"].combine_chunks()))
    return pa.concat_tables([files, others.filter(new)]).sort_by("path").combine_chunks()


def shards_of_images(images: pa.Table) -> pa.Table:
    """The shards of a folder whose table has no digests of them (earlier versions wrote none): their names alone."""
    found = map(_IN_SHARD.match, images["path"].to_pylist())
    return _of_shards(ShardFile(name, -1, "") for name in sorted({match[1] for match in found if match is not None}))
