"""Manifest of more images than memory should hold: joined for one range of patients after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.image_table import image_losses, study_losses
from cxrprep.events import Sink, StageStarted, ignore
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.source_vocabulary import known_observations, ordered
from cxrprep.manifest import build
from cxrprep.manifest.image_files import (
    IDS,
    LISTED,
    RECORDED,
    ImageFiles,
    digest_of_sorted,
    ids_of,
    listed_files,
    note_left_out,
    taken_files,
    with_digests,
)
from cxrprep.manifest.image_sizes import Measure, add_sizes
from cxrprep.manifest.label_join import check_label_values, joined_images, stated_sources
from cxrprep.manifest.stated_digest import digest_of_parts
from cxrprep.manifest.studies import studies_of
from cxrprep.storage.parquet import SET_DIGEST, WordOrder, check_as_written, read_footer, read_schema, write_parts
from cxrprep.storage.patient_table import IdsOfRanges, NotByPatientError, PatientTable
from cxrprep.storage.sorted_tables import SortedCursor, SortedTable, StoredParts, parts
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cxrprep.collection import DatasetFolder
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.manifest.choices import Choices
    from cxrprep.storage.folder_stamps import FolderStamps

ROWS: Final = 1 << 16
"""Images that are joined together, and those of one patient more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestParts(build.UnwrittenManifest):
    """One whose rows are in temporary files."""

    images: StoredParts
    studies: StoredParts

    @plain_memory()
    def write(self, on_event: Sink = ignore) -> build.ManifestResult:
        """Both tables, the card and the Croissant description put in place. Raises ``StorageError``."""
        origin = {name: value for name, value in self.made_from.items() if name != SET_DIGEST}
        _write(self.studies, self.folder / build.STUDIES_NAME, "studies", origin)
        _write(self.images, self.folder / build.IMAGES_NAME, "images", self.made_from)
        return self.finish(on_event)


def _write(stored: StoredParts, path: Path, name: str, made_from: Mapping[str, Any]) -> None:
    """The bytes that ``write_table`` would give to all of the rows."""
    order = WordOrder(stored.schema)
    for table in stored.tables():
        order.add(table)
    write_parts(map(order.numbered, stored.tables()), stored.schema, path, name=name, made_from=made_from)


@dataclass(slots=True)
class _Joining:
    """The ranges that were joined: their rows in temporary files, and what they came to together."""

    images: StoredParts | None = None
    studies: StoredParts | None = None
    counts: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    stems: set[str] = field(default_factory=set)
    second: list[str] = field(default_factory=list)
    of_images: IdsOfRanges = field(default_factory=IdsOfRanges)
    of_studies: IdsOfRanges = field(default_factory=IdsOfRanges)

    def add(self, images: pa.Table, studies: pa.Table, made_from: Mapping[str, Any]) -> None:
        """The rows of another range."""
        if self.images is None or self.studies is None:
            self.images, self.studies = StoredParts(images.schema), StoredParts(studies.schema)
        for part in parts(images):
            self.images.append(part)
        self.studies.append(studies)
        self.counts["patients"] += int(pc.count_distinct(images.column("patient_id")).as_py())
        self.sources.update(dict(build.sources_of(images)))
        self.stems.update(known_observations(images, made_from))


