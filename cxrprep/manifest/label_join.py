"""Join of labels and images: which row of ``labels.parquet`` labels an image, and the columns that it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError, UsageError
from cxrprep.labels.columns import constant, count_true
from cxrprep.labels.joins import positions, rises
from cxrprep.labels.label_sources import OURS
from cxrprep.schemas import IMAGES, LABELS, null_columns, own_columns, own_observations, with_boxes
from cxrprep.storage.parquet import read_schema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.manifest.image_files import ImageFiles

ORIGIN: Final = ("label_source", "table_name", "table_digest", "labels_raw")
"""The columns that say whose labels a row has."""
LABEL_COLUMNS: Final = tuple(name for name in LABELS.names if name.startswith("label_") and name != "label_source")

_ORDER: Final = ("patient_id", "study_id", "image_id")
_ABOUT: Final = tuple(
    name for name in IMAGES.names if name in LABELS.names and name not in {*ORIGIN, *LABEL_COLUMNS, "boxes"}
)


def stated_sources(text: str) -> tuple[str, ...]:
    """The label sources that ``"radiologist,chexpert-labeler"`` names, the preferred one first."""
    return tuple(source.strip() for source in text.split(",") if source.strip())


def default_sources(labels: pa.Table | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The label sources of a manifest for which nobody chose one: the release's ``usual``, else those that are there.

    Labels that were made here come first, then the others by name.
    """
    if labels is None:
        return usual
    there = {name for name in pc.unique(labels.column("label_source").cast(pa.string())).to_pylist() if name}
    if not there or there & set(usual):
        return usual
    return tuple(sorted(there, key=lambda name: (name != OURS, name)))


def check_label_values(table: pa.Table, path: Path) -> None:
    """Raise ``TableError`` where a cell of a table that somebody else may have written is no label."""
    for name in LABEL_COLUMNS:
        if not _are_labels(table.column(name)):
            hint = "make it again: cxrprep extract-labels ROOT --allow-loss"
            raise TableError(f"{path}, column {name}: not all are 1, 0, -1 or null", hint=hint)


def _are_labels(column: pa.ChunkedArray) -> bool:
    """Whether the numbers of a table that somebody else may have written are labels."""
    extremes = pc.min_max(column.cast(pa.int64())).as_py()
    return extremes["min"] is None or bool(-1 <= extremes["min"] <= extremes["max"] <= 1)


def joined_images(
    spec: DatasetSpec,
    found: ImageFiles,
    labels: pa.Table | None,
    *,
    wanted: tuple[str, ...],
    usual: tuple[str, ...],
    release: str,
) -> tuple[pa.Table, dict[str, int]]:
    """The image table of some files, sorted, before they are measured, and how the join with their labels went.

    Args:
        spec: The dataset.
        found: The files.
        labels: Rows of ``labels.parquet``.
        wanted: Label sources, best first.
        usual: Those of the dataset, which say best what is known beside labels.
        release: The release.

    Returns:
        The table, and counts by what they count.
    """
    columns, joined = _join(found, labels, wanted, usual)
    columns["dataset"] = constant(spec.name, found.rows)
    columns["release"] = constant(release, found.rows)
    columns |= {"path": found.path, "bytes": found.size, "digest": found.digest}
    if "split" in columns:
        columns["release_split"] = columns["split"]
    own = own_observations(labels.schema) if labels is not None else []
    boxes = IMAGES.field("boxes").type if labels is None else labels.schema.field("boxes").type
    images = null_columns(pa.schema([*with_boxes(IMAGES, boxes), *own]), found.rows, columns)
    del columns
    if not rises(images, _ORDER):
        images = images.sort_by([(name, "ascending") for name in _ORDER]).combine_chunks()
    return images, joined


