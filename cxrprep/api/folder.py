"""Which dataset a folder holds, and which mirror a name means: the questions before every verb."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.datasets.catalog import catalog, find_dataset
from cxrprep.errors import StorageError, UsageError, did_you_mean
from cxrprep.record import CACHE_NAME, Record
from cxrprep.sources.urls import behind

if TYPE_CHECKING:
    from cxrprep.datasets.catalog import DatasetSpec, Mirror
    from cxrprep.datasets.layout import Layout

OWN_FOLDERS: Final = ("manifests", "derived", "export", CACHE_NAME)
_SAMPLE: Final = 2_000
_SURE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Folder:
    """A ROOT and what it holds. ``home`` is where record, cache and manifests lie: ROOT, or the ``--state`` folder."""

    root: Path
    home: Path
    spec: DatasetSpec
    release: str
    record: Record

    @property
    def layout(self) -> Layout:
        """The paths of the dataset."""
        return self.spec.layout(self.release)

    def derived(self, name: str) -> Path:
        """The folder of the images that a recipe of this name makes, where no other is named."""
        return self.home / "derived" / name

    @property
    def manifests(self) -> Path:
        """Where the manifests lie."""
        return self.home / "manifests"


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


def _recognise(root: Path, names: frozenset[str]) -> DatasetSpec:
    spec = recognise(names)
    if spec is None:
        raise UsageError(
            f"{root} is no dataset that cxrprep knows",
            hint=f"say which it is: --dataset {'|'.join(catalog())}",
        )
    return spec


def _release_here(spec: DatasetSpec, names: frozenset[str]) -> str:
    """The newest release whose own table is here; the dataset's default when no table tells."""
    bare = {name.rsplit("/", 1)[-1] for name in names}
    for release in spec.releases:
        for table in spec.table:
            if table.release == release and any(fnmatch(name, p) for p in table.patterns for name in bare | names):
                return release
    return spec.default_release


def open_folder(
    root: Path,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | None = None,
) -> Folder:
    """The folder with its dataset: what the record says, what the caller says, or what the files look like.

    Raises ``UsageError`` for a folder that is not there, that holds another dataset, or that nobody recognises.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}", hint="check the path, or run: cxrprep download DATASET ROOT")
    spec = find_dataset(dataset) if dataset else None
    record = Record.open(root, state)
    header = record.header
    if header.dataset:
        held = find_dataset(header.dataset)
        if spec is not None and spec.name != held.name:
            raise UsageError(
                f"{root} holds {held.name}, as its record says, not {spec.name}",
                hint="leave --dataset out, or name another folder",
            )
        return Folder(root, record.home, held, _checked(held, release) or header.release, record)
    names = sample_names(root)
    spec = spec or _recognise(root, names)
    return Folder(root, record.home, spec, _checked(spec, release) or _release_here(spec, names), record)


def _checked(spec: DatasetSpec, release: str | None) -> str | None:
    """``release`` when the dataset has it. Raises ``UsageError`` otherwise."""
    if release is None or release in spec.releases:
        return release
    raise UsageError(f"{spec.name} has no release {release!r}", hint=f"its releases: {', '.join(spec.releases)}")


@dataclass(frozen=True, slots=True)
class Place:
    """A mirror to fetch from: its address, the catalog's entry when it is a known one, and the release it serves."""

    url: str
    release: str
    mirror: Mirror | None = None


def folder_words(root: Path, home: Path) -> list[str]:
    """A folder as commands name it: with ``--state`` where its record lies elsewhere, in ``home``."""
    return [str(root), *(["--state", str(home)] if home != root else [])]


def find_place(spec: DatasetSpec, source: str | None, release: str | None = None) -> Place:
    """The mirror that ``--source`` means: a name of the catalog, an address, or a folder; the default for ``None``.

    Raises ``UsageError`` that suggests the nearest name, and for a signed URL, which does not belong on a command line.
    """
    wanted = _checked(spec, release)
    name = behind(source or spec.default_mirror)
    if "://" in name:
        lowered = name.lower()
        if "sig=" in lowered or "x-goog-signature=" in lowered or "x-amz-signature=" in lowered:
            raise UsageError(
                "a signed URL on the command line can be read by every user of this machine",
                hint="save it in a file and name it: --source portal --url-file FILE; or set CHEXPERT_URL",
            )
        known = next((m for m in spec.mirror if m.url == name and wanted in (None, m.release)), None)
        return Place(name, wanted or (known.release if known else spec.default_release), known)
    candidates = [m for m in spec.mirror if m.name == name]
    if candidates:
        mirror = next((m for m in candidates if m.release == wanted), candidates[0])
        if wanted is not None and mirror.release != wanted:
            raise UsageError(
                f"the mirror {name} serves {spec.name} {mirror.release}, not {wanted}",
                hint=f"leave --release out, or name another of: {', '.join(m.name for m in spec.mirror)}",
            )
        return Place(mirror.url, mirror.release, mirror)
    path = Path(name).expanduser()
    if path.is_dir():
        folder = path.resolve()
        return Place(folder.as_uri(), wanted or _release_here(spec, sample_names(folder)))
    mirrors = [mirror.name for mirror in spec.mirror]
    raise UsageError(
        f"{name!r} is neither a mirror of {spec.name} nor a folder",
        hint=f"{did_you_mean(name, mirrors)}mirrors: {', '.join(mirrors)}; or give an address or an existing folder",
    )
