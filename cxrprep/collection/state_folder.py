"""The folder that --state names: which ROOT its record and tables are of, so that no other one's take their place."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Final

from cxrprep.collection.lineage import IMAGES_NAME, read_lineage
from cxrprep.errors import StorageError, UsageError
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.small_files import read_text
from cxrprep.storage.table_checksums import list_elsewhere
from cxrprep.storage.working_copy_paths import address_of

_NOTE: Final = "root"


def note_root(root: Path, home: Path) -> None:
    """Note in ``home`` that its record and tables are those of ``root``; nothing where neither was written."""
    cache = home / CACHE_NAME
    if address_of(str(home)) is not None or _same(home, root) or not (cache.is_dir() or (home / "manifests").is_dir()):
        return
    words = address_of(str(root)) or str(root.absolute())
    if _noted(home) != words:
        # Without it nothing but this question goes unanswered.
        with contextlib.suppress(StorageError):
            replace_file(cache / _NOTE, lambda part: part.write_text(words, encoding="utf-8"))


def check_state(root: Path, home: Path) -> None:
    """Raise ``UsageError`` where ``home`` has the record or the tables of another folder than ``root``.

    One folder of state for two would give either the rows of the other. A folder that is gone has been moved: its state
    goes with it. What is written into ``root`` from now on is listed in ``home``.
    """
    noted, same = _noted(home), _same(home, root)
    if noted and Path(noted).is_dir() and not _same(Path(noted), root):
        note = shlex.quote(str(home / CACHE_NAME / _NOTE))
        if same:
            both = shlex.join([noted, "--state", str(home)])
            raise UsageError(f"{home} is the --state folder of {noted}", hint=f"name both: {both}")
        raise UsageError(
            f"{home} is the --state folder of {noted}, not of {root}",
            hint=f"name a folder of its own with --state; if the one takes the place of the other: rm {note}",
        )
    list_elsewhere(root, home)
    if same or not (home / "manifests" / IMAGES_NAME).is_file():
        return
    if not noted and _holds_its_images(home):
        raise UsageError(f"{home} holds images itself, and tables of them", hint="name another folder with --state")
    if not (root / "manifests" / IMAGES_NAME).is_file():
        return
    here, there = (read_lineage(place / "manifests") for place in (root, home))
    if (here is None) != (there is None):
        words = ["converted images" if lineage is not None else "originals" for lineage in (here, there)]
        raise UsageError(
            f"{home} holds tables of {words[1]}, and {root} holds {words[0]}",
            hint="name a folder of its own with --state",
        )


def _noted(home: Path) -> str:
    try:
        return read_text(home / CACHE_NAME / _NOTE)
    except (OSError, ValueError):
        return ""


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _holds_its_images(home: Path) -> bool:
    """Whether the first image of the table in ``home`` lies there."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(home / "manifests" / IMAGES_NAME) as table:
            first = next(table.iter_batches(1, columns=["path"]), None)
    except (OSError, ValueError, KeyError):
        # Whoever reads the table says what is wrong with it.
        return False
    path = str(first["path"][0]) if first is not None and first.num_columns and first.num_rows else ""
    return path != "" and (home / path).is_file()
