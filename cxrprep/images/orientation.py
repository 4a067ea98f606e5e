"""Orientation and polarity of a chest radiograph by its pixels: inverted, turned, mirrored, blank. Scores, no repairs.

One linear model over 64 x 64 pixels: histograms of gradients in 8 x 8 cells (nine signed directions, Dalal and Triggs
2005) and a 16 x 16 thumbnail, 832 numbers, into 16 classes: two polarities, four turns, mirrored or not. The weights
(25 kB) are made by ``tools/train_orientation.py`` and lie beside this module.
"""

from __future__ import annotations

import functools
import importlib.resources
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.images.transforms import shown_sample

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from cxrprep.images.radiograph import Radiograph

SIDE: Final = 64
FEATURES: Final = 832
_CELLS, _BINS, _THUMBNAIL = 8, 9, 16
# (polarity, turn in quarters counter-clockwise, mirrored), in the order of the model's outputs.
CLASSES: Final = tuple((inverted, turn, mirror) for inverted in (0, 1) for turn in range(4) for mirror in (0, 1))
# Share of pixels that show any structure: 1,787 radiographs had 0.41 and more, 60 blanks, gradients and collimators
# 0.26 and less.
_STRUCTURE: Final = 0.33
ALARM: Final = 0.5
# Pixels a side from which 64 x 64 are averaged: more tells nothing, and costs more than the decoder.
_ENOUGH: Final = 512
_WEIGHTS: Final = "orientation.npz"


@dataclass(frozen=True, slots=True)
class Orientation:
    """Scores from 0 to 1 of one image: how likely it is inverted, turned, mirrored; ``turn`` in degrees clockwise.

    ``mirrored`` is for sorting and for the share of a batch only: dextrocardia, a collapsed lung or a rotated patient
    look mirrored too. ``structure`` is the share of pixels that show anything; little of it is a blank image.
    """

    inverted: float
    turned: float
    turn: int
    mirrored: float
    structure: float

    def doubts(self) -> tuple[str, ...]:
        """What a person should look at."""
        if self.structure < _STRUCTURE:
            return ("blank? hardly any structure",)
        found = []
        if self.inverted > ALARM:
            found.append("inverted? bones look dark")
        if self.turned > ALARM:
            found.append(f"turned by {self.turn} degrees?")
        return tuple(found)


def orientation_of(picture: Radiograph) -> Orientation:
    """The scores of an image as it was decoded: shown as DICOM says, from some of its rows and columns."""
    shown = shown_sample(picture, _ENOUGH)
    return scores(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def fixed(made: Radiograph, found: Orientation, fix: Collection[str]) -> tuple[str, ...]:
    """Mend a finished result as ``fix`` asks, and say what was done and what a person should look at.

    An inverted one becomes its negative, padding aside.
    """
    doubts = found.doubts()
    if "inverted" not in fix or not any(doubt.startswith("inverted") for doubt in doubts):
        return doubts
    x0, y0, x1, y1 = (round(side) for side in made.frame.visible)
    pixels = made.pixels.copy()
    pixels[y0:y1, x0:x1] = ((1 << made.bits) - 1) - pixels[y0:y1, x0:x1]
    made.pixels = pixels
    return (
        *(doubt for doubt in doubts if not doubt.startswith("inverted")),
        "inverted, and made its negative as asked",
    )


def scores(small: NDArray[Any]) -> Orientation:
    """The scores of an image of 64 x 64 display values."""
    weights, bias = _model()
    logits = features(small) @ weights + bias
    shares = np.exp(logits - logits.max())
    shares = (shares / shares.sum()).reshape(2, 4, 2)
    turns = shares.sum(axis=(0, 2))
    return Orientation(
        inverted=round(float(shares[1].sum()), 4),
        turned=round(float(1.0 - turns[0]), 4),
        # Quarters counter-clockwise that the image was turned: to say how it lies, count the other way.
        turn=int((4 - int(turns[1:].argmax()) - 1) * 90 % 360),
        mirrored=round(float(shares[:, :, 1].sum()), 4),
        structure=round(_structure(small), 4),
    )


def features(small: NDArray[Any]) -> NDArray[np.float32]:
    """832 numbers of an image of 64 x 64: histograms of gradients, then grey; brightness and contrast removed."""
    grey = small.astype(np.float32)
    grey = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    strength, angle = cv2.cartToPolar(dx, dy)
    place = (angle * (_BINS / (2 * np.pi))).astype(np.int32) % _BINS
    cell = SIDE // _CELLS
    rows, columns = np.indices((SIDE, SIDE)) // cell
    index = ((rows * _CELLS + columns) * _BINS + place).ravel()
    histogram = np.sqrt(np.bincount(index, weights=strength.ravel(), minlength=_CELLS * _CELLS * _BINS))
    blocks = histogram.reshape(_CELLS, _CELLS, _BINS)
    around = cv2.blur(blocks.mean(axis=2).astype(np.float32), (3, 3)) + 1e-2
    thumbnail = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.concatenate([(blocks / around[:, :, None]).ravel() / 3, thumbnail.ravel() / 3]).astype(np.float32)


@functools.cache
def _model() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    data = (importlib.resources.files("cxrprep.images") / _WEIGHTS).read_bytes()
    with np.load(io.BytesIO(data)) as held:
        return held["weights"].astype(np.float32), held["bias"].astype(np.float32)


def _structure(small: NDArray[Any]) -> float:
    eight = small if small.dtype == np.uint8 else (small >> 8).astype(np.uint8)
    edges = cv2.Laplacian(cv2.GaussianBlur(eight.astype(np.float32), (0, 0), 1), cv2.CV_32F)
    return float((np.abs(edges) > 1).mean())
