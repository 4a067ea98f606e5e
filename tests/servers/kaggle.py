"""Kaggle on loopback: the three calls of its API that downloads need, and the storage behind its signed addresses.

What it does is what the service does: POST of JSON to ``/v1/datasets.DatasetApiService/METHOD``, pages of 20 files
unless more are asked for, a redirect to another host with a signature that runs out, MD5 and CRC32C in the storage's
headers, and a refusal of requests that carry a login beside the signature.
"""

from __future__ import annotations

import dataclasses
import io
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.servers.loopback import Reply, Request, Server, as_json, basic, goog_hash, object_reply, running

USER, KEY, TOKEN = "reader", "0123456789abcdef-key", "KGAT_0123456789abcdef-token"


@dataclass
class Dataset:
    """``OWNER/NAME`` with its files; ``zipped`` names those that arrive wrapped in an archive of their own."""

    name: str
    files: dict[str, bytes]
    version: int = 1
    zipped: frozenset[str] = frozenset()
    archive: bool = True

    def whole(self) -> bytes:
        """The archive of all files, the same bytes each time."""
        return archive_of(self.files)


@dataclass
class Kaggle:
    """The state of the service. ``public`` datasets need no login; ``signatures`` are good for ``uses`` requests."""

    dataset: Dataset
    public: bool = False
    statuses: list[int] = field(default_factory=list)
    """Answered to the first requests of the API, one each; a redirect in place of 0."""
    refuse: int | None = None
    retry_after: str | None = None
    uses: int = 1_000_000
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the first large answers break off."""
    signatures: dict[str, int] = field(default_factory=dict)
    token: str = TOKEN
    refresh_token: str = ""
    """What a session is renewed with."""
    renewed: int = 0
    pages: list[int] = field(default_factory=list)
    storage_url: str = ""
    api: Server | None = None
    storage: Server | None = None

    # ---- the API ----

    def answer(self, request: Request) -> Reply:
        status = self.statuses.pop(0) if self.statuses else self.refuse
        if status:
            headers = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
            return as_json({"code": status, "message": f"Error {status}"}, status, **headers)
        if request.path == "/v1/users.AccountService/GenerateAccessToken":
            return self._renew(request)
        if request.method != "POST" or not request.path.startswith("/v1/datasets.DatasetApiService/"):
            return as_json({"code": 404, "message": "Not found"}, 404)
        who = request.headers.get("authorization", "")
        known = who == f"Bearer {self.token}" or basic(request) == (USER, KEY)
        if who and not known:
            return as_json({"code": 401, "message": "Unauthenticated"}, 401)
        if not known and not self.public:
            return as_json({"code": 401, "message": "Unauthenticated"}, 401)
        asked = request.json()
        if f"{asked.get('ownerSlug')}/{asked.get('datasetSlug')}" != self.dataset.name:
            return as_json({"code": 404, "message": "Dataset not found"}, 404)
        if asked.get("datasetVersionNumber", self.dataset.version) > self.dataset.version:
            return as_json({"code": 404, "message": "Version not found"}, 404)
        method = request.path.rpartition("/")[2]
        if method == "GetDataset":
            total = sum(map(len, self.dataset.files.values()))
            return as_json({"id": 7, "currentVersionNumber": self.dataset.version, "totalBytes": total})
        if method == "ListDatasetFiles":
            return self._list(asked)
        if method == "DownloadDataset":
            return self._download(str(asked.get("fileName", "")))
        return as_json({"code": 404, "message": "Not found"}, 404)

    def _renew(self, request: Request) -> Reply:
        asked = request.json()
        if "authorization" in request.headers or asked.get("refreshToken") != self.refresh_token:
            return as_json({"code": 401, "message": "Unauthenticated"}, 401)
        self.renewed += 1
        return as_json({"token": self.token, "expiresIn": 43200, "userName": USER, "userId": 1})

    def _list(self, asked: dict[str, object]) -> Reply:
        size = int(str(asked.get("pageSize", 20)))
        first = int(str(asked.get("pageToken", "0")) or 0)
        self.pages.append(size)
        names = sorted(self.dataset.files)
        files = [
            {"name": n, "totalBytes": len(self.dataset.files[n]), "creationDate": "2019-11-12T10:20:30.000Z"}
            for n in names[first : first + size]
        ]
        answer: dict[str, object] = {"datasetFiles": files}
        if first + size < len(names):
            answer["nextPageToken"] = str(first + size)
        return as_json(answer)

    def _download(self, name: str) -> Reply:
        if name and name not in self.dataset.files:
            return as_json({"code": 404, "message": "File not found"}, 404)
        if not name and not self.dataset.archive:
            return as_json({"code": 404, "message": "No archive"}, 404)
        signature = secrets.token_hex(16)
        self.signatures[signature] = self.uses
        place = f"raw/{name}.zip" if name in self.dataset.zipped else f"raw/{name}" if name else "bundle/archive.zip"
        address = f"{self.storage_url}/kaggle-data-sets/7/{self.dataset.version}/{place}?X-Goog-Signature={signature}"
        return Reply(302, b"", {"Location": address})

    # ---- the storage ----

    def store(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return Reply(400, b"<Error><Code>InvalidArgument</Code><Message>Two logins</Message></Error>")
        signature = request.query.get("X-Goog-Signature", "")
        left = self.signatures.get(signature, 0)
        if left <= 0:
            return Reply(403, b"<Error><Code>ExpiredToken</Code></Error>", {"Content-Type": "application/xml"})
        self.signatures[signature] = left - 1
        kind, _, name = request.path.removeprefix(f"/kaggle-data-sets/7/{self.dataset.version}/").partition("/")
        if kind == "bundle":
            data = self.dataset.whole()
        elif name.removesuffix(".zip") in self.dataset.zipped:
            inner = name.removesuffix(".zip")
            data = archive_of({inner.rpartition("/")[2]: self.dataset.files[inner]})
        else:
            data = self.dataset.files[name]
        if not self.ranges:
            request = Request(request.method, request.path, request.query, {})
        reply = object_reply(request, data, {"x-goog-hash": goog_hash(data)})
        return dataclasses.replace(reply, cut=self.cuts.pop(0)) if self.cuts and len(reply.body) > 1_000 else reply


def archive_of(files: dict[str, bytes]) -> bytes:
    """A zip archive of ``files``, the same bytes each time."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (2019, 11, 12, 10, 20, 30)), data, zipfile.ZIP_DEFLATED)
    return raw.getvalue()


@contextmanager
def serving(files: dict[str, bytes], name: str = "owner/data", **options: Any) -> Iterator[Kaggle]:
    """A running service; ``options`` are fields of ``Kaggle`` and of ``Dataset``."""
    about = {key: options.pop(key) for key in ("version", "zipped", "archive") if key in options}
    tls = options.pop("tls", None)
    state = Kaggle(Dataset(name, files, **about), **options)
    with running(state.answer, tls) as state.api, running(state.store, tls) as state.storage:
        state.storage_url = state.storage.url
        yield state
