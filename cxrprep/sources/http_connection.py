"""One HTTP connection: a libcurl handle that sends a request, judges its head, and hands out its body piece by piece.

A handle serves one origin and one thread at a time, so that neither a login nor a cookie can get to another host. It
belongs to a multi handle of its own, which is what lets the reader ask for bytes when it wants them; in alternated
runs of 2,000 to 5,000 files on loopback this was as fast as blocking calls (0.9 to 1.2 times, within the noise).
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pycurl

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.base import ConnectionState
from cxrprep.sources.http_response import HttpResponse
from cxrprep.sources.network_errors import TIMED_OUT, broke, connect_seconds, from_libcurl, no_byte
from cxrprep.sources.proxies import Proxy, proxy_for
from cxrprep.sources.trust import ca_bundle
from cxrprep.sources.urls import Endpoint, redirected, without_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from cxrprep.credentials.files import Login

_SLICE_SECONDS: Final = 0.1
# A line that is fast enough fills the reader's buffer; on a slow one no byte waits longer than this.
_COLLECT_SECONDS: Final = 0.05
# measured: 0.83 -> 0.62 s of CPU time for 2,000 files of 90 KB, 16 threads, against 256 KiB.
_BUFFER: Final = 1 << 16
# What is left of an answer is read for so long and so far, so that its connection serves again.
_SHORT: Final = 65_536
_REST_SECONDS: Final = 1.0
# Where Linux keeps the number of bytes that a connection has brought, within struct tcp_info.
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_BYTES_RECEIVED_AT: Final = 128
_RESPONSE_APART_FROM_CONNECT: Final = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl has no name for
_BLANK: Final = (b"\r\n", b"\n")
# With a blank before its colon libcurl does not heed it, and hands the framing of chunks over as bytes of the file.
_UNREAD: Final = re.compile(rb"transfer-encoding[ \t]+:", re.IGNORECASE)
_LOCATION: Final = re.compile(rb"location[ \t]*:\s*(\S.*?)\s*$", re.IGNORECASE)
_ENDS_IDLE: Final = 408
_APPLICATION_DATA, _ALERT_BYTES = 0x17, 24


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, whatever the address: ``byte_range`` as in ``Range``, the head alone, with which login.

    ``headers`` are the lines beside those that libcurl writes. ``digest`` says that the server wants Digest
    authentication of ``login``.
    """

    headers: tuple[str, ...] = ()
    byte_range: str | None = None
    head: bool = False
    login: Login | None = None
    digest: bool = False


def _new_share() -> Any:
    share = pycurl.CurlShare()
    for kind in (pycurl.LOCK_DATA_COOKIE, pycurl.LOCK_DATA_DNS, pycurl.LOCK_DATA_SSL_SESSION):
        share.setopt(pycurl.SH_SHARE, kind)
    return share


@dataclass(slots=True)
class ConnectionSettings:
    """What the connections of one client have in common."""

    timeout: float
    user_agent: str
    share: Any = field(default_factory=_new_share)
    closed: threading.Event = field(default_factory=threading.Event)
    # Whether connections serve again, and the longest that an answer took over one that did, in seconds.
    reuse: bool = True
    slowest: float = 0.0
    # Whether libcurl heeds each length that was stated.
    framed: bool = True


class AskAgainError(SourceUnreachableError):
    """Raise where a new connection may bring the right answer: this one was there before, or to an old nonce.

    Do not raise over a connection that was made for this reason.
    """


