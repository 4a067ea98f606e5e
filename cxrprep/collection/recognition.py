"""Which dataset a folder looks like, from a sample of the names in it."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.datasets.catalog import catalog
from cxrprep.errors import StorageError
from cxrprep.record import CACHE_NAME

if TYPE_CHECKING:
    from cxrprep.datasets.catalog import DatasetSpec

OWN_FOLDERS: Final = ("manifests", "derived", "export", CACHE_NAME)
"""The folders that the program itself puts below a ROOT."""
_SAMPLE: Final = 2_000
_SURE: Final = 0.5
# A dataset that scores less in a folder where another is sure has nothing there.
_NOTHING: Final = 0.1


def sample_names(root: Path, limit: int = _SAMPLE) -> frozenset[str]:
    """Up to ``limit`` relative paths below ``root``, those near the top first; our own folders are passed over.

    Raises ``StorageError`` when the folder cannot be read.
    """
    names: list[str] = []
    queue = [root]
    while queue and len(names) < limit:
        folder = queue.pop(0)
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if folder == root:
                raise StorageError(f"cannot read {root}: {error.strerror}", hint="check its permissions") from error
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=True):
                if not (folder == root and entry.name in OWN_FOLDERS):
                    queue.append(Path(entry.path))
            elif len(names) < limit:
                names.append(Path(entry.path).relative_to(root).as_posix())
    return frozenset(names)


def recognise(names: frozenset[str]) -> DatasetSpec | None:
    """The dataset that relative paths look like; ``None`` when they look like none."""
    scores = {name: spec.layout().recognise(names) for name, spec in catalog().items()}
    best = max(scores, key=lambda name: scores[name], default="")
    return catalog()[best] if best and scores[best] >= _SURE else None


def contradicts(spec: DatasetSpec, names: frozenset[str]) -> DatasetSpec | None:
    """The dataset that a folder surely is, where nothing in it looks like ``spec``; ``None`` where it may be that."""
    if spec.layout().recognise(names) >= _NOTHING:
        return None
    return recognise(names)


def release_here(spec: DatasetSpec, names: frozenset[str]) -> str:
    """The newest release whose own table is here; the dataset's default when no table tells."""
    bare = {name.rsplit("/", 1)[-1] for name in names}
    for release in spec.releases:
        for table in spec.table:
            if table.release == release and any(fnmatch(name, p) for p in table.patterns for name in bare | names):
                return release
    return spec.default_release
