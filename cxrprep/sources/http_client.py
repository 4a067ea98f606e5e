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
from typing import TYPE_CHECKING, Final

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
from cxrprep.sources.http_body import DECODABLE, DecodedBody, HttpBody, buffered
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
        # Whether what servers answer to HEAD is to be believed; ``None`` until it is seen.
        self._heeds_head: bool | None = None
        self._idle: dict[Endpoint, list[HttpConnection]] = {}
        self._released = 0.0
        if options.cookie_file:
            load_cookies(self.settings.share, options.cookie_file)

    # ---- what sources call ----

    def open(
        self, url: str, *, key: str = "", offset: int = 0, end: int | None = None, private: Mapping[str, str] = _NONE
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
        byte_range = f"{offset}-{'' if end is None else end - 1}" if ranged else None
        response, connection = self._exchange(url, key, Request(header_lines(private), byte_range))
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
        self._accept(response, connection, key)
        # A page may come where data was asked for, whatever the headers claim; the first bytes tell.
        begins = response.status != 206 or not response.content_range[0]
        if not expects_page(key) and (response.is_page or (begins and not response.codings)):
            start = b"" if response.codings else connection.peek()
            if is_html_page(start, claimed=response.is_page):
                connection.close()
                raise page_instead(key, response)
        return self._body(response, connection, key)

    def read(self, url: str, *, key: str = "", private: Mapping[str, str] = _NONE) -> tuple[HttpResponse, bytes]:
        """Response and whole body of a page, a listing or another small document; web pages are welcome here.

        Raises as ``open``, and ``SourceUnreachableError`` for more than any listing has.
        """
        key = key or without_query(url)
        response, connection = self._exchange(url, key, Request(header_lines(private)))
        self._accept(response, connection, key)
        with self._body(response, connection, key, page=True) as stream:
            page = buffered(stream).read(_LONGEST_PAGE + 1)
            if len(page) > _LONGEST_PAGE:
                raise SourceUnreachableError(f"{response.url} is larger than any listing ({_LONGEST_PAGE:,} bytes)")
            if response.status == 206 and len(page) < (stream.length or 0):
                raise SourceUnreachableError(
                    f"{key}: {response.url} sent {len(page):,} of {stream.length:,} bytes", hint="run again later"
                )
        return response, page

    def head(
        self, url: str, *, key: str = "", private: Mapping[str, str] = _NONE, doubted: bool = False
    ) -> HttpResponse:
        """Status and headers alone, of a GET for one byte where the server knows no HEAD.

        Args:
            url: as for ``open``.
            key: as for ``open``.
            private: as for ``open``.
            doubted: the first refusal is asked again by GET: some servers say 403 or 404 to HEAD alone.

        Returns:
            The answer without its body. Raises as ``open`` does.
        """
        key = key or without_query(url)
        by_head = self._heeds_head is not False
        request = Request(header_lines(private), None if by_head else "0-0", head=by_head)
        response, connection = self._exchange(url, key, request)
        doubtful = doubted and self._heeds_head is None and response.status in (403, 404)
        if by_head and (doubtful or response.status in _NO_HEAD):
            self.release(connection)
            self._heeds_head = False
            try:
                return self.head(url, key=key, private=private)
            except (AccessError, NotInSourceError):
                self._heeds_head = doubtful
                raise
        if by_head and response.status < 300:
            self._heeds_head = True
        total = response.content_range[1]
        if response.status in (206, 416) and total is not None:
            # What is said of the part goes.
            stated = {name: value for name, value in response.headers.items() if name not in _OF_A_PART}
            response = replace(response, status=200, headers={**stated, "content-length": str(total)})
        elif by_head and not (response.content_length and (response.validator(0) or response.digest())):
            # Some servers state the length of what they send in answer to HEAD, which is nothing, or of a page that
            # they have for all such questions.
            response = replace(response, headers={n: v for n, v in response.headers.items() if n != "content-length"})
        self._accept(response, connection, key)
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

    def _body(self, response: HttpResponse, connection: HttpConnection, key: str, *, page: bool = False) -> ByteStream:
        """The body as the file that it stands for, whatever coding a server put on that nobody asked for."""
        codings, raw = response.codings, HttpBody(response, connection, self.release)
        if not codings or (not page and _own_compression(codings, key)):
            return raw
        if DECODABLE.issuperset(codings):
            return DecodedBody(raw, codings)
        connection.close()
        raise SourceUnreachableError(
            f"{key}: {response.url} sent it in the coding {', '.join(codings)}, which was not asked for",
            hint="the server, or a proxy before it, must not compress what is fetched; try another mirror",
            lasting=True,
        )

    def _accept(self, response: HttpResponse, connection: HttpConnection, key: str) -> None:
        """Raises the error that a response without a file means."""
        if 200 <= response.status < 300 and response.status not in _WITHOUT_FILE:
            return
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

    def _exchange(self, url: str, key: str, request: Request) -> tuple[HttpResponse, HttpConnection]:
        """The answer in the end; headers of its own go to the endpoint of ``url`` alone."""
        origin, target = split_url(url)
        endpoint = origin
        for _ in range(_MOST_REDIRECTS + 1):
            asked = request if endpoint == origin else replace(request, headers=_PLAIN)
            response, connection = self._with_login(endpoint, target, key, asked)
            if response.status not in _REDIRECTS or not response.location:
                if response.states_part:
                    # Some servers and caches say 200 where they send a part, and its place.
                    response = replace(response, status=206)
                if response.status == 206 and request.byte_range is None and response.content_range[0]:
                    connection.close()
                    raise SourceUnreachableError(
                        f"{key}: {response.url} sent a part from byte {response.content_range[0]:,} on, where "
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
            endpoint, target = _redirected(endpoint, response, key)
        raise SourceUnreachableError(
            f"{key}: {without_query(url)} redirects in circles", hint="check the address", lasting=True
        )

    def _with_login(
        self, endpoint: Endpoint, target: str, key: str, request: Request
    ) -> tuple[HttpResponse, HttpConnection]:
        """One request, with the login of its endpoint where that is asked for."""
        session = self.session(endpoint)
        for _ in range(_MOST_LOGINS):
            epoch, login = session.epoch, session.login if session.with_every_request else None
            response, connection = self._send(endpoint, target, replace(request, login=login, digest=session.digest))
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
                response, connection = self._send(endpoint, target, replace(request, login=login, digest=digest))
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

    def _send(self, endpoint: Endpoint, target: str, request: Request) -> tuple[HttpResponse, HttpConnection]:
        url = f"{endpoint.scheme}://{endpoint.authority}{target}"
        connection = self._take(endpoint)
        while True:
            try:
                return connection.send(url, request), connection
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


def _redirected(endpoint: Endpoint, response: HttpResponse, key: str) -> tuple[Endpoint, str]:
    """Where a redirect leads. Raises ``SourceUnreachableError`` for a way out of the web, or out of encryption."""
    try:
        there, target = split_url(response.location or "")
        if endpoint.scheme == "http" or there.scheme == "https":
            return there, target
        reason = "an address without encryption"
    except UsageError as error:
        reason = f"no address: {error.message}"
    raise SourceUnreachableError(
        f"{key}: {response.url} redirects to {reason}",
        hint="the site, or something between it and here, is not to be trusted; try another mirror",
        lasting=True,
    )


def _own_compression(codings: tuple[str, ...], key: str) -> bool:
    """Whether the coding is the file's own: some servers call an archive's compression one. That stays."""
    return len(codings) == 1 and codings[0] in DECODABLE - {"br"} and key.lower().endswith(_COMPRESSED_NAMES)


def _beginning(connection: HttpConnection) -> bytes:
    buffer = bytearray(65_536)
    try:
        return bytes(buffer[: connection.readinto(memoryview(buffer))])
    except SourceUnreachableError:
        return b""
