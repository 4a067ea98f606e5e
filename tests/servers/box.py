"""Box on loopback: static links, links to files of a shared folder, the folder's page, and the API's four calls.

Static links redirect GET to another host with an address that runs out, and answer HEAD with 404, as Box does. The
signed address states the file's name in Content-Disposition, and an ETag that is another one each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.servers.loopback import Reply, Request, Server, as_json, object_reply, page, running

TOKEN = "developer-token-0123456789"
VANITY = "ChestXray-NIHCC"
ROOT_ID, IMAGES_ID = "36938765345", "37178474737"


@dataclass
class Box:
    """``files`` lie in the shared folder under their paths; ``static`` maps the hash of a link to a path."""

    files: dict[str, bytes]
    static: dict[str, str] = field(default_factory=dict)
    refuse: int | None = None
    retry_after: str | None = None
    script: bool = True
    page_size: int = 1000
    login_page: bool = False
    swapped: dict[str, str] = field(default_factory=dict)
    """Path -> the path of the file that its links lead to instead."""
    uses: int = 1_000_000
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the first large answers break off."""
    signed: dict[str, tuple[str, int]] = field(default_factory=dict)
    app: Server | None = None
    cloud: Server | None = None

    def ids(self) -> dict[str, str]:
        """Number -> path."""
        return {str(500_000_000_000 + n): path for n, path in enumerate(sorted(self.files))}

    def folders(self) -> dict[str, str]:
        """Path of a folder -> its number."""
        names = sorted({path.rpartition("/")[0] for path in self.files} - {""})
        return {"": ROOT_ID} | {name: str(int(IMAGES_ID) + n) for n, name in enumerate(names)}

    def number(self, path: str) -> str:
        return next(number for number, name in self.ids().items() if name == path)

    # ---- nihcc.box.com, nihcc.app.box.com, api.box.com ----

    def answer(self, request: Request) -> Reply:
        if self.refuse is not None:
            headers = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
            return as_json({"status": self.refuse}, self.refuse, **headers)
        path = request.path
        if path.startswith("/2.0/"):
            return self._api(request)
        if path.startswith("/shared/static/"):
            if request.method == "HEAD":
                return page("not found", 404)
            name = self.static.get(path.removeprefix("/shared/static/"))
            return self._redirect(name) if name else page("not found", 404)
        if path == "/index.php" and request.query.get("rm") == "box_download_shared_file":
            name = self.ids().get(request.query.get("file_id", "").removeprefix("f_"))
            wrong = name is None or request.query.get("vanity_name") != VANITY
            return page("not found", 404) if wrong or name is None else self._redirect(name)
        if path.startswith(f"/v/{VANITY}"):
            return self._page(request)
        return page("not found", 404)

    def _redirect(self, path: str) -> Reply:
        if self.login_page:
            return page("<form>Sign in to Box</form>")
        signature = secrets.token_hex(8)
        self.signed[signature] = (self.swapped.get(path, path), self.uses)
        assert self.cloud is not None
        return Reply(302, b"", {"Location": f"{self.cloud.url}/d/1/{signature}/download"})

    def _page(self, request: Request) -> Reply:
        if not self.script:
            return page("a page without a script")
        number = request.path.rpartition("/folder/")[2] if "/folder/" in request.path else ROOT_ID
        folder = next((path for path, own in self.folders().items() if own == number), None)
        if folder is None:
            return page("not found", 404)
        items = self._children(folder)
        first = (int(request.query.get("page", "1")) - 1) * self.page_size
        shown = {
            "items": [
                {
                    "typedID": f"{item['type'][0]}_{item['id']}", "type": item["type"], "id": int(item["id"]),
                    "name": item["name"], "itemSize": item["size"],
                }
                for item in items[first : first + self.page_size]
            ],
            "pageCount": -(-len(items) // self.page_size),
            "currentFolderID": int(number),
        }  # fmt: skip
        data = {"/app-api/enduserapp/shared-item": {}, "/app-api/enduserapp/shared-folder": shown}
        return page(f"<script>Box.prefetchedData = {{}}; Box.postStreamData = {json.dumps(data)};</script>")

    def _children(self, folder: str) -> list[dict[str, Any]]:
        start = folder + "/" if folder else ""
        items: list[dict[str, Any]] = [
            {"type": "folder", "id": number, "name": path.rpartition("/")[2], "size": 1}
            for path, number in self.folders().items()
            if path and path.rpartition("/")[0] == folder
        ]
        for number, path in self.ids().items():
            if path.startswith(start) and "/" not in path[len(start) :]:
                data = self.files[path]
                about = {"size": len(data), "sha1": hashlib.sha1(data).hexdigest()}
                items.append({"type": "file", "id": number, "name": path[len(start) :], **about})
        return items

    def _api(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return as_json({"type": "error", "status": 401, "code": "unauthorized"}, 401)
        path = request.path.removeprefix("/2.0/")
        if path == "users/me":
            return as_json({"type": "user", "id": "1", "login": "reader@example.org"})
        if f"/v/{VANITY}" not in request.headers.get("boxapi", ""):
            return as_json({"type": "error", "status": 404, "code": "not_found"}, 404)
        if path in ("shared_items#folders", "shared_items"):
            return as_json({"type": "folder", "id": ROOT_ID, "name": VANITY})
        words = path.split("/")
        if words[0] == "folders" and words[2] == "items":
            folder = next((name for name, own in self.folders().items() if own == words[1]), None)
            if folder is None:
                return as_json({"type": "error", "status": 404}, 404)
            items = self._children(folder)
            first, most = int(request.query.get("marker") or 0), min(int(request.query["limit"]), self.page_size)
            answer: dict[str, Any] = {"entries": items[first : first + most], "limit": most}
            if first + most < len(items):
                answer["next_marker"] = str(first + most)
            return as_json(answer)
        if words[0] == "files" and words[2] == "content":
            name = self.ids().get(words[1])
            return self._redirect(name) if name else as_json({"type": "error", "status": 404}, 404)
        return as_json({"type": "error", "status": 404}, 404)

    # ---- public.boxcloud.com ----

    def store(self, request: Request) -> Reply:
        if "authorization" in request.headers or "boxapi" in request.headers:
            return Reply(400, b"a login came along")
        signature = request.path.split("/")[3]
        path, left = self.signed.get(signature, ("", 0))
        if left <= 0:
            return page("this link has expired", 403)
        self.signed[signature] = (path, left - 1)
        name = path.rpartition("/")[2]
        headers = {
            "ETag": f'"{secrets.token_hex(8)}"',
            "Content-Disposition": f"attachment;filename=\"{name}\";filename*=UTF-8''{urllib.parse.quote(name)}",
        }
        reply = object_reply(request, self.files[path], headers)
        return dataclasses.replace(reply, cut=self.cuts.pop(0)) if self.cuts and len(reply.body) > 1_000 else reply


@contextmanager
def serving(files: dict[str, bytes], static: dict[str, str] | None = None, **options: Any) -> Iterator[Box]:
    """A running service; ``options`` are fields of ``Box``."""
    tls = options.pop("tls", None)
    box = Box(files, static or {}, **options)
    with running(box.answer, tls) as box.app, running(box.store, tls) as box.cloud:
        yield box


def address(box: Box) -> str:
    assert box.app is not None
    return box.app.url
