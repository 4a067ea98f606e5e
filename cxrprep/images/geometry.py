"""Geometry of a recipe: transforms that resize, pad and crop.

The picture's frame and spacing follow each, and boxes follow the frame.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images import resample

if TYPE_CHECKING:
    from cxrprep.images.radiograph import Radiograph

# Options that came later: left out of a fingerprint where they have their default, so that fingerprints stay.
LATER: Final = MappingProxyType({"later": True})


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
