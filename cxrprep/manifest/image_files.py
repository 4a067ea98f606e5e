"""Image files of a folder: the folder is listed, and the record adds what it knows of each file.

The record alone would name files that somebody removed since, and leave out those that somebody put there.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError, storage_error
from cxrprep.events import Note, Sink
from cxrprep.labels.columns import projection_of
from cxrprep.labels.joins import all_distinct
from cxrprep.model import Digest
from cxrprep.schemas import CATEGORY
from cxrprep.storage.folder_listing import files_below
from cxrprep.storage.parquet import read_combined
from cxrprep.storage.paths import OWN_FOLDERS
from cxrprep.storage.unfetched import names_and_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.datasets.layout import Layout
    from cxrprep.storage.folder_stamps import FolderStamps

RECORDED: Final = ("path", "size", "digest", "state")
"""The columns of the record that a manifest is made from."""
LISTED: Final = pa.schema([("path", pa.string()), ("size", pa.int64()), ("digest", pa.string())])
IDS: Final = pa.schema([(name, pa.string()) for name in ("image", "study", "patient", "view", "projection", "split")])
# As many paths are objects of Python at once: all of them would take more room than the tables.
_PART: Final = 16_384


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
    split: pa.Array
    second_copies: int = 0
    foreign: int = 0

    @property
    def rows(self) -> int:
        """The number of images."""
        return len(self.path)


def listed_files(root: Path, suffixes: tuple[str, ...], stamps: FolderStamps | None = None) -> Iterator[pa.Table]:
    """Path and size of the files of a folder with one of these suffixes, and a null for the digest, part by part.

    Its folders are noted in ``stamps``. Raises ``StorageError``.
    """
    note = None if stamps is None else stamps.begin()
    found = itertools.chain(files_below(str(root), OWN_FOLDERS, note=note), names_and_sizes(root))
    # What cxrprep itself puts beside a release is none of it.
    theirs = (one for one in found if one[0].partition("/")[0] not in OWN_FOLDERS)
    walk = ((path, size, None) for path, size in theirs if path.lower().endswith(suffixes))
    try:
        while some := list(itertools.islice(walk, _PART)):
            columns = [pa.array(c, f.type) for c, f in zip(zip(*some, strict=True), LISTED, strict=True)]
            yield pa.table(columns, schema=LISTED)
    except OSError as error:
        raise storage_error(error.filename, "list", error) from error


def with_digests(listed: pa.Table, files: pa.Table) -> pa.Table:
    """``listed`` with the digests of the record; of a file that has another size now, none is known."""
    place = pc.index_in(listed.column("path"), value_set=files.column("path").combine_chunks())
    digest = files.column("digest").take(place)
    same = pc.equal(files.column("size").take(place), listed.column("size"))
    known = pc.if_else(same, digest, pa.scalar(None, pa.string()))
    return listed.set_column(2, "digest", pc.coalesce(listed.column("digest"), known))


def _of_manifest(path: Path) -> pa.Table:
    """Paths, sizes and digests by an earlier manifest: a record that was lost since has told it once."""
    try:
        return read_combined(path, ["path", "bytes", "digest"]).rename_columns(list(LISTED.names))
    except (OSError, pa.ArrowException):
        return LISTED.empty_table()


def _discarded(files: pa.Table, suffixes: tuple[str, ...]) -> pa.Table:
    """What the record says of images that were here and were used up."""
    gone = pc.equal(files.column("state").cast(pa.string()), "discarded")
    lowered = pc.utf8_lower(files.column("path"))
    named = [pc.ends_with(lowered, suffix) for suffix in suffixes]
    return files.select(["path", "size", "digest"]).filter(pc.and_(gone, functools.reduce(pc.or_, named)))


def digest_of_sorted(tables: Iterable[pa.Table]) -> Digest:
    """The same of tables that follow one another in order of path."""
    hasher = hashlib.sha256()
    for table in tables:
        here = pc.equal(table.column("state").cast(pa.string()), "here")
        for batch in table.select(["path", "size", "digest"]).filter(here).to_batches(max_chunksize=_PART):
            path, size, digest = batch.columns
            ends = pc.binary_join_element_wise(pc.fill_null(digest, ""), "\n", "")
            lines = pc.binary_join_element_wise(path, size.cast(pa.string()), ends, "\t")
            # What was joined just now lies behind one another, and nothing else beside it.
            hasher.update(lines.buffers()[2] or b"")
    return Digest("sha256", hasher.hexdigest())


def image_files(
    spec: DatasetSpec,
    root: Path,
    files: pa.Table | None,
    *,
    release: str,
    discarded: bool = False,
    earlier: Path | None = None,
    stamps: FolderStamps | None = None,
    on_event: Sink,
) -> ImageFiles:
    """The image files of a folder, with the digests that are known of them.

    An image that two files show is taken once: the suffix that the release lists first wins, then the first path.

    Args:
        spec: The dataset.
        root: Its folder.
        files: The record, which knows digests.
        release: The release.
        discarded: Count files that were used up, too.
        earlier: A manifest that may know the digest of what the record does not know.
        stamps: Told of the folders.
        on_event: Called with remarks.

    Returns:
        Columns of paths, ids, sizes and digests.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="name the folder that holds the dataset, or download it first")
    suffixes = spec.images.suffixes
    table = pa.concat_tables([LISTED.empty_table(), *listed_files(root, suffixes, stamps)])
    if files is not None:
        table = with_digests(table, files)
        if discarded:
            table = pa.concat_tables([table, _discarded(files, suffixes).cast(table.schema)])
    if earlier is not None and table.column("digest").null_count:
        table = with_digests(table, _of_manifest(earlier))
    table = table.sort_by("path").combine_chunks()
    ids = ids_of(table.column("path"), spec.layout(release))
    taken, second, foreign = taken_files(table, ids, suffixes)
    note_left_out(second, foreign, on_event)
    return taken


