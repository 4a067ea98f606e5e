"""Width, height and mode of image files, measured once; spacing and boxes in the file's own pixels."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.events import Note, Sink
from cxrprep.humanize import format_count
from cxrprep.labels.columns import categories
from cxrprep.labels.joins import positions
from cxrprep.storage.journal import Journal, read_journal
from cxrprep.storage.parquet import read_combined
from cxrprep.storage.unfetched import names_and_sizes

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec

Measure = Callable[[Sequence["Path"]], Iterable[tuple[int, int, str] | None]]
"""Width, height and mode of each file, in order; ``None`` for a file whose header cannot be read."""

SIZES: Final = "dropped-sizes"
"""The folder of those journals in the cache of a record."""
_KEYS: Final = ("path", "bytes", "digest")
_SIZES: Final = pa.schema([("width", pa.int32()), ("height", pa.int32()), ("source_mode", pa.string())])
_MEASURED: Final = tuple(_SIZES.names)
# Files that are measured before the next paths are made.
_PART: Final = 8192


def _remembered(images: pa.Table, earlier: Path | pa.Table, root: Path, manifest: Path) -> pa.Table:
    """Width, height and mode for each row of ``images`` whose file is as an earlier manifest shows it.

    That is by size and digest; where no digest is known, by size, and by nobody having touched the file since.
    """
    table = pa.table({name: pa.nulls(0, images.schema.field(name).type) for name in (*_KEYS, *_MEASURED)})
    if isinstance(earlier, pa.Table):
        table = earlier.select(table.column_names).cast(table.schema)
    elif earlier.exists():
        # A manifest of another make: measuring again costs time only.
        with contextlib.suppress(OSError, KeyError, ValueError, pa.ArrowException):
            table = read_combined(earlier, table.column_names).cast(table.schema)
    place = positions(images.column("path"), table.column("path").combine_chunks())
    held = table.drop_columns(["path"]).take(place)
    sized, same = (
        pc.fill_null(pc.equal(held.column(name), images.column(name)), fill_value=False) for name in ("bytes", "digest")
    )
    known = pc.and_(sized, same)
    unproven = pc.and_(sized, pc.and_(pc.is_null(held.column("digest")), pc.is_null(images.column("digest"))))
    asked = pc.indices_nonzero(pc.and_(unproven, pc.is_valid(held.column("width"))))
    if len(asked):
        unchanged = untouched(images.column("path").take(asked), root, manifest)
        known = pc.or_(
            known, pc.is_in(pa.array(np.arange(len(known), dtype=np.uint64)), value_set=asked.filter(unchanged))
        )
    nothing = {name: pa.scalar(None, held.column(name).type) for name in _MEASURED}
    return pa.table({name: pc.if_else(known, held.column(name), nothing[name]) for name in _MEASURED})


def untouched(paths: pa.ChunkedArray, root: Path, manifest: Path) -> pa.Array:
    """Whether each file was as it is when a manifest beside it was written.

    The time of a file's last change (``ctime``) moves with every write, rename and copy, whatever times are put back.
    measured: 286,000 files without a record are asked in 1 s, and measured again in 9 s.
    """
    folder, since = str(root) + os.sep, written_at(manifest, root)
    return pa.array([since > 0 and _changed_at(folder + path) < since for path in paths.to_pylist()], pa.bool_())


def written_at(manifest: Path, root: Path) -> int:
    """When a manifest was written, by the clock of the files of ``root``, in ns; 0 where that is another one."""
    with contextlib.suppress(OSError):
        made = manifest.stat()
        # Of two file systems the clocks may differ.
        if made.st_dev == root.stat().st_dev:
            return made.st_mtime_ns
    return 0


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_ctime_ns  # noqa: PTH116  # a Path for each of 377,110 files takes three times as long
    except OSError:
        return math.inf


def note_size(journal: Journal, path: str, size: tuple[int, int, str]) -> None:
    """Write down how large an image was that is about to be dropped. Raises ``StorageError``."""
    width, height, mode = size
    journal.append({"path": path, "width": width, "height": height, "mode": mode})


def measure_dropped(measure: Measure, root: Path, journals: Path) -> Measure:
    """``measure``, which knows images that were dropped too: what the journals in that folder say of them."""
    noted: dict[str, tuple[int, int, str]] = {}
    for journal in sorted(journals.glob("*.jsonl")):
        for item, _ in read_journal(journal):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                noted[str(item["path"])] = (int(item["width"]), int(item["height"]), str(item["mode"]))

    def measured(paths: Sequence[Path]) -> Iterator[tuple[int, int, str] | None]:
        for path, size in zip(paths, measure(paths), strict=True):
            yield size or noted.get(path.relative_to(root).as_posix())

    return measured


def add_sizes(
    spec: DatasetSpec,
    images: pa.Table,
    *,
    root: Path,
    earlier: Path | pa.Table,
    manifest: Path,
    measure: Measure | None,
    on_event: Sink,
) -> pa.Table:
    """``images`` with width, height and source_mode, spacing in mm, and boxes in the pixels of the file itself.

    Args:
        spec: The dataset.
        images: Rows of a manifest.
        root: The folder that their paths are relative to.
        earlier: A manifest whose sizes hold for files that did not change, or those of its rows that may name them.
        manifest: That manifest, whose time tells files that were touched since.
        measure: Reads the size of a file.
        on_event: Called with progress and remarks.

    Returns:
        The rows in their order.
    """
    known = _remembered(images, earlier, root, manifest)
    if measure is None and known.column("width").null_count == images.num_rows:
        return images
    width, height, mode = (known.column(name).combine_chunks() for name in _MEASURED)
    if measure is not None:
        new = pc.is_null(width)
        found = _measured(images.column("path").filter(new), root, measure, on_event)
        width, height, mode = (
            pc.replace_with_mask(held.cast(column.type), new, column.combine_chunks())
            for held, column in zip((width, height, mode), found.columns, strict=True)
        )
    images = _set(images, "width", width)
    images = _set(images, "height", height)
    images = _set(images, "source_mode", categories(mode))
    for axis, own, original in (("x", width, "orig_width"), ("y", height, "orig_height")):
        scale = pc.divide(images.column(original).cast(pa.float64()), own.cast(pa.float64()))
        spacing = pc.multiply(images.column("pixel_spacing_mm").cast(pa.float64()), scale)
        images = _set(images, f"spacing_{axis}_mm", spacing.cast(pa.float32()))
    return _scale_boxes(spec, images, width, height, on_event)


def _measured(paths: pa.ChunkedArray, root: Path, measure: Measure, on_event: Sink) -> pa.Table:
    parts = []
    unread = 0
    first = ""
    for start in range(0, len(paths), _PART):
        named = paths.slice(start, _PART).to_pylist()
        sizes = list(measure([root / path for path in named]))
        unsized = [path for path, size in zip(named, sizes, strict=True) if size is None]
        there = frozenset(name for name, _ in names_and_sizes(root)) if unsized else frozenset()
        # One that was discarded on purpose is no surprise.
        missing = [path for path in unsized if path in there or (root / path).exists()]
        unread += len(missing)
        first = first or (missing[0] if missing else "")
        columns = zip(*(size or (None, None, None) for size in sizes), strict=True)
        parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, _SIZES, strict=True)], schema=_SIZES))
    if unread:
        message = f"images that cannot be measured: {unread:,}; their width and height are null; the first: {first}"
        on_event(Note("manifest", message, "warning", first))
    return pa.concat_tables(parts).combine_chunks() if parts else _SIZES.empty_table()


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
    words = (
        "is not of the released size: its boxes are" if count == 1 else "are not of the released size: their boxes are"
    )
    on_event(Note("manifest", f"{format_count(count, 'image')} {words} scaled", "info"))
    return _set(images, "boxes", pa.array(scaled, boxes.type))
