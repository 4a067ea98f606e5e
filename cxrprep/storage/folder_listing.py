"""Listing of the files below a folder: paths with sizes, in order of path, without a path object or a list of all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cxrprep.storage.paths import is_file, is_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


def files_below(
    root: str,
    leave_out: Collection[str] = (),
    *,
    readable_only: bool = False,
    note: Callable[[str, os.stat_result | None, int], object] | None = None,
) -> Iterator[tuple[str, int]]:
    """Every file, or link to one, with its bytes, in order of path; nothing of what ``leave_out`` names at the top.

    Args:
        root: The folder.
        leave_out: Names at the top.
        readable_only: Pass over a folder that cannot be read.
        note: Told of each folder how it was before it was listed, ``None`` of one with links to folders or to nothing,
            and how many files are in it.

    Yields:
        Path and size in bytes.

    Raises:
        OSError: A folder cannot be read.
    """
    # In order of path what is in a folder follows where "name/" stands. The next one is the last of the list.
    pending: list[tuple[str, int]] = [("", -1)]
    while pending:
        path, size = pending.pop()
        if path and not path.endswith("/"):
            yield path, size
            continue
        found: list[tuple[str, int]] = []
        moving = False
        try:
            stamp = None if note is None else os.stat(f"{root}/{path}")  # noqa: PTH116  # as text: half the time
            with os.scandir(f"{root}/{path}") as entries:
                for entry in entries:
                    if not path and entry.name in leave_out:
                        continue
                    if is_folder(entry):
                        found.append((f"{path}{entry.name}/", -1))
                        moving = moving or entry.is_symlink()
                    elif is_file(entry) and (held := _size(entry)) is not None:
                        found.append((path + entry.name, held))
                    else:
                        moving = True
            if note is not None:
                note(path, None if moving else stamp, sum(held >= 0 for _, held in found))
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