def _join(
    found: ImageFiles, labels: pa.Table | None, wanted: tuple[str, ...], usual: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, int]]:
    """The columns that the label tables give to the files, and how the join went.

    Labels are those of ``wanted``; what is known beside them the tables of ``usual`` say best.
    """
    about: dict[str, Any] = {
        "image_id": found.image,
        "patient_id": found.patient,
        "study_id": found.study,
        "view": found.view,
        "projection": found.projection,
        "split": found.split,
    }
    if labels is None:
        return about, {"labelled": 0, "without_row": found.rows, "not_here": 0}
    if not found.rows and labels.num_rows:
        # Tables alone: nothing is joined, and their keys need not be held a second time.
        nobody = _join(found, labels.slice(0, 0), wanted, usual)[0]
        absent = int(pc.count_distinct(labels.column("image_id")).as_py())
        return nobody, {"labelled": 0, "without_row": 0, "not_here": absent}
    image_keys = labels.column("image_id").combine_chunks()
    ids = pa.table({"image_id": found.image, "study_id": found.study})
    chosen = rows_of_sources(ids, labels, wanted)
    best = chosen if usual == wanted else rows_of_sources(ids, labels, usual)
    # A row about a study says less of an image than any row about the image itself.
    own, best = (pc.if_else(pc.is_valid(image_keys.take(r)), r, pa.scalar(None, r.type)) for r in (chosen, best))
    first = _first_rows(found.image, image_keys, pc.is_null(own))
    base = pc.coalesce(best, own, first, chosen)
    # What a row about a study leaves open, its image's path may say.
    of_study = pc.is_null(pc.coalesce(best, own, first))
    named = pc.coalesce(own, first, chosen)
    for name in _ABOUT:
        stated = labels.column(name).combine_chunks().take(named if name == "path_raw" else base)
        known = about.get(name)
        if known is not None:
            stated = stated.cast(known.type)
            stated = pc.if_else(pc.is_valid(base), pc.if_else(of_study, pc.coalesce(known, stated), stated), known)
        about[name] = _filled(stated, found.image, image_keys, labels.column(name))
    about["image_id"] = found.image
    kept = (*ORIGIN, *LABEL_COLUMNS, *own_columns(labels.schema))
    columns = {name: labels.column(name).combine_chunks().take(chosen) for name in kept}
    boxed = rows_for(found.image, image_keys, pc.is_valid(labels.column("boxes").combine_chunks()))
    columns["boxes"] = labels.column("boxes").combine_chunks().take(boxed)
    absent = image_keys.filter(pc.invert(pc.is_in(image_keys, value_set=found.image))).drop_null()
    return {**about, **columns}, {
        "labelled": len(chosen) - chosen.null_count,
        "without_row": base.null_count,
        "not_here": int(pc.count_distinct(absent).as_py()),
    }


def _first_rows(images: pa.Array, keys: pa.Array, asked: pa.Array) -> pa.Array:
    """For each image of those that are ``asked`` about the first row about it; null for all others."""
    rows = pa.nulls(len(images), pa.int64())
    return pc.replace_with_mask(rows, asked, rows_for(images.filter(asked), keys, None)) if count_true(asked) else rows


def _filled(stated: pa.Array, images: pa.Array, keys: pa.Array, column: pa.ChunkedArray) -> pa.Array:
    """``stated``, and where it is null what any other row about the image says: an added table knows less."""
    if not stated.null_count or column.null_count == len(column):
        return stated
    held = column.combine_chunks()
    others = rows_for(images.filter(pc.is_null(stated)), keys, pc.is_valid(held))
    if others.null_count == len(others):
        return stated
    words = stated.type.value_type if pa.types.is_dictionary(stated.type) else stated.type
    filled = pc.replace_with_mask(stated.cast(words), pc.is_null(stated), held.take(others).cast(words))
    return filled.dictionary_encode().cast(stated.type) if pa.types.is_dictionary(stated.type) else filled


