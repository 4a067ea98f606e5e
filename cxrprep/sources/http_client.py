"""The HTTP client that sources share: GET with Range, redirects without credentials, errors with advice.

A source makes one ``HttpClient`` and calls ``open`` from many threads. Redirects are followed from the original
address each time, so that a short-lived signed address behind a permanent link is always a new one.
"""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from cxrprep.errors import AccessError, CxrprepError, SourceUnreachableError
from cxrprep.sources.body import DecodedBody, EmptyBody, HttpBody
from cxrprep.sources.connection import Connections, unreachable
from cxrprep.sources.http_auth import Logins
from cxrprep.sources.http_response import Answer, expects_page, page_instead, refusal
from cxrprep.sources.urls import Endpoint, split_url, without_query

if TYPE_CHECKING:
    from cxrprep.credentials.lookup import Login
    from cxrprep.sources.base import ByteStream, SourceOptions
    from cxrprep.sources.wire import Head, Wire

# Says who we are; PhysioNet serves only agents that it knows, and passes its own to the client.
USER_AGENT: Final = "cxrprep (+https://cxrprep.readthedocs.io)"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 10
_MOST_LOGINS: Final = 5
_SHORT: Final = 65_536
_COMPRESSED_NAMES: Final = (".gz", ".tgz", ".zip", ".bz2", ".xz")
_NONE: Final[Mapping[str, str]] = {}
_BROKEN: Final = (OSError, http.client.HTTPException, ValueError)
_HUNG_UP: Final = (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest)

# Turns an answer of status 400 and above into the error that fits the service; None leaves it to the general rule.
Explain = Callable[[Answer, str], CxrprepError | None]


class _Exchange(NamedTuple):
    answer: Answer
    head: Head
    wire: Wire
    endpoint: Endpoint


class _Place(NamedTuple):
    url: str
    endpoint: Endpoint
    target: str


