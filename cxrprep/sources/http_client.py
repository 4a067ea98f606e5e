"""The HTTP client that sources share, on libcurl: GET with Range, redirects without credentials, errors with advice.

A source makes one ``HttpClient`` and calls ``open`` from many threads. Redirects are followed here and not by libcurl,
from the original address each time, so that a short-lived signed address behind a permanent link is always a new one,
and so that each host gets its own login or none.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from cxrprep._version import __version__
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    LoginRejectedError,
    NotInSourceError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.sources.base import Body
from cxrprep.sources.http_auth import HostSession, load_cookies, wants_digest
from cxrprep.sources.http_body import DECODABLE, DecodedBody, HttpBody
from cxrprep.sources.http_connection import AskAgainError, ConnectionSettings, HttpConnection, Request
from cxrprep.sources.http_response import HttpResponse, expects_page, is_html_page, page_instead, refusal
from cxrprep.sources.network_errors import FEW_TRIES
from cxrprep.sources.urls import Endpoint, split_url, without_query

if TYPE_CHECKING:
    from cxrprep.credentials.files import Login
    from cxrprep.sources.base import ByteStream, SourceOptions

# Says who we are; PhysioNet serves only agents that it knows, and passes its own to the client.
USER_AGENT: Final = f"cxrprep/{__version__}"
# Any other success is one of the general kind, 200 (RFC 9110, 15).
_WITHOUT_FILE: Final = frozenset({201, 202, 204, 205, 207, 208, 226})
_NOT_YET: Final = 202
_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
# How servers refuse a request for its range: asked for all, some of them send it. Firewalls say what they like, of one
# file and not of the next.
_NO_RANGES: Final = frozenset({400, 403, 404, 405, 406, 409, 412, 413, 416, 417, 418, 422, 431, 501})
# How servers refuse HEAD, whatever they say to GET (RFC 9110, 15.5.6 and 15.6.2).
_NO_HEAD: Final = frozenset({400, 405, 406, 501})
_OF_A_PART: Final = frozenset({"content-md5", "content-range", "transfer-encoding"})
_MOST_REDIRECTS: Final = 10
_MOST_LOGINS: Final = 5
_LONGEST_PAGE: Final = 64 * 1024 * 1024
_COMPRESSED_NAMES: Final = (".gz", ".tgz", ".zip", ".bz2", ".xz")
_NONE: Final[Mapping[str, str]] = {}
_PLAIN: Final = ("Accept: */*", "Accept-Encoding: identity")

# Turns a response of status 400 and above into the error that fits the service; None leaves it to the general rule.
Explain = Callable[[HttpResponse, str], CxrprepError | None]


class _Query(NamedTuple):
    """What is asked of one file, wherever redirects lead: see ``HttpClient.open``."""

    url: str
    key: str
    private: Mapping[str, str]


class HttpClient:
    """Requests to HTTP servers, from many threads at once."""

    def __init__(
        self,
        options: SourceOptions,
        *,
        login: Callable[[str], Login | None] | None = None,
        explain: Explain | None = None,
        user_agent: str = USER_AGENT,
    ) -> None:
        """Nothing is connected yet.

        Args:
            options: time-out, user agent, cookie file and credentials.
            login: finds a host's login; by default that of the credentials.
            explain: turns a refusal into the service's own advice, where it has some.
            user_agent: the source's own, which the user's option overrides.

        Raises:
            AccessError: the cookie file cannot be read.
        """
        credentials = options.credentials
        if login is None:
            login = credentials.host if credentials is not None else nobody
        self.settings = ConnectionSettings(options.timeout, options.user_agent or user_agent)
        self._find_login = login
        self._sessions: dict[Endpoint, HostSession] = {}
        self._explain = explain
        self._lock = threading.Lock()
        self._knows_head = self._doubts_head = True
        self._idle: dict[Endpoint, list[HttpConnection]] = {}
        self._released = 0.0
        if options.cookie_file:
            load_cookies(self.settings.share, options.cookie_file)

    # ---- what sources call ----

    def open(
        self,
        url: str,
        *,
        key: str = "",
        offset: int = 0,
        end: int | None = None,
        private: Mapping[str, str] = _NONE,
    ) -> ByteStream:
        """The bytes behind ``url``, judged by status and headers before the first of them is read.

        Args:
            url: an http or https address.
            key: the file's name in errors.
            offset: the first byte. A server that serves no ranges sends all, and the stream says so.
            end: one behind the last byte; ``None`` for the end of the file.
            private: headers for the endpoint of ``url``, and for nobody whom it redirects to.

        Returns:
            The stream, which is to be closed.

        Raises:
            AccessError: 401, 403, a page in place of data.
            NotInSourceError: 404 or 410.
            SourceUnreachableError: connection, time-out, 429 and 5xx, a content coding that cannot be undone.
        """
        key = key or without_query(url)
        ranged = bool(offset) or end is not None
        request = Request(byte_range=f"{offset}-{'' if end is None else end - 1}" if ranged else None)
        query = _Query(url, key, private)
        response, connection = self._exchange(request, query)
        if ranged and not self._serves_range(response, key, offset):
            self.release(connection)
            total = response.content_range[1]
            if response.status == 416 and total is not None and total == offset:
                # Everything is here already.
                behind = Body()
                behind.offset = behind.length = total
                behind.validator = response.validator(total)
                return behind
            # Past the end, another part or one without its place, or a part of something compressed: all of it, then.
            return self.open(url, key=key, private=private)
        self._accept(response, connection, query)
        # A page may come where data was asked for, whatever the headers claim; the first bytes tell.
        begins = response.status != 206 or not response.content_range[0]
        if not expects_page(key) and (response.is_page or (begins and not response.codings)):
            start = b"" if response.codings else connection.peek()
            if is_html_page(start, claimed=response.is_page):
                connection.close()
                raise page_instead(key, response)
        request.byte_range = None
        return self._body(request, query, response, connection)

    def read(self, url: str, *, key: str = "", private: Mapping[str, str] = _NONE) -> tuple[HttpResponse, bytes]:
        """Response and whole body of a page, a listing or another small document; web pages are welcome here.

        Raises as ``open``, and ``SourceUnreachableError`` for more than any listing has.
        """
        request, query = Request(), _Query(url, key or without_query(url), private)
        response, connection = self._exchange(request, query)
        self._accept(response, connection, query)
        pieces = bytearray()
        buffer = memoryview(bytearray(65_536))
        with self._body(request, query, response, connection, page=True) as stream:
            while count := stream.readinto(buffer):
                pieces += buffer[:count]
                if len(pieces) > _LONGEST_PAGE:
                    raise SourceUnreachableError(f"{response.url} is larger than any listing ({_LONGEST_PAGE:,} bytes)")
            if response.status == 206 and len(pieces) < (stream.length or 0):
                raise SourceUnreachableError(
                    f"{query.key}: {response.url} sent {len(pieces):,} of {stream.length:,} bytes",
                    hint="run again later",
                )
        return response, bytes(pieces)

    def head(
        self, url: str, *, key: str = "", private: Mapping[str, str] = _NONE, doubted: bool = False
    ) -> HttpResponse:
        """The headers alone, of a GET for one byte where the server knows no HEAD. Raises as ``open``.

        Args:
            url: an http or https address.
            key: the file's name in errors.
            private: headers for the endpoint of ``url``, and for nobody whom it redirects to.
            doubted: the first refusal is asked again by GET: some servers say 403 or 404 to HEAD alone.

        Returns:
            Status and headers.
        """
        query = _Query(url, key or without_query(url), private)
        request = Request(head=True) if self._knows_head else Request(byte_range="0-0")
        response, connection = self._exchange(request, query)
        doubtful = doubted and self._doubts_head and response.status in (403, 404)
        if request.head and (doubtful or response.status in _NO_HEAD):
            self.release(connection)
            self._knows_head = self._doubts_head = False
            try:
                return self.head(url, key=key, private=private)
            except (AccessError, NotInSourceError):
                self._knows_head = doubtful
                raise
        self._doubts_head &= response.status >= 300
        total = response.content_range[1]
        if response.status in (206, 416) and total is not None:
            # What is said of the part goes.
            stated = {name: value for name, value in response.headers.items() if name not in _OF_A_PART}
            response = replace(response, status=200, headers={**stated, "content-length": str(total)})
        elif request.head and not (response.content_length and (response.validator(0) or response.digest())):
            # Some servers state the length of what they send in answer to HEAD, which is nothing, or of a page that
            # they have for all such questions.
            response = replace(response, headers={n: v for n, v in response.headers.items() if n != "content-length"})
        self._accept(response, connection, query)
        self.release(connection)
        return response

    # ---- many requests of one thread: see ``HttpRequests`` ----

    def session(self, endpoint: Endpoint) -> HostSession:
        """The state of the login at ``endpoint``, for all threads."""
        return self._sessions.get(endpoint) or self._sessions.setdefault(endpoint, HostSession())

    def settle(self) -> None:
        """Look at the idle connections for answers that nobody asked for, a moment after the last use of one."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
        if idle:
            due = self._released + min(max(4 * self.settings.slowest, 0.05), 1.0)
            self.settings.closed.wait(max(due - time.monotonic(), 0.0))
        for connection in idle:
            connection.is_clean()

    def close(self) -> None:
        """Drop every connection; streams that are being read raise ``SourceUnreachableError`` within a moment."""
        self.settings.closed.set()
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in itertools.chain(*idle.values()):
            connection.close()

    # ---- bodies ----

    @staticmethod
    def _serves_range(response: HttpResponse, key: str, offset: int) -> bool:
        """Whether a request with a range was answered with bytes from ``offset`` on, or by an error of another kind."""
        if response.status == 206:
            coded = response.codings and not _own_compression(response.codings, key)
            return response.content_range[0] == offset and not coded
        return response.status not in _NO_RANGES or response.is_rate_limit

    def _body(
        self, request: Request, query: _Query, response: HttpResponse, connection: HttpConnection, *, page: bool = False
    ) -> ByteStream:
        """The body as the file that it stands for, whatever coding a server put on that nobody asked for."""
        codings, key, raw = response.codings, query.key, HttpBody(response, connection, self.release)
        if not codings or (not page and _own_compression(codings, key)):
            return raw
        if DECODABLE.issuperset(codings) or request.decode:
            return DecodedBody(raw, () if request.decode else codings)
        connection.close()
        if codings != ("br",):
            raise SourceUnreachableError(
                f"{key}: {response.url} sent it in the coding {', '.join(codings)}, which was not asked for",
                hint="the server, or a proxy before it, must not compress what is fetched; try another mirror",
                lasting=True,
            )
        # libcurl undoes it.
        request.decode = True
        response, connection = self._exchange(request, query)
        self._accept(response, connection, query)
        return self._body(request, query, response, connection, page=page)

    def _accept(self, response: HttpResponse, connection: HttpConnection, query: _Query) -> None:
        """Raises the error that a response without a file means."""
        if 200 <= response.status < 300 and response.status not in _WITHOUT_FILE:
            return
        key = query.key
        self.release(connection)
        explained = None if response.is_rate_limit or self._explain is None else self._explain(response, key)
        if explained is None and response.status < 400:
            raise SourceUnreachableError(
                f"{key}: {response.url} answered {response.status} without a file",
                hint="check the address",
                retry_after=response.retry_after,
                # 202 says that there will be one; asked again, the others say the same.
                lasting=response.status != _NOT_YET,
            )
        raise explained or refusal(response, key)

    # ---- one request, with its redirects and its login ----

    def _exchange(self, request: Request, query: _Query) -> tuple[HttpResponse, HttpConnection]:
        """The answer in the end; ``request`` is filled in for each host on the way."""
        origin, target = split_url(query.url)
        endpoint = origin
        for _ in range(_MOST_REDIRECTS + 1):
            request.headers = header_lines(query.private if endpoint == origin else _NONE)
            request.url = f"{endpoint.scheme}://{endpoint.authority}{target}"
            response, connection = self._with_login(request, endpoint, query.key)
            if response.status not in _REDIRECTS or not response.location:
                if response.states_part:
                    # Some servers and caches say 200 where they send a part, and its place.
                    response = replace(response, status=206)
                if response.status == 206 and request.byte_range is None and response.content_range[0]:
                    connection.close()
                    raise SourceUnreachableError(
                        f"{query.key}: {response.url} sent a part from byte {response.content_range[0]:,} on, where "
                        "all of it was asked for",
                        hint="a cache or proxy on the way may mix answers up; try without it, or another mirror",
                        # It may have been another one's answer, once.
                        tries=FEW_TRIES,
                    )
                if response.status >= 400:
                    elsewhere = endpoint.host != origin.host
                    response = replace(response, body=_beginning(connection), elsewhere=elsewhere)
                return response, connection
            self.release(connection)
            _check_redirect(endpoint, response, query.key)
            try:
                endpoint, target = split_url(response.location)
            except UsageError as error:
                raise SourceUnreachableError(
                    f"{query.key}: {response.url} redirects to no address: {error.message}",
                    hint="try another mirror; only those who run the site can fix it",
                    lasting=True,
                ) from error
        raise SourceUnreachableError(
            f"{query.key}: {without_query(query.url)} redirects in circles", hint="check the address", lasting=True
        )

    def _with_login(self, request: Request, endpoint: Endpoint, key: str) -> tuple[HttpResponse, HttpConnection]:
        """One request, with the login of its endpoint where that is asked for."""
        session = self.session(endpoint)
        for _ in range(_MOST_LOGINS):
            epoch, login = session.epoch, session.login if session.with_every_request else None
            request.login, request.digest = login, session.digest
            response, connection = self._send(request, endpoint)
            if not session.challenged(response.status, sent_login=login is not None):
                return response, connection
            login = self._find_login(endpoint.host)
            if login is None or not login.permits(endpoint.host):
                return response, connection
            self.release(connection)
            with session.lock:
                if session.epoch != epoch:
                    # Another thread has logged in meanwhile; its session serves this one too.
                    continue
                digest = wants_digest(response, key)
                request.login, request.digest = login, digest
                response, connection = self._send(request, endpoint)
                if response.status == 401:
                    self.release(connection)
                    raise LoginRejectedError(
                        f"{key}: {endpoint.authority} rejects the login found in {login.origin} (401)",
                        hint="check user name and password there",
                    )
                if response.status < 400:
                    session.opened(login, response, digest=digest)
                return response, connection
        raise AccessError(f"{key}: {endpoint.authority} forgets its sessions at once", hint="run again later")

    def _send(self, request: Request, endpoint: Endpoint) -> tuple[HttpResponse, HttpConnection]:
        connection = self._take(endpoint)
        while True:
            try:
                return connection.send(request), connection
            except AskAgainError:
                # Not raised over a new one.
                connection.close()
                connection = HttpConnection(endpoint, self.settings)
            except BaseException:
                connection.close()
                raise

    # ---- connections ----

    def _take(self, endpoint: Endpoint) -> HttpConnection:
        """A connection that served before and is clean, or a new one."""
        while True:
            with self._lock:
                if self.settings.closed.is_set():
                    raise SourceUnreachableError(f"the connections to {endpoint.authority} were dropped")
                idle = self._idle.get(endpoint)
                connection = idle.pop() if idle else None
            if connection is None:
                return HttpConnection(endpoint, self.settings)
            if connection.is_clean():
                return connection
            connection.close()

    def release(self, connection: HttpConnection) -> None:
        """Take a connection back, when what is left of its answer is short; drop it otherwise."""
        if not connection.finish() or not self.settings.reuse:
            connection.close()
            return
        with self._lock:
            self._released = time.monotonic()
            if not self.settings.closed.is_set():
                self._idle.setdefault(connection.endpoint, []).append(connection)
                return
        connection.close()


