"""Requested files: what downloads into a folder asked for, and so what must be in it.

``.cxrprep/asked/`` holds a list of release paths for each selection (and shard of it), one a line, as the mirror listed
them when the download began, and their checksum in the last line: a damaged name would be missing for ever. Like all of
``.cxrprep`` it may be lost; a missing file that was never fetched then goes unnoticed, and the report says that this
was not checked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from itertools import islice
from typing import IO, TYPE_CHECKING, Final

from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import open_file, regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrprep.model import Selection, Shard
    from cxrprep.storage.sorted_tables import SortedTable

_FOLDER: Final = "asked"
_IN_MEMORY: Final = 8 << 20
_PIECE: Final = 1 << 20
_LINES: Final = 16_384


def remember(cache: Path, selection: Selection, paths: Iterable[str], shard: Shard | None = None) -> None:
    """Keep what a download is about to fetch; a later one of the same selection replaces it.

    Args:
        cache: The folder's cache.
        selection: What was asked for.
        paths: The files that this means.
        shard: The part of a job array.

    Raises:
        StorageError: The disk refuses.
    """
    # Text, and not Parquet: a download that begins has no need of pyarrow yet, which takes long to load.
    kept = cache / _FOLDER / _name(selection, shard)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as body:
        body.writelines(_with_checksum(paths))
        if not _holds(kept, body):
            body.seek(0)
            replace_file(kept, lambda part: _copy(body, part))


def _with_checksum(paths: Iterable[str]) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    for path in paths:
        line = f"{path}\n".encode()
        hasher.update(line)
        yield line
    # No path has a tab.
    yield f"\t{hasher.hexdigest()}\n".encode()


def _copy(body: IO[bytes], part: Path) -> None:
    with part.open("wb") as file:
        shutil.copyfileobj(body, file)


def _holds(path: Path, body: IO[bytes]) -> bool:
    try:
        if path.stat().st_size != body.tell():
            return False
        body.seek(0)
        with open_file(path) as file:
            return all(file.read(_PIECE) == piece for piece in iter(lambda: body.read(_PIECE), b""))
    except OSError:
        return False


def asked(cache: Path) -> SortedTable | None:
    """All release paths that were asked for (``path``), sorted; ``None`` where no list is left or one is damaged.

    One that several downloads asked for stands there several times.
    """
    from cxrprep.storage.sorted_tables import SortedTable

    lists = sorted((cache / _FOLDER).glob("*.txt"))
    found = SortedTable.of({"path": "string"}, "path")
    for path in lists:
        hasher, stated = hashlib.sha256(), ""
        try:
            with regular(path).open(encoding="utf-8", newline="\n") as file:
                while lines := list(islice(file, _LINES)):
                    if not lines[-1].endswith("\n"):
                        return None
                    if lines[-1].startswith("\t"):
                        stated = lines.pop().strip()
                    hasher.update("".join(lines).encode())
                    found.add_rows([(line[:-1],) for line in lines])
        except (OSError, ValueError):
            return None
        # Earlier versions stated none.
        if stated not in ("", hasher.hexdigest()):
            return None
    return found if lists else None


def _name(selection: Selection, shard: Shard | None) -> str:
    stated = {name: _plain(getattr(selection, name)) for name in selection.__slots__}
    digest = hashlib.blake2b(json.dumps(stated, sort_keys=True).encode(), digest_size=10).hexdigest()
    return f"{digest}{f'.{shard.in_names}' if shard is not None else ''}.txt"


def _plain(value: object) -> object:
    if isinstance(value, (frozenset, tuple)):
        return sorted(map(str, value))
    return value
