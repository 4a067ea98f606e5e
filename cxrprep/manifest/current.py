"""Whether a manifest is the one that would be made now: then nobody who had nothing to do need make it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep._version import __version__
from cxrprep.collection.lineage import CARD_NAME, CROISSANT_NAME
from cxrprep.errors import TableError
from cxrprep.events import Event, Note, StageFinished, StageStarted
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.label_counts import LabelsResult
from cxrprep.labels.policy import KEEP
from cxrprep.manifest.build import IMAGES_NAME, STAGE, STUDIES_NAME, ManifestResult, origin_of
from cxrprep.manifest.image_files import RECORDED, digest_of_sorted, listed_files
from cxrprep.manifest.image_sizes import untouched, written_at
from cxrprep.storage.folder_stamps import FolderStamps
from cxrprep.storage.parquet import count_nulls, count_rows, footer_of, read_footer, read_groups
from cxrprep.storage.small_files import read_text
from cxrprep.storage.table_checksums import is_as_listed, listed_checksums
from cxrprep.storage.unfetched import unfetched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from cxrprep.collection import DatasetFolder
    from cxrprep.manifest.choices import Choices


def is_current(folder: DatasetFolder, count: int | None = None) -> bool:
    """Whether this version made the tables of this record and these labels, and the folder has the images they name.

    measured: of 1,000,000 images 50 s CPU for the manifest and 11 s for this, on a machine with other work.

    ``count`` is how many images the folder has, where it is known that every file of the record is here as it should
    be: then as many images are the same ones. By default paths and sizes are looked at.
    """
    return _made(folder, {}, folder.record.tables, count=count, is_measured=False) is not None


def _made(
    folder: DatasetFolder,
    due: Mapping[str, Any],
    entries: Callable[[Sequence[str]], Iterable[pa.Table]],
    *,
    count: int | None = None,
    is_measured: bool = True,
    untouched_since: bool = False,
) -> dict[str, Any] | None:
    """The footer of the image table where it states what is due, and ``is_current`` holds; else ``None``.

    ``entries`` gives columns of the record.
    """
    root, manifests, recorded = folder.root, folder.manifests, folder.record.digest
    images, stamps = manifests / IMAGES_NAME, FolderStamps(root, folder.record.cache, recorded)
    due = {**due, "recipe": None, "tool": f"cxrprep {__version__}", "tables": _tables(manifests)}
    # The record's digest takes a second for 377,110 files: it is asked for last.
    due.pop("files", None)
    if not all((manifests / name).is_file() for name in (IMAGES_NAME, STUDIES_NAME, CROISSANT_NAME, CARD_NAME)):
        return None
    with contextlib.suppress(OSError, TableError):
        made = read_footer(images)
        if (
            all(made.get(name) == value for name, value in due.items())
            and all(is_as_listed(manifests / name) for name in (IMAGES_NAME, STUDIES_NAME, CROISSANT_NAME))
            and _is_described(manifests)
            and (
                (recorded is not None and stamps.are_of_record(images))
                or made.get("files") == (str(digest_of_sorted(entries(RECORDED))) if folder.record.exists else None)
            )
            and (
                _same_files(folder, images, stamps, is_measured=is_measured, every=untouched_since)
                if count is None
                else count_rows(images) == count
            )
        ):
            return made
    return None


def _is_described(manifests: Path) -> bool:
    """Whether the description, which is written last, is of these tables: a run may have ended before it."""
    stated, text = listed_checksums(manifests), read_text(manifests / CROISSANT_NAME)
    return all(stated[name][-1] in text for name in (IMAGES_NAME, STUDIES_NAME))


def _same_files(folder: DatasetFolder, images: Path, stamps: FolderStamps, *, is_measured: bool, every: bool) -> bool:
    """Whether the image files of a folder are those of the table, by path and size, in whatever order.

    Folders that are as they were when they were listed for this table are not listed again. ``is_measured`` asks for
    the size of each image in pixels, too, and that nobody has touched files whose digest nobody knows, or ``every``
    file.
    """
    same, root, suffixes = None, folder.root, folder.spec.images.suffixes
    if is_measured and count_nulls(images, "width"):
        return False
    if stamps.are_of(images) and unfetched(root) is None:
        since = written_at(images, root) if is_measured else None
        same = stamps.same_files(images, suffixes, since, every=every)
    if same is None:
        here = _sum(part.select(["path", "size"]) for part in listed_files(root, suffixes, stamps))
        same = here == _sum(part.select(["path", "bytes"]) for part in read_groups(images, ["path", "bytes"]))
        if same and is_measured and (every or count_nulls(images, "digest")):
            groups = read_groups(images, ["path", "digest"])
            unproven = (
                group["path"] if every else group["path"].filter(pc.is_null(group["digest"])) for group in groups
            )
            same = all(all(untouched(paths, root, images).to_pylist()) for paths in unproven)
    if same and not stamps.are_of_record(images):
        stamps.keep(images)
    return same


def _sum(tables: Iterable[pa.Table]) -> tuple[int, int]:
    """How many rows there are, and the sum of their hashes, so that none is held."""
    count = total = 0
    for table in tables:
        count += table.num_rows
        total += sum(map(hash, zip(*(column.to_pylist() for column in table.columns), strict=True)))
    return count, total


def made_just_so(
    folder: DatasetFolder, choices: Choices, labels: LabelsResult | None = None
) -> tuple[ManifestResult, list[Event]] | None:
    """What a release's manifest came to, and what was said, where it would be made just so again; else ``None``.

    The tables are held to their checksums, the files that are here to the paths and sizes of the image table.
    ``labels`` is what ``labels.parquet`` holds, where it is known that it has the bytes that were written. Without, no
    image may have changed since, even one of the same size: what was read of it then is not read again.
    """
    path, footer = folder.manifests / LABELS_NAME, footer_of(folder.manifests / LABELS_NAME)
    if labels is None and not ("counts" in footer and is_as_listed(path)):
        return None
    told = labels or LabelsResult.of_footer(footer, path, ())
    sources = pa.array([one.label_source for one in told.sources], pa.string())
    origin = origin_of(folder.spec, told.release, footer, choices.label_source, pa.table({"label_source": sources}))
    due = {
        "label_source_by_default": None,
        **origin,
        "policy": None if choices.policy in (None, KEEP) else choices.policy.describe(),
        "split": None if choices.split_by is None else choices.split_by.describe(),
    }

    def entries(names: Sequence[str]) -> Iterable[pa.Table]:
        # Of the record the folder may have the header alone.
        return folder.with_files().record.tables(names)

    made = _made(folder, due, entries, untouched_since=labels is None)
    if made is None or "counts" not in made:
        return None
    notes = (Note(STAGE, message, level, subject) for message, subject, level in made["notes"])
    done = StageFinished(STAGE, done=count_rows(folder.manifests / IMAGES_NAME))
    return ManifestResult.of_footer(made, folder.manifests), [StageStarted(STAGE, unit="images"), *notes, done]


def _tables(manifests: Path) -> list[Any]:
    found: list[Any] = footer_of(manifests / LABELS_NAME).get("tables", [])
    return found
