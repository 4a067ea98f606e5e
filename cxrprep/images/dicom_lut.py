"""DICOM look-up tables: VOI LUT, VOI window and Modality LUT, as the header states them (PS3.3 C.11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        """The largest output: that of the bits that the largest entry needs, whatever the descriptor says.

        Vendors state 16 bits for tables that end at 4095, and the other way round; viewers go by the entries.
        """
        return (1 << self.bits_used) - 1

    @property
    def bits_used(self) -> int:
        """Bits of the largest entry; at least 8."""
        return max(8, int(max(self.values)).bit_length())


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
class GrayscaleRules:
    """How the words of a file become values (PS3.5 8.1.1), and what the header says of their meaning.

    ``padding`` is the inclusive range of stored values that are no image. ``inverted`` is true for MONOCHROME1,
    ``rescaled`` where the header states slope and intercept, were they 1 and 0.
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
    rescaled: bool = False

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
