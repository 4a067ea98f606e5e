"""Near-duplicates: images that show the same exposure, or the same patient, in one collection or in several.

The nearest few images of each by fingerprint are aligned and correlated: see ``cxrprep.images.similarity``. Pixels
alone are read; identifiers and splits only say what a pair means.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from cxrprep.errors import ImageError, NothingSelectedError, storage_errors
from cxrprep.events import Advanced, ItemFinished, Sink, StageFinished, StageStarted, ignore
from cxrprep.images.decode import decode
from cxrprep.images.similarity import (
    CUTS,
    FINGERPRINT,
    RELATED,
    SAME_EXPOSURE,
    THUMBNAIL,
    coarse_alignment,
    correlation,
    fingerprints,
    reduced,
    thumbnail,
)
from cxrprep.manifest.image_reader import ImageReader
from cxrprep.schemas import CATEGORY, describe
from cxrprep.system import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from cxrprep.manifest.load import Dataset

STAGE: Final = "duplicates"
PROOF: Final = "compare"
SCHEMA: Final = "near_duplicates"
NEAR_DUPLICATES_NAME: Final = f"{SCHEMA}.parquet"
NEAREST: Final = 5
"""How many candidates of each image are proven: an altered copy's original was among the nearest 5 in 98 % or more."""
# Images that are compared with others at once: 1,024 x 16,384 cosines are 67 MB.
_ROWS: Final = 1024
_COLUMNS: Final = 16384
# Fingerprints are compared by their 192 strongest directions first, and the nearest 24 by all 1,024 numbers. measured:
# of 2,223 altered copies of 741 radiographs the same 2,134 have their original among the nearest 5 as by all numbers of
# all pairs; 44 -> 25 s of one core for 16,384 images, 35 -> 8 minutes for 112,120 made-up ones.
_DIRECTIONS: Final = 192
_SHORTLIST: Final = 24
# Images whose fingerprints say which directions are strong.
_SAMPLED: Final = 4096
_BATCH: Final = 64
_SIDES: Final = (
    ("dataset", CATEGORY, "name of the dataset in the catalog"),
    ("image_id", pa.string(), "image, unique in its dataset"),
    ("path", pa.string(), "its file, below its folder"),
    ("patient_id", pa.string(), "patient"),
    ("split", CATEGORY, "split; null: not stated"),
)

NEAR_DUPLICATES: Final = pa.schema(
    [
        *(
            describe(f"{name}_{side}", kind, f"{words}, of the {order} image")
            for side, order in (("a", "first"), ("b", "second"))
            for name, kind, words in _SIDES
        ),
        describe(
            "correlation", pa.float32(), "of the detail of both after alignment; 1: the same pixels", required=True
        ),
        describe("relation", CATEGORY, "same-exposure (0.65 and more) or related (0.3 and more)", required=True),
        describe("inverted", pa.bool_(), "whether one is the negative of the other", required=True),
        describe("mirrored", pa.bool_(), "whether one is the mirror image of the other", required=True),
        describe("same_patient", pa.bool_(), "whether both are of one patient by their identifiers", required=True),
        describe("across_splits", pa.bool_(), "whether they lie in two splits", required=True),
    ]
)
"""``near_duplicates.parquet``, a row a pair, the most alike first."""


