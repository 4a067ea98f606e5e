"""Transforms of a recipe (window, polarity, histogram equalization, bits): radiograph to radiograph, and all by name.

Steps of the grey scale (``voi``, ``stretch``, ``polarity``) come first; geometry and 8-bit steps follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images import grayscale
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.geometry import LATER, CenterCrop, CropBorder, Pad, Resize, Spacing, SquarePixels
from cxrprep.images.quality import clipped_share

if TYPE_CHECKING:
    from cxrprep.images.radiograph import Pixels, Radiograph

Step = Callable[["Radiograph"], "Radiograph"]


@dataclass(frozen=True, slots=True)
class Voi:
    """Stored values to display values, as DICOM says: modality, VOI LUT or window, polarity, rounded half to even.

    ``source`` is auto, lut, window, range or minmax; ``window`` counts from 1. PNG and JPEG are display values already
    and only change their number of bits.
    """

    source: str = "auto"
    window: int = 1
    bits: int = 8

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Apply the table that the header gives."""
        rules = _rules(picture, "voi")
        if self.bits == 8 and picture.pixels.dtype == np.uint8 and rules == GrayscaleRules(8, 7):
            return dataclasses.replace(picture, rules=None, bits=8, voi="none")
        table, used = grayscale.display_table(picture, rules, source=self.source, window=self.window, bits=self.bits)
        return _mapped(picture, table, used, self.bits, meant=rules.words_as_stored)


