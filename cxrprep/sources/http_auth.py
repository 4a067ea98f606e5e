"""HTTP authentication and session cookies: which host gets which login or token, and how seldom a password is sent.

A password goes out only in answer to a 401 that asks for Basic or Digest, or names no scheme: curl and aria2c send it
unasked. When the server then hands out a session cookie (PhysioNet does, and hashes the password anew for each request
with one), the cookie serves from there on; where it is no session (load balancers set one), each request has the login.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.credentials.lookup import Credentials, token_variable
from cxrprep.errors import AccessError, LoginError, LoginRejectedError
from cxrprep.sources.endpoints import is_here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cxrprep.credentials.files import Login
    from cxrprep.sources.http_response import HttpResponse
    from cxrprep.sources.urls import Endpoint

# What is quoted may hold commas, and read like another scheme.
_BETWEEN_COMMAS: Final = re.compile(r'(?:"(?:\\.|[^"\\])*"?|[^,"])+')
# What libcurl answers of RFC 7616.
_ALGORITHMS: Final = frozenset({"md5", "sha-256", "sha-512-256"})
_MAGIC: Final = re.compile(r"^#.*HTTP Cookie File", re.MULTILINE)
# A session that ends this soon after its login was none.
_SESSION_SECONDS: Final = 60.0


@dataclass(slots=True)
class HostSession:
    """The state of the login at one endpoint. ``epoch`` counts logins: who was challenged before one tries again."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    epoch: int = 0
    login: Login | None = None
    digest: bool = False
    with_every_request: bool = False
    since: float = 0.0

    def challenged(self, status: int, *, sent_login: bool) -> bool:
        """Whether an answer of ``status`` asks for the login. A session that ran out answers 401 or 403."""
        return not sent_login and (status == 401 or (status == 403 and self.epoch > 0))

    def opened(self, login: Login, response: HttpResponse, *, digest: bool) -> None:
        """Remember that ``login`` was accepted."""
        now = time.monotonic()
        again_at_once = self.epoch > 0 and now - self.since < _SESSION_SECONDS
        self.with_every_request = digest or again_at_once or "set-cookie" not in response.headers
        self.login, self.digest, self.since = login, digest, now
        self.epoch += 1


def wants_digest(response: HttpResponse, key: str) -> bool:
    """Whether a challenge is to be answered by Digest (RFC 7616) rather than Basic (RFC 7617).

    Raises ``AccessError`` when it asks for neither: then nothing is sent.
    """
    asked = _challenges(response.headers.get("www-authenticate", ""))
    if any(scheme == "digest" and _can_answer(said) for scheme, said in asked):
        return True
    if asked and not any(scheme == "basic" for scheme, _ in asked):
        named = asked[0][0].capitalize()
        named += " in a form that is not known here" if named == "Digest" else ""
        raise LoginError(
            f"{key}: {response.url} wants a login by {named} (401), which a user name and a password do not serve",
            hint="the login found for this host was not sent; "
            + (
                "put its token into CXRPREP_TOKEN_HOST, HOST as in MIRROR_EXAMPLE_ORG"
                if named == "Bearer"
                else "ask the site for a download with user name and password"
            ),
        )
    return False


def _challenges(header: str) -> Sequence[tuple[str, Mapping[str, str]]]:
    """The schemes that a server names (RFC 9110, 11.6.1), each with its parameters, in lower case."""
    found: list[tuple[str, dict[str, str]]] = []
    for part in filter(None, map(str.strip, _BETWEEN_COMMAS.findall(header))):
        scheme, _, rest = part.replace("\t", " ").partition(" ")
        begins = "=" not in scheme and not rest.lstrip().startswith("=")
        if begins or not found:
            found.append((scheme.lower(), {}))
        name, _, value = (rest if begins else part).partition("=")
        found[-1][1][name.strip().lower()] = value.strip().strip('"').lower()
    return found


def _can_answer(said: Mapping[str, str]) -> bool:
    """Whether libcurl can answer the parameters of a Digest challenge (RFC 7616, 3.3)."""
    algorithm = said.get("algorithm", "md5").removesuffix("-sess")
    qualities = [quality.strip() for quality in (said.get("qop") or "auth").split(",")]
    return bool(said.get("nonce")) and algorithm in _ALGORITHMS and "auth" in qualities


class HostToken:
    """The bearer token (RFC 6750) for ``endpoint``, where the user has one for its host; it never goes in the open."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        """Raises ``AccessError`` for a token that cannot be read, or cannot be one."""
        self._endpoint = endpoint
        self._credentials = credentials
        self._found = credentials.bearer(endpoint.host) if credentials is not None else None
        self._may_go = endpoint.scheme == "https" or is_here(endpoint.host)

    def headers(self) -> Mapping[str, str]:
        """What to send to the endpoint, and to nobody whom it redirects to."""
        if self._found is None or not self._may_go:
            return {}
        return {"Authorization": f"Bearer {self._found.secret.reveal()}"}

    def login(self, host: str) -> Login | None:
        """The user name and password for ``host``: none for the one that gets a token."""
        if self._credentials is None or (self._found is not None and host == self._endpoint.host):
            return None
        return self._credentials.host(host)

    def refusal(self, answer: HttpResponse, key: str) -> LoginError | None:
        """The error for an answer that is about the token; ``None`` for all others."""
        if answer.status != 401:
            return None
        host = self._endpoint.host
        if answer.elsewhere or self._found is None:
            if "bearer" not in answer.headers.get("www-authenticate", "").lower():
                return None
            # A redirect took no token along.
            way = f", to which {host} redirects," if answer.elsewhere else ""
            name = f"if {answer.host} has the files, name its address in the command, and " if way else ""
            return LoginError(
                f"{key}: {answer.url}{way} wants a token (401)",
                hint=f"{name}set {token_variable(answer.host)} to it, or to the name of a file that holds it",
            )
        if not self._may_go:
            return LoginError(
                f"{key}: {answer.url} wants a login (401); the token of {self._found.origin} is not sent without TLS",
                hint="write the address with https://",
            )
        return LoginRejectedError(
            f"{key}: {host} rejects the token found in {self._found.origin} (401)",
            hint="it may have ended: get a new one, and put it there",
        )


def load_cookies(share: Any, cookie_file: str) -> None:
    """Put the cookies of a browser's export into ``share``. Raises ``AccessError`` for what is no such export."""
    import pycurl

    try:
        lines = Path(cookie_file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise _no_cookie_file(cookie_file, getattr(error, "strerror", None) or "it is not text") from None
    cookies = [line for line in lines if line.startswith("#HttpOnly_") or (line.strip() and not line.startswith("#"))]
    # libcurl passes over what it cannot read without a word.
    if not all(line.count("\t") == 6 and "\0" not in line for line in cookies) or not (
        cookies or _MAGIC.search("\n".join(lines))
    ):
        raise _no_cookie_file(cookie_file, "it is not one")
    curl = pycurl.Curl()
    curl.setopt(pycurl.SHARE, share)
    for line in cookies:
        curl.setopt(pycurl.COOKIELIST, line.rstrip("\r").encode())
    curl.close()


def _no_cookie_file(path: str, reason: str) -> AccessError:
    return AccessError(
        f"{path} cannot be read as a cookie file: {reason}",
        hint="export it from the browser in Netscape format (cookies.txt)",
    )
