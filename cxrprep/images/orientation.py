"""Orientation and polarity of a chest radiograph by its pixels: inverted, rotated, mirrored, blank, no chest.

One linear model over 64 x 64 pixels: histograms of gradients in 8 x 8 cells (eight signed directions, Dalal and Triggs
2005) and a 16 x 16 thumbnail, 768 numbers. To turn, mirror or invert an image only moves these numbers about and
changes signs, so that one row of weights says how upright each of the 16 ways is in which an image may have come to lie
as it does: two polarities, four turns, mirrored or not. What is no frontal chest radiograph is far from the space that
the numbers of those span. The weights (33 kB) are made by ``tools/train_orientation.py`` and lie beside this module.
"""

from __future__ import annotations

import functools
import importlib.resources
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.images.quality import COLUMNS
from cxrprep.images.transforms import shown_sample

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from cxrprep.images.radiograph import Radiograph

SIDE: Final = 64
_CELLS, _BINS, _THUMBNAIL = 8, 8, 16
_HISTOGRAMS: Final = _CELLS * _CELLS * _BINS
FEATURES: Final = _HISTOGRAMS + _THUMBNAIL * _THUMBNAIL
# (polarity, turn in quarters counter-clockwise, mirrored before that): what may have been done to an image.
CLASSES: Final = tuple((inverted, turn, mirror) for inverted in (0, 1) for turn in range(4) for mirror in (0, 1))
# Share of pixels that show any structure: 1,787 radiographs had 0.41 and more, 60 blanks, gradients and collimators
# 0.26 and less.
STRUCTURE: Final = 0.33
ALARM: Final = 0.5
# Of 727 radiographs of five collections that the weights were not made of, none is above 0.6 as it is (one above 0.5),
# and 99.95 % of 8,724 turned ones are; none is above 0.37 for inverted.
TURNED_ALARM: Final = 0.6
# Spreads of the distance beyond the usual one at which the score is 0.5. Of the 727 radiographs 1 % are above; of CT,
# MR, ultrasound and other images of pydicom's test files and of written text all.
_FAR: Final = 3.0
# Pixels a side from which 64 x 64 are averaged: more tells nothing, and costs more than the decoder.
_ENOUGH: Final = 512
_WEIGHTS: Final = "orientation.npz"


@dataclass(frozen=True, slots=True)
class Orientation:
    """Scores from 0 to 1 of one image: how likely it is inverted, turned, mirrored; ``turn`` in degrees clockwise.

    ``mirrored`` is for sorting and for the share of a batch only: dextrocardia, a collapsed lung or a rotated patient
    look mirrored too. ``structure`` is the share of pixels that show anything; little of it is a blank image.
    ``not_frontal`` says how unlike a frontal chest radiograph it is, brought upright: a lateral, another part of the
    body, no radiograph at all. It is to sort by.
    """

    inverted: float
    turned: float
    turn: int
    mirrored: float
    structure: float
    not_frontal: float

    @property
    def is_blank(self) -> bool:
        """Whether it shows hardly anything: the other scores then mean nothing."""
        return self.structure < STRUCTURE

    @property
    def is_mirrored(self) -> bool:
        """Whether it looks mirrored: dextrocardia and a collapsed lung do too."""
        return not self.is_blank and self.mirrored > ALARM

    def columns(self) -> dict[str, float]:
        """The scores by the names of the manifest's columns."""
        return {column: getattr(self, name) for column, name in COLUMNS.items() if hasattr(self, name)}

    def alarms(self) -> dict[str, str]:
        """What a person should look at: the word of each fix that would mend it, or ``blank``, with the remark."""
        if self.is_blank:
            return {"blank": "blank? hardly any structure"}
        found = {}
        if self.inverted > ALARM:
            found["inverted"] = "inverted? bones look dark"
        if self.turned > TURNED_ALARM:
            found["rotated"] = f"turned by {self.turn} degrees?"
        return found

    def doubts(self) -> tuple[str, ...]:
        """What a person should look at, as remarks."""
        return tuple(self.alarms().values())


