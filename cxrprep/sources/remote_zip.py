"""Members of a zip archive that stays where it is: its directory and single members, read by range.

A patient's images cost their own bytes and not the 162 GiB around them. The format is PKWARE's APPNOTE 6.3.10; archives
of more than 4 GiB or 65,535 members have zip64 records (4.3.14, 4.3.15, 4.5.3).

Not the standard library's ``zipfile`` over a file that reads ranges: it holds the whole directory in memory (measured:
145 MiB for the 223,414 members of CheXpert, 4 MiB here, at the same 1.6 s), and opens a member only after reading it,
in each worker and for each saved plan, where a member's validator says here where it lies.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cxrprep.errors import ArchiveError, NotInSourceError, SourceUnreachableError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources.listing_cache import CachedListing
from cxrprep.sources.retry import with_retries
from cxrprep.sources.zip_member import InflatedBody, Ranged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cxrprep.sources.base import Body, ByteStream

# Between an archive's name and a member's, as in jar addresses: no key of a listing contains it otherwise.
SEPARATOR: Final = "!/"

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
# The end record, the longest comment behind it, and the zip64 records before it.
_TAIL: Final = _END.size + 65_535 + _LOCATOR.size + _END64.size
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_STORED, _DEFLATED, _AES = 0, 8, 99
_ENCRYPTED, _UTF8 = 0x1, 0x800
# What a local header's extra field takes at most in practice; what lies beyond costs a second request.
_SLACK: Final = 128
_PLACE: Final = re.compile(r"(.*)#(\d+)\+(\d+)/(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a member lies: its local header, its compressed size, its method."""

    header: int
    packed: int
    method: int


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    size: int
    # Bytes before the archive proper (a self-extracting program): offsets count from behind them.
    shift: int


