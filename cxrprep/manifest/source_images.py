"""Source images of a conversion, from the rows of a manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.source_vocabulary import known_observations, ordered
from cxrprep.model import Box, Digest, ImageId, Selection, View
from cxrprep.selection.table_filters import chosen_rows, matching
from cxrprep.storage.parquet import read_footer, read_groups, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cxrprep.selection.filters import SelectionFilter
    from cxrprep.storage.table_on_disk import TableOnDisk

_COLUMNS = ["image_id", "patient_id", "study_id", "view", "path", "digest", "boxes", "spacing_x_mm", "spacing_y_mm"]

_DECIDING: Final = ("path", "patient_id", "study_id", "image_id")
_ROWS: Final = 8192
_VIEWS: Final = {str(view): view for view in View}

_ABOUT = (
    "image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image that is here: ``boxes`` in its own pixels, ``None`` where nobody drew any; spacing is (row, column).

    ``row`` holds the columns that were asked for.
    """

    path: str
    image: ImageId
    digest: Digest | None
    boxes: tuple[Box, ...] | None
    spacing_mm: tuple[float, float] | None
    row: Mapping[str, Any] | None = None


def chosen_images(held: TableOnDisk, choice: SelectionFilter, holds: Callable[[str], bool] | None) -> TableOnDisk:
    """The rows whose ids and paths are wanted; of a few, groups of rows without any are not read any more."""

    def wanted(group: pa.Table) -> Any:
        mask = chosen_rows(group, choice)
        return mask if holds is None else pc.and_(mask, pa.array(map(holds, group["path"].to_pylist()), pa.bool_()))

    return held if choice.wants_all and holds is None else held.where(_DECIDING, wanted)


def source_images(held: TableOnDisk) -> Iterator[SourceImage]:
    """Rows of ``images.parquet`` in its order. Raises ``TableError`` when it cannot be read."""
    columns = [name for name in _COLUMNS if name in held.column_names]
    for rows in held.groups(columns):
        for batch in rows.to_batches(max_chunksize=_ROWS):
            for row in batch.to_pylist():
                yield _source(row)


def images_by_split(held: TableOnDisk) -> Iterator[SourceImage]:
    """The same rows split by split, each in its order, with what training needs of each as ``row``.

    Splits come in the order of their names, images without one at the end. The labels are those that the manifest's
    label sources know, whether any image has them or not.
    Raises ``TableError`` when it cannot be read.
    """
    footer = read_footer(held.path)
    labels = [name for name in held.column_names if name.startswith("label_") or name == "dataset"]
    known = ordered({stem for group in read_groups(held.path, labels) for stem in known_observations(group, footer)})
    kept = [*_ABOUT, *(f"label_{stem}" for stem in known)]
    columns = list(dict.fromkeys([*_COLUMNS, *kept]))
    table = held.select(columns).combine_chunks()
    # It is stable, and puts nulls at the end.
    order = pc.sort_indices(table.column("split").cast(pa.string()))
    for start in range(0, len(order), _ROWS):
        for row in table.take(order[start : start + _ROWS]).to_pylist():
            yield dataclasses.replace(_source(row), row={name: row[name] for name in kept})


def ids_of(images: Path, selection: Selection, dataset: str) -> frozenset[str]:
    """The images of ``images.parquet`` in the splits and views and with the labels of ``selection``.

    Raises ``TableError`` when the table cannot be read or does not say it, ``UsageError`` for words that name nothing.
    """
    table = read_rows(images)
    found = table.filter(pc.fill_null(matching(table, selection, dataset=dataset), fill_value=False))
    return frozenset(found.column("image_id").to_pylist())


def _source(row: dict[str, Any]) -> SourceImage:
    boxes, digest = row["boxes"], row["digest"]
    x, y = row["spacing_x_mm"], row["spacing_y_mm"]
    return SourceImage(
        path=str(row["path"]),
        image=ImageId(str(row["patient_id"]), str(row["study_id"]), str(row["image_id"]), _VIEWS.get(row["view"])),
        digest=Digest.parse(digest) if isinstance(digest, str) else None,
        boxes=tuple(Box(**box) for box in boxes) if isinstance(boxes, list) else None,
        spacing_mm=(y, x) if isinstance(x, float) and isinstance(y, float) else None,
    )
