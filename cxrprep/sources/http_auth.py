"""HTTP authentication and session cookies: which host gets which login, and how seldom a password is sent.

A password goes out only in answer to a challenge that asks for Basic or Digest. When the server then hands out a
session cookie (PhysioNet does, and hashes the password anew for each request that carries one), the cookie is used from
there on. Where a cookie turns out to be no session (load balancers set one too), each request carries the login.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import AccessError, LoginError

if TYPE_CHECKING:
    from cxrprep.credentials.files import Login
    from cxrprep.sources.http_response import HttpResponse

_SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z][\w-]*)(?=\s*(?:,|$)|\s+[^=\s,]+\s*=|\s+[\w+/~.-]+=*\s*(?:,|$))")
_QUOTED: Final = re.compile(r'"(?:\\.|[^"\\])*"')
_PARAMETER: Final = re.compile(r'([\w-]+)\s*=\s*("(?:\\.|[^"\\])*"|[^\s,]+)')
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
    header = response.headers.get("www-authenticate", "")
    # What is quoted may read like another scheme; its length stays, so that places in both are the same.
    bare = _QUOTED.sub(lambda text: f'"{"x" * (len(text[0]) - 2)}"', header)
    found = list(_SCHEME.finditer(bare))
    schemes = [scheme[1].lower() for scheme in found]
    ends = [scheme.start() for scheme in found[1:]] + [len(bare)]
    if any(
        scheme == "digest" and _can_answer(header[begin.end(1) : end])
        for scheme, begin, end in zip(schemes, found, ends, strict=False)
    ):
        return True
    if header and "basic" not in schemes:
        named = schemes[0].capitalize() if schemes else "another scheme"
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


def _can_answer(challenge: str) -> bool:
    """Whether libcurl can answer the parameters of a Digest challenge (RFC 7616, 3.3)."""
    said = {name.lower(): value.strip('"').lower() for name, value in _PARAMETER.findall(challenge)}
    algorithm = said.get("algorithm", "md5").removesuffix("-sess")
    qualities = [quality.strip() for quality in (said.get("qop") or "auth").split(",")]
    return bool(said.get("nonce")) and algorithm in _ALGORITHMS and "auth" in qualities


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
