"""The content of one member of a remote archive as a ``ByteStream``."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Final

from cxrprep.errors import ArchiveError, SourceUnreachableError
from cxrprep.sources.base import Body, ByteStream

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE: Final = 65_536


class Ranged(Body):
    """Bytes of a remote file from ``at`` up to ``end``, opened when the first is read.

    ``limit`` moves the end: what was asked for too much is read away when it is short, so that the connection can
    serve again, and what was asked for too little is asked for by a second request.
    """

    def __init__(self, open_range: Callable[[int, int], ByteStream], at: int, end: int) -> None:
        self._open_range = open_range
        self._at, self._end, self._asked = at, end, end
        self._stream: ByteStream | None = None

    def limit(self, end: int) -> None:
        """End there instead."""
        self._end = end

    def jump(self, at: int) -> None:
        """Go on at ``at``: by reading when that is near, by a request of its own otherwise."""
        if self._stream is None or not 0 <= at - self._at <= _PIECE:
            self.close()
            self._at, self._asked = at, self._end
            return
        self.read(at - self._at)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; 0 at the end."""
        if self._at >= self._end:
            return 0
        buffer = buffer[: self._end - self._at]
        for _ in range(2):
            if self._stream is None:
                self._asked = max(self._asked, self._end)
                stream = self._open_range(self._at, self._asked)
                if stream.offset != self._at:
                    stream.close()
                    raise SourceUnreachableError(
                        "the server does not serve ranges, without which no member of an archive can be read",
                        hint="download the archive as a whole",
                    )
                self._stream = stream
            count = self._stream.readinto(buffer)
            if count:
                self._at += count
                return count
            self._stream.close()
            self._stream = None
        raise SourceUnreachableError("the answer ended before the range that was asked for", hint="run again")

    def read(self, count: int) -> bytes:
        """``count`` bytes, fewer only at the end."""
        pieces = bytearray(count)
        done = 0
        while done < count and (got := self.readinto(memoryview(pieces)[done:])):
            done += got
        return bytes(pieces[:done])

    def close(self) -> None:
        """Give the connection back, after a short rest was read away; drop it otherwise."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            if self._asked - self._at <= _PIECE:
                rest = memoryview(bytearray(_PIECE))
                while stream.readinto(rest):
                    pass
        except SourceUnreachableError:
            # Nobody waits for these bytes.
            pass
        finally:
            stream.close()


class Inflated(io.RawIOBase):
    """A deflated stream as the bytes that it stands for. Raises ``EOFError`` where it is cut, ``zlib.error``."""

    def __init__(self, read: Callable[[int], bytes], *, framed: bool = False, alone: bool = False) -> None:
        """``read`` gives up to so many bytes of it; ``framed`` by zlib (RFC 1950); ``alone``: none may follow it."""
        self._read, self._decoder, self._alone = read, zlib.decompressobj(15 if framed else -15), alone

    def readable(self) -> bool:
        """``True``."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` from the start; 0 at the end."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # any writable buffer
        while view and not self._decoder.eof:
            piece = self._decoder.unconsumed_tail or self._read(_PIECE)
            data = self._decoder.decompress(piece, len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            if not piece:
                raise EOFError("it ends before its end")
        if self._alone and view and (self._decoder.unused_data or self._read(1)):
            raise EOFError("it goes on behind its end")
        return 0


class InflatedBody(Body):
    """A deflated member, inflated while it is read; ``size`` is that outside of the archive."""

    def __init__(self, raw: Ranged, key: str, *, size: int | None, offset: int = 0, end: int | None = None) -> None:
        """``raw`` holds the member's data. Raises as ``readinto``, when ``offset`` is passed over.

        Args:
            raw: the bytes of the archive, of this member alone.
            key: what messages call the member.
            size: its bytes unpacked; ``None`` where the archive does not say.
            offset: the member's first byte to read; those before are unpacked and passed over.
            end: the byte after the last; ``None`` reads to the end.
        """
        self._raw, self._key, self._size = raw, key, size
        self._plain = Inflated(raw.read)
        self._done = 0
        self._end = end
        before = memoryview(bytearray(_PIECE))
        while self._done < offset and self.readinto(before[: offset - self._done]):
            pass
        self.offset = self._done

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with content; 0 at the end.

        Raises ``ArchiveError`` when the data is damaged or longer or shorter than the directory says.
        """
        if self._end is not None:
            buffer = buffer[: max(self._end - self._done, 0)]
        try:
            count = self._plain.readinto(buffer)
        except zlib.error as error:
            raise ArchiveError(
                f"{self._key} is damaged after {self._done} bytes: {error}", hint="run again; the copy may be at fault"
            ) from None
        except EOFError:
            raise ArchiveError(f"{self._key} ends within its data", hint="the archive is damaged") from None
        self._done += count
        if self._size is not None and self._done > self._size:
            raise ArchiveError(f"{self._key} is longer than its archive says", hint="do not trust this archive")
        if len(buffer) and not count and self._size not in (None, self._done):
            raise ArchiveError(f"{self._key} is shorter than its archive says", hint="the archive is damaged")
        return count

    def close(self) -> None:
        """Close the range beneath."""
        self._raw.close()
