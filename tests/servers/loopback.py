"""Small HTTP services on loopback: a function answers requests, a thread serves it on a port of its own."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import email.utils
import hashlib
import http.server
import ipaddress
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names are in lower case, ``path`` is decoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.body or b"{}")
        return answer


@dataclass(frozen=True)
class Reply:
    """What is sent back; ``cut`` ends the connection after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def as_json(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def page(text: str, status: int = 200) -> Reply:
    return Reply(status, f"<!DOCTYPE html><html><body>{text}</body></html>".encode(), {"Content-Type": "text/html"})


def object_reply(request: Request, data: bytes, headers: dict[str, str] | None = None) -> Reply:
    """``data`` as object stores send it: ranges, a strong ETag, the time of its last change."""
    stated = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": '"' + hashlib.md5(data).hexdigest() + '"',
        "Last-Modified": email.utils.formatdate(1_700_000_000, usegmt=True),
        **(headers or {}),
    }
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return Reply(200, data, stated)
    first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    if first >= len(data):
        return Reply(416, b"", {**stated, "Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[first : last + 1], {**stated, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def goog_hash(data: bytes) -> str:
    """The header by which Google's storage states CRC32C and MD5."""
    import google_crc32c

    crc = google_crc32c.value(data).to_bytes(4, "big")
    return f"crc32c={base64.b64encode(crc).decode()},md5={base64.b64encode(hashlib.md5(data).digest()).decode()}"


def basic(request: Request) -> tuple[str, str] | None:
    """User name and password of a request, when it has them."""
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind != "Basic":
        return None
    try:
        user, _, password = base64.b64decode(text).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


class Server(http.server.ThreadingHTTPServer):
    """Answers with ``app``; remembers what it was asked in ``seen``, and counts the bytes of bodies in ``sent``."""

    daemon_threads = True
    request_queue_size = 128
    scheme = "http"

    def __init__(self, app: Callable[[Request], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.app = app
        self.seen: list[Request] = []
        self.sent = 0
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in these tests; that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            urllib.parse.unquote(parts.path),
            dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length) if length else b"",
        )
        with self.server.guard:
            self.server.seen.append(request)
        reply = self.server.app(request)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            body = reply.body if reply.cut is None else reply.body[: reply.cut]
            with self.server.guard:
                self.server.sent += len(body)
            self.wfile.write(body)
            self.close_connection = self.close_connection or len(body) < len(reply.body)

    do_GET = do_HEAD = do_POST = do_OPTIONS = _answer  # noqa: N815  # the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server gave it
        pass


@cache
def certificate(folder: Path, days: int = 1, host: str = "127.0.0.1") -> Path:
    """A certificate for ``host`` that nobody has signed, with its key, made in ``folder``; it ends in ``days``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "loopback.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def running(app: Callable[[Request], Reply], certificate: Path | None = None) -> Iterator[Server]:
    """A server that answers with ``app`` for as long as the block lasts; over TLS with a ``certificate``."""
    server = Server(app)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
