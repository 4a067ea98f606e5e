"""Local folders as the file system of a conversion, and the choice of a store by its address.

Names are relative and ``/``-separated. A *stamp* changes with the content (size and times of a file here; ETag or
generation in a store), so that what was seen once need not be read again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from cxrprep.errors import ImageError, StorageError, storage_error
from cxrprep.images.decode import read_bytes
from cxrprep.images.radiograph import DEFAULT_LIMITS
from cxrprep.storage.atomic import TEMPORARY, replace_file
from cxrprep.storage.filesystem import ImageStore, SizeLimit, StoredFile
from cxrprep.storage.paths import is_file, is_folder
from cxrprep.storage.small_files import open_file
from cxrprep.storage.unfetched import found_there, unfetched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_LINKS: Final = 8
_TEMPORARY: Final = ".tmp"


# As this module and durable name them: a folder of the user's may hold other temporary files.
_OURS: Final = re.compile(rf"\.[0-9a-f]+-[0-9a-f]+-[0-9a-f]+\.tmp|{TEMPORARY.pattern}")
_serial = itertools.count()


def is_url(text: str | Path) -> bool:
    """Whether ``text`` names a place that fsspec opens, and not a path here."""
    return isinstance(text, str) and "://" in text and not text.startswith("file://")


def open_store(where: str | Path) -> ImageStore:
    """The folder at a path or URL. Raises ``UsageError`` for a scheme that fsspec does not know."""
    if isinstance(where, str) and is_url(where):
        from cxrprep.credentials.secret import return_store_secrets
        from cxrprep.storage.object_store import ObjectStore

        # The store's own library looks for them in the environment, and so do the workers' that are started for it.
        return_store_secrets()
        place = ObjectStore(where.rstrip("/"))
        place.system()
        return place
    return LocalStore(str(where).removeprefix("file://"))


def read_source(source: str, limits: SizeLimit = DEFAULT_LIMITS) -> bytes:
    """The bytes of one source image, a path or a URL. Raises ``ImageError``, ``StorageError`` or the store's errors."""
    if is_url(source):
        folder, _, name = source.rpartition("/")
        return open_store(folder).read(name, limits)
    return read_bytes(Path(source), limits)


def version_tag_of(source: str) -> str | None:
    """The stamp of one source image; ``None`` when it is gone."""
    if is_url(source):
        folder, _, name = source.rpartition("/")
        return open_store(folder).version_tag(name)
    return _stat_stamp(source)


def _stat_stamp(path: str) -> str | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # asked of every image in every run: a Path costs as much again
    except OSError:
        return None
    # The time of change cannot be set by a program, as the time of modification can.
    return f"{found.st_size}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder on a file system that is mounted here."""

    address: str

    def full(self, name: str) -> str:
        """The path of one file."""
        return f"{self.address}/{name}"

    def list(self) -> Iterator[StoredFile]:
        """Every file below, folder by folder in order of name; links are followed, up to eight deep.

        Of a working copy come those last that lie in its bucket alone; their bytes and stamps are the store's.
        """
        queue = [("", 0)]
        while queue:
            folder, links = queue.pop()
            below: list[tuple[str, int]] = []
            try:
                entries = sorted(os.scandir(self.full(folder)), key=lambda entry: entry.name)
            except OSError as error:
                raise storage_error(error.filename, "list", error) from error
            for entry in entries:
                if is_folder(entry):
                    deeper = links + entry.is_symlink()
                    if deeper <= _LINKS:
                        below.append((f"{folder}{entry.name}/", deeper))
                elif is_file(entry):
                    found = entry.stat()
                    stamp = f"{found.st_size}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"
                    yield StoredFile(folder + entry.name, found.st_size, stamp)
            queue += reversed(below)
        there = unfetched(Path(self.address))
        if there is not None:
            yield from there.files()

    def read(self, name: str, limits: SizeLimit | None = None) -> bytes:
        """The bytes of a file."""
        return read_bytes(Path(self.full(name)), limits or DEFAULT_LIMITS)

    def head(self, name: str, size: int) -> bytes | None:
        """The first bytes of a file."""
        try:
            with open_file(Path(self.full(name))) as file:
                return file.read(size)
        except OSError:
            found = found_there(Path(self.address), name)
            return None if found is None else found[0].head(found[1].name, size)

    def version_tag(self, name: str) -> str | None:
        """Size, time of modification and time of change."""
        stamp = _stat_stamp(self.full(name))
        found = found_there(Path(self.address), name) if stamp is None else None
        return stamp if found is None else found[1].stamp

    def write_with(self, name: str, write: Callable[[Path], object]) -> str:
        """Write beside it, make the disk keep it, rename. Raises ``StorageError``."""
        path = Path(self.full(name))
        replace_file(path, write)
        return _stat_stamp(str(path)) or ""

    def write(self, name: str, data: bytes, *, durable: bool = False) -> str:
        """Write beside it, rename. Raises ``StorageError``.

        Waiting for the disk at each of a million small files takes longer than making them. One that a power cut
        emptied has another size than was written down, and the next run makes it again.
        """
        if durable:
            return self.write_with(name, lambda part: part.write_bytes(data))
        path = Path(self.full(name))
        # Not longer than the name itself may be, and no thread's but this one's.
        part = path.with_name(f".{os.getpid():x}-{next(_serial):x}-{time.monotonic_ns():x}{_TEMPORARY}")
        try:
            try:
                part.write_bytes(data)
            except FileNotFoundError:
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if error.errno == errno.ENAMETOOLONG:
                raise ImageError(f"{path}: the name is too long for this disk", hint="rename the source") from error
            raise storage_error(path, "write", error) from error
        return _stat_stamp(str(path)) or ""

    def open(self, name: str) -> BinaryIO:
        """The file itself."""
        path = Path(self.full(name))
        try:
            return open_file(path)
        except FileNotFoundError as error:
            found = found_there(Path(self.address), name)
            if found is not None:
                return found[0].open(found[1].name)
            raise ImageError(f"{path} is gone", hint="run it again") from error
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error

    def remove(self, name: str) -> None:
        """Take the file away."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.full(name)).unlink()

    def sweep(self, *, before: float) -> int:
        """Remove temporary files of runs that were killed, last written ``before`` (Unix time); how many they were."""
        removed = 0
        for folder, _, names in os.walk(self.address):
            for name in names:
                if _OURS.fullmatch(name):
                    path = Path(folder, name)
                    with contextlib.suppress(OSError):
                        if path.stat().st_mtime < before:
                            path.unlink()
                            removed += 1
        return removed
