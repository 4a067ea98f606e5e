"""A result that hardly shows anything: nearly all of it is white, or black, as a wrong window makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from cxrprep.images.radiograph import Radiograph

WHITE: Final = "more than half of the pixels are white: look at it with --preview"
BLACK: Final = "more than two thirds of the pixels are black: look at it with --preview"
# Of radiographs that are as they should be no hundredth is white; collimation and air made up to 46 % black in those
# that were looked at.
_WHITE_SHARE: Final = 1 / 2
_BLACK_SHARE: Final = 2 / 3
# Pixels that are asked, a side: a sample tells shares as large as these.
_SIDE: Final = 32


def exposure_doubt(made: Radiograph) -> str:
    """What a person should look at in a finished 8-bit or 16-bit result, padding aside; ``""`` when nothing."""
    x0, y0, x1, y1 = made.frame.visible
    rows, columns = max(1, int(y1 - y0) // _SIDE), max(1, int(x1 - x0) // _SIDE)
    sample = made.pixels[max(0, int(y0)) : int(y1) : rows, max(0, int(x0)) : int(x1) : columns]
    if not sample.size:
        return ""
    top = (1 << made.bits) - 1
    if sample.dtype == np.uint8:
        # Ten times as fast as a comparison of so few.
        data = sample.tobytes()
        white, black = data.count(top), data.count(0)
    else:
        white, black = int(np.count_nonzero(sample == top)), int(np.count_nonzero(sample == 0))
    if white > sample.size * _WHITE_SHARE:
        return WHITE
    return BLACK if black > sample.size * _BLACK_SHARE else ""
