"""Hugging Face's hub on loopback: revisions, trees in pages, gated files, and the other host that serves LFS.

The forms are those that huggingface_hub reads: ``X-Error-Code``, ``X-Repo-Commit``, ``Link`` with ``rel="next"``.
"""

from __future__ import annotations

import hashlib
import secrets
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.servers.loopback import Reply, Request, Server, as_json, object_reply, running

TOKEN, NAME = "hf_hunter2secrettoken", "StanfordAIMI/CheXpert-v1.0-512"


@dataclass
class Hub:
    """One repository with ``commits``, each a tree of files; ``members`` are the tokens whose owners were let in."""

    commits: dict[str, dict[str, bytes]]
    name: str = NAME
    page_size: int = 1000
    revisions: dict[str, str] = field(default_factory=dict)
    members: set[str] = field(default_factory=lambda: {TOKEN})
    known: set[str] = field(default_factory=lambda: {TOKEN})
    refuse: int = 0
    retry_after: str = ""
    signatures: set[str] = field(default_factory=set)
    server: Server | None = None
    storage: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    def commit(self, files: dict[str, bytes]) -> str:
        """A new commit of ``main``; its name."""
        name = hashlib.sha1(str(sorted(files)).encode() + bytes([len(self.commits)])).hexdigest()
        self.commits[name] = dict(files)
        self.revisions["main"] = name
        return name

    def answer(self, request: Request) -> Reply:
        if self.refuse:
            return _error(self.refuse, "", **({"Retry-After": self.retry_after} if self.retry_after else {}))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.known:
            return _error(401, "", **{"X-Error-Message": "Invalid credentials in Authorization header"})
        api, files = f"/api/datasets/{self.name}/", f"/datasets/{self.name}/resolve/"
        if not request.path.startswith((api, files)):
            return _error(404 if token else 401, "RepoNotFound")
        if request.path.startswith(files):
            revision, _, path = request.path.removeprefix(files).partition("/")
            return self._file(request, revision, path, token)
        what, _, rest = request.path.removeprefix(api).partition("/")
        if what == "auth-check":
            return as_json({}) if token in self.members else self._gated(token)
        revision, _, folder = rest.partition("/")
        commit = self.revisions.get(revision, revision)
        if commit not in self.commits:
            return _error(404, "RevisionNotFound")
        return as_json({"sha": commit}) if what == "revision" else self._tree(request, commit, folder)

    def _tree(self, request: Request, commit: str, folder: str) -> Reply:
        files = {
            path: data
            for path, data in sorted(self.commits[commit].items())
            if path.startswith(f"{folder}/"[1 - bool(folder) :])
        }
        folders = sorted({path.rpartition("/")[0] for path in files if "/" in path})
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
        ]
        for path, data in files.items():
            entry: dict[str, object] = {"type": "file", "path": path, "oid": git(data), "size": len(data)}
            if is_large(path):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 131}
                entry["oid"] = git(b"version https://git-lfs.github.com/spec/v1\n")
            entries.append(entry)
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + self.page_size < len(entries):
            place = urllib.parse.quote(request.path)
            headers["Link"] = f'<{self.url}{place}?recursive=true&cursor={start + self.page_size}>; rel="next"'
        return as_json(entries[start : start + self.page_size], **headers)

    def _file(self, request: Request, revision: str, path: str, token: str) -> Reply:
        if token not in self.members:
            return self._gated(token)
        data = self.commits.get(self.revisions.get(revision, revision), {}).get(path)
        if data is None:
            return _error(404, "EntryNotFound")
        if not is_large(path):
            return object_reply(request, data, {"ETag": f'"{git(data)}"', "X-Repo-Commit": revision})
        signature = secrets.token_hex(8)
        self.signatures.add(signature)
        assert self.storage is not None
        there = f"{self.storage.url}/{revision}/{urllib.parse.quote(path)}?Signature={signature}"
        return Reply(302, b"", {"Location": there, "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _gated(self, token: str) -> Reply:
        return _error(403 if token else 401, "GatedRepo")

    def stored(self, request: Request) -> Reply:
        if request.query.get("Signature") not in self.signatures or "authorization" in request.headers:
            return Reply(403, b"signature")
        revision, _, path = request.path.lstrip("/").partition("/")
        # Each copy of the network spells its own.
        return object_reply(request, self.commits[revision][path], {"ETag": f'"{secrets.token_hex(4)}"'})


def is_large(path: str) -> bool:
    """Whether a file lies in LFS, as images and archives do there."""
    return path.endswith((".png", ".jpg", ".zip", ".parquet"))


def git(data: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _error(status: int, code: str, **headers: str) -> Reply:
    more = {"X-Error-Code": code} if code else {}
    return as_json({"error": code or "no"}, status, **more, **headers)


@contextmanager
def serving(files: dict[str, bytes], *, page_size: int = 1000) -> Iterator[Hub]:
    """A hub whose repository has one commit with ``files``."""
    hub = Hub({}, page_size=page_size)
    hub.commit(files)
    with running(hub.answer) as hub.server, running(hub.stored) as hub.storage:
        yield hub
