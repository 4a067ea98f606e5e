"""Writes that survive ``kill -9`` and a power cut: whole-file replacement, and journals of JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from cxrprep.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SYNC_SECONDS: Final = 1.0
_LINE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
TEMPORARY: Final = re.compile(r"^\..+\.([0-9a-f]+-[A-Za-z0-9._]+-\d+-[0-9a-f]{8})\.tmp$")


def storage_error(path: Path | str, doing: str, error: OSError) -> StorageError:
    """The error for a disk that refused: names the path, the reason, and what to do about it."""
    return StorageError(
        f"cannot {doing} {path}: {error.strerror or error}",
        hint="free space or make the folder writable; for a read-only ROOT keep the record beside it with --state DIR",
    )


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    Whoever opens ``path`` sees the old file or the new one, whole. Raises ``StorageError`` when the disk refuses.
    """
    part = temporary_for(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(str(path.parent))
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, "write", error) from error
    finally:
        # Whatever stops this too is the error that is on its way already.
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def temporary_for(path: Path) -> Path:
    """A new name beside ``path`` for its next content; ``sweep`` knows whose it is."""
    # Cut, since a name may have 255 bytes and the release's own may be nearly as long.
    return path.with_name(f".{path.name[:100]}.{_writer()}.tmp")


def sweep(folder: str | Path) -> int:
    """Remove the temporary files that killed runs of this host left in ``folder``; how many others lie there.

    Errors are the next write's.
    """
    others = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = TEMPORARY.search(entry.name)
                if found is not None and writer_is_gone(found[1]):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108  # one call a file, among hundreds of thousands
                else:
                    others += found is not None
    except OSError:
        return others
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
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


class Journal:
    """An append-only file of JSON lines with one writer; opened at the first line.

    A line is one ``write`` at the end of the file, so a killed process leaves at most its last line torn, and
    ``read_journal`` passes over that. The disk is made to keep the lines once a second and at ``close``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._synced = 0.0

    def append(self, item: Mapping[str, Any]) -> None:
        """Add one line. Raises ``StorageError`` when the disk refuses; a half-written line is cut off first."""
        line = _LINE.encode(item).encode() + b"\n"
        try:
            if self._handle is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
            written = os.write(self._handle, line)
            if written != len(line):
                os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
                raise OSError(28, os.strerror(28))
            now = time.monotonic()
            if now - self._synced > _SYNC_SECONDS:
                os.fsync(self._handle)
                self._synced = now
        except OSError as error:
            raise storage_error(self.path, "write", error) from error

    def close(self) -> None:
        """Make the disk keep what was written, and let go of the file; a later ``append`` opens it again."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            try:
                os.fsync(handle)
            except OSError as error:
                raise storage_error(self.path, "write", error) from error
            finally:
                os.close(handle)

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


_BINARY: Final = getattr(os, "O_BINARY", 0)


def journal_name() -> str:
    """A name for a new journal that no other writer has; names sort by the time at which their writers began."""
    return f"{_writer()}.jsonl"


def _writer() -> str:
    return f"{time.time_ns():x}-{_host()}-{os.getpid()}-{os.urandom(4).hex()}"


def writer_is_gone(name: str) -> bool:
    """Whether the writer of a journal or temporary file ran on this host and has ended; of other hosts who knows."""
    parts = name.split("-")
    # On Windows a signal of 0 is Ctrl-C, so there a journal waits until its own writer has finished.
    if os.name != "posix" or len(parts) != 4 or parts[1] != _host() or not parts[2].isdecimal():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_only_remembered(int(parts[2]))


def _is_only_remembered(process: int) -> bool:
    """Whether the process has ended, and the one that adopted it has not asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The items of a journal from byte ``offset`` on, each with the offset behind it.

    A torn last line is left for later, damaged lines (zeros after a power cut) are passed over, and a journal that
    another process has just removed is empty. Raises ``StorageError`` when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    item = json.loads(line)
                except ValueError:
                    continue
                if isinstance(item, dict):
                    yield item, offset
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, "read", error) from error
