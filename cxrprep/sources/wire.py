"""One HTTP/1.1 connection as bytes: a request is one write, and the head of an answer as few reads as it takes.

``http.client`` makes the connection (TLS, proxies, tunnels). Its own answers are read through the mail parser, which
costs more Python than everything else about a file of 90 KB; so head and framing (RFC 9112, 6) are read here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import ssl
import struct
from http.client import BadStatusLine, IncompleteRead, InvalidURL, LineTooLong, NotConnected, RemoteDisconnected
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPConnection

# A head is read together with the first bytes of the body; more of those would only be copied once more.
_HELD: Final = 16_384
_LONGEST_HEAD: Final = 65_536
_LONGEST_LINE: Final = 8_192
_MOST_INTERIM: Final = 20
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_FORBIDDEN_IN_TARGET: Final = re.compile(r"[\x00-\x20\x7f]")
_STATUS: Final = re.compile(r"HTTP/(1\.[01]|2(?:\.0)?) (\d{3})(?: |$)")
_CHUNK: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?=[ \t]*(?:;|$))")


class Head(NamedTuple):
    """The head of an answer.

    ``headers`` have names in lower case, repeated ones are joined by commas; ``cookies`` are its Set-Cookie lines.
    ``length`` is the number of bytes of the body that follows, ``None`` when only its end will tell; ``last`` means
    that the server closes the connection behind it.
    """

    status: int
    headers: dict[str, str]
    cookies: list[str]
    length: int | None
    chunked: bool
    last: bool


class Wire:
    """A connection that is used by one thread at a time. Raises ``OSError`` and ``http.client.HTTPException``."""

    __slots__ = ("_at", "_connection", "_end", "_held", "_view")

    def __init__(self, connection: HTTPConnection) -> None:
        """``connection`` connects when ``connect`` is called."""
        self._connection = connection
        self._held = bytearray(_HELD)
        self._view = memoryview(self._held)
        self._at = self._end = 0

    @property
    def clean(self) -> bool:
        """Whether nothing came that nobody has read: only then may another request follow."""
        return self._at == self._end

    def connect(self) -> None:
        """Connect, through TLS and proxy where they are wanted."""
        self._connection.connect()
        sock = self._socket
        timeout = sock.gettimeout()
        if timeout and os.name == "posix" and not isinstance(sock, ssl.SSLSocket):
            # The system watches the time: Python would ask it before each read whether there is anything.
            limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1_000_000))
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def request(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Send a request without a body. Raises ``InvalidURL`` and ``ValueError`` for what would break its lines."""
        if _FORBIDDEN_IN_TARGET.search(target):
            raise InvalidURL("an address must not contain control characters or spaces")
        text = f"{method} {target} HTTP/1.1\r\n" + "".join([f"{name}: {headers[name]}\r\n" for name in headers])
        if text.count("\n") != len(headers) + 1 or text.count("\r") != len(headers) + 1:
            raise ValueError("a header must not contain a line break")
        try:
            sock = self._socket
            sock.sendall(text.encode("latin-1") + b"\r\n")
            if _QUICKACK is not None:
                # A request makes Linux take the connection for a dialogue and hold its acknowledgements back for 40 ms,
                # for which a server waits whose window is full: one small file in 150, over a fast line.
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except BlockingIOError:
            raise TimeoutError from None

    def answer(self, method: str) -> Head:
        """The head of the answer to ``method``; interim answers (1xx) are passed over."""
        for _ in range(_MOST_INTERIM):
            head = _parsed(self._head(), method)
            if head.status >= 200:
                return head
        raise BadStatusLine("interim answers without end")

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes, as many as there are; 0 at the end of the connection."""
        held = self._end - self._at
        if held:
            count = min(held, len(buffer))
            buffer[:count] = self._view[self._at : self._at + count]
            self._at += count
            return count
        return self._received(buffer)

    def chunk(self) -> int:
        """The size of the next chunk; 0 behind the last one, whose trailers are passed over."""
        line = self._line()
        found = _CHUNK.match(line)
        if found is None:
            raise IncompleteRead(line[:20])
        size = int(found[0], 16)
        if size == 0:
            while self._line():
                pass
        return size

    def end_of_chunk(self) -> None:
        """Pass over the line break behind a chunk."""
        if self._line():
            raise IncompleteRead(b"")

    def break_off(self) -> None:
        """Make a thread that waits on this connection fail at once; to be called from another thread."""
        sock = self._connection.sock
        if sock is not None:
            # A TLS socket's own shutdown would touch state that the reading thread holds.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    # ---- inside ----

    @property
    def _socket(self) -> socket.socket:
        sock: socket.socket | None = self._connection.sock
        if sock is None:
            raise NotConnected
        return sock

    def _received(self, buffer: memoryview) -> int:
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            raise TimeoutError from None

    def _fill(self) -> bool:
        """Read more into what is held; whether anything came."""
        if self._at:
            rest = self._end - self._at
            self._view[:rest] = self._view[self._at : self._end]
            self._at, self._end = 0, rest
        if self._end == len(self._held):
            larger = bytearray(2 * len(self._held))
            larger[: self._end] = self._held
            self._held, self._view = larger, memoryview(larger)
        count = self._received(self._view[self._end :])
        self._end += count
        return count > 0

    def _head(self) -> str:
        while True:
            end, behind = self._held.find(b"\r\n\r\n", self._at, self._end), 4
            if end < 0:
                end, behind = self._held.find(b"\n\n", self._at, self._end), 2
            if end >= 0:
                text = self._held[self._at : end].decode("latin-1")
                self._at = end + behind
                return text
            if self._end - self._at > _LONGEST_HEAD:
                raise LineTooLong("the headers")
            held = self._end - self._at
            if held >= 5 and not self._held.startswith(b"HTTP/", self._at, self._end):
                raise BadStatusLine(repr(bytes(self._held[self._at : self._at + 20])))
            if not self._fill():
                if held:
                    raise BadStatusLine("the headers ended before their end")
                raise RemoteDisconnected("the server closed the connection without an answer")

    def _line(self) -> bytes:
        while True:
            end = self._held.find(b"\n", self._at, self._end)
            if end >= 0:
                line = bytes(self._held[self._at : end])
                self._at = end + 1
                return line.rstrip(b"\r")
            if self._end - self._at > _LONGEST_LINE:
                raise LineTooLong("a chunk's size")
            if not self._fill():
                raise IncompleteRead(b"")


@functools.lru_cache(maxsize=256)  # a server writes most of its lines again and again
def _field(line: str) -> tuple[str, str]:
    """Name in lower case and value; without a name for a folded line, and without both for what is none."""
    if line[:1] in (" ", "\t"):
        return "", line.strip()
    name, colon, value = line.partition(":")
    name = name.strip().lower()
    return (name, value.strip()) if name and colon else ("", "")


def _parsed(text: str, method: str) -> Head:
    first, _, rest = text.partition("\n")
    found = _STATUS.match(first)
    if found is None:
        raise BadStatusLine(repr(first[:40]))
    status = int(found[2])
    headers: dict[str, str] = {}
    cookies: list[str] = []
    low = ""
    for line in rest.split("\n"):
        name, value = _field(line)
        if not name:
            # A folded line, as RFC 9112 wants it read (5.2).
            if value and low:
                headers[low] += " " + value
            continue
        low = name
        if low == "set-cookie":
            cookies.append(value)
        headers[low] = f"{headers[low]}, {value}" if low in headers else value
    connection = headers.get("connection", "").lower()
    last = "close" in connection or (found[1] == "1.0" and "keep-alive" not in connection)
    if method == "HEAD" or status in (204, 304) or status < 200:
        return Head(status, headers, cookies, 0, False, last)
    coding = headers.get("transfer-encoding", "").lower()
    if coding:
        if coding.rpartition(",")[2].strip() != "chunked":
            return Head(status, headers, cookies, None, False, True)
        return Head(status, headers, cookies, None, True, last)
    stated = headers.get("content-length")
    if stated is None:
        return Head(status, headers, cookies, None, False, True)
    if not (stated.isascii() and stated.isdecimal()):
        # Several equal values are one (RFC 9110, 8.6).
        lengths = {part.strip() for part in stated.split(",")}
        stated = lengths.pop()
        if lengths or not (stated.isascii() and stated.isdecimal()):
            raise BadStatusLine(f"Content-Length is {stated[:40]!r}")
    return Head(status, headers, cookies, int(stated), False, last)