def note_left_out(second: pa.ChunkedArray, foreign: pa.ChunkedArray, on_event: Sink) -> None:
    """Say which image files are no row of their own."""
    for found, what in (
        (second, "show images that another file shows already"),
        (foreign, "are not images of the release"),
    ):
        if len(found):
            on_event(Note("manifest", f"{len(found):,} image files {what}; the first: {found[0]}", "warning"))


def taken_files(
    table: pa.Table, ids: pa.Table, suffixes: tuple[str, ...]
) -> tuple[ImageFiles, pa.ChunkedArray, pa.ChunkedArray]:
    """One file of each image, the paths of second copies, and those that are not of the release.

    ``table`` holds path, size and digest in order of path, and ``ids`` what ``ids_of`` says of each.
    """
    ours = pc.is_valid(ids.column("image"))
    rows = _best(table.column("path"), ids.column("image"), suffixes)
    foreign = table.column("path").filter(pc.invert(ours))
    second = table.column("path").filter(
        pc.and_(ours, pc.invert(pc.is_in(pa.array(range(len(ids)), pa.int64()), rows)))
    )
    taken, ids = table.take(rows), ids.take(rows)
    view = _coded(ids.column("view").combine_chunks())
    stated = pc.coalesce(ids.column("projection").combine_chunks(), projection_of(view).cast(pa.string()))
    found = ImageFiles(
        **{name: taken.column(name).combine_chunks() for name in ("path", "size", "digest")},
        **{name: ids.column(name).combine_chunks() for name in ("image", "study", "patient")},
        view=view,
        projection=_coded(stated),
        split=_coded(ids.column("split").combine_chunks()),
        second_copies=len(second),
        foreign=len(foreign),
    )
    return found, second, foreign


def _coded(words: pa.Array) -> pa.Array:
    return words.dictionary_encode().cast(CATEGORY)


def ids_of(paths: pa.ChunkedArray, layout: Layout) -> pa.Table:
    """What each path says of its image; null where it shows none of the release."""
    parts = [IDS.empty_table()]
    for start in range(0, len(paths), _PART):
        held = [layout.parse(path) for path in paths.slice(start, _PART).to_pylist()]
        columns = [[None if i is None else getattr(i, name) for i in held] for name in IDS.names]
        parts.append(pa.table([pa.array(c, pa.string()) for c in columns], schema=IDS))
    return pa.concat_tables(parts).combine_chunks()


def _best(paths: pa.ChunkedArray, images: pa.ChunkedArray, suffixes: tuple[str, ...]) -> pa.Array:
    """The rows to take, one for each image: the first by the order of the suffixes, then of the paths."""
    rows = pc.indices_nonzero(pc.is_valid(images)).cast(pa.int64())
    if all_distinct(images.take(rows) if images.null_count else images):
        return rows
    rank = pa.array([len(suffixes)] * len(paths), pa.int64())
    lowered = pc.utf8_lower(paths)
    for number, suffix in reversed(list(enumerate(suffixes))):
        rank = pc.if_else(pc.ends_with(lowered, suffix), number, rank)
    table = pa.table({"image": images.take(rows), "rank": rank.take(rows), "row": rows})
    table = table.sort_by([("rank", "ascending"), ("row", "ascending")])
    first = table.group_by("image", use_threads=False).aggregate([("row", "first")])
    return first.column("row_first").combine_chunks()
