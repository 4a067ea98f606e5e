"""Which image files a folder holds: the folder is listed, and the record says what it knows of each file.

The record alone would name files that somebody removed since, and leave out those that somebody put there.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import StorageError, UsageError
from cxrprep.events import Note
from cxrprep.labels.values import projection_of
from cxrprep.model import Digest
from cxrprep.schemas import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.datasets.spec import DatasetSpec
    from cxrprep.events import Sink

# What cxrprep itself puts beside a release.
_OURS: Final = frozenset({".cxrprep", "manifests", "derived", "export"})


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The image files of a release that are here: one per image, with the ids that its path states.

    ``second_copies`` counts further files of the same image, ``foreign`` image files that are not of the release.
    """

    path: pa.Array
    size: pa.Array
    digest: pa.Array
    image: pa.Array
    study: pa.Array
    patient: pa.Array
    view: pa.Array
    projection: pa.Array
    second_copies: int = 0
    foreign: int = 0

    @property
    def rows(self) -> int:
        """The number of images."""
        return len(self.path)


def _listed(root: Path, suffixes: tuple[str, ...]) -> pa.Table:
    paths, sizes = [], []
    try:
        for path, size in _walk(str(root), ""):
            if path.lower().endswith(suffixes):
                paths.append(path)
                sizes.append(size)
    except OSError as error:
        raise StorageError(
            f"cannot list {error.filename}: {error.strerror}", hint="make the folder readable"
        ) from error
    table = {"path": pa.array(paths, pa.string()), "size": pa.array(sizes, pa.int64())}
    return pa.table({**table, "digest": pa.nulls(len(paths), pa.string())})


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if prefix or entry.name not in _OURS:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size


def _with_digests(listed: pa.Table, files: pa.Table) -> pa.Table:
    """``listed`` with the digests of the record; of a file that has another size now, none is known."""
    place = pc.index_in(listed.column("path"), value_set=files.column("path").combine_chunks())
    digest = files.column("digest").take(place)
    same = pc.equal(files.column("size").take(place), listed.column("size"))
    known = pc.if_else(same, digest, pa.scalar(None, pa.string()))
    return listed.set_column(2, "digest", known)


def _discarded(files: pa.Table, suffixes: tuple[str, ...]) -> pa.Table:
    """What the record says of images that were here and were used up."""
    gone = pc.equal(files.column("state").cast(pa.string()), "discarded")
    lowered = pc.utf8_lower(files.column("path"))
    named = [pc.ends_with(lowered, suffix) for suffix in suffixes]
    return files.select(["path", "size", "digest"]).filter(pc.and_(gone, functools.reduce(pc.or_, named)))


def digest_of_files(files: pa.Table) -> Digest:
    """A digest of what the record says is here: paths, sizes and digests, whenever and in whatever order they came."""
    here = files.filter(pc.equal(files.column("state").cast(pa.string()), "here")).sort_by("path")
    hasher = hashlib.sha256()
    rows = (here.column(name).to_pylist() for name in ("path", "size", "digest"))
    for path, size, digest in zip(*rows, strict=True):
        hasher.update(f"{path}\t{size}\t{digest or ''}\n".encode())
    return Digest("sha256", hasher.hexdigest())


def image_files(
    spec: DatasetSpec,
    root: Path,
    files: pa.Table | None,
    *,
    release: str,
    discarded: bool = False,
    on_event: Sink,
) -> ImageFiles:
    """The image files of the folder, with the digests that the record ``files`` knows; ``discarded`` ones on request.

    An image that two files show is taken once: the suffix that the release lists first wins, then the first path.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="name the folder that holds the dataset, or download it first")
    suffixes = spec.images.suffixes
    table = _listed(root, suffixes)
    if files is not None:
        table = _with_digests(table, files)
        if discarded:
            table = pa.concat_tables([table, _discarded(files, suffixes).cast(table.schema)])
    table = table.sort_by("path")
    layout = spec.layout(release)
    rank = {suffix: index for index, suffix in enumerate(suffixes)}
    best: dict[str, tuple[int, int]] = {}
    ids: list[Any] = []
    foreign: list[str] = []
    second: list[str] = []
    paths = table.column("path").to_pylist()
    for row, path in enumerate(paths):
        identity = layout.parse(path)
        ids.append(identity)
        if identity is None:
            foreign.append(path)
            continue
        order = rank.get(path[path.rfind(".") :].lower(), len(rank))
        held = best.get(identity.image)
        if held is not None:
            second.append(path if held[0] <= order else paths[held[1]])
        if held is None or order < held[0]:
            best[identity.image] = (order, row)
    for found, what in (
        (second, "show images that another file shows already"),
        (foreign, "are no images of the release"),
    ):
        if found:
            on_event(Note("manifest", f"{len(found):,} image files {what}; the first: {found[0]}", "warning"))
    rows = [row for _, row in best.values()]
    kept = [ids[row] for row in rows]
    view = (
        pa.array([None if i.view is None else str(i.view) for i in kept], pa.string())
        .dictionary_encode()
        .cast(CATEGORY)
    )
    taken = table.take(pa.array(rows, pa.int64()))
    return ImageFiles(
        path=taken.column("path").combine_chunks(),
        size=taken.column("size").combine_chunks(),
        digest=taken.column("digest").combine_chunks(),
        image=pa.array([i.image for i in kept], pa.string()),
        study=pa.array([i.study for i in kept], pa.string()),
        patient=pa.array([i.patient for i in kept], pa.string()),
        view=view,
        projection=projection_of(view),
        second_copies=len(second),
        foreign=len(foreign),
    )
