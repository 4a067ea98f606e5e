"""The verb ``manifest``: the image table of any folder, current again, by what was chosen for it."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.folder import made_again, open_header
from cxrprep.api.keywords import Keywords
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection import FolderKind
from cxrprep.datasets.own_folder import dataset_words
from cxrprep.errors import UnreadableTableError
from cxrprep.events import Sink, StageFinished, StageStarted, ignore
from cxrprep.manifest.choices import Choices
from cxrprep.model import FolderRef
from cxrprep.storage.locks import writing_tables
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.unfetched import unfetched
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cxrprep.collection.dataset_folder import DatasetFolder
    from cxrprep.labels.label_rows import Labels
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule
    from cxrprep.manifest.build import ManifestResult, PreparedManifest
    from cxrprep.manifest.by_patient import ManifestParts


@takes_buckets(root="written-folder", state="written-folder")
@notes_progress("manifest")
def build_manifest(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    label_source: str | None = None,
    policy: Policy | None = None,
    split_by: SplitRule | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[ManifestResult]:
    """Build ``manifests/images.parquet`` and ``studies.parquet`` again, of the labels and the files that are here.

    What is not given is the default again, whatever the manifest was made with last.

    Args:
        root: A folder of any kind.
        dataset: The dataset's name, where the folder does not say it.
        release: The release, where it is not the one that the folder shows.
        state: Where record and manifests are when they are not below ROOT.
        label_source: Take the labels of another source of ``labels.parquet``.
        policy: What becomes of uncertain and blank labels.
        split_by: How the patients are divided.
        allow_loss: Let the tables know less than those that are there.
        on_event: Called with progress and remarks.
        **words: What ``policy`` and ``split_by`` hold, as the command's options: ``uncertain="ones"``, ``folds=5``.

    Returns:
        Counts of what was written.

    Raises:
        UsageError: A folder that nobody recognises, or tables that would know less.
        TableError: A damaged ``labels.parquet``.
        StorageError: The disk refuses.

    Examples:
        >>> import cxrprep
        >>> from cxrprep.labels.policy import Policy
        >>> made = cxrprep.build_manifest("nih", policy=Policy(uncertain="ones")).value
        >>> made.images, made.patients
        (5, 4)
    """
    policy, rule = Keywords(words).policy_and_split(policy, split_by)
    from cxrprep.manifest.current import made_just_so
    from cxrprep.manifest.dataset_card import write_card_beside

    folder = open_header(FolderRef.of(root, dataset=dataset, release=release, state=state))
    folder.require(
        "manifest",
        FolderKind.RELEASE,
        FolderKind.OWN,
        FolderKind.CONVERTED,
        instead=f"it is made again from the manifest of the folder that was exported: {made_again(folder)}",
    )
    choices = Choices().with_given(label_source, policy, rule)
    if folder.kind is FolderKind.CONVERTED:
        return _of_converted(folder, choices, allow_loss=allow_loss, on_event=on_event)
    if folder.kind is FolderKind.OWN:
        return _of_own(folder, choices, allow_loss=allow_loss, on_event=on_event)
    if rule is not None:
        choices = replace(choices, split_by=rule.beside(Choices.of_last(folder.manifests).split_by))
    same = made_just_so(folder, choices)
    if same is None:
        made = rebuild_manifest(folder.with_files(), choices=choices, allow_loss=allow_loss, on_event=on_event)
    else:
        made = same[0]
        for event in same[1]:
            on_event(event)
        # It has no checksum by which it would be known as it was written.
        write_card_beside(made.images_path)
    return _result(folder, made, choices)


def _of_own(folder: DatasetFolder, choices: Choices, *, allow_loss: bool, on_event: Sink) -> Result[ManifestResult]:
    """The manifest of images of one's own, as they lie there."""
    from cxrprep.images.dicom_metadata import own_pseudonyms
    from cxrprep.images.own_images import own_images
    from cxrprep.manifest.own_manifest import write_own_manifest

    # Its split is nobody's but this table's: what was chosen last stays.
    last = Choices.of_last(folder.manifests)
    choices = last.with_given(choices.label_source, choices.policy, choices.split_by)
    pseudonyms, left_out = own_pseudonyms(), Counter[str]()
    found = own_images(folder.root, pseudonyms, left_out=left_out)
    images = write_own_manifest(folder, found, choices, key=pseudonyms.sign, allow_loss=allow_loss, on_event=on_event)
    return _manifest_result(folder, images, choices, left_out)


