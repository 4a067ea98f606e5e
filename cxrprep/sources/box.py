"""Box: NIH's public links, which need no account; and the shared folder through the API when there is a token.

A static link answers GET with a redirect to an address that is good for minutes, so each attempt begins at the link
again; its answer to HEAD is a 404 that means nothing. The signed address has no stable ETag: what is sent is known by
the file name and the size that come with it.
"""

from __future__ import annotations

import json
import posixpath
import re
import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import AccessError, CxrprepError, IntegrityError, NotInSourceError, UsageError
from cxrprep.model import RemoteFile
from cxrprep.sources import endpoints
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, hole, stated_size
from cxrprep.sources.box_api import BoxApi, BoxEntry
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.retry import with_retries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cxrprep.sources.http_response import HttpResponse

# How a file is reached: by a link of its own, or by its number within the shared folder.
_STATIC, _FILE = "static:", "file:"
_STREAM: Final = re.compile(r"Box\.postStreamData\s*=\s*")
_FOLDER: Final = "/app-api/enduserapp/shared-folder"
_NAME: Final = re.compile(
    r"""filename\*\s*=\s*UTF-8''([^;]+)|filename\s*=\s*"([^"]*)"|filename\s*=\s*([^;\s]+)""", re.IGNORECASE
)
_OWN_HOSTS: Final = (".box.com", ".boxcloud.com")
_MOST_PAGES: Final = 500


class BoxSource(OverHttp):
    """A shared folder: ``box://nihcc/ChestXray-NIHCC`` is ``https://nihcc.app.box.com/v/ChestXray-NIHCC``.

    Without a token, what the catalog knows of the folder comes first: links, sizes and MD5 of the archives. What it
    does not know is read from the folder's page. ``holes`` are the folders that a listing had to leave out.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address that names no shared folder."""
        words = [word for word in url.partition("://")[2].split("/") if word]
        if len(words) != 2:
            raise UsageError(f"{url} names no shared folder", hint="write it as box://ENTERPRISE/NAME")
        enterprise, self._vanity = words
        elsewhere = endpoints.named("box")
        self._static = elsewhere or f"https://{enterprise}.box.com"
        self._app = elsewhere or f"https://{enterprise}.app.box.com"
        self.address = url.rstrip("/")
        self._link = f"https://{enterprise}.app.box.com/v/{self._vanity}"
        self.politeness = options.politeness(4)
        self._known = {file.key: file for file in options.known}
        self._client = HttpClient(options, login=nobody, explain=self._explain)
        token = options.credentials.box() if options.credentials is not None else None
        api = elsewhere or endpoints.ENDPOINTS["box"]
        self._api = BoxApi(token, self._link, api, options.timeout) if token is not None else None
        self.holes: list[CxrprepError] = []
        self._top: tuple[BoxEntry, ...] | None = None

    # ---- listing ----

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files of the folder whose names begin with ``prefix``.

        With a token through the API, with size and SHA-1; else those that the catalog knows, with their published MD5,
        and what else the folder's page shows.
        """
        self.holes.clear()
        yield from (file for file in self._everything() if file.key.startswith(prefix))

    def _everything(self) -> Iterator[RemoteFile]:
        if self._api is not None:
            for file in self._walk():
                stated = self._known.get(posixpath.basename(file.key))
                # A published digest says more than the service's own.
                yield file if stated is None or stated.digest is None else replace(file, digest=stated.digest)
            return
        if not self._known:
            yield from self._walk()
            return
        shown = {entry.name: entry for entry in self._shown() if not entry.folder}
        for file in self._known.values():
            entry = shown.pop(file.key, None)
            yield file if entry is None else _joined(file, entry)
        yield from (_as_file(entry, "") for entry in shown.values())

    def _shown(self) -> tuple[BoxEntry, ...]:
        """What the top folder's page shows; nothing where it cannot be read and the catalog knows enough without it."""
        try:
            return self._page_of_top()
        except CxrprepError:
            # Made for browsers, it may turn others away; the links do not.
            return ()

    def _walk(self) -> Iterator[RemoteFile]:
        folders, seen = [("", "")], {""}
        while folders:
            number, path = folders.pop(0)
            try:
                entries = [*self._in_folder(number)]
            except CxrprepError as error:
                if not number or isinstance(error, NotConnectedError):
                    raise
                self.holes.append(hole(path, error))
                continue
            for entry in entries:
                # A folder that shows one above it would be walked for ever.
                if entry.folder and entry.number not in seen:
                    seen.add(entry.number)
                    folders.append((entry.number, f"{path}{entry.name}/"))
            yield from (_as_file(entry, path) for entry in entries if not entry.folder)

    def _in_folder(self, number: str) -> Iterable[BoxEntry]:
        if self._api is not None:
            return self._api.entries(number)
        return self._entries(number) if number else self._page_of_top()

    def _page_of_top(self) -> tuple[BoxEntry, ...]:
        if self._top is None:
            self._top = tuple(self._entries(""))
        return self._top

    def _entries(self, number: str) -> Iterator[BoxEntry]:
        """The items of a folder, from its page's script."""
        address = f"{self._app}/v/{self._vanity}" + (f"/folder/{number}" if number else "")
        for page in range(1, _MOST_PAGES):
            url = address if page == 1 else f"{address}?page={page}"
            _, body = with_retries(lambda url=url: self._client.read(url, key=self._link))  # type: ignore[misc]  # bound at once
            data = _stream_data(body)
            if data is None:
                raise NotInSourceError(
                    f"the page of {self._link} no longer says what is in the folder",
                    hint="open it in a browser; with BOX_DEVELOPER_TOKEN it is listed through the Box API",
                )
            yield from _items(data)
            count = data.get("pageCount")
            if not isinstance(count, int) or page >= count:
                return

    # ---- bytes ----

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``. Raises ``IntegrityError`` when Box sends another file than the one asked for."""
        handle = self._handle(file)
        private: Mapping[str, str] = {}
        if self._api is not None and handle.startswith(_FILE):
            url, private = self._api.content(handle.removeprefix(_FILE))
        else:
            url = self._address(handle)
        stream = self._client.open(url, key=file.key, offset=offset, end=end, private=private)
        answer: HttpResponse | None = getattr(stream, "answer", None)
        sent = _sent_name(answer) if answer is not None else ""
        name = posixpath.basename(file.key)
        if sent and sent != name:
            stream.close()
            raise IntegrityError(
                f"{file.key}: Box sent {sent!r} in its place",
                hint=f"its link leads elsewhere now; look at {self._link}",
            )
        # The link stands for the content as long as the size is the one that was listed: Box says no more of it.
        same = file.size is None or stream.length in (None, file.size)
        stream.validator = handle if same else f"{handle}; {stream.length}"
        return stream

    def access(self) -> Access:
        """With a token whose it is; else whether the folder's page answers."""
        if self._api is not None:
            try:
                return Access(AccessState.GRANTED, with_retries(self._api.account))
            except AccessError as error:
                return access_refused(error, AccessState.REJECTED)
        try:
            with_retries(lambda: self._client.read(f"{self._app}/v/{self._vanity}", key=self._link))
        except AccessError as error:
            return access_refused(error, AccessState.REJECTED)
        except NotInSourceError:
            return Access(AccessState.UNKNOWN, advice=f"{self._link} does not exist; check the address")
        return Access(AccessState.OPEN)

    def close(self) -> None:
        """Drop connections."""
        super().close()
        if self._api is not None:
            self._api.close()

    def _handle(self, file: RemoteFile) -> str:
        handle = file.validator or ""
        if handle.startswith((_STATIC, _FILE)):
            return handle
        known = self._known.get(file.key)
        if known is not None and known.validator:
            return known.validator
        for listed in self._everything() if self._api is not None or not self._known else self._top_files():
            if listed.key == file.key and listed.validator:
                return listed.validator
        raise NotInSourceError(f"{file.key}: the shared folder does not show it", hint=f"look at {self._link}")

    def _top_files(self) -> Iterator[RemoteFile]:
        return (_as_file(entry, "") for entry in self._page_of_top() if not entry.folder)

    def _address(self, handle: str) -> str:
        if handle.startswith(_STATIC):
            return f"{self._static}/shared/static/{urllib.parse.quote(handle.removeprefix(_STATIC))}"
        asked = {
            "rm": "box_download_shared_file",
            "vanity_name": self._vanity,
            "file_id": f"f_{handle.removeprefix(_FILE)}",
        }
        return f"{self._app}/index.php?{urllib.parse.urlencode(asked)}"

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        if answer.elsewhere and not answer.host.endswith(_OWN_HOSTS):
            return None
        if answer.status in (401, 403) and self._api is not None and not answer.elsewhere:
            return self._api.refused(answer.status, key)
        if answer.status in (401, 403):
            return AccessError(
                f"{key}: Box refuses access ({answer.status})",
                hint=f"open {self._link} in a browser: the owner may have closed it, or limits downloads for a while",
            )
        if answer.status == 404:
            return NotInSourceError(f"{key}: its link on Box leads nowhere (404)", hint=f"look at {self._link}")
        return None


