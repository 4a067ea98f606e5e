"""The images of a manifest as what a conversion needs to know of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.errors import TableError
from cxrprep.model import Box, Digest, ImageId, View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COLUMNS = ["image_id", "patient_id", "study_id", "view", "path", "digest", "boxes", "spacing_x_mm", "spacing_y_mm"]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image that is here: ``boxes`` in its own pixels, ``None`` where nobody drew any; spacing is (row, column)."""

    path: str
    image: ImageId
    digest: Digest | None
    boxes: tuple[Box, ...] | None
    spacing_mm: tuple[float, float] | None


def source_images(images: Path) -> Iterator[SourceImage]:
    """The rows of ``images.parquet``, in its order. Raises ``TableError`` when it cannot be read."""
    try:
        file = pq.ParquetFile(images)
        for batch in file.iter_batches(batch_size=8192, columns=_COLUMNS):
            for row in batch.to_pylist():
                yield _source(row)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise TableError(f"{images} cannot be read: {error}", hint="run: cxrprep manifest ROOT") from error


def count_images(images: Path) -> int:
    """The number of rows of ``images.parquet``. Raises ``TableError`` when it cannot be read."""
    try:
        return int(pq.ParquetFile(images).metadata.num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{images} cannot be read: {error}", hint="run: cxrprep manifest ROOT") from error


def _source(row: dict[str, Any]) -> SourceImage:
    boxes, digest = row["boxes"], row["digest"]
    x, y = row["spacing_x_mm"], row["spacing_y_mm"]
    return SourceImage(
        path=str(row["path"]),
        image=ImageId(
            str(row["patient_id"]),
            str(row["study_id"]),
            str(row["image_id"]),
            View(row["view"]) if row["view"] else None,
        ),
        digest=Digest.parse(digest) if isinstance(digest, str) else None,
        boxes=tuple(Box(**box) for box in boxes) if isinstance(boxes, list) else None,
        spacing_mm=(y, x) if isinstance(x, float) and isinstance(y, float) else None,
    )
