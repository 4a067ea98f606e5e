"""A server that misbehaves to order.

Each request for the object takes the next behaviour of a script, the last one stays. Behaviours write raw answers, so
they may lie about lengths, stop in the middle, or say nothing at all.
"""

from __future__ import annotations

import hashlib
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

OBJECT = "images/00000001_000.png"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
LOGIN_PAGE = b"<!DOCTYPE html><html><title>Log in</title><form action=/login>password</form></html>"


@dataclass
class Request:
    """One request: where it came in, what it asks for, and the line to answer on."""

    method: str
    path: str
    headers: dict[str, str]
    line: socket.socket
    mirror: Mirror

    @property
    def first(self) -> int:
        """The first byte that is wanted."""
        found = _RANGE.match(self.headers.get("range", ""))
        return int(found[1]) if found else 0

    def head(self, status: str, *lines: str) -> None:
        """Send a status line and headers."""
        self.line.sendall("\r\n".join([f"HTTP/1.1 {status}", "Server: faults", *lines, "", ""]).encode("latin-1"))


Behaviour = Callable[[Request], None]
# A refusal is one answer, whichever method asked; a body that breaks is broken for the GET that fetches it.
_SPENT_BY_HEAD: WeakSet[Behaviour] = WeakSet()


def _begin(request: Request, body: bytes, etag: str, *, length: int | None = None, extra: Sequence[str] = ()) -> bytes:
    """Headers of an honest 200 or 206; the bytes that should follow."""
    wanted = _RANGE.match(request.headers.get("range", ""))
    honest = request.headers.get("if-range", etag) == etag
    tag = [f"ETag: {etag}", "Accept-Ranges: bytes", "Content-Type: application/octet-stream", *extra]
    if wanted and honest and request.first < len(body):
        last = min(int(wanted[2] or len(body)), len(body) - 1)
        part = body[request.first : last + 1]
        request.head(
            "206 Partial Content",
            f"Content-Length: {len(part) if length is None else length}",
            f"Content-Range: bytes {request.first}-{last}/{len(body)}",
            *tag,
        )
        return part
    if wanted and honest and request.first >= len(body):
        request.head("416 Range Not Satisfiable", "Content-Length: 0", f"Content-Range: bytes */{len(body)}")
        return b""
    request.head("200 OK", f"Content-Length: {len(body) if length is None else length}", *tag)
    return body


def honest(request: Request) -> None:
    """What a good server does."""
    part = _begin(request, request.mirror.body, request.mirror.etag)
    if request.method != "HEAD":
        request.line.sendall(part)


def cut(after: int) -> Behaviour:
    """Full headers, ``after`` bytes, and the connection closed."""

    def behave(request: Request) -> None:
        request.line.sendall(_begin(request, request.mirror.body, request.mirror.etag)[:after])
        request.line.shutdown(socket.SHUT_RDWR)

    return behave


def reset(after: int) -> Behaviour:
    """The same with a TCP reset."""

    def behave(request: Request) -> None:
        request.line.sendall(_begin(request, request.mirror.body, request.mirror.etag)[:after])
        request.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.line.close()

    return behave


def stall(after: int, seconds: float = 60.0) -> Behaviour:
    """``after`` bytes, then silence for as long as the client waits."""

    def behave(request: Request) -> None:
        request.line.sendall(_begin(request, request.mirror.body, request.mirror.etag)[:after])
        request.mirror.closing.wait(seconds)

    return behave


def mute(request: Request) -> None:
    """No answer at all."""
    request.mirror.closing.wait(60.0)


def drip(size: int, pause: float) -> Behaviour:
    """``size`` bytes at a time, so slowly that a total time-out would strike and one between bytes does not."""

    def behave(request: Request) -> None:
        part = _begin(request, request.mirror.body, request.mirror.etag)
        for start in range(0, len(part), size):
            request.line.sendall(part[start : start + size])
            time.sleep(pause)

    return behave


def status(line: str, *headers: str, body: bytes = b"") -> Behaviour:
    """An answer of that status, to whatever was asked."""

    def behave(request: Request) -> None:
        request.head(line, f"Content-Length: {len(body)}", *headers)
        request.line.sendall(b"" if request.method == "HEAD" else body)

    _SPENT_BY_HEAD.add(behave)
    return behave


def page(kind: str) -> Behaviour:
    """A login page under 200, with the given content type."""
    return status("200 OK", f"Content-Type: {kind}", body=LOGIN_PAGE)


def ignore_range(request: Request) -> None:
    """The whole under 200, whatever was asked."""
    request.headers.pop("range", None)
    honest(request)


def wrong_place(request: Request) -> None:
    """A 206 that begins somewhere else than asked, and says so."""
    body = request.mirror.body
    start = max(request.first - 1000, 0)
    request.head(
        "206 Partial Content",
        f"Content-Length: {len(body) - start}",
        f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}",
        f"ETag: {request.mirror.etag}",
    )
    request.line.sendall(body[start:])


def stated_length(change: int) -> Behaviour:
    """A Content-Length that is wrong by ``change``; the connection is closed behind the body."""

    def behave(request: Request) -> None:
        whole = request.mirror.body
        part = _begin(request, whole, request.mirror.etag, length=len(whole) - request.first + change)
        request.line.sendall(part)
        request.line.shutdown(socket.SHUT_RDWR)

    return behave


