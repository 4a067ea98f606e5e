"""Sources of bytes: one module per service, imported when it is first used.

A mirror is a string; ``open_source`` is the one place that turns it into a source.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.sources.base import Source, SourceOptions

# scheme -> "module:class"; a class takes (url, options).
SOURCES: Final[Mapping[str, str]] = {
    "http": "cxrprep.sources.http:HttpSource",
    "https": "cxrprep.sources.http:HttpSource",
    "file": "cxrprep.sources.local:LocalSource",
    "url": "cxrprep.sources.signed_url:SignedUrlSource",
    "physionet": "cxrprep.sources.physionet:PhysioNetSource",
    "gs": "cxrprep.sources.gcs:GcsSource",
    "s3": "cxrprep.sources.s3:S3Source",
    "hf": "cxrprep.sources.hugging_face:HuggingFaceSource",
    "kaggle": "cxrprep.sources.kaggle:KaggleSource",
    "box": "cxrprep.sources.box:BoxSource",
}


def check_scheme(url: str) -> str:
    """Where the source of an address is written; a path has that of folders. Raises ``UsageError``."""
    scheme, separator, _ = url.partition("://")
    target = SOURCES.get(scheme.lower() if separator else "file")
    if target is None and len(scheme.split()) > 1:
        # They are not shown: the command of another tool may hold a password.
        raise UsageError("several words are no source", hint="give one address, or an existing folder")
    if target is None:
        raise UsageError(f"no source understands {scheme}://", hint=f"known schemes: {', '.join(SOURCES)}")
    return target


def open_source(url: str, options: SourceOptions) -> Source:
    """The source that ``url`` names: ``physionet://mimic-cxr/2.1.0``, ``gs://bucket``, ``https://...``, a folder.

    Raises ``UsageError`` for a scheme that no source has.
    """
    module, _, name = check_scheme(url).partition(":")
    source: Source = getattr(importlib.import_module(module), name)(url, options)
    return source