def _of_converted(
    folder: DatasetFolder, choices: Choices, *, allow_loss: bool, on_event: Sink
) -> Result[ManifestResult]:
    """The manifest of converted images, from their own table and the labels beside it."""
    from cxrprep.manifest.converted import rebuild_converted
    from cxrprep.storage.parquet import check_as_written

    on_event(StageStarted("manifest", unit="images"))
    for table in () if allow_loss else folder.image_tables:
        check_as_written(table)
    images = rebuild_converted(folder, choices.described(), allow_loss=allow_loss, on_event=on_event)
    on_event(StageFinished("manifest", done=images.num_rows))
    return _manifest_result(folder, images, choices)


def _manifest_result(
    folder: DatasetFolder, images: Any, choices: Choices, left_out: Mapping[str, int] = MappingProxyType({})
) -> Result[ManifestResult]:
    from cxrprep.manifest.build import described_result

    others = tuple(sorted(left_out.items(), key=lambda one: (-one[1], one[0])))
    made = replace(described_result(images, folder.manifests), left_out=others)
    return _result(folder, made, choices)


def _result(folder: DatasetFolder, made: ManifestResult, choices: Choices) -> Result[ManifestResult]:
    rows = (
        ("dataset", dataset_words(folder.spec.name, folder.release)),
        ("images", made.images),
        ("studies", made.studies),
        ("patients", made.patients),
        ("with labels", made.labelled),
        *((("split", choices.split_by.words()),) if choices.split_by is not None else ()),
        *((("without a label row", made.without_row),) if made.without_row else ()),
        *((("in the tables, not here", made.not_here),) if made.not_here else ()),
        *((("second copies", made.second_copies),) if made.second_copies else ()),
        *((("files that do not belong", made.foreign),) if made.foreign else ()),
        *((f"{count:,} left out", f"no image: {kind}") for kind, count in made.left_out),
        ("written", str(made.images_path)),
    )
    return Result("manifest", made, rows=rows)


@plain_memory()
def rebuild_manifest(
    folder: DatasetFolder,
    *,
    choices: Choices | None = None,
    discarded: bool = False,
    to: Path | None = None,
    allow_loss: bool = False,
    since: float | None = None,
    on_event: Sink = ignore,
) -> ManifestResult:
    """The manifest of an open folder, current again.

    measured: 703 -> 563 MiB at the peak of `manifest` on 377,110 adopted images with memory that goes back while the
    tables are written, too (benchmarks/scale.py linked).

    Args:
        folder: The open folder.
        choices: Label source, policy and split; by default those by which it was made last.
        discarded: Count files that were used up, too.
        to: Where it goes; by default into the folder's manifests.
        allow_loss: Let the tables know less than those that are there.
        since: When the run began that stands behind it: see ``writing_tables``.
        on_event: Called with progress and remarks.

    Returns:
        Counts of what was written.

    Raises:
        UsageError: A label source that no label has, or tables that would know less.
        StorageError: The disk refuses.
    """
    with writing_tables(folder.home / CACHE_NAME, since=since) if to is None else contextlib.nullcontext():
        chosen = choices or Choices.of_last(folder.read_from)
        prepared = prepare(folder, chosen, discarded=discarded, to=to, allow_loss=allow_loss, on_event=on_event)
        return prepared.write(on_event)


def keep_manifest_current(folder: DatasetFolder, *, on_event: Sink = ignore) -> None:
    """Make the manifest of an open folder again, unless it is the one that would be made now.

    Raises as ``rebuild_manifest``.
    """
    from cxrprep.labels.extract import LABELS_NAME
    from cxrprep.manifest.build import IMAGES_NAME
    from cxrprep.manifest.current import is_current
    from cxrprep.storage.parquet import footer_of

    labels = folder.manifests / LABELS_NAME
    release = footer_of(labels).get("release") or folder.release
    # What ROOT's own manifests know is carried into a folder of state that knows less.
    carried = labels.is_file() or not (folder.root / "manifests" / LABELS_NAME).is_file()
    same = carried and footer_of(folder.manifests / IMAGES_NAME).get("release") == release
    if not (same and is_current(folder)):
        rebuild_manifest(folder, on_event=on_event)


