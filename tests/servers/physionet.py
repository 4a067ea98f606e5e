"""PhysioNet's download service on loopback: agents, challenges, sessions, agreements, each with the site's own answer.

It counts password hashes, which is what a request with a password costs the site.
"""

from __future__ import annotations

import gzip
import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.servers.loopback import Reply, Request, Server, basic, object_reply, page, running

USER, PASSWORD = "reader@example.org", "correct horse secret"


@dataclass
class PhysioNet:
    """``projects`` maps ``slug/version`` to files; ``unsigned`` holds the projects whose agreement is not signed."""

    projects: dict[str, dict[str, bytes]]
    unsigned: set[str] = field(default_factory=set)
    password: str = PASSWORD
    session_seconds: float = 43_200.0
    cookies: bool = True
    stale: int = 401
    """What a session that has run out is answered: 401, or 403 as some set-ups do."""
    statuses: list[int] = field(default_factory=list)
    fail: int | None = None
    retry_after: str | None = None
    hash_seconds: float = 0.0
    hashes: int = 0
    sessions: dict[str, float] = field(default_factory=dict)
    server: Server | None = None

    def expire(self) -> None:
        """Forget every session, as after twelve hours."""
        self.sessions.clear()

    def answer(self, request: Request) -> Reply:
        status = self.statuses.pop(0) if self.statuses else self.fail
        if status:
            return Reply(status, b"busy", {"Retry-After": self.retry_after} if self.retry_after is not None else {})
        if not request.path.startswith("/files/"):
            return page("Sign the data use agreement in section Files.")
        if not request.headers.get("user-agent", "").startswith(("Wget/", "libwfdb/")):
            return page("403 Forbidden", 403)
        extra = self._admit(request)
        if extra is None and self.stale == 403 and "sessionid" in request.headers.get("cookie", ""):
            return page("403 Forbidden", 403)
        if extra is None:
            challenge = {"WWW-Authenticate": 'Basic realm="PhysioNet"', "Set-Cookie": "testcookie=ok; Path=/"}
            return Reply(401, b"Unauthorized", challenge)
        slug, version, path = request.path.removeprefix("/files/").split("/", 2)
        project = f"{slug}/{version}"
        if project not in self.projects:
            return page("404 Not Found", 404)
        if project in self.unsigned:
            return page("403 Forbidden: sign the agreement", 403)
        if path not in self.projects[project]:
            return page("404 Not Found", 404)
        data = self.projects[project][path]
        reply = object_reply(request, data, {"ETag": f'"65e5f3a0-{len(data):x}"'})
        return Reply(reply.status, reply.body, {**reply.headers, **extra})

    def _admit(self, request: Request) -> dict[str, str] | None:
        """Headers to add for whoever may come in, ``None`` for others."""
        now = time.monotonic()
        cookies = dict(part.strip().partition("=")[::2] for part in request.headers.get("cookie", "").split(";"))
        if self.sessions.get(cookies.get("sessionid", ""), 0.0) > now:
            return {}
        given = basic(request)
        if given is None:
            return None
        self.hashes += 1
        time.sleep(self.hash_seconds)
        if given != (USER, self.password):
            return None
        if not self.cookies:
            return {}
        session = secrets.token_hex(8)
        self.sessions[session] = now + self.session_seconds
        return {"Set-Cookie": f"sessionid={session}; Path=/; HttpOnly; SameSite=Lax"}

    def asked(self, path: str) -> int:
        """How often ``path`` (below ``/files/``) was asked for."""
        assert self.server is not None
        return sum(request.path == f"/files/{path}" for request in self.server.seen)


def with_sums(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with the list of their SHA-256: hex, one space, path."""
    lines = [f"{hashlib.sha256(data).hexdigest()} {path}\n" for path, data in files.items()]
    return {**files, "SHA256SUMS.txt": "".join(lines).encode()}


def packed(table: str) -> bytes:
    """A table as the site has it."""
    return gzip.compress(table.encode(), mtime=0)


@contextmanager
def serving(projects: dict[str, dict[str, bytes]], **options: object) -> Iterator[PhysioNet]:
    """A running site; ``options`` are fields of ``PhysioNet``."""
    site = PhysioNet(projects, **options)  # type: ignore[arg-type]  # checked by the dataclass
    with running(site.answer) as site.server:
        yield site


def address(site: PhysioNet) -> str:
    assert site.server is not None
    return site.server.url
