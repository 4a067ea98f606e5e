"""Transforms of a recipe (window, resize, crop, pad, histogram equalization, bits): radiograph to radiograph.

Steps of the grey scale (``voi``, ``stretch``, ``polarity``) come first; geometry and 8-bit steps follow. The
picture's frame and spacing follow every change of geometry, and boxes follow the frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images import grayscale, resample
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.quality import clipped_share

if TYPE_CHECKING:
    from cxrprep.images.radiograph import Pixels, Radiograph

Step = Callable[["Radiograph"], "Radiograph"]


# Options that came later: left out of a fingerprint where they have their default, so that fingerprints stay.
LATER: Final = MappingProxyType({"later": True})


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
        return dataclasses.replace(
            picture,
            table=table,
            rules=None,
            bits=self.bits,
            voi=used,
            meant=rules.words_as_stored,
            clipped=clipped_share(picture.pixels, table),
        )


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
        return dataclasses.replace(
            picture,
            table=table,
            bits=self.bits,
            rules=kept,
            voi=f"stretch {self.rule}",
            meant=rules.words_as_stored,
            clipped=clipped_share(picture.pixels, table),
        )


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
        return dataclasses.replace(
            picture,
            table=table,
            rules=None,
            bits=8,
            voi="pydicom, min-max",
            clipped=clipped_share(picture.pixels, table),
        )


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
        return dataclasses.replace(
            picture,
            table=table,
            rules=None,
            bits=bits,
            voi="cxr-foundation",
            clipped=clipped_share(picture.pixels, table),
        )


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
class Resize:
    """To ``width`` x ``height``, or so that the ``shortest`` or the ``longest`` side has that many pixels.

    In a recipe file ``square`` stands for width and height, here and in pad and center-crop; the aspect is not kept.
    Shrinking takes ``filter``: area is the exact area average; bilinear (linear), bicubic (cubic) and lanczos are
    Pillow's, which widen their kernel when they shrink; nearest. Enlarging takes linear where area is named, since area
    cannot enlarge. Sides that follow from the other are rounded to the nearest pixel, or with ``rounding`` truncate cut
    off as torchvision does; at least 1. area-fast halves the
    picture first, before its grey scale where that is possible, while twice the target is left and the sides are even;
    JPEG files are decoded smaller by the same rule. A recipe that names it is not exact.
    """

    width: int | None = None
    height: int | None = None
    shortest: int | None = None
    longest: int | None = None
    filter: str = "area"
    enlarge: bool = True
    rounding: str = dataclasses.field(default="nearest", metadata=LATER)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the step."""
        if self.width and self.height:
            return self.width, self.height
        side = min(width, height) if self.shortest else max(width, height)
        goal = self.shortest or self.longest or side
        if goal > side and not self.enlarge:
            return width, height
        whole = int if self.rounding == "truncate" else round
        return max(1, whole(width * goal / side)), max(1, whole(height * goal / side))

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Resample; boxes and spacing scale with the real sizes."""
        width, height = self.target(picture.width, picture.height)
        if (width, height) == (picture.width, picture.height):
            return picture.settled()
        fx, fy = width / picture.width, height / picture.height
        spacing = picture.spacing_mm and (picture.spacing_mm[0] / fy, picture.spacing_mm[1] / fx)
        fast = self.filter == "area-fast"
        pixels, table = resample.halved(picture, self.target) if fast else (picture.pixels, picture.table)
        pixels = resample.resize(pixels, width, height, self.filter, table)
        return dataclasses.replace(
            picture, pixels=pixels, table=None, counts=None, frame=picture.frame.scaled(fx, fy), spacing_mm=spacing
        )


@dataclass(frozen=True, slots=True)
class SquarePixels:
    """Enlarge the coarser side until pixels are square, by the spacing of the file, else by its PixelAspectRatio.

    Files that state neither, and pixels that are square within ``tolerance``, are left as they are.
    """

    filter: str = "bilinear"
    tolerance: float = 0.01

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Resample one side; boxes and spacing follow."""
        aspect = picture.aspect
        if abs(aspect - 1.0) <= self.tolerance:
            return picture
        wide, tall = max(1.0, 1.0 / aspect), max(1.0, aspect)
        size = (max(1, round(picture.width * wide)), max(1, round(picture.height * tall)))
        return Resize(*size, filter=self.filter)(picture)


