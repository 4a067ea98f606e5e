"""Regions of ``masks.parquet`` as COCO's segmentation: run lengths or polygons, with area and bounding box."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrprep.events import Note
from cxrprep.manifest.export.run import STAGE, ExportTask
from cxrprep.storage.parquet import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping


_POINTS = 6  # the numbers of a ring with three corners, the fewest that enclose anything


def regions_of(task: ExportTask) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """The regions of each image, and the names that regions of the dataset have, whichever images are exported.

    A region is in pixels of the image that it was drawn on: on one of another size it would lie elsewhere, so it is
    left out, as one is that is a picture of its own; both are counted in a note.
    """
    if not task.dataset.masks:
        return {}, ()
    rows = task.dataset.regions().to_pylist()
    names = {name for place in task.dataset.masks for name in read_rows(place, columns=["label"])["label"].to_pylist()}
    sizes = task.dataset.stated.select(["image_id", "height", "width"]).to_pylist()
    size_of = {row["image_id"]: (row["height"], row["width"]) for row in sizes}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    left_out = 0
    for row in rows:
        drawn = _segmentation(row, size_of[row["image_id"]])
        if drawn is None:
            left_out += 1
        else:
            about = {"label": row["label"], "label_source": row["label_source"]}
            found[row["image_id"]].append({**about, **drawn})
    if left_out:
        message = f"{left_out:,} masks are left out: they are pictures, or drawn on an image of another size"
        task.on_event(Note(STAGE, message, "warning", str(task.dataset.masks[0])))
    return dict(found), tuple(sorted(names - {None}))


def _segmentation(row: Mapping[str, Any], size: tuple[int | None, int | None]) -> dict[str, Any] | None:
    """Segmentation, bounding box and area in pixels; ``None`` where the image has no such pixels."""
    height, width = row["height"], row["width"]
    if row["label"] is None or None in size or (height is not None and (height, width) != size):
        return None
    if row["counts"] is not None and height is not None:
        box, area = _of_runs(runs_of(row["counts"]), height)
        return {"segmentation": {"size": [height, width], "counts": row["counts"]}, "bbox": box, "area": area}
    rings = [[round(side, 3) for side in ring] for ring in row["polygons"] or () if len(ring) >= _POINTS]
    if not rings:
        return None
    points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])
    low, high = points.min(axis=0), points.max(axis=0)
    box = [round(float(side), 3) for side in (*low, *(high - low))]
    return {"segmentation": rings, "bbox": box, "area": round(sum(map(_area, rings)), 3)}


def _area(ring: list[float]) -> float:
    """The area in a ring, by the shoelace formula."""
    x, y = np.reshape(ring, (-1, 2)).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def runs_of(text: str) -> list[int]:
    """The run lengths (outside, inside, outside ...) in COCO's text, the form of pycocotools' ``rleFrString``."""
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs


def _of_runs(runs: list[int], height: int) -> tuple[list[float], float]:
    """Bounding box and area of runs that go down the columns."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1
    inside = last >= first
    first, last = first[inside], last[inside]
    if not len(first):
        return [0.0, 0.0, 0.0, 0.0], 0.0
    left, right = int(first.min()) // height, int(last.max()) // height
    # A run that goes on in the next column reaches from the one's end to the other's beginning.
    whole = bool((first // height != last // height).any())
    top, bottom = (0, height - 1) if whole else (int((first % height).min()), int((last % height).max()))
    return [float(side) for side in (left, top, right - left + 1, bottom - top + 1)], float((last - first + 1).sum())
