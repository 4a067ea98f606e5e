"""HTTP response body as a ``ByteStream``: knows where it began, how long the whole is, and when it is short."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from typing import TYPE_CHECKING, Final, cast

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.base import Body, ConnectionState
from cxrprep.sources.network_errors import FEW_TRIES
from cxrprep.sources.zip_member import Inflated
from cxrprep.storage.small_files import GZIP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cxrprep.sources.http_connection import HttpConnection
    from cxrprep.sources.http_response import HttpResponse

_PIECE: Final = 65_536
# What is undone here, alone or one over the other.
DECODABLE: Final = frozenset({"gzip", "x-gzip", "deflate", "br"})
# Of Brotli all is in memory at once; no image or table of a release is longer.
_MOST_BROTLI: Final = 1 << 28


class HttpBody(Body):
    """An open body. See ``ByteStream`` for the attributes; ``answer`` holds status and headers."""

    def __init__(
        self, answer: HttpResponse, connection: HttpConnection, release: Callable[[HttpConnection], None]
    ) -> None:
        """Wrap an answer of status 200, 203 or 206 whose body was not read yet.

        ``release`` gets the connection back after the last byte; closed earlier, it is dropped.
        """
        self._connection: HttpConnection | None = connection
        self._release = release
        self.answer = answer
        self.came_over: ConnectionState = connection.state
        self.received = 0
        self.length = answer.content_length
        if answer.status == 206:
            first, total = answer.content_range
            self.offset, self.length = first or 0, total
        self.validator = answer.validator(self.length)
        self.digest = answer.digest()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; the number of bytes, 0 at the end.

        Raises ``SourceUnreachableError`` when the body ends before its stated length or the line goes silent.
        """
        connection = self._connection
        if connection is None:
            return 0
        try:
            count = connection.readinto(buffer)
        except BaseException:
            self.close()
            raise
        if connection.complete:
            self._connection = None
            self._release(connection)
        self.received += count
        return count

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else drop it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.open:
                connection.close()
            else:
                self._release(connection)


class DecodedBody(Body):
    """A body that a server compressed on its way although identity was asked for, as the file that it stands for.

    Neither its length nor an offset in it can be known, and the stated digest is of other bytes; so it begins at 0 and
    has no validator: nothing is ever continued on it. What is cut short within its coding is an error, which libcurl
    says nothing of; and ``gzip`` reads several members (RFC 1952, 2.2), which pigz and bgzip write. ``packed_size``
    counts the bytes on the way: what S3 lists as the size of an object that was stored so.
    """

    def __init__(self, body: HttpBody, codings: Sequence[str]) -> None:
        """``codings`` in the order in which they were put on: of ``DECODABLE``."""
        self._body, self._codings = body, list(codings)
        self._plain = buffered(body)
        self.came_over = body.came_over

    @property
    def packed_size(self) -> int:
        """Bytes of the body as it was sent: those stated, else those that have come."""
        stated = self._body.answer.content_length
        return self._body.received if stated is None else stated

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with decoded bytes; 0 at the end. Raises as ``HttpBody`` does, and for a damaged stream."""
        try:
            while self._codings:
                self._plain = _undone(self._plain, self._codings.pop())
            return self._plain.readinto(buffer)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceUnreachableError(
                f"{self._body.answer.url} sent a compressed answer that is damaged: {error}",
                hint="run again",
                tries=FEW_TRIES,
            ) from error

    def close(self) -> None:
        """Close the body beneath."""
        self._body.close()


def buffered(raw: object) -> io.BufferedReader:
    """``raw``, a body or what else has ``readinto``, as a file object."""
    return io.BufferedReader(cast("io.RawIOBase", raw), _PIECE)


def _undone(packed: io.BufferedReader, coding: str) -> io.BufferedReader:
    if coding == "br":
        return buffered(io.BytesIO(_without_brotli(packed.read(_MOST_BROTLI))))
    head = packed.peek(2)[:2]
    if coding == "deflate" and head:
        # With the frame of zlib or, as old servers send it, without (RFC 9110, 8.4.1.2).
        framed = head[0] & 15 == 8 and int.from_bytes(head, "big") % 31 == 0
        return buffered(Inflated(packed.read1, framed=framed, alone=True))
    # Some servers say so of all files of a kind, and stores keep what an upload said of itself.
    if coding != "deflate" and head.startswith(GZIP):
        return buffered(gzip.GzipFile(fileobj=packed, mode="rb"))
    return packed


def _without_brotli(packed: bytes) -> bytes | bytearray:
    """What Brotli (RFC 7932) has compressed. Raises ``EOFError`` where it is cut, damaged, or goes on."""
    from imagecodecs import BrotliError, brotli_decode

    with contextlib.suppress(BrotliError):
        # The end lies in the last byte, unless more follows it.
        brotli_decode(packed[:-1], out=_MOST_BROTLI)
        raise EOFError("it goes on behind its end")
    try:
        return brotli_decode(packed, out=_MOST_BROTLI)
    except BrotliError:
        raise EOFError("it ends before its end, or is none") from None
