"""The DICOM grayscale pipeline as one table: stored word -> rescale -> VOI (window) -> photometric -> display.

DICOM PS3.4 N.2 fixes the order; PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (MONOCHROME1) and
C.7.5.1.1.2 (padding) the steps. Every step is a function of one stored value, so a table over all words of the file
(256 or 65,536 entries) computes it exactly, rubbish above ``HighBit`` included.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrprep.errors import ImageError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrprep.images.dicom_lut import GrayscaleRules
    from cxrprep.images.radiograph import Pixels, Radiograph

    Values = NDArray[np.float64]


def word_count(pixels: Pixels) -> int:
    """How many different words an array of this type can hold."""
    return 256 if pixels.dtype == np.uint8 else 65536


def words_of(pixels: Pixels) -> NDArray[np.int64]:
    """Every word that an array of this type can hold."""
    return np.arange(word_count(pixels), dtype=np.int64)


def over_words(table: NDArray[Any], count: int) -> NDArray[Any]:
    """A table of the distinct words as one of all ``count`` words."""
    return table if len(table) == count else np.tile(table, count // len(table))


def occurring(picture: Radiograph, rules: GrayscaleRules, *, without_padding: bool = True) -> tuple[int, int]:
    """The smallest and largest stored value of the picture, padding aside."""
    present = rules.stored(words_of(picture.pixels)[picture.histogram() > 0])
    if without_padding:
        real = present[~rules.is_padding(present)]
        present = real if len(real) else present
    return int(present.min()), int(present.max())


def percentiles(picture: Radiograph, rules: GrayscaleRules, low: float, high: float) -> tuple[int, int]:
    """The stored values below which a part of the pixels lies, padding aside.

    Args:
        picture: The radiograph as it was decoded.
        rules: How its words are read.
        low: Percent of the pixels, from 0.
        high: Percent of the pixels, to 100.

    Returns:
        The two values.
    """
    counts = picture.histogram()
    words = words_of(picture.pixels)[counts > 0]
    values, weights = rules.stored(words), counts[counts > 0].astype(np.float64)
    real = ~rules.is_padding(values)
    if real.any():
        values, weights = values[real], weights[real]
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum() * 100.0
    ends = np.searchsorted(share, [low, high]).clip(0, len(values) - 1)
    return int(values[order][ends[0]]), int(values[order][ends[1]])


def used_bits(picture: Radiograph, rules: GrayscaleRules) -> int:
    """How many bits the stored values of the picture need, padding aside; a sign takes one where some are negative.

    Files of 8 bits need all of them.
    """
    if rules.bits_stored <= 8:
        return rules.bits_stored
    low, high = occurring(picture, rules)
    return max(high.bit_length(), (~low if low < 0 else 0).bit_length()) + (1 if low < 0 else 0)


def display_table(
    picture: Radiograph, rules: GrayscaleRules, *, source: str = "auto", window: int = 1, bits: int = 8
) -> tuple[NDArray[Any], str]:
    """The table from words to display values 0..2**bits - 1, and which rule it follows.

    The rules are those of DICOM PS3.3 C.11.1 and C.11.2, and PS3.4 N.2.

    The standard has no rule for a file without LUT and window. Where its values do not need the bits that the header
    states, the range of those bits would show them nearly black (MONOCHROME1: white): from the smallest to the largest
    value is what viewers do, and a note says so. Named ``range``, it is the range.

    Args:
        picture: The radiograph as it was decoded.
        rules: How its words are read.
        source: ``auto`` (VOI LUT, else window, else the range of the stored bits), ``lut``, ``window``, ``range`` or
            ``minmax``; a missing LUT or window falls to the next.
        window: Which of several windows, from 1.
        bits: Of the display values, 8 or 16; rounded half to even.

    Returns:
        The table, which is not to be changed, and the rule's name. Padding becomes black.
    """
    used = _choose(rules, source, window)
    if used == "range" and source != "range" and (bits_used := used_bits(picture, rules)) < rules.bits_stored:
        used = "minmax"
        picture.notes.append(
            f"no window, and {bits_used} of {rules.bits_stored} bits used: shown from the smallest to the largest value"
        )
    reached = occurring(picture, rules) if used == "minmax" else None
    return _display_table(rules, word_count(picture.pixels), used, window, reached, bits), used


# Images of one device have the same rules, and the next one often is of the same device. measured: 8 ms a file whose
# window is one of 16 bits, and 0.1 where it is one of 12.
@functools.lru_cache(maxsize=8)
def _display_table(  # noqa: PLR0917  # the key of a cache
    rules: GrayscaleRules, count: int, used: str, window: int, reached: tuple[int, int] | None, bits: int
) -> NDArray[Any]:
    """The table of ``count`` words for what ``_choose`` chose; ``reached`` are the ends of minmax."""
    stored = rules.stored(rules.distinct(np.arange(count, dtype=np.int64)))
    x = rules.modality_value(stored)
    if used == "lut":
        lut = rules.luts[min(window, len(rules.luts)) - 1]
        y = lut(x) / lut.top
    elif used == "window":
        y = rules.windows[min(window, len(rules.windows)) - 1](x)
    else:
        ends = rules.modality_value(stored if reached is None else np.asarray(reached, np.int64))
        low, high = float(ends.min()), float(ends.max())
        y = np.clip((x - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(len(x))
    if rules.inverted:
        y = 1.0 - y
    y[rules.is_padding(stored)] = 0.0
    kind = np.uint8 if bits == 8 else np.uint16
    table = over_words(np.rint(y * ((1 << bits) - 1)).astype(kind), count)
    table.flags.writeable = False
    return table


def pydicom_voi(rules: GrayscaleRules, stored: NDArray[np.int64]) -> Values:
    """What pydicom's ``apply_voi_lut`` makes of stored values: the LUT, else the window in its range of output.

    Its range is that of the stored bits, moved by slope and intercept where both are there, whatever the input.
    """
    x = stored.astype(np.float64)
    if rules.luts:
        return rules.luts[0](x)
    if not rules.windows:
        return x
    window = rules.windows[0]
    bits = rules.bits_stored
    least, most = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if rules.signed else (0.0, 2.0**bits - 1)
    if rules.modality is not None:
        least, most = 0.0, 2.0**rules.modality.bits - 1
    elif rules.rescaled:
        least, most = least * rules.slope + rules.intercept, most * rules.slope + rules.intercept
    span, c, w = most - least, window.centre, window.width
    if window.function == "SIGMOID":
        return np.asarray(span / (1 + np.exp(-4 * (x - c) / w)) + least)
    if window.function == "LINEAR":
        c, w = c - 0.5, w - 1
    below, above = x <= c - w / 2, x > c + w / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        between = ((x - c) / w + 0.5) * span + least
    return np.where(below, least, np.where(above, most, between))


def cxr_foundation_table(picture: Radiograph, rules: GrayscaleRules) -> tuple[NDArray[Any], int]:
    """The table from words to the values that Google's CXR Foundation client sends, and their bits (8 or 16).

    Raises ``ImageError`` for a window behind a rescale, which the client refuses.
    """
    there = picture.histogram() > 0
    kind: Any = np.dtype(("int" if rules.signed else "uint") + str(picture.pixels.dtype.itemsize * 8))
    x = rules.stored(words_of(picture.pixels))
    whole = not rules.rescaled and rules.modality is None
    values = x.astype(kind) if whole else rules.modality_value(x)
    if rules.windows:
        if rules.rescaled:
            raise ImageError("the original program of this recipe refuses a window after a rescale", hint="take voi")
        c, w = rules.windows[0].centre, rules.windows[0].width
        ends, top = (c - w / 2, c - 1 + w / 2), np.iinfo(kind).max
        values = np.interp(np.clip(values, *ends), ends, (0, top)).astype(kind)
    if rules.inverted:
        values = values[there].max() - values
    if values.dtype == np.uint8:
        return values, 8
    held = values[there]
    wide: Any = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    if values.dtype.kind in "if":
        wide = wide - held.min()
        wide = np.trunc(wide)
    ends = (float(wide[there].min()), float(wide[there].max()))
    return np.interp(wide, ends, (0, 65535)).astype(np.uint16), 16


def _choose(rules: GrayscaleRules, source: str, window: int) -> str:
    if source not in ("auto", "lut", "window", "range", "minmax"):
        raise UsageError(f"unknown VOI source {source!r}", hint="auto, lut, window, range or minmax")
    if window < 1:
        raise UsageError(f"window {window} does not exist", hint="windows count from 1")
    if source in ("auto", "lut") and rules.luts:
        return "lut"
    if source in ("auto", "lut", "window") and rules.windows:
        return "window"
    return "minmax" if source == "minmax" else "range"
