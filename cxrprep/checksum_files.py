"""Lists of checksums as mirrors publish them: ``SHA256SUMS.txt``, ``MD5SUMS`` and their spellings."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

from cxrprep.model import Digest, RemoteFile
from cxrprep.storage.small_files import encoding_of
from cxrprep.system import FILES_AT_ONCE, FILES_IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cxrprep.storage.sorted_tables import SortedTable

# Names under which such a list is found, best first.
NAMES: Final = (
    "SHA256SUMS.txt",
    "SHA256SUMS",
    "sha256sums.txt",
    "sha256sum.txt",
    "MD5SUMS",
    "MD5SUMS.txt",
    "md5sums.txt",
    "md5sum.txt",
)

_SHA256: Final = 64
_BY_LENGTH: Final = {32: "md5", 40: "sha1", _SHA256: "sha256"}
# GNU writes two characters between digest and name (the second may be *), PhysioNet one space.
_GNU: Final = re.compile(r"\\?([0-9a-fA-F]{32,64})(?: [ *]?|\t)(.+)")
_ESCAPES: Final = {r"\n": "\n", r"\r": "\r", r"\\": "\\"}
_ESCAPED: Final = re.compile(r"\\[nr\\]")
_BSD: Final = re.compile(r"(MD5|SHA1|SHA256) \((.+)\) = ([0-9a-fA-F]{32,64})")


def parse_line(line: str) -> RemoteFile | None:
    """The file that one line of a list names, with its digest; ``None`` for comments and anything else."""
    line = line.rstrip("\r\n")
    value, blank, name = line.partition(" ")
    if blank and len(value) == _SHA256 and name[:1].isalnum():
        # PhysioNet's spelling, read without a pattern.
        try:
            return RemoteFile(name, None, Digest("sha256", value.lower()))
        except ValueError:
            pass
    found = _GNU.fullmatch(line)
    if found is not None:
        value, name = found[1], found[2]
        if line.startswith("\\"):
            # How GNU says that line ends and backslashes in the name are escaped.
            name = _ESCAPED.sub(lambda escaped: _ESCAPES[escaped[0]], name)
    else:
        found = _BSD.fullmatch(line)
        if found is None:
            return None
        value, name = found[3], found[2]
    algorithm = _BY_LENGTH.get(len(value))
    if algorithm is None:
        return None
    return RemoteFile(name.removeprefix("./"), digest=Digest(algorithm, value.lower()))


def as_text(file: io.BufferedReader, errors: str = "replace") -> io.TextIOWrapper:
    """A list as text: UTF-8, or what its byte order mark says. PowerShell's ``>`` writes UTF-16."""
    return io.TextIOWrapper(file, encoding_of(file.peek(3)), errors=errors)


def parse(lines: Iterable[str]) -> Iterator[RemoteFile]:
    """The files that a list names, in its order; streamed, since the longest has 605,000 lines."""
    for line in lines:
        file = parse_line(line)
        if file is not None:
            yield file


# Of a longer list all but some thousands of lines lie on the disk. measured: a million digests as objects took 330 of
# the 732 MiB of `download --dry-run` from a folder.
_HELD: Final = FILES_IN_MEMORY
_WRITTEN: Final = FILES_AT_ONCE


class SortedDigests:
    """The digests of a list, asked for in order of key; of a name that appears twice, the last."""

    def __init__(self, files: Iterable[RemoteFile]) -> None:
        """Read the whole list. Raises ``StorageError`` when the disk for temporary files refuses."""
        self._held, stored = _sorted(files)
        self._is_stored = stored is not None
        self._rows = iter(()) if stored is None else stored.rows()
        self._next = next(self._rows, None)

    def of(self, key: str) -> Digest | None:
        """The digest of ``key``, which is not before the key of the last call; ``None`` where the list has none."""
        if not self._is_stored:
            # Taken out: the list's copies of paths go as those of the listing come.
            return self._held.pop(key, None)
        found = None
        while self._next is not None and self._next[0] <= key:
            if self._next[0] == key:
                found = self._next[1]
            self._next = next(self._rows, None)
        return None if found is None else Digest.parse(found)


def _sorted(files: Iterable[RemoteFile]) -> tuple[dict[str, Digest], SortedTable | None]:
    """The digests in memory; or, where they are many, none of them, and all in a file."""
    held: dict[str, Digest] = {}
    stored: SortedTable | None = None
    for file in files:
        if file.digest is not None:
            held[file.key] = file.digest
            if len(held) >= (_HELD if stored is None else _WRITTEN):
                stored = _stored(held, stored)
                held = {}
    return ({}, _stored(held, stored)) if stored is not None else (held, None)


def _stored(held: dict[str, Digest], stored: SortedTable | None) -> SortedTable:
    from cxrprep.storage.sorted_tables import SortedTable

    stored = stored or SortedTable.of({"key": "string", "digest": "string"}, "key")
    stored.add_rows((key, str(digest)) for key, digest in held.items())
    return stored