class _Images:
    """The images of several folders by their place; opened by each thread, to read them."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._roots = [held.root for held in datasets]
        columns = [name for name, _, _ in _SIDES]
        self.rows = [row for held in datasets for row in held.stated.select(columns).to_pylist()]
        self._folders = np.repeat(np.arange(len(datasets)), [len(held) for held in datasets])

    def __len__(self) -> int:
        return len(self.rows)

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], NDArray[np.uint8]]]:
        """A function that gives the image at a place reduced for comparison, and raises ``ImageError``."""
        with ExitStack() as stack:
            readers = [stack.enter_context(ImageReader(root)) for root in self._roots]

            def read(place: int) -> NDArray[np.uint8]:
                path = str(self.rows[place]["path"])
                return reduced(decode(readers[self._folders[place]].read(path), path))

            yield read


def near_duplicates(
    datasets: Sequence[Dataset], *, least: float | None = None, on_event: Sink = ignore
) -> tuple[pa.Table, int]:
    """The pairs of images that show one exposure, or probably one patient, over all of ``datasets``.

    Two images of one patient look alike: of those, only pairs of the same exposure are named.

    Args:
        datasets: Folders as ``cxrprep.load`` opens them.
        least: The least correlation of a pair; by default 0.3.
        on_event: Told how far the work is, and which images cannot be read.

    Returns:
        A table of ``NEAR_DUPLICATES``, and how many images were compared: all but those that cannot be read.

    Raises:
        NothingSelectedError: There are no two images.
        StorageError: ``TMPDIR`` has no room.
    """
    images = _Images(datasets)
    if len(images) < 2:  # a pair
        raise NothingSelectedError("there are no two images to compare", hint="name a folder with a manifest")
    with (
        tempfile.TemporaryFile() as small,
        tempfile.TemporaryFile() as index,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        thumbnails = _thumbnails(images, small, pool, on_event)
        readable = np.flatnonzero(thumbnails.any(axis=(1, 2)))
        pairs = _candidates(thumbnails, readable, index)
        found = list(_proven(images, thumbnails, pairs, pool, on_event))
    rows = [row for row in found if abs(row["correlation"]) >= (RELATED if least is None else least)]
    rows.sort(key=lambda row: (-row["correlation"], str(row["image_id_a"]), str(row["image_id_b"])))
    return pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES), len(readable)


def _on_disk(file: Any, kind: type[np.generic], *shape: int) -> NDArray[Any]:
    """Zeros in a temporary file whose room is reserved: to write where there is none would end the process.

    Raises ``StorageError``.
    """
    with storage_errors(f"{tempfile.gettempdir()} (TMPDIR)", "write to"):
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(math.prod(shape) * np.dtype(kind).itemsize, 1))
        return np.memmap(file, kind, "w+", shape=shape)


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _thumbnails(images: _Images, file: Any, pool: ThreadPoolExecutor, on_event: Sink) -> NDArray[np.uint8]:
    """The thumbnails of all, on the disk; one of zeros for an image that cannot be read."""
    held = _on_disk(file, np.uint8, len(images), THUMBNAIL, THUMBNAIL)
    on_event(StageStarted(STAGE, len(images), unit="images"))

    def read(batch: range) -> list[ItemFinished]:
        ended = []
        with images.opened() as reduced:
            for place in batch:
                path = str(images.rows[place]["path"])
                try:
                    # At least 1, so that a black image is not taken for one that was not read.
                    held[place] = np.maximum(thumbnail(reduced(place)), 1)
                    ended.append(ItemFinished(STAGE, path))
                except ImageError as error:
                    ended.append(ItemFinished(STAGE, path, "error", detail=error.message))
        return ended

    failed = 0
    for event in itertools.chain.from_iterable(pool.map(read, _batches(len(images), _BATCH))):
        on_event(event)
        failed += event.status == "error"
    on_event(StageFinished(STAGE, done=len(images) - failed, failed=failed))
    return held


def _candidates(thumbnails: NDArray[np.uint8], readable: NDArray[np.intp], file: Any) -> dict[tuple[int, int], bool]:
    """The pairs to prove, smaller place first, and whether the mirror image of one is meant."""
    # Half precision, on the disk: 920 MB for 112,120 images. The last are those of the mirror images.
    index = _on_disk(file, np.float16, len(CUTS) + 1, len(readable), FINGERPRINT)
    for rows in _batches(len(readable), _ROWS):
        small = thumbnails[readable[rows.start : rows.stop]]
        for cut in CUTS:
            index[cut, rows.start : rows.stop] = fingerprints(small, cut)
        index[-1, rows.start : rows.stop] = fingerprints(small[:, :, ::-1])
    short = _shortened(index)
    pairs: dict[tuple[int, int], tuple[float, bool]] = {}
    for rows in _batches(len(readable), _ROWS):
        listed = _shortlist(short, rows, _SHORTLIST)
        for one, other, score, mirrored in _nearest(index, rows, *listed):
            pair = (int(readable[min(one, other)]), int(readable[max(one, other)]))
            pairs[pair] = max((score, mirrored), pairs.get(pair, (0.0, False)))
    return {pair: mirrored for pair, (_, mirrored) in sorted(pairs.items())}


def _shortened(index: NDArray[np.float16]) -> NDArray[np.float32]:
    """The fingerprints along the directions in which those of some images are longest.

    The mean is not removed: the cosine of an inverted copy must stay the negative one.
    """
    kinds, count, length = index.shape
    if count <= length:  # To look for directions takes longer than to compare the whole.
        return index.astype(np.float32)
    moments = np.zeros((length, length), np.float32)
    for kind in index:
        some = kind[:: max(1, count // _SAMPLED)].astype(np.float32)
        moments += some.T @ some
    directions = np.linalg.eigh(moments)[1][:, -_DIRECTIONS:]
    short = np.empty((kinds, count, directions.shape[1]), np.float32)
    for rows in _batches(count, _ROWS):
        short[:, rows.start : rows.stop] = index[:, rows.start : rows.stop].astype(np.float32) @ directions
    return short


def _shortlist(short: NDArray[np.float32], rows: range, most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The nearest few of some images by their short fingerprints: places, a row an image, and whether mirrored.

    Places are -1 where there are fewer.
    """
    kinds, count, _ = short.shape
    best = _Nearest(rows, most)
    whole, flipped = (short[kind, rows.start : rows.stop] for kind in (0, -1))
    held = np.empty((2, len(rows), min(_COLUMNS, count)), np.float32)
    for columns in _batches(count, _COLUMNS):
        alike, other = held[:, :, : len(columns)]
        among = short[:, columns.start : columns.stop]
        # The cosine's sign says nothing: an inverted copy has -1.
        np.abs(np.matmul(whole, among[0].T, out=alike), out=alike)
        for kind in range(1, kinds - 1):
            np.abs(np.matmul(whole, among[kind].T, out=other), out=other)
            np.maximum(alike, other, out=alike)
        best.add(alike, columns, mirrored=False)
        np.abs(np.matmul(flipped, among[0].T, out=other), out=other)
        best.add(other, columns, mirrored=True)
    return best.places, best.mirrored


