"""Regions that a release draws on its images (``masks.parquet``), as rows of a table or as a list for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.joins import positions
from cxrprep.labels.label_losses import MASKS_NAME
from cxrprep.schemas import MASKS
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.value_codes import flat, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SAID: Final = tuple(name for name in MASKS.names if name not in ("dataset", "release", "image_id"))
# As text and not as categories, which not every reader knows inside of a list.
REGION: Final = pa.struct(
    [
        (name, pa.string() if pa.types.is_dictionary(MASKS.field(name).type) else MASKS.field(name).type)
        for name in _SAID
    ]
)
"""What is known of a region, in a list of those of an image."""


def masks_beside(manifest: Path) -> tuple[Path, ...]:
    """The table of regions beside a manifest; none where the release draws none."""
    place = manifest.with_name(MASKS_NAME)
    return (place,) if place.is_file() else ()


def region_lists(masks: tuple[Path, ...], images: pa.Table) -> pa.Array:
    """The regions of each image of a manifest; null where nobody drew any."""
    table, at = regions_on(masks, images)
    drawn = [flat(table.column(name)).cast(REGION.field(name).type) for name in _SAID]
    counts = np.bincount(at, minlength=images.num_rows)
    starts = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32(), mask=np.append(counts == 0, [False]))
    return pa.ListArray.from_arrays(starts, pa.StructArray.from_arrays(drawn, fields=list(REGION)))


def regions_on(masks: tuple[Path, ...], images: pa.Table) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows of tables of regions that are about these images, in their order, and the row of each one's image."""
    tables = [read_rows(place, columns=MASKS.names) for place in masks]
    table = pa.concat_tables([MASKS.empty_table(), *tables]).unify_dictionaries()
    at = numbers(positions(_names(table), _names(images)), -1).astype(np.int64)
    order = np.argsort(at, kind="stable")
    order = order[at[order] >= 0]
    return table.take(pa.array(order)), at[order]


def _names(rows: pa.Table) -> pa.Array:
    """What names an image among those of several datasets."""
    return flat(
        pc.binary_join_element_wise(*(rows.column(name).cast(pa.string()) for name in ("dataset", "image_id")), "/")
    )
