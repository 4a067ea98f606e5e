"""Bounding boxes and masks of a declared dataset: in pixels, regions as COCO's run lengths or polygons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from cxrprep.labels.declared_columns import TableRead, named_columns
from cxrprep.labels.declared_values import TRUTH, DeclaredValue, column_of, looked_up
from cxrprep.labels.image_ids import IdColumn
from cxrprep.schemas import BOX, MASKS, READ_BOX, null_columns
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from cxrprep.datasets.declaration import BoxRule, Declaration, MaskRule
    from cxrprep.labels.declared_tables import TablesHere

# The digit of a name such as x1 is none.
_NUMBER: Final = re.compile(r"(?<![A-Za-z_\d])-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WKT: Final = re.compile(r"\s*(?:SRID=\d+;\s*)?(?:MULTI)?POLYGON\b", re.IGNORECASE)
_HOLE: Final = re.compile(r"[^)\s]\s*\)\s*,\s*\(\s*[^(\s]")
Boxes = dict[str, list[dict[str, Any]]]


def box_type(declared: Declaration) -> pa.DataType:
    """What a box of the dataset holds: who drew it, and how sure it is, only where tables say so."""
    return READ_BOX if any(rule.reader is not None or rule.score is not None for rule in declared.boxes) else BOX


def boxes_of(here: TablesHere, images: pd.DataFrame) -> Boxes:
    """The rectangles on each of ``images``, in the order of the tables: the finding's own words, x, y, w, h in pixels.

    Raises ``TableError`` where a column is missing, or a cell is not what the declaration says.
    """
    declared = here.declared
    found: Boxes = {}
    for rule, _, table in here.of(declared.boxes):
        frame = rows_where(table, rule.where)
        image, places = IdColumn(frame, rule.image, "[[boxes]] image", table, declared).known_images(images)
        known = places >= 0
        sides = _sides(rule, frame, table)
        if rule.size is not None:
            sides = _in_pixels(rule, sides, places, images, table)
        # A cell may hold several boxes: its row counts as often.
        at = frame.index.get_indexer(sides["x"].index)
        frame = frame.iloc[at].reset_index(drop=True)
        image, known = (of.iloc[at].reset_index(drop=True) for of in (image, known))
        cells = {side: of.reset_index(drop=True) for side, of in sides.items()}
        cells["label"] = _labels_of(declared, frame, rule.label, table)
        count = len(table.cells) + len(at) - len(places)
        drawn = pd.DataFrame(cells).notna().all(axis=1)
        whole = drawn & known
        for what in ("reader", "score"):
            if getattr(rule, what) is not None:
                cells[what] = DeclaredValue(frame, getattr(rule, what), f"[[boxes]] {what}", table).cells()
        if "score" in cells:
            score = pd.to_numeric(cells["score"], errors="coerce")
            cells["score"] = score.astype(object).where(score.notna(), None)
        once = whole & ~pd.DataFrame({"image": image, **cells}).duplicated()
        every, of_images, used = (int(rows.sum()) for rows in (drawn, whole, once))
        reason = declared.image.lacking("are on images that").replace(" ", "_")
        apart = {"repeat_another_box": of_images - used, reason: every - of_images, "draw_no_box": count - every}
        here.label_rows.use_file(table.path, table.digest, "boxes", rows=count, used=used, source="", **apart)
        rows = zip(image[once], *(column[once] for column in cells.values()), strict=True)
        for key, *values in rows:
            found.setdefault(key, []).append(dict(zip(cells, values, strict=True)))
    return found


def _labels_of(declared: Declaration, frame: pd.DataFrame, value: Any, table: TableRead) -> pd.Series:
    """What boxes show, in the capitals that the dataset's file has."""
    cells = DeclaredValue(frame, value, "[[boxes]] label", table).cells()
    return looked_up(cells, {word: declared.vocabulary.spelled(word) for word in cells.dropna().unique()})


