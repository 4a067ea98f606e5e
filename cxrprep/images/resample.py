"""Resampling: OpenCV's area average in half of its time, and a variant that trades a little of it for speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from cxrprep.images import antialias
from cxrprep.images.antialias import KERNELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.images.radiograph import Pixels, Radiograph

FILTERS: Final[dict[str, int | None]] = {
    "area": cv2.INTER_AREA,
    "area-fast": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    **dict.fromkeys(KERNELS),
}
# How an image may be cut into equal tiles, (across, down); OpenCV resizes up to four channels at once.
_TILINGS: Final = ((4, 1), (1, 4), (2, 2), (3, 1), (1, 3), (2, 1), (1, 2))
# Below this many pixels cutting costs more than it saves.
_WORTH_TILES: Final = 200_000
# What halving leaves is at least this many times the target, so that its grid cannot be seen.
_LEFT: Final = 2
# Rows, an even number; 0.6 MB of a radiograph of 16 bits.
_STRIP: Final = 128
# libjpeg decodes at 1/2, 1/4 and 1/8 of the size from the low frequencies alone.
_REDUCED: Final = 8


def resize(pixels: Pixels, width: int, height: int, method: str, table: Pixels | None = None) -> Pixels:
    """Resize by a named filter.

    ``area`` and ``nearest`` are equal to ``cv2.resize`` with that interpolation, the others to Pillow's
    (``antialias``). Where ``area`` is named and a side grows, OpenCV's linear is taken, since area cannot enlarge.

    Args:
        pixels: Rows x columns, uint8 or uint16.
        width: Columns of the result.
        height: Rows of the result.
        method: A key of ``FILTERS``.
        table: 256 or 65,536 entries; each pixel is looked up there first.

    Returns:
        ``height`` x ``width``.
    """
    rows, columns = pixels.shape
    how = FILTERS[method]
    if how is None:
        return antialias.resize(_looked_up(pixels, table), width, height, method)
    if how == cv2.INTER_AREA:
        if width <= columns and height <= rows:
            return _area(pixels, width, height, table)
        how = cv2.INTER_LINEAR
    return cv2.resize(_looked_up(pixels, table), (width, height), interpolation=how)


def _looked_up(pixels: Pixels, table: Pixels | None) -> Pixels:
    return pixels if table is None else cv2.LUT(pixels, table)


def _area(pixels: Pixels, width: int, height: int, table: Pixels | None) -> Pixels:
    # OpenCV adds up one pixel after the other, and four channels at once where words have 16 bits. Tiles whose edges
    # are edges of target pixels, laid over each other as channels, therefore cost less than half, and give the same
    # sums in the same order, rounded alike.
    rows, columns = pixels.shape
    tiling = _tiling(rows, columns, width, height)
    if tiling is None:
        return cv2.resize(_looked_up(pixels, table), (width, height), interpolation=cv2.INTER_AREA)
    across, down = tiling
    small = cv2.resize(
        _stacked(pixels, across, down, table), (width // across, height // down), interpolation=cv2.INTER_AREA
    )
    whole: Pixels = np.empty((height, width), pixels.dtype if table is None else table.dtype)
    for number, tile in enumerate(cv2.split(small)):
        y, x = height // down * (number // across), width // across * (number % across)
        whole[y : y + height // down, x : x + width // across] = tile
    return whole


def _tiling(rows: int, columns: int, width: int, height: int) -> tuple[int, int] | None:
    if rows * columns < _WORTH_TILES or (columns % width == 0 and rows % height == 0):
        return None
    fits = (t for t in _TILINGS if not (columns % t[0] or width % t[0] or rows % t[1] or height % t[1]))
    return next(fits, None)


def _stacked(pixels: Pixels, across: int, down: int, table: Pixels | None) -> Pixels:
    """The tiles as channels of 16 bits, (rows, columns, tiles), row by row from the left; looked up on the way."""
    rows, columns = pixels.shape[0] // down, pixels.shape[1] // across
    stacked: Pixels = np.empty((rows, columns, across * down), np.uint16)
    wide = None if table is None else table.astype(np.uint16)
    for top in range(0, rows, _STRIP):
        bottom = min(rows, top + _STRIP)
        bands = [_looked_up(pixels[rows * y + top : rows * y + bottom], wide) for y in range(down)]
        tiles = [
            band[:, columns * x : columns * (x + 1)].astype(np.uint16, copy=False)
            for band in bands
            for x in range(across)
        ]
        cv2.merge(tiles, stacked[top:bottom])
    return stacked


def reduction(width: int, height: int, target: Callable[[int, int], tuple[int, int]]) -> int:
    """How many times smaller (1, 2, 4 or 8) a picture may be made before the real resize to ``target(width, height)``.

    Only where both sides divide without rest, so that nothing shifts, and at least twice the target is left.
    """
    to_width, to_height = target(width, height)
    factor = 1
    while factor < _REDUCED:
        larger = factor * 2
        if width % larger or height % larger or min(width / to_width, height / to_height) < larger * _LEFT:
            break
        factor = larger
    return factor


def halved(picture: Radiograph, target: Callable[[int, int], tuple[int, int]]) -> tuple[Pixels, Pixels | None]:
    """The picture's pixels, halved by plain averages of 2 x 2 while ``reduction`` allows it, and the table that waits.

    The words of the file are averaged before the grey scale where they are in proportion to what they mean: exact but
    for edges of a window, and four times less to look up. What is left is for ``resize``.
    """
    factor = reduction(picture.width, picture.height, target)
    pixels, table = picture.pixels, picture.table
    half = _half_of_words(picture) if factor > 1 and table is not None and picture.meant > 0 else None
    if half is not None:
        pixels = half
        factor //= 2
    if factor > 1:
        pixels, table = _looked_up(pixels, table), None
    while factor > 1:
        factor //= 2
        pixels = _half(pixels)
    return pixels, table


def _half(pixels: Pixels) -> Pixels:
    rows, columns = pixels.shape
    return cv2.resize(pixels, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)


def _half_of_words(picture: Radiograph) -> Pixels | None:
    """Averages of 2 x 2 words; ``None`` when one of them holds more than its stored value."""
    pixels = picture.pixels
    rows, columns = pixels.shape
    half: Pixels = np.empty((rows // 2, columns // 2), pixels.dtype)
    # In strips that the processor's own cache holds, since each is looked at twice.
    for top in range(0, rows, _STRIP):
        strip = pixels[top : top + _STRIP]
        if cv2.minMaxLoc(strip)[1] > picture.meant:
            return None
        half[top // 2 : (top + _STRIP) // 2] = _half(strip)
    return half