@dataclass(frozen=True, slots=True)
class Spacing:
    """Resample so that a pixel is ``mm`` millimetres wide and high, for images whose spacing is known.

    An image without spacing is a failure: what it shows has no size.
    """

    mm: float
    filter: str = "bilinear"

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Resample by the spacing of the file, or what the tables of the release say of it."""
        if picture.spacing_mm is None:
            raise ImageError(
                "the step 'spacing' needs the size of a pixel, which neither the file nor a table states",
                hint="leave such images out, or take a recipe without the step",
            )
        down, across = picture.spacing_mm
        size = (max(1, round(picture.width * across / self.mm)), max(1, round(picture.height * down / self.mm)))
        return Resize(*size, filter=self.filter)(picture)


@dataclass(frozen=True, slots=True)
class Pad:
    """Pixels of ``value`` around the picture until it has ``width`` x ``height``; nothing is ever cut off."""

    width: int
    height: int
    value: int = 0

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Centre the picture; an odd pixel goes to the right and the bottom."""
        picture = picture.settled()
        across, down = max(0, self.width - picture.width), max(0, self.height - picture.height)
        if not across and not down:
            return picture
        left, top = across // 2, down // 2
        pixels = cv2.copyMakeBorder(
            picture.pixels, top, down - top, left, across - left, cv2.BORDER_CONSTANT, value=self.value
        )
        return dataclasses.replace(picture, pixels=pixels, frame=picture.frame.moved(left, top))


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """The middle ``width`` x ``height``; the middle square of the shorter side when neither is given."""

    width: int | None = None
    height: int | None = None
    start: str = dataclasses.field(default="floor", metadata=LATER)

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Cut; the start is ``dim // 2 - size // 2``, as torchxrayvision's XRayCenterCrop has it.

        With ``start`` half-even it is ``round((dim - size) / 2)``, as torchvision's CenterCrop has it.
        """
        picture = picture.settled()
        side = min(picture.width, picture.height)
        width, height = min(self.width or side, picture.width), min(self.height or side, picture.height)
        if self.start == "half-even":
            left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        else:
            left, top = picture.width // 2 - width // 2, picture.height // 2 - height // 2
        return _cut(picture, left, top, width, height)


@dataclass(frozen=True, slots=True)
class CropBorder:
    """Cut rows and columns at the edges in which no two values are more than ``tolerance`` apart.

    At most ``largest`` of a side goes from each edge; a picture without any structure is left as it is. With ``strays``
    that share of a line may differ, so that noise, letters and a slanted collimator do not stop it: a line is border
    while the others lie within ``tolerance`` of its own median, and that within twice ``tolerance`` of the edge's.
    """

    tolerance: int = 0
    largest: float = 0.4
    strays: float = dataclasses.field(default=0.0, metadata=LATER)

    def __call__(self, picture: Radiograph) -> Radiograph:
        """Cut uniform borders."""
        picture = picture.settled()
        if self.strays:
            rows, columns = (_busy(picture.pixels, axis, self.tolerance, self.strays) for axis in (1, 0))
        else:
            rows, columns = (_spread(picture.pixels, axis) > self.tolerance for axis in (1, 0))
        if not rows.any() or not columns.any():
            return picture
        top, bottom = _ends(rows, self.largest)
        left, right = _ends(columns, self.largest)
        return _cut(picture, left, top, right - left, bottom - top)


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


def _spread(pixels: Any, axis: int) -> Any:
    """The largest less the smallest value along an axis (0: of each column, 1: of each row)."""
    most, least = (cv2.reduce(pixels, axis, how).ravel() for how in (cv2.REDUCE_MAX, cv2.REDUCE_MIN))
    return most.astype(np.int32) - least


def _busy(pixels: Any, axis: int, tolerance: int, strays: float) -> Any:
    """Whether each line is more than border: row by row (axis 1) or column by column (axis 0)."""
    values = pixels.astype(np.int32)
    middle = np.median(values, axis=axis)
    alike = np.abs(values - np.expand_dims(middle, axis)) <= tolerance
    uniform = alike.mean(axis=axis) >= 1.0 - strays
    half = len(middle) // 2
    edge = np.concatenate([np.full(half, middle[0]), np.full(len(middle) - half, middle[-1])])
    return ~(uniform & (np.abs(middle - edge) <= 2 * tolerance))


def _ends(busy: Any, largest: float) -> tuple[int, int]:
    limit = int(len(busy) * largest)
    first = min(int(np.argmax(busy)), limit)
    last = max(len(busy) - int(np.argmax(busy[::-1])), len(busy) - limit)
    return first, last


def _cut(picture: Radiograph, left: int, top: int, width: int, height: int) -> Radiograph:
    if (left, top, width, height) == (0, 0, picture.width, picture.height):
        return picture
    pixels = np.ascontiguousarray(picture.pixels[top : top + height, left : left + width])
    return dataclasses.replace(picture, pixels=pixels, frame=picture.frame.cut(left, top, width, height))


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