def rows_for(keys: pa.Array, table_keys: pa.Array, mask: pa.Array | None) -> pa.Array:
    """For each key the first row of the table that has it (and whose ``mask`` is true); null where there is none."""
    taken = pc.is_valid(table_keys) if mask is None else pc.and_(pc.is_valid(table_keys), mask)
    if len(keys) < len(table_keys) // 2:
        # The larger of the two would be held a second time for the sake of the fewer.
        taken = pc.and_(taken, pc.is_in(table_keys, value_set=keys))
    rows = pc.indices_nonzero(taken).cast(pa.int64())
    return rows.take(positions(keys, table_keys if len(rows) == len(table_keys) else table_keys.take(rows)))


def rows_of_sources(images: pa.Table, labels: pa.Table, sources: tuple[str, ...]) -> pa.Array:
    """For each image the row of the first label source that has one for it or for its study, else null."""
    image_ids, study_ids = (images.column(name).combine_chunks() for name in ("image_id", "study_id"))
    image_keys = labels.column("image_id").combine_chunks()
    study_keys = labels.column("study_id").combine_chunks()
    source = labels.column("label_source").combine_chunks().cast(pa.string())
    labelled = _labelled(labels)
    chosen = pa.nulls(len(image_ids), pa.int64())
    for name in sources:
        of_source = pc.and_(pc.equal(source, name), labelled)
        chosen = pc.coalesce(chosen, rows_for(image_ids, image_keys, of_source))
        # A table of studies carries its labels to all images of the study.
        of_studies = pc.and_(of_source, pc.is_null(image_keys))
        if count_true(of_studies):
            chosen = pc.coalesce(chosen, rows_for(study_ids, study_keys, of_studies))
    return chosen


def _labelled(labels: pa.Table) -> pa.Array:
    """The rows that come from a row of a labeler's table, or have a label at all.

    MIMIC's labelers left out some studies, whose images are listed all the same: they were not labelled.
    """
    found = pc.is_valid(labels.column("table_name").combine_chunks())
    if count_true(found) < len(found):
        for name in (*LABEL_COLUMNS, *own_columns(labels.schema)):
            found = pc.or_(found, pc.is_valid(labels.column(name).combine_chunks()))
    return found


def relabelling_columns(path: Path) -> list[str]:
    """The columns of the ``labels.parquet`` at ``path`` that ``relabelled`` takes."""
    return ["image_id", "study_id", *ORIGIN, *LABEL_COLUMNS, *own_columns(read_schema(path))]


def check_sources(labels: Iterable[pa.Table], sources: tuple[str, ...], path: Path | str) -> None:
    """Raise ``UsageError`` that lists the sources when the parts of a table, of ``path``, have none of ``sources``."""
    words = (pc.unique(part.column("label_source").cast(pa.string())).to_pylist() for part in labels)
    known = {name for names in words for name in names if name}
    if not known & set(sources):
        raise UsageError(
            f"no labels of {', '.join(sources)} are in {path}",
            hint=f"label sources there: {', '.join(sorted(known)) or 'none'}; name one with --label-source",
        )


def relabel_from(images: pa.Table, labels: pa.Table, sources: tuple[str, ...], where: Path | str) -> pa.Table:
    """``images`` with the labels of other sources, from a table that was read.

    Args:
        images: Rows of a manifest.
        labels: Rows of ``labels.parquet``.
        sources: Names, best first.
        where: Names the table in errors.

    Returns:
        The rows in their order.

    Raises:
        UsageError: No row is of these sources.
    """
    check_sources([labels], sources, where)
    return relabelled(images, labels, rows_of_sources(images, labels, sources))


def relabelled(images: pa.Table, labels: pa.Table, chosen: pa.Array) -> pa.Table:
    """``images`` with the labels of the rows that were chosen for them."""
    for name in (*ORIGIN, *LABEL_COLUMNS, *(own for own in own_columns(images.schema) if own in labels.column_names)):
        index = images.schema.get_field_index(name)
        values = labels.column(name).combine_chunks().take(chosen)
        images = images.set_column(index, images.schema.field(index), values.cast(images.schema.field(index).type))
    return images
