"""The verb ``extract-labels``: a release's label tables as ``labels.parquet``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.folder import open_header, where_originals_are
from cxrprep.api.keywords import Keywords
from cxrprep.api.manifest import prepare
from cxrprep.api.result import Result
from cxrprep.api.running import notes_progress
from cxrprep.collection import FolderKind
from cxrprep.errors import UsageError
from cxrprep.events import Sink, StageFinished, StageStarted, ignore
from cxrprep.humanize import format_count
from cxrprep.labels.extract import LABELS_NAME, read_found, with_added, write_in_parts, write_labels, written_labels
from cxrprep.labels.label_losses import check_labels
from cxrprep.labels.last_options import last_options
from cxrprep.labels.locate_tables import find_tables
from cxrprep.manifest.choices import Choices
from cxrprep.manifest.current import made_just_so
from cxrprep.model import FolderRef
from cxrprep.storage.table_checksums import replace_listed
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_counts import LabelsResult
    from cxrprep.labels.label_rows import LabelOptions
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule

# Of a digest: enough to compare by eye, and a line of 80 columns holds it; the footer has all of it.
_SHOWN: Final = len("sha256:") + 16
# Of the others no reader would look at them, and nothing would be said.
_OF_ONE_DATASET: Final = {
    "demographics": ("--demographics joins a table of CheXpert", "chexpert"),
    "patients": ("--mimic-iv joins a table of MIMIC-IV", "mimic-cxr"),
}


@takes_buckets(root="written-folder", state="written-folder", tables="read-folder")
@plain_memory()
@notes_progress("extract-labels")
def extract_labels(
    root: Path | str | FolderRef,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    options: LabelOptions | None = None,
    label_source: str | None = None,
    policy: Policy | None = None,
    split_by: SplitRule | str | None = None,
    allow_loss: bool = False,
    on_event: Sink = ignore,
    **words: Any,
) -> Result[LabelsResult]:
    """The release's label tables as ``manifests/labels.parquet``; the manifest is built anew where images are here.

    Nothing is written before all of it has been worked out and checked.

    Args:
        root: A released dataset, or a folder of images that were converted from one.
        dataset: The dataset, where the folder does not say it.
        release: The release whose tables are read; by default the newest that is there.
        state: The folder of the manifests, beside a ROOT that is read-only.
        tables: A folder that holds the tables when ROOT does not; by default the one of the last run.
        options: What the tables are asked for; what is ``None`` in it stays as it was asked for last.
        label_source: Whose labels the manifest shows; like the next two it stays as the manifest was made last.
        policy: What uncertain and blank labels become in the manifest.
        split_by: How the patients are divided in the manifest.
        allow_loss: The tables may know less than those that they replace.
        on_event: Told what was found.
        **words: What ``options``, ``policy`` and ``split_by`` hold, as the command's options: ``report_text=True``,
            ``uncertain="ones"``, ``split_by="patient"`` with ``fractions="0.8,0.1,0.1"`` and ``seed=7``.

    Returns:
        Counts of rows, cells and sources.

    Raises:
        UsageError: A folder that is no known dataset, labels of a source that no table gives, or tables that would
            know less than those that are there.
        TableError: No tables, or one that is not what it should be, with file, line and column.

    Examples:
        >>> import cxrprep
        >>> labels = cxrprep.extract_labels("nih").value
        >>> labels.images, labels.splits
        (5, (('test', 1), ('train_val', 4)))
    """
    from cxrprep.system import FILES_IN_MEMORY

    keywords = Keywords(words)
    options, (policy, rule) = keywords.label_options(options), keywords.policy_and_split(policy, split_by)
    where = FolderRef.of(root, dataset=dataset, release=release, state=state, tables=tables)
    folder = open_header(where)
    instead = f"read the tables in the folder of the originals: {where_originals_are(folder, 'extract-labels')}"
    if folder.kind is FolderKind.OWN:
        instead = (
            f"label its reports: cxrprep extract-labels {folder.words} --reports FILE; "
            "or take labels over: --import NAME=FILE"
        )
    folder.require("extract-labels", FolderKind.RELEASE, instead=instead)
    for name, (said, of) in _OF_ONE_DATASET.items():
        if options is not None and getattr(options, name) and not folder.spec.name.startswith(of):
            raise UsageError(f"{said}, and {folder.root} holds {folder.spec.name}", hint="leave it out")
    path = folder.manifests / LABELS_NAME
    asked = last_options(path, folder.root).with_given(options, where.tables)
    on_event(StageStarted("extract-labels", unit="rows"))
    choices = Choices.of_last(folder.manifests).with_given(label_source, policy, rule)
    written = written_labels(folder, asked, where.release)
    if written is not None and (same := made_just_so(folder, choices, written[0])) is not None:
        for event in (*written[1], StageFinished("extract-labels", done=written[0].rows), *same[1]):
            on_event(event)
        return _result(written[0])
    folder = folder.with_files()
    # Large tables are written apart and let go, before the manifest takes its room.
    apart, prepared = folder.record.cache / LABELS_NAME, None
    try:
        # The tables decide between two versions in one folder, unless the caller does.
        here = find_tables(folder.spec, folder.root, where.release, tables=asked.tables, on_event=on_event)
        found = write_in_parts(folder, asked, here, apart=apart, allow_loss=allow_loss, on_event=on_event)
        if found is None:
            read = read_found(folder.spec, here, options=asked.options, known=path, on_event=on_event)
            labels = with_added(folder.spec.name, folder.spec.layout(read.release).parse, read, path, on_event=on_event)
            check_labels(folder.spec.name, labels, path, allow_loss=allow_loss)
            on_event(StageFinished("extract-labels", done=labels.table.num_rows))
            # measured: 808 -> 644 MiB at the peak for 377,110 images of MIMIC-CXR, with a manifest of before.
            is_large = labels.masks is None and labels.table.num_rows > FILES_IN_MEMORY // 4
            if not is_large:
                prepared = prepare(folder, choices, labels=labels, allow_loss=allow_loss, on_event=on_event)
            # What would be lost was asked above: the table that is there is read once.
            told = asked.described(folder.root)
            found = write_labels(
                folder.spec.name, labels, path, asked=told, allow_loss=True, apart=apart if is_large else None
            )
            del read, labels
        if prepared is None:
            staged = apart.parent if apart.is_file() else None
            prepared = prepare(folder, choices, labels_in=staged, allow_loss=allow_loss, on_event=on_event)
            if staged is not None:
                replace_listed(path, apart.replace)
    finally:
        apart.unlink(missing_ok=True)
    prepared.write(on_event)
    return _result(found)


def _result(found: LabelsResult) -> Result[LabelsResult]:
    left_out = sum(count for use in found.tables for _, count in use.apart)
    rows = [
        ("dataset", f"{found.dataset} {found.release}"),
        ("rows", found.rows),
        ("images", found.images),
        ("patients", found.patients),
        *((f"split {name or 'not stated'}", count) for name, count in found.splits),
        *((("boxes", f"{found.boxes:,} on {format_count(found.boxed_images, 'image')}"),) if found.boxes else ()),
        *((("rows left out", left_out),) if left_out else ()),
        *(
            (f"table {use.name}", f"{use.used:,} of {use.rows:,} rows, {str(use.digest)[:_SHOWN]}")
            for use in found.tables
        ),
        ("written", str(found.path)),
    ]
    return Result("extract-labels", found, rows=tuple(rows))
