"""HTTP response body as a ``ByteStream``: knows where it began, how long the whole is, and when it is short."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, Final

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.base import Body, ConnectionState
from cxrprep.sources.http_response import HttpResponse, expects_page, is_html_page, page_instead
from cxrprep.sources.network_errors import FEW_TRIES
from cxrprep.storage.small_files import GZIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.sources.http_connection import HttpConnection

_PIECE: Final = 65_536


class HttpBody(Body):
    """An open body. See ``ByteStream`` for the attributes; ``answer`` holds status and headers."""

    def __init__(
        self, key: str, answer: HttpResponse, connection: HttpConnection, release: Callable[[HttpConnection], None]
    ) -> None:
        """Wrap an answer of status 200, 203 or 206 whose body was not read yet.

        Args:
            key: the file's key, for messages.
            answer: status and headers.
            connection: where the body comes from.
            release: gets the connection back after the last byte; closed earlier, it is dropped.
        """
        self._key = key
        self._connection: HttpConnection | None = connection
        self._release = release
        self.answer = answer
        self.came_over: ConnectionState = connection.state
        self.length = answer.content_length
        if answer.status == 206:
            first, total = answer.content_range
            self.offset, self.length = first or 0, total
        self.validator = answer.validator(self.length)
        self.digest = answer.digest()
        # A page may come where data was asked for, whatever the headers claim; the first bytes tell.
        self._first = self.offset == 0 and not expects_page(key)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; the number of bytes, 0 at the end.

        Raises ``SourceUnreachableError`` when the body ends before its stated length or the line goes silent, and
        ``AccessError`` for a web page in place of data.
        """
        connection = self._connection
        if connection is None:
            return 0
        try:
            count = connection.readinto(buffer)
        except BaseException:
            self.close()
            raise
        if self._first:
            self._first = False
            if is_html_page(bytes(buffer[: min(count, 1024)])):
                self.close()
                raise page_instead(self._key, self.answer)
        if connection.complete:
            self._connection = None
            self._release(connection)
        return count

    def close(self) -> None:
        """Give the connection back when the body was read to its end, else drop it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.open:
                connection.close()
            else:
                self._release(connection)


class GzipBody(Body):
    """A body that a server compressed on its way although identity was asked for, as the file that it stands for.

    Neither its length nor an offset in it can be known, and the stated digest is of other bytes; so it begins at 0 and
    has no validator: nothing is ever continued on it. ``decoded`` when libcurl has undone the coding already. ``gzip``
    reads several members (RFC 1952, 2.2), which pigz and bgzip write. ``packed_size`` counts the bytes on the way: what
    S3 lists as the size of an object that was stored so.
    """

    def __init__(self, body: HttpBody, *, decoded: bool = False) -> None:
        self._body, self._raw = body, _Raw(body)
        self._plain: HttpBody | io.BufferedReader | gzip.GzipFile = body
        if not decoded:
            packed: io.BufferedReader = io.BufferedReader(self._raw, _PIECE)
            # Some servers say so of all files of a kind, and stores keep what an upload said of itself.
            self._plain = gzip.GzipFile(fileobj=packed) if packed.peek(2).startswith(GZIP) else packed
        self.came_over = body.came_over

    @property
    def packed_size(self) -> int:
        """Bytes of the body as it was sent: those stated, else those that have come."""
        stated = self._body.answer.content_length
        return self._raw.count if stated is None else stated

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with decoded bytes; 0 at the end. Raises as ``HttpBody`` does, and for a damaged stream."""
        try:
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


class _Raw(io.RawIOBase):
    """A body as the file object that ``gzip`` reads."""

    def __init__(self, body: HttpBody) -> None:
        self._body = body
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._body.readinto(memoryview(buffer))  # type: ignore[arg-type]  # any writable buffer
        self.count += count
        return count
