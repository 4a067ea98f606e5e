"""``images.parquet`` and ``studies.parquet``: the label tables joined with the files that are here."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.image_table import image_losses, refuse_loss, stored_table, study_losses
from cxrprep.digests import file_digest
from cxrprep.events import Event, Note, Sink, StageFinished, StageStarted, ignore
from cxrprep.humanize import format_count, short_repr
from cxrprep.labels.extract import LABELS_NAME, without_folder
from cxrprep.labels.label_rows import Labels, described_table
from cxrprep.manifest.image_files import RECORDED, digest_of_sorted, image_files
from cxrprep.manifest.image_sizes import Measure, add_sizes
from cxrprep.manifest.label_join import check_label_values, default_sources, joined_images, stated_sources
from cxrprep.manifest.stated_digest import with_digest
from cxrprep.manifest.studies import studies_of
from cxrprep.schemas import LABELS, own_columns
from cxrprep.storage.parquet import (
    CONVERT_AGAIN,
    check_as_written,
    footer_of,
    read_combined,
    read_footer,
    read_schema,
    words_in_order,
    write_table,
)
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from cxrprep.collection import DatasetFolder
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.manifest.choices import Choices
    from cxrprep.storage.folder_stamps import FolderStamps

NoteWords: TypeAlias = tuple[str, str, str]
"""A note: message, file, level."""
STAGE: Final = "manifest"
IMAGES_NAME: Final = "images.parquet"
STUDIES_NAME: Final = "studies.parquet"
_PATHS: Final = ("images_path", "studies_path")


@dataclass(frozen=True, slots=True)
class ManifestResult:
    """What ``build_manifest`` wrote, and what it could not join.

    ``images`` files are in the manifest, ``labelled`` of them with labels. ``without_row`` have no row in the tables
    (their labels are null), ``not_here`` images of the tables have no file, ``second_copies`` are files of an image
    that another file shows, ``foreign`` are image files that do not belong to the release. ``left_out`` counts what
    lies among images of one's own and is none: files by suffix, DICOM objects by kind.
    """

    __repr__ = short_repr

    images_path: Path
    studies_path: Path
    images: int
    studies: int
    patients: int
    labelled: int
    without_row: int = 0
    not_here: int = 0
    second_copies: int = 0
    foreign: int = 0
    disagreeing_studies: int = 0
    sources: tuple[tuple[str, int], ...] = field(default=())
    left_out: tuple[tuple[str, int], ...] = field(default=())

    def counts(self) -> dict[str, Any]:
        """The numbers, as JSON values for the footer of the image table."""
        return {name: value for name, value in asdict(self).items() if name not in {*_PATHS, "left_out"}}

    @classmethod
    def of_footer(cls, footer: Mapping[str, Any], manifests: Path) -> Self:
        """What ``counts`` told, from the footer of the image table there."""
        sources = tuple((name, count) for name, count in footer["counts"]["sources"])
        return cls(manifests / IMAGES_NAME, manifests / STUDIES_NAME, **{**footer["counts"], "sources": sources})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwrittenManifest:
    """A manifest that was worked out and not written yet: whoever refuses it has lost nothing.

    ``stamps`` of the folders are kept for the next run where each image file that was listed is a row.
    """

    folder: Path
    made_from: Mapping[str, Any]
    result: ManifestResult
    has_labels: bool
    stamps: FolderStamps | None = None

    def finish(self, on_event: Sink) -> ManifestResult:
        """Describe the tables, which were written: card and Croissant. Raises ``StorageError``."""
        # Not by those who find nothing to write. measured: 16 ms of 0.4 s of CPU time before `extract-labels` again
        # looks at the folder, with what else only writers import (benchmarks/start.py).
        from cxrprep.manifest.croissant import write_croissant
        from cxrprep.manifest.dataset_card import write_card_beside

        images = self.folder / IMAGES_NAME
        write_card_beside(images)
        write_croissant(self.folder, (IMAGES_NAME, STUDIES_NAME))
        if self.stamps is not None and not self.result.second_copies and not self.result.foreign:
            self.stamps.keep(images)
        for note in join_notes(self.result, has_labels=self.has_labels):
            on_event(note)
        on_event(StageFinished(STAGE, done=self.result.images))
        return self.result


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedManifest(UnwrittenManifest):
    """One whose rows are in memory. Of the tables ``beside`` the image table its footer states the digests."""

    images: pa.Table
    studies: pa.Table
    beside: tuple[str, ...] = ()

    @plain_memory()
    def write(self, on_event: Sink = ignore) -> ManifestResult:
        """Both tables, the card and the Croissant description put in place. Raises ``StorageError``."""
        studies, images = words_in_order(self.studies), words_in_order(self.images)
        write_table(studies, self.folder / STUDIES_NAME, name="studies", made_from=self.made_from)
        tables = {name: file_digest(self.folder / name, "sha256") for name in self.beside}
        stated = with_digest(self.images, {**self.made_from, **({"tables_beside": tables} if tables else {})})
        write_table(images, self.folder / IMAGES_NAME, name="images", made_from=stated)
        return self.finish(on_event)


@plain_memory()
def prepare_manifest(
    folder: DatasetFolder,
    choices: Choices,
    *,
    to: Path | None = None,
    labels_in: Path | None = None,
    labels: Labels | None = None,
    discarded: bool = False,
    measure: Measure | None = None,
    allow_loss: bool = False,
    stamps: FolderStamps | None = None,
    on_event: Sink = ignore,
) -> PreparedManifest:
    """The image table and the studies of a release, from its labels and the files that are here.

    Every image file is a row or counted, every row of the tables is joined or counted. The record knows digests.

    Args:
        folder: The open folder.
        choices: Label source (several with commas as an order of preference), policy and split.
        to: Where the tables will go; by default into the folder's manifests.
        labels_in: The folder of ``labels.parquet`` where that is another one.
        labels: The labels, where they were read just now and are not in that table yet.
        discarded: Files that were used up count as here, for the manifest of what was made of them.
        measure: Gives width, height and mode of image files; what an earlier manifest says of an unchanged file is not
            measured again.
        allow_loss: The tables may know less than those that are there.
        stamps: Told of the folders.
        on_event: Told what could not be joined.

    Returns:
        The tables, checked and not written yet.

    Raises:
        TableError: ``labels.parquet`` is damaged.
        UsageError: The tables would know less than those that are there, and nobody asked for that.
    """
    notes: list[NoteWords] = []
    on_event = noted(notes, on_event)
    on_event(StageStarted(STAGE, unit="images"))
    spec, root, manifests = folder.spec, folder.root, to or folder.manifests
    table, made_from = _labels_of(labels) if labels else _read_labels((labels_in or manifests) / LABELS_NAME, on_event)
    release = made_from.get("release") or folder.release
    path = manifests / IMAGES_NAME
    files = folder.record.table(RECORDED) if folder.record.exists else None
    found = image_files(
        spec, root, files, release=release, discarded=discarded, earlier=path, stamps=stamps, on_event=on_event
    )
    origin = origin_of(spec, release, made_from, choices.label_source, table)
    wanted, usual = stated_sources(origin["label_source"]), stated_sources(spec.default_label_source)
    if "label_source_by_default" in origin:
        on_event(Note(STAGE, f"no labels of {', '.join(usual)}: those of {wanted[0]} are taken", "info", IMAGES_NAME))
    images, joined = joined_images(spec, found, table, wanted=wanted, usual=usual, release=release)
    images = add_sizes(spec, images, root=root, earlier=path, manifest=path, measure=measure, on_event=on_event)
    origin["files"] = None if files is None else str(digest_of_sorted([files.sort_by("path")]))
    images = choices.applied(images, origin, on_event)
    studies, disagreeing = studies_of(images, table)
    has_labels, copies, foreign = table is not None, found.second_copies, found.foreign
    # What was joined is let go before the tables of before are held beside the new ones.
    del table, found
    note_disagreeing(disagreeing, on_event)
    if not allow_loss:
        check_tables(manifests, images, studies, root, made_from=origin, has_labels=has_labels)
    counts: dict[str, Any] = {
        **joined, "studies": studies.num_rows, "second_copies": copies, "foreign": foreign,
        "disagreeing_studies": disagreeing,
    }  # fmt: skip
    result = replace(described_result(images, manifests), **counts)
    return PreparedManifest(
        folder=manifests,
        images=images,
        studies=studies,
        made_from={**origin, **notes_of(notes, result, has_labels=has_labels)},
        result=result,
        has_labels=has_labels,
        stamps=stamps,
    )


def noted(notes: list[NoteWords], on_event: Sink) -> Sink:
    """``on_event``, which adds what is said to ``notes``, for the footer of the manifest."""

    def keep(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(without_folder(event))
        on_event(event)

    return keep


def notes_of(notes: list[NoteWords], result: ManifestResult, *, has_labels: bool) -> dict[str, Any]:
    """What was said and counted of a manifest with labels, as its footer has it: see ``manifest.current``.

    Sorted: ranges of patients say it in another order, and the bytes are to be the same.
    """
    unjoined = map(without_folder, join_notes(result, has_labels=has_labels))
    return {"notes": sorted([*notes, *unjoined]), "counts": result.counts()} if has_labels else {}


def note_disagreeing(studies: int, on_event: Sink) -> None:
    """Say how many studies have images that are labelled differently."""
    if studies:
        words = f"{format_count(studies, 'study', 'has')} images with different labels: the first of 1, -1, 0, null"
        on_event(Note(STAGE, words, "warning"))


def origin_of(
    spec: DatasetSpec, release: str, made_from: Mapping[str, Any], chosen: str | None, labels: pa.Table | None
) -> dict[str, Any]:
    """What the footer says of a manifest: no times, no absolute paths: the same folder gives the same bytes anywhere.

    Args:
        spec: The dataset.
        release: The release.
        made_from: The footer of the labels.
        chosen: The label sources that somebody chose, best first, with commas.
        labels: The labels, whose sources are taken where nobody chose and the dataset's own are not there.

    Returns:
        JSON values.
    """
    usual = stated_sources(spec.default_label_source)
    wanted = stated_sources(chosen) if chosen else default_sources(labels, usual)
    return {
        "dataset": spec.name,
        "release": release,
        "label_source": ",".join(wanted),
        **({"label_source_by_default": True} if wanted != usual and not chosen else {}),
        "tables": made_from.get("tables", []),
        "files": None,
    }


def described_result(images: pa.Table, folder: Path) -> ManifestResult:
    """The counts of a manifest in ``folder`` of which nothing was joined anew."""
    return ManifestResult(
        images_path=folder / IMAGES_NAME,
        studies_path=folder / STUDIES_NAME,
        images=images.num_rows,
        studies=int(pc.count_distinct(images.column("study_id")).as_py()),
        patients=int(pc.count_distinct(images.column("patient_id")).as_py()),
        labelled=images.num_rows - images.column("label_source").null_count,
        sources=sources_of(images),
    )


def check_tables(
    folder: Path, images: pa.Table, studies: pa.Table, root: Path, *, made_from: Mapping[str, Any], has_labels: bool
) -> None:
    """Refuse tables that would know less than those that are there, by what they were made from.

    Labels may go where another label source or policy was asked for. A split never goes: a rule names one for all.

    Args:
        folder: Of the manifests.
        images: The new image table.
        studies: The new table of studies.
        root: The folder that paths are relative to.
        made_from: What the new ones are made from, for their footer.
        has_labels: Whether labels were there to be joined.

    Raises:
        UsageError: Names what would go, and the words that ask for it.
    """
    path = folder / IMAGES_NAME
    exempt, before = may_go(folder, images.column_names, made_from, has_labels=has_labels)
    hint = "" if has_labels else f"read the tables first: cxrprep extract-labels {shlex.quote(str(root))}"
    if before.get("recipe") or made_from.get("recipe"):
        hint = CONVERT_AGAIN
    if before.get("label_source"):
        hint = f"its labels are of {before['label_source']}{'; ' if hint else ''}{hint}"
    rule = before.get("split") or {}
    if rule.get("folds"):
        hint = f"number the folds again: --folds {rule['folds']}{'; ' if hint else ''}{hint}"
    before_images, before_studies = stored_table(path), stored_table(folder / STUDIES_NAME)
    refuse_loss(path, image_losses(before_images, images, root, exempt), hint=hint)
    refuse_loss(folder / STUDIES_NAME, study_losses(before_studies, studies, before_images, exempt), hint=hint)


def may_go(
    folder: Path, columns: Iterable[str], made_from: Mapping[str, Any], *, has_labels: bool
) -> tuple[frozenset[str], dict[str, Any]]:
    """The columns whose cells may go, since another label source or policy was asked for, and the footer of before.

    Args:
        folder: Of the manifests.
        columns: The names of the new table's.
        made_from: What it is made from.
        has_labels: Whether labels were there to be joined.

    Returns:
        Names, and the footer; empty where there is none.
    """
    before = footer_of(folder / IMAGES_NAME)
    chosen = ("label_source", "policy")
    if not has_labels or all((before.get(name) or None) == (made_from.get(name) or None) for name in chosen):
        return frozenset(), before
    return frozenset(name for name in columns if name.startswith("label")) | {"table_name", "table_digest"}, before


def _labels_of(labels: Labels) -> tuple[pa.Table, dict[str, Any]]:
    # Not in one piece: that would be a second copy of it, beside the first.
    return labels.table.select(read_columns(labels.table.schema)), {
        "release": labels.release,
        "tables": [described_table(use) for use in labels.tables],
    }


def read_columns(schema: pa.Schema) -> list[str]:
    """The columns of a table of labels that a manifest needs: all but the source tables' cells."""
    return [*LABELS.names, *own_columns(schema), *(["report_text"] if "report_text" in schema.names else [])]


