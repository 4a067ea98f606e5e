"""Index pages (directory listings) of nginx, Apache, lighttpd, Caddy and Python, and nginx's JSON and XML."""

from __future__ import annotations

import codecs
import html
import re
import urllib.parse
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Final

from cxrprep.sources.base import stated_size
from cxrprep.storage.small_files import parse_json

# Where a redirect from a folder may lead.
_INDEX: Final = re.compile(rb"(?<=/)(?:index\.\w+|[^/]+\.(?:[xs]?html?|php|aspx?))$", re.IGNORECASE)
_XML_LIST: Final = re.compile(r"\s*(?:<\?xml[^>]*\?>)?\s*<list\s*/?>")
_XML_ITEM: Final = re.compile(r"<(directory|file)\b([^>]*)>([^<]*)</")
_XML_SIZE: Final = re.compile(r'\bsize="(\d+)"')
_MARKS: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
# What an empty folder's page says, or shows as Go's servers do; a home page does neither.
_OF_A_FOLDER: Final = re.compile(r"(?i)index of|directory listing|parent directory|\A[^/]*<pre>\s*</pre>\s*\Z")
# More than any file system holds is no size.
_LARGEST: Final = 1 << 60
_SLASHES: Final = re.compile("//+")
# What is left of bytes that are no UTF-8.
_NO_UTF8: Final = re.compile("[\udc80-\udcff]")
# A time, then a size in bytes; a size such as 1.2K is no number of bytes.
_SIZE: Final = re.compile(
    r"(?:\d{1,2}-[A-Za-z]{3}-\d{4}|\d{4}-(?:\d{2}|[A-Za-z]{3})-\d{2})\s+\d{2}:\d{2}(?::\d{2})?\s+(\d+)\s*(?:$|\s)"
)


@dataclass(frozen=True, slots=True)
class PageEntry:
    """One line of a folder page. ``name`` is decoded and has no slash; ``size`` is in bytes where the page is exact.

    ``spelled`` is how an address has to write a name that is no UTF-8, whose other bytes stand as ``%E9`` in ``name``;
    else ``""``.
    """

    name: str
    folder: bool
    size: int | None = None
    spelled: str = ""


def read_page(body: bytes, content_type: str, base: str) -> list[PageEntry] | None:
    """The entries of the folder page at ``base``, in its order; ``None`` for a page that is no listing.

    Only links to direct children count: parents, other sites, sort links and the page itself are passed over.
    """
    text = _text(body, content_type)
    if "json" in content_type.lower():
        return _from_json(text)
    if _XML_LIST.match(text):
        return _from_xml(text)
    page = _Links()
    page.feed(text)
    page.close()
    here = urllib.parse.urlsplit(base)
    path, authority = _INDEX.sub(b"", _bytes(here.path)), _authority(here)
    found: dict[str, PageEntry] = {}
    for link, behind in page.links:
        try:
            # Spaces around an address are none of it (https://url.spec.whatwg.org/#concept-basic-url-parser).
            parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, urllib.parse.urljoin(page.base, link.strip())))
            elsewhere = bool(parts.query) or _authority(parts) != authority
        except ValueError:
            # One link that is no address (``http://[x``) leads nowhere, and the others to what they name.
            continue
        target = _bytes(parts.path)
        if elsewhere or not target.startswith(path):
            continue
        size = _SIZE.search(" ".join(behind))
        entry = _entry(target[len(path) :], size=int(size[1]) if size else None)
        # A picture may link there before the name does.
        if entry is not None and (entry.name not in found or found[entry.name].size is None):
            found[entry.name] = entry
    return list(found.values()) if found or _OF_A_FOLDER.search(text[:2000]) else None


class _Links(HTMLParser):
    """The links of a page, each with the pieces of text behind it, and the address that they count from."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[tuple[str, list[str]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (link := dict(attrs).get("href")) is not None:
            self.links.append((link, []))
            self._inside = True
        elif tag == "base" and not self.base:
            self.base = (dict(attrs).get("href") or "").strip()

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "a"

    def handle_data(self, data: str) -> None:
        if self.links and not self._inside:
            self.links[-1][1].append(data)


def _authority(parts: urllib.parse.SplitResult) -> tuple[str | None, int | None]:
    """Host and port. Raises ``ValueError`` for a port that is none.

    Those of http and https are one: behind a proxy that ends TLS, servers write addresses without it.
    """
    return parts.hostname, None if parts.port in (80, 443) else parts.port


def _text(body: bytes, content_type: str) -> str:
    """The page as text: a byte order mark goes over what the header says (https://encoding.spec.whatwg.org/#decode)."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    named = _CHARSET.search(content_type)
    if named is not None and (charset := named[1].lower().replace("-", "")).startswith("utf16"):
        return body.decode("utf-16-be" if charset == "utf16be" else "utf-16-le", "replace")
    # Not every name is UTF-8, nor is every page: bytes that are not are carried along as they are, since servers write
    # the bytes of names into pages of any other charset.
    return body.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _from_json(text: str) -> list[PageEntry] | None:
    try:
        items = parse_json(text)
    except ValueError:
        return None
    if not isinstance(items, list):
        return None
    found = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        name = item["name"].encode("utf-8", "surrogateescape")
        folder = item.get("type") == "directory" or item.get("is_dir") is True
        found.append(_entry(name, folder=folder, size=stated_size(item.get("size"))))
    # Another service's list is none of files.
    return [entry for entry in found if entry is not None] if found or not items else None


def _from_xml(text: str) -> list[PageEntry]:
    found = []
    for match in _XML_ITEM.finditer(text):
        name = html.unescape(match[3]).encode("utf-8", "surrogateescape")
        size = _XML_SIZE.search(match[2])
        found.append(_entry(name, folder=match[1] == "directory", size=int(size[1]) if size else None))
    return [entry for entry in found if entry is not None]


def _bytes(path: str) -> bytes:
    """The bytes that the path of an address stands for; servers take several slashes for one."""
    return urllib.parse.unquote_to_bytes(_SLASHES.sub("/", path).encode("utf-8", "surrogateescape"))


def _entry(data: bytes, *, folder: bool = False, size: int | None = None) -> PageEntry | None:
    """The entry of the name ``data``, a folder's with a slash behind it; ``None`` for what is no direct child."""
    folder = folder or data.endswith(b"/")
    data = data.rstrip(b"/")
    if not data or b"/" in data or data in (b".", b".."):
        return None
    name, spelled = as_shown(data.decode("utf-8", "surrogateescape"))
    return PageEntry(name, folder, None if folder or (size or 0) > _LARGEST else size, spelled)


def as_shown(name: str) -> tuple[str, str]:
    """A name or path, bytes that are no UTF-8 as ``%E9``; and how an address has to write it, where that differs."""
    if not _NO_UTF8.search(name):
        return name, ""
    shown = _NO_UTF8.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)
    return shown, urllib.parse.quote(name.encode("utf-8", "surrogateescape"))
