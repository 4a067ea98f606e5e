"""COCO detection JSON: the boxes and region masks of the images that somebody drew on.

An image without either is left out, since nobody looked for them there: as an empty image it would teach a detector
that nothing is to be found. Boxes are ``[x, y, width, height]`` in pixels of the image file, from its top left corner.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import NothingSelectedError
from cxrprep.events import Advanced, Note
from cxrprep.manifest.export.run import STAGE, ExportResult, ExportTask, card_of
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter
from cxrprep.storage.parquet import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.datasets.facts import DatasetSpec


_TEXT, _NUMBER = pa.string(), pa.int64()
_LISTS: Final = {
    "images": pa.schema(
        [
            ("id", _NUMBER), ("file_name", _TEXT), ("width", pa.int32()), ("height", pa.int32()), ("image_id", _TEXT),
            ("patient_id", _TEXT), ("split", _TEXT),
        ]
    ),
    "annotations": pa.schema(
        [
            ("id", _NUMBER), ("image_id", _NUMBER), ("category_id", _NUMBER), ("bbox", pa.list_(pa.float64())),
            ("area", pa.float64()), ("iscrowd", pa.int8()),
        ]
    ),
    "categories": pa.schema([("id", _NUMBER), ("name", _TEXT), ("supercategory", _TEXT)]),
}  # fmt: skip

_SEGMENTATIONS: Final[dict[type, pa.DataType]] = {
    dict: pa.struct([("size", pa.list_(_NUMBER)), ("counts", _TEXT)]),
    list: pa.list_(pa.list_(pa.float64())),
}


def number_of(name: str) -> int:
    """The number of an image or annotation: it depends on its name alone, so that subsets of a dataset agree.

    52 bits, which every JSON reader holds exactly; that two of a million images share one has a chance of 1 in 9,000.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) >> 4


def _front(name: str, spec: DatasetSpec | None, kinds: set[type]) -> str:
    """The lists of the JSON file as tables of their own; ``kinds`` are those of its masks: run lengths, polygons."""
    lists = dict(_LISTS)
    for kind in kinds:
        of_masks = [("segmentation", _SEGMENTATIONS[kind]), ("label_source", _TEXT)]
        lists["annotations"] = pa.schema([*lists["annotations"], *of_masks])
    if len(kinds) > 1:
        # A column of a table is of one kind.
        del lists["annotations"]
    return front_matter(
        [Config([(EVERY_SPLIT, name)], schema, key, {"field": key}) for key, schema in lists.items()],
        spec,
        tasks=("object-detection",),
    )


def export(task: ExportTask) -> ExportResult:
    """Write ``annotations.json`` and ``README.md``; images without boxes and masks are left out and counted.

    Raises ``NothingSelectedError``: no image has a box or mask; ``StorageError``: the disk refuses.
    """
    regions, region_names = regions_of(task)
    stated = task.dataset.stated
    drawn_on = pc.is_in(stated.column("image_id"), value_set=pa.array([*regions], pa.string()))
    boxed = task.dataset.filter(pc.or_(pc.is_valid(stated.column("boxes")), drawn_on))
    left_out = len(task.dataset) - len(boxed)
    if not len(boxed):
        raise NothingSelectedError(
            f"{task.dataset.root}: none of these images has a box or a mask in its own pixels",
            hint="boxes and masks come from the tables of a dataset; every other form of export needs none",
        )
    columns = ["path", "image_id", "patient_id", "split", "width", "height", "boxes"]
    rows = boxed.stated.select(columns).to_pylist()
    # One list for all splits and subsets of a dataset, or a detector would be scored on other classes than it learned.
    names = (*task.dataset.box_categories, *(n for n in region_names if n not in task.dataset.box_categories))
    number = {name: index for index, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        image = number_of(row["image_id"])
        about = {"id": image, "file_name": row["path"], "width": row["width"], "height": row["height"]}
        images.append(about | {key: row[key] for key in ("image_id", "patient_id", "split")})
        for place, region in enumerate(regions.get(row["image_id"], ())):
            drawn = {key: region[key] for key in ("bbox", "area", "segmentation", "label_source")}
            identity = {"id": number_of(f"{row['image_id']}#mask{place}"), "image_id": image}
            annotations.append({**identity, "category_id": number[region["label"]], **drawn, "iscrowd": 0})
        for place, box in enumerate(row["boxes"] or ()):
            x, y, w, h = (round(box[side], 3) for side in "xywh")
            annotations.append(
                {
                    "id": number_of(f"{row['image_id']}#{place}"),
                    "image_id": image,
                    "category_id": number[box["label"]],
                    "bbox": [x, y, w, h],
                    "area": round(box["w"] * box["h"], 3),
                    "iscrowd": 0,
                }
            )
    info: dict[str, Any] = {
        "description": task.spec.title if task.spec else "",
        "version": task.dataset.made_from.get("release", ""),
    }
    licences = [{"id": 1, "name": task.spec.licence.name, "url": task.spec.licence.url}] if task.spec else []
    text = json.dumps(
        {
            "info": info,
            "licenses": licences,
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number[name], "name": name, "supercategory": "finding"} for name in names],
        },
        ensure_ascii=False,
    )
    kinds = {type(one["segmentation"]) for held in regions.values() for one in held}
    front = _front(task.target.file("annotations.json").name, task.spec, kinds)
    about_it = card_of(replace(task, dataset=boxed), front=front)
    # The card first: by it the next run knows a file that was named for one of ours, wherever this one ends.
    task.target.write(task.target.card, lambda part: part.write_text(about_it, encoding="utf-8"))
    task.target.write(task.target.file("annotations.json"), lambda part: part.write_text(text + "\n", encoding="utf-8"))
    task.on_event(Advanced(STAGE, items=len(boxed)))
    reasons = (("without boxes and masks" if region_names else "without boxes", left_out),) if left_out else ()
    return ExportResult("coco", task.target.out, len(boxed), tuple(task.target.files), reasons)


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
