"""Errors of the network: why a host was not reached, or why its answer broke off, with what was tried."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import CxrprepError, ProxyOrCertificateError, SourceUnreachableError, UsageError
from cxrprep.sources.proxies import Proxy, proxy_for

if TYPE_CHECKING:
    from cxrprep.sources.urls import Endpoint

TIMED_OUT: Final = 28
# Four SYNs have gone out by then. Whoever waits for a network that is not there hears so within ten seconds.
CONNECT_SECONDS: Final = 8.0
_REASONS: Final = {
    1: "not valid HTTP",
    8: "not valid HTTP",
    18: "the answer ended before its end",
    23: "the answer cannot be decoded",
    43: "not valid HTTP",
    52: "the server closed the connection without an answer",
    61: "the answer has a coding that is not known here",
    92: "the server broke the HTTP/2 stream off",
    100: "not valid HTTP (its headers are too long)",
}
_WEIRD: Final = 8
_CERTIFICATE: Final = 60
_OUT_OF_TIME: Final = (9, 10)
# Of names and of addresses; 1 where libcurl judged the name itself.
_OTHER_NAME: Final = (1, 62, 64)
_RECEIVED: Final = 56
_TLS: Final = (35, 58, 59, 66, 83, 91)
# Who speaks another protocol, or another HTTP, still does so in two minutes; once it may be a stray byte.
_NO_HTTP: Final = (1, 8, 43, 61, 100)
FEW_TRIES: Final = 3
# How http.client words what a proxy answers to CONNECT.
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_BY_SOCKS: Final = 97
# CURLproxycode: no login that it takes, or not this one (RFC 1928, 3, RFC 1929); not allowed by its rules (1928, 6).
_SOCKS_LOGIN, _SOCKS_FORBIDS = (12, 33), 23
_WANTS_LOGIN: Final = 407
# Refusals that pass: too slow, too early, too many.
_PASSING: Final = (408, 425, 429)
_UNREACHED: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


class NotConnectedError(SourceUnreachableError):
    """Raise when no connection to ``endpoint`` came about. Do not raise when one was made and broke."""

    endpoint: Endpoint | None = None


def connect_seconds(timeout: float) -> float:
    """How long a connection may take to come about, where ``timeout`` is how long it may be silent."""
    return min(CONNECT_SECONDS, timeout)


def not_trusted(where: str, found: int) -> ProxyOrCertificateError:
    """The error for a certificate that OpenSSL has not accepted; ``found`` is what it found (X509_V_ERR)."""
    if found in _OUT_OF_TIME:
        reason = "it has ended, or is not valid yet"
        hint = "check date and time of this machine; if they are right, those who run it have to renew it"
    elif found in _OTHER_NAME:
        reason, hint = "it is for another name", "check the address, or tell those who run it"
    else:
        reason = "no authority that is trusted has signed it"
        hint = "behind a proxy that inspects traffic, set SSL_CERT_FILE (or REQUESTS_CA_BUNDLE) to its certificate"
    return ProxyOrCertificateError(f"the certificate of {where} is not trusted: {reason}", hint=hint)


def no_byte(endpoint: Endpoint, proxy: Proxy | None, timeout: float) -> SourceUnreachableError:
    """The error for a connection that has gone silent."""
    return SourceUnreachableError(
        f"{_way(endpoint, proxy)} sent no byte for {timeout:g} s", hint="run again; --timeout SECONDS waits longer"
    )


def no_connection(endpoint: Endpoint, proxy: Proxy | None, tried: str) -> NotConnectedError:
    """The error for a host that no connection leads to; ``tried`` is what was done and what came of it."""
    check = (
        f"check {proxy.shown}, which the environment names as the proxy" if proxy is not None else "check the network"
    )
    error = NotConnectedError(f"no connection to {_way(endpoint, proxy)}: {tried}", hint=f"{check}; then run again")
    error.endpoint = endpoint
    return error


def _no_answer(endpoint: Endpoint, proxy: Proxy | None, who: str, timeout: float) -> NotConnectedError:
    return no_connection(endpoint, proxy, f"{who} does not answer within {connect_seconds(timeout):g} s")


def broke(endpoint: Endpoint, proxy: Proxy | None, reason: str) -> SourceUnreachableError:
    """The error for a connection that ended too early, or spoke no HTTP."""
    return SourceUnreachableError(f"the connection to {_way(endpoint, proxy)} broke: {reason}", hint="run again")


def wants_login(proxy: Proxy | None, reason: str = "407") -> ProxyOrCertificateError:
    """The error for a proxy that lets nobody through without a login, or with this one."""
    if proxy is not None and proxy.has_login:
        return ProxyOrCertificateError(
            f"the proxy {proxy.shown} rejects the login that the environment names for it ({reason})",
            hint="check user name and password in HTTPS_PROXY and HTTP_PROXY",
        )
    return ProxyOrCertificateError(
        f"{_name_of(proxy)} wants a login ({reason})",
        hint="write it into HTTPS_PROXY and HTTP_PROXY, before the host: USER:PASSWORD@HOST:PORT",
    )


def _not_let_through(endpoint: Endpoint, proxy: Proxy | None, status: int) -> CxrprepError:
    """The error for a proxy that answers CONNECT with a status of 300 and above."""
    if status == _WANTS_LOGIN:
        return wants_login(proxy)
    if status >= 500 or status in _PASSING:
        return no_connection(endpoint, proxy, f"the proxy answered {status}")
    return _refuses_host(endpoint, proxy, str(status))


def _refuses_host(endpoint: Endpoint, proxy: Proxy | None, reason: str) -> ProxyOrCertificateError:
    return ProxyOrCertificateError(
        f"{_name_of(proxy)} refuses the way to {endpoint.authority} ({reason})",
        hint=f"ask those who run it to let {endpoint.host} through; no_proxy={endpoint.host} goes there without it",
    )


def _name_of(proxy: Proxy | None) -> str:
    return "the proxy" if proxy is None else f"the proxy {proxy.shown}"


def _way(endpoint: Endpoint, proxy: Proxy | None) -> str:
    return endpoint.authority if proxy is None else f"{endpoint.authority} through {_name_of(proxy)}"


def from_libcurl(
    curl: Any, code: int, wording: str, endpoint: Endpoint, proxy: Proxy | None, *, timeout: float
) -> CxrprepError:
    """The error that libcurl's result ``code`` means; libcurl's own text is mostly not shown, it may hold a password.

    Args:
        curl: the handle.
        code: CURLcode, see https://curl.se/libcurl/c/libcurl-errors.html.
        wording: libcurl's own text, shown where it is about a line of an answer's head.
        endpoint: where the request went.
        proxy: the proxy on the way.
        timeout: the seconds without a byte that are borne.

    Returns:
        The error, not raised.
    """
    import pycurl

    # The proxy's answer to CONNECT, 0 for none.
    connect_status = curl.getinfo(pycurl.HTTP_CONNECTCODE)
    if connect_status >= 300:
        # tinyproxy says 401 to a wrong login of its own.
        return _not_let_through(endpoint, proxy, _WANTS_LOGIN if connect_status == 401 else connect_status)
    if code == TIMED_OUT:
        # Of the time to connect: no other is set.
        found = curl.getinfo(pycurl.PRIMARY_IP) or "its address"
        if proxy is not None:
            found = "the host" if connect_status else "the proxy"
        named = curl.getinfo(pycurl.NAMELOOKUP_TIME_T)
        return _no_answer(endpoint, proxy, found if named else "the name server (DNS)", timeout)
    if code == 5:
        return no_connection(endpoint, proxy, "the name of the proxy cannot be resolved (DNS)")
    if code == 6:
        return no_connection(endpoint, proxy, f"the name {endpoint.host} cannot be resolved (DNS)")
    if code == _BY_SOCKS:
        refusal = curl.getinfo(pycurl.PROXY_ERROR)
        if refusal in _SOCKS_LOGIN:
            return wants_login(proxy, "SOCKS")
        if refusal == _SOCKS_FORBIDS:
            return _refuses_host(endpoint, proxy, "SOCKS")
        return no_connection(endpoint, proxy, "the SOCKS proxy cannot reach it, or is none")
    if code == 7:
        address = curl.getinfo(pycurl.PRIMARY_IP)
        at = f"{address} refuses it" if address else "it is refused or cannot be reached"
        return no_connection(endpoint, proxy, at)
    if code == _CERTIFICATE:
        return not_trusted(endpoint.authority, curl.getinfo(pycurl.SSL_VERIFYRESULT))
    if code == 77:
        return UsageError("the trusted certificates cannot be read", hint="SSL_CERT_FILE names another file")
    if code == _RECEIVED and not curl.getinfo(pycurl.OS_ERRNO) and endpoint.scheme == "http":
        # Chunks or a head that cannot be read. Over TLS it may also be a connection that ended without a word.
        code = _NO_HTTP[0]
    reason = f"TLS failed (libcurl {code})" if code in _TLS else f"connection reset (libcurl {code})"
    error = broke(endpoint, proxy, _REASONS.get(code, reason) + (f" ({wording})" if wording and code == _WEIRD else ""))
    error.tries = FEW_TRIES if code in (*_TLS, *_NO_HTTP) else None
    if code in _NO_HTTP:
        others = "try another mirror" if proxy is None else f"check the proxy {proxy.shown}, try another mirror"
        error.hint = f"it may do so each time: {others}, or tell those who run {endpoint.host}"
    return error


def from_exception(endpoint: Endpoint, error: BaseException, timeout: float) -> CxrprepError:
    """The same for the exception of another client, as the services' own use it."""
    from urllib3.exceptions import ConnectTimeoutError

    where = endpoint.authority
    if isinstance(error, CxrprepError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return not_trusted(where, error.verify_code)
    proxy = proxy_for(endpoint)
    if isinstance(error, ConnectTimeoutError):
        return _no_answer(endpoint, proxy, "its address" if proxy is None else "the proxy", timeout)
    if isinstance(error, TimeoutError):
        return no_byte(endpoint, proxy, timeout)
    answered = _TUNNEL.search(str(error))
    if answered is not None:
        return _not_let_through(endpoint, proxy, int(answered[1]))
    if isinstance(error, socket.gaierror):
        named = f"the name {endpoint.host}" if proxy is None else "the name of the proxy"
        return no_connection(endpoint, proxy, f"{named} cannot be resolved (DNS)")
    if isinstance(error, ConnectionRefusedError) or getattr(error, "errno", None) in _UNREACHED:
        return no_connection(endpoint, proxy, "it is refused or cannot be reached")
    return broke(endpoint, proxy, str(error) or type(error).__name__)