@plain_memory()
def prepare_by_patient(
    folder: DatasetFolder,
    choices: Choices,
    *,
    labels_in: Path,
    measure: Measure | None,
    allow_loss: bool,
    stamps: FolderStamps | None = None,
    on_event: Sink = ignore,
) -> ManifestParts:
    """What ``prepare_manifest`` gives, for a release whose files, labels and tables of before divide by patients.

    measured: 1,577 -> 560 MiB at the peak and 86 -> 50 s CPU on `manifest` of 1,000,000 images (benchmarks/scale.py).

    Args:
        folder: The open folder.
        choices: The source of the labels, and a stable split.
        labels_in: The folder of ``labels.parquet``.
        measure: Gives width, height and mode of image files.
        allow_loss: The tables may know less than those that are there.
        stamps: Told of the folders.
        on_event: Told what could not be joined.

    Returns:
        The tables, checked and not written yet.

    Raises:
        NotByPatientError: A file or row is of no patient, or one patient's row is about another one's image, or the
            tables would know less than those that are there: ``prepare_manifest`` joins all at once, and says so.
        TableError: ``labels.parquet`` is damaged.
    """
    spec, root, manifests = folder.spec, folder.root, folder.manifests
    said: list[build.NoteWords] = []
    on_event = build.noted(said, on_event)
    on_event(StageStarted(build.STAGE, unit="images"))
    path = labels_in / LABELS_NAME
    made_from, labels = dict[str, Any](), None
    if path.is_file():
        made_from, labels = read_footer(path), PatientTable(path, build.read_columns(read_schema(path)))
        check_as_written(path)
    release = str(made_from.get("release") or folder.release)
    origin = build.origin_of(spec, release, made_from, choices.label_source, _sources(labels))
    wanted, usual = stated_sources(origin["label_source"]), stated_sources(spec.default_label_source)
    if folder.record.exists:
        origin["files"] = str(digest_of_sorted(folder.record.tables(RECORDED)))
    before = PatientTable.at(manifests / build.IMAGES_NAME, "path")
    studies_before = PatientTable.at(manifests / build.STUDIES_NAME, "n_images")
    files, foreign = _by_patient(folder, release, stamps)
    joining, rule = _Joining(), choices.split_by
    origin |= {} if rule is None else {"split": rule.describe()}

    def join(after: str | None, last: str | None, rows: pa.Table) -> None:
        earlier = None if before is None else before.between(after, last)
        held = None if labels is None else labels.between(after, last)
        if held is not None:
            check_label_values(held, path)
        found = _found(rows, earlier, spec, joining)
        joining.of_images.add(found.image, None if held is None else held.column("image_id"))
        joining.of_studies.add(found.study, None if held is None else held.column("study_id"))
        images, joined = joined_images(spec, found, held, wanted=wanted, usual=usual, release=release)
        known = path if earlier is None else earlier
        images = add_sizes(
            spec,
            images,
            root=root,
            earlier=known,
            manifest=manifests / build.IMAGES_NAME,
            measure=measure,
            on_event=on_event,
        )
        images = images if rule is None else rule.divided(images, joining.counts)
        studies, disagreeing = studies_of(images, held)
        if not allow_loss:
            exempt, _ = build.may_go(manifests, images.column_names, origin, has_labels=held is not None)
            lost = image_losses(earlier, images, root, exempt)
            beside = None if studies_before is None else studies_before.between(after, last)
            if lost or study_losses(beside, studies, earlier, exempt):
                raise NotByPatientError
        joining.counts.update({**joined, "disagreeing": disagreeing})
        joining.add(images, studies, origin)

    for bounds in _ranges(files):
        # In a function, so that nothing of one range is held beside the next one.
        join(*bounds)
        # What it needed goes back to the system. measured, with smaller parts on the disk that are let go before they
        # are written: 581 -> 552 MiB at the peak of `extract-labels` on 377,110 images (benchmarks/scale.py linked).
        pa.default_memory_pool().release_unused()
    joining.of_images.check()
    joining.of_studies.check()
    for note in () if rule is None else rule.notes(joining.counts):
        on_event(note)
    made = _worked_out(joining, manifests, origin, foreign, has_labels=labels is not None, on_event=on_event)
    told = {**made.made_from, **build.notes_of(said, made.result, has_labels=made.has_labels)}
    return replace(made, made_from=told, stamps=stamps)


def _found(rows: pa.Table, earlier: pa.Table | None, spec: DatasetSpec, joining: _Joining) -> ImageFiles:
    """The images of a range, with the digests that an earlier manifest knows."""
    table = rows.sort_by("path").combine_chunks()
    listed = table.select(LISTED.names)
    if earlier is not None and listed.column("digest").null_count:
        told = earlier.select(["path", "bytes", "digest"]).rename_columns(list(LISTED.names))
        listed = with_digests(listed, told)
    found, second, _ = taken_files(listed, table.select(IDS.names), spec.images.suffixes)
    joining.second += second.to_pylist()
    return found


