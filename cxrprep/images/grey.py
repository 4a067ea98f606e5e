"""The DICOM grey-scale pipeline as one table: stored word -> modality -> VOI -> polarity -> display value.

DICOM PS3.4 N.2 fixes the order; PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (MONOCHROME1) and
C.7.5.1.1.2 (padding) the steps. Every step is a function of one stored value, so a table over all words of the file
(256 or 65,536 entries) computes it exactly, rubbish above ``HighBit`` included.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrprep.images.picture import Picture, Pixels

    Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lut:
    """A LUT of the header: ``values`` for inputs from ``first`` on, ``bits`` an entry (PS3.3 C.11.1.1.1)."""

    first: int
    values: tuple[int, ...]
    bits: int
    explanation: str = ""

    def __call__(self, x: Values) -> Values:
        """The entries for ``x``, rounded to integers; inputs beyond the ends take the end entries."""
        index = np.clip(np.rint(x) - self.first, 0, len(self.values) - 1).astype(np.int64)
        looked: Values = np.asarray(self.values, np.float64)[index]
        return looked

    @property
    def top(self) -> int:
        """The largest output: by the stated bits, unless an entry shows that the statement is wrong."""
        stated = (1 << self.bits) - 1
        largest = max(self.values)
        return stated if largest <= stated else (1 << int(largest).bit_length()) - 1


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the header: ``centre`` and ``width`` in modality units, ``function`` as (0028,1056)."""

    centre: float
    width: float
    function: str = "LINEAR"
    explanation: str = ""

    def __call__(self, x: Values) -> Values:
        """``x`` windowed to 0..1, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
        c, w = self.centre, self.width
        if self.function == "SIGMOID":
            return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (x - c) / w, -700, 700))), np.float64)
        if self.function == "LINEAR_EXACT":
            return np.clip((x - c) / w + 0.5, 0.0, 1.0)
        if w == 1:
            return np.asarray(x > c - 0.5, np.float64)
        return np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class GreyRules:
    """How the words of a file become values (PS3.5 8.1.1), and what the header says of their meaning.

    ``padding`` is the inclusive range of stored values that are no image. ``inverted`` is true for MONOCHROME1.
    """

    bits_stored: int
    high_bit: int
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality: Lut | None = None
    luts: tuple[Lut, ...] = ()
    windows: tuple[Window, ...] = ()
    padding: tuple[int, int] | None = None
    inverted: bool = False

    def distinct(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of all ``words`` that differ in bits that count; the others follow in the same order, over and over."""
        return words[: 1 << (self.high_bit + 1)]

    def stored(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stored value of each word: shifted, masked, and sign-extended."""
        values = (words >> (self.high_bit + 1 - self.bits_stored)) & ((1 << self.bits_stored) - 1)
        if self.signed:
            half = 1 << (self.bits_stored - 1)
            values = (values ^ half) - half
        return values

    @property
    def words_as_stored(self) -> int:
        """Words up to this one are the stored values themselves, and none is padding; 0 where no such thing holds."""
        if self.signed or self.high_bit != self.bits_stored - 1 or self.padding is not None:
            return 0
        return (1 << self.bits_stored) - 1

    def modality_value(self, stored: NDArray[np.int64]) -> Values:
        """Stored values in modality units (PS3.3 C.11.1): the LUT, or slope and intercept."""
        values = stored.astype(np.float64)
        if self.modality is not None:
            return self.modality(values)
        return values * self.slope + self.intercept

    def is_padding(self, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which stored values are padding."""
        if self.padding is None:
            return np.zeros(stored.shape, bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])


def word_count(pixels: Pixels) -> int:
    """How many different words an array of this type can hold."""
    return 256 if pixels.dtype == np.uint8 else 65536


def words_of(pixels: Pixels) -> NDArray[np.int64]:
    """Every word that an array of this type can hold."""
    return np.arange(word_count(pixels), dtype=np.int64)


def over_words(table: NDArray[Any], count: int) -> NDArray[Any]:
    """A table of the distinct words as one of all ``count`` words."""
    return table if len(table) == count else np.tile(table, count // len(table))


def occurring(picture: Picture, rules: GreyRules, *, without_padding: bool = True) -> tuple[int, int]:
    """The smallest and largest stored value of the picture, padding aside."""
    present = rules.stored(words_of(picture.pixels)[picture.histogram() > 0])
    if without_padding:
        real = present[~rules.is_padding(present)]
        present = real if len(real) else present
    return int(present.min()), int(present.max())


def display_table(
    picture: Picture, rules: GreyRules, *, source: str = "auto", window: int = 1, bits: int = 8
) -> tuple[NDArray[Any], str]:
    """The table from words to display values 0..2**bits - 1, and which rule it follows.

    ``source`` is auto (VOI LUT, else window, else the range of the stored bits), lut, window, range or minmax; a
    missing LUT or window falls to the next. ``window`` counts from 1. Rounds half to even. Padding becomes black. The
    table is not to be changed.
    """
    used = _choose(rules, source, window)
    reached = occurring(picture, rules) if used == "minmax" else None
    return _display_table(rules, word_count(picture.pixels), used, window, reached, bits), used


# Images of one device have the same rules, and the next one often is of the same device.
@functools.lru_cache(maxsize=8)
def _display_table(  # noqa: PLR0917  # the key of a cache
    rules: GreyRules, count: int, used: str, window: int, reached: tuple[int, int] | None, bits: int
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


def _choose(rules: GreyRules, source: str, window: int) -> str:
    if source not in ("auto", "lut", "window", "range", "minmax"):
        raise UsageError(f"unknown VOI source {source!r}", hint="auto, lut, window, range or minmax")
    if window < 1:
        raise UsageError(f"window {window} does not exist", hint="windows count from 1")
    if source in ("auto", "lut") and rules.luts:
        return "lut"
    if source in ("auto", "lut", "window") and rules.windows:
        return "window"
    return "minmax" if source == "minmax" else "range"
