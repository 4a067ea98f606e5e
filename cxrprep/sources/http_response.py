"""HTTP response: what status and headers mean: errors with a next step, Retry-After, validators, digests, pages."""

from __future__ import annotations

import base64
import binascii
import codecs
import datetime as dt
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.errors import (
    AccessError,
    CxrprepError,
    LoginError,
    NotInSourceError,
    ProxyOrCertificateError,
    SourceUnreachableError,
)
from cxrprep.model import Digest
from cxrprep.sources.network_errors import wants_login
from cxrprep.sources.proxies import proxy_for
from cxrprep.sources.urls import split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

# What passes: these, and every error of the server (RFC 9110, 15) but what it cannot do at all.
_TRANSIENT: Final = frozenset({408, 425, 429})
_INCAPABLE: Final = frozenset({501, 505, 506, 508, 510, 511})
_SAID_BY_PROXIES: Final = frozenset({401, 403, 500, 502, 503, 504})
_CONTENT_RANGE: Final = re.compile(r"bytes\s*[=:]?\s*(?:(\d+)\s*-\s*(\d+)|\*)\s*/\s*(\d+|\*)", re.IGNORECASE)
# Beyond it nothing is a length: libcurl, too, reads such a body to the end of its connection.
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_SECONDS: Final = re.compile(r'"?([0-9]+(?:\.[0-9]+)?)\s*(?:s|sec|seconds?)?"?;?', re.IGNORECASE)
# draft-ietf-httpapi-ratelimit-headers, 4.1: seconds until more is granted.
_RATE_LIMIT: Final = re.compile(r";\s*t=(\d+)")
# What its earlier drafts, GitHub, Zenodo and Discord call the same: seconds from now, or from 1970.
_RESETS: Final = ("ratelimit-reset", "x-ratelimit-reset-after", "x-ratelimit-reset", "x-rate-limit-reset")
# Azure's services, and some of Microsoft's others, count in thousandths.
_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
# As browsers know one, but for what Markdown begins with (https://mimesniff.spec.whatwg.org).
_PAGE: Final = re.compile(
    rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml\b[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    rb"<(?:!doctype\s+html|html|head|script|iframe|style|title|body|meta)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
# What no text holds (https://mimesniff.spec.whatwg.org/#binary-data-byte).
_BINARY: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_PAGES: Final = (".html", ".htm", ".xhtml")
_LONGEST_WAIT: Final = 3600.0
_DATES_FROM: Final = 1e9
# What servers write into Content-Encoding that changes no byte: transfer encodings of mail, charsets, and what S3 keeps
# of how an upload was framed.
_NO_CODINGS: Final = frozenset(
    {"", "identity", "none", "null", "binary", "7bit", "8bit", "aws-chunked", "ascii", "us-ascii", "utf8", "utf-8",
     "iso-8859-1", "windows-1252"}
)  # fmt: skip
# How Google's services word "too many requests" under 403.
_LIMITED: Final = re.compile(rb"[rR]ateLimitExceeded|RATE_LIMIT_EXCEEDED|SlowDown|RequestLimitExceeded")


def seconds_to_wait(text: str, sent: str = "") -> float | None:
    """Seconds that Retry-After asks for: a number, or a date in one of three forms (RFC 9110, 5.6.7, 10.2.3).

    Of several, as a proxy and the server behind it send, the longest; dates of ISO 8601 are read as well. ``sent`` is
    the Date of the answer, from which a date counts: the clock here may be another one.
    """
    clock = date_of(sent)
    now = clock.timestamp() if clock is not None else time.time()
    text = text.strip()
    numbers = [_SECONDS.fullmatch(part.strip()) for part in text.split(",")]
    date = date_of(text)
    if all(numbers):
        wait = max(float(number[1]) for number in numbers if number)
        # Some servers count them from 1970, as other headers of theirs do.
        wait -= now if wait >= _DATES_FROM else 0.0
    elif date is not None:
        wait = date.timestamp() - now
    else:
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT)


def date_of(text: str | None) -> dt.datetime | None:
    """A date in ISO 8601, or as HTTP and mail write it; without a zone it is Greenwich's. ``None`` for what is none."""
    from email.utils import parsedate_to_datetime

    text = text or ""
    try:
        date = dt.datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
        return date if date.tzinfo else date.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Status and headers of an answer; header names are in lower case, repeated ones joined by commas.

    ``url`` is the address that answered in the end, without its query; ``location`` where it redirects to, query
    included (never shown); ``body`` the beginning of an error's own text. ``elsewhere`` says of an error that it
    came from another host than the one that was asked, to which a redirect led.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    location: str | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)
    elsewhere: bool = False

    @property
    def host(self) -> str:
        """The host that answered in the end, wherever redirects led."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait: Retry-After, else what Hugging Face and others limit rates by."""
        asked = self.headers.get("retry-after", "")
        thousandths = next(filter(None, map(self.headers.get, _MILLISECONDS)), "")
        if not asked and thousandths.isdecimal():
            return min(int(thousandths) / 1000, _LONGEST_WAIT)
        if not asked and self.is_rate_limit:
            limit = _RATE_LIMIT.search(self.headers.get("ratelimit", ""))
            asked = limit[1] if limit else next(filter(None, map(self.headers.get, _RESETS)), "")
        return seconds_to_wait(asked, self.headers.get("date", ""))

    @property
    def content_range(self) -> tuple[int | None, int | None]:
        """First byte and size of the whole, as a 206 or 416 states them; ``None`` for what it does not say.

        One that contradicts itself or the length of the body says nothing (RFC 9110, 14.4).
        """
        values = {value.strip() for value in self.headers.get("content-range", "").split(",")}
        found = _CONTENT_RANGE.fullmatch(values.pop()) if len(values) == 1 else None
        if found is None:
            return None, None
        first, last, total = (None if text in (None, "*") else int(text) for text in found.groups())
        if first is not None and last is not None:
            length = self.content_length if self.status == 206 else None
            if not first <= last < (last + 1 if total is None else total) or length not in (None, last - first + 1):
                return None, None
        return first, total

    @property
    def states_part(self) -> bool:
        """Whether it is, under another status than 206, the part that Content-Range names: as long as that, not all."""
        found = _CONTENT_RANGE.match(self.headers.get("content-range", ""))
        if self.status not in (200, 203) or found is None or found[1] is None:
            return False
        size = int(found[2]) - int(found[1]) + 1
        return size == self.content_length and found[3] not in ("*", str(size))

    @property
    def content_length(self) -> int | None:
        """Bytes of this body, when stated once, or several times the same (RFC 9112, 6.3)."""
        if self.headers.get("transfer-encoding", "").lower() not in ("", "identity"):
            # Which overrides what a careless server or proxy states beside it.
            return None
        text = self.headers.get("content-length", "")
        if "," in text and len(values := {value.strip() for value in text.split(",")}) == 1:
            text = values.pop()
        return int(text) if _LENGTH.fullmatch(text) else None

    @property
    def is_rate_limit(self) -> bool:
        """Whether it refuses for now only: 429, or 403 with the reason in its body."""
        return self.status == 429 or (self.status == 403 and _LIMITED.search(self.body) is not None)

    @property
    def codings(self) -> tuple[str, ...]:
        """The content codings of the body, in the order in which they were put on; identity is none."""
        if "content-encoding" not in self.headers:
            return ()
        named = self.headers["content-encoding"].lower().split(",")
        # Some servers put a name into quotes, or a weight behind it, as of Accept-Encoding.
        names = (part.partition(";")[0].strip(' \t"') for part in named)
        return tuple(name for name in names if name not in _NO_CODINGS)

    @property
    def is_page(self) -> bool:
        """Whether it says that it is a web page."""
        return self.headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml"))

    def validator(self, size: int | None) -> str | None:
        """What identifies the content byte for byte: a strong ETag, else time and size; ``None`` without either.

        A weak ETag promises equal meaning, not equal bytes (RFC 9110, 8.8.1), so nothing may be continued on it.
        """
        tag = self.headers.get("etag", "")
        if tag and not tag.startswith("W/"):
            return tag
        modified = self.headers.get("last-modified")
        return f"{modified}; {size}" if modified and size is not None and not self._just_modified() else None

    def _just_modified(self) -> bool:
        """Whether it may change once more within the second of its date, a weak one (RFC 9110, 8.8.2.2)."""
        modified, now = (date_of(self.headers.get(name)) for name in ("last-modified", "date"))
        # A server without a clock sends no Date.
        return modified is not None and now is not None and (now - modified).total_seconds() < 1

    def digest(self) -> Digest | None:
        """What the service states of the whole content, in any of the spellings that services use."""
        google = self.headers.get("x-goog-hash")
        if google:
            hashes = dict(part.strip().partition("=")[::2] for part in google.split(","))
            for name in ("md5", "crc32c"):
                if name in hashes:
                    return from_base64(name, hashes[name])
        blob = self.headers.get("x-ms-blob-content-md5")
        if blob:
            return from_base64("md5", blob)
        whole = self.headers.get("content-md5")
        # Of a partial answer Content-MD5 describes the part.
        if whole and self.status == 200:
            return from_base64("md5", whole)
        return None


