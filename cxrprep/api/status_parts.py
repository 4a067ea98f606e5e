"""What is here of each part of a dataset, missing files, partial ones and those of another size, counted for status."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from cxrprep.collection import FolderKind
from cxrprep.record.requested import asked
from cxrprep.storage.paths import OWN_FOLDERS, holds_images
from cxrprep.storage.small_files import parse_json, read_text
from cxrprep.storage.unfetched import names_and_sizes, unfetched
from cxrprep.system import FILES_IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrprep.api.folder import DatasetFolder


# What is said of a path: by the disk, the record, a part that came, and a download that asked for it.
_HERE, _RECORDED, _DROPPED, _PARTIAL, _ASKED = range(5)
# So few files are listed sooner than what looks at folders is loaded.
_FEW: Final = 5_000


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part of the dataset: files and bytes here, recorded files that are missing or have another size, partials.

    ``dropped`` are files that were here and went on purpose: converted images, unpacked archives. ``expected`` is how
    many files the release has, ``None`` where that is not published.
    """

    name: str
    title: str
    here: int
    size: int
    missing: int
    wrong_size: int
    partial: int
    dropped: int
    expected: int | None


def count_parts(folder: DatasetFolder) -> tuple[PartStatus, ...]:
    """Each part of the folder's dataset, counted; of one's own folder its files."""
    import pathspec

    parts = folder.spec.part
    matchers = [pathspec.GitIgnoreSpec.from_lines(part.globs) for part in parts]

    def part_of(path: str) -> int:
        # What no part names is listed as the last, "other".
        return next((index for index, matcher in enumerate(matchers) if matcher.match_file(path)), len(parts))

    layout, release = folder.layout, folder.release
    # Of one's own folder any file may be an image, whatever its name.
    own = folder.kind is FolderKind.OWN
    here = ((path, _HERE, size) for path, size in _files(folder))
    recorded = (
        (path, _RECORDED if state == "here" else _DROPPED, size)
        for path, size, state in folder.record.rows(["path", "size", "state"])
    )
    partial = ((path, _PARTIAL, 0) for path in _partials(folder.record.cache))
    wanted = asked(folder.record.cache)
    due = ((path, _ASKED, 0) for (path,) in (wanted.rows() if wanted is not None else ()))
    counts = [[0, 0, 0, 0, 0, 0] for _ in range(len(parts) + 1)]
    # All are in order of path, and none is held.
    for path, said in itertools.groupby(heapq.merge(here, recorded, partial, due), itemgetter(0)):
        size_by = {kind: size for _, kind, size in said}
        if not own and size_by.keys() == {_HERE} and not layout.place(path, release=release):
            continue
        count, size = counts[part_of(path)], size_by.get(_HERE)
        if size is not None:
            count[0] += 1
            count[1] += size
        count[4] += _PARTIAL in size_by
        if _RECORDED in size_by:
            if size != size_by[_RECORDED]:
                count[2 if size is None else 3] += 1
        elif _DROPPED in size_by:
            # A raw file that was dropped on purpose is neither here nor missing.
            count[5] += size is None
        elif _ASKED in size_by and size is None and _PARTIAL not in size_by:
            # Asked for, and not one byte of it came.
            count[2] += 1
    rest = ("files", "files of the folder", None) if own else ("other", "other files of the release", None)
    names = [*((part.name, part.title, part.files) for part in parts), rest]
    rows = [
        PartStatus(name, title, files, size, missing, wrong, partial, dropped, expected)
        for (name, title, expected), (files, size, missing, wrong, partial, dropped) in zip(names, counts, strict=True)
    ]
    return tuple(row for row in rows if row.name != "other" or row.here or row.missing or row.partial)


def count_lost(folder: DatasetFolder) -> int:
    """How many files that a folder's tables state are gone, or have another size; each is looked at, and none read."""
    from cxrprep.storage.folder_stamps import sizes_of
    from cxrprep.storage.parquet import read_groups

    if folder.in_shards or folder.kind is FolderKind.EXPORTED:
        groups = iter([folder.files().select(["path", "size"])])
    else:
        groups = (group for table in folder.image_tables for group in read_groups(table, ["path", "bytes"]))
    there, lost = unfetched(folder.root), 0
    for batch in (batch for group in groups for batch in group.to_batches(max_chunksize=_FEW)):
        paths, sizes = (column.to_pylist() for column in batch.columns)
        for path, size, here in zip(paths, sizes, sizes_of(folder.root, paths), strict=True):
            entry = there.find(path) if here is None and there is not None else None
            held = here if entry is None else entry.size
            # Earlier versions stated no size of a shard.
            lost += held is None or size not in (None, held)
    return lost


def _files(folder: DatasetFolder) -> Iterable[tuple[str, int]]:
    """The files of a folder in order of path; folders that are as they were for its manifest are not listed again.

    measured: 15.4 -> 8.3 s of CPU for 377,110 adopted images in 293,000 folders, on a busy machine.
    """
    record = folder.record
    if unfetched(folder.root) is None and record.exists and _FEW < record.count() <= FILES_IN_MEMORY:
        from cxrprep.storage.folder_stamps import FolderStamps

        paths = (path for path, state in record.rows(["path", "state"]) if state == "here")
        found = FolderStamps(folder.root, record.cache, None).files(paths)
        if found is not None:
            return sorted(found.items())
    return _walk(folder.root)


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """The files of a folder, of the disk and of its bucket, in order of path."""
    from cxrprep.storage.folder_listing import files_below

    there = ((path, size) for path, size in names_and_sizes(root) if path.partition("/")[0] not in OWN_FOLDERS)
    return heapq.merge(files_below(str(root), OWN_FOLDERS, readable_only=True), there)


def _partials(cache: Path) -> Iterator[str]:
    """The release paths of files of which a part is here."""
    seen = set()
    folder = cache / "parts"
    for sidecar in folder.glob("*.part.json") if folder.is_dir() else ():
        try:
            dest = parse_json(read_text(sidecar))["dest"]
        except (OSError, ValueError, KeyError, TypeError):
            # Half a sidecar is a part that will be fetched again; its run says so.
            continue
        if isinstance(dest, str):
            seen.add(dest)
    yield from sorted(seen)


def has_images(folder: DatasetFolder) -> bool:
    """Whether an image is here, or was and was dropped on purpose."""
    return images_or_archives(folder) == "images" or any(
        state != "here" and folder.layout.shows_image(path) for path, state in folder.record.rows(["path", "state"])
    )


def images_or_archives(folder: DatasetFolder) -> str:
    """``images`` where one is here to work on, else ``archives`` where some of images are."""
    held = ""
    for path, _ in _walk(folder.root):
        if folder.layout.shows_image(path):
            return "images"
        held = held or ("archives" if holds_images(path) else "")
    return held
