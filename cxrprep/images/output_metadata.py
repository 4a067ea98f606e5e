"""Metadata in a converted image: its recipe, its source, its geometry; and whether the file is whole."""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import imagecodecs

from cxrprep.errors import ImageError
from cxrprep.images.codec_headers import JPEG_MAGIC
from cxrprep.images.png_jpeg import PNG_MAGIC, jpeg_header, png_header
from cxrprep.images.quality import Quality
from cxrprep.images.radiograph import CoordinateMap
from cxrprep.model import CONVERSION_KEY

if TYPE_CHECKING:
    from cxrprep.storage.filesystem import ImageStore

# A mark has some hundred bytes; notes make it longer.
_HEAD: Final = 8192


@dataclass(frozen=True, slots=True)
class OutputMetadata:
    """What an output says of itself: by which recipe and from which bytes it was made, and what became of them.

    ``source`` is the digest of the source file; the other fields are the picture's, so that a second run needs no
    pixel to describe an output that is done.
    """

    recipe: str
    fingerprint: str
    source: str
    mode: str
    bits: int
    voi: str
    frame: CoordinateMap
    spacing_mm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    codec: str = ""
    quality: Quality | None = None

    def dump(self) -> bytes:
        """The mark as it is written."""
        # dataclasses.asdict copies deeply, which takes longer than all the rest of this.
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["quality"] = self.quality and self.quality.dump()
        fields["frame"] = {f.name: getattr(self.frame, f.name) for f in dataclasses.fields(CoordinateMap)}
        if self.frame.righted is None:
            # Most are not turned: their bytes stay those of earlier versions.
            del fields["frame"]["righted"]
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, values: dict[str, Any]) -> OutputMetadata:
        """The mark that ``dump`` wrote. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        frame, spacing = dict(values["frame"]), values["spacing_mm"]
        frame["visible"] = tuple(float(v) for v in frame["visible"])
        righted = frame.get("righted")
        frame["righted"] = righted and (int(righted[0]), int(righted[1]), int(righted[2]), int(righted[3]))
        return cls(
            recipe=str(values["recipe"]),
            fingerprint=str(values["fingerprint"]),
            source=str(values["source"]),
            mode=str(values["mode"]),
            bits=int(values["bits"]),
            voi=str(values["voi"]),
            frame=CoordinateMap(**frame),
            spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1])),
            notes=tuple(str(note) for note in values["notes"]),
            # Outputs of earlier versions lack these; they are as good.
            codec=str(values.get("codec", "")),
            quality=Quality.parse(values.get("quality")),
        )


def metadata_in(data: bytes) -> OutputMetadata | None:
    """The mark in the bytes of an output of ours, or in its head (WebP: its tail); ``None`` for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        data = data[-_HEAD:]
    start = data.find(CONVERSION_KEY, 0, _HEAD)
    if start < 0:
        return None
    try:
        text = data[start + len(CONVERSION_KEY) + 1 : start + _HEAD].decode("latin-1")
        values, _ = json.JSONDecoder().raw_decode(text)
        return OutputMetadata.parse(values)
    except (ValueError, KeyError, TypeError):
        return None


def read_output(
    place: ImageStore, path: str, fingerprint: str, source: str
) -> tuple[OutputMetadata, tuple[int, int], bytes] | None:
    """The mark, size and bytes of an output, if it was made by that recipe from that source.

    Args:
        place: Reads the files of outputs.
        path: The output.
        fingerprint: Of the recipe.
        source: The digest of the source.

    Returns:
        ``None`` for what may be made anew: nothing there, another recipe, another source, an output that was cut short.

    Raises:
        ImageError: A file without a mark: it may be somebody's only copy.
    """
    head = place.head(path, _HEAD)
    if not head:
        return None
    if head[:4] != b"RIFF":
        # Nearly always the answer, without the rest of the file. Zeros may be ours: what a power cut leaves.
        mark = metadata_in(head)
        if mark is None and head.strip(b"\0") and not _is_cut_before_pixels(head):
            raise _foreign(place, path)
        if mark is None or (mark.fingerprint, mark.source) != (fingerprint, source):
            return None
    try:
        data = place.read(path)
    except ImageError:
        return None
    if _is_whole_webp(data) and metadata_in(data) is None:
        raise _foreign(place, path)
    return output_in(data, fingerprint, source)


def _foreign(place: ImageStore, path: str) -> ImageError:
    return ImageError(
        f"{place.full(path)} is here already, and no conversion wrote it",
        hint="name another folder with --out, or move it away",
    )


def _is_cut_before_pixels(head: bytes) -> bool:
    """Whether a file ends in the header of a PNG or JPEG: it holds no pixel that could be anybody's."""
    begins = PNG_MAGIC.startswith(head[: len(PNG_MAGIC)]) or head.startswith(JPEG_MAGIC)
    return len(head) < _HEAD and begins and b"IDAT" not in head and b"\xff\xda" not in head


def _is_whole_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and len(data) == struct.unpack("<I", data[4:8])[0] + 8


def output_in(data: bytes, fingerprint: str, source: str) -> tuple[OutputMetadata, tuple[int, int], bytes] | None:
    """The same for an output whose bytes are at hand."""
    mark = metadata_in(data)
    if mark is None or (mark.fingerprint, mark.source) != (fingerprint, source):
        return None
    size = size_of(data)
    return None if size is None else (mark, size, data)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, JPEG, WebP or JPEG XL that is whole; ``None`` for one that was cut short."""
    if data[:8] == PNG_MAGIC:
        found = png_header(data) if data[-8:-4] == b"IEND" else None
        return found and found[:2]
    if data[:3] == JPEG_MAGIC:
        found = jpeg_header(data) if data[-2:] == b"\xff\xd9" else None
        return found and found[:2]
    if _is_whole_webp(data) and data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    try:
        # A JPEG XL packs its size in bits: decoding it is the way that cannot go wrong.
        shape = imagecodecs.jpegxl_decode(data).shape
    except (RuntimeError, ValueError):
        return None
    return int(shape[1]), int(shape[0])
