"""The rows of a small record as text, beside its table: a download with nothing to do loads no pyarrow.

measured: 0.64 -> 0.50 s of CPU time (medians of 9 runs on a busy machine) on `nothing` of benchmarks/download.py,
20,000 files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.record import file_table as files
from cxrprep.storage.paths import first_unsafe
from cxrprep.storage.small_files import parse_json, regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.model import Digest

_NAME: Final = "record.json"
# What a plan asks for. Of more rows pyarrow is the quicker reader, itself included.
_COLUMNS: Final = ("path", "size", "digest", "validator", "state", "archive")
_MOST: Final = 50_000


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Columns of a file table that nobody has read, and the state in its metadata."""

    state: dict[str, Any]
    columns: dict[str, list[Any]]

    @property
    def num_rows(self) -> int:
        """How many files there are."""
        return len(self.columns["path"])

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]] | None:
        """The values of these columns, row by row; ``None`` where one of them was not kept."""
        if not self.columns.keys() >= set(names):
            return None
        return zip(*(self.columns[name] for name in names), strict=True)


def write_rows(cache: Path, table: pa.Table, state: Mapping[str, Any], digest: Digest) -> None:
    """Keep the rows of a table; where the disk refuses, they are read from its file.

    Args:
        cache: The folder's cache.
        table: The rows.
        state: The words in the metadata of the file.
        digest: Of the file.
    """
    if table.num_rows > min(_MOST, files.LARGE):
        return
    columns = dict(zip(_COLUMNS, map(list, zip(*files.rows(table, _COLUMNS), strict=True)), strict=False))
    text = json.dumps([str(digest), state, columns]).encode()
    with contextlib.suppress(OSError):
        # Neither atomic nor synchronised: its checksum says whether it is whole.
        (cache / _NAME).write_bytes(_checksum(text) + text)


def read_rows(cache: Path, listing: Path) -> PlainRows | None:
    """The rows of the table in ``listing``; ``None`` where none are kept, or those of another one."""
    try:
        data = regular(cache / _NAME).read_bytes()
        text = data[hashlib.sha256().digest_size :]
        if _checksum(text) != data[: -len(text)]:
            return None
        digest, state, columns = parse_json(text)
        whole = digest == str(files.digest_of(listing)) and first_unsafe(columns["path"]) is None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return PlainRows(state, columns) if whole else None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