def prepare(
    folder: DatasetFolder,
    choices: Choices,
    *,
    labels: Labels | None = None,
    labels_in: Path | None = None,
    discarded: bool = False,
    to: Path | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
) -> PreparedManifest | ManifestParts:
    """The manifest of an open folder, checked and not written yet.

    Args:
        folder: The open folder.
        choices: Label source, policy and split.
        labels: Those that were read just now; by default those of ``labels.parquet``.
        labels_in: The folder of that table, where it is not the folder's own.
        discarded: Count files that were used up, too.
        to: Where it will go; by default into the folder's manifests.
        allow_loss: Let the tables know less than those that are there.
        on_event: Called with progress and remarks.

    Returns:
        The tables, to be written.

    Raises:
        UsageError: A label source that no label has, or tables that would know less.
        TableError: A damaged ``labels.parquet``.
    """
    from cxrprep.images.decode import measure as measure_files
    from cxrprep.labels.extract import LABELS_NAME
    from cxrprep.labels.policy import KEEP
    from cxrprep.manifest.build import prepare_manifest
    from cxrprep.manifest.converted import carry_labels
    from cxrprep.manifest.image_sizes import SIZES, measure_dropped
    from cxrprep.manifest.label_join import check_sources, stated_sources
    from cxrprep.storage.folder_stamps import FolderStamps
    from cxrprep.storage.parquet import read_groups

    held = labels_in or folder.manifests
    # The record is digested for them, which only a manifest in its own place is worth.
    in_place = to is None and not discarded
    stamps = FolderStamps(folder.root, folder.record.cache, folder.record.digest) if in_place else None
    if labels is None and not (held / LABELS_NAME).is_file():
        # A folder of state begins with what ROOT's own manifests know.
        carry_labels(folder.root / "manifests", folder.manifests)
    there = unfetched(folder.root)
    measure = measure_files if there is None else functools.partial(there.measured, measure=measure_files)
    source = choices.label_source
    if source and (choices.source_is_new or source != folder.spec.default_label_source):
        if labels is not None:
            check_sources([labels.table], stated_sources(source), f"the tables of {folder.root}")
        elif (table := held / LABELS_NAME).is_file():
            check_sources(read_groups(table, ["label_source"]), stated_sources(source), table)
    # A policy asks what a label source knows in all of its rows, and a split that is not stable who else is there.
    by_patient = choices.policy in (None, KEEP) and (choices.split_by is None or choices.split_by.stable)
    if labels is None and in_place and by_patient and _is_large(folder, held):
        from cxrprep.manifest.by_patient import prepare_by_patient
        from cxrprep.storage.patient_table import NotByPatientError

        # A damaged table is said, or written anew, as for any other folder.
        with contextlib.suppress(NotByPatientError, UnreadableTableError):
            return prepare_by_patient(
                folder,
                choices,
                labels_in=held,
                measure=measure,
                allow_loss=allow_loss,
                stamps=stamps,
                on_event=on_event,
            )
    return prepare_manifest(
        folder,
        choices,
        to=to,
        labels_in=held,
        labels=labels,
        discarded=discarded,
        # What was dropped once it was converted had a size, by which its boxes are scaled.
        measure=measure_dropped(measure, folder.root, folder.record.cache / SIZES) if discarded else measure,
        # In a cache it replaces nothing that anybody was given.
        allow_loss=allow_loss or to is not None,
        stamps=stamps,
        on_event=on_event,
    )


def _is_large(folder: DatasetFolder, labels_in: Path) -> bool:
    """Whether a folder has, or has tables of, more files than are joined at once.

    They are half of those that a list in memory holds, since a row has more columns. measured: 601 -> 421 MiB at the
    peak of `manifest` for MIMIC-CXR's 377,110 DICOM files, and 22 -> 25 s of CPU.
    """
    from cxrprep.labels.extract import LABELS_NAME
    from cxrprep.manifest.image_files import listed_files
    from cxrprep.storage.parquet import count_rows
    from cxrprep.system import FILES_IN_MEMORY

    table = labels_in / LABELS_NAME
    rows = count_rows(table) if table.is_file() else 0
    if rows or folder.record.exists:
        return max(rows, folder.record.count() if folder.record.exists else 0) > FILES_IN_MEMORY // 2
    listed = (part.num_rows for part in listed_files(folder.root, folder.spec.images.suffixes))
    return any(count > FILES_IN_MEMORY // 2 for count in itertools.accumulate(listed))
