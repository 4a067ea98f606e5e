"""Conversion of one image: the item, the task and its result, as values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import digest_of
from cxrprep.images.image_folder import stem_of
from cxrprep.images.quality import COLUMNS, Quality
from cxrprep.images.radiograph import DEFAULT_LIMITS, CoordinateMap, ImageLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.executors import Lost
    from cxrprep.images.dicom_metadata import Pseudonyms
    from cxrprep.images.recipe import Recipe
    from cxrprep.model import Box, Digest
    from cxrprep.storage.filesystem import ImageStore


def row_sign(item: ConvertItem) -> str:
    """What changes when a sample would say something else of the same image."""
    boxes = None if item.boxes is None else [box.as_dict() for box in item.boxes]
    # The number is that of the form in which a shard says it.
    text = json.dumps([3, item.row and dict(item.row), boxes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


STAGE: Final = "convert"


@dataclass(frozen=True, slots=True)
class ConvertItem:
    """One image to convert: ``source`` is its file, ``relative`` its path below the output folder without new suffix.

    ``digest`` is the source's where it is known, and believed: an output that was made of it is not made anew. Bytes
    that are read and have another than ``recorded`` are refused; of a file that came just now it is not asked.
    ``boxes`` are in the pixels of the source; ``spacing_mm`` (row, column) stands in where the file has none.
    ``source`` may be a URL. ``stem`` is the output's path without suffix, where it is not that of ``relative``;
    ``stamp`` changes with the source.
    ``row`` is what the manifest says of the image, for outputs that carry it. ``made`` is the digest of its output when
    that was made, ``""`` where nobody wrote it down: an output with other bytes is made anew.
    """

    source: str
    relative: str
    digest: Digest | None = None
    recorded: Digest | None = None
    boxes: tuple[Box, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    stem: str = ""
    stamp: str = ""
    row: Mapping[str, Any] | None = None
    made: str = ""

    def is_as_made(self, encoded: bytes) -> bool:
        """Whether an output that is here has the bytes that it had when it was made, as far as anybody knows."""
        return not self.made or self.made == str(digest_of(encoded))

    def output(self, suffix: str) -> str:
        """The path of its output, with the suffix of the output's form."""
        return (self.stem or stem_of(self.relative)) + suffix


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of one image.

    ``status`` is ok, notneeded (a finished output was found), left out (a DICOM object that is no image) or error.
    ``boxes`` and ``spacing_mm`` (row, column) are those of the output. ``voi`` says which rule made the grey scale, or
    which kind of object was left out.
    ``pixels`` is the digest of what the output shows: see ``cxrprep.images.pixel_digest``.
    ``stamp`` and ``out_stamp`` change with the source and with the output. ``about`` is what a hospital's own header
    says. ``error`` and ``hint`` explain a failure.
    """

    item: ConvertItem
    status: str
    path: str = ""
    size: int = 0
    digest: str = ""
    pixels: str = ""
    source_digest: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    bits: int = 8
    boxes: tuple[Box, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    voi: str = ""
    notes: tuple[str, ...] = ()
    codec: str = ""
    quality: Quality | None = None
    frame: CoordinateMap | None = None
    stamp: str = ""
    out_stamp: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    kind: str = ""
    hint: str = ""

    def as_row(self) -> dict[str, Any]:
        """The columns of the manifest that the conversion knows, and what the header says as text."""
        spacing = self.spacing_mm or (None, None)
        return {
            "path": self.path,
            "bytes": self.size,
            "digest": self.digest,
            "width": self.width,
            "height": self.height,
            "source_mode": self.mode,
            "spacing_x_mm": spacing[1],
            "spacing_y_mm": spacing[0],
            "boxes": None if self.boxes is None else [box.as_dict() for box in self.boxes],
            "source_path": self.item.relative,
            "source_digest": self.source_digest,
            "pixels": self.pixels or None,
            "about": spelled(self.about),
            **self.measures(),
        }

    def measures(self) -> dict[str, Any]:
        """How the image came out, in the words of the manifest's columns."""
        found: dict[str, Any] = {"voi": self.voi, "codec": self.codec or None, "notes": list(self.notes)}
        return found | {column: getattr(self.quality, name, None) for column, name in COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class ConversionTask:
    """What is done with each image: small to pickle, made once a run.

    With ``pseudonyms`` the headers are read too, and DICOM objects that are no images are left out without complaint.
    With ``durable`` the disk has each output before its outcome is told. With ``scores`` each image's orientation and
    polarity are asked of its pixels; a recipe that mends them asks too.
    """

    recipe: Recipe
    fingerprint: str
    out: ImageStore
    limits: ImageLimits = DEFAULT_LIMITS
    pseudonyms: Pseudonyms | None = None
    durable: bool = False
    scores: bool = False

    def is_measured(self, quality: Quality | None) -> bool:
        """Whether an output with these measures has all that is asked."""
        return not self.scores or (quality is not None and quality.has_scores)

    @property
    def suffix(self) -> str:
        """The suffix of every output."""
        return self.recipe.output.suffix


def lost(outcome: Lost[ConvertItem]) -> Converted:
    """An image over which worker processes died, as a failure."""
    hint = "look at the file: it may be damaged; its image is left out"
    if outcome.late:
        hint = "look at the file; raise the limit with --max-seconds when it is genuine"
    error = f"{outcome.item.source}: {outcome.cause}"
    return Converted(outcome.item, "error", error=error, kind="ImageError", hint=hint)


def spelled(about: Mapping[str, Any]) -> str:
    """What a header says, as text that sorts and compares."""
    return json.dumps(about, sort_keys=True, separators=(",", ":")) if about else ""


def unspelled(text: str) -> dict[str, Any]:
    """What ``spelled`` wrote."""
    about: dict[str, Any] = json.loads(text) if text else {}
    return about
