"""Which dataset a folder looks like, from a sample of the names in it."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

from cxrprep.datasets.catalog import catalog, is_built_in
from cxrprep.errors import StorageError
from cxrprep.storage.paths import OWN_FOLDERS, is_folder
from cxrprep.storage.unfetched import names_and_sizes

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec

_SAMPLE: Final = 2_000
# measured: `report` on MIMIC-CXR-JPG's 377,110 images spent a third of its time on entering all 66,000 folders.
_FOLDERS: Final = 500
_FEW: Final = 20
_SURE: Final = 0.5
# A dataset that scores less in a folder where another is sure has nothing there.
_NOTHING: Final = 0.1


def sample_names(root: Path) -> frozenset[str]:
    """Up to ``_SAMPLE`` relative paths below ``root``; our own folders are passed over.

    Folders are entered level by level in turn, the top first, so that what lies near the top is seen and a release with
    a folder for each of 65,000 patients need not be walked to reach its first image. Where files were found, no more
    than ``_FOLDERS`` folders are entered; where none were, all are.

    Raises ``StorageError`` when the folder cannot be read.
    """
    names: list[str] = []
    waiting: dict[int, deque[str]] = {0: deque([""])}
    entered: Counter[int] = Counter()
    while waiting and len(names) < _SAMPLE and (entered.total() < _FOLDERS or len(names) < _FEW):
        level = min(waiting, key=lambda depth: (entered[depth], depth))
        folder = waiting[level].popleft()
        if not waiting[level]:
            del waiting[level]
        entered[level] += 1
        below = waiting.get(level + 1) or deque()
        for name, leads_on in _entries(root, folder):
            if not leads_on:
                names.append(folder + name)
            elif folder or name not in OWN_FOLDERS:
                below.append(f"{folder}{name}/")
        if below:
            waiting[level + 1] = below
    # Those of a bucket that lie there alone, in order of path: evenly, so that the last folders are seen too.
    there = [name for name, _ in names_and_sizes(root) if name.partition("/")[0] not in OWN_FOLDERS]
    return frozenset(names[:_SAMPLE]) | frozenset(there[:: max(1, len(there) // _SAMPLE)])


def _entries(root: Path, folder: str) -> list[tuple[str, bool]]:
    try:
        with os.scandir(root / folder) as found:
            # Of a large folder below the top a part is enough, and MIMIC-CXR has one for each patient.
            some = itertools.islice(found, _SAMPLE) if folder else found
            return sorted((entry.name, is_folder(entry)) for entry in some)
    except OSError as error:
        if not folder:
            raise StorageError(f"cannot read {root}: {error.strerror}", hint="check its permissions") from error
        return []


def recognise(names: frozenset[str]) -> DatasetSpec | None:
    """The dataset that relative paths look like; ``None`` when they look like none.

    Of two that share images, as CheXlocalize has CheXpert's, it is the one whose own tables are here.
    """
    if not names:
        # In a new folder nothing is; to read what each dataset looks like takes 0.06 s.
        return None
    known = catalog()
    scores = {name: spec.layout().recognise(names) for name, spec in known.items()}
    best = max(scores, key=lambda name: scores[name], default="")
    if not best or scores[best] < _SURE:
        return None
    others = [known[name] for name, score in scores.items() if score >= _SURE and name != best]
    return next((other for other in others if _has_tables_of(other, known[best], names)), known[best])


def contradicts(spec: DatasetSpec, names: frozenset[str]) -> DatasetSpec | None:
    """The dataset that a folder surely is, where nothing in it is of ``spec`` alone; ``None`` where it may be that."""
    found = recognise(names)
    if found is None or spec.layout().recognise(names) < _NOTHING:
        return found
    # A file of somebody's own may name as few of the tables as it needs.
    return found if is_built_in(spec.name) and _has_tables_of(found, spec, names) else None


def holds_nothing_of(spec: DatasetSpec, names: frozenset[str]) -> bool:
    """Whether none of these paths is an image or a table of a dataset."""
    return spec.layout().recognise(names) == 0 and not _tables_of(spec, names)


def _has_tables_of(found: DatasetSpec, other: DatasetSpec, names: frozenset[str]) -> bool:
    """Whether tables are here that only ``found`` has, and none that only ``other`` has."""
    mine, theirs = _tables_of(found, names), _tables_of(other, names)
    return bool(mine - theirs) and not theirs - mine


def _tables_of(spec: DatasetSpec, names: frozenset[str]) -> set[str]:
    return {
        name for name in names for table in spec.table if any(fnmatch(f"/{name}", f"*/{p}") for p in table.patterns)
    }


def release_here(spec: DatasetSpec, names: frozenset[str]) -> str:
    """The newest release whose own table is here; the dataset's default when no table tells."""
    bare = {name.rsplit("/", 1)[-1] for name in names}
    for release in spec.releases:
        for table in spec.table:
            if table.release == release and any(fnmatch(name, p) for p in table.patterns for name in bare | names):
                return release
    return spec.default_release
