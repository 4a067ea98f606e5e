"""Any HTTP(S) mirror: a folder that a web server shows, a list of checksums, or a single file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import posixpath
import re
import urllib.parse
from typing import TYPE_CHECKING, Final

from cxrprep import checksum_files
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    LoginError,
    LoginRejectedError,
    NotInSourceError,
    ProxyOrCertificateError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from cxrprep.model import RemoteFile
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, hole
from cxrprep.sources.http_auth import HostToken
from cxrprep.sources.http_client import HttpClient, OverHttp
from cxrprep.sources.http_requests import HttpRequests
from cxrprep.sources.index_pages import PageEntry, as_shown, read_page
from cxrprep.sources.listing_cache import RemoteList
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.retry import with_retries
from cxrprep.sources.s3_objects import described, error_code, is_listing, read_listing, read_pages
from cxrprep.sources.urls import FILE_NAME, Endpoint, parts_of, quoted, split_url, without_listing_words, without_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from cxrprep.sources.http_response import HttpResponse

# The page of a folder, as a browser's address line names it.
_PAGE_SUFFIXES: Final = (".html", ".htm", ".xhtml", ".shtml", ".php", ".asp", ".aspx")
# Up to this many files, sizes that no listing states are asked for one by one.
_ASKED_SINGLY: Final = 256
_LOOK: Final = "open that address in a browser"
# How many connections a transfer may find useful, and how many ask for pages and sizes.
_MOST_CONNECTIONS: Final = 64
# MIMIC-CXR, the deepest release, has four levels of folders.
_DEEPEST: Final = 16
_LISTING_CONNECTIONS: Final = 8


class HttpSource(OverHttp):
    """A mirror at an http or https address. The address of one file is a mirror of that file.

    ``holes`` are the folders below the top that the last listing had to leave out, each with the reason.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address that carries a login."""
        endpoint, _ = split_url(url)
        url = without_listing_words(url)
        parts = parts_of(url)
        self._query = parts.query
        path = parts.path or "/"
        name = posixpath.basename(path) if FILE_NAME.search(path) or path.lower().endswith(_PAGE_SUFFIXES) else ""
        folder = path[: len(path) - len(name)] if name else path.rstrip("/") + "/"
        is_page = name.lower().endswith(_PAGE_SUFFIXES)
        self._single, self._top_page = ("", urllib.parse.unquote(name)) if is_page else (urllib.parse.unquote(name), "")
        self._base = urllib.parse.urlunsplit((parts.scheme, parts.netloc, folder, "", ""))
        self.address = without_query(url)
        self.politeness = options.politeness(_MOST_CONNECTIONS)
        self._known = options.known
        # Where it answers; most sites redirect to the second.
        self._own = (endpoint, Endpoint("https", endpoint.host, 443))
        self._token = HostToken(endpoint, options.credentials)
        self._client = HttpClient(options, login=self._token.login, explain=self._explain)
        self._allows_head = True
        self._spelled: dict[str, str] = {}
        self._is_store = self._speaks_s3 = False
        self._refused: CxrprepError | None = None
        self.holes: list[CxrprepError] = []

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files below ``prefix``: from a list of checksums where there is one, and from folder pages.

        A mirror that shows neither is asked for the files that the catalog knows. Raises ``AccessError``,
        ``SourceUnreachableError``, and ``NotInSourceError`` when nothing is found at all.
        """
        if self._single:
            yield from self._with_sizes(iter([RemoteFile(self._single)]))
            return
        self.holes = []
        files = (file for file in self._everything(prefix) if file.key.startswith(prefix))
        found = False
        for file in self._with_sizes(files):
            found = True
            yield file
        if self.holes and not found:
            raise self.holes[0]

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``."""
        stream = self._client.open(
            self._url(file.key), key=file.key, offset=offset, end=end, private=self._token.headers()
        )
        return described(stream) if self._is_store else stream

    def requests(self) -> HttpRequests | None:
        """Requests of one thread for small files; ``None`` where files of this mirror need ``open``."""
        if self._is_store:
            return None
        return HttpRequests(self._client, lambda file: (self._url(file.key), self._token.headers()))

    def access(self) -> Access:
        """Whether the address answers, and to whom."""
        try:
            address = self._url(self._single or self._top_page)
            self._client.head(address, private=self._token.headers(), doubted=True)
        except AccessError as error:
            missing = isinstance(error, LoginError) and not isinstance(error, LoginRejectedError)
            return access_refused(error, AccessState.MISSING if missing else AccessState.REJECTED)
        except NotInSourceError:
            return Access(AccessState.UNKNOWN, advice=f"{self.address} does not exist; check the address")
        return Access(AccessState.OPEN)

    # ---- listing ----

    def _url(self, key: str) -> str:
        address = self._base + self._spelling(key)
        return f"{address}?{self._query}" if self._query else address

    def _spelling(self, key: str) -> str:
        """``key`` as the path of an address; a name that is no UTF-8 goes back as the server wrote it."""
        if self._spelled:
            parts = key.split("/")
            for count in range(len(parts), 0, -1):
                start = "/".join(parts[:count])
                if start in self._spelled:
                    return self._spelled[start] + quoted(key[len(start) :])
        return quoted(key)

    def _everything(self, prefix: str) -> Iterator[RemoteFile]:
        top = self._top()
        if self._is_store:
            yield from self._objects(prefix)
            return
        names = {entry.name: entry for entry in top or ()}
        listed: set[str] = set()
        found = False
        # With a folder page at hand only what it shows is asked for; one without sizes and folders may be any page.
        plain = not any(entry.folder or entry.size is not None for entry in names.values())
        for name in (n for n in checksum_files.NAMES if plain or n in names):
            for file in self._sums(name, shown=name in names):
                found = True
                head = file.key.partition("/")[0]
                listed.add(head)
                entry = names.get(file.key)
                yield file if entry is None else dataclasses.replace(file, size=entry.size)
            if found:
                break
        if top is not None:
            rest = self._told_apart([entry for entry in top if entry.name not in listed])
            yield from (RemoteFile(e.name, e.size) for e in rest if not e.folder)
            yield from self._walk([e.name + "/" for e in rest if e.folder], prefix, top)
        elif not found:
            yield from self._known_ones()

    def _branch(self, folder: str) -> Sequence[PageEntry]:
        """The entries of a folder below the top. One that cannot be read is a hole, and no end of the listing."""
        try:
            entries = self._page(folder)
        except CxrprepError as error:
            if isinstance(error, NotConnectedError) and error.endpoint in self._own:
                # Nobody is there any more. To another host or port one folder alone may redirect.
                raise
            self.holes.append(hole(folder, error))
            return ()
        if entries is None:
            # Not there after all, a login form, or no page at all.
            self.holes.append(
                NotInSourceError(f"{folder}: {without_query(self._url(folder))} shows no list of files", hint=_LOOK)
            )
            return ()
        return self._told_apart(entries, folder)

    def _told_apart(self, entries: Sequence[PageEntry], folder: str = "") -> Sequence[PageEntry]:
        """Files and folders: mini_httpd writes no slash behind a folder's name, and says so when it is asked."""
        doubtful = [e.name for e in entries if not e.folder and e.size is None and "." not in e.name]
        folders = {name for name in doubtful[:_ASKED_SINGLY] if self._is_folder(folder + name)}
        return [dataclasses.replace(e, folder=True) if e.name in folders else e for e in entries]

    def _is_folder(self, key: str) -> bool:
        try:
            return self._client.head(self._url(key), key=key, private=self._token.headers()).url.endswith("/")
        except CxrprepError:
            return False

    def _sums(self, name: str, *, shown: bool) -> Iterator[RemoteFile]:
        """The files of a list of checksums; one that a page has ``shown`` and that is refused is a hole."""
        try:
            stream = with_retries(lambda: self.open(RemoteFile(name)))
            listing = RemoteList(name, lambda at: self.open(RemoteFile(name), at), stream.validator, stream)
            reader: io.BufferedReader = io.BufferedReader(listing, 1 << 20)
            reader.peek()
        except (NotInSourceError, AccessError, SourceUnreachableError) as error:
            if isinstance(error, SourceUnreachableError) and not error.lasting:
                away = isinstance(error, NotConnectedError) and error.endpoint in self._own
                if away or error.overloaded or not shown:
                    raise
            # Some sites answer 403, or their home page, for what does not exist.
            self.holes += [error] if shown else []
            return
        line, file = "", None
        with checksum_files.as_text(reader, "surrogateescape") as text:
            for line in text:
                file = checksum_files.parse_line(line)
                if file is not None:
                    key, spelled = (file.key, "") if file.key.isascii() else as_shown(file.key)
                    if spelled:
                        self._spelled[key] = spelled
                    yield file if key is file.key else dataclasses.replace(file, key=key)
        if file is None and re.match("[0-9a-fA-F]{8}", line) and not line.endswith("\n"):
            # The files behind it would be missing without a word.
            raise SourceUnreachableError(
                f"{name}: it ends within a line",
                hint="run again; if that does not help, the mirror's copy is cut short",
            )

    def _read(self, url: str, key: str) -> tuple[HttpResponse, bytes]:
        return with_retries(lambda: self._client.read(url, key=key, private=self._token.headers()))

    def _page(self, folder: str) -> Sequence[PageEntry] | None:
        try:
            answer, body = self._read(self._url(folder or self._top_page), folder or self.address)
        except NotInSourceError:
            return None
        if not folder and is_listing(body):
            self._is_store = True
        # Its links are those of where a redirect has led.
        entries = read_page(body, answer.headers.get("content-type", ""), answer.url)
        for entry in entries or ():
            if entry.spelled:
                self._spelled[folder + entry.name] = self._spelling(folder) + entry.spelled
        return entries

    # ---- a bucket of an object store ----

    def _top(self) -> Sequence[PageEntry] | None:
        """The entries of the first page. For what turns out to be a bucket ``_is_store`` is set.

        A folder that is not shown may still hold files that may be fetched: nginx without autoindex answers 403.
        """
        top = self._refused = None
        try:
            top = self._page("")
        except (LoginError, ProxyOrCertificateError):
            # Who is not known there is not known for the next file either; asked on and on, some sites shut him out.
            raise
        except AccessError as error:
            self._refused = error
        except SourceUnreachableError as error:
            if not error.lasting:
                raise
            self._refused = error
        if top is None and (self._speaks_s3 or self._refused is None):
            # Of a folder inside a bucket there is no page; some stores say so in words of their own.
            self._is_store = self._bucket() is not None
        return top

    def _bucket(self) -> tuple[str, str] | None:
        """The address of the bucket that lists what lies below the mirror's address, and that folder's name in it."""
        parts = parts_of(self._base)
        names = parts.path.strip("/").split("/")
        for count in range(min(2, len(names)) + 1):
            # Of a host's own (``bucket.s3.example.org``), or the first name of the path.
            root = urllib.parse.urlunsplit(parts._replace(path="/" + "".join(f"{name}/" for name in names[:count])))
            inside = urllib.parse.unquote(self._base.removeprefix(root))
            with contextlib.suppress(CxrprepError):
                body = self._read(self._listing(root, {"prefix": inside, "max-keys": "1"}), self.address)[1]
                if is_listing(body) and (read_listing(body, self.address).objects or not inside):
                    return root, inside
        return None

    def _objects(self, prefix: str) -> Iterator[RemoteFile]:
        root, inside = self._bucket() or (self._base, "")

        def ask(more: Mapping[str, str]) -> bytes:
            return self._read(self._listing(root, {"prefix": inside + prefix, **more}), self.address)[1]

        for page in read_pages(ask, self.address):
            for file in page.objects:
                if file.key.startswith(inside):
                    yield dataclasses.replace(file, key=file.key[len(inside) :])

    def _listing(self, root: str, words: Mapping[str, str]) -> str:
        asked = {"list-type": "2", "encoding-type": "url", **{name: word for name, word in words.items() if word}}
        more = f"&{self._query}" if self._query else ""
        return f"{root}?{urllib.parse.urlencode(asked, quote_via=urllib.parse.quote)}{more}"

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        if answer.status in (403, 404) and error_code(answer):
            self._speaks_s3 = True
        return self._token.refusal(answer, key)

    def _walk(self, folders: Sequence[str], prefix: str, top: Sequence[PageEntry]) -> Iterator[RemoteFile]:
        """The files below ``folders``, level by level, several pages at a time; a link to a folder above is not walked.

        ``top`` are the entries of the first page.
        """
        if not folders:
            return
        above = {"": tuple(top)}
        with _threads(min(self.politeness.connections, _LISTING_CONNECTIONS), "listing") as pool:
            while folders:
                # Folders off the way to the prefix hold nothing that is asked for.
                folders = [f for f in folders if f.startswith(prefix) or prefix.startswith(f)]
                below = []
                for folder, entries in zip(folders, pool.map(self._branch, folders), strict=True):
                    # Folders that hold folders repeat no page of those above them, but for a link that leads up.
                    inner = [entry for entry in entries if entry.folder]
                    if inner and any(tuple(entries) == above[parent] for parent in _parents(folder) if parent in above):
                        continue
                    if inner:
                        above[folder] = tuple(entries)
                    below += [f"{folder}{entry.name}/" for entry in inner]
                    yield from (RemoteFile(folder + e.name, e.size) for e in entries if not e.folder)
                if below and below[0].count("/") > _DEEPEST:
                    endless = f"{below[0][:80]}: {self.address} shows folders in folders without an end"
                    self.holes.append(
                        SourceNotFoundError(endless, hint="name the folder of the release; none has so many levels")
                    )
                    return
                folders = below

    def _known_ones(self) -> Iterator[RemoteFile]:
        if not self._known:
            raise self._refused or SourceNotFoundError(
                f"{self.address} shows neither a folder page nor a list of checksums",
                hint="check the address; it should show the files of the release in a browser",
            )
        found = False
        for file in self._known:
            # Where nothing was said of it, GET decides.
            sized = self._asked(file) or (None if self._allows_head else file)
            if sized is not None:
                found = True
                yield sized
        if not found:
            raise self._refused or SourceNotFoundError(
                f"{self.address} has none of the release's files", hint="check the address"
            )

    def _with_sizes(self, files: Iterable[RemoteFile]) -> Iterator[RemoteFile]:
        """The same files; when they are few, with the sizes that the listing does not state."""
        rest = iter(files)
        first = list(itertools.islice(rest, _ASKED_SINGLY + 1))
        if len(first) > _ASKED_SINGLY:
            yield from itertools.chain(first, rest)
            return
        with _threads(min(self.politeness.connections, _LISTING_CONNECTIONS), "sizes") as pool:
            asked = pool.map(lambda file: None if file.size is not None else self._asked(file), first)
            for file, sized in zip(first, asked, strict=True):
                yield sized or file

    def _asked(self, file: RemoteFile) -> RemoteFile | None:
        """``file`` as the server describes it without sending it; ``None`` where it says nothing.

        Nothing depends on it, so a server that breaks on it is not asked again, and GET decides.
        """
        if not self._allows_head:
            return None
        try:
            url = self._url(file.key)
            private = self._token.headers()
            answer = with_retries(
                lambda: self._client.head(url, key=file.key, private=private, doubted=True), optional=True
            )
        except SourceUnreachableError as error:
            if isinstance(error, NotConnectedError):
                if error.endpoint in self._own:
                    raise
                return None
            self._allows_head = False
            return None
        except CxrprepError:
            return None
        if answer.is_page or answer.codings:
            return file
        size = answer.content_length
        return dataclasses.replace(
            file, size=size, digest=file.digest or answer.digest(), validator=answer.validator(size)
        )


def _parents(folder: str) -> Iterator[str]:
    while folder:
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
        yield folder


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    # A mirror with a list of checksums needs none of its own.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(count, thread_name_prefix=name)
