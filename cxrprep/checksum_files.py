"""Lists of checksums as mirrors publish them: ``SHA256SUMS.txt``, ``MD5SUMS`` and their spellings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cxrprep.model import Digest, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

_BY_LENGTH: Final = {32: "md5", 40: "sha1", 64: "sha256"}
# GNU writes two characters between digest and name (the second may be *), PhysioNet one space.
_GNU: Final = re.compile(r"\\?([0-9a-fA-F]{32,64})(?: [ *]?|\t)(.+)")
_BSD: Final = re.compile(r"(MD5|SHA1|SHA256) \((.+)\) = ([0-9a-fA-F]{32,64})")


def parse_line(line: str) -> RemoteFile | None:
    """The file that one line of a list names, with its digest; ``None`` for comments and anything else."""
    line = line.rstrip("\r\n")
    found = _GNU.fullmatch(line)
    if found is not None:
        value, name = found[1], found[2]
    else:
        found = _BSD.fullmatch(line)
        if found is None:
            return None
        value, name = found[3], found[2]
    algorithm = _BY_LENGTH.get(len(value))
    if algorithm is None:
        return None
    return RemoteFile(name.removeprefix("./"), digest=Digest(algorithm, value.lower()))


def parse(lines: Iterable[str]) -> Iterator[RemoteFile]:
    """The files that a list names, in its order; streamed, since the longest has 605,000 lines."""
    for line in lines:
        file = parse_line(line)
        if file is not None:
            yield file