class _Nearest:
    """The nearest few of each of some rows, over blocks of columns."""

    def __init__(self, rows: range, most: int) -> None:
        self._rows, self._most = np.arange(rows.start, rows.stop), most
        self._scores = np.full((len(rows), most), -1.0, np.float32)
        self.places = np.full((len(rows), most), -1, np.int64)
        self.mirrored = np.zeros((len(rows), most), bool)

    def add(self, scores: NDArray[np.float32], columns: range, *, mirrored: bool) -> None:
        """Take the scores of a block, a row each, a column each; an image is not near itself."""
        itself = (self._rows >= columns.start) & (self._rows < columns.stop)
        scores[itself, self._rows[itself] - columns.start] = -1.0
        if self.places[0, 0] < 0:
            at = np.arange(len(scores))[:, None]
            column = np.argpartition(scores, -min(self._most, scores.shape[1]), axis=1)[:, -self._most :]
            at, column = np.broadcast_to(at, column.shape).ravel(), column.ravel()
        else:
            # Behind the first block few are among the best: to compare costs a tenth of a partition.
            at, column = np.nonzero(scores > self._scores[:, -1:])
        self._merge(at, column + columns.start, scores[at, column], mirrored)

    def _merge(
        self, at: NDArray[np.intp], places: NDArray[np.intp], scores: NDArray[np.float32], mirrored: bool
    ) -> None:
        """Keep the best of each row, of those that are held and of some more."""
        rows = np.concatenate([np.repeat(np.arange(len(self._rows)), self._most), at])
        held = [
            np.concatenate([mine.ravel(), theirs])
            for mine, theirs in (
                (self._scores, scores), (self.places, places), (self.mirrored, np.full(len(at), mirrored))
            )
        ]  # fmt: skip
        order = np.lexsort((-held[0], rows))
        starts = np.searchsorted(rows[order], np.arange(len(self._rows)))
        kept = order[starts[:, None] + np.arange(self._most)]
        self._scores, self.places, self.mirrored = (each[kept] for each in held)


