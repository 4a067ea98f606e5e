"""Proxy settings from the environment: one reading for libcurl and for the requests sessions of SDKs.

``http_proxy``, ``https_proxy`` and ``all_proxy`` in either case, and ``no_proxy``: hosts, suffixes, address ranges
(10.0.0.0/8, fd00::/8, 192.168.*), each with or without a port, and ``*``. HTTP and TLS proxies, SOCKS4 and SOCKS5.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import sys
import urllib.parse
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.sources.urls import Endpoint, ascii_host

if TYPE_CHECKING:
    from collections.abc import Mapping


# Where nothing is said, requests and wget take the port of the scheme; libcurl takes 1080 for all.
_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# A name, an address or a range, and a port; of IPv6 with a port in brackets.
_EXCEPTION: Final = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*|[^:]*:[^:]*:.*)(?::(?P<port>\d+))?")
_VARIABLES: Final = {"http": "http_proxy", "https": "https_proxy", "all": "all_proxy"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: its whole address, login included (never shown), and as it may be shown."""

    url: str
    shown: str

    @property
    def has_login(self) -> bool:
        """Whether a user name was given."""
        return "@" in self.url

    def __repr__(self) -> str:
        """Without the login."""
        return f"Proxy({self.shown!r})"


def proxy_for(endpoint: Endpoint) -> Proxy | None:
    """The proxy on the way to ``endpoint``; ``None`` for a direct connection.

    Raises ``UsageError`` for a variable whose value is no address; the message holds nothing of the value.
    """
    return _proxy(endpoint, tuple(sorted(_known().items())))


@functools.lru_cache(maxsize=256)
def _proxy(endpoint: Endpoint, known: tuple[tuple[str, str], ...]) -> Proxy | None:
    # The environment is read anew each time, and taken apart once. measured: 97 us of CPU for a proxy that is named,
    # and 0.3 us (medians of 9 alternating runs of 3,000 calls on a busy machine).
    proxies = dict(known)
    kind = next((kind for kind in (endpoint.scheme, "all") if proxies.get(kind)), None)
    if kind is None or _bypassed(endpoint, proxies.get("no", "")):
        return None
    return _parsed(proxies[kind], _VARIABLES[kind])


def _known() -> Mapping[str, str]:
    """What the environment says, and on macOS and Windows the system."""
    if sys.platform == "linux" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return {}
    # With HTTP, mail and TLS that it brings, a tenth of what a download loads.
    import urllib.request

    return urllib.request.getproxies()


def _bypassed(endpoint: Endpoint, text: str) -> bool:
    """Whether ``no_proxy`` names ``endpoint``, in any of the forms that curl, wget, requests, Go and Java read.

    A host, with what lies below it (``example.org``, ``.example.org``, ``*.example.org``), an address, a range of them
    (``10.0.0.0/8``, ``192.168.*``), each with or without a port, and ``*``.
    """
    if not text:
        # The system's own exceptions (macOS, Windows).
        import urllib.request

        return bool(urllib.request.proxy_bypass(endpoint.host))
    return any(_names(entry.lower(), endpoint) for entry in re.split(r"[,;\s]+", text))


def _names(entry: str, endpoint: Endpoint) -> bool:
    found = _EXCEPTION.fullmatch(entry)
    if found is None or (found["port"] and int(found["port"]) != endpoint.port):
        return False
    name, host = found["name"].strip("[]"), endpoint.host.lower().rstrip(".")
    if name == "*":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # What is no name excepts nothing.
        with contextlib.suppress(UsageError):
            return f".{host}".endswith(f".{ascii_host(name.lstrip('*').strip('.')) or '*'}")
        return False
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return "*" in name and fnmatchcase(host, name)


def _parsed(text: str, variable: str) -> Proxy:
    """The proxy at the address ``text``. A login in it may hold any character but those that end it."""
    text = text if "://" in text else f"http://{text}"
    scheme, _, rest = text.strip().partition("://")
    login, at, place = rest.rpartition("@")
    place = place.rstrip("/")
    scheme = {"socks": "socks5h"}.get(scheme.lower(), scheme.lower())
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s:/?#@\[\]]+)(?::(\d{0,5}))?", place)
    if scheme not in _PORTS or found is None or not 0 < int(found[2] or 1) <= 65_535:
        raise UsageError(
            f"the proxy that the variable {variable} (or {variable.upper()}) names has no address that can be read",
            hint="write it as http://HOST:PORT, a login before the host: USER:PASSWORD@HOST:PORT; in the "
            "password, # is %23, / is %2F, @ is %40",
        )
    host = found[1] if found[1].startswith("[") else ascii_host(found[1])
    shown = f"{scheme}://{host}:{found[2] or _PORTS[scheme]}"
    user, colon, password = login.partition(":")
    secret = f"{_encoded(user)}{colon}{_encoded(password)}@" if at else ""
    return Proxy(f"{scheme}://{secret}{shown.partition('://')[2]}", shown)


def _encoded(text: str) -> str:
    """``text`` with what would end it encoded, and what is encoded already left as it is."""
    return urllib.parse.quote(text, safe="%!$&'()*+,;=~-._")
