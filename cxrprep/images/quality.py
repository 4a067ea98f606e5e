"""Quality measures of a converted image: grey levels, contrast, black, white and clipped shares, sharpness; and doubts.

They say what a person should look at before a model is trained, and change no pixel.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.images.radiograph import Pixels, Radiograph

WHITE: Final = "more than half of the pixels are white: look at it with --preview"
BLACK: Final = "more than two thirds of the pixels are black: look at it with --preview"
FLAT: Final = "little contrast: look at it with --preview"
FEW_LEVELS: Final = "few grey levels: look at it with --preview"
# Of radiographs that are as they should be no hundredth is white; collimation and air made up to 46 % black in those
# that were looked at.
_WHITE_SHARE: Final = 1 / 2
_BLACK_SHARE: Final = 2 / 3
# Deviation as a share of the range: 114 radiographs of NIH, made by square-224, have 0.118 to 0.318.
LITTLE_CONTRAST: Final = 0.09
# Of 256; the same radiographs use 149 to 255.
_FEW: Final = 32
# Sharpness is asked of this many pixels a side in the middle, at the size of the result.
_SHARP_SIDE: Final = 256
# Pixels a side of the sample that tells what share was clipped.
_CLIP_SIDE: Final = 96
# Pixels that are counted at least where there are as many. Counting all 7.8 million of mimic-cxr-jpg would take 5 of
# its 40 ms: benchmarks/convert.py --only quality.
_COUNTED: Final = 150_000
_LEVELS: Final = 256
_MEASURES: Final = 6
_SCORES: Final = ("inverted", "turned", "turn", "mirrored", "structure", "not_frontal")
COLUMNS: Final = {
    "grey_levels": "levels", "contrast": "contrast", "black_share": "black", "white_share": "white",
    "clipped_share": "clipped", "sharpness": "sharpness", "inverted_score": "inverted", "turned_score": "turned",
    "turned_degrees": "turn", "mirrored_score": "mirrored", "structure": "structure",
    "not_frontal_score": "not_frontal",
}  # fmt: skip
"""The column of the manifest for each measure, in its order."""
# Outputs of earlier versions lack the last.
_LENGTHS: Final = (_MEASURES, _MEASURES + len(_SCORES) - 1, _MEASURES + len(_SCORES))


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one result, padding aside.

    ``levels`` are the grey levels that occur, of 256. ``contrast`` is the standard deviation as a share of the range,
    ``black`` and ``white`` the shares of pixels at its ends. ``clipped`` is the share of the source's pixels that the
    grey scale took to an end of the range; ``None`` where no grey scale was applied. ``sharpness`` is the mean absolute
    Laplacian in the middle, in levels of 256; it depends on the size of the result.

    The others are scores of the source, where they were asked for: see ``cxrprep.images.orientation``.
    """

    levels: int
    contrast: float
    black: float
    white: float
    clipped: float | None
    sharpness: float
    inverted: float | None = None
    turned: float | None = None
    turn: int | None = None
    mirrored: float | None = None
    structure: float | None = None
    not_frontal: float | None = None

    @property
    def has_scores(self) -> bool:
        """Whether the scores of the source were asked for, all of them."""
        return self.not_frontal is not None

    def dump(self) -> list[float | None]:
        """The measures in the order of the fields; scores only where there are some."""
        values = list(astuple(self))
        while values[-1] is None:
            values.pop()
        return values

    @classmethod
    def parse(cls, values: Sequence[Any] | None) -> Quality | None:
        """What ``dump`` gave; ``None`` for outputs of versions that did not measure."""
        if not values or len(values) not in _LENGTHS:
            return None
        levels, contrast, black, white, clipped, sharpness, *scores = values
        if None in (levels, contrast, black, white, sharpness, *scores):
            return None
        found = cls(int(levels), float(contrast), float(black), float(white), clipped, float(sharpness))
        named = dict(zip(_SCORES, scores, strict=False))
        return replace(found, **{**named, "turn": int(named["turn"])}) if named else found


def measure(made: Radiograph) -> Quality:
    """The measures of a finished result of 8 or 16 bits."""
    whole = inside_of(made)
    # Some rows of a large image tell the same: whole ones, since they lie together in memory.
    inside = whole[:: max(1, whole.size // _COUNTED)]
    eight = _eight_bits(inside, made.bits)
    counts = cv2.calcHist([eight], [0], None, [_LEVELS], [0, _LEVELS]).ravel().astype(np.float64)
    total = counts.sum()
    grey = np.arange(_LEVELS)
    mean = float(counts @ grey) / total
    deviation = (float(counts @ (grey - mean) ** 2) / total) ** 0.5
    if inside.dtype == np.uint8:
        black, white = counts[0] / total, counts[-1] / total
    else:
        black, white = ((inside == end).mean() for end in (0, (1 << made.bits) - 1))
    return Quality(
        levels=int(np.count_nonzero(counts)),
        contrast=_rounded(deviation / (_LEVELS - 1)),
        black=_rounded(black),
        white=_rounded(white),
        clipped=made.clipped,
        sharpness=_rounded(_sharpness(whole, made.bits)),
    )


def inside_of(made: Radiograph) -> Pixels:
    """The pixels that show the source: padding aside."""
    x0, y0, x1, y1 = (round(v) for v in made.frame.visible)
    part = made.pixels[max(0, y0) : y1, max(0, x0) : x1]
    return part if part.size else made.pixels


def doubts(quality: Quality) -> list[str]:
    """What a person should look at in a result with these measures."""
    if quality.white > _WHITE_SHARE:
        return [WHITE]
    if quality.black > _BLACK_SHARE:
        return [BLACK]
    if quality.contrast < LITTLE_CONTRAST:
        return [FLAT]
    return [FEW_LEVELS] if quality.levels < _FEW else []


def clipped_share(pixels: Pixels, table: Pixels) -> float:
    """The share of a source's pixels that a table of its words takes to 0 or to the largest value, by a sample.

    Only words beyond the first and the last that the ends belong to count: of a table that reaches its ends at the ends
    of what occurs, nothing is clipped.
    """
    rows, columns = (max(1, side // _CLIP_SIDE) for side in pixels.shape)
    sample = pixels[::rows, ::columns]
    shown = table[sample]
    low, high = int(sample.min()), int(sample.max())
    ends = (shown == 0) | (shown == np.iinfo(table.dtype).max)
    return _rounded(float((ends & (sample != low) & (sample != high)).mean()))


def _eight_bits(pixels: Pixels, bits: int) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels >> (bits - 8)).astype(np.uint8)


def _sharpness(pixels: Pixels, bits: int) -> float:
    rows, columns = pixels.shape
    top, left = max(0, (rows - _SHARP_SIDE) // 2), max(0, (columns - _SHARP_SIDE) // 2)
    middle = _eight_bits(np.ascontiguousarray(pixels[top : top + _SHARP_SIDE, left : left + _SHARP_SIDE]), bits)
    return float(cv2.norm(cv2.Laplacian(middle, cv2.CV_16S), cv2.NORM_L1)) / middle.size


def _rounded(share: float) -> float:
    """Enough digits to sort by, and few bytes in every output."""
    return float(round(float(share), 4))
