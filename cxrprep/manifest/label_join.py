"""Join of labels and images: which row of ``labels.parquet`` labels an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError, UsageError
from cxrprep.labels.columns import count_true
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.joins import positions
from cxrprep.labels.label_sources import OURS
from cxrprep.schemas import LABELS, own_observations
from cxrprep.storage.parquet import read_rows, read_schema

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN: Final = ("label_source", "table_name", "table_digest", "labels_raw")
"""The columns that say whose labels a row has."""
LABEL_COLUMNS: Final = tuple(name for name in LABELS.names if name.startswith("label_") and name != "label_source")


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


def rows_for(keys: pa.Array, table_keys: pa.Array, mask: pa.Array | None) -> pa.Array:
    """For each key the first row of the table that has it (and whose ``mask`` is true); null where there is none."""
    taken = pc.is_valid(table_keys) if mask is None else pc.and_(pc.is_valid(table_keys), mask)
    if len(keys) < len(table_keys) // 2:
        # The larger of the two would be held a second time for the sake of the fewer.
        taken = pc.and_(taken, pc.is_in(table_keys, value_set=keys))
    rows = pc.indices_nonzero(taken).cast(pa.int64())
    return rows.take(positions(keys, table_keys if len(rows) == len(table_keys) else table_keys.take(rows)))


def rows_of_sources(images: pa.Array, studies: pa.Array, labels: pa.Table, sources: tuple[str, ...]) -> pa.Array:
    """For each image the row of the first label source that has one for it or for its study, else null.

    Args:
        images: Ids of images.
        studies: Ids of their studies, in the same order.
        labels: Rows of ``labels.parquet``.
        sources: Names, best first.

    Returns:
        Places of rows, as many as images.
    """
    image_keys = labels.column("image_id").combine_chunks()
    study_keys = labels.column("study_id").combine_chunks()
    source = labels.column("label_source").combine_chunks().cast(pa.string())
    labelled = _labelled(labels)
    chosen = pa.nulls(len(images), pa.int64())
    for name in sources:
        of_source = pc.and_(pc.equal(source, name), labelled)
        chosen = pc.coalesce(chosen, rows_for(images, image_keys, of_source))
        # A table of studies carries its labels to all images of the study.
        of_studies = pc.and_(of_source, pc.is_null(image_keys))
        if count_true(of_studies):
            chosen = pc.coalesce(chosen, rows_for(studies, study_keys, of_studies))
    return chosen


def _labelled(labels: pa.Table) -> pa.Array:
    """The rows that come from a row of a labeler's table, or have a label at all.

    MIMIC's labelers left out some studies, whose images are listed all the same: they were not labelled.
    """
    found = pc.is_valid(labels.column("table_name").combine_chunks())
    if count_true(found) < len(found):
        for name in (*LABEL_COLUMNS, *own_names(labels)):
            found = pc.or_(found, pc.is_valid(labels.column(name).combine_chunks()))
    return found


def own_names(table: pa.Table) -> list[str]:
    """The columns of a collection's own observations."""
    return [field.name for field in own_observations(table.schema)]


def check_sources(folder: Path, text: str) -> None:
    """Raise ``UsageError`` that lists the sources when ``labels.parquet`` of a folder has none that ``text`` names."""
    path = folder / LABELS_NAME
    if path.is_file():
        labels = read_rows(path, columns=["label_source"])
        _check(labels, stated_sources(text), path)


def check_stated(labels: pa.Table, text: str, where: str) -> None:
    """Raise ``UsageError`` that lists the sources when ``labels``, of ``where``, have none that ``text`` names."""
    _check(labels, stated_sources(text), where)


def _check(labels: pa.Table, sources: tuple[str, ...], path: Path | str) -> None:
    known = {name for name in pc.unique(labels.column("label_source").cast(pa.string())).to_pylist() if name}
    if not known & set(sources):
        raise UsageError(
            f"no labels of {', '.join(sources)} are in {path}",
            hint=f"label sources there: {', '.join(sorted(known)) or 'none'}; name one with --label-source",
        )


def relabel(images: pa.Table, folders: tuple[Path, ...], sources: tuple[str, ...]) -> pa.Table:
    """``images`` with the labels of ``sources``, from the first ``labels.parquet`` that is in one of ``folders``.

    Raises ``TableError`` when there is none, ``UsageError`` that lists the sources when none of ``sources`` is in it.
    """
    path = next((folder / LABELS_NAME for folder in folders if (folder / LABELS_NAME).is_file()), None)
    if path is None:
        raise TableError(f"{folders[0]} has no {LABELS_NAME}", hint="run: cxrprep extract-labels ROOT")
    own = [field.name for field in own_observations(read_schema(path))]
    labels = read_rows(path, columns=["image_id", "study_id", *ORIGIN, *LABEL_COLUMNS, *own]).combine_chunks()
    return relabel_from(images, labels, sources, path)


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
    _check(labels, sources, where)
    image_ids, study_ids = (images.column(name).combine_chunks() for name in ("image_id", "study_id"))
    chosen = rows_of_sources(image_ids, study_ids, labels, sources)
    for name in (*ORIGIN, *LABEL_COLUMNS, *(own for own in own_names(images) if own in labels.column_names)):
        index = images.schema.get_field_index(name)
        values = labels.column(name).combine_chunks().take(chosen)
        images = images.set_column(index, images.schema.field(index), values.cast(images.schema.field(index).type))
    return images
