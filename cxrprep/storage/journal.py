"""Append-only journals of JSON lines that survive kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import storage_error, storage_errors
from cxrprep.storage.atomic import to_disk
from cxrprep.storage.locks import writer_name
from cxrprep.storage.small_files import open_file, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SYNC_SECONDS: Final = 1.0
_LINE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Journal(contextlib.AbstractContextManager["Journal"]):
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
        with storage_errors(self.path, "write"):
            if self._handle is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
            written = os.write(self._handle, line)
            if written != len(line):
                os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
                raise OSError(28, os.strerror(28))
            now = time.monotonic()
            if now - self._synced > _SYNC_SECONDS:
                to_disk(self._handle)
                self._synced = now

    def close(self) -> None:
        """Make the disk keep what was written, and let go of the file; a later ``append`` opens it again."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with storage_errors(self.path, "write"):
                try:
                    to_disk(handle)
                finally:
                    os.close(handle)

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


_BINARY: Final = getattr(os, "O_BINARY", 0)


def journal_name() -> str:
    """A name for a new journal that no other writer has; names sort by the time at which their writers began."""
    return f"{writer_name()}.jsonl"


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The items of a journal from byte ``offset`` on, each with the offset behind it.

    A torn last line is left for later, damaged lines (zeros after a power cut) are passed over, and a journal that
    another process has just removed is empty. Raises ``StorageError`` when the file cannot be read.
    """
    try:
        with open_file(path) as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                try:
                    item = parse_json(line)
                except ValueError:
                    continue
                if isinstance(item, dict):
                    yield item, offset
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, "read", error) from error
