"""Loading and saving a folder's record: the lock file, the file table, and the journals beside them."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

from cxrprep.errors import IntegrityError, storage_error
from cxrprep.record import file_table as files
from cxrprep.record.lockfile import MEND, Header, load_header

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


LOCK_NAME: Final = "cxrprep.lock"


FILES_NAME: Final = "cxrprep.files.parquet"


CACHE_NAME: Final = ".cxrprep"


_TORN_READS: Final = 4


_TORN_WAIT: Final = 0.1


def _stored_header(home: Path) -> Header:
    path = home / LOCK_NAME
    try:
        return load_header(path) if path.exists() else Header()
    except OSError as error:
        raise storage_error(path, "read", error) from error


def _load(home: Path) -> tuple[Header, pa.Table | None, dict[str, int]]:
    """Header, file table if there is one, and how far each journal is in it.

    Raises ``IntegrityError`` for a damaged record.
    """
    for _ in range(_TORN_READS):
        try:
            return _load_once(home)
        except IntegrityError:
            # Header and table are two files: another process may have put one in place after we read the other.
            time.sleep(_TORN_WAIT)
    return _load_once(home)


def _load_once(home: Path) -> tuple[Header, pa.Table | None, dict[str, int]]:
    lock, listing = home / LOCK_NAME, home / FILES_NAME
    header = _stored_header(home)
    if not listing.exists():
        if header.table is not None:
            raise IntegrityError(f"{listing} is missing, though {lock.name} describes it", hint=MEND)
        return header, None, {}
    table, state = files.read(listing)
    generation, read_to = state.get("generation"), state.get("journals")
    if not isinstance(generation, int) or not isinstance(read_to, dict):
        raise IntegrityError(f"{listing} is damaged: its metadata has no generation", hint=MEND)
    # One generation ahead: a run was killed between putting the table and the header in place.
    if lock.exists() and generation not in (header.generation, header.generation + 1):
        raise IntegrityError(f"{listing} and {lock.name} do not belong together", hint=MEND)
    digest = files.digest_of(listing)
    if generation == header.generation and digest != header.table:
        raise IntegrityError(f"{listing} was altered since {lock.name} was written", hint=MEND)
    header = dataclasses.replace(header, generation=generation, files=table.num_rows, table=digest)
    return header, table, {str(name): int(offset) for name, offset in read_to.items()}
