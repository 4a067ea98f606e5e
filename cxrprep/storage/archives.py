"""Archives from outside: their members by name and as streams, safe against traversal, links and bombs."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from cxrprep.errors import ArchiveError, StorageError, storage_error
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import safe_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


NOT_READABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


"""What Python's readers of archives raise for damage: ``ValueError`` for names that are no text, ``RuntimeError`` for a
password, ``NotImplementedError`` for a compression that nobody uses."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What no archive of a dataset comes near to: the border between large and malicious.

    ``ratio`` compares unpacked with packed bytes, and counts only beyond ``free`` bytes: zeros shrink a thousandfold.
    """

    members: int = 1_000_000
    member_size: int = 8 * 1024**3
    ratio: float = 100.0
    free: int = 256 * 1024**2


class Member(NamedTuple):
    """A file inside an archive. ``open`` gives its bytes, once, before the next member is asked for."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def read_members(path: Path, limits: Limits = Limits()) -> Iterator[Member]:  # frozen
    """The files in the archive at ``path``, in the order they lie in, folders left out.

    Names are checked before they are handed out. Raises ``ArchiveError`` for damage, links, devices and bombs,
    ``UnsafePathError`` for a name that would leave the root.
    """
    try:
        packed = path.stat().st_size
        found = _zip(path) if path.name.lower().endswith(".zip") else _tar(path)
        total = 0
        for count, member in enumerate(found, 1):
            total += member.size
            if (
                count > limits.members
                or member.size > limits.member_size
                or (total > limits.free and total > packed * limits.ratio)
            ):
                raise ArchiveError(
                    f"{path.name}: unpacks to far more than a dataset's archive does (at {member.name!r})",
                    hint="it was made to fill the disk, or is damaged; do not trust where it came from",
                )
            safe_path(member.name)
            yield member
    except (*NOT_READABLE, LookupError, TypeError) as error:
        # The last two: what the library's own code stumbles over in a header that was cut or altered.
        raise damaged(path, error) from error
    except OSError as error:
        raise _refused(path, error) from error


def damaged(path: Path, error: BaseException) -> ArchiveError:
    """The error for an archive that cannot be read to its end."""
    return ArchiveError(
        f"{path.name} is damaged: {str(error) or type(error).__name__}", hint="remove it and run the download again"
    )


def _refused(path: Path, error: OSError) -> ArchiveError | StorageError:
    # A place outside the file, where a damaged directory points, is an invalid argument to the system.
    return damaged(path, error) if error.errno == errno.EINVAL else storage_error(path, "read", error)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the archive readers raise while a member is read into ``ArchiveError``."""
    try:
        yield
    except NOT_READABLE as error:
        raise damaged(path, error) from error
    except OSError as error:
        # Others are the business of whoever writes the member: a disk that is full, say.
        # The bzip2 reader calls its own damage an OSError, without a number.
        if error.errno not in (errno.EINVAL, None):
            raise
        raise damaged(path, error) from error


def _tar(path: Path) -> Iterator[Member]:
    # A stream: members come as they are read, and nothing before them is kept in memory.
    with tarfile.open(path, mode="r|*") as tar:
        for entry in tar:
            tar.members = []  # type: ignore[attr-defined]  # the library would remember all of them
            if entry.isdir():
                continue
            if not entry.isreg():
                raise ArchiveError(
                    f"{path.name}: {entry.name!r} is a link or a device, which no dataset's archive holds",
                    hint="do not trust where it came from",
                )
            yield Member(entry.name.removeprefix("./"), entry.size, _opener(tar, entry))


def _opener(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = tar.extractfile(entry)
        if file is None:
            raise tarfile.ReadError(f"{entry.name} cannot be read")
        return file

    return opened


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ArchiveError(
                    f"{path.name}: {entry.filename!r} is a link or a device, which no dataset's archive holds",
                    hint="do not trust where it came from",
                )
            if entry.flag_bits & 0x1:
                raise ArchiveError(f"{path.name}: {entry.filename!r} is encrypted", hint="unpack it with its password")
            yield Member(entry.filename, entry.file_size, lambda e=entry: archive.open(e))  # type: ignore[misc]


def _index_path(cache: Path, archive: str) -> Path:
    return cache / "archives" / (hashlib.blake2b(archive.encode(), digest_size=10).hexdigest() + ".json")


def read_index(cache: Path, archive: str) -> Sequence[tuple[str, int]] | None:
    """Release path and size of each member, as ``write_index`` kept them; ``None`` when nobody did."""
    try:
        body = json.loads(_index_path(cache, archive).read_text(encoding="utf-8"))
        return [(str(path), int(size)) for path, size in body["members"]]
    except (OSError, ValueError, KeyError, TypeError):
        # A cache: without it an archive that seems to be needed is fetched again.
        return None


def write_index(cache: Path, archive: str, members: Sequence[tuple[str, int]]) -> None:
    """Keep what an archive holds, so that it need not be fetched again to learn it. Raises ``StorageError``."""
    body = json.dumps({"archive": archive, "members": members})
    replace_file(_index_path(cache, archive), lambda part: part.write_text(body, encoding="utf-8"))