class Handle:
    """A handle of libcurl for one origin, and what it brings: lines of heads, and pieces of the body."""

    def __init__(self, options: Mapping[int, object]) -> None:
        # libcurl's callbacks are these lists' own.
        # measured: 2.31 -> 2.19 s of CPU time in the worker for 4,000 files of 90 KB, against functions of Python.
        self.lines: list[bytes] = []
        self.pieces: list[bytes] = []
        self.url, self.request = "", Request()
        self.curl = pycurl.Curl()
        _set_options(self.curl, options)
        _set_request(self.curl, self.request)
        self.curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self.pieces.append)

    def prepare(self, url: str, request: Request) -> None:
        """Let the next transfer be ``request``, to ``url``."""
        self.lines.clear()
        self.pieces.clear()
        self.url = url
        self.curl.setopt(pycurl.URL, url)
        if request != self.request:
            self.request = request
            _set_request(self.curl, request)

    def answer(self, status: int) -> HttpResponse:
        """Status and headers of the last answer, without where it redirects to."""
        return HttpResponse(status, read_head(last_head(self.lines)), without_query(self.url))


class HttpConnection:
    """One connection to ``endpoint``. ``send``, then ``readinto`` until 0; then it may serve again.

    Raises ``UsageError`` for certificates or a proxy that the environment names in vain.
    """

    def __init__(self, endpoint: Endpoint, settings: ConnectionSettings) -> None:
        self.endpoint = endpoint
        self.state = ConnectionState()
        self.served = False
        self.status = 0
        self._settings = settings
        self._proxy = proxy_for(endpoint)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 1)
        self._handle = Handle(handle_options(endpoint, settings))
        self._curl, self._lines, self._pieces = self._handle.curl, self._handle.lines, self._handle.pieces
        self._code: int | None = None
        self._handshake_us = 0
        self._socket = -1
        self._multiplexed = self.running = False
        self._has_proxy_login = self._proxy is not None and self._proxy.has_login
        self._tls = uses_tls(endpoint, self._proxy)

    # ---- one request ----

    def send(self, url: str, request: Request) -> HttpResponse:
        """Send ``request`` to ``url`` and wait for the head of its answer.

        Raises ``SourceUnreachableError``, ``AccessError`` for a certificate or a proxy's login, ``AskAgainError``.
        """
        self._start(url, request)
        while self.running and not self._has_head():
            self._turn(_SLICE_SECONDS)
        if not self._has_head():
            raise self._failure()
        made = bool(self._curl.getinfo(pycurl.NUM_CONNECTS))
        if not made and self._was_there:
            self._soil()
        # A balancer that ends an idle connection says 408, which may cross the next request. A nonce of Digest may end
        # without a word of that, or belong to another node; a new handle asks for its own.
        if (not made and (self._was_there or self.status == _ENDS_IDLE)) or (
            self._asked_before and self.status == 401 and request.digest
        ):
            raise AskAgainError(f"{self.endpoint.authority} answered before it was asked", hint="run again")
        if made:
            self._handshake_us = self._curl.getinfo(pycurl.CONNECT_TIME_T) - self._curl.getinfo(
                pycurl.NAMELOOKUP_TIME_T
            )
            self._multiplexed = self._curl.getinfo(pycurl.INFO_HTTP_VERSION) > pycurl.CURL_HTTP_VERSION_1_1
            self.state = ConnectionState() if self.served else self.state
        else:
            self._settings.slowest = max(self._settings.slowest, self._answered_at - self._sent_at)
        return self._response()

    def _start(self, url: str, request: Request) -> None:
        """Send ``request`` as far as that goes without waiting."""
        self._handle.prepare(url, request)
        self._head: Sequence[bytes] = ()
        self.status, self._code = 0, None
        self._wording = ""
        self._left: int | None = None
        self._silent = 0.0
        self._sent_at, self._answered_at = time.perf_counter(), 0.0
        # Without TLS nothing can hide behind the socket: libcurl closes a connection that brought too much at once.
        self._had = _bytes_received(self._socket) if self._tls and self.served and not self._multiplexed else None
        self._was_there, self._asked_before = False, self.served
        self._multi.add_handle(self._curl)
        self.running = True
        self._turn()

    def _has_head(self) -> bool:
        """Whether the head of the final answer is here; what may come before it are interim ones and a challenge."""
        if not self._head and (head := last_head(self._lines)):
            status = self._curl.getinfo(pycurl.RESPONSE_CODE)
            # A Digest challenge is answered by libcurl within the same transfer, and a proxy's.
            asked = (status == 401 and self._handle.request.digest) or (status == 407 and self._has_proxy_login)
            if status >= 200 and not (asked and self.running):
                self._head, self.status = head, status
        return bool(self._head)

    def _response(self) -> HttpResponse:
        if any(map(_UNREAD.match, self._head)):
            raise broke(self.endpoint, self._proxy, "not valid HTTP (a blank before a colon)")
        response = HttpResponse(self.status, read_head(self._head), without_query(self._handle.url))
        if self._curl.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T) < 0 and not self._handle.request.head:
            # Some lengths libcurl does not heed: behind a blank before the colon, beside the transfer coding identity.
            self._left = response.content_length
            self._settings.framed &= self._left is None
        if 300 <= self.status < 400 and (named := next(filter(None, map(_LOCATION.match, self._head)), None)):
            # libcurl would say where it leads when the body is over, which may never be.
            return replace(response, location=redirected(self._handle.url, named[1].decode("latin-1")))
        return response

    def _came_before_its_request(self) -> bool:
        """Whether the answer lay within libcurl or OpenSSL when the request went out, unseen by a look at the socket.

        No byte has come over the connection since; where the system does not count them, no answer is quicker than a
        quarter of a handshake.
        """
        if self._had is None or self._had >= 0:
            return self._had is not None and _bytes_received(self._socket) == self._had
        return (self._answered_at - self._sent_at) * 4e6 < self._handshake_us

    # ---- its body ----

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; 0 at the end of the body. Raises as ``send``."""
        if self._left is not None:
            buffer = buffer[: self._left]
        count, room, deadline = self._drain(buffer), len(buffer), 0.0
        while self.running and count < room:
            seconds = _SLICE_SECONDS
            if count:
                now = time.monotonic()
                deadline = deadline or now + _COLLECT_SECONDS
                seconds = deadline - now
                if seconds <= 0:
                    break
            self._turn(seconds)
            count += self._drain(buffer[count:])
        if not count and self._code:
            raise self._failure()
        if self._left is not None:
            self._left -= count
        return count

    def peek(self) -> bytes:
        """The beginning of the body, all of which is still to be read; ``b""`` for none. Raises as ``send``."""
        try:
            while self.running and not self._pieces:
                self._turn(_SLICE_SECONDS)
        except BaseException:
            self.close()
            raise
        return b"".join(self._pieces)[:1024]

    def _drain(self, buffer: memoryview) -> int:
        """Move what has come into ``buffer``; the bytes that found room there."""
        pieces, count, room = self._pieces, 0, len(buffer)
        while pieces and count < room:
            piece = pieces[0][: room - count]
            buffer[count : count + len(piece)] = piece
            count += len(piece)
            pieces[:1] = [pieces[0][len(piece) :]] if len(piece) < len(pieces[0]) else []
        return count

    @property
    def open(self) -> bool:
        """Whether bytes of the body may still come."""
        return (self.running or bool(self._pieces)) and self._left != 0

    @property
    def complete(self) -> bool:
        """Whether the body was read to its end, and was whole."""
        return not (self.running or self._pieces or self._code)

    def finish(self) -> bool:
        """Read a short rest away; whether the connection may serve again."""
        left, deadline = _SHORT, time.monotonic() + _REST_SECONDS
        try:
            # Where libcurl does not know of the end it does not come.
            while self._left is None and self.open and left > 0 and (seconds := deadline - time.monotonic()) > 0:
                left -= sum(map(len, self._pieces))
                self._pieces.clear()
                if self.running:
                    self._turn(seconds)
        except SourceUnreachableError:
            return False
        return self.complete

    def is_clean(self) -> bool:
        """Whether nothing has arrived since the last answer: what has would be taken for the next one (RFC 9112, 9.2).

        libcurl since 8.22 looks at most once a second.
        """
        if self._socket < 0 or (waits := _first_bytes(self._socket)) is None:
            return not self.state.dirty
        if not self._multiplexed and _is_answer(waits, tls=self.endpoint.scheme == "https"):
            self._soil()
        return False

    def _soil(self) -> None:
        self.state.dirty, self._settings.reuse = True, False

    def close(self) -> None:
        """Close the connection."""
        self._curl.close()
        if self._code == TIMED_OUT:
            # It would wait for a name server that does not answer.
            threading.Thread(target=self._multi.close, daemon=True).start()
        else:
            self._multi.close()

    # ---- libcurl ----

    def _turn(self, seconds: float = 0.0) -> None:
        """Wait so long for the network at most, and take what has come. Raises when it was silent for too long."""
        if seconds > 0:
            # Time that the reader takes does not count.
            self._silent += wait_for(self._multi, min(seconds, _SLICE_SECONDS))
            if self._silent > self._settings.timeout and self._curl.getinfo(pycurl.PRETRANSFER_TIME_T):
                raise no_byte(self.endpoint, self._proxy, self._settings.timeout)
        if self._settings.closed.is_set():
            raise SourceUnreachableError(f"the connections to {self.endpoint.authority} were dropped")
        had = len(self._lines) + len(self._pieces)
        _, running = self._multi.perform()
        if len(self._lines) + len(self._pieces) > had:
            self._silent = 0.0
            if not self._answered_at:
                self._answered_at = time.perf_counter()
                self._was_there = self._came_before_its_request()
        if not running:
            self.running = False
            _, _, failed = self._multi.info_read()
            self._code, self._wording = failed[0][1:] if failed else (0, "")
            self._socket = self._curl.getinfo(pycurl.ACTIVESOCKET)
            if self.served and not self._code and self._socket < 0 and self._has_head() and self._closed_it():
                # libcurl closes what brought more than the answer.
                self._soil()
            self._multi.remove_handle(self._curl)
            self.served = True

    def _closed_it(self) -> bool:
        """Whether libcurl closed a connection that the server leaves open, by what it says (RFC 9112, 9.3)."""
        if self._curl.getinfo(pycurl.NUM_CONNECTS):
            return False
        headers = read_head(self._head)
        framed = "content-length" in headers or "transfer-encoding" in headers
        closing = "close" in headers.get("connection", "").lower()
        return not self._multiplexed and framed and not closing and not self._head[0].startswith(b"HTTP/1.0")

    def _failure(self) -> Exception:
        return from_libcurl(
            self._curl, self._code or 52, self._wording, self.endpoint, self._proxy, timeout=self._settings.timeout
        )


def wait_for(multi: Any, seconds: float) -> float:
    """Wait until something can be done for the transfers of ``multi``, no longer than asked; the seconds it took."""
    due = multi.timeout()
    if due == 0:
        # Bytes wait within libcurl or OpenSSL, where no socket shows them.
        return 0.0
    began = time.monotonic()
    ready = multi.select(min(seconds, due / 1000) if due > 0 else seconds)
    if ready <= 0 and time.monotonic() - began < 0.001:
        # There is no socket yet.
        time.sleep(0.001)
    return time.monotonic() - began


def uses_tls(endpoint: Endpoint, proxy: Proxy | None) -> bool:
    """Whether there is a certificate to check on the way."""
    return "https" in (endpoint.scheme, proxy.url[:5] if proxy else "")


def handle_options(endpoint: Endpoint, settings: ConnectionSettings) -> dict[int, object]:
    """What is set once for a handle of libcurl that serves ``endpoint``.

    Raises ``UsageError`` for certificates or a proxy that the environment names in vain.
    """
    proxy = proxy_for(endpoint)
    # PROXY is always given, so that libcurl reads no variable itself; so is netrc, which stays off.
    options: dict[int, object] = {
        pycurl.NOSIGNAL: 1,
        pycurl.SHARE: settings.share,
        pycurl.COOKIEFILE: "",
        pycurl.PROXY: proxy.url if proxy else "",
        pycurl.NOPROXY: "",
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.USERAGENT: settings.user_agent,
        pycurl.BUFFERSIZE: _BUFFER,
        pycurl.CONNECTTIMEOUT_MS: int(1000 * connect_seconds(settings.timeout)),
        # Asked without a login first, a proxy says which of the two it wants.
        pycurl.PROXYAUTH: pycurl.HTTPAUTH_BASIC | pycurl.HTTPAUTH_DIGEST,
        _RESPONSE_APART_FROM_CONNECT: 1,
    }
    if uses_tls(endpoint, proxy):
        options |= {pycurl.CAINFO: ca_bundle(), pycurl.PROXY_CAINFO: ca_bundle(), pycurl.CAPATH: None}
    return options


def _set_options(curl: Any, options: Mapping[int, object]) -> None:
    """Set ``options`` of a handle; ``None`` unsets one."""
    for option, value in options.items():
        if value is None:
            curl.unsetopt(option)
        else:
            curl.setopt(option, value)


def _set_request(curl: Any, request: Request) -> None:
    login = request.login
    # Never reset(): it would forget the callbacks of an open connection.
    _set_options(
        curl,
        {
            pycurl.RANGE: request.byte_range,
            pycurl.NOBODY: int(request.head),
            **({} if request.head else {pycurl.HTTPGET: 1}),
            pycurl.HTTPHEADER: request.headers,
            pycurl.USERNAME: login.user.encode() if login else None,
            pycurl.PASSWORD: login.password.reveal().encode() if login else None,
            pycurl.HTTPAUTH: pycurl.HTTPAUTH_DIGEST if request.digest else pycurl.HTTPAUTH_BASIC,
        },
    )


def last_head(lines: Sequence[bytes]) -> Sequence[bytes]:
    """The lines of the last whole head: interim ones and challenges come before it, trailers may come behind it."""
    begins = [number for number, line in enumerate(lines) if line[:5] == b"HTTP/"]
    head = lines[begins[-1] :] if begins else []
    return head[: next((number for number, line in enumerate(head) if line in _BLANK), 0)]


def read_head(lines: Sequence[bytes]) -> dict[str, str]:
    """The headers in the lines of a head: names in lower case, repeated ones joined by commas."""
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class _Borrowed(socket.SocketType):
    """A socket of libcurl's, which closes it. This type beneath ``socket.socket`` costs half of what that does."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def _bytes_received(descriptor: int) -> int:
    """The bytes that have come over this connection; -1 where the system does not say."""
    if _TCP_INFO is None or descriptor < 0:
        return -1
    try:
        with _Borrowed(descriptor) as peer:
            info = peer.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_RECEIVED_AT + 8)
    except OSError:
        # libcurl has closed it meanwhile, and asks over another one.
        return -1
    return int.from_bytes(info[_BYTES_RECEIVED_AT:], sys.byteorder) if len(info) == _BYTES_RECEIVED_AT + 8 else -1


def _first_bytes(descriptor: int) -> bytes | None:
    """What has come over the connection and was not read; ``None`` for nothing, no bytes for its end."""
    try:
        with _Borrowed(descriptor) as peer:
            # libcurl's sockets never wait.
            return peer.recv(16, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _is_answer(data: bytes, *, tls: bool) -> bool:
    """Whether what came is the beginning of an answer, which nobody asked for, and not of the connection's end."""
    if tls:
        # Of TLS 1.3 the goodbye is an encrypted record too, a very short one.
        return len(data) >= 5 and data[0] == _APPLICATION_DATA and int.from_bytes(data[3:5], "big") > _ALERT_BYTES
    # How balancers end a connection that idled: no answer to anything.
    return bool(data) and not (data.startswith(b"HTTP/") and data[8:12] == b" 408")