class RemoteZip:
    """An archive of which single ranges are read."""

    def __init__(
        self, key: str, address: str, size: int, validator: str, open_range: Callable[[int, int], ByteStream]
    ) -> None:
        """Nothing is read yet.

        Args:
            key: what messages call the archive.
            address: where it lies; its directory is kept on disk under it.
            size: its bytes.
            validator: what the server must still say of it.
            open_range: opens the bytes from the first to before the second offset.
        """
        self._key, self._address, self._size, self._validator = key, address, size, validator
        self._open_range = open_range

    def members(self) -> Iterator[RemoteFile]:
        """The files of the archive in the order of its directory, each with size and CRC-32.

        ``key`` is ``ARCHIVE!/MEMBER``. The validator says where the member lies, so that a saved plan needs no
        directory. Raises ``ArchiveError`` for what is no zip archive, and what opening the archive raises.
        """
        directory = with_retries(self._directory)
        kept = CachedListing(
            re.sub(r"[^\w.-]+", "_", self._key) + ".directory",
            f"{self._address} {self._validator}",
            start=directory.start,
            end=directory.start + directory.size,
            open_at=lambda offset: self._opened(offset, directory.start + directory.size),
            validator=self._validator,
        )
        rest = b""
        for block in kept.blocks():
            rest += block
            at = 0
            while (length := _entry_length(rest, at)) is not None and len(rest) - at >= length:
                if not rest.startswith(b"PK\x01\x02", at):
                    kept.forget()
                    raise ArchiveError(
                        f"{self._key}: its directory is damaged", hint="the publisher's copy is at fault"
                    )
                file = self._entry(rest[at : at + length], directory.shift)
                if file is not None:
                    yield file
                at += length
            rest = rest[at:]
        if rest:
            kept.forget()
            raise ArchiveError(f"{self._key}: its directory ends within an entry", hint="run again")

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """The content of a member from ``offset`` on.

        A stored member is read from there; a deflated one from its start, since deflate cannot be entered midway, and
        what lies before ``offset`` is passed over. Raises ``ArchiveError``, also for a member that is encrypted or
        packed in another way, and ``NotInSourceError``.
        """
        name = file.key.partition(SEPARATOR)[2]
        file = file if _PLACE.fullmatch(file.validator or "") else self._listed(file.key)
        place = self._place(file)
        last = place.header + _LOCAL.size + len(name.encode()) + _SLACK + place.packed
        raw = Ranged(self._opened, place.header, min(last, self._size))
        try:
            start = place.header + self._local_header(raw, file.key, name)
            if place.method == _STORED:
                raw.limit(start + (place.packed if end is None else min(end, place.packed)))
                if offset:
                    raw.jump(start + offset)
                body: Body = raw
                body.offset = offset
            else:
                raw.limit(start + place.packed)
                body = InflatedBody(raw, file.key, size=file.size, offset=offset, end=end)
        except BaseException:
            raw.close()
            raise
        body.validator, body.digest, body.length = file.validator, file.digest, file.size
        return body

    def _opened(self, offset: int, end: int) -> ByteStream:
        """Bytes of the archive, as long as it is the one whose directory was read."""
        stream = self._open_range(offset, end)
        if stream.validator != self._validator:
            stream.close()
            raise SourceUnreachableError(f"{self._key}: it has changed since it was listed", hint="run again")
        return stream

    # ---- the directory ----

    def _directory(self) -> _Directory:
        """Where the directory lies, from the records at the archive's end."""
        start = max(self._size - _TAIL, 0)
        with Ranged(self._opened, start, self._size) as raw:
            tail = raw.read(self._size - start)
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
            at = tail.rfind(b"PK\x05\x06", 0, at)
        if at < 0:
            raise ArchiveError(
                f"{self._key}: it does not end as a zip archive does",
                hint="the publisher's copy is cut short, or no zip",
            )
        _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
        behind = start + at
        if count == _FULL16 or _FULL32 in (size, offset):
            place = at - _LOCATOR.size
            if place >= 0 and tail[place : place + 4] == b"PK\x06\x07":
                record_at = _LOCATOR.unpack_from(tail, place)[2]
                # The record stands right before its locator, whatever was put before the archive.
                behind = start + place - _END64.size
                inside = behind - start
                if inside < 0 or tail[inside : inside + 4] != b"PK\x06\x06":
                    behind = record_at
                    with Ranged(self._opened, behind, behind + _END64.size) as raw:
                        record = raw.read(_END64.size)
                else:
                    record = tail[inside : inside + _END64.size]
                if record[:4] != b"PK\x06\x06":
                    raise ArchiveError(f"{self._key}: its zip64 record is not where it should be", hint="run again")
                size, offset = _END64.unpack(record)[8:10]
        shift = behind - size - offset
        if shift < 0:
            raise ArchiveError(f"{self._key}: its directory would begin before the archive", hint="it is damaged")
        return _Directory(offset + shift, size, shift)

    def _entry(self, entry: bytes, shift: int) -> RemoteFile | None:
        """The file that a directory entry describes, ``None`` for a folder."""
        _, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, _, _, _, _, header = (
            _ENTRY.unpack_from(entry)
        )
        raw_name = entry[_ENTRY.size : _ENTRY.size + name_length]
        name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "replace").replace("\\", "/")
        if name.endswith("/"):
            return None
        extra = entry[_ENTRY.size + name_length : _ENTRY.size + name_length + extra_length]
        size, packed, header = _zip64(extra, size, packed, header)
        method = _AES if flags & _ENCRYPTED else method
        return RemoteFile(
            f"{self._key}{SEPARATOR}{name}",
            size,
            Digest("crc32", f"{crc:08x}"),
            f"{self._validator}#{header + shift}+{packed}/{method}",
        )

    # ---- one member ----

    def _listed(self, key: str) -> RemoteFile:
        for member in self.members():
            if member.key == key:
                return member
        raise NotInSourceError(f"{key}: the archive has no such member", hint="look at its listing")

    def _place(self, file: RemoteFile) -> _Place:
        found = _PLACE.fullmatch(file.validator or "")
        if found is None or found[1] != self._validator:
            raise ArchiveError(
                f"{file.key}: the archive has changed since it was listed", hint="run again; the plan is made again"
            )
        method = int(found[4])
        if method not in (_STORED, _DEFLATED):
            # Said of this member alone: the others of the archive are read.
            reason = "is encrypted" if method == _AES else f"is packed by method {method}"
            raise ArchiveError(
                f"{file.key} {reason}, which cannot be read by range", hint="download the archive as a whole"
            )
        return _Place(int(found[2]), int(found[3]), method)

    def _local_header(self, raw: Ranged, key: str, name: str) -> int:
        """The length of the header before a member's data, read and checked."""
        header = raw.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise ArchiveError(f"{key}: no member begins where the directory says", hint="the archive is damaged")
        flags, name_length, extra_length = header[6] | header[7] << 8, *struct.unpack_from("<2H", header, 26)
        raw_name = raw.read(name_length)
        raw.read(extra_length)
        if raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "replace").replace("\\", "/") != name:
            raise ArchiveError(f"{key}: the archive has another name there", hint="the archive is damaged")
        return int(_LOCAL.size + name_length + extra_length)


def _entry_length(data: bytes, at: int) -> int | None:
    if len(data) - at < _ENTRY.size:
        return None
    return _ENTRY.size + int(sum(struct.unpack_from("<3H", data, at + 28)))


def _zip64(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """The three numbers, those that did not fit taken from the zip64 field (4.5.3: in this order, if full)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            size = next(numbers, size) if size == _FULL32 else size
            packed = next(numbers, packed) if packed == _FULL32 else packed
            header = next(numbers, header) if header == _FULL32 else header
            break
        at += 4 + length
    return size, packed, header
