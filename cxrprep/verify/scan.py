"""What is on the disk: a row per file below ROOT, as columns."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from cxrprep.lock import CACHE_NAME, FILES_NAME, LOCK_NAME
from cxrprep.verify.finding import Finding, Kind, find
from cxrprep.verify.sorted import PART_ROWS, by_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

OWN: Final = frozenset({"manifests", "derived", "export", CACHE_NAME, LOCK_NAME, FILES_NAME})
"""Top-level names that cxrprep itself keeps in a ROOT; they are no part of the release."""

SCHEMA: Final = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("inode", pa.uint64())]
)
_Rows = tuple[list[str], list[int], list[int], list[int]]

# Partial files of a transfer, with their sidecars: they go on with the next download.
_UNFINISHED: Final = re.compile(r"\.part(\.json|\.meta)?$")
# What recursive wget, gsutil, aria2, browsers, editors and file managers leave behind.
_LEFTOVER: Final = re.compile(
    r"(^|/)(index\.html[^/]*|robots\.txt|wget-log[^/]*|\.DS_Store|\._[^/]+|Thumbs\.db|desktop\.ini|__MACOSX/.*|\.nfs[0-9a-f]+)$"
    r"|(_?\.gstmp|\.aria2|\.crdownload|\.partial|\.tmp|\.swp|~)$",
    re.IGNORECASE,
)


def scan(root: Path, leave_out: Iterable[Path] = ()) -> tuple[pa.Table, list[Finding]]:
    """Every file below ``root`` as columns sorted by path, and the folders and names that could not be read.

    Links are followed; cxrprep's own files and the folders ``leave_out`` are passed over. ``size`` is in bytes.
    """
    problems: list[Finding] = []
    skip = {os.fspath(path.resolve()) for path in leave_out}
    batches: list[pa.RecordBatch] = []
    rows: _Rows = ([], [], [], [])
    for path, status in _walk(root, skip, problems):
        try:
            path.encode()
        except UnicodeEncodeError:
            problems.append(find(Kind.EXTRA, ascii(path)[1:-1], "its name is not UTF-8, so it is of no release"))
            continue
        _append(rows, path, status)
        if len(rows[0]) == PART_ROWS:
            batches.append(_batch(rows))
            rows = ([], [], [], [])
    batches.append(_batch(rows))
    return by_path(pa.Table.from_batches(batches, SCHEMA)), problems


def stat_paths(root: Path, paths: Iterable[str]) -> pa.Table:
    """The same columns for these paths only; those that are not there are left out."""
    rows: _Rows = ([], [], [], [])
    for path in sorted(set(paths)):
        try:
            status = (root / path).stat()
        except OSError:
            continue
        _append(rows, path, status)
    return pa.Table.from_batches([_batch(rows)], SCHEMA)


def leftover(path: str) -> Kind | None:
    """``UNFINISHED`` for a partial file of a transfer, ``LEFTOVER`` for other tools' remains, else ``None``."""
    if _UNFINISHED.search(path):
        return Kind.UNFINISHED
    return Kind.LEFTOVER if _LEFTOVER.search(path) else None


def _append(rows: _Rows, path: str, status: os.stat_result) -> None:
    rows[0].append(path)
    rows[1].append(status.st_size)
    rows[2].append(status.st_mtime_ns)
    rows[3].append(status.st_ino)


def _batch(rows: _Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(values, field.type) for values, field in zip(rows, SCHEMA, strict=True)], schema=SCHEMA
    )


def _walk(root: Path, skip: set[str], problems: list[Finding]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file in order of path, with its status; folders are gone into where their names stand in that order."""
    top = root.stat()
    stack = [(iter(_entries(os.fspath(root), "", problems)), "", frozenset({(top.st_dev, top.st_ino)}))]
    while stack:
        entries, prefix, above = stack[-1]
        for entry in entries:
            path = prefix + entry.name
            if not prefix and entry.name in OWN:
                continue
            try:
                status = entry.stat()
                if not stat.S_ISDIR(status.st_mode):
                    yield path, status
                    continue
            except FileNotFoundError:
                if entry.is_symlink():
                    problems.append(find(Kind.UNCHECKED, path, "the link leads to nothing"))
                continue
            except OSError as error:
                problems.append(find(Kind.UNCHECKED, path, f"cannot be read: {error.strerror}"))
                continue
            # A link to a folder above it would never end.
            identity = (status.st_dev, status.st_ino)
            if identity not in above and not (skip and os.path.realpath(entry.path) in skip):
                inside = iter(_entries(entry.path, path, problems))
                stack.append((inside, f"{path}/", above | {identity}))
                break
        else:
            stack.pop()


def _entries(folder: str, path: str, problems: list[Finding]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            # What is in a folder comes after "name/", as it does when whole paths are sorted.
            return sorted(entries, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)
    except OSError as error:
        problems.append(find(Kind.UNCHECKED, path or ".", f"the folder cannot be read: {error.strerror}"))
        return []
