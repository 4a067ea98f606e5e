"""Logins and cookies of HTTP servers: who gets which, and how seldom a password is sent.

A password goes out only in answer to a challenge. When the server then hands out a session cookie (PhysioNet does, and
hashes the password anew for each request that carries one), the cookie is used from there on; a server that gives no
cookie gets the password with every request. Several threads that are challenged at once log in once.
"""

from __future__ import annotations

import base64
import threading
import time
import urllib.request
import warnings
from email.message import Message
from typing import TYPE_CHECKING, Any, Final, cast

from cxrprep.errors import AccessError

if TYPE_CHECKING:
    import http.cookiejar
    from collections.abc import Callable, Mapping, Sequence

    from cxrprep.credentials.lookup import Login
    from cxrprep.sources.urls import Endpoint


_COOKIES_FOR_SECONDS: Final = 30.0


class Gate:
    """The state of the login at one endpoint. ``epoch`` counts logins: who was challenged before one tries again.

    ``authorization`` is the header that was accepted; while ``eager`` it goes out with every request.
    """

    __slots__ = ("authorization", "eager", "epoch", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.epoch = 0
        self.eager = False
        self.authorization = ""

    def opened(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """``headers``, with the login where every request wants it."""
        return {**headers, "Authorization": self.authorization} if self.eager else headers


class Logins:
    """The logins and cookies of one source; shared by its threads. ``look_up`` finds a host's login."""

    def __init__(self, look_up: Callable[[str], Login | None], cookie_file: str | None = None) -> None:
        """Raises ``AccessError`` for a cookie file that cannot be read."""
        self._look_up = look_up
        self._gates: dict[Endpoint, Gate] = {}
        self._lock = threading.Lock()
        self._jar: http.cookiejar.MozillaCookieJar | None = None
        self._sent: dict[Endpoint, tuple[str | None, float]] = {}
        if cookie_file:
            self._jar = _new_jar()
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
            for cookie in self._jar:
                # How browsers, curl and wget write a cookie that lasts as long as its session.
                if cookie.expires == 0:
                    cookie.expires, cookie.discard = None, True

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

    def cookies(self, url: str, endpoint: Endpoint) -> str | None:
        """The Cookie header for ``url`` at ``endpoint``: cookies of its own host only."""
        jar = self._jar
        if jar is None:
            return None
        now = time.monotonic()
        known = self._sent.get(endpoint)
        if known is not None and now < known[1]:
            return known[0]
        with self._lock:
            request = urllib.request.Request(url)  # noqa: S310  # a carrier of the address for the jar; never sent
            jar.add_cookie_header(request)
            header = request.get_header("Cookie")
            if all(cookie.path == "/" for cookie in jar):
                # The same for every address there: asking the jar costs as much as the rest of the request.
                self._sent[endpoint] = header, now + _COOKIES_FOR_SECONDS
        return header

    def remember(self, url: str, lines: Sequence[str]) -> None:
        """Keep the cookies of the Set-Cookie ``lines`` that came with an answer from ``url``."""
        if lines:
            with self._lock:
                request = urllib.request.Request(url)  # noqa: S310  # as above
                if self._jar is None:
                    self._jar = _new_jar()
                self._jar.extract_cookies(cast("Any", _Answered(lines)), request)
                self._sent.clear()


def _new_jar() -> http.cookiejar.MozillaCookieJar:
    # Most mirrors hand out no cookie.
    import http.cookiejar

    return http.cookiejar.MozillaCookieJar()


class _Answered:
    """An answer as far as a cookie jar looks at it."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._message = Message()
        for line in lines:
            self._message["Set-Cookie"] = line

    def info(self) -> Message:
        return self._message
