"""PNG and JPEG files as pictures: one channel, orientation as stored, damage refused.

Grey comes from one channel where all are equal, else from luma (ITU-R BT.601); gamma chunks are ignored. EXIF
orientation is ignored on purpose: labels and boxes refer to the pixels as released.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.errors import IMAGE_AGAIN, ImageError
from cxrprep.images import codec_headers, codecs
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.radiograph import (
    DEFAULT_LIMITS,
    CoordinateMap,
    ImageLimits,
    Radiograph,
    check_frame,
    one_channel,
    radiograph_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cxrprep.images.codec_headers import JpegFrame


PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_MODES: Final = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_ORIENTATION: Final = 0x0112  # EXIF 2.32, 4.6.4
BEHIND: Final = "bytes follow the end of the image"


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
    found = codec_headers.jpeg_frame(data)
    if found is None:
        return None
    mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(found.channels, f"{found.channels} channels")
    return found.width, found.height, mode if found.precision == 8 else f"{mode};{found.precision}"


def _whole_png(data: bytes, name: str, frame: int | None, notes: list[str]) -> bytes:
    """A PNG up to its end, all of whose chunks are unaltered. Raises ``ImageError`` that names the chunk.

    A decoder may give a partial image for a file cut short; this walk does not.
    """
    at, kinds = 8, set()
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
            raise ImageError(f"{name}: PNG chunk {kind.decode('latin-1')!r} at byte {at} is altered", hint=IMAGE_AGAIN)
        kinds.add(kind)
        if kind == b"acTL":
            check_frame(name, int.from_bytes(data[at + 8 : at + 12], "big"), frame, animated="PNG")
        if kind == b"eXIf":
            note_orientation(data[at + 8 : end - 4], notes)
        at = end
        if kind == b"IEND":
            break
    if b"IEND" not in kinds:
        raise ImageError(f"{name}: PNG cut short after {len(data):,} bytes", hint=IMAGE_AGAIN)
    if b"IDAT" not in kinds:
        raise ImageError(f"{name}: PNG without image data", hint=IMAGE_AGAIN)
    if at < len(data):
        notes.append(BEHIND)
    return data[:at]


def note_orientation(exif: bytes, notes: list[str]) -> None:
    """Note an EXIF orientation other than upright: pixels stay as stored, since labels and boxes refer to those."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return
    (at,) = struct.unpack(order + "I", exif[4:8])
    (count,) = struct.unpack(order + "H", exif[at : at + 2]) if at + 2 <= len(exif) else (0,)
    for start in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack(order + "HHIH", exif[start : start + 10])
        if tag == _ORIENTATION and 2 <= value <= 8:
            notes.append(f"EXIF orientation {value} was not applied: pixels are as stored")
            return


def _jpeg_notes(data: bytes, start: int, notes: list[str]) -> None:
    """What surrounds the image: an EXIF orientation before the frame header at ``start``, bytes behind the end."""
    exif = data.find(b"Exif\0\0", 0, start)
    if exif >= 0:
        note_orientation(data[exif + 6 : start], notes)
    if codec_headers.bytes_behind(data):
        notes.append(BEHIND)


def decode_raster(
    data: bytes,
    name: str,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    reduce: Callable[[int, int], int] | None = None,
    frame: int | None = None,
) -> Radiograph:
    """The radiograph in a PNG or JPEG file.

    Args:
        data: the file.
        name: what errors call it.
        limits: more pixels than these are refused before they are decoded.
        reduce: says for a width and a height how many times smaller (1, 2, 4, 8) a grey JPEG may be decoded: libjpeg
            then leaves out high frequencies instead of averaging. The coordinate map knows of it.
        frame: of an animated PNG, from 1; only the first one is read.

    Returns:
        The grey values of the file.

    Raises:
        ImageError: for damage, other formats and images past ``limits``.
    """
    kind = "PNG" if data[:8] == PNG_MAGIC else "JPEG"
    header = png_header(data) if kind == "PNG" else jpeg_header(data)
    if header is None:
        raise ImageError(f"{name} is neither PNG nor JPEG", hint="check what the file is; its name may be wrong")
    width, height, mode = header
    check_limits(width, height, name, limits)
    notes: list[str] = []
    found = codec_headers.jpeg_frame(data)
    small = reduce is not None and found is not None and mode == "L" and found.codec == codec_headers.JPEG
    factor = reduce(width, height) if small and reduce is not None else 1
    try:
        decoded = _decoded_png(data, name, frame, notes) if found is None else _decoded_jpeg(data, found, factor, notes)
    except (ValueError, ImportError, cv2.error) as error:
        raise _undecodable(kind, name, data, str(error)) from error
    pixels = one_channel(decoded, notes)
    if pixels.shape != (height // factor, width // factor):
        raise ImageError(
            f"{name}: decoded to {pixels.shape[1]} x {pixels.shape[0]}, the header says {width} x {height}"
        )
    bits = 16 if pixels.dtype == np.uint16 else 8
    # 12 bits lie in 16: the range of the header is what they mean.
    stored = bits if found is None else max(8, found.precision)
    picture = radiograph_of(pixels, stored, mode, GrayscaleRules(stored, stored - 1), notes)
    picture.codec = kind if found is None else found.codec
    if factor > 1:
        picture.frame = CoordinateMap.whole(width, height).scaled(1 / factor, 1 / factor)
    return picture


def check_limits(width: int, height: int, name: str, limits: ImageLimits) -> None:
    """Refuse an image of more pixels than ``limits`` allow.

    Args:
        width: In pixels.
        height: In pixels.
        name: The file's name, for the error.
        limits: What is allowed.

    Raises:
        ImageError: It has more.
    """
    if width * height > limits.pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {limits.pixels:,}",
            hint="raise it with --max-pixels when the file is genuine",
        )


def _decoded_png(data: bytes, name: str, frame: int | None, notes: list[str]) -> NDArray[Any]:
    decoded = codecs.decode_png(_whole_png(data, name, frame, notes), notes)
    # RGB comes, one_channel takes OpenCV's order.
    return (
        decoded if decoded.ndim == 2 or decoded.shape[2] < 3 else decoded[:, :, [2, 1, 0, *range(3, decoded.shape[2])]]
    )


def _decoded_jpeg(data: bytes, found: JpegFrame, factor: int, notes: list[str]) -> NDArray[Any]:
    _jpeg_notes(data, found.at, notes)
    if found.codec == codec_headers.LS:
        return codecs.decode_codestream(data, codec_headers.LS)
    if found.channels == 4:
        # libjpeg-turbo has no way from CMYK to grey; OpenCV's is its own.
        codecs.check_four_channels(data)
        return np.asarray(
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        )
    return codecs.decode_jpeg(data, found, smaller=factor)


def _undecodable(kind: str, name: str, data: bytes, reason: str) -> ImageError:
    """What a decoder's complaint means; a file that ends too early is told from one that is altered."""
    if "premature end of jpeg file" in reason.lower():
        return ImageError(f"{name}: JPEG cut short after {len(data):,} bytes", hint=IMAGE_AGAIN)
    return ImageError(f"{name}: the {kind} data cannot be decoded: {reason}", hint=IMAGE_AGAIN)
