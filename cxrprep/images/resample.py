"""Resampling: OpenCV's area average in half of its time, and a variant that trades a little of it for speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.images.picture import Picture, Pixels

FILTERS: Final = {
    "area": cv2.INTER_AREA,
    "area-fast": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST,
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


def resize(pixels: Pixels, width: int, height: int, method: str) -> Pixels:
    """``pixels`` (rows, columns) as ``height`` x ``width``, equal to ``cv2.resize`` with that interpolation.

    ``method`` is a key of ``FILTERS``. Where ``area`` is named and a side grows, linear is taken, since area cannot
    enlarge.
    """
    rows, columns = pixels.shape
    how = FILTERS[method]
    if how == cv2.INTER_AREA:
        if width <= columns and height <= rows:
            return _area(pixels, width, height)
        how = cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=how)


def _area(pixels: Pixels, width: int, height: int) -> Pixels:
    # OpenCV adds up one pixel after the other, and four channels at once where words have 16 bits. Tiles whose edges
    # are edges of target pixels, laid over each other as channels, therefore cost less than half, and give the same
    # sums in the same order, rounded alike.
    rows, columns = pixels.shape
    if pixels.size < _WORTH_TILES or (columns % width == 0 and rows % height == 0):
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    for across, down in _TILINGS:
        if columns % across or width % across or rows % down or height % down:
            continue
        tile = np.s_[: rows // down, : columns // across]
        starts = [(rows // down * y, columns // across * x) for y in range(down) for x in range(across)]
        stacked = cv2.merge([pixels[y:, x:][tile] for y, x in starts])
        small = cv2.resize(
            stacked.astype(np.uint16, copy=False), (width // across, height // down), interpolation=cv2.INTER_AREA
        )
        whole: Pixels = np.empty((height, width), pixels.dtype)
        for number in range(across * down):
            y, x = height // down * (number // across), width // across * (number % across)
            whole[y : y + height // down, x : x + width // across] = small[:, :, number]
        return whole
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


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


def halved(picture: Picture, target: Callable[[int, int], tuple[int, int]]) -> Pixels:
    """Display values of the picture, halved by plain averages of 2 x 2 while ``reduction`` allows it.

    The words of the file are averaged before the grey scale where they are in proportion to what they mean: exact but
    for edges of a window, and four times less to look up. What is left is for ``resize``.
    """
    factor = reduction(picture.width, picture.height, target)
    pixels, table = picture.pixels, picture.table
    half = _half_of_words(picture) if factor > 1 and table is not None and picture.meant > 0 else None
    if half is not None:
        pixels = half
        factor //= 2
    else:
        pixels, table = picture.settled().pixels, None
    while factor > 1:
        factor //= 2
        pixels = _half(pixels)
    return pixels if table is None else cv2.LUT(pixels, table)


def _half(pixels: Pixels) -> Pixels:
    rows, columns = pixels.shape
    return cv2.resize(pixels, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)


def _half_of_words(picture: Picture) -> Pixels | None:
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
