"""Scan of the disk: a row per file below ROOT, as columns."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.storage.paths import OWN_NAMES, is_folder
from cxrprep.storage.unfetched import Unfetched, unfetched
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cxrprep.storage.filesystem import StoredFile

SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("inode", pa.uint64()),
        # The digest that a store states of a file that lies there alone.
        ("stated", pa.string()),
    ]
)
# The first part is small, so that reading begins at once; later ones are large enough for columns to pay.
_FIRST_ROWS: Final = 512
_ROWS: Final = 4096
_File = tuple[str, int, int, int, str | None]

# Partial files of a transfer, with their sidecars: they go on with the next download.
_UNFINISHED: Final = re.compile(r"\.part(\.json|\.meta)?$")
# What recursive wget, gsutil, aria2, browsers, editors and file managers leave behind.
_LEFTOVER: Final = re.compile(
    r"(^|/)(index\.html[^/]*|robots\.txt|wget-log[^/]*|\.DS_Store|\._[^/]+|Thumbs\.db|desktop\.ini|__MACOSX/.*|\.nfs[0-9a-f]+)$"
    r"|(_?\.gstmp|\.aria2|\.crdownload|\.partial|\.tmp|\.swp|~)$",
    re.IGNORECASE,
)


def scan(root: Path, problems: list[Finding], leave_out: Iterable[Path] = ()) -> Iterator[pa.Table]:
    """Every file below ``root`` as columns, some thousand rows at a time, in order of path, while it is being listed.

    Links are followed; cxrprep's own files and the folders ``leave_out`` are passed over. ``size`` is in bytes. Folders
    and names that cannot be read are added to ``problems``.
    """
    skip = {os.fspath(path.resolve()) for path in leave_out}
    rows: list[_File] = []
    enough = _FIRST_ROWS
    for file in _files(root, skip, problems):
        path = file[0]
        if not path.isascii() and not _is_text(path):
            problems.append(
                make_finding(Kind.EXTRA, ascii(path)[1:-1], "its name is not UTF-8, so it is of no release")
            )
            continue
        rows.append(file)
        if len(rows) == enough:
            yield _table(rows)
            rows = []
            enough = min(2 * enough, _ROWS)
    if rows:
        yield _table(rows)


def _files(root: Path, skip: set[str], problems: list[Finding]) -> Iterator[_File]:
    """Every file in order of path: those of the disk, and of a bucket those that lie there alone."""
    here = (
        (path, found.st_size, found.st_mtime_ns, found.st_ino, None)
        for path, found in _walk(os.fspath(root), skip, problems)
    )
    there = unfetched(root)
    if there is None:
        yield from here
        return
    stored = (_in_bucket(there, entry) for entry in there.files() if entry.name.partition("/")[0] not in OWN_NAMES)
    last = ""
    for file in heapq.merge(here, stored, key=itemgetter(0)):
        # One that came meanwhile is on the disk too, and was told first.
        if file[0] != last:
            yield file
        last = file[0]


def _in_bucket(there: Unfetched, entry: StoredFile) -> _File:
    """A file that a store holds: its ETag or generation stands for time and inode, which change with the content."""
    stamp = int.from_bytes(hashlib.sha256(entry.stamp.encode()).digest()[:8])
    stated = there.store.stated_digest(entry)
    return entry.name, entry.size, 0, stamp, None if stated is None else str(stated)


def stat_paths(root: Path, paths: Iterable[str]) -> pa.Table:
    """The same columns for these paths only; those that are not on the disk are left out."""
    rows: list[_File] = []
    for path in sorted(set(paths)):
        try:
            status = (root / path).stat()
        except OSError:
            continue
        rows.append((path, status.st_size, status.st_mtime_ns, status.st_ino, None))
    return _table(rows)


def leftover(path: str) -> Kind | None:
    """``UNFINISHED`` for a partial file of a transfer, ``LEFTOVER`` for other tools' remains, else ``None``."""
    if _UNFINISHED.search(path):
        return Kind.UNFINISHED
    return Kind.LEFTOVER if _LEFTOVER.search(path) else None


def _table(rows: list[_File]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(root: str, skip: set[str], problems: list[Finding]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file in order of path, with its status; folders are gone into where their names stand in that order."""
    # By its name first: to ask of every folder where it leads costs more than to list it.
    names = {os.path.basename(path) for path in skip}  # noqa: PTH119  # paths as text, as everywhere here
    stack = [(root, "", iter(_entries(root, "", problems)))]
    while stack:
        _, prefix, entries = stack[-1]
        for name, entry in entries:
            path = prefix + entry.name
            if not prefix and entry.name in OWN_NAMES:
                continue
            try:
                if not name.endswith("/"):
                    yield path, entry.stat()
                    continue
                # A link to a folder above it would never end.
                if entry.is_symlink() and _is_above(entry.path, stack):
                    continue
            except FileNotFoundError:
                if entry.is_symlink():
                    problems.append(make_finding(Kind.UNCHECKED, path, "the link leads to nothing"))
                continue
            except OSError as error:
                problems.append(make_finding(Kind.UNCHECKED, path, f"cannot be read: {error.strerror}"))
                continue
            is_named = bool(skip) and (entry.name in names or entry.is_symlink())
            if not (is_named and os.path.realpath(entry.path) in skip):
                stack.append((entry.path, f"{path}/", iter(_entries(entry.path, path, problems))))
                break
        else:
            stack.pop()


def _is_above(link: str, stack: list[tuple[str, str, Iterator[Any]]]) -> bool:
    target = Path(link).stat()
    return any(os.path.samestat(target, Path(folder).stat()) for folder, _, _ in stack)


def _entries(folder: str, path: str, problems: list[Finding]) -> list[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            # What is in a folder comes after "name/", as it does when whole paths are sorted.
            return sorted((f"{entry.name}/" if is_folder(entry) else entry.name, entry) for entry in entries)
    except OSError as error:
        problems.append(make_finding(Kind.UNCHECKED, path or ".", f"the folder cannot be read: {error.strerror}"))
        return []
