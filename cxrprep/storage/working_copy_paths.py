"""Paths in working copies of buckets: which address such a path is a copy of. Loads nothing that talks to a store."""

from __future__ import annotations

import contextlib
import os
import posixpath
from pathlib import Path
from typing import Final

import platformdirs

EXPORT_LIST: Final = ".cxrprep-export.json"
"""The list of what exports wrote into a folder."""
OTHERS: Final = "others"
"""Beside the copy of one file: its folder in the bucket holds other files, which are not brought."""


def copies() -> Path:
    """The folder in which working copies are kept."""
    return Path(platformdirs.user_cache_path("cxrprep")) / "buckets"


def address_of(path: str) -> str | None:
    """The address of what a path in a working copy is a copy of; ``None`` for any other path."""
    found = copy_of(path)
    if found is None:
        return None
    _, address, inside = found
    return f"{address}/{inside}" if inside else address


def copy_of(path: str) -> tuple[Path, str, str] | None:
    """Where the working copy that ``path`` lies in is kept, its address, and ``path`` as seen from its folder."""
    base = f"{copies()}{os.sep}"
    if not path.startswith(base):
        return None
    key, _, below = path[len(base) :].replace(os.sep, "/").partition("/files/")
    with contextlib.suppress(OSError):
        address = (copies() / key / "address").read_text(encoding="utf-8")
        # The first part is the folder itself, named as in the bucket.
        return copies() / key, address, below.partition("/")[2]
    return None


def holds_others(folder: Path) -> bool:
    """Whether a folder in a bucket holds more than the one file of it that was brought."""
    found = copy_of(str(folder.absolute()))
    return found is not None and (found[0] / OTHERS).is_file()


def seen_from(root: Path, path: Path) -> str:
    """``path`` as seen from ``root``, for a table that moves with it: as their addresses lie where they are in a store.

    A path of this machine, and of another bucket, is named whole beside a ``root`` in a bucket.
    """
    here, there = address_of(str(root.resolve())), address_of(str(path.resolve()))
    if here is None and there is None:
        return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    if here is None or there is None or here.split("/")[:3] != there.split("/")[:3]:
        return there or str(path.resolve())
    return posixpath.relpath(f"/{there.partition('://')[2]}", f"/{here.partition('://')[2]}")
