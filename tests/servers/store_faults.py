"""Faults of object stores: stands before an emulator, passes requests on, and fails as told. On loopback."""

from __future__ import annotations

import http.client
import http.server
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Those of one connection, which are not passed on.
_OWN = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass
class Asked:
    """A request on its way to the emulator; a rule may change ``body`` and ``path``."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    number: int

    @property
    def name(self) -> str:
        """Bucket and key, decoded."""
        return urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.path.partition("?")[2], keep_blank_values=True))


@dataclass
class Answer:
    """What comes back; a rule may change it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Faults:
    """``before`` answers in the emulator's place where it returns something; ``after`` changes what was said."""

    before: Callable[[Asked], Answer | None] = lambda _: None
    after: Callable[[Asked, Answer], None] = lambda _asked, _answer: None
    seen: list[Asked] = field(default_factory=list)


def error(status: int, code: str, **headers: str) -> Answer:
    """An error as Amazon, and as Azure, words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml", "x-ms-error-code": code, **headers}, body)


def without(listing: bytes, name: str) -> bytes:
    """A listing of S3 that does not know of ``name`` yet."""
    return re.sub(
        rb"<Contents>(?:(?!</Contents>).)*<Key>%b</Key>.*?</Contents>" % name.encode(), b"", listing, flags=re.DOTALL
    )


class _Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.faults, self.guard = urllib.parse.urlsplit(behind).netloc, faults, threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in these tests; that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Proxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self._body()
        with self.server.guard:
            faults = self.server.faults
            asked = Asked(self.command, self.path, dict(self.headers.items()), body, len(faults.seen))
            faults.seen.append(asked)
            answer = faults.before(asked)
        if answer is None:
            answer = self._emulator(asked)
            faults.after(asked, answer)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        # What a HEAD is told of the body's length is the object's.
        if not (self.command == "HEAD" and "Content-Length" in answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _emulator(self, asked: Asked) -> Answer:
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        headers = {n: v for n, v in asked.headers.items() if n.lower() not in _OWN}
        connection.request(asked.method, asked.path, asked.body, headers)
        reply = connection.getresponse()
        keep = {n: v for n, v in reply.getheaders() if n.lower() not in _OWN}
        if asked.method == "HEAD":
            keep["Content-Length"] = reply.getheader("Content-Length") or "0"
        answer = Answer(reply.status, keep, reply.read())
        connection.close()
        return answer

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _pass_on  # noqa: N815  # the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server gave it
        pass


@contextmanager
def before(emulator: str, faults: Faults) -> Iterator[str]:
    """The address of a store that fails as ``faults`` say, and else answers as ``emulator`` does."""
    server = _Proxy(emulator, faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
