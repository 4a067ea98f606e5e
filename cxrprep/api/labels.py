"""The verbs about tables: extract-labels, manifest, and the dataset object that ``load`` gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.api.folder import DatasetFolder, open_folder
from cxrprep.api.result import Result
from cxrprep.collection import Kind
from cxrprep.errors import TableError, UsageError
from cxrprep.events import ignore

if TYPE_CHECKING:
    from cxrprep.events import Sink
    from cxrprep.labels.extract import LabelsResult
    from cxrprep.labels.label_rows import Options
    from cxrprep.labels.policy import Policy
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
    policy: Policy | None = None,
    split_by: SplitRule | None = None,
    on_event: Sink = ignore,
) -> Result[LabelsResult]:
    """The release's label tables as ``manifests/labels.parquet``; the manifest is built anew where images are here.

    ``tables`` is a folder that holds the tables when ROOT does not. ``label_source``, ``policy`` and ``split_by`` act
    on the manifest alone; what is not given stays as the manifest was made last. Raises ``UsageError`` for a folder
    that is no known dataset or has no tables, ``TableError`` with file, line and column for a table that is not what it
    should be.
    """
    from cxrprep.labels.extract import extract_labels as extract

    folder = open_folder(Path(root), dataset=dataset, release=release, state=_path(state))
    folder.require("extract-labels", Kind.RELEASE, instead="read the tables in the folder that holds the originals")
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
    rebuild_manifest(folder, label_source=label_source, policy=policy, split_by=split_by, on_event=on_event)
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

    What is not given is the default again, whatever the manifest was made with last. Raises ``UsageError`` for a folder
    that is no known dataset, ``TableError`` for a damaged ``labels.parquet``.
    """
    folder = open_folder(Path(root), dataset=dataset, release=release, state=_path(state))
    folder.require("manifest", Kind.RELEASE, instead="build the manifest of the folder that holds the originals")
    choices = Choices(label_source, policy, split_by)
    made = rebuild_manifest(folder, choices=choices, on_event=on_event)
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


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person chose to see in the manifest; ``None`` is the default of the dataset, and no policy or split."""

    label_source: str | None = None
    policy: Policy | None = None
    split_by: SplitRule | None = None

    @classmethod
    def of_last(cls, manifests: Path) -> Choices:
        """Those by which the manifest there was made, as its footer says; the defaults where there is none."""
        from cxrprep.labels.policy import Policy
        from cxrprep.labels.splits import SplitRule
        from cxrprep.manifest.build import IMAGES_NAME
        from cxrprep.storage.parquet import read_footer

        path = manifests / IMAGES_NAME
        if not path.is_file():
            return cls()
        try:
            made_from = read_footer(path)
            policy, split = made_from.get("policy"), made_from.get("split")
            chosen = None if made_from.get("label_source_by_default") else made_from.get("label_source")
            return cls(
                chosen,
                None if policy is None else Policy.parse(**policy),
                None if split is None else SplitRule.described(split),
            )
        except (TableError, UsageError, KeyError, TypeError, ValueError):
            # A damaged manifest, or one of another time: it is about to be made again.
            return cls()


def rebuild_manifest(
    folder: DatasetFolder,
    *,
    choices: Choices | None = None,
    label_source: str | None = None,
    policy: Policy | None = None,
    split_by: SplitRule | None = None,
    discarded: bool = False,
    to: Path | None = None,
    on_event: Sink = ignore,
) -> ManifestResult:
    """The manifest of an open folder, current again; with ``discarded`` used-up files count, and it goes ``to``.

    It shows what ``choices`` say, by default those by which it was made last; ``label_source``, ``policy`` and
    ``split_by`` are chosen anew. Raises ``UsageError`` for a ``label_source`` that no label has.
    """
    from cxrprep.images.decode import measure
    from cxrprep.labels.policy import KEEP
    from cxrprep.manifest.build import IMAGES_NAME
    from cxrprep.manifest.build import build_manifest as build
    from cxrprep.manifest.label_join import check_remembered, check_sources

    named = label_source or (choices.label_source if choices else None)
    if named:
        check_sources(folder.manifests, named)
    else:
        check_remembered(folder.manifests, folder.manifests / IMAGES_NAME)
    last = choices or Choices.of_last(folder.manifests)
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
        label_source=label_source or last.label_source,
        release=folder.release,
        policy=policy or last.policy or KEEP,
        split=split_by or last.split_by,
        on_event=on_event,
    )


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)