def unstated_and_short(request: Request) -> None:
    """No length, and the connection closed half-way: only a digest or the listing can tell."""
    request.head("200 OK", f"ETag: {request.mirror.etag}", "Connection: close")
    request.line.sendall(request.mirror.body[: len(request.mirror.body) // 2])
    request.line.shutdown(socket.SHUT_RDWR)


def short_and_consistent(request: Request) -> None:
    """Half the bytes under 200 with a length that fits them: what a proxy with a truncated copy sends."""
    half = request.mirror.body[: len(request.mirror.body) // 2]
    request.head("200 OK", f"Content-Length: {len(half)}", f"ETag: {request.mirror.etag}")
    request.line.sendall(half)


def altered(request: Request) -> None:
    """The right length and one wrong byte."""
    body = bytearray(request.mirror.body)
    body[len(body) // 3] ^= 1
    part = _begin(request, bytes(body), request.mirror.etag)
    request.line.sendall(part)


def changed(body: bytes, etag: str) -> Behaviour:
    """From now on the object is another one."""

    def behave(request: Request) -> None:
        request.mirror.body, request.mirror.etag = body, etag
        honest(request)

    return behave


def changed_unannounced(body: bytes, etag: str) -> Behaviour:
    """Another object, and a range of it under 206 although If-Range named the old one."""

    def behave(request: Request) -> None:
        request.mirror.body, request.mirror.etag = body, etag
        request.headers.pop("if-range", None)
        honest(request)

    return behave


def compressed(request: Request) -> None:
    """Content-Encoding gzip, though nobody asked for it."""
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(request.mirror.body) + packer.flush()
    request.head("200 OK", f"Content-Length: {len(data)}", "Content-Encoding: gzip")
    request.line.sendall(data)


def redirect(target: Callable[[], str], code: str = "302 Found") -> Behaviour:
    """To another address."""
    return lambda request: request.head(code, f"Location: {target()}", "Content-Length: 0")


def nonsense(request: Request) -> None:
    """Bytes that are no HTTP."""
    request.line.sendall(b"\x00\x01SSH-2.0-OpenSSH\r\n" * 40)
    request.line.shutdown(socket.SHUT_RDWR)


def endless_headers(request: Request) -> None:
    """Headers that never end."""
    try:
        request.line.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(200_000):
            request.line.sendall(b"X-%d: %s\r\n" % (number, b"a" * 500))
    except OSError:
        return


def needs(login: str, then: Behaviour = honest) -> Behaviour:
    """A challenge unless ``Authorization`` is ``login``."""

    def behave(request: Request) -> None:
        if request.headers.get("authorization") != login:
            request.head("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"', "Content-Length: 0")
        else:
            then(request)

    return behave


@dataclass
class Mirror:
    """A mirror of one object, with or without a list of sums; ``seen`` is every request that came."""

    body: bytes
    script: list[Behaviour]
    sums: bool = True
    etag: str = '"v1"'
    listed: bytes | None = None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> None:
        """Write the answer to ``request``."""
        with self.lock:
            self.seen.append((request.method, request.path, dict(request.headers)))
            place = request.path.removeprefix("/mirror/")
            behave = None
            if place == OBJECT:
                behave = self.script[0]
                if len(self.script) > 1 and (request.method == "GET" or behave in _SPENT_BY_HEAD):
                    self.script.pop(0)
        if behave is not None:
            behave(request)
        elif place == "MD5SUMS" and self.sums:
            # The publisher's sum is that of the good object, whatever the script sends.
            good = self.body if self.listed is None else self.listed
            _text(request, f"{hashlib.md5(good).hexdigest()}  {OBJECT}\n".encode(), "text/plain")
        elif place == "":
            _text(request, b'<a href="images/">images/</a>' + (b'<a href="MD5SUMS">MD5SUMS</a>' if self.sums else b""))
        elif place == "images/":
            name = OBJECT.rpartition("/")[2]
            _text(request, f'<a href="../">../</a><a href="{name}">{name}</a>'.encode())
        else:
            request.head("404 Not Found", "Content-Length: 0")


def _text(request: Request, body: bytes, kind: str = "text/html") -> None:
    request.head("200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    if request.method != "HEAD":
        request.line.sendall(body)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    mirror: Mirror
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, object]:
        line, address = super().get_request()
        if self.context is not None:
            line = self.context.wrap_socket(line, server_side=True, do_handshake_on_connect=False)
        return line, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is about."""


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        reader = self.request.makefile("rb")
        try:
            while line := reader.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while text := reader.readline().decode("latin-1").strip():
                    name, _, value = text.partition(":")
                    headers[name.strip().lower()] = value.strip()
                server.mirror.answer(Request(method, path, headers, self.request, server.mirror))
        except (OSError, ValueError):
            return


@contextmanager
def serving(mirror: Mirror, *, host: str = "127.0.0.1", certificate: Path | None = None) -> Iterator[int]:
    """The port that ``mirror`` is served at for as long as the block lasts."""
    with _Server((host, 0), _Handler) as server:
        server.mirror = mirror
        if certificate is not None:
            server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.context.load_cert_chain(certificate)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            mirror.closing.set()
            server.shutdown()
            thread.join()
