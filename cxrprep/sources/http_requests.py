"""Many HTTP requests of one thread for small files of known digest: libcurl serves all connections at once.

Threads that wait for each other's turn at the interpreter cost more than the small files that they fetch. What is more
than a file of status 200 (a redirect, a login, an error, a long body) is left to ``HttpClient.open``, which asks again.
Nothing here looks for answers that nobody asked for: the digest of each file tells.
measured: 0.68 of the CPU time of 12,000 files of 90 KB and 16 connections, against a handle of libcurl's multi
interface for each connection, on ``many`` of benchmarks/download.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pycurl

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.base import SMALL_FILE, Received
from cxrprep.sources.http_client import HttpClient, header_lines
from cxrprep.sources.http_connection import Handle, Request, handle_options, wait_for
from cxrprep.sources.http_response import refusal
from cxrprep.sources.urls import Endpoint, split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cxrprep.model import RemoteFile

_OVERLOADED: Final = (429, 503)
_SLICE_SECONDS: Final = 0.1


class HttpRequests:
    """Requests of one thread through ``client``, to one endpoint; ``close`` drops what is under way.

    ``refusal`` is the last answer that asks all to wait, until it is taken.
    """

    def __init__(self, client: HttpClient, address: Callable[[RemoteFile], tuple[str, Mapping[str, str]]]) -> None:
        """Nothing is asked yet; ``address`` says where a file is, and which headers its own host gets."""
        self._client = client
        self._address = address
        self._endpoint: Endpoint | None = None
        self._multi: Any = None
        self._idle: list[Handle] = []
        self._under_way: dict[object, tuple[Handle, RemoteFile]] = {}
        self._finished = self._told = 0
        self._renew = False
        self.refusal: SourceUnreachableError | None = None

    @property
    def ready(self) -> bool:
        """Whether requests may be sent: not while answers have to be waited for that a fault may have mixed up."""
        return not self._renew or not self._under_way

    def ask(self, file: RemoteFile) -> bool:
        """Send a request for the whole of ``file``; ``False`` for what ``open`` has to ask for.

        To be called when ``ready``. Raises ``UsageError`` for certificates or a proxy that the environment names in
        vain.
        """
        if not self._client.settings.framed:
            return False
        url, private = self._address(file)
        endpoint, target = split_url(url)
        if endpoint != self._endpoint or self._renew:
            if self._under_way:
                return False
            self._begin(endpoint)
        handle = self._idle.pop() if self._idle else Handle(self._options)
        session = self._session
        login = session.login if session.with_every_request else None
        handle.prepare(f"{self._origin}{target}", Request(header_lines(private), login=login, digest=session.digest))
        self._multi.add_handle(handle.curl)
        self._under_way[handle.curl] = handle, file
        return True

    def send(self) -> None:
        """Let requests go out now, and not when answers are waited for."""
        self._multi.perform()

    def responses(self) -> list[Received]:
        """Wait a moment; the answers that have come."""
        multi = self._multi
        found: list[Received] = []
        deadline = time.monotonic() + _SLICE_SECONDS
        while True:
            multi.perform()
            _, done, failed = multi.info_read()
            found += map(self._answer, done)
            found += (self._answer(curl, failed=True) for curl, _, _ in failed)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            wait_for(multi, left)

    def moved(self) -> int:
        """Bytes that have come since this was asked last."""
        came = self._finished + sum(sum(map(len, handle.pieces)) for handle, _ in self._under_way.values())
        told, self._told = self._told, max(came, self._told)
        return self._told - told

    def wrong(self) -> None:
        """The bytes of an answer were not those that were asked for: all connections are closed."""
        self._renew = True

    def close(self) -> None:
        """Drop what is under way."""
        if self._multi is not None:
            for handle in (*(handle for handle, _ in self._under_way.values()), *self._idle):
                handle.curl.close()
            self._multi.close()
        self._under_way.clear()
        self._idle.clear()
        self._multi = None

    # ---- inside ----

    def _begin(self, endpoint: Endpoint) -> None:
        self.close()
        self._multi = pycurl.CurlMulti()
        # A connection for each request: mirrors limit the rate of one.
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._endpoint, self._renew = endpoint, False
        self._origin = f"{endpoint.scheme}://{endpoint.authority}"
        self._session = self._client.session(endpoint)
        timeout = self._client.settings.timeout
        self._options = handle_options(endpoint, self._client.settings) | {
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.MAXFILESIZE: SMALL_FILE,
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: max(int(timeout), 1),
        }

    def _answer(self, curl: Any, *, failed: bool = False) -> Received:
        self._multi.remove_handle(curl)
        handle, file = self._under_way.pop(curl)
        data = b"".join(handle.pieces)
        self._finished += 0 if failed else len(data)
        status = 0 if failed else curl.getinfo(pycurl.RESPONSE_CODE)
        answer = None
        if status == 200:
            answer = Received(file, data, file.validator or _validator(handle, len(data)))
        elif status in _OVERLOADED:
            error = refusal(handle.answer(status), file.key)
            self.refusal = error if isinstance(error, SourceUnreachableError) else None
        handle.pieces.clear()
        self._idle.append(handle)
        return answer or Received(file, None, None)


def _validator(handle: Handle, size: int) -> str | None:
    """See ``HttpResponse.validator``. A plain strong ETag is found without reading the whole head."""
    tags = [line for line in handle.lines if line[:5] in (b"ETag:", b"etag:")]
    tag = tags[0][5:].strip() if len(tags) == 1 else b""
    return tag.decode("latin-1") if tag.startswith(b'"') else handle.answer(200).validator(size)