class HttpClient:
    """Requests to HTTP servers, from many threads at once.

    ``login`` finds the login for a host (default: netrc); ``explain`` turns a refusal into the service's own advice;
    ``user_agent`` is the source's own, which the user's option overrides.
    """

    def __init__(
        self,
        options: SourceOptions,
        *,
        login: Callable[[str], Login | None] | None = None,
        explain: Explain | None = None,
        user_agent: str = USER_AGENT,
    ) -> None:
        """Nothing is connected yet. Raises ``AccessError`` for a cookie file that cannot be read."""
        credentials = options.credentials
        if login is None:
            login = credentials.host if credentials is not None else nobody
        self._timeout = options.timeout
        self._connections = Connections(options.timeout)
        self._logins = Logins(login, options.cookie_file)
        self._explain = explain
        self._asked: dict[str, tuple[dict[str, str], Wire]] = {}
        self._headers = {"User-Agent": options.user_agent or user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}

    # ---- what sources call ----

    def open(
        self,
        url: str,
        *,
        key: str = "",
        offset: int = 0,
        end: int | None = None,
        headers: Mapping[str, str] = _NONE,
        private: Mapping[str, str] = _NONE,
    ) -> ByteStream:
        """The bytes behind ``url`` from ``offset`` up to but without ``end``; ``key`` names the file in errors.

        ``headers`` go wherever redirects lead, ``private`` ones only to the endpoint of ``url`` itself. Raises
        ``AccessError``, ``NotInSourceError`` and ``SourceUnreachableError`` as ``Source.open`` promises.
        """
        key = key or without_query(url)
        if offset or end is not None:
            last = "" if end is None else str(end - 1)
            exchange = self._exchange("GET", url, {**headers, "Range": f"bytes={offset}-{last}"}, private, key)
            answer = exchange.answer
            if answer.status == 416:
                self._discard(exchange)
                _, total = answer.content_range
                if total is not None and total == offset:
                    return EmptyBody(total, answer.validator(total))
                return self.open(url, key=key, headers=headers, private=private)
            if answer.status == 206 and _decoding(answer, key):
                # A range of something compressed on its way is of no use to anyone.
                self._connections.drop(exchange.wire)
                return self.open(url, key=key, headers=headers, private=private)
        else:
            exchange = self._exchange("GET", url, headers, private, key)
        answer = self._accepted(exchange, key)
        if answer.is_page and not expects_page(key):
            self._connections.drop(exchange.wire)
            raise page_instead(key, answer)
        body = HttpBody(
            key,
            answer,
            exchange.head,
            connections=self._connections,
            wire=exchange.wire,
            endpoint=exchange.endpoint,
            timeout=self._timeout,
        )
        return DecodedBody(body) if _decoding(answer, key) else body

    def read(
        self,
        url: str,
        *,
        key: str = "",
        limit: int = 64 * 1024 * 1024,
        headers: Mapping[str, str] = _NONE,
        private: Mapping[str, str] = _NONE,
    ) -> tuple[Answer, bytes]:
        """Answer and whole body of a page, a listing or another small document; web pages are welcome here.

        Raises as ``open``, and ``SourceUnreachableError`` for more than ``limit`` bytes.
        """
        key = key or without_query(url)
        exchange = self._exchange("GET", url, headers, private, key)
        answer = self._accepted(exchange, key)
        body = HttpBody(
            key + ".html",
            answer,
            exchange.head,
            connections=self._connections,
            wire=exchange.wire,
            endpoint=exchange.endpoint,
            timeout=self._timeout,
        )
        pieces = bytearray()
        buffer = memoryview(bytearray(65_536))
        with DecodedBody(body) if _decoding(answer, key) else body as stream:
            while count := stream.readinto(buffer):
                pieces += buffer[:count]
                if len(pieces) > limit:
                    raise SourceUnreachableError(f"{answer.url} is larger than any listing ({limit} bytes)")
        return answer, bytes(pieces)

    def head(
        self, url: str, *, key: str = "", headers: Mapping[str, str] = _NONE, private: Mapping[str, str] = _NONE
    ) -> Answer:
        """The headers alone. Raises as ``open``."""
        key = key or without_query(url)
        exchange = self._exchange("HEAD", url, headers, private, key)
        answer = self._accepted(exchange, key)
        self._discard(exchange)
        return answer

    def ask(self, url: str) -> bool:
        """Send the request that ``open`` of all of ``url`` would begin with, if a connection there is open and idle.

        That ``open`` then reads the answer, as long as it would still send the same. Whether it was sent.
        """
        try:
            endpoint, target = split_url(url)
            wire = self._connections.idle(endpoint)
        except CxrprepError:
            return False
        if wire is None:
            return False
        opened = self._logins.gate(endpoint).opened(_NONE)
        target, lines = self._request(_Place(url, endpoint, target), opened)
        try:
            wire.request("GET", target, lines)
        except _BROKEN:
            self._connections.drop(wire)
            return False
        self._asked[url] = lines, wire
        return True

    def withdraw(self, url: str) -> None:
        """Drop the connection that ``url`` was asked for on, if it was."""
        asked = self._asked.pop(url, None)
        if asked is not None:
            self._connections.drop(asked[1])

    def close(self) -> None:
        """Drop every connection; streams that are being read raise ``SourceUnreachableError`` at once."""
        self._connections.close()
        for url in list(self._asked):
            self.withdraw(url)

    # ---- one request, with its redirects and its login ----

    def _accepted(self, exchange: _Exchange, key: str) -> Answer:
        answer = exchange.answer
        if answer.status in (200, 206):
            return answer
        self._discard(exchange)
        if answer.status < 400:
            raise SourceUnreachableError(f"{key}: {answer.url} answered {answer.status} without a file")
        error = self._explain(answer, key) if self._explain is not None else None
        raise error or refusal(answer, key)

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], private: Mapping[str, str], key: str
    ) -> _Exchange:
        origin, target = split_url(url)
        here, endpoint = url, origin
        for _ in range(_MOST_REDIRECTS + 1):
            if endpoint == origin:
                place = _Place(here, endpoint, target)
                exchange = self._with_login(method, place, {**headers, **private} if private else headers, key)
            else:
                exchange = self._send(method, _Place(here, endpoint, target), headers)
            answer = exchange.answer
            location = answer.headers.get("location") if answer.status in _REDIRECTS else None
            if not location:
                return exchange
            self._discard(exchange)
            there = urllib.parse.urljoin(here, location)
            if endpoint.scheme == "https" and not there.lower().startswith("https:"):
                raise SourceUnreachableError(
                    f"{key}: {answer.url} redirects to an address without encryption",
                    hint="the site, or something between it and here, is not to be trusted",
                )
            if not there.lower().startswith(("http:", "https:")):
                raise SourceUnreachableError(
                    f"{key}: {answer.url} redirects to {without_query(there)!r}, which is no http or https address",
                    hint="the site, or something between it and here, is not to be trusted",
                )
            here = there
            endpoint, target = split_url(here)
        raise SourceUnreachableError(f"{key}: {without_query(url)} redirects in circles", hint="check the address")

    def _with_login(self, method: str, place: _Place, headers: Mapping[str, str], key: str) -> _Exchange:
        """One request to the endpoint that logins are for, answered challenge included."""
        endpoint = place.endpoint
        gate = self._logins.gate(endpoint)
        for _ in range(_MOST_LOGINS):
            epoch, eager = gate.epoch, gate.eager
            sent = gate.opened(headers)
            exchange = self._send(method, place, sent)
            status = exchange.answer.status
            # A session that ran out after hours answers 401 or 403, depending on the site.
            challenged = status == 401 or (status == 403 and gate.epoch > 0 and not eager)
            if not challenged or "Authorization" in sent:
                return exchange
            authorization = self._logins.authorization(endpoint)
            if authorization is None:
                return exchange
            with gate.lock:
                if gate.epoch != epoch:
                    # Another thread has logged in meanwhile; its session serves this one too.
                    self._discard(exchange)
                    continue
                self._discard(exchange)
                exchange = self._send(method, place, {**headers, "Authorization": authorization})
                if exchange.answer.status == 401:
                    self._discard(exchange)
                    login = self._logins.login(endpoint)
                    found = login.origin if login else "the environment"
                    raise AccessError(
                        f"{key}: {endpoint.authority} rejects the login found in {found} (401)",
                        hint="check user name and password there",
                    )
                if exchange.answer.status < 400:
                    gate.authorization = authorization
                    gate.eager = "set-cookie" not in exchange.answer.headers
                    gate.epoch += 1
                return exchange
        raise AccessError(f"{key}: {endpoint.authority} forgets its sessions at once", hint="run again later")

    def _send(self, method: str, place: _Place, headers: Mapping[str, str]) -> _Exchange:
        url, endpoint, _ = place
        target, lines = self._request(place, headers)
        asked = self._asked_for(url, lines) if method == "GET" else None
        wire, served = (asked, True) if asked is not None else self._connections.take(endpoint)
        try:
            if asked is None:
                wire.request(method, target, lines)
            head = wire.answer(method)
        except _BROKEN as error:
            self._connections.drop(wire)
            # A server may close a connection that idled; that says nothing about the next one.
            if not (served and isinstance(error, _HUNG_UP)):
                raise unreachable(endpoint, error, self._timeout) from error
            wire, _ = self._connections.take(endpoint, fresh=True)
            try:
                wire.request(method, target, lines)
                head = wire.answer(method)
            except _BROKEN as second:
                self._connections.drop(wire)
                raise unreachable(endpoint, second, self._timeout) from second
        if head.cookies:
            self._logins.remember(url, head.cookies)
        return _Exchange(Answer(head.status, head.headers, without_query(url)), head, wire, endpoint)

    def _request(self, place: _Place, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        url, endpoint, target = place
        lines = {"Host": endpoint.authority, **self._headers, **headers}
        cookies = self._logins.cookies(url, endpoint)
        if cookies:
            lines["Cookie"] = cookies
        proxied = self._connections.through_proxy(endpoint)
        if proxied is not None:
            target = f"http://{endpoint.authority}{target}"
            lines |= proxied
        return target, lines

    def _asked_for(self, url: str, lines: dict[str, str]) -> Wire | None:
        asked = self._asked.pop(url, None)
        if asked is None:
            return None
        if asked[0] == lines:
            return asked[1]
        # Another range, or a session that began meanwhile.
        self._connections.drop(asked[1])
        return None

    def _discard(self, exchange: _Exchange) -> None:
        """Read a short rest so that the connection can be used again; drop it when the rest is long."""
        head, wire = exchange.head, exchange.wire
        left = head.length if head.length is not None and head.length <= _SHORT else None
        try:
            scratch = memoryview(bytearray(left or 0))
            while left:
                count = wire.readinto(scratch[:left])
                left = left - count if count else None
        except (OSError, http.client.HTTPException):
            left = None
        if left == 0 and not head.last:
            self._connections.give(exchange.endpoint, wire)
        else:
            self._connections.drop(wire)


def nobody(host: str) -> Login | None:
    """No login, for no host: what a source passes whose service has a way of its own."""
    del host
    return None


def _decoding(answer: Answer, key: str) -> bool:
    """Whether the body must be decoded. Some servers call an archive's own compression an encoding: that stays."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    return encoding in ("gzip", "x-gzip", "deflate") and not key.lower().endswith(_COMPRESSED_NAMES)
