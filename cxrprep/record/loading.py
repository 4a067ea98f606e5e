"""Loading and saving a folder's record: the lock file, the file table, and the journals beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import IntegrityError, UnsafePathError, storage_error, storage_errors
from cxrprep.record import file_table as files
from cxrprep.record.lockfile import MEND, Header, dump_header, load_header
from cxrprep.record.plain_rows import PlainRows, read_rows
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.locks import SaveLock
from cxrprep.storage.paths import CACHE_NAME, FILES_NAME, LOCK_NAME
from cxrprep.storage.small_files import parse_json, regular
from cxrprep.system import FILES_AT_ONCE

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.record.stored_table import ChangedTable


_TORN_READS: Final = 4
_TORN_WAIT: Final = 0.1


def stored_header(home: Path) -> Header:
    """What the lock file states; an empty header where there is none. Raises ``StorageError``, ``ConfigError``."""
    path = home / LOCK_NAME
    with storage_errors(path, "read"):
        return load_header(path) if path.exists() else Header()


def load_record(
    home: Path, *, plain: bool = False, held: bool = True
) -> tuple[Header, pa.Table | ChangedTable | PlainRows | None, dict[str, int]]:
    """Header, file table if there is one (its ``plain`` rows where they will do), and how far each journal is in it.

    A table that is not ``held`` stays on the disk unless it is small. Raises ``IntegrityError`` for a damaged record.
    """
    for _ in range(_TORN_READS):
        try:
            return _load_once(home, plain=plain, held=held)
        except IntegrityError:
            # Header and table are two files: another process may have put one in place after we read the other.
            time.sleep(_TORN_WAIT)
    return _load_once(home, plain=plain, held=held)


def _load_once(
    home: Path, *, plain: bool, held: bool
) -> tuple[Header, pa.Table | ChangedTable | PlainRows | None, dict[str, int]]:
    lock, listing = home / LOCK_NAME, home / FILES_NAME
    header = stored_header(home)
    if not listing.exists():
        if header.table is not None:
            raise IntegrityError(f"{listing} is missing, though {lock.name} describes it", hint=MEND)
        return header, None, {}
    kept = read_rows(home / CACHE_NAME, listing) if plain else None
    table, state = (kept, kept.state) if kept is not None else read_files(listing, held=held)
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


def put_aside(home: Path) -> list[str]:
    """Move the damaged part of a record into its cache, where nobody reads it; what the other part says stays.

    The files of a lost table are unproven then, and none of them is one that this program fetched.

    Raises ``StorageError``, ``BusyError``, and ``ConfigError`` for a lock of a newer version.
    """
    damaged: list[str] = []
    with SaveLock(home / CACHE_NAME) as lock:
        for name, read in ((LOCK_NAME, stored_header), (FILES_NAME, load_record)):
            try:
                read(home)
            except (IntegrityError, UnsafePathError):
                aside = home / CACHE_NAME / "damaged" / name
                aside.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    (home / name).replace(aside)
                damaged.append(name)
        if FILES_NAME in damaged and (home / LOCK_NAME).exists():
            text = dump_header(dataclasses.replace(stored_header(home), table=None, files=0, size=0))
            replace_file(home / LOCK_NAME, lambda part: part.write_text(text, encoding="utf-8"), lock.check)
    return damaged


def read_files(path: Path, *, held: bool = True) -> tuple[pa.Table | ChangedTable, dict[str, Any]]:
    """The table in ``path``, on the disk still where it is large or not to be ``held``, and the state in its metadata.

    Raises ``IntegrityError`` for a file that is damaged or is no record, ``UnsafePathError`` for a path in it that
    would leave the root.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: it loads pyarrow.dataset, which takes longer than reading 20,000 rows.
        with pq.ParquetFile(regular(path)) as file:
            state = parse_json((file.schema_arrow.metadata or {})[files.STATE_KEY])
            if not isinstance(state, dict):
                raise TypeError("its metadata is not an object")
            is_large = file.metadata.num_rows > (files.LARGE if held else FILES_AT_ONCE)
            small = None if is_large else files.as_stated(file.read(use_threads=False), None)
        table, unsafe = (small, files.unsafe_path(small)) if small is not None else _stored(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise storage_error(path, "read", error) from error
        raise IntegrityError(f"{path} is damaged: {error}", hint=MEND) from error
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged or is not a record of cxrprep: {error}", hint=MEND) from error
    if unsafe is not None:
        raise UnsafePathError(f"{path} names {unsafe!r}, which is not inside the folder", hint=MEND)
    return table, state


def _stored(path: Path) -> tuple[ChangedTable, str | None]:
    from cxrprep.record.stored_table import ChangedTable, FileTable

    stored = FileTable(path)
    return ChangedTable(stored), stored.unsafe
