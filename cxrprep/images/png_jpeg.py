"""PNG and JPEG files as pictures: one channel, orientation as stored, damage refused.

Grey comes from one channel where all are equal, else from luma (ITU-R BT.601); gamma chunks are ignored. EXIF
orientation is ignored on purpose: labels and boxes refer to the pixels as released.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images.codecs import jpeg_frame
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.radiograph import DEFAULT_LIMITS, CoordinateMap, Limits, Radiograph, one_channel, radiograph_of

if TYPE_CHECKING:
    from collections.abc import Callable


PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


_PNG_MODES: Final = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


_HINT: Final = "fetch the file again: cxrprep verify ROOT --repair"


def png_header(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and mode from the first 33 bytes of a PNG (PNG specification, IHDR); ``None`` for anything else."""
    if len(data) < 26 or data[:8] != PNG_MAGIC or data[12:16] != b"IHDR":
        return None
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    mode = _PNG_MODES.get(colour)
    if mode is None or not width or not height:
        return None
    if depth == 16:
        mode = "I;16" if mode == "L" else f"{mode};16"
    elif depth < 8 and mode == "L":
        mode = f"L;{depth}"
    return width, height, mode


def jpeg_header(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and mode from a JPEG's frame header; ``None`` when there is none in ``data``."""
    found = jpeg_frame(data)
    if found is None:
        return None
    width, height, channels = found
    return width, height, {1: "L", 3: "RGB", 4: "CMYK"}.get(channels, f"{channels} channels")


def _check_png(data: bytes, name: str) -> None:
    """Walk the chunks: a decoder may give a partial image for a file cut short; this does not."""
    at, ended = 8, False
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
            raise ImageError(f"{name}: PNG chunk {kind.decode('latin-1')!r} at byte {at} is altered", hint=_HINT)
        at = end
        if kind == b"IEND":
            ended = True
            break
    if not ended:
        raise ImageError(f"{name}: PNG cut short after {len(data):,} bytes", hint=_HINT)


def _check_jpeg(data: bytes, name: str) -> None:
    if b"\xff\xd9" not in data[-4096:]:
        raise ImageError(f"{name}: JPEG cut short after {len(data):,} bytes", hint=_HINT)


_REDUCED: Final = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_raster(
    data: bytes, name: str, limits: Limits = DEFAULT_LIMITS, *, reduce: Callable[[int, int], int] | None = None
) -> Radiograph:
    """The picture in a PNG or JPEG file. Raises ``ImageError`` for damage, other formats and images past ``limits``.

    ``reduce`` says for a width and a height how many times smaller (1, 2, 4, 8) a grey JPEG may be decoded: libjpeg
    then leaves out high frequencies instead of averaging. CoordinateMap and ``spaced`` know of it.
    """
    if data[:8] == PNG_MAGIC:
        header, kind = png_header(data), "PNG"
        _check_png(data, name)
    else:
        header, kind = jpeg_header(data), "JPEG"
        if header is not None:
            _check_jpeg(data, name)
    if header is None:
        raise ImageError(f"{name} is neither PNG nor JPEG", hint="check what the file is; its name may be wrong")
    width, height, mode = header
    if width * height > limits.pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {limits.pixels:,}",
            hint="raise it with --max-pixels when the file is genuine",
        )
    factor = reduce(width, height) if reduce is not None and kind == "JPEG" and mode == "L" else 1
    how = _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION if factor > 1 else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise ImageError(f"{name}: the {kind} data cannot be decoded: {error.err}", hint=_HINT) from error
    if decoded is None:
        raise ImageError(f"{name}: the {kind} data cannot be decoded", hint=_HINT)
    notes: list[str] = []
    pixels = one_channel(decoded, notes)
    if pixels.shape != (height // factor, width // factor):
        raise ImageError(
            f"{name}: decoded to {pixels.shape[1]} x {pixels.shape[0]}, the header says {width} x {height}"
        )
    bits = 16 if pixels.dtype == np.uint16 else 8
    picture = radiograph_of(pixels, bits, mode, GrayscaleRules(bits, bits - 1), notes)
    if factor > 1:
        picture.frame = CoordinateMap.whole(width, height).scaled(1 / factor, 1 / factor)
    return picture
