"""A radiograph on its way through a recipe: pixels, grey-scale rules, boxes, spacing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cxrprep.errors import ImageError, SeveralFramesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cxrprep.images.dicom_lut import GrayscaleRules
    from cxrprep.model import Box

    # Unsigned words or display values, uint8 or uint16, (rows, columns).
    Pixels = NDArray[Any]

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may cost: ``pixels`` of it, ``size`` bytes of its file, ``seconds`` of work (0: any time).

    More is refused; the process that works on an image for longer is ended, and the image is a failure.
    """

    pixels: int = 200_000_000
    size: int = 1_000_000_000
    seconds: float = 120.0


DEFAULT_LIMITS = ImageLimits()


# A box of which less than this is left by a crop is dropped: it no longer shows the finding.
_LEFT_OF_BOX = 0.1


@dataclass(frozen=True, slots=True)
class CoordinateMap:
    """Where the pixels of the source lie in a picture: ``x' = x * scale_x + left``, ``y' = y * scale_y + top``.

    Edge coordinates: pixel ``i`` covers ``[i, i + 1)``. ``visible`` (x0, y0, x1, y1) is the part of the picture that
    shows the source; around it is padding. Enough to carry any point there and back.

    ``righted`` (quarters, mirrored, width, height) says that the source, of that size, was turned counter-clockwise and
    then mirrored before all else; ``None``: it was taken as it lies.
    """

    scale_x: float
    scale_y: float
    left: float
    top: float
    visible: tuple[float, float, float, float]
    righted: tuple[int, int, int, int] | None = None

    @classmethod
    def whole(cls, width: int, height: int) -> CoordinateMap:
        """The frame of a picture that is its own source."""
        return cls(1.0, 1.0, 0.0, 0.0, (0.0, 0.0, float(width), float(height)))

    def numbers(self) -> list[float]:
        """The map as numbers, in the order of its fields."""
        return [self.scale_x, self.scale_y, self.left, self.top, *self.visible, *(self.righted or ())]

    @classmethod
    def of_numbers(cls, numbers: Sequence[float]) -> CoordinateMap:
        """The map that ``numbers`` gave."""
        scale_x, scale_y, left, top, x0, y0, x1, y1, *righted = numbers
        if not righted:
            return cls(scale_x, scale_y, left, top, (x0, y0, x1, y1))
        quarters, mirrored, width, height = map(int, righted)
        return cls(scale_x, scale_y, left, top, (x0, y0, x1, y1), (quarters, mirrored, width, height))

    def scaled(self, fx: float, fy: float) -> CoordinateMap:
        """The frame after a resize by these factors."""
        x0, y0, x1, y1 = self.visible
        return CoordinateMap(
            self.scale_x * fx, self.scale_y * fy, self.left * fx, self.top * fy, (x0 * fx, y0 * fy, x1 * fx, y1 * fy),
            self.righted,
        )  # fmt: skip

    def moved(self, dx: float, dy: float) -> CoordinateMap:
        """The frame after the picture's content moved (padding on the left and the top)."""
        x0, y0, x1, y1 = self.visible
        return CoordinateMap(
            self.scale_x, self.scale_y, self.left + dx, self.top + dy, (x0 + dx, y0 + dy, x1 + dx, y1 + dy),
            self.righted,
        )  # fmt: skip

    def cut(self, left: int, top: int, width: int, height: int) -> CoordinateMap:
        """The map of a part of the picture.

        Args:
            left: First column of the part, in pixels.
            top: First row.
            width: Of the part.
            height: Of the part.

        Returns:
            The map from the source's pixels to those of the part.
        """
        frame = self.moved(-left, -top)
        x0, y0, x1, y1 = frame.visible
        return replace(frame, visible=(max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)))

    def boxes(self, boxes: Iterable[Box]) -> tuple[Box, ...]:
        """Boxes of the source in the picture's pixels, clipped to what is visible; those cropped away are left out."""
        x0, y0, x1, y1 = self.visible
        kept = []
        for box in boxes if self.righted is None else _righted(boxes, *self.righted):
            left, top = box.x * self.scale_x + self.left, box.y * self.scale_y + self.top
            width, height = box.w * self.scale_x, box.h * self.scale_y
            a, b, c, d = max(left, x0), max(top, y0), min(left + width, x1), min(top + height, y1)
            part = max(0.0, c - a) * max(0.0, d - b)
            if width * height > 0 and part / (width * height) >= _LEFT_OF_BOX:
                kept.append(replace(box, x=a, y=b, w=c - a, h=d - b))
        return tuple(kept)


def _righted(boxes: Iterable[Box], quarters: int, mirrored: int, width: int, height: int) -> Iterator[Box]:
    """Boxes of a source of that size after it was turned counter-clockwise and then, perhaps, mirrored."""
    for box in boxes:
        x, y, w, h, across, down = box.x, box.y, box.w, box.h, width, height
        for _ in range(quarters):
            x, y, w, h, across, down = y, across - x - w, h, w, down, across
        yield replace(box, x=across - x - w if mirrored else x, y=y, w=w, h=h)


