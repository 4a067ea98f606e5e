"""Addresses of pages, as people copy them from a browser, and the sources behind them."""

from __future__ import annotations

import re
from typing import Final

_PAGES: Final = (
    (re.compile(r"https://(?:www\.)?physionet\.org/(?:files|content)/([\w-]+)/([\w.]+)/?(?:#.*)?"), r"physionet://\1/\2"),
    (re.compile(r"https://(?:www\.)?kaggle\.com/datasets/([\w-]+)/([\w-]+)(/versions/\d+)?/?(?:[?#].*)?"), r"kaggle://\1/\2\3"),
    (re.compile(r"https://([\w-]+)\.app\.box\.com/v/([\w.-]+)/?(?:folder/\d+)?(?:[?#].*)?"), r"box://\1/\2"),
    (re.compile(r"https://console\.cloud\.google\.com/storage/browser/([^?#;]+?)/?(?:[;?#].*)?"), r"gs://\1"),
    (re.compile(r"https://storage\.(?:googleapis|cloud\.google)\.com/([^?#]+?)/?"), r"gs://\1"),
)  # fmt: skip

# Where a slash at the end means something: web servers tell folders by it, and / is a folder.
_AS_THEY_ARE: Final = ("http://", "https://", "file://", "/")


def behind(url: str) -> str:
    """The address of the source that serves what the page at ``url`` shows; ``url`` itself, in one spelling, otherwise.

    ``https://physionet.org/content/mimic-cxr/2.1.0/`` is ``physionet://mimic-cxr/2.1.0``: as a plain web server it
    would turn our requests away.
    """
    for page, source in _PAGES:
        found = page.fullmatch(url.strip())
        if found is not None:
            return found.expand(source)
    return url if url.startswith(_AS_THEY_ARE) else url.rstrip("/")
