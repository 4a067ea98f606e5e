"""Atomic writes, by a temporary file that replaces the other: they survive ``kill -9`` and a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError, storage_error, storage_errors
from cxrprep.storage.locks import check_writing, writer_is_gone, writer_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEAD: Final = 4096
# What a file system says that cannot be asked to bring a file to its disk, as of some shared folders and FUSE.
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
TEMPORARY: Final = re.compile(r"^\..+\.([0-9a-f]+-[A-Za-z0-9._]+-\d+-[0-9a-f]{8})\.tmp$")


def replace_file(path: Path, write: Callable[[Path], object], check: Callable[[], None] | None = None) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    ``check`` is asked right before that; what it raises leaves everything as it was. Whoever opens ``path`` sees the
    old file or the new one, whole. Raises ``StorageError`` when the disk refuses, and ``BusyError`` where this run was
    suspended and the tables there are another's.
    """
    part = temporary_for(path)
    try:
        with storage_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep_once(str(path.parent))
            write(part)
            with part.open("rb+") as file:
                to_disk(file.fileno())
            if check is not None:
                check()
            check_writing(path)
            part.replace(path)
            _sync_folder(path.parent)
    finally:
        # Whatever stops this too is the error that is on its way already.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def to_disk(handle: int) -> None:
    """Have the disk keep what was written, where its file system can be asked to. Raises ``OSError``."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def refuse_over_others(path: Path, is_ours: Callable[[bytes], bool], what: str, option: str) -> None:
    """Raise ``UsageError`` where a file is there that is none of those which a command writes: an image, a table.

    Args:
        path: The file that is to be written.
        is_ours: Whether a file that begins with these bytes may be replaced.
        what: What the command writes, in words.
        option: The option that named the file.

    Raises:
        UsageError: A file of somebody else's is there.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, "read", error) from error
    if head and not is_ours(head):
        raise UsageError(
            f"{path} exists and is not a {what}; it was not replaced", hint=f"name another file with {option}"
        )


def temporary_for(path: Path) -> Path:
    """A new name beside ``path`` for its next content; ``sweep`` knows whose it is."""
    # Cut, since a name may have 255 bytes and the release's own may be nearly as long.
    return path.with_name(f".{path.name[:100]}.{writer_name()}.tmp")


def sweep(folder: str | Path) -> int:
    """Remove the temporary files that killed runs of this host left in ``folder``; how many others lie there.

    Errors are the next write's.
    """
    others = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = TEMPORARY.search(entry.name)
            if found is not None and writer_is_gone(found[1]):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108  # one call a file, among hundreds of thousands
            else:
                others += found is not None
    return others


@lru_cache(maxsize=4096)
def _sweep_once(folder: str) -> None:
    # The first write of a process into a folder cleans it: looking each time would cost a listing a file.
    sweep(folder)


def settle() -> None:
    """Have the system bring to the disk whatever it has not written yet; one call for very many small files."""
    if hasattr(os, "sync"):
        os.sync()


def _sync_folder(folder: Path) -> None:
    # Windows and some network mounts refuse to open a folder; the rename is then as durable as the system makes it.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
