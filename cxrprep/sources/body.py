"""The body of an HTTP answer as a ``ByteStream``: knows where it began, how long the whole is, and when it is short."""

from __future__ import annotations

import http.client
import time
import zlib
from typing import TYPE_CHECKING, Final

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.base import Closing
from cxrprep.sources.connection import Connections, unreachable
from cxrprep.sources.http_response import expects_page, looks_like_page, page_instead

if TYPE_CHECKING:
    from cxrprep.model import Digest
    from cxrprep.sources.http_response import Answer
    from cxrprep.sources.urls import Endpoint
    from cxrprep.sources.wire import Head, Wire

# TLS hands out 16 KiB at a time. Collecting for this long saves calls on a fast line, and on a slow one no byte waits.
_COLLECT_SECONDS: Final = 0.05
_PIECE: Final = 65_536
_BROKEN: Final = (OSError, http.client.HTTPException, ValueError)


class HttpBody(Closing):
    """An open body. See ``ByteStream`` for the attributes; ``answer`` holds status and headers.

    The connection goes back to the others when the last byte was read; closed earlier, it is dropped.
    """

    __slots__ = ("_broken", "_chunk", "_chunked", "_connections", "_endpoint", "_first", "_key", "_last", "_left",
                 "_timeout", "_wire", "answer", "digest", "length", "offset", "validator")  # fmt: skip

    def __init__(
        self,
        key: str,
        answer: Answer,
        head: Head,
        *,
        connections: Connections,
        wire: Wire,
        endpoint: Endpoint,
        timeout: float,
    ) -> None:
        """Wrap an answer of status 200 or 206 whose body was not read yet."""
        self._key = key
        self._connections = connections
        self._wire: Wire | None = wire
        self._endpoint = endpoint
        self._timeout = timeout
        self._left = head.length
        self._chunked, self._chunk = head.chunked, 0
        self._last = head.last
        self.answer = answer
        self.offset = 0
        self.length: int | None = self._left
        if answer.status == 206:
            first, total = answer.content_range
            self.offset, self.length = first or 0, total
        self.validator: str | None = answer.validator(self.length)
        self.digest: Digest | None = answer.digest()
        # A page may come where data was asked for, whatever the headers claim; the first bytes tell.
        self._first = self.offset == 0 and not expects_page(key)
        self._broken: BaseException | None = None
        if self._left == 0:
            self._release()

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; the number of bytes, 0 at the end.

        Raises ``SourceUnreachableError`` when the body ends before its stated length or the line goes silent, and
        ``AccessError`` for a web page in place of data.
        """
        wire = self._wire
        if wire is None:
            return 0
        try:
            if self._broken is not None:
                raise self._broken
            count = self._collect(wire, buffer)
        except _BROKEN as error:
            self.close()
            raise unreachable(self._endpoint, error, self._timeout) from error
        if self._first:
            self._first = False
            if looks_like_page(bytes(buffer[: min(count, 1024)])):
                self.close()
                raise page_instead(self._key, self.answer)
        return count

    def _collect(self, wire: Wire, buffer: memoryview) -> int:
        began = 0.0
        count = 0
        while count < len(buffer):
            try:
                piece = self._piece(wire, buffer[count:] if count else buffer)
            except _BROKEN as error:
                if count == 0:
                    raise
                # What came before it counts: on a line that breaks again and again it is all the progress there is.
                self._broken = error
                break
            if piece == 0:
                break
            count += piece
            if self._left == 0:
                self._release()
                break
            now = time.monotonic()
            if began == 0.0:
                began = now
            elif now - began > _COLLECT_SECONDS:
                break
        return count

    def _piece(self, wire: Wire, buffer: memoryview) -> int:
        if self._chunked:
            return self._chunked_piece(wire, buffer)
        if self._left is None:
            count = wire.readinto(buffer)
            if not count:
                self._release()
            return count
        if len(buffer) > self._left:
            buffer = buffer[: self._left]
        count = wire.readinto(buffer)
        if count == 0:
            raise http.client.IncompleteRead(b"", self._left)
        self._left -= count
        return count

    def _chunked_piece(self, wire: Wire, buffer: memoryview) -> int:
        if self._chunk == 0:
            self._chunk = wire.chunk()
            if self._chunk == 0:
                self._release()
                return 0
        count = wire.readinto(buffer[: self._chunk])
        if count == 0:
            raise http.client.IncompleteRead(b"", self._chunk)
        self._chunk -= count
        if self._chunk == 0:
            wire.end_of_chunk()
        return count

    def _release(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if self._last:
            self._connections.drop(wire)
        else:
            self._connections.give(self._endpoint, wire)

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else drop it."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._connections.drop(wire)


class DecodedBody(Closing):
    """A body that a server compressed on its way although identity was asked for, as the file that it stands for.

    Neither its length nor an offset in it can be known, and the stated digest is of other bytes; so it begins at 0 and
    has no validator: nothing is ever continued on it.
    """

    __slots__ = ("_body", "_decoder", "_pending", "_raw", "digest", "length", "offset", "validator")

    def __init__(self, body: HttpBody) -> None:
        """Wrap a body whose Content-Encoding is gzip or deflate."""
        self._body = body
        self._decoder = zlib.decompressobj(wbits=47)
        self._pending = b""
        self._raw = memoryview(bytearray(_PIECE))
        self.offset = 0
        self.length: int | None = None
        self.validator: str | None = None
        self.digest: Digest | None = None

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with decoded bytes; 0 at the end. Raises as ``HttpBody`` does, and for a damaged stream."""
        while True:
            try:
                data = self._decoder.decompress(self._pending, len(buffer))
            except zlib.error as error:
                raise SourceUnreachableError(
                    f"{self._body.answer.url} sent a compressed answer that is damaged: {error}", hint="run again"
                ) from error
            self._pending = self._decoder.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)
            count = self._body.readinto(self._raw)
            if count == 0:
                if not self._decoder.eof:
                    raise SourceUnreachableError(
                        f"{self._body.answer.url} sent a compressed answer that ended before its end", hint="run again"
                    )
                return 0
            self._pending += bytes(self._raw[:count])

    def close(self) -> None:
        """Close the body beneath."""
        self._body.close()


class EmptyBody(Closing):
    """The stream behind the last byte: what a 416 means when everything is here already."""

    __slots__ = ("digest", "length", "offset", "validator")

    def __init__(self, length: int, validator: str | None) -> None:
        """``length`` is the size of the whole file."""
        self.offset = length
        self.length: int | None = length
        self.validator = validator
        self.digest: Digest | None = None

    def readinto(self, buffer: memoryview) -> int:
        """0: the end."""
        del buffer
        return 0

    def close(self) -> None:
        """Nothing to close."""
