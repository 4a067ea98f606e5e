"""Checksums of what was written into a folder: a list, ``manifests/SHA256SUMS``, that ``sha256sum -c`` reads too.

It names the tables beside it, and by their paths what somebody had written elsewhere in the folder (``--out``).

A flipped bit in a table of labels looks like any other label: only a checksum from when it was written tells them
apart. A table and its line cannot be put in place in one step, so that the list names the new checksum beside the old
one before the table is replaced, and alone afterwards: whenever the program is killed, one that it
names holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import storage_errors
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import LOCK_NAME, OWN_FOLDERS, is_safe
from cxrprep.storage.small_files import open_file, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIST_NAME: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")
_MANIFESTS: Final = "manifests"
# Folders whose record lies elsewhere (``--state``), with where it does: their list is there.
_HOMES: Final[dict[Path, Path]] = {}


def list_elsewhere(root: Path, home: Path) -> None:
    """From now on, note what is written into ``root`` in the list of ``home``."""
    _HOMES[Path(os.path.normpath(root.absolute()))] = home.absolute()


def replace_listed(path: Path, write: Callable[[Path], object], folder: Path | None = None) -> None:
    """Let ``write`` fill ``path`` as ``replace_file`` does, and note its checksum in the list of ``folder``.

    ``folder`` is by default the manifests that ``path`` lies in, or those of the folder around it; elsewhere no list is
    kept. Raises ``StorageError``.
    """
    home = folder or _list_folder(path)
    if home is None:
        replace_file(path, write)
        return
    digest = ""

    def write_and_note(part: Path) -> None:
        nonlocal digest
        write(part)
        digest = _sha256(part)
        _note(home, _name(path, home), digest, beside=True)

    replace_file(path, write_and_note)
    _note(home, _name(path, home), digest)


def note_checksum(path: Path) -> None:
    """Note the checksum of a table that stays as it is. Raises ``StorageError``."""
    if (home := _list_folder(path)) is not None:
        with storage_errors(path, "read"):
            digest = _sha256(path)
        _note(home, _name(path, home), digest)


def forget_checksum(folder: Path, name: str) -> None:
    """State nothing of ``name`` any more: somebody else's file has taken its place. Raises ``StorageError``."""
    if name in listed_checksums(folder):
        _note(folder, name, "")


def listed_checksums(folder: Path) -> dict[str, list[str]]:
    """The SHA-256 that a file may have, by its name relative to ``folder``; a line that cannot be read says nothing."""
    try:
        text = read_file(folder / LIST_NAME).decode("utf-8", "replace")
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match[2], []).append(match[1])
    return found


def is_as_listed(path: Path) -> bool | None:
    """Whether a file has bytes that its folder's list states; ``None`` where it states none. Raises ``OSError``."""
    stated = listed_checksums(path.parent).get(path.name)
    return _sha256(path) in stated if stated else None


def digest_as_written(path: Path) -> str:
    """The ``sha256:...`` of a table; of one that was altered the one that its list states. Raises ``OSError``."""
    found = _sha256(path)
    stated = listed_checksums(path.parent).get(path.name, [found])
    return f"sha256:{found if found in stated else stated[-1]}"


def _list_folder(path: Path) -> Path | None:
    """The folder of ``path`` where it is one of manifests, of a whole folder or of a part of a job array.

    Else that of the nearest folder above with a record, here or elsewhere, or tables, but for its own folders.
    """
    if _MANIFESTS in (path.parent.name, path.parent.parent.parent.name):
        return path.parent
    for above in Path(os.path.normpath(path.absolute())).parents:
        home = _HOMES.get(above, above)
        place = home / _MANIFESTS
        if home != above or (above / LOCK_NAME).is_file() or (place / LIST_NAME).is_file():
            inside = os.path.relpath(path, above).replace(os.sep, "/")
            is_theirs = inside.partition("/")[0] not in OWN_FOLDERS and is_safe(inside)
            return place if is_theirs and os.access(place if place.is_dir() else home, os.W_OK) else None
    return None


def _name(path: Path, home: Path) -> str:
    return os.path.relpath(path, home).replace(os.sep, "/")


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(folder: Path, name: str, digest: str, *, beside: bool = False) -> None:
    """State ``digest`` for ``name``: alone, or ``beside`` what is stated already. Lines of files that went go too.

    No ``digest`` states nothing.
    """
    with _one_at_a_time(folder):
        before = listed_checksums(folder)
        known = before.get(name, []) if beside else []
        after = {one: held for one, held in before.items() if one == name or (folder / one).is_file()}
        after[name] = [*(one for one in known if one != digest), *filter(None, [digest])]
        if after != before:
            text = "".join(f"{one}  {file}\n" for file in sorted(after) for one in after[file])
            replace_file(folder / LIST_NAME, lambda part: part.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other writers of the list out; where the file system knows no locks, they are as rare as the writes are."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
