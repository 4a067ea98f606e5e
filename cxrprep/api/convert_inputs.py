"""Input images of a conversion: of a known dataset or of a plain folder, on this machine or in an object store."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.manifest import keep_manifest_current
from cxrprep.collection import FolderKind
from cxrprep.collection.dataset_folder import DatasetFolder, open_folder, require_joined
from cxrprep.datasets.own_folder import NAME
from cxrprep.errors import NothingSelectedError, UsageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.images.conversion import ConvertItem
from cxrprep.images.image_folder import PlainImages, plain_images, stem_of
from cxrprep.images.local_files import LocalStore, is_url, open_store
from cxrprep.manifest.build import IMAGES_NAME
from cxrprep.manifest.source_images import SourceImage, chosen_images, ids_of, images_by_split, source_images
from cxrprep.record.entry import FileState
from cxrprep.selection.filters import SelectionFilter, draw
from cxrprep.selection.table_filters import drawn_rows
from cxrprep.storage.parquet import check_as_written
from cxrprep.storage.paths import inside
from cxrprep.storage.table_on_disk import TableOnDisk
from cxrprep.storage.unfetched import unfetched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from cxrprep.images.recipe import Recipe
    from cxrprep.model import FolderRef, Selection, Shard
    from cxrprep.storage.filesystem import ImageStore, StoredFile

# What is converted in the place of what was made of it.
_ORIGINAL: Final = "cxrprep convert ORIGINAL --recipe RECIPE --out DIR"


@dataclass(frozen=True, slots=True)
class Inputs:
    """``items`` gives the images anew at every call, in a fixed order; ``total`` is how many they are.

    ``folder`` and its manifest ``base`` are ``None`` for a plain folder, which has a ``place`` instead. ``unusable``
    are images whose names no output can have. ``others`` gives those of this shard at some paths, whether the selection
    wants them or leaves them out; ``None`` when it leaves none out. ``left_out`` counts the files of a plain folder
    that are no images read here, by suffix.
    """

    address: str
    total: int
    items: Callable[[], Iterator[ConvertItem]]
    folder: DatasetFolder | None = None
    base: Path | None = None
    place: ImageStore | None = None
    unusable: tuple[str, ...] = ()
    others: Callable[[Collection[str]], Iterator[ConvertItem]] | None = None
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """What the dataset is called."""
        return "folder" if self.folder is None else self.folder.spec.name

    def image_of(self, relative: str) -> str | None:
        """The image id that a path states, for messages."""
        image = self.folder.layout.parse(relative) if self.folder is not None else None
        return None if image is None else image.image


def open_inputs(
    where: FolderRef,
    *,
    selection: Selection,
    shard: Shard | None = None,
    rows: bool = False,
    without: Path | str | None = None,
    made: Recipe | None = None,
    on_event: Sink = ignore,
) -> Inputs:
    """The images of ROOT that are wanted; the manifest of a known dataset is made current first.

    A folder that is no known dataset, and any URL, is a plain folder: every DICOM, PNG and JPEG below it.

    Args:
        where: The folder, or an address.
        selection: Which images are wanted.
        shard: The part of a job array.
        rows: Give them split by split, each with what the manifest says of it.
        without: A folder of outputs, whose images are not inputs; by default the recipe's own.
        made: The recipe whose outputs in ``without`` stand for originals that were dropped on arrival.
        on_event: Called with progress and remarks.

    Returns:
        The inputs, with the folder that they are of.

    Raises:
        UsageError: A selection needs tables where there are none.
        NothingSelectedError: Nothing is left.
    """
    hint = "use fewer conditions in the selection, or look at what the folder holds: cxrprep status ROOT"
    if is_url(where.root) and where.dataset is not None:
        raise UsageError(
            f"{where.root}: a dataset's tables can only be joined with files on this machine",
            hint="download it (--source takes the same address), or leave --dataset out to convert plain files",
        )
    folder = None
    find: Callable[..., Inputs]
    if not is_url(where.root):
        folder = open_folder(where, unknown_is_own=where.dataset is None)
    if folder is None or folder.kind in (FolderKind.OWN, FolderKind.EXPORTED):
        base = next(iter(folder.image_tables), None) if folder is not None and folder.kind is FolderKind.OWN else None
        # An export that holds no plain image is refused: nothing is to be said of what else lies in it.
        sink = ignore if folder is not None and folder.kind is FolderKind.EXPORTED else on_event
        if base is not None:
            check_as_written(base)
        find = partial(_plain, str(where.root), selection, without=without, base=base, rows=rows, on_event=sink)
    else:
        folder.require("convert", FolderKind.RELEASE, FolderKind.CONVERTED)
        if folder.kind is FolderKind.RELEASE:
            keep_manifest_current(folder, on_event=on_event)
        if folder.kind is FolderKind.CONVERTED:
            if folder.in_shards:
                raise UsageError(
                    f"{folder.root} holds shards, which convert does not read",
                    hint=f"convert what they were made from: {_ORIGINAL}; export and load read them as they are",
                )
            base = _own_table(folder)
            check_as_written(base)
            find = partial(_of_manifest, folder, base, selection, rows=rows, on_event=on_event)
        elif made is not None and has_dropped(folder) and not is_url(str(without or "")):
            out = folder.derived(made.name) if without is None else Path(without)
            find = partial(inputs_with_dropped, folder, made, out, selection, on_event=on_event)
            hint = f"originals were dropped once they were converted; download them again, with --then {made.name}"
        else:
            base = folder.manifests / IMAGES_NAME
            find = partial(_of_manifest, folder, base, selection, rows=rows, on_event=on_event)
    found = find(shard)
    # A part of an array to which no image falls is done, where the selection matches any at all.
    if not found.total and (shard is None or not find(None, on_event=ignore).total):
        if folder is not None:
            others = set(FolderKind) - {FolderKind.EXPORTED}
            folder.require("convert", *others, instead=f"convert the folder that was exported: {_ORIGINAL}")
        raise NothingSelectedError(f"no image of {found.address} matches the selection", hint=hint)
    return found


def _own_table(folder: DatasetFolder) -> Path:
    """The image table of converted images, which are their own source. Raises ``UsageError`` where there is none."""
    tables = folder.image_tables
    if len(tables) != 1:
        require_joined(folder.root, folder.read_from)
    return tables[0]


def manifests_below(shard: Shard | None) -> str:
    """The folder of the manifests in a folder of outputs.

    Each shard of a job array writes its own; a run without --shard afterwards finds all done and joins them.
    """
    return "manifests" if shard is None else f"manifests/shards/{shard.in_names}"


# ---- a known dataset ----


def has_dropped(folder: DatasetFolder) -> bool:
    """Whether images of the folder were dropped once they had been converted."""
    record = folder.record
    # Asked of all at once first: most folders never dropped anything, and some have 400,000 files.
    if not record.exists or not any(
        FileState.DISCARDED in part["state"].unique().to_pylist() for part in record.tables(["state"])
    ):
        return False
    return any(
        state == FileState.DISCARDED and folder.layout.parse(path) is not None
        for path, state in record.rows(["path", "state"])
    )


def inputs_with_dropped(
    folder: DatasetFolder, recipe: Recipe, out: Path, selection: Selection, shard: Shard | None, *, on_event: Sink
) -> Inputs:
    """The images that are here, and those that were dropped of which ``out`` holds what ``recipe`` made.

    Args:
        folder: The open folder.
        recipe: By which the dropped ones were converted.
        out: The folder of the outputs.
        selection: Which images are wanted.
        shard: The part of a job array.
        on_event: Called with progress and remarks.

    Returns:
        The inputs.

    Raises:
        UsageError: A selection needs tables where there are none.
        NothingSelectedError: Nothing is left.
    """
    from cxrprep.api.manifest import rebuild_manifest

    # In the cache: what is handed on is the manifest of the outputs.
    base = folder.record.cache / "with-dropped" / manifests_below(shard) / IMAGES_NAME
    rebuild_manifest(folder, discarded=True, to=base.parent, on_event=on_event)
    suffix = recipe.output.suffix
    originals, outputs = LocalStore(str(folder.root)), LocalStore(str(out))

    def usable(path: str) -> bool:
        return any(
            place.version_tag(name) is not None
            for place, name in ((originals, path), (outputs, f"{stem_of(path)}{suffix}"))
        )

    return _of_manifest(folder, base, selection, shard, usable=usable, on_event=on_event)


def _of_manifest(
    folder: DatasetFolder,
    base: Path,
    selection: Selection,
    shard: Shard | None,
    *,
    rows: bool = False,
    usable: Callable[[str], bool] | None = None,
    on_event: Sink,
) -> Inputs:
    """The images of the manifest ``base`` that are wanted, in its order; with ``rows`` split by split, with its words.

    ``usable`` says of a path whether anything can be had of it; by default of every one.
    """
    holds: Callable[[str], bool] | None = None
    if shard is not None or usable is not None:

        def holds(path: str) -> bool:
            return (shard is None or shard.holds(path)) and (usable is None or usable(path))

    held = drawn_rows(chosen_images(TableOnDisk.open(base), _chooser(folder, selection, on_event), holds), selection)
    images = images_by_split if rows else source_images
    bucket = unfetched(folder.root)

    def item(row: SourceImage) -> ConvertItem:
        entry = None if bucket is None else bucket.find(row.path)
        # The manifest knows none of a file that has another size than was recorded.
        known = None if row.digest is not None else folder.record.get(row.path)
        digest = row.digest if known is None else known.digest
        found = ConvertItem(
            f"{folder.root}/{inside(row.path)}", row.path, digest, digest, row.boxes, row.spacing_mm, row=row.row
        )
        if bucket is None or entry is None:
            return found
        # By its address: the machines of a cluster read it where it lies.
        return replace(found, source=bucket.store.full(entry.name), stamp=entry.stamp)

    def items() -> Iterator[ConvertItem]:
        return map(item, images(held))

    def others(paths: Collection[str]) -> Iterator[ConvertItem]:
        return (
            item(row)
            for row in images(TableOnDisk.open(base).among("path", list(paths)))
            if holds is None or holds(row.path)
        )

    return Inputs(
        str(folder.root), held.num_rows, items, folder, base, others=None if selection.is_everything else others
    )  # fmt: skip


def _chooser(folder: DatasetFolder, selection: Selection, on_event: Sink) -> SelectionFilter:
    answered = None
    if selection.needs_tables and folder.kind is FolderKind.CONVERTED:
        answered = ids_of(_own_table(folder), selection, folder.spec.name)
    elif selection.needs_tables:
        from cxrprep.labels.extract import read_labels
        from cxrprep.selection.table_filters import select_images

        labels = read_labels(folder.spec, folder.root, tables=folder.tables, on_event=on_event)
        answered = select_images(labels.table, selection, spec=folder.spec, release=labels.release).ids
    return SelectionFilter(selection, answered)


# ---- a plain folder ----


def _plain(
    root: str,
    selection: Selection,
    shard: Shard | None,
    without: Path | str | None,
    base: Path | None,
    *,
    rows: bool,
    on_event: Sink,
) -> Inputs:
    """Every image of a folder; what its manifest ``base`` says of them goes with them."""
    by_table = selection.needs_tables or bool(selection.patients or selection.studies)
    if by_table and base is None:
        raise UsageError(
            f"{root} is not a known dataset, so it has no tables to select by",
            hint=f"list its images first: cxrprep manifest {shlex.quote(root)}; or use --include, --exclude, --limit, "
            "--sample",
        )
    place = open_store(root)
    message = "read as a plain folder of images: it is no dataset that cxrprep knows"
    on_event(Note("convert", message, "info", root))
    found = plain_images(place, without=_inside(root, without))
    _note_found(found, root, on_event)
    stated = _stated(base, rows=rows)
    wants = _wants(selection, base, stated)
    everything = [
        (entry, stem)
        for entry, stem in zip(found.images, found.stems, strict=True)
        if shard is None or shard.holds(entry.name)
    ]
    wanted = [(entry, stem) for entry, stem in everything if wants(entry.name)]
    if selection.draws:
        kept = draw((entry.name for entry, _ in wanted), selection)
        wanted = [(entry, stem) for entry, stem in wanted if entry.name in kept]

    # In shards each sample has what the manifest says of it, and every sample the same columns.
    by_split = rows and bool(stated)
    if by_split:
        wanted.sort(key=lambda pair: (str(_row(stated, pair[0]).get("split") or "~"), pair[0].name))

    def items(pairs: list[tuple[StoredFile, str]]) -> Iterator[ConvertItem]:
        for entry, stem in pairs:
            row = _row(stated, entry) if by_split else None
            recorded = stated[entry.name].digest if entry.name in stated else None
            # A checksum of 32 bits finds damage, and is no name of a content.
            digest = entry.digest if entry.digest is not None and entry.digest.algorithm == "md5" else None
            yield ConvertItem(
                place.full(entry.name), entry.name, digest, recorded, stem=stem, stamp=entry.stamp, row=row
            )

    def others(paths: Collection[str]) -> Iterator[ConvertItem]:
        return items([pair for pair in everything if pair[0].name in paths])

    return Inputs(
        root, len(wanted), partial(items, wanted), base=base, place=place, unusable=found.unusable,
        others=None if selection.is_everything else others, left_out=tuple(found.words().items()),
    )  # fmt: skip


def _stated(base: Path | None, *, rows: bool) -> dict[str, SourceImage]:
    """What a manifest says of the images of one's own, by path."""
    if base is None:
        return {}
    return {image.path: image for image in (images_by_split if rows else source_images)(TableOnDisk.open(base))}


