"""PhysioNet on loopback, quick enough for 377,110 files: agent rule, challenge, session cookie, ranges, validators.

usage: python -m tests.generators.full.server FOLDER [--seed S] [--latency MS] [--port P]

Serves ``FOLDER/<slug>/<version>/`` under ``/files/<slug>/<version>/``. What stands in ``SHA256SUMS.txt`` and not on
disk is made from its path (``mimic_cxr.content``). User ``reader``, password ``opensesame``. Prints its address.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.generators.full.mimic_cxr import content

USER, PASSWORD = "reader", "opensesame"
_MODIFIED, _MTIME = "Tue, 23 Jul 2024 12:00:00 GMT", 0x669F9C80
_REASONS = {200: "OK", 206: "Partial Content", 301: "Moved Permanently", 401: "Unauthorized", 403: "Forbidden"}
_REASONS |= {404: "Not Found", 405: "Method Not Allowed", 416: "Range Not Satisfiable"}
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
Reader = Callable[[str], bytes | None]


class Site:
    """What the server knows: how to read a path, who may, and what it has counted.

    ``hash_seconds`` is what checking a password costs PhysioNet; ``session_seconds`` how long a cookie is good.
    """

    def __init__(
        self,
        read: Reader,
        *,
        user: str = USER,
        password: str = PASSWORD,
        latency: float = 0.0,
        hash_seconds: float = 0.0,
        session_seconds: float = 43_200.0,
        signed: bool = True,
    ) -> None:
        """Take the rules; ``read(path)`` gives the bytes below ``/files/``, or ``None``."""
        self.read = read
        self.login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.latency, self.hash_seconds, self.session_seconds, self.signed = (
            latency,
            hash_seconds,
            session_seconds,
            signed,
        )
        self.sessions: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def answer(self, method: str, target: str, headers: dict[str, str]) -> tuple[float, int, list[str], bytes]:
        """Seconds to wait, status, header lines and body."""
        self.counts["requests"] += 1
        if method not in ("GET", "HEAD"):
            return 0, 405, [], b""
        if not target.startswith("/files/"):
            page = b"<!DOCTYPE html><title>PhysioNet</title><p>Sign the data use agreement in section Files.</p>"
            return 0, 200, ["Content-Type: text/html; charset=utf-8"], page
        if not headers.get("user-agent", "").startswith(("Wget/", "libwfdb/")):
            return 0, 403, ["Content-Type: text/html"], b"<!DOCTYPE html><h1>403 Forbidden</h1>"
        wait, extra, allowed = self._who(headers)
        if not allowed:
            self.counts["challenges"] += 1
            extra += ['WWW-Authenticate: Basic realm="PhysioNet"', "Set-Cookie: testcookie=ok; Path=/"]
            return wait, 401, extra, b"Unauthorized"
        if not self.signed:
            return wait, 403, [*extra, "Content-Type: text/html"], b"<!DOCTYPE html><h1>403 Forbidden</h1>"
        path = target[len("/files/") :]
        body = self.read(path)
        if body is None:
            return wait, 404, [*extra, "Content-Type: text/html"], b"<!DOCTYPE html><h1>404 Not Found</h1>"
        status, lines, sent = _ranged(body, headers)
        self.counts["files"] += 1
        self.counts["bytes"] += len(sent)
        return wait + self.latency, status, extra + lines, sent

    def _who(self, headers: dict[str, str]) -> tuple[float, list[str], bool]:
        now = time.monotonic()
        found = re.search(r"sessionid=(\w+)", headers.get("cookie", ""))
        if found and self.sessions.get(found[1], 0) > now:
            return 0.0, [], True
        given = headers.get("authorization")
        if given is None:
            return 0.0, [], False
        self.counts["logins"] += 1
        if given != self.login:
            return self.hash_seconds, [], False
        name = f"s{len(self.sessions):08d}"
        self.sessions[name] = now + self.session_seconds
        return self.hash_seconds, [f"Set-Cookie: sessionid={name}; Path=/; HttpOnly"], True


def _ranged(body: bytes, headers: dict[str, str]) -> tuple[int, list[str], bytes]:
    etag = f'"{_MTIME:x}-{len(body):x}"'
    lines = ["Content-Type: application/octet-stream", f"ETag: {etag}", f"Last-Modified: {_MODIFIED}"]
    lines.append("Accept-Ranges: bytes")
    wanted = _RANGE.match(headers.get("range", ""))
    if wanted and headers.get("if-range", etag) in (etag, _MODIFIED):
        first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        if first >= len(body) or first > last:
            return 416, [f"Content-Range: bytes */{len(body)}"], b""
        lines.append(f"Content-Range: bytes {first}-{last}/{len(body)}")
        return 206, lines, body[first : last + 1]
    return 200, lines, body


class _Connection(asyncio.Protocol):
    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site, self._loop = site, loop
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            lines = self._seen[:end].decode("latin-1").split("\r\n")
            self._seen = self._seen[end + 4 :]
            method, target, _ = lines[0].split(" ", 2)
            pairs = (line.partition(":") for line in lines[1:])
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            wait, status, extra, body = self._site.answer(method, target.partition("?")[0], headers)
            head = "\r\n".join(
                [f"HTTP/1.1 {status} {_REASONS[status]}", *extra, f"Content-Length: {len(body)}", "", ""]
            ).encode("latin-1")
            answer = head if method == "HEAD" else head + body
            if wait:
                self._loop.call_later(wait, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def folder_reader(folder: Path, seed: int = 7) -> Reader:
    """Reads what stands on disk below ``folder``, and makes what only the sums of a project name."""
    small: dict[str, bytes] = {}
    listed: set[str] = set()
    for sums in sorted(folder.glob("*/*/SHA256SUMS.txt")):
        place = sums.parent.relative_to(folder).as_posix()
        for path in sums.parent.iterdir():
            if path.is_file():
                small[f"{place}/{path.name}"] = path.read_bytes()
        with sums.open(encoding="ascii") as lines:
            listed.update(f"{place}/{line[65:].rstrip()}" for line in lines if " files/" in line)

    def read(path: str) -> bytes | None:
        if path in listed:
            return content(path, seed)
        return small.get(path)

    return read


async def _serve(site: Site, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(site, loop), "127.0.0.1", port, backlog=512)
    ready(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """The address of ``site``, served by a thread of this process for as long as the block lasts."""
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    port: list[int] = []

    def ready(number: int) -> None:
        port.append(number)
        started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(site, 0, ready, stop),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds added to each answer")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    site = Site(folder_reader(options.folder, options.seed), latency=options.latency / 1000)
    asyncio.run(_serve(site, options.port, lambda port: print(f"http://127.0.0.1:{port}", flush=True), asyncio.Event()))


if __name__ == "__main__":
    main()