def _nearest(
    index: NDArray[np.float16], rows: range, places: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float, bool]]:
    """Row, column, score and whether the mirror image is meant, of the nearest few by the whole fingerprints."""
    for row, listed, flips in zip(rows, places, mirrored, strict=True):
        scores = np.zeros(len(listed), np.float32)
        for flip in (False, True):
            at = (listed >= 0) & (flips == flip)
            mine = index[-1 if flip else 0, row].astype(np.float32)
            theirs = index[: 1 if flip else -1, listed[at]].astype(np.float32)
            scores[at] = np.abs(theirs @ mine).max(axis=0, initial=0.0)
        for place in np.argsort(-scores, kind="stable")[:NEAREST].tolist():
            if scores[place] > 0:
                yield row, int(listed[place]), float(scores[place]), bool(flips[place])


def _proven(
    images: _Images,
    thumbnails: NDArray[np.uint8],
    pairs: dict[tuple[int, int], bool],
    pool: ThreadPoolExecutor,
    on_event: Sink,
) -> Iterator[dict[str, Any]]:
    """The pairs that alignment proves, as rows of the table."""
    on_event(StageStarted(PROOF, len(pairs), unit="pairs"))
    listed = list(pairs.items())

    def prove(batch: range) -> list[dict[str, Any]]:
        rows = []
        with images.opened() as reduced:
            cached = lru_cache(_BATCH)(reduced)
            for (one, other), mirrored in listed[batch.start : batch.stop]:
                way = slice(None, None, -1) if mirrored else slice(None)
                start = coarse_alignment(thumbnails[one], np.ascontiguousarray(thumbnails[other][:, way]))
                if start is not None:
                    alike = correlation(cached(one), np.ascontiguousarray(cached(other)[:, way]), start)
                    rows.append(_row(images.rows[one], images.rows[other], alike, mirrored=mirrored))
        return rows

    batches = list(_batches(len(listed), _BATCH))
    for batch, rows in zip(batches, pool.map(prove, batches), strict=True):
        on_event(Advanced(PROOF, items=len(batch)))
        yield from (row for row in rows if _is_news(row))
    on_event(StageFinished(PROOF, done=len(pairs)))


def _row(a: dict[str, Any], b: dict[str, Any], alike: float, *, mirrored: bool) -> dict[str, Any]:
    known = None not in (a["split"], b["split"])
    return {
        **{f"{name}_a": a[name] for name, _, _ in _SIDES},
        **{f"{name}_b": b[name] for name, _, _ in _SIDES},
        "correlation": round(abs(alike), 4),
        "relation": "same-exposure" if abs(alike) >= SAME_EXPOSURE else "related",
        "inverted": alike < 0,
        "mirrored": mirrored,
        "same_patient": a["patient_id"] is not None
        and (a["dataset"], a["patient_id"]) == (b["dataset"], b["patient_id"]),
        "across_splits": known and a["split"] != b["split"],
    }


def _is_news(row: dict[str, Any]) -> bool:
    """Whether a pair says anything.

    Two exposures of one patient look alike, and so do a release and its conversion; two patients of whom one is
    mirrored reached 0.33.
    """
    if all(row[f"{name}_a"] == row[f"{name}_b"] for name in ("dataset", "image_id")):
        return False
    return row["relation"] == "same-exposure" or not (row["same_patient"] or row["mirrored"])
