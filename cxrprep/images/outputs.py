"""Outputs that are there already: whether one is whole, what it was made from, and its size."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import imagecodecs

from cxrprep.errors import ImageError
from cxrprep.images.encode import mark_in
from cxrprep.images.raster import JPEG_MAGIC, PNG_MAGIC, jpeg_header, png_header

if TYPE_CHECKING:
    from cxrprep.images.encode import Mark
    from cxrprep.images.places import Place

_HEAD: Final = 8192


def read_output(place: Place, path: str, fingerprint: str, source: str) -> tuple[Mark, tuple[int, int], bytes] | None:
    """The mark, size and bytes of the output at ``path``, if it was made by that recipe from that source.

    ``None`` for what may be made anew: nothing there, another recipe, another source, an output that was cut short.
    Raises ``ImageError`` for a file without a mark: it may be somebody's only copy.
    """
    head = place.head(path, _HEAD)
    if not head:
        return None
    if head[:4] != b"RIFF":
        # Nearly always the answer, without the rest of the file. Zeros may be ours: what a power cut leaves.
        mark = mark_in(head)
        if mark is None and head.strip(b"\0"):
            raise _foreign(place, path)
        if mark is None or (mark.fingerprint, mark.source) != (fingerprint, source):
            return None
    try:
        data = place.read(path)
    except ImageError:
        return None
    if _is_whole_webp(data) and mark_in(data) is None:
        raise _foreign(place, path)
    return output_in(data, fingerprint, source)


def _foreign(place: Place, path: str) -> ImageError:
    return ImageError(
        f"{place.full(path)} is here already, and no conversion wrote it",
        hint="name another folder with --out, or move it away",
    )


def _is_whole_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and len(data) == struct.unpack("<I", data[4:8])[0] + 8


def output_in(data: bytes, fingerprint: str, source: str) -> tuple[Mark, tuple[int, int], bytes] | None:
    """The same for an output whose bytes are at hand."""
    mark = mark_in(data)
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
