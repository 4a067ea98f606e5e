"""The verbs about tables: extract-labels, manifest, and the dataset object that ``load`` gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.api.folders import Folder, open_folder
from cxrprep.api.results import Result
from cxrprep.events import ignore

if TYPE_CHECKING:
    from cxrprep.events import Sink
    from cxrprep.labels.extract import LabelsResult
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.rows import Options
    from cxrprep.labels.splits import SplitRule
    from cxrprep.manifest.build import ManifestResult


def extract_labels(
    root: Path | str,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    tables: Path | str | None = None,
    options: Options | None = None,
    label_source: str | None = None,
    on_event: Sink = ignore,
) -> Result[LabelsResult]:
    """The release's label tables as ``manifests/labels.parquet``; the manifest is built anew where images are here.

    ``tables`` is a folder that holds the tables when ROOT does not. Raises ``UsageError`` for a folder that is no
    known dataset or has no tables, ``TableError`` with file, line and column for a table that is not what it should be.
    """
    from cxrprep.labels.extract import extract_labels as extract

    folder = open_folder(Path(root), dataset=dataset, release=release, state=_path(state))
    found = extract(
        folder.spec,
        folder.root,
        out=folder.manifests,
        # The tables decide between two versions in one folder, unless the caller does.
        release=release,
        tables=_path(tables),
        options=options,
        on_event=on_event,
    )
    rebuild_manifest(folder, label_source=label_source, on_event=on_event)
    apart = sum(count for use in found.tables for _, count in use.apart)
    rows = [
        ("dataset", f"{found.dataset} {found.release}"),
        ("rows", found.rows),
        ("images", found.images),
        ("patients", found.patients),
        *((f"split {name or 'not stated'}", count) for name, count in found.splits),
        *((("boxes", f"{found.boxes:,} on {found.boxed_images:,} images"),) if found.boxes else ()),
        *((("rows set apart", apart),) if apart else ()),
        *((f"table {use.name}", f"{use.used:,} of {use.rows:,} rows, {use.digest}") for use in found.tables),
        ("written", str(found.path)),
    ]
    return Result("extract-labels", found, rows=tuple(rows))


def build_manifest(
    root: Path | str,
    *,
    dataset: str | None = None,
    release: str | None = None,
    state: Path | str | None = None,
    label_source: str | None = None,
    policy: Policy | None = None,
    split_by: SplitRule | None = None,
    on_event: Sink = ignore,
) -> Result[ManifestResult]:
    """``manifests/images.parquet`` and ``studies.parquet``, built again from the labels and the files that are here.

    Raises ``UsageError`` for a folder that is no known dataset, ``TableError`` for a damaged ``labels.parquet``.
    """
    folder = open_folder(Path(root), dataset=dataset, release=release, state=_path(state))
    made = rebuild_manifest(folder, label_source=label_source, policy=policy, split_by=split_by, on_event=on_event)
    rows = [
        ("dataset", f"{folder.spec.name} {folder.release}"),
        ("images", made.images),
        ("studies", made.studies),
        ("patients", made.patients),
        ("with labels", made.labelled),
        *((("without a label row", made.without_row),) if made.without_row else ()),
        *((("in the tables, not here", made.not_here),) if made.not_here else ()),
        *((("second copies", made.second_copies),) if made.second_copies else ()),
        *((("files that do not belong", made.foreign),) if made.foreign else ()),
        ("written", str(made.images_path)),
    ]
    return Result("manifest", made, rows=tuple(rows))


def rebuild_manifest(
    folder: Folder,
    *,
    label_source: str | None = None,
    policy: Policy | None = None,
    split_by: SplitRule | None = None,
    discarded: bool = False,
    to: Path | None = None,
    on_event: Sink = ignore,
) -> ManifestResult:
    """The manifest of an open folder, current again; with ``discarded`` used-up files count, and it goes ``to``."""
    from cxrprep.images.reading import measure
    from cxrprep.labels.policy import KEEP
    from cxrprep.manifest.build import build_manifest as build

    record = folder.record
    table = record.table() if record.exists else None
    return build(
        folder.spec,
        folder.root,
        manifests=to or folder.manifests,
        labels_in=folder.manifests,
        files=table,
        discarded=discarded,
        measure=measure,
        label_source=label_source,
        release=folder.release,
        policy=policy or KEEP,
        split=split_by,
        on_event=on_event,
    )


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)
