"""Listing of the files below a folder: paths with sizes, in order of path, without a path object or a list of all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cxrprep.storage.paths import is_file, is_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def files_below(
    root: str, leave_out: Collection[str] = (), *, readable_only: bool = False
) -> Iterator[tuple[str, int]]:
    """Every file, or link to one, with its bytes, in order of path; nothing of what ``leave_out`` names at the top.

    A folder that cannot be read raises ``OSError``, and is passed over with ``readable_only``.
    """
    # In order of path what is in a folder follows where "name/" stands. The next one is the last of the list.
    pending: list[tuple[str, int]] = [("", -1)]
    while pending:
        path, size = pending.pop()
        if path and not path.endswith("/"):
            yield path, size
            continue
        found: list[tuple[str, int]] = []
        try:
            with os.scandir(f"{root}/{path}") as entries:
                for entry in entries:
                    if not path and entry.name in leave_out:
                        continue
                    if is_folder(entry):
                        found.append((f"{path}{entry.name}/", -1))
                    elif is_file(entry) and (held := _size(entry)) is not None:
                        found.append((path + entry.name, held))
        except OSError:
            if not readable_only:
                raise
        found.sort(reverse=True)
        pending += found


def _size(entry: os.DirEntry[str]) -> int | None:
    """The bytes of a file; ``None`` for one that went since its folder was read."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return None