@dataclass(slots=True)
class Radiograph:
    """One image in memory.

    ``pixels`` is (rows, columns). Until a step of the grey scale ran, they are the words of the file, and ``rules``
    says how to read them; afterwards they are display values 0 to ``2**bits - 1`` and ``rules`` is ``None``. ``mode``
    is how the file stores them. ``spacing_mm`` is (row, column) in mm for the pixels as they are now. ``voi`` names the
    rule that made the grey scale, ``codec`` what the pixels were decoded from, ``stated_aspect`` the height of a pixel
    of the source by its width, ``clipped`` the share of the source's pixels that the grey scale took to an end of the
    range; ``notes`` are things that a person should know of the file.

    ``table`` is a grey scale that was worked out and not yet applied: several steps on values cost one look-up, and the
    histogram that they need is counted once. ``settled`` applies it. While it waits, words up to ``meant`` are the
    stored values themselves, so that an average of words means something; 0 says that none are.
    """

    pixels: Pixels
    bits: int
    mode: str
    frame: CoordinateMap
    rules: GrayscaleRules | None = None
    spacing_mm: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)
    voi: str = ""
    table: Pixels | None = None
    counts: NDArray[Any] | None = None
    meant: int = 0
    codec: str = ""
    stated_aspect: float | None = None
    clipped: float | None = None

    def settled(self) -> Radiograph:
        """The picture with its table applied, ready for geometry."""
        if self.table is None:
            return self
        return replace(self, pixels=cv2.LUT(self.pixels, self.table), table=None, counts=None)

    def spaced(self, spacing_mm: tuple[float, float] | None) -> None:
        """Take the spacing (row, column) of the source's pixels from elsewhere, where the file states none."""
        if self.spacing_mm is None and spacing_mm is not None:
            self.spacing_mm = (spacing_mm[0] / self.frame.scale_y, spacing_mm[1] / self.frame.scale_x)

    def righted(self, quarters: int, *, mirrored: bool) -> Radiograph:
        """The picture as it came from its file, turned counter-clockwise by quarters and then mirrored."""
        frame, spacing, aspect = self.frame, self.spacing_mm, self.stated_aspect
        size = (round(self.width / frame.scale_x), round(self.height / frame.scale_y))
        scales = (frame.scale_x, frame.scale_y)
        if quarters % 2:
            scales = (frame.scale_y, frame.scale_x)
            spacing = None if spacing is None else (spacing[1], spacing[0])
            aspect = None if aspect is None else 1 / aspect
        turned = np.rot90(self.pixels, quarters)
        pixels = np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
        visible = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
        frame = CoordinateMap(*scales, 0.0, 0.0, visible, (quarters, int(mirrored), *size))
        return replace(self, pixels=pixels, frame=frame, spacing_mm=spacing, stated_aspect=aspect)

    def histogram(self) -> NDArray[Any]:
        """How often each word of the file occurs, (256,) or (65536,) float32; counted once."""
        if self.counts is None:
            words = 256 if self.pixels.dtype.itemsize == 1 else 65536
            self.counts = cv2.calcHist([self.pixels], [0], None, [words], [0, words]).ravel()
        return self.counts

    @property
    def aspect(self) -> float:
        """Height of a pixel by its width, as the file states it; 1 where it states nothing."""
        if self.stated_aspect is None:
            return 1.0
        # A resize that changes the aspect changes that of the pixels.
        return self.stated_aspect * self.frame.scale_x / self.frame.scale_y

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])


def radiograph_of(pixels: Pixels, bits: int, mode: str, rules: GrayscaleRules, notes: list[str]) -> Radiograph:
    """A picture as it comes from its file.

    Args:
        pixels: Rows x columns, uint8 or uint16.
        bits: That a sample uses.
        mode: The pixel form of the file: L, I;16, MONOCHROME2, ...
        rules: How the words become display values.
        notes: Remarks on the file.

    Returns:
        The radiograph.
    """
    return Radiograph(pixels, bits, mode, CoordinateMap.whole(pixels.shape[1], pixels.shape[0]), rules, None, notes)


def check_frame(name: str, frames: int, frame: int | None, *, animated: str = "") -> int:
    """Which frame of a file is meant, from 1: the one that is asked for, or the only one.

    Args:
        name: The file's name, for errors.
        frames: How many it has.
        frame: The one that is asked for.
        animated: The format, where a frame behind the first is no image but what changes in it.

    Returns:
        Its number.

    Raises:
        SeveralFramesError: There are several and none was named.
        ImageError: There is no such frame, or it is none that can be read.
    """
    if frames == 1:
        return 1
    if frame is None:
        raise SeveralFramesError(
            f"{name}: {frames} frames in one file",
            hint="a radiograph has one: leave the file out, or say which one is wanted: --frame 1",
            frames=1 if animated else frames,
        )
    if not 1 <= frame <= frames:
        raise ImageError(f"{name}: there is no frame {frame}, it has {frames}", hint="frames count from 1")
    if animated and frame > 1:
        raise ImageError(f"{name}: of an animated {animated} the first frame alone is read", hint="say --frame 1")
    return frame


def one_channel(decoded: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """The grey of a decoded image (rows, columns[, BGR or BGRA or grey and alpha]); luma where colours differ."""
    if decoded.ndim == 2:
        return decoded
    if decoded.shape[2] in (2, 4):
        alpha = decoded[:, :, -1]
        if alpha.min() != np.iinfo(decoded.dtype).max:
            notes.append("transparency was ignored")
    colours = decoded[:, :, : min(3, decoded.shape[2])]
    if colours.shape[2] < 3:
        return np.ascontiguousarray(colours[:, :, 0])
    first = np.ascontiguousarray(colours[:, :, 0])
    if np.array_equal(first, colours[:, :, 1]) and np.array_equal(first, colours[:, :, 2]):
        return first
    notes.append("colour was reduced to luma")
    grey: NDArray[Any] = cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_BGR2GRAY)
    return grey