def _row(stated: Mapping[str, SourceImage], entry: StoredFile) -> Mapping[str, Any]:
    found = stated.get(entry.name)
    if found is not None:
        return found.row or {}
    names = next(iter(stated.values())).row or {}
    return {name: entry.name if name.endswith("_id") else None for name in names}


def _wants(selection: Selection, base: Path | None, stated: Mapping[str, SourceImage]) -> Callable[[str], bool]:
    """Which paths of one's own a selection wants."""
    answered = ids_of(base, selection, NAME) if base is not None and selection.needs_tables else None
    choice = SelectionFilter(selection, answered)
    if answered is None and not (selection.patients or selection.studies):
        return choice.wants_path
    return lambda path: path in stated and choice.wants(path, stated[path].image)


def _inside(root: str, out: Path | str | None) -> tuple[str, ...]:
    """The folder of the outputs as a path below ``root``, where it lies there; what cxrprep made is never a source."""
    own = ("manifests", "derived")
    if out is None:
        return own
    if is_url(root) or is_url(out):
        text = str(out)
        return (*own, text[len(root) :].strip("/")) if text.startswith(root.rstrip("/") + "/") else own
    base, target = Path(root).resolve(), Path(out).resolve()
    return (*own, target.relative_to(base).as_posix()) if target != base and target.is_relative_to(base) else own


def _note_found(found: PlainImages, root: str, on_event: Sink) -> None:
    if found.renamed:
        name, stem = found.renamed[0]
        message = (
            f"{len(found.renamed):,} images share their name with another of a different suffix and keep their own "
            f"suffix in the output's name; the first: {name} becomes {stem}.*"
        )
        on_event(Note("convert", message, "warning", root))
    if found.made:
        message = f"folders of converted images in it are passed over: {', '.join(found.made)}"
        on_event(Note("convert", message, "info", root))
    if found.left_out:
        kinds = ", ".join(f"{count:,} {suffix or 'others'}" for suffix, count in found.left_out[:6])
        on_event(Note("convert", f"files that cxrprep does not read as images were skipped: {kinds}", "info", root))