class OverHttp:
    """The part of a source that all of them share whose bytes come through ``_client``."""

    _client: HttpClient

    def settle(self) -> None:
        """See ``ReusesConnections.settle``."""
        self._client.settle()

    def close(self) -> None:
        """Drop connections."""
        self._client.close()


def header_lines(private: Mapping[str, str]) -> tuple[str, ...]:
    """The lines of a request's head, beside those that libcurl writes; ``private`` ones among them."""
    return (*_PLAIN, *(f"{name}: {value}" for name, value in private.items()))


def nobody(host: str) -> Login | None:
    """No login, for no host: what a source passes whose service has a way of its own."""
    del host
    return None


def _check_redirect(endpoint: Endpoint, response: HttpResponse, key: str) -> None:
    """Raises ``SourceUnreachableError`` for a way that leads out of the web, or out of encryption."""
    there = (response.location or "").lower()
    if not there.startswith(("http:", "https:")):
        named = without_query(response.location or "")
        reason = f"{response.url} redirects to {named!r}, which is not an http or https address"
    elif endpoint.scheme == "https" and not there.startswith("https:"):
        reason = f"{response.url} redirects to an address without encryption"
    else:
        return
    raise SourceUnreachableError(
        f"{key}: {reason}", hint="the site, or something between it and here, is not to be trusted", lasting=True
    )


def _own_compression(codings: tuple[str, ...], key: str) -> bool:
    """Whether the coding is the file's own: some servers call an archive's compression one. That stays."""
    return len(codings) == 1 and codings[0] in DECODABLE and key.lower().endswith(_COMPRESSED_NAMES)


def _beginning(connection: HttpConnection) -> bytes:
    buffer = bytearray(65_536)
    try:
        return bytes(buffer[: connection.readinto(memoryview(buffer))])
    except SourceUnreachableError:
        return b""
