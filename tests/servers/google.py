"""Google Cloud Storage's JSON interface on loopback, for the rules that no emulator enforces.

Requester pays (400 without a project, 401 for nobody, 403 for an account that is not allowed), generations that are
gone (404), tokens that run out (401). It gives out tokens as well, to service accounts, persons and machines.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c

from tests.servers.loopback import Reply, Request, Server, as_json, goog_hash, object_reply, running

ACCOUNT = "reader@project.iam.gserviceaccount.com"


@dataclass
class Bucket:
    """A bucket of ``files``; replacing an object raises its generation."""

    name: str
    files: dict[str, bytes]
    requester_pays: bool = False
    login: bool = False
    linked: bool = True
    billable: bool = True
    anonymous: int = 401
    """What a request without a login is answered where somebody has to pay."""
    page_size: int = 1000
    encoded: frozenset[str] = frozenset()
    refuse: int | None = None
    retry_after: str | None = None
    tokens: set[str] = field(default_factory=set)
    generations: dict[str, int] = field(default_factory=dict)
    server: Server | None = None

    def replace(self, name: str, data: bytes) -> None:
        self.files[name] = data
        self.generations[name] = self.generations.get(name, 1000) + 1

    def answer(self, request: Request) -> Reply:
        if request.path == "/token" or request.path.startswith("/computeMetadata/"):
            return self._token(request)
        if request.path == "/":
            # How the library finds out that it runs on a machine of Google's.
            return Reply(200, b"", {"Metadata-Flavor": "Google"})
        if self.refuse is not None:
            headers = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
            return self._error(self.refuse, "refused", **headers)
        refused = self._refused(request)
        if refused is not None:
            return refused
        objects = f"/storage/v1/b/{self.name}/o"
        if request.path == objects:
            return self._list(request)
        if request.path.startswith(f"/download{objects}/"):
            return self._media(request, request.path.removeprefix(f"/download{objects}/"))
        return self._error(404, "The specified bucket does not exist.")

    def _refused(self, request: Request) -> Reply | None:
        who = request.headers.get("authorization", "").removeprefix("Bearer ")
        if who and who not in self.tokens:
            return self._error(401, "Invalid Credentials")
        if self.requester_pays:
            if "userProject" not in request.query:
                return self._error(400, "Bucket is a requester pays bucket but no user project provided.")
            if not who:
                return self._error(self.anonymous, "Anonymous caller does not have serviceusage.services.use access.")
            if not self.billable:
                return self._error(403, f"{ACCOUNT} does not have serviceusage.services.use access to the project.")
        if self.login and not who:
            return self._error(401, "Anonymous caller does not have storage.objects.list access to the bucket.")
        if not self.linked:
            return self._error(403, f"{ACCOUNT} does not have storage.objects.list access to the bucket.")
        return None

    @staticmethod
    def _error(status: int, message: str, **headers: str) -> Reply:
        return as_json({"error": {"code": status, "message": message, "errors": []}}, status, **headers)

    def _token(self, request: Request) -> Reply:
        if request.path.startswith("/computeMetadata/") and not request.path.endswith("/token"):
            if request.path.endswith("/project-id"):
                return Reply(200, b"machine-project", {"Metadata-Flavor": "Google", "Content-Type": "text/plain"})
            if request.path.endswith("/universe-domain"):
                return Reply(404, b"", {"Metadata-Flavor": "Google", "Content-Type": "text/plain"})
            about = {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"]}
            return as_json(about, **{"Metadata-Flavor": "Google"})
        token = f"ya29.secret-{len(self.tokens)}"
        self.tokens.add(token)
        return as_json(
            {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}, **{"Metadata-Flavor": "Google"}
        )

    def _list(self, request: Request) -> Reply:
        prefix, first = request.query.get("prefix", ""), request.query.get("pageToken", "")
        most = min(int(request.query.get("maxResults", self.page_size)), self.page_size)
        names = [name for name in sorted(self.files) if name.startswith(prefix) and name >= first]
        answer: dict[str, Any] = {"items": [self._about(name) for name in names[:most]]}
        if len(names) > most:
            answer["nextPageToken"] = names[most]
        return as_json(answer)

    def _about(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        about = {
            "name": name,
            "bucket": self.name,
            "size": str(len(data)),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "crc32c": base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
            "generation": str(self.generations.get(name, 1000)),
            "updated": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC).isoformat().replace("+00:00", "Z"),
        }
        return about | ({"contentEncoding": "gzip"} if name in self.encoded else {})

    def _media(self, request: Request, name: str) -> Reply:
        generation = str(self.generations.get(name, 1000))
        if name not in self.files or request.query.get("generation", generation) != generation:
            return self._error(404, f"No such object: {self.name}/{name}")
        data = self.files[name]
        headers = {"x-goog-hash": goog_hash(data), "x-goog-generation": generation}
        if name in self.encoded:
            import gzip

            headers["x-goog-stored-content-encoding"] = "gzip"
            return Reply(200, gzip.decompress(data), headers)
        return object_reply(request, data, headers)


@cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def key_file(folder: Path, token_url: str) -> Path:
    """The key of a service account, made for this run, whose tokens come from ``token_url``."""
    text = _private_key()
    about = {
        "type": "service_account", "project_id": "key-project", "private_key_id": "1", "private_key": text,
        "client_email": ACCOUNT, "client_id": "1", "token_uri": token_url,
    }  # fmt: skip
    path = folder / "key.json"
    path.write_text(json.dumps(about))
    return path


@contextmanager
def serving(files: dict[str, bytes], name: str = "bucket", **options: Any) -> Iterator[Bucket]:
    """A running service with one bucket; ``options`` are fields of ``Bucket``."""
    tls = options.pop("tls", None)
    bucket = Bucket(name, dict(files), **options)
    with running(bucket.answer, tls) as bucket.server:
        yield bucket


def address(bucket: Bucket) -> str:
    assert bucket.server is not None
    return bucket.server.url


def asked_for(bucket: Bucket, start: str) -> list[dict[str, str]]:
    """The queries of the requests whose path begins with ``start``."""
    assert bucket.server is not None
    return [request.query for request in bucket.server.seen if request.path.startswith(start)]
