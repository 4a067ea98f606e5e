"""An HTTP server that behaves, or fails in the ways that servers fail, as told. On loopback, a port of its own."""

from __future__ import annotations

import base64
import email.utils
import gzip
import hashlib
import http.server
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGIN_PAGE = b"<!DOCTYPE html>\n<html><body><form action=login>Please sign in</form></body></html>"


@dataclass
class Faults:
    """What goes wrong. Everything is off at first; tests may change it while the server runs."""

    cut_after: int | None = None
    """Close the connection after so many bytes of a body, ``cuts`` times."""
    cuts: int = 1_000_000
    ignore_range: bool = False
    statuses: list[int] = field(default_factory=list)
    """Answered to the first requests, one each."""
    retry_after: str | None = None
    drip: tuple[int, float] | None = None
    """So many bytes at a time, with so many seconds in between."""
    compress: bool = False
    page: bytes | None = None
    """Sent under status 200 in place of every file, ``pages`` times, as ``page_type``."""
    pages: int = 1_000_000
    page_type: str = "text/html; charset=utf-8"
    short: int = 0
    """Leave so many bytes off, ``shorts`` times, with a Content-Length that fits what is sent."""
    shorts: int = 1_000_000
    redirect: str | None = None
    """Send everybody there; the path is appended."""
    login: tuple[str, str] | None = None
    session: bool = False
    """Hand out a session cookie with the first login, and honour it."""
    agent: str | None = None
    hang_up: int = 0
    """Close the connection without an answer, so many times."""
    delay: float = 0.0
    validators: bool = True
    weak: bool = False
    corrupt: int = 0
    """Flip a byte in so many answers."""
    chunked: bool = False
    no_head: bool = False
    unsized: bool = False
    """Folder pages show no sizes."""
    digests: bool = False
    """State MD5 in x-goog-hash."""
    forbidden: str | None = None
    """403 for paths that match."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]


class FaultServer(http.server.ThreadingHTTPServer):
    """Serves ``files`` (path without leading slash -> bytes); a change of them changes their ETag."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: dict[str, bytes], faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.faults = faults
        self.seen: list[Seen] = []
        self.logins = 0
        self.sent = 0
        self.on_request: Callable[[FaultServer, Seen], None] | None = None
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        """The address of the top folder, with its slash."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def gets(self, path: str) -> list[Seen]:
        """The GET requests for ``path``."""
        return [seen for seen in self.seen if seen.method == "GET" and seen.path == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in these tests; that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:  # the name that http.server calls
        if self.server.faults.no_head:
            self._plain(404)
        else:
            self._answer(body=False)

    def do_GET(self) -> None:  # the name that http.server calls
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that http.server gave it
        pass

    def _answer(self, *, body: bool) -> None:
        server, faults = self.server, self.server.faults
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        seen = Seen(self.command, path, {name.lower(): value for name, value in self.headers.items()})
        with server.guard:
            server.seen.append(seen)
            status = faults.statuses.pop(0) if faults.statuses else 200
            hangs_up = faults.hang_up > 0
            faults.hang_up -= hangs_up
        if hangs_up:
            self.close_connection = True
            return None
        if server.on_request is not None:
            server.on_request(server, seen)
        if faults.delay:
            time.sleep(faults.delay)
        if faults.agent and not re.match(faults.agent, seen.headers.get("user-agent", "")):
            return self._plain(403)
        if not self._admitted():
            return self._plain(401, {"WWW-Authenticate": 'Basic realm="files"'})
        if status != 200:
            return self._plain(status, {"Retry-After": faults.retry_after} if faults.retry_after else {})
        if faults.forbidden and re.search(faults.forbidden, path):
            return self._plain(403)
        if faults.redirect:
            return self._plain(302, {"Location": faults.redirect + urllib.parse.quote(path)})
        if path == "" or path.endswith("/"):
            return self._listing(path)
        if path not in server.files:
            return self._plain(404)
        if faults.page is not None and faults.pages > 0:
            faults.pages -= 1
            return self._plain(200, {"Content-Type": faults.page_type}, faults.page if body else b"")
        return self._file(server.files[path], body=body)

    def _admitted(self) -> bool:
        faults = self.server.faults
        self.extra: dict[str, str] = {}
        if faults.login is None:
            return True
        if faults.session and "session=granted" in self.headers.get("Cookie", ""):
            return True
        wanted = "Basic " + base64.b64encode(":".join(faults.login).encode()).decode()
        if self.headers.get("Authorization") != wanted:
            return False
        with self.server.guard:
            self.server.logins += 1
        if faults.session:
            self.extra["Set-Cookie"] = "session=granted; Path=/; HttpOnly"
        return True

    def _plain(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"no") -> None:
        self.send_response(status)
        for name, value in {**self.extra_headers(), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def extra_headers(self) -> dict[str, str]:
        return getattr(self, "extra", {})

    def _listing(self, folder: str) -> None:
        names: dict[str, int | None] = {}
        for path, data in sorted(self.server.files.items()):
            if path.startswith(folder):
                name, slash, _ = path[len(folder) :].partition("/")
                names[name + slash] = None if slash or self.server.faults.unsized else len(data)
        lines = [
            f'<a href="{urllib.parse.quote(name)}">{name}</a>   24-Nov-2026 02:30   {"-" if size is None else size}'
            for name, size in names.items()
        ]
        page = f"<html><h1>Index of /{folder}</h1><pre><a href='../'>../</a>\n" + "\n".join(lines) + "\n</pre></html>"
        self._plain(200, {"Content-Type": "text/html"}, page.encode())

    def _file(self, data: bytes, *, body: bool) -> None:
        faults = self.server.faults
        etag = '"' + hashlib.md5(data).hexdigest()[:16] + '"'
        start, end, status = 0, len(data), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not faults.ignore_range:
            start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else len(data), len(data))
            if start >= len(data):
                self._plain(416, {"Content-Range": f"bytes */{len(data)}", "ETag": etag})
                return
            status = 206
        part = data[start:end]
        if faults.corrupt > 0 and body:
            faults.corrupt -= 1
            part = bytes([part[0] ^ 0xFF]) + part[1:]
        if faults.short and faults.shorts > 0 and body:
            faults.shorts -= 1
            part = part[: -faults.short]
        headers = {**self.extra, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if faults.compress:
            part = gzip.compress(part)
            headers["Content-Encoding"] = "gzip"
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        if faults.validators:
            headers["ETag"] = ("W/" if faults.weak else "") + etag
            headers["Last-Modified"] = email.utils.formatdate(1_700_000_000, usegmt=True)
        if faults.digests:
            headers["x-goog-hash"] = "md5=" + base64.b64encode(hashlib.md5(data).digest()).decode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if faults.chunked else ("Content-Length", str(len(part)))))
        self.end_headers()
        if body:
            self._body(part)

    def _body(self, part: bytes) -> None:
        faults = self.server.faults
        cut = faults.cut_after is not None and faults.cuts > 0 and len(part) > faults.cut_after
        if cut:
            faults.cuts -= 1
            part = part[: faults.cut_after]
        step, pause = faults.drip or (1 << 20, 0.0)
        for at in range(0, len(part), step):
            piece = part[at : at + step]
            # Before it is sent: whoever has it may look at the sum at once.
            with self.server.guard:
                self.server.sent += len(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if faults.chunked else piece)
            if pause:
                time.sleep(pause)
        if cut:
            self.close_connection = True
            self.connection.close()
        elif faults.chunked:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(files: dict[str, bytes], **faults: object) -> Iterator[FaultServer]:
    """A running server; ``faults`` are the fields of ``Faults``."""
    server = FaultServer(files, Faults(**faults))  # type: ignore[arg-type]  # checked by the dataclass
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