def from_base64(algorithm: str, text: str | None) -> Digest | None:
    """The digest as most services write it; ``None`` for what is none."""
    try:
        return Digest(algorithm, base64.b64decode(text, validate=True).hex()) if text else None
    except (binascii.Error, ValueError):
        return None


def is_html_page(start: bytes, *, claimed: bool = False) -> bool:
    """Whether the first bytes of a body are those of a web page; where that is ``claimed``, whatever is text.

    Scripts that hand files out say so of each (PHP does, where they name no type).
    """
    start = start.removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE)
    return _PAGE.match(start.replace(b"\0", b"")) is not None or (claimed and not _BINARY.search(start))


def expects_page(key: str) -> bool:
    """Whether a file of this name may well be a web page."""
    return key.lower().endswith(_PAGES)


def page_instead(key: str, response: HttpResponse) -> AccessError:
    """The error for a web page, mostly a login form, that came under status 200 where data was asked for."""
    return AccessError(
        f"{key}: {response.url} sent a web page instead of the file, as sites do when a login is needed or has expired",
        hint="open that address in a browser; sign in or accept the terms there, then run again "
        "(--cookie-file FILE passes a browser's session on)",
    )


def refusal(response: HttpResponse, key: str) -> CxrprepError:
    """The error that an answer of status 400 and above means, with the next step."""
    error = _refusal(response, key)
    proxy = proxy_for(split_url(response.url)[0]) if response.url.startswith("http://") else None
    if proxy is not None and response.status in _SAID_BY_PROXIES:
        # tinyproxy says 401 to a wrong login of its own, and 500 where a host cannot be reached.
        error.hint += f"; the proxy {proxy.shown} may have said so in its place"
    return error