def _sides(rule: BoxRule, frame: pd.DataFrame, table: TableRead) -> dict[str, pd.Series]:
    names = rule.corners or rule.corner_size or rule.centre_size
    if isinstance(names, str):
        sides, names = _fours(frame, names, table), (names,) * 4
    else:
        sides = {side: _pixels(frame, column, table) for side, column in zip("xywh", names, strict=True)}
    if rule.corners:
        sides["w"], sides["h"] = sides["w"] - sides["x"], sides["h"] - sides["y"]
    elif rule.centre_size:
        sides["x"], sides["y"] = sides["x"] - sides["w"] / 2, sides["y"] - sides["h"] / 2
    for side, column in (("w", names[2]), ("h", names[3])):
        if (backwards := sides[side] < 0).any():
            what = "[[boxes]] this box ends before it begins: corners are x1, y1, x2, y2, and sizes above 0"
            raise table.error(backwards.idxmax(), column, what)
    return sides


def _fours(frame: pd.DataFrame, column: str, table: TableRead) -> dict[str, pd.Series]:
    """The sides of boxes, of a column whose cells have four numbers for each: [1, 2, 3, 4], or 1 2 3 4;5 6 7 8."""
    cells = column_of(frame, column, "[[boxes]]", table)
    made = [_NUMBER.findall(cell if isinstance(cell, str) else str(cell or "")) for cell in cells]
    for row, numbers in zip(frame.index, made, strict=True):
        if len(numbers) % 4:
            raise table.error(row, column, f"[[boxes]] expects four numbers a box, found {str(cells[row])[:80]!r}")
    index = frame.index.repeat([max(len(numbers) // 4, 1) for numbers in made])
    flat = [number for numbers in made for number in numbers or [None] * 4]
    return {side: pd.Series(flat[at::4], index, float) for at, side in enumerate("xywh")}


def _in_pixels(
    rule: BoxRule, sides: dict[str, pd.Series], places: pd.Series, images: pd.DataFrame, table: TableRead
) -> dict[str, pd.Series]:
    """Boxes in pixels that are stated as parts of their images, of the size that the rule or the images' table says."""
    column = next(named_columns([rule.corners, rule.corner_size, rule.centre_size]), "")
    for of in sides.values():
        if (of.abs() > 1).any():
            what = (
                f"[[boxes]] {of[of.abs() > 1].iloc[0]:g} is no part of an image: with size, all sides are from 0 to 1"
            )
            raise table.error(of.abs().gt(1).idxmax(), column, what)
    if rule.size != "image":
        height, width = rule.size
        return {side: of * (width if side in "xw" else height) for side, of in sides.items()}
    made = {}
    for side, of in sides.items():
        size = images["orig_width" if side in "xw" else "orig_height"].to_numpy(float)[places.to_numpy()]
        made[side] = of * pd.Series(np.where(places >= 0, size, 0), places.index).reindex(of.index)
        if (lost := made[side].isna() & of.notna()).any():
            hint = "name its columns under [image], width and height, or say size = [height, width] of all images"
            raise table.error(lost.idxmax(), column, "[[boxes]] no table says how large this image is", hint)
    return made


def _pixels(frame: pd.DataFrame, column: str, table: TableRead) -> pd.Series:
    """A side of each box. A cell that is no number is an error: as a blank it would be a box that nobody drew."""
    cells = DeclaredValue(frame, column, "[[boxes]]", table).cells()
    found = pd.to_numeric(cells, errors="coerce")
    strange = cells.index[found.isna() & cells.notna()]
    if len(strange):
        raise table.error(strange[0], column, f"[[boxes]] expects a number of pixels, found {cells[strange[0]]!r}")
    return found


def rows_where(table: TableRead, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows whose cells are among those wanted, or are none of ``{ not = [...] }``."""
    frame = table.cells
    for column, wanted in where.items():
        cells = DeclaredValue(frame, column, "where", table).cells()
        negated = isinstance(wanted, dict)
        words = [*(wanted.get("not", []) if negated else wanted)]
        found = cells.isin([*words, *(word for word, digit in TRUTH.items() if digit in words)])
        frame = frame[~found & cells.notna()] if negated else frame[found]
    return frame


# ---- masks ----


def add_masks(here: TablesHere, images: pd.DataFrame) -> None:
    """Add the regions that tables draw on ``images``, a row each, for ``masks.parquet``.

    Raises ``TableError`` where a column is missing, or run lengths are none.
    """
    for rule, _, table in here.of(here.declared.masks):
        _add_masks_of(here, rule, table, images)


def _add_masks_of(here: TablesHere, rule: MaskRule, table: TableRead, images: pd.DataFrame) -> None:
    declared, label_rows = here.declared, here.label_rows
    frame = rows_where(table, rule.where)
    if (drawn := rule.points or rule.runs) in frame and rule.encoding != "rle":
        frame = frame[frame[drawn].notna()]
    image, places = IdColumn(frame, rule.image, "[[masks]] image", table, declared).known_images(images)
    known = places >= 0
    once = _drawn_once(rule, frame, image)
    frame, image = frame[known & once], image[known & once]
    columns: dict[str, Any] = {
        "image_id": image,
        "label": DeclaredValue(frame, rule.label, "[[masks]] label", table).cells(),
        "reader": None if rule.reader is None else DeclaredValue(frame, rule.reader, "[[masks]] reader", table).cells(),
    }
    made = list(_regions(rule, frame, table))
    rows = {name: pa.array(c, pa.string(), from_pandas=True) for name, c in columns.items() if c is not None}
    rows["observation"] = pa.array([_observation(declared, word) for word in columns["label"]], pa.string())
    if rule.score is not None:
        stated = pd.to_numeric(DeclaredValue(frame, rule.score, "[[masks]] score", table).cells(), errors="coerce")
        rows["score"] = pa.array(stated, pa.float32(), from_pandas=True)
    for name in ("height", "width", "counts", "polygons", "path"):
        rows[name] = pa.array([one.get(name) for one in made], MASKS.field(name).type)
    for name, value in (("dataset", declared.name), ("release", label_rows.release), ("label_source", rule.source)):
        rows[name] = pa.array([value or None] * len(frame), pa.string())
    label_rows.masks.append(null_columns(MASKS, len(frame), rows))
    label_rows.use_file(
        table.path,
        table.digest,
        "masks",
        rows=len(table.cells),
        used=len(frame),
        source=rule.source,
        draw_no_mask=len(table.cells) - len(known),
        are_about_images_that_no_table_lists=int((~known).sum()),
        repeat_another_mask=int((known & ~once).sum()),
    )


def _drawn_once(rule: MaskRule, frame: pd.DataFrame, image: pd.Series) -> pd.Series:
    """False for a row that says the same of the same image as one before it, as in a table that was joined twice."""
    drawn = [name for name in (rule.runs, rule.points) if name in frame]
    if not drawn:
        return pd.Series(data=True, index=frame.index)
    others = [name for value in (rule.label, rule.reader) for name in named_columns(value) if name in frame]
    cells = {name: frame[name] for name in (*drawn, *others)}
    told = {n: c.cat.codes if isinstance(c.dtype, pd.CategoricalDtype) else c.astype(str) for n, c in cells.items()}
    return ~pd.DataFrame({"image of a mask": image, **told}).duplicated()


def _observation(declared: Declaration, word: Any) -> str | None:
    """The column of labels that a mask's word belongs to."""
    if not isinstance(word, str):
        return None
    shared = declared.vocabulary.shared(word)
    return f"label_{shared[0]}" if shared is not None else declared.vocabulary.column(word)


def _regions(rule: MaskRule, frame: pd.DataFrame, table: TableRead) -> Iterator[dict[str, Any]]:
    """The region of each row: its size, and COCO's run lengths, polygons, or the path of its picture."""
    place = "[[masks]]"
    if rule.encoding == "files":
        yield from ({"path": path} for path in column_of(frame, "path", place, table))
        return
    sizes = column_of(frame, rule.size, place, table) if isinstance(rule.size, str) else [rule.size] * len(frame)
    cells = column_of(frame, rule.runs or rule.points, place, table)
    for row, cell, size in zip(frame.index, cells, sizes, strict=True):
        try:
            if isinstance(cell, dict):  # as COCO writes regions of crowds
                cell, size = cell["counts"], cell["size"]  # noqa: PLW2901
            height, width = (int(side) for side in size) if size is not None else (None, None)
            about = {"height": height, "width": width}
            if rule.encoding == "polygons":
                rings = [np.asarray(ring, float).ravel().tolist() for ring in _rings(cell)]
                yield {**about, "polygons": rings}
            elif rule.encoding == "coco-rle":
                yield {**about, "counts": cell if isinstance(cell, str) else compressed(cell)}
            else:
                yield {**about, "counts": compressed(_column_runs(rule, str(cell), int(height), int(width)))}  # type: ignore[arg-type]  # an unknown size is the error below
        except (TypeError, ValueError, KeyError) as error:
            what = f"{place} is no {rule.encoding}: {error}"
            raise table.error(int(row), rule.runs or rule.points, what) from error


def _rings(cell: Any) -> list[Any]:
    """The rings of a region: one list of points or of numbers, or several; also as text."""
    if isinstance(cell, str) and _WKT.match(cell):
        return _rings_of_text(cell)
    rings = parse_json(cell) if isinstance(cell, str) else cell or []
    one = rings and all(
        not isinstance(part, list) or (len(part) == 2 and not isinstance(part[0], list)) for part in rings
    )
    return [rings] if one else list(rings)


def _rings_of_text(text: str) -> list[list[list[float]]]:
    """The rings of POLYGON ((1 2, 30 2, 30 40, 1 2)), as databases write shapes; MULTIPOLYGON has several."""
    if _HOLE.search(text):
        raise ValueError("a polygon has a hole, which no ring says: write the region as run lengths")
    rings = [
        [[float(n) for n in point.split()] for point in ring.split(",")] for ring in re.findall(r"\(([^()]+)\)", text)
    ]
    if any(len(point) != 2 for ring in rings for point in ring):
        raise ValueError("a point has other than two numbers")
    # The last point is the first one again.
    return [ring[:-1] if ring[0] == ring[-1] else ring for ring in rings]


def _column_runs(rule: MaskRule, text: str, height: int, width: int) -> list[int]:
    """COCO's runs (outside, inside, outside ...) down the columns, from pairs of a start or a gap and a length."""
    total = height * width
    stated = [int(word) for word in text.split()]
    if len(stated) % 2 or min(stated, default=0) < 0:
        raise ValueError("run lengths are pairs of whole numbers")
    if max(stated, default=0) > total + rule.base:
        raise ValueError(f"a run leaves the {height} x {width} image")
    numbers = np.array(stated, np.int64)
    first, lengths = numbers[0::2], numbers[1::2]
    ends = np.cumsum(first + lengths) if rule.start == "relative" else first - rule.base + lengths
    starts = ends - lengths
    if len(ends) and (ends[-1] > total or (starts[1:] < ends[:-1]).any() or starts[0] < 0):
        raise ValueError(f"its runs overlap, or leave the {height} x {width} image")
    if rule.order == "rows":
        return _runs_of(_filled(starts, ends, total).reshape(height, width).ravel(order="F"))
    gaps = starts - np.concatenate(([0], ends[:-1]))
    rest = total - (int(ends[-1]) if len(ends) else 0)
    runs: list[int] = np.column_stack((gaps, lengths)).ravel().tolist()
    return [*runs, rest] if rest or not runs else runs


def _filled(starts: NDArray[np.int64], ends: NDArray[np.int64], total: int) -> NDArray[np.bool_]:
    steps = np.zeros(total + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:-1]).astype(bool)


def _runs_of(pixels: NDArray[np.bool_]) -> list[int]:
    changes = np.flatnonzero(np.diff(np.concatenate(([False], pixels)).astype(np.int8)))
    return [int(run) for run in np.diff(np.concatenate(([0], changes, [len(pixels)])))]


def compressed(runs: Any) -> str:
    """COCO's text for run lengths: five bits a character; from the third on, the difference to the one before the last.

    The form of pycocotools' ``rleToString``.
    """
    text = []
    for place, run in enumerate(runs):
        number = int(run) - (int(runs[place - 2]) if place > 2 else 0)
        more = True
        while more:
            bits = number & 0x1F
            number >>= 5
            more = number != -1 if bits & 0x10 else number != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)