def _sources(labels: PatientTable | None) -> pa.Table | None:
    """The label sources of the rows, each once."""
    if labels is None:
        return None
    named = {
        name
        for table in labels.values("label_source")
        for name in pc.unique(table.column(0).cast(pa.string())).to_pylist()
    }
    return pa.table({"label_source": pa.array(sorted(filter(None, named)), pa.string())})


def _by_patient(folder: DatasetFolder, release: str, stamps: FolderStamps | None) -> tuple[SortedTable, list[str]]:
    """The image files of a folder by patient, those of one patient by path, and the paths of others."""
    listed = SortedTable(LISTED)
    for part in listed_files(folder.root, folder.spec.images.suffixes, stamps):
        listed.append(part)
    recorded = (part.cast(LISTED) for part in folder.record.tables(LISTED.names))
    walk = SortedCursor(recorded, LISTED)
    files = SortedTable(pa.schema([*LISTED, *IDS]), key="patient")
    layout, foreign = folder.spec.layout(release), list[str]()
    for part in listed.tables():
        known = with_digests(part, walk.upto(part.column("path")[-1].as_py()))
        ids = ids_of(part.column("path"), layout)
        ours = pc.is_valid(ids.column("image"))
        foreign += part.column("path").filter(pc.invert(ours)).to_pylist()
        table = pa.table([*known.columns, *ids.columns], files.schema).filter(ours)
        if table.column("patient").null_count:
            raise NotByPatientError
        files.append(table)
    if not files.num_rows:
        raise NotByPatientError
    return files, foreign


def _ranges(files: SortedTable) -> Iterator[tuple[str | None, str | None, pa.Table]]:
    """Files of some patients, behind which and up to which; the first and the last range have no bound there."""
    after: str | None = None
    held: list[pa.Table] = []
    for table in files.tables():
        held.append(table)
        whole = pa.concat_tables(held)
        if whole.num_rows > ROWS:
            last = whole.column("patient")[-1].as_py()
            # The last patient may have more rows in the next part.
            count = pc.sum(pc.less(whole.column("patient"), last)).as_py()
            if count:
                upto = whole.column("patient")[count - 1].as_py()
                yield after, upto, whole.slice(0, count)
                after, held = upto, [whole.slice(count)]
    yield after, None, pa.concat_tables(held)


def _worked_out(
    joining: _Joining,
    folder: Path,
    origin: dict[str, Any],
    foreign: list[str],
    *,
    has_labels: bool,
    on_event: Sink,
) -> ManifestParts:
    """The ranges together, made from what ``origin`` says; ``foreign`` are image files that are not of the release."""
    images, studies, counts = joining.images, joining.studies, joining.counts
    assert images is not None
    assert studies is not None
    note_left_out(sorted(joining.second), foreign, on_event)
    build.note_disagreeing(counts["disagreeing"], on_event)
    digest = digest_of_parts(images.tables(), ordered(joining.stems), origin)
    result = build.ManifestResult(
        images_path=folder / build.IMAGES_NAME,
        studies_path=folder / build.STUDIES_NAME,
        images=images.num_rows,
        studies=studies.num_rows,
        patients=counts["patients"],
        labelled=counts["labelled"],
        without_row=counts["without_row"],
        not_here=len(np.unique(np.concatenate(joining.of_images.elsewhere))) if joining.of_images.elsewhere else 0,
        second_copies=len(joining.second),
        foreign=len(foreign),
        disagreeing_studies=counts["disagreeing"],
        sources=tuple(sorted(joining.sources.items())),
    )
    stated = {**origin, **({SET_DIGEST: digest} if digest else {})}
    return ManifestParts(
        folder=folder, images=images, studies=studies, made_from=stated, result=result, has_labels=has_labels
    )