def _refusal(response: HttpResponse, key: str) -> CxrprepError:
    status, url = response.status, response.url
    if status == 401:
        return LoginError(
            f"{key}: {url} wants a login (401)",
            hint=f"put user name and password into ~/.netrc: machine {response.host} login USER password PASSWORD",
        )
    if status in (402, 403, 451) and not response.is_rate_limit:
        return AccessError(
            f"{key}: {url} refuses access ({status})",
            hint="open that address in a browser: an agreement, an expired link or the user agent may be the reason",
        )
    if status == 407:
        return wants_login(proxy_for(split_url(url)[0]))
    if status == 511:
        return ProxyOrCertificateError(
            f"the network here wants a login before it lets anything through (511), {response.host} was not reached",
            hint="open any page in a browser, sign in there, then run again",
        )
    if status in (404, 410):
        return NotInSourceError(f"{key}: {url} does not exist ({status})", hint="the mirror may lack this file")
    passes = status in _TRANSIENT or (500 <= status < 600 and status not in _INCAPABLE) or response.is_rate_limit
    asked = response.retry_after
    wait = f": it asks to wait {asked:,.0f} s" if asked else ""
    return SourceUnreachableError(
        f"{key}: {url} answered {status}",
        hint=f"run again later{wait}" if passes else "check the address",
        retry_after=asked,
        lasting=not passes,
        overloaded=status == 503 or response.is_rate_limit,
    )
