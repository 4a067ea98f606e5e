"""Image files that are neither PNG, JPEG nor DICOM: JPEG 2000, JPEG XL, JPEG-LS, WebP, BMP and TIFF.

Read by imagecodecs (OpenJPEG, libjxl, libwebp, libtiff), which raises where a file is damaged and prints nothing.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import imagecodecs
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images import codecs
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.png_jpeg import BEHIND, check_limits
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits, Radiograph, one_channel, radiograph_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HINT: Final = "it may be damaged; fetch or copy it again"
_ERRORS: Final = (RuntimeError, ValueError, TypeError, IndexError, MemoryError, OverflowError, ImportError)
_TIFF: Final = {b"II*\0": "<", b"MM\0*": ">"}
# Tags of TIFF 6.0, and the two numbers that deflate has there.
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 259, 262, 274
_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 273, 279, 324, 325
_DEFLATE: Final = (8, 32946)


def format_of(data: bytes) -> str:
    """JPEG 2000, HTJ2K, JPEG XL, WebP, BMP or TIFF by the first bytes; ``""`` for anything else."""
    if data[:4] in _TIFF:
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "BMP"
    found = codecs.codec_of(data)
    return found if found in (codecs.J2K, codecs.HTJ2K, codecs.JXL) else ""


def header(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and format that the file states; ``None`` where that cannot be read."""
    kind = format_of(data)
    try:
        size = {"TIFF": _tiff_size, "WebP": _webp_size, "BMP": _bmp_size}.get(kind, codecs.frame_size)(data)
    except (struct.error, IndexError, KeyError):
        return None
    return None if size is None else (*size, kind)


def decode_file(data: bytes, name: str, limits: ImageLimits = DEFAULT_LIMITS, *, page: int = 1) -> Radiograph:
    """The radiograph in a TIFF, BMP, WebP, JPEG 2000, JPEG XL or JPEG-LS file.

    Args:
        data: The bytes.
        name: The file's name, for errors.
        limits: Pixels and bytes beyond which it is refused.
        page: Counts from 1, for a TIFF of several; for one of one it says nothing.

    Returns:
        Its grey values.

    Raises:
        ImageError: Damaged data, a form that is not read, or more than ``limits``.
    """
    found = header(data)
    kind = format_of(data)
    if found is None:
        raise ImageError(f"{name}: the {kind} header cannot be read", hint=_HINT)
    check_limits(found[0], found[1], name, limits)
    notes: list[str] = []
    try:
        decoded = _decoded(data, kind, page, notes)
    except _ERRORS as error:
        text = str(error) or type(error).__name__
        raise ImageError(f"{name}: the {kind} data cannot be decoded: {text}", hint=_HINT) from error
    # imagecodecs gives RGB, one_channel takes OpenCV's order.
    if decoded.ndim == 3 and decoded.shape[2] >= 3:
        decoded = decoded[:, :, [2, 1, 0, *range(3, decoded.shape[2])]]
    pixels = one_channel(decoded, notes)
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{name}: {kind} with samples of {pixels.dtype}", hint="a radiograph has whole numbers of 8 or 16 bits"
        )
    bits = pixels.dtype.itemsize * 8
    mode = ("L" if decoded.ndim == 2 else "RGB") + (";16" if bits == 16 else "")
    inverted = kind == "TIFF" and decoded.ndim == 2 and _tiff_tags(data).get(_PHOTOMETRIC) == (0,)
    picture = radiograph_of(pixels, bits, mode, GrayscaleRules(bits, bits - 1, inverted=inverted), notes)
    picture.codec = kind
    return picture


def _decoded(data: bytes, kind: str, page: int, notes: list[str]) -> NDArray[Any]:
    if kind == "TIFF":
        return _tiff(data, page, notes)
    if kind == "WebP":
        stated = struct.unpack("<I", data[4:8])[0] + 8
        if stated > len(data):
            raise ValueError("the file is cut short")
        if stated + (stated & 1) < len(data):
            notes.append(BEHIND)
        return np.asarray(imagecodecs.webp_decode(data))
    if kind == "BMP":
        if int.from_bytes(data[2:6], "little") > len(data):
            raise ValueError("the file is cut short")
        return np.asarray(imagecodecs.bmp_decode(data, asrgb=True))
    return codecs.decode_codestream(data, kind)


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649, sections 2.5 to 2.7."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _bmp_size(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[14:18], "little") == 12:
        width, height = struct.unpack("<HH", data[18:22])
        return width, height
    width, height = struct.unpack("<ii", data[18:26])
    return width, abs(height)


def _tiff_tags(data: bytes, page: int = 1) -> dict[int, tuple[int, ...]]:
    """The entries of one directory that are whole numbers of 16 or 32 bits (TIFF 6.0, section 2)."""
    order = _TIFF[data[:4]]
    (at,) = struct.unpack(order + "I", data[4:8])
    for here in range(1, page):
        (count,) = struct.unpack(order + "H", data[at : at + 2])
        (at,) = struct.unpack(order + "I", data[at + 2 + 12 * count : at + 6 + 12 * count])
        if not at:
            raise ValueError(f"there is no page {page}, it has {here}")
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    tags = {}
    for start in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, many = struct.unpack(order + "HHI", data[start : start + 8])
        code = {3: "H", 4: "I"}.get(kind)
        if code is None or not many:
            continue
        size = struct.calcsize(order + code) * many
        place = start + 8
        if size > 4:
            (place,) = struct.unpack(order + "I", data[place : place + 4])
        tags[tag] = struct.unpack(f"{order}{many}{code}", data[place : place + size])
    return tags


def _has_pages(data: bytes) -> bool:
    try:
        return bool(_tiff_tags(data, 2))
    except ValueError:
        return False


def _tiff_size(data: bytes) -> tuple[int, int]:
    tags = _tiff_tags(data)
    return tags[_WIDTH][0], tags[_HEIGHT][0]


def _check_strips(tags: dict[int, tuple[int, ...]], data: bytes) -> None:
    """Raise ``ValueError`` for a deflated strip or tile without its end or its checksum: libtiff passes over that."""
    offsets = tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS, ())
    sizes = tags.get(_TILE_SIZES) or tags.get(_STRIP_SIZES, ())
    for start, size in zip(offsets, sizes, strict=True):
        stream = zlib.decompressobj()
        try:
            stream.decompress(data[start : start + size])
        except zlib.error as error:
            raise ValueError(f"a strip is damaged: {error}") from error
        if not stream.eof:
            raise ValueError("a strip is cut short")


def _tiff(data: bytes, page: int, notes: list[str]) -> NDArray[Any]:
    page = page if page > 1 and _has_pages(data) else 1
    tags = _tiff_tags(data, page)
    turned = tags.get(_ORIENTATION, (1,))[0]
    if turned != 1:
        notes.append(f"TIFF orientation {turned} was not applied: pixels are as stored")
    if tags.get(_COMPRESSION, (1,))[0] in _DEFLATE:
        _check_strips(tags, data)
    return np.asarray(imagecodecs.tiff_decode(data, page - 1, asrgb=tags.get(_PHOTOMETRIC) == (3,)))