def _read_labels(path: Path, on_event: Sink) -> tuple[pa.Table | None, dict[str, Any]]:
    if not path.exists():
        on_event(Note(STAGE, "no labels yet; cxrprep extract-labels reads the tables", "info", str(path)))
        return None, {}
    made_from = read_footer(path)
    check_as_written(path)
    table = read_combined(path, read_columns(read_schema(path)))
    check_label_values(table, path)
    return table, made_from


def sources_of(images: pa.Table) -> tuple[tuple[str, int], ...]:
    """How many images have labels of each source."""
    counted = pc.value_counts(images.column("label_source").cast(pa.string())).to_pylist()
    return tuple(sorted((c["values"], c["counts"]) for c in counted if c["values"] is not None))


def join_notes(result: ManifestResult, *, has_labels: bool) -> Iterator[Note]:
    """What could not be joined, in words."""
    if has_labels and result.without_row:
        message = (
            f"{format_count(result.without_row, 'image', 'has')} no row in the label tables: listed with null labels"
        )
        yield Note(STAGE, message, "warning", IMAGES_NAME)
    if result.not_here:
        message = f"{format_count(result.not_here, 'image')} of the label tables not here: in {LABELS_NAME} only"
        yield Note(STAGE, message, "info", IMAGES_NAME)
