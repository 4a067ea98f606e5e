"""Archives from outside (tar, tar.gz, zip): members by name and as streams, read to the archive's end with checksums.

Safe against traversal, links and bombs. Python's ``tarfile`` inflates a stream by itself, passes over the CRC32 and the
length that close each gzip member (RFC 1952, 2.3.1), and takes any damaged header behind the first for the end. So a
tar is unpacked here by a reader of gzip that checks both, and must close with its end mark and nothing but zeros.
"""

from __future__ import annotations

import bz2
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
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Self, cast

from zlib_ng import gzip_ng, zlib_ng

from cxrprep.errors import ArchiveError, StorageError, storage_error
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import safe_path
from cxrprep.storage.small_files import GZIP, open_file, parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


NOT_READABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    cast("type[Exception]", zlib_ng.error),
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What Python's readers of archives raise for damage: ``ValueError`` for names that are no text, ``RuntimeError`` for a
password, ``NotImplementedError`` for a compression that nobody uses."""


_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
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


def read_members(path: Path, limits: ArchiveLimits = ArchiveLimits()) -> Iterator[Member]:  # frozen
    """The files in the archive at ``path``, in the order they lie in, folders left out.

    A name that ends in ``.zip`` is a zip, everything else a tar, compressed or not. A tar says only at its end whether
    it is whole, so it is read to the end once before the first member is handed out (240 MB: 0.12 s): nothing that a
    damaged one holds is taken for good. A zip has a CRC32 a member, which is checked when that has been read.

    Raises ``ArchiveError`` for damage, links, devices and bombs, ``UnsafePathError`` for a name that would leave the
    root, ``StorageError`` when the file cannot be read.
    """
    unpacked = _zip if path.name.lower().endswith(".zip") else _tar
    if unpacked is _tar:
        for _ in _checked(path, unpacked(path), limits):
            pass
    yield from _checked(path, unpacked(path), limits)


def check_archive(path: Path) -> None:
    """Read an archive, and each of its members, to the end. Raises as ``read_members``."""
    for member in read_members(path):
        with reading(path), member.open() as stream:
            while stream.read(_BLOCK):
                pass


def _checked(path: Path, found: Iterator[Member], limits: ArchiveLimits) -> Iterator[Member]:
    """``found``, with names and sizes that no dataset's archive has refused, and damage as ``ArchiveError``."""
    try:
        packed = path.stat().st_size
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


class _Header(tarfile.TarInfo):
    """A header that is read strictly: ``tarfile`` would take a damaged one, and a missing end mark, for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in ``buf``. Raises ``ReadError`` for damage."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):
                raise  # a block of zeros: the end mark
            reason = "it ends before its end mark" if not buf else f"a header inside cannot be read ({error})"
            raise tarfile.ReadError(reason) from error


def tar_entries(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each entry of a tar, compressed or not, with the open archive; at the end the whole file has been checked.

    A stream: an entry is read before the next one is asked for. Raises what ``NOT_READABLE`` names, and ``OSError``.
    """
    with _uncompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
        for entry in tar:
            # The library would remember all of them.
            tar.members = []  # type: ignore[attr-defined]
            yield tar, entry
        rest = cast("IO[bytes]", tar.fileobj)
        while block := rest.read(_BLOCK):
            if block.count(0) != len(block):
                raise tarfile.ReadError("bytes follow its end mark: a part of it was overwritten with zeros")


def _uncompressed(path: Path) -> IO[bytes]:
    """The tar inside ``path``; gzip with CRC32 and length of each member checked, as the other two do by themselves."""
    with open_file(path) as file:
        start = file.read(6)
    if start.startswith(GZIP):
        # As fast as tarfile without the check (240 MB: 0.21 s both), where the standard library's takes twice as long.
        return cast("IO[bytes]", gzip_ng.GzipNGFile(path, "rb"))  # type: ignore[no-untyped-call]
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(path))
    return cast("IO[bytes]", lzma.open(path)) if start == b"\xfd7zXZ\0" else path.open("rb")


def _tar(path: Path) -> Iterator[Member]:
    for tar, entry in tar_entries(path):
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
        body = parse_json(read_text(_index_path(cache, archive)))
        return [(str(path), int(size)) for path, size in body["members"]]
    except (OSError, ValueError, KeyError, TypeError):
        # A cache: without it an archive that seems to be needed is fetched again.
        return None


def write_index(cache: Path, archive: str, members: Sequence[tuple[str, int]]) -> None:
    """Keep what an archive holds, so that it need not be fetched again to learn it. Raises ``StorageError``."""
    body = json.dumps({"archive": archive, "members": members})
    replace_file(_index_path(cache, archive), lambda part: part.write_text(body, encoding="utf-8"))
