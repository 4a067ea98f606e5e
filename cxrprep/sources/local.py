"""A folder on this machine: a lab's copy, an unpacked download, a mounted disk."""

from __future__ import annotations

import errno
import os
import urllib.parse
import urllib.request
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep import checksum_files
from cxrprep.errors import AccessError, CxrprepError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources.base import Access, AccessState, Body, ByteStream, Politeness, SourceOptions, hole
from cxrprep.sources.urls import parts_of
from cxrprep.storage.paths import CACHE_NAME, LOCK_NAME, OWN_NAMES, home_path, is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


# A folder that cxrprep made: of it OWN_NAMES are no part of the release.
_MARKS: Final = frozenset({CACHE_NAME, LOCK_NAME})
_Place = tuple[int, int]


def folder_of(url: str) -> Path:
    """The path that a ``file://`` address or a plain path names. Raises ``UsageError`` for another host's."""
    if "://" not in url:
        return home_path(url)
    parts = parts_of(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{url}: a file address names no host", hint="write file:///path, with three slashes")
    return Path(urllib.request.url2pathname(parts.path))


class LocalSource:
    """A folder, or a single file, on a file system that is mounted here.

    ``holes`` are the folders below the top that the last listing had to leave out (``lost+found``), with the reason.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Raises ``UsageError`` when there is nothing at that path."""
        path = folder_of(url)
        if not path.exists():
            raise UsageError(f"there is no folder {path}", hint="check the path given with --source")
        self._single = path.name if path.is_file() else ""
        self._root = path.parent if self._single else path
        self._start = os.fspath(self._root)
        self.address = str(path)
        self.politeness = Politeness(connections=options.connections or 4, tuned=False)
        self.holes: list[CxrprepError] = []

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files below ``prefix`` in order of path, links followed.

        A list of checksums in the folder itself lends its digests. Raises ``AccessError`` where nothing may be read.
        """
        self.holes = []
        found = False
        for file in self._found(prefix):
            found = True
            yield file
        if self.holes and not found:
            raise self.holes[0]

    def _found(self, prefix: str) -> Iterator[RemoteFile]:
        if self._single:
            yield self._describe(self._single, os.stat(self._root / self._single))  # noqa: PTH116  # same call as below
            return
        digests = self._digests()
        stack = [self._entries("")]
        while stack:
            for key, entry in stack[-1]:
                if not (key.startswith(prefix) or (key.endswith("/") and prefix.startswith(key))):
                    continue
                try:
                    if key.endswith("/"):
                        if not (entry.is_symlink() and self._leads_back(key)):
                            stack.append(self._entries(key))
                            break
                    elif entry.is_file():
                        yield self._describe(key, entry.stat(), digests.of(key))
                except OSError as error:
                    # Deleted since the folder was read, or a link to nowhere or to itself.
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        self.holes.append(hole(key, _refused(self._root / key, error)))
            else:
                stack.pop()

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``."""
        return LocalBody(self.path_of(file), file.key, offset, end)

    def path_of(self, file: RemoteFile) -> Path:
        """Where ``file`` lies: what links and clones are made of."""
        return self._root / file.key

    def access(self) -> Access:
        """Open, when the folder can be read."""
        readable = os.access(self._root, os.R_OK | os.X_OK)
        return Access(AccessState.OPEN if readable else AccessState.REJECTED)

    def close(self) -> None:
        """Nothing is held open."""

    def _leads_back(self, folder: str) -> bool:
        """Whether a link is to a folder that it lies in: it would never end."""
        above = [folder[:place] for place, sign in enumerate(folder[:-1]) if sign == "/"]
        place = _place((self._root / folder).stat())
        return any(place == _place((self._root / name).stat()) for name in ("", *above))

    def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """What is in a folder, in order of key; those of folders end in a slash.

        measured: 9.0 -> 6.4 s CPU (medians of 3 alternating runs, under load) for `download` with nothing to do, of a
        folder of 100,000 images that is adopted where it lies, plan and record on the disk: folders as text, links
        alone asked where they lead, and no file asked twice; 5.1 where the listing also tells the manifest how many
        images there are (`adopt again` of benchmarks/scale.py).
        """
        try:
            # As text: millions of folders make a path object dear.
            with os.scandir(os.path.join(self._start, folder)) as entries:  # noqa: PTH118
                found = [(f"{folder}{one.name}/" if is_folder(one) else folder + one.name, one) for one in entries]
        except OSError as error:
            refused = _refused(self._root / folder, error)
            if not folder:
                raise refused from error
            self.holes.append(hole(folder, refused))
            return iter(())
        if not _MARKS.isdisjoint([entry.name for _, entry in found]):
            found = [one for one in found if one[1].name not in OWN_NAMES]
        found.sort(key=itemgetter(0))
        return iter(found)

    def _describe(self, key: str, stat: os.stat_result, digest: Digest | None = None) -> RemoteFile:
        return RemoteFile(key, stat.st_size, digest, _validator(stat))

    def _digests(self) -> checksum_files.SortedDigests:
        for name in checksum_files.NAMES:
            path = self._root / name
            if path.is_file():
                with checksum_files.as_text(path.open("rb")) as lines:
                    return checksum_files.SortedDigests(checksum_files.parse(lines))
        return checksum_files.SortedDigests(())


class LocalBody(Body):
    """An open file as a ``ByteStream``; its validator is time and size."""

    def __init__(self, path: Path, key: str, offset: int, end: int | None) -> None:
        """Open it.

        Args:
            path: the file.
            key: what messages call it.
            offset: the first byte to read.
            end: the byte after the last; ``None`` reads to the end.

        Raises:
            NotInSourceError: there is no such file.
            AccessError: it may not be read.
        """
        self._path, self._key = path, key
        try:
            self._file = path.open("rb", buffering=0)
            stat = os.fstat(self._file.fileno())
            self._file.seek(offset)
        except OSError as error:
            raise _refused(path, error) from error
        self.offset = offset
        self.length = stat.st_size
        self.validator = _validator(stat)
        self._left = (stat.st_size if end is None else min(end, stat.st_size)) - offset

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; 0 at the end. Raises ``SourceUnreachableError`` when the file shrinks or the disk fails."""
        if self._left <= 0:
            return 0
        try:
            count = self._file.readinto(buffer[: self._left]) or 0
        except OSError as error:
            raise _refused(self._path, error) from error
        if count == 0:
            raise SourceUnreachableError(f"{self._path} became shorter while it was read", hint="run again")
        self._left -= count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _place(stat: os.stat_result) -> _Place:
    return stat.st_dev, stat.st_ino


def _validator(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns}-{stat.st_size}"


def _refused(path: Path, error: OSError) -> CxrprepError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotInSourceError(f"{path} is no longer there")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessError(f"{path} may not be read", hint="check its permissions, or ask whoever owns it")
    return SourceUnreachableError(f"{path} cannot be read: {error.strerror}", hint="check the disk or the mount")
