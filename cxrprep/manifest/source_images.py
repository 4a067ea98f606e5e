"""Source images of a conversion, from the rows of a manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.labels.source_vocabulary import known_observations
from cxrprep.model import Box, Digest, ImageId, View
from cxrprep.selection.table_filters import matching
from cxrprep.storage.parquet import check_columns, read_footer, read_rows, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cxrprep.model import Selection

_COLUMNS = ["image_id", "patient_id", "study_id", "view", "path", "digest", "boxes", "spacing_x_mm", "spacing_y_mm"]

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


def source_images(images: Path) -> Iterator[SourceImage]:
    """The rows of ``images.parquet``, in its order. Raises ``TableError`` when it cannot be read."""
    with readable(images), pq.ParquetFile(images, page_checksum_verification=True) as file:
        check_columns(file.schema_arrow, images, _COLUMNS)
        for batch in file.iter_batches(batch_size=8192, columns=_COLUMNS):
            for row in batch.to_pylist():
                yield _source(row)


def images_by_split(images: Path) -> Iterator[SourceImage]:
    """The rows of ``images.parquet`` split by split, each in its order, with what training needs of each as ``row``.

    Splits come in the order of their names, images without one at the end. The labels are those that the manifest's
    label sources know, whether any image has them or not.
    Raises ``TableError`` when it cannot be read.
    """
    table = read_rows(images)
    known = known_observations(table, read_footer(images))
    kept = [*_ABOUT, *(f"label_{stem}" for stem in known)]
    table = table.select(list(dict.fromkeys([*_COLUMNS, *kept]))).combine_chunks()
    place = pa.array(range(table.num_rows), pa.int64())
    order = pc.sort_indices(
        pa.table({"split": table.column("split").cast(pa.string()), "place": place}),
        sort_keys=[("split", "ascending"), ("place", "ascending")],
    )
    for start in range(0, len(order), 8192):
        for row in table.take(order[start : start + 8192]).to_pylist():
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
        image=ImageId(
            str(row["patient_id"]),
            str(row["study_id"]),
            str(row["image_id"]),
            View(row["view"]) if row["view"] in set(View) else None,
        ),
        digest=Digest.parse(digest) if isinstance(digest, str) else None,
        boxes=tuple(Box(**box) for box in boxes) if isinstance(boxes, list) else None,
        spacing_mm=(y, x) if isinstance(x, float) and isinstance(y, float) else None,
    )
