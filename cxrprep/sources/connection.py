"""Connections to HTTP servers: kept open, shared by threads, droppable all at once.

``http.client`` makes the connections, ``wire`` speaks on them. ``benchmarks/download.py`` measures what comes of it.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from cxrprep.errors import AccessError, SourceUnreachableError, UsageError
from cxrprep.sources.wire import Wire

if TYPE_CHECKING:
    from cxrprep.sources.urls import Endpoint


class Connections:
    """Open connections by endpoint. A thread takes one, uses it alone, and gives it back or drops it."""

    def __init__(self, timeout: float) -> None:
        """``timeout`` is in seconds without a byte."""
        self._timeout = timeout
        self._lock = threading.Lock()
        self._idle: dict[Endpoint, list[Wire]] = {}
        self._busy: set[Wire] = set()
        self._proxies: dict[str, str] | None = None
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def take(self, endpoint: Endpoint, *, fresh: bool = False) -> tuple[Wire, bool]:
        """A connection to ``endpoint``, and whether it has served before; always a new one when ``fresh``.

        Raises ``AccessError`` for a certificate that is not trusted, ``SourceUnreachableError`` for the rest.
        """
        idle = None if fresh else self.idle(endpoint)
        if idle is not None:
            return idle, True
        wire = Wire(self._make(endpoint))
        with self._lock:
            self._busy.add(wire)
        try:
            wire.connect()
        except BaseException as error:
            self.drop(wire)
            if isinstance(error, OSError | http.client.HTTPException):
                raise unreachable(endpoint, error, self._timeout) from error
            raise
        return wire, False

    def idle(self, endpoint: Endpoint) -> Wire | None:
        """A connection to ``endpoint`` that has served before, if one is free. Raises ``SourceUnreachableError``."""
        with self._lock:
            if self._closed:
                raise SourceUnreachableError(f"the connections to {endpoint.authority} were dropped")
            idle = self._idle.get(endpoint)
            if not idle:
                return None
            wire = idle.pop()
            self._busy.add(wire)
            return wire

    def give(self, endpoint: Endpoint, wire: Wire) -> None:
        """Take ``wire`` back, ready for its next request."""
        with self._lock:
            self._busy.discard(wire)
            if not self._closed and wire.clean:
                self._idle.setdefault(endpoint, []).append(wire)
                return
        wire.close()

    def drop(self, wire: Wire) -> None:
        """Close a connection that is in no state to be used again."""
        with self._lock:
            self._busy.discard(wire)
        wire.close()

    def close(self) -> None:
        """Close every connection. A thread that reads from one of them gets an error at once, not a time-out."""
        with self._lock:
            self._closed = True
            idle = [wire for wires in self._idle.values() for wire in wires]
            self._idle.clear()
            busy = list(self._busy)
        for wire in idle:
            wire.close()
        for wire in busy:
            wire.break_off()

    # ---- inside ----

    def _make(self, endpoint: Endpoint) -> http.client.HTTPConnection:
        proxy = self._proxy(endpoint)
        host, port = (proxy.hostname or "", proxy.port or 3128) if proxy else (endpoint.host, endpoint.port)
        if endpoint.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context())
        if proxy:
            connection.set_tunnel(endpoint.host, endpoint.port, headers=_proxy_login(proxy))
        return connection

    def through_proxy(self, endpoint: Endpoint) -> dict[str, str] | None:
        """Headers for a proxy that wants whole addresses (plain HTTP only), or ``None`` when there is none."""
        proxy = self._proxy(endpoint) if endpoint.scheme == "http" else None
        return None if proxy is None else _proxy_login(proxy)

    def _proxy(self, endpoint: Endpoint) -> urllib.parse.SplitResult | None:
        # The environment is asked once: asking for each request costs more than the request.
        if self._proxies is None:
            self._proxies = urllib.request.getproxies()
        url = self._proxies.get(endpoint.scheme) or self._proxies.get("all")
        if not url or urllib.request.proxy_bypass(endpoint.host):
            return None
        return urllib.parse.urlsplit(url if "://" in url else f"http://{url}")

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = _trusted()
            return self._tls


def _trusted() -> ssl.SSLContext:
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    paths = ssl.get_default_verify_paths()
    if not named and not paths.cafile and not (paths.capath and any(os.scandir(paths.capath))):
        import certifi

        named = certifi.where()
    try:
        context = ssl.create_default_context(cafile=named)
    except OSError as error:
        raise UsageError(
            f"the certificates in {named} cannot be read: {error.strerror or error}",
            hint="SSL_CERT_FILE, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names that file",
        ) from error
    # HTTP/1.1 is what is spoken here; a server that could do better should know.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy_login(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    login = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def unreachable(endpoint: Endpoint, error: BaseException, timeout: float) -> AccessError | SourceUnreachableError:
    """The error that says why ``endpoint`` could not be reached, or why its answer broke off."""
    where = endpoint.authority
    if isinstance(error, ssl.SSLCertVerificationError):
        return AccessError(
            f"the certificate of {where} is not trusted: {error.verify_message}",
            hint="behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate",
        )
    if isinstance(error, TimeoutError):
        return SourceUnreachableError(
            f"{where} sent no byte for {timeout:g} s", hint="run again; --timeout SECONDS waits longer"
        )
    if isinstance(error, socket.gaierror):
        return SourceUnreachableError(
            f"the name {endpoint.host} cannot be resolved: {error.strerror}", hint="check the network"
        )
    reason = str(error) or type(error).__name__
    if isinstance(error, http.client.IncompleteRead):
        reason = "the answer ended before its end"
    elif isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.RemoteDisconnected):
        reason = f"no valid HTTP ({type(error).__name__})"
    return SourceUnreachableError(f"the connection to {where} broke: {reason}", hint="run again")
