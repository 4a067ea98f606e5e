"""Study table: a row per study, from its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.joins import positions
from cxrprep.schemas import STUDIES, null_columns, own_observations, studies_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FROM_LABELS: Final = ("ordering_provider_id", "attending_provider_id", "resident_provider_id", "report_text")
_FROM_FIRST: Final = tuple(
    name
    for name in STUDIES.names
    if name not in {"n_images", "n_frontal", "n_lateral", "views", *_FROM_LABELS}
    and (not name.startswith("label_") or name == "label_source")
)
_LABELS: Final = tuple(name for name in STUDIES.names if name.startswith("label_") and name != "label_source")


def _ranks(column: pa.ChunkedArray) -> NDArray[np.int8]:
    """3 for 1, 2 for -1, 1 for 0, 0 for null: the maximum is what a study is."""
    values = column.combine_chunks()
    numbers = pc.fill_null(values, 9).to_numpy(zero_copy_only=False)
    return np.select([numbers == 1, numbers == -1, numbers == 0], [3, 2, 1], 0).astype(np.int8)


def studies_of(images: pa.Table, labels: pa.Table | None) -> tuple[pa.Table, int]:
    """The studies of ``images`` (sorted by patient and study), and how many have images with different labels.

    Labels rank 1 over -1 over 0 over null. What only the label tables know of a study (providers, report text) is
    taken from ``labels``.
    """
    with_text = labels is not None and "report_text" in labels.column_names
    own = own_observations(images.schema)
    schema = studies_schema(report_text=with_text, own=own)
    rows = images.num_rows
    if not rows:
        return schema.empty_table(), 0
    study = images.column("study_id").combine_chunks()
    patient = images.column("patient_id").combine_chunks()
    new = pc.or_(pc.not_equal(study[1:], study[:-1]), pc.not_equal(patient[1:], patient[:-1]))
    starts = np.concatenate([[0], np.flatnonzero(new.to_numpy(zero_copy_only=False)) + 1])
    counts = np.diff(np.append(starts, rows))
    first = images.select(_FROM_FIRST).take(pa.array(starts))
    columns: dict[str, Any] = {name: first.column(name).combine_chunks() for name in _FROM_FIRST}
    columns["n_images"] = pa.array(counts.astype(np.int16))
    projection = images.column("projection").combine_chunks().cast(pa.string())
    for name in ("frontal", "lateral"):
        mask = pc.fill_null(pc.equal(projection, name), fill_value=False).to_numpy(zero_copy_only=False)
        columns[f"n_{name}"] = pa.array(np.add.reduceat(mask.astype(np.int16), starts).astype(np.int16))
    offsets = pa.array(np.append(starts, rows), pa.int32())
    columns["views"] = pa.ListArray.from_arrays(offsets, images.column("view").combine_chunks().cast(pa.string()))
    differs = np.zeros(len(starts), bool)
    for name in (*_LABELS, *(field.name for field in own)):
        ranks = _ranks(images.column(name))
        highest = np.maximum.reduceat(ranks, starts)
        differs |= highest != np.minimum.reduceat(ranks, starts)
        columns[name] = pa.array(np.array([0, 0, -1, 1], np.int8)[highest], mask=highest == 0)
    if labels is not None:
        for name in _FROM_LABELS:
            if name in labels.column_names:
                # The first row that says it: a table that somebody added knows labels and nothing else.
                stated = labels.select(["study_id", name]).filter(pc.is_valid(labels.column(name)))
                rows_of = positions(columns["study_id"], stated.column("study_id").combine_chunks())
                columns[name] = stated.column(name).combine_chunks().take(rows_of)
    return null_columns(schema, len(starts), columns), int(differs.sum())
