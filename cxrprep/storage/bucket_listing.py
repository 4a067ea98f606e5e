"""Listing of a bucket folder, kept on the disk in order of path: written as it comes, and asked without reading it."""

from __future__ import annotations

import functools
import mmap
from typing import TYPE_CHECKING, Self

from cxrprep.model import Digest
from cxrprep.storage.filesystem import StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ListingWriter:
    """Writes the listing at ``path``; use as a context, which puts it in place when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_suffix(".tmp")
        self._last, self._is_sorted = b"", True

    def __enter__(self) -> Self:
        """Open a file beside it."""
        self._file = self._part.open("wb")
        return self

    def add(self, entry: StoredFile) -> None:
        """Write down one object."""
        name = entry.name.encode()
        self._is_sorted = self._is_sorted and self._last <= name
        self._last = name
        self._file.write(f"{entry.size}\t{entry.stamp}\t{entry.digest or ''}\t".encode() + name + b"\n")

    def __exit__(self, kind: object, *_: object) -> None:
        """Put it in place; after an error the earlier one stays."""
        self._file.close()
        if kind is not None:
            self._part.unlink(missing_ok=True)
            return
        if not self._is_sorted:
            # The stores tell their objects in order of key; what has another order is a test's, or small.
            lines = sorted(self._part.read_bytes().splitlines(keepends=True), key=lambda line: line.split(b"\t", 3)[3])
            self._part.write_bytes(b"".join(lines))
        self._part.replace(self._path)


def entries(path: Path) -> Iterator[StoredFile]:
    """The objects of the listing at ``path`` in order of path; none where there is no listing."""
    try:
        with path.open("rb") as lines:
            yield from map(_parse, lines)
    except FileNotFoundError:
        return


def find_entry(path: Path, name: str) -> StoredFile | None:
    """The object ``name`` of the listing at ``path``, looked up by halving: no worker holds millions of names."""
    lines, wanted = _mapped(path, path.stat().st_mtime_ns), name.encode("utf-8", "surrogateescape")
    low, high = 0, len(lines)
    while low < high:
        middle = (low + high) // 2
        start = max(lines.rfind(b"\n", low, middle) + 1, low)
        end = lines.find(b"\n", middle)
        found = lines[start:end].split(b"\t", 3)[3]
        if found == wanted:
            return _parse(lines[start : end + 1])
        low, high = (end + 1, high) if found < wanted else (low, start)
    return None


@functools.lru_cache(maxsize=8)
def _mapped(path: Path, changed: int) -> mmap.mmap | bytes:
    # By the time of its change: a run that lists anew puts another file in its place.
    del changed
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            # Nothing can be mapped of an empty file.
            return b""


def _parse(line: bytes) -> StoredFile:
    size, stamp, digest, name = line.rstrip(b"\n").decode().split("\t", 3)
    return StoredFile(name, int(size), stamp, Digest.parse(digest) if digest else None)