def _joined(file: RemoteFile, entry: BoxEntry) -> RemoteFile:
    """What the catalog knows, with what the page says: a size without a published digest may have changed."""
    size = file.size if file.digest is not None or entry.size is None else entry.size
    return replace(file, size=size, validator=file.validator or _FILE + entry.number)


def _as_file(entry: BoxEntry, path: str) -> RemoteFile:
    return RemoteFile(path + entry.name, entry.size, entry.digest, _FILE + entry.number, entry.modified)


def _stream_data(body: bytes) -> dict[str, Any] | None:
    text = body.decode("utf-8", "replace")
    found = _STREAM.search(text)
    if found is None:
        return None
    try:
        data, _ = json.JSONDecoder().raw_decode(text, found.end())
    except ValueError:
        return None
    folder = data.get(_FOLDER) if isinstance(data, dict) else None
    return folder if isinstance(folder, dict) and isinstance(folder.get("items"), list) else None


def _items(data: dict[str, Any]) -> Iterator[BoxEntry]:
    for item in data["items"]:
        if not isinstance(item, dict):
            continue
        name, number = item.get("name"), str(item.get("id", ""))
        if isinstance(name, str) and name and "/" not in name and number.isdecimal():
            folder = item.get("type") == "folder"
            yield BoxEntry(name, number, folder, None if folder else stated_size(item.get("itemSize")) or None)


def _sent_name(answer: HttpResponse) -> str:
    """The file name in Content-Disposition; ``""`` when it has none."""
    found = _NAME.search(answer.headers.get("content-disposition", ""))
    if found is None:
        return ""
    return urllib.parse.unquote(found[1]) if found[1] else found[2] or found[3] or ""
