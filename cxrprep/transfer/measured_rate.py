"""Measured download rate of a mirror: kept after each run, so that the next plan says how long it takes.

One small file for the user, ``rates.json`` in the cache folder: without it a plan falls back on what users report.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import StorageError
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import parse_json, read_text

if TYPE_CHECKING:
    from typing import Any

# Less than this says how long a run takes to start, and not how fast a mirror is.
_LEAST_BYTES: Final = 10_000_000
_LEAST_SECONDS: Final = 5.0
_MOST_MIRRORS: Final = 200


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """What the last run from ``mirror`` brought: bytes a second in all, and when that was (seconds since 1970)."""

    mirror: str
    bytes_per_second: float
    when: float


def mirror_name(address: str) -> str:
    """What a rate belongs to: the host of a web address, else the service (``physionet``, ``gs``)."""
    parts = urllib.parse.urlsplit(address)
    return parts.netloc.rpartition("@")[2] if parts.scheme in ("http", "https") else parts.scheme


def remember_rate(address: str, size: int, seconds: float) -> None:
    """Keep what a run brought from the mirror at ``address``; too little of it changes nothing, nor a shut cache.

    Args:
        address: the mirror, as ``Source.address`` names it.
        size: bytes that came.
        seconds: how long that took, waiting and retries included.
    """
    name = mirror_name(address)
    if not name or name == "file" or size < _LEAST_BYTES or seconds < _LEAST_SECONDS:
        return
    known = {**_known(), name: {"bytes_per_second": round(size / seconds, 1), "when": round(time.time())}}
    kept = dict(sorted(known.items(), key=lambda pair: pair[1]["when"])[-_MOST_MIRRORS:])
    text = json.dumps(kept, indent=1, sort_keys=True) + "\n"
    with contextlib.suppress(StorageError):
        replace_file(_path(), lambda part: part.write_text(text, encoding="utf-8"))


def measured_rate(address: str) -> MeasuredRate | None:
    """What the last run from the mirror at ``address`` brought; ``None`` when none was long enough to tell."""
    name = mirror_name(address)
    found = _known().get(name)
    return None if found is None else MeasuredRate(name, found["bytes_per_second"], found["when"])


def _known() -> dict[str, dict[str, float]]:
    try:
        body: Any = parse_json(read_text(_path()))
        known = {name: {key: float(e[key]) for key in ("bytes_per_second", "when")} for name, e in body.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: entry for name, entry in known.items() if entry["bytes_per_second"] > 0}


def _path() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_path("cxrprep", appauthor=False)) / "rates.json"
