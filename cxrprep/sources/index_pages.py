"""Index pages (directory listings) of nginx, Apache, lighttpd, Caddy and Python, and nginx's JSON."""

from __future__ import annotations

import html
import re
import urllib.parse
from dataclasses import dataclass
from typing import Final

from cxrprep.storage.small_files import parse_json

_LINK: Final = re.compile(
    r"""<a\s[^>]*?href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))[^>]*>.*?</a>([^<]*(?:<(?!a\s)[^>]*>[^<]*){0,8})""",
    re.IGNORECASE | re.DOTALL,
)
_TAG: Final = re.compile(r"<[^>]*>")
# A time, then a size in bytes; a size such as 1.2K is no number of bytes.
_SIZE: Final = re.compile(
    r"(?:\d{1,2}-[A-Za-z]{3}-\d{4}|\d{4}-(?:\d{2}|[A-Za-z]{3})-\d{2})\s+\d{2}:\d{2}(?::\d{2})?\s+(\d+)\s*(?:$|\s)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a folder page. ``name`` is decoded and has no slash; ``size`` is in bytes where the page is exact."""

    name: str
    folder: bool
    size: int | None = None


def read_page(body: bytes, content_type: str, base: str) -> list[Entry] | None:
    """The entries of the folder page at ``base``, in its order; ``None`` for a page that is no listing.

    Only links to direct children count: parents, other sites, sort links and the page itself are passed over.
    """
    text = body.decode("utf-8", "replace")
    if "json" in content_type.lower():
        return _from_json(text)
    path = urllib.parse.unquote(urllib.parse.urlsplit(base).path)
    found: dict[str, Entry] = {}
    links = 0
    for match in _LINK.finditer(text):
        links += 1
        address = urllib.parse.urljoin(base, html.unescape(match[1] or match[2] or match[3] or ""))
        parts = urllib.parse.urlsplit(address)
        if parts.query or parts.netloc != urllib.parse.urlsplit(base).netloc:
            continue
        target = urllib.parse.unquote(parts.path)
        name = target[len(path) :]
        folder = name.endswith("/")
        name = name.rstrip("/")
        if not target.startswith(path) or not name or "/" in name or name in (".", ".."):
            continue
        size = _SIZE.search(_TAG.sub(" ", match[4]))
        found.setdefault(name, Entry(name, folder, int(size[1]) if size and not folder else None))
    # An empty folder still links to its parent or says what it is an index of; a home page does neither.
    is_listing = bool(found) or "index of" in text[:2000].lower() or "directory listing" in text[:2000].lower()
    return list(found.values()) if is_listing else None


def _from_json(text: str) -> list[Entry] | None:
    try:
        items = parse_json(text)
    except ValueError:
        return None
    if not isinstance(items, list):
        return None
    found = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            return None
        name, size = item["name"].strip("/"), item.get("size")
        if name and "/" not in name and name not in (".", ".."):
            folder = item.get("type") == "directory" or item["name"].endswith("/")
            exact = isinstance(size, int) and not isinstance(size, bool) and size >= 0 and not folder
            found.append(Entry(name, folder, size if exact else None))
    return found
