"""Width, height and mode of image files, measured once; spacing and boxes in the file's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.events import Note
from cxrprep.labels.values import categories
from cxrprep.schemas import BOX

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.spec import DatasetSpec
    from cxrprep.events import Sink

Measure = Callable[[Sequence["Path"]], Iterable[tuple[int, int, str] | None]]
"""Width, height and mode of each file, in order; ``None`` for a file whose header cannot be read."""

_KEYS = ("path", "bytes", "digest")


def _remembered(images: pa.Table, earlier: Path) -> dict[str, tuple[int, int, str]]:
    """What an earlier manifest says of files that are the same by size and digest."""
    if not earlier.exists():
        return {}
    try:
        table = pq.read_table(earlier, columns=[*_KEYS, "width", "height", "source_mode"])
    except (OSError, KeyError, pa.ArrowInvalid):
        return {}  # a manifest of another make: measuring again costs time only
    known: dict[str, tuple[int, int, str]] = {}
    now = {row["path"]: row for row in images.select(list(_KEYS)).to_pylist()}
    for row in table.to_pylist():
        same = now.get(row["path"])
        if (
            same
            and row["digest"]
            and same["digest"] == row["digest"]
            and same["bytes"] == row["bytes"]
            and row["width"]
        ):
            known[row["path"]] = (row["width"], row["height"], row["source_mode"])
    return known


def add_sizes(
    spec: DatasetSpec, images: pa.Table, *, root: Path, earlier: Path, measure: Measure | None, on_event: Sink
) -> pa.Table:
    """``images`` with width, height and source_mode, spacing in mm, and boxes in the pixels of the file itself."""
    paths = images.column("path").to_pylist()
    known = _remembered(images, earlier)
    if measure is None and not known:
        return images
    asked = [path for path in paths if path not in known] if measure is not None else []
    unread = []
    for path, size in zip(asked, measure([root / path for path in asked]) if measure else [], strict=True):
        if size is None:
            unread.append(path)
        else:
            known[path] = size
    if unread:
        message = f"{len(unread):,} images cannot be measured: their width and height are null; the first: {unread[0]}"
        on_event(Note("manifest", message, "warning", unread[0]))
    sizes: list[Any] = [known.get(path, (None, None, None)) for path in paths]
    width = pa.array([size[0] for size in sizes], pa.int32())
    height = pa.array([size[1] for size in sizes], pa.int32())
    images = _set(images, "width", width)
    images = _set(images, "height", height)
    images = _set(images, "source_mode", categories(pa.array([size[2] for size in sizes], pa.string())))
    for axis, own, original in (("x", width, "orig_width"), ("y", height, "orig_height")):
        scale = pc.divide(images.column(original).cast(pa.float64()), own.cast(pa.float64()))
        spacing = pc.multiply(images.column("pixel_spacing_mm").cast(pa.float64()), scale)
        images = _set(images, f"spacing_{axis}_mm", spacing.cast(pa.float32()))
    return _scale_boxes(spec, images, width, height, on_event)


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index), values)


def _scale_boxes(spec: DatasetSpec, images: pa.Table, width: pa.Array, height: pa.Array, on_event: Sink) -> pa.Table:
    """Boxes are published in the pixels of the released size; a resized copy gets them in its own."""
    if spec.images.width is None or spec.images.height is None:
        return images
    boxes = images.column("boxes").combine_chunks()
    other = pc.and_(
        pc.is_valid(boxes), pc.or_(pc.not_equal(width, spec.images.width), pc.not_equal(height, spec.images.height))
    )
    if not pc.any(other).as_py():
        return images
    scaled = []
    for held, w, h, change in zip(
        boxes.to_pylist(), width.to_pylist(), height.to_pylist(), other.to_pylist(), strict=True
    ):
        if not change:
            scaled.append(held)
            continue
        fx, fy = w / spec.images.width, h / spec.images.height
        scaled.append([{**b, "x": b["x"] * fx, "y": b["y"] * fy, "w": b["w"] * fx, "h": b["h"] * fy} for b in held])
    count = int(pc.sum(other).as_py())
    on_event(
        Note("manifest", f"{count:,} images are not of the released size: their boxes are scaled with them", "info")
    )
    return _set(images, "boxes", pa.array(scaled, pa.list_(BOX)))