def shown_sample(picture: Radiograph, side: int) -> Pixels:
    """Some rows and columns of an image, ``side`` of each at most, as DICOM says that they are shown in 8 bits."""
    rows, columns = (min(side, length) for length in picture.pixels.shape)
    # Nearest pixels are copied in 0.2 ms of 7.8 million; slices of every n-th took 0.7 and came out in odd sizes, which
    # OpenCV averages ten times slower than whole factors.
    pixels = cv2.resize(picture.pixels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    rules = _rules(picture, "voi")
    if pixels.dtype == np.uint8 and rules == GrayscaleRules(8, 7):
        return pixels
    sample = dataclasses.replace(picture, pixels=pixels, counts=None, notes=[])
    table, _ = grayscale.display_table(sample, rules)
    shown = dataclasses.replace(sample, table=table, rules=None, bits=8, meant=rules.words_as_stored)
    return shown.settled().pixels


@dataclass(frozen=True, slots=True)
class Stretch:
    """Stored values to ``bits`` (8 or 16) without any LUT or window of the header.

    ``rule`` min-max: (v - min) / (max - min); max: v / max; percentile: as min-max, between the stored values at
    ``low`` and ``high`` percent of the pixels, padding aside. Behind voi it works on the display values. ``rounding``
    truncate or nearest (half to even). Polarity is a step of its own. A constant image becomes 0.
    """

    rule: str = "min-max"
    rounding: str = "truncate"
    bits: int = 8
    low: float = dataclasses.field(default=0.5, metadata=LATER)
    high: float = dataclasses.field(default=99.5, metadata=LATER)

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Apply the table that the extremes of the stored values give."""
        if picture.rules is None:
            # Behind another step the display values are the values of a file of their own.
            picture = picture.settled()
            shown = GrayscaleRules(picture.bits, picture.bits - 1)
            made = self(dataclasses.replace(picture, rules=shown, counts=None, meant=0))
            return dataclasses.replace(made, rules=None, voi=f"{picture.voi}, {made.voi}", clipped=picture.clipped)
        rules = picture.rules
        low, high = grayscale.occurring(picture, rules, without_padding=False)
        if self.rule == "percentile":
            low, high = grayscale.percentiles(picture, rules, self.low, self.high)
        if self.rule == "max":
            low = 0
        stored = np.clip(rules.stored(rules.distinct(grayscale.words_of(picture.pixels))), low, high) - low
        span, top = high - low, (1 << self.bits) - 1
        kind: Any = np.uint8 if self.bits == 8 else np.uint16
        if span <= 0:
            picture.notes.append("all pixels have one value")
            table = np.zeros(len(stored), kind)
        elif self.rounding == "truncate":
            table = (stored * top // span).astype(kind)
        else:
            # In single precision, as OpenCV's convertScaleAbs has it: double gives other levels at some halves.
            table = np.rint(stored.astype(np.float32) * np.float32(top / span)).astype(kind)
        table = grayscale.over_words(table, grayscale.word_count(picture.pixels))
        kept = GrayscaleRules(self.bits, self.bits - 1, inverted=rules.inverted)
        made = _mapped(picture, table, f"stretch {self.rule}", self.bits, meant=rules.words_as_stored)
        return dataclasses.replace(made, rules=kept)


@dataclass(frozen=True, slots=True)
class PydicomMinMax:
    """``apply_voi_lut`` of pydicom on stored values, MONOCHROME1 inverted, then min-max to 8 bits, truncated.

    The rule of the Kaggle notebooks for VinDr, SIIM and RSNA: no modality LUT, and the window is stretched afterwards.
    It is not what DICOM says, and what many models were trained on.
    """

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Apply the table of that arithmetic in double precision."""
        rules = _rules(picture, "pydicom-minmax")
        stored = rules.stored(grayscale.words_of(picture.pixels))
        shown = grayscale.pydicom_voi(rules, stored)
        held = shown[picture.histogram() > 0]
        if rules.inverted:
            shown, held = held.max() - shown, held.max() - held
        shown = shown - held.min()
        most = (held - held.min()).max()
        if not most:
            picture.notes.append("all pixels have one value")
        scaled = shown / most * 255 if most else np.zeros(len(shown))
        table = np.clip(scaled, 0, 255).astype(np.uint8)
        return _mapped(picture, table, "pydicom, min-max", 8)


@dataclass(frozen=True, slots=True)
class CxrFoundation:
    """The grey scale of Google's CXR Foundation client: first window by its own formula, then min-max to 16 bits.

    A VOI LUT and the function of the window are ignored. Files of 8 bits stay 8 bits and are not stretched. As in the
    original, a window behind a rescale is refused.
    """

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Apply the table of that arithmetic; ``np.interp``, truncated."""
        rules = _rules(picture, "cxr-foundation")
        table, bits = grayscale.cxr_foundation_table(picture, rules)
        return _mapped(picture, table, "cxr-foundation", bits)


@dataclass(frozen=True, slots=True)
class Polarity:
    """White bone: MONOCHROME1 is inverted (PS3.3 C.7.6.3.1.2); everything else is left alone."""

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Invert the display values when the header says that low values are white."""
        rules = picture.rules
        if rules is None or not rules.inverted:
            return picture
        return dataclasses.replace(_inverted(picture), rules=dataclasses.replace(rules, inverted=False))


@dataclass(frozen=True, slots=True)
class Invert:
    """Black becomes white, whatever the header says."""

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Take every display value from the largest."""
        return _inverted(picture)


@dataclass(frozen=True, slots=True)
class Equalize:
    """OpenCV's ``equalizeHist`` on 8 bits: the darkest occupied value becomes 0, the others follow the counts."""

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Equalise the histogram of the whole picture."""
        if picture.table is None or picture.table.dtype != np.uint8:
            return dataclasses.replace(
                picture, pixels=cv2.equalizeHist(_eight(picture.settled(), "equalize")), table=None
            )
        # The histogram after the table follows from the one before it, and equalising is a table too.
        counts = np.bincount(picture.table, weights=picture.histogram(), minlength=256)
        return dataclasses.replace(picture, table=equalizing(counts)[picture.table])


@dataclass(frozen=True, slots=True)
class Clahe:
    """Contrast-limited adaptive equalisation on ``tiles`` x ``tiles`` tiles, as OpenCV defines ``clip``."""

    clip: float = 2.0
    tiles: int = 8

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Equalise each tile's histogram."""
        picture = picture.settled()
        made = cv2.createCLAHE(clipLimit=self.clip, tileGridSize=(self.tiles, self.tiles))
        return dataclasses.replace(picture, pixels=made.apply(picture.pixels))


@dataclass(frozen=True, slots=True)
class Bits:
    """Display values in ``to`` bits, 8 or 16: the whole range is kept, rounded half to even."""

    to: int = 8

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Rescale from 0..2**bits - 1."""
        picture = picture.settled()
        if picture.bits == self.to:
            return picture
        words = grayscale.words_of(picture.pixels).astype(np.float64)
        table = np.rint(np.clip(words / ((1 << picture.bits) - 1), 0, 1) * ((1 << self.to) - 1))
        return dataclasses.replace(picture, table=table.astype(np.uint8 if self.to == 8 else np.uint16), bits=self.to)


def _rules(picture: Radiograph, step: str) -> GrayscaleRules:
    if picture.rules is None:
        raise ImageError(f"the step {step!r} needs the values of the file", hint=f"put {step} first in the recipe")
    return picture.rules


def _mapped(picture: Radiograph, table: Any, voi: str, bits: int, *, meant: int | None = None) -> Radiograph:
    """The picture with the grey levels of ``table``, which the rule ``voi`` made, in place of the file's rules."""
    meant, clipped = picture.meant if meant is None else meant, clipped_share(picture.pixels, table)
    return dataclasses.replace(picture, table=table, rules=None, bits=bits, voi=voi, meant=meant, clipped=clipped)


def _inverted(picture: Radiograph) -> Radiograph:
    if picture.table is not None:
        return dataclasses.replace(picture, table=np.bitwise_not(picture.table))
    return dataclasses.replace(picture, pixels=cv2.bitwise_not(picture.pixels))


def equalizing(counts: Any) -> Any:
    """The table of OpenCV's ``equalizeHist`` for a histogram of 256 ``counts``, equal to its own in every entry.

    float32 arithmetic and rounding half to even, as in its source; a picture of one value is left as it is.
    """
    counts = counts.astype(np.int64)
    first = int(np.argmax(counts > 0))
    total, rest = int(counts.sum()), int(counts.sum() - counts[first])
    if rest == 0:
        return np.arange(256, dtype=np.uint8)
    scale = np.float32(255) / np.float32(total - counts[first])
    above = np.cumsum(np.concatenate(([0], counts[first + 1 :])))
    table = np.zeros(256, np.uint8)
    table[first:] = np.clip(np.rint(above.astype(np.float32) * scale), 0, 255).astype(np.uint8)
    return table


def _eight(picture: Radiograph, step: str) -> Any:
    if picture.pixels.dtype != np.uint8:
        raise ImageError(
            f"the step {step!r} works on 8 bits", hint="put a step bits = 8, or voi with bits = 8, before it"
        )
    return picture.pixels


STEPS: Final[Mapping[str, type[Any]]] = {
    "voi": Voi,
    "stretch": Stretch,
    "pydicom-minmax": PydicomMinMax,
    "cxr-foundation": CxrFoundation,
    "polarity": Polarity,
    "invert": Invert,
    "equalize": Equalize,
    "clahe": Clahe,
    "resize": Resize,
    "pad": Pad,
    "center-crop": CenterCrop,
    "crop-border": CropBorder,
    "square-pixels": SquarePixels,
    "spacing": Spacing,
    "bits": Bits,
}
