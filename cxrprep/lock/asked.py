"""What downloads into a folder asked for, file by file: what must be here, whatever else the release has.

``.cxrprep/asked/`` holds a list of release paths for each selection (and shard of it), as the mirror listed them when
the download began. Like all of ``.cxrprep`` it may be lost; a missing file that was never fetched then goes unnoticed,
and the report says that this was not checked.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.durable import replace_file
from cxrprep.lock.table import texts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cxrprep.model import Selection, Shard

SCHEMA: Final = pa.schema([("path", pa.string())])
_FOLDER: Final = "asked"


def remember(cache: Path, selection: Selection, paths: Iterable[str], shard: Shard | None = None) -> None:
    """Keep what a download of ``selection`` is about to fetch; a later one of the same selection replaces it.

    Raises ``StorageError`` when the disk refuses.
    """
    table = pa.Table.from_arrays([texts(list(paths))], schema=SCHEMA)
    kept = cache / _FOLDER / _name(selection, shard)
    if not _holds(kept, table):
        replace_file(kept, lambda part: pq.write_table(table, part, compression="zstd"))


def _holds(path: Path, table: pa.Table) -> bool:
    try:
        # Not pq.read_table: it loads pyarrow.dataset, which takes longer than reading the list.
        with pq.ParquetFile(path) as file:
            return bool(file.read(use_threads=False).equals(table))
    except (OSError, pa.ArrowException):
        return False


def asked(cache: Path) -> pa.Array | None:
    """All release paths that were asked for, sorted; ``None`` where no list is left, or one cannot be read."""
    lists = []
    for path in sorted((cache / _FOLDER).glob("*.parquet")):
        try:
            lists.append(pq.read_table(path, columns=["path"]).cast(SCHEMA)["path"].combine_chunks())
        except (OSError, KeyError, ValueError, pa.ArrowException):
            return None
    return pa.concat_arrays(lists).unique().sort() if lists else None


def _name(selection: Selection, shard: Shard | None) -> str:
    said = {name: _plain(getattr(selection, name)) for name in selection.__slots__}
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=10).hexdigest()
    return f"{digest}{f'.{shard.index}-of-{shard.count}' if shard is not None else ''}.parquet"


def _plain(value: object) -> object:
    if isinstance(value, (frozenset, tuple)):
        return sorted(map(str, value))
    return value
