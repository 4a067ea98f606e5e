"""Which rows of a manifest a selection wants: the manifest itself answers, no release table is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.select import matching
from cxrprep.model import ImageId
from cxrprep.plan import Choice, draw

if TYPE_CHECKING:
    from cxrprep.model import Selection


def wanted_rows(table: pa.Table, selection: Selection) -> Any:
    """A Boolean array, true for the rows of ``table`` (of images) that ``selection`` wants.

    Globs match the manifest's paths, labels are those of the manifest. Raises ``UsageError`` for a view, split or
    observation that does not exist.
    """
    mask = pc.fill_null(matching(table, selection, dataset=_dataset_of(table)), fill_value=False)
    choice = Choice(selection)
    if choice.by_image or selection.include or selection.exclude:
        ids = (table.column(name).to_pylist() for name in ("path", "patient_id", "study_id", "image_id"))
        kept = [choice.wants(path, ImageId(*of_image)) for path, *of_image in zip(*ids, strict=True)]
        mask = pc.and_(mask, pa.array(kept, pa.bool_()))
    if selection.limit is not None or selection.sample is not None:
        left = table.column("image_id").filter(mask).to_pylist()
        drawn = draw(left, sample=selection.sample, limit=selection.limit, seed=selection.seed)
        mask = pc.and_(mask, pc.is_in(table.column("image_id"), value_set=pa.array(sorted(drawn), pa.string())))
    return mask


def _dataset_of(table: pa.Table) -> str:
    return str(table.column("dataset")[0].as_py()) if table.num_rows else "this folder"