def orientation_of(picture: Radiograph) -> Orientation:
    """The scores of an image as it was decoded: shown as DICOM says, from some of its rows and columns."""
    shown = shown_sample(picture, _ENOUGH)
    return scores(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def righted(picture: Radiograph, found: Orientation, fix: Collection[str]) -> Radiograph:
    """An image as it was decoded, turned and mirrored back as far as ``fix`` asks and its scores say; boxes follow."""
    quarters = found.turn // 90 if "rotated" in fix and "rotated" in found.alarms() else 0
    mirrored = "mirrored" in fix and found.is_mirrored
    return picture.righted(quarters, mirrored=mirrored) if quarters or mirrored else picture


def fixed(made: Radiograph, found: Orientation, fix: Collection[str]) -> tuple[str, ...]:
    """Mend the grey scale of a finished result as ``fix`` asks; what was done, here and by ``righted``, and doubts.

    An inverted one becomes its negative, padding aside.
    """
    alarms = found.alarms()
    if "inverted" in fix and "inverted" in alarms:
        x0, y0, x1, y1 = (round(side) for side in made.frame.visible)
        pixels = made.pixels.copy()
        pixels[y0:y1, x0:x1] = ((1 << made.bits) - 1) - pixels[y0:y1, x0:x1]
        made.pixels = pixels
        alarms["inverted"] = "inverted, and made its negative as asked"
    if "rotated" in fix and "rotated" in alarms:
        alarms["rotated"] = f"turned by {found.turn} degrees, and turned back as asked"
    # Only where somebody named it.
    if "mirrored" in fix and found.is_mirrored:
        alarms["mirrored"] = "mirrored by its score, and mirrored back as asked: look at it"
    return tuple(alarms.values())


def scores(small: NDArray[Any]) -> Orientation:
    """The scores of an image of 64 x 64 display values."""
    model, found = _model(), features(small)
    ways = undone(found)
    shares = probabilities(ways, model["weights"])
    turns = shares.sum(axis=(0, 2))
    upright = ways[int(shares.argmax())]
    return Orientation(
        inverted=round(float(shares[1].sum()), 4),
        turned=round(float(1.0 - turns[0]), 4),
        # Quarters counter-clockwise that the image was turned: to say how it lies, count the other way.
        turn=int((4 - int(turns[1:].argmax()) - 1) * 90 % 360),
        mirrored=round(float(shares[:, :, 1].sum()), 4),
        structure=round(_structure(small), 4),
        not_frontal=round(_not_frontal(upright, model), 4),
    )


def _not_frontal(upright: NDArray[np.float32], model: Mapping[str, NDArray[np.float32]]) -> float:
    """How far the features of an image, brought upright, are from the space that those of radiographs span; 0 to 1."""
    left = distance(upright, model["mean"], model["directions"])
    usual, spread = model["distances"]
    # 0 at the usual distance, 0.5 at so many spreads that at most 1 % of frontal radiographs are farther away.
    return float(1 - 0.5 ** (max(0.0, (left - usual) / spread) / _FAR))


def distance(found: NDArray[np.float32], mean: NDArray[np.float32], directions: NDArray[np.float32]) -> float:
    """The distance of features from their mean, without what the directions explain."""
    away = found - mean
    return float(np.sqrt(max(0.0, float(away @ away - ((directions @ away) ** 2).sum()))))


def probabilities(ways: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of each polarity, turn and mirroring (2 x 4 x 2) of an image, from what ``undone`` made of it."""
    logits = ways @ weights
    shares = np.exp(logits - logits.max())
    return (shares / shares.sum()).reshape(2, 4, 2)  # type: ignore[no-any-return]


def features(small: NDArray[Any]) -> NDArray[np.float32]:
    """768 numbers of an image of 64 x 64: histograms of gradients, then grey; brightness and contrast removed."""
    grey = small.astype(np.float32)
    grey = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    strength, angle = cv2.cartToPolar(dx, dy)
    # The axes lie in the middle of a direction, so that turning and mirroring takes directions to directions.
    place = np.rint(angle * (_BINS / (2 * np.pi))).astype(np.int32) % _BINS
    counted = np.bincount((_first_of_cell() + place).ravel(), weights=strength.ravel(), minlength=_HISTOGRAMS)
    blocks = np.sqrt(counted).astype(np.float32).reshape(_CELLS, _CELLS, _BINS)
    around = cv2.blur(blocks.mean(axis=2), (3, 3)) + 1e-2
    thumbnail = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    numbers: NDArray[np.float32] = np.concatenate([(blocks / around[:, :, None]).ravel(), thumbnail.ravel()])
    return numbers / np.float32(3)


@functools.cache
def _first_of_cell() -> NDArray[np.int32]:
    """For each pixel the first number of its cell's histogram."""
    rows, columns = np.indices((SIDE, SIDE), np.int32) // (SIDE // _CELLS)
    return ((rows * _CELLS + columns) * _BINS).astype(np.int32)


def undone(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features that an image would have (16 x 768) if what each class says had been done to it were undone."""
    places, signs = _undoing()
    return found[places] * signs


@functools.cache
def _undoing() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    histograms = np.arange(_HISTOGRAMS).reshape(_CELLS, _CELLS, _BINS)
    thumbnail = np.arange(_HISTOGRAMS, FEATURES).reshape(_THUMBNAIL, _THUMBNAIL)
    directions, signs = np.arange(_BINS), np.ones((len(CLASSES), FEATURES), np.float32)
    places = []
    for row, (inverted, turn, mirror) in enumerate(CLASSES):
        # A turn clockwise adds a quarter to each direction, the mirror takes it from half a circle, the negative adds
        # half a circle.
        cells = np.rot90(histograms, -turn)[:, :, (directions - turn * _BINS // 4) % _BINS]
        grey = np.rot90(thumbnail, -turn)
        if mirror:
            cells, grey = cells[:, ::-1, (_BINS // 2 - directions) % _BINS], grey[:, ::-1]
        if inverted:
            cells = cells[:, :, (directions + _BINS // 2) % _BINS]
            signs[row, _HISTOGRAMS:] = -1
        places.append(np.concatenate([cells.ravel(), grey.ravel()]))
    return np.stack(places), signs


@functools.cache
def _model() -> dict[str, NDArray[np.float32]]:
    data = (importlib.resources.files("cxrprep.images") / _WEIGHTS).read_bytes()
    with np.load(io.BytesIO(data)) as held:
        return {name: held[name].astype(np.float32) for name in held.files}


def _structure(small: NDArray[Any]) -> float:
    eight = small if small.dtype == np.uint8 else (small >> 8).astype(np.uint8)
    edges = cv2.Laplacian(cv2.GaussianBlur(eight.astype(np.float32), (0, 0), 1), cv2.CV_32F)
    return float((np.abs(edges) > 1).mean())
