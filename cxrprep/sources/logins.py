"""Logins and cookies of HTTP servers: who gets which, and how seldom a password is sent.

A password goes out only in answer to a challenge. When the server then hands out a session cookie (PhysioNet does, and
hashes the password anew for each request that carries one), the cookie is used from there on; a server that gives no
cookie gets the password with every request. Several threads that are challenged at once log in once.
"""

from __future__ import annotations

import base64
import http.client
import http.cookiejar
import threading
import urllib.request
import warnings
from typing import TYPE_CHECKING

from cxrprep.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    from cxrprep.credentials import Login
    from cxrprep.sources.connection import Endpoint


class Gate:
    """The state of the login at one endpoint. ``epoch`` counts logins: who was challenged before one tries again."""

    __slots__ = ("eager", "epoch", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.epoch = 0
        self.eager = False


class Logins:
    """The logins and cookies of one source; shared by its threads. ``look_up`` finds a host's login."""

    def __init__(self, look_up: Callable[[str], Login | None], cookie_file: str | None = None) -> None:
        """Raises ``AccessError`` for a cookie file that cannot be read."""
        self._look_up = look_up
        self._gates: dict[Endpoint, Gate] = {}
        self._lock = threading.Lock()
        self._jar = http.cookiejar.MozillaCookieJar()
        self._has_cookies = False
        if cookie_file:
            try:
                with warnings.catch_warnings():
                    # For a line that is no cookie the library prints a traceback, beside the error that it raises.
                    warnings.simplefilter("ignore")
                    self._jar.load(cookie_file, ignore_discard=True, ignore_expires=True)
            except (OSError, ValueError, UnboundLocalError) as error:
                # LoadError is an OSError without a reason of the system's. Bytes that are no text are a ValueError, or
                # stumble over the library's own handling of it.
                reason = getattr(error, "strerror", None) or "it is not one"
                raise AccessError(
                    f"{cookie_file} cannot be read as a cookie file: {reason}",
                    hint="export it from the browser in Netscape format (cookies.txt)",
                ) from None
            self._has_cookies = True

    def gate(self, endpoint: Endpoint) -> Gate:
        """The gate of ``endpoint``."""
        with self._lock:
            return self._gates.setdefault(endpoint, Gate())

    def login(self, endpoint: Endpoint) -> Login | None:
        """The login for ``endpoint``, if there is one that may be sent there."""
        login = self._look_up(endpoint.host)
        return login if login is not None and login.permits(endpoint.host) else None

    def authorization(self, endpoint: Endpoint) -> str | None:
        """The header's value for ``endpoint``, or ``None``."""
        login = self.login(endpoint)
        if login is None:
            return None
        return "Basic " + base64.b64encode(f"{login.user}:{login.password.reveal()}".encode()).decode()

    def cookies(self, url: str) -> str | None:
        """The Cookie header for ``url``: cookies of its own host only."""
        if not self._has_cookies:
            return None
        request = urllib.request.Request(url)  # noqa: S310  # a carrier of the address for the jar; it is never sent
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie")

    def remember(self, url: str, response: http.client.HTTPResponse) -> None:
        """Keep the cookies that came with an answer from ``url``."""
        message: Message = response.msg
        if "Set-Cookie" in message:
            self._jar.extract_cookies(response, urllib.request.Request(url))  # noqa: S310  # as above
            self._has_cookies = True
