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
from cxrprep.images import codec_headers, codecs
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.png_jpeg import BEHIND, check_limits, note_orientation
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits, Radiograph, check_frame, one_channel, radiograph_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_HINT: Final = "it may be damaged; fetch or copy it again"
_ERRORS: Final = (RuntimeError, ValueError, TypeError, IndexError, MemoryError, OverflowError, ImportError)
_TIFF: Final = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
# Tags of TIFF 6.0, and the two numbers that deflate has there.
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 259, 262, 274
_SUBFILE, _PART_OF_ANOTHER = 254, 0b101  # reduced, or a mask
_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES = 273, 279, 324, 325
_DEFLATE: Final = (8, 32946)
# Bytes of a value of each type; tags that name further directories, or JPEG tables of the old kind.
_TYPES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NESTED: Final = frozenset({330, 513, 34665, 34853})


def format_of(data: bytes) -> str:
    """JPEG 2000, HTJ2K, JPEG XL, WebP, BMP or TIFF by the first bytes; ``""`` for anything else."""
    if data[:4] in _TIFF:
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "BMP"
    found = codec_headers.codec_of(data)
    return found if found in (codec_headers.J2K, codec_headers.HTJ2K, codec_headers.JXL) else ""


def header(data: bytes) -> tuple[int, int, str] | None:
    """Width, height and format that the file states; ``None`` where that cannot be read."""
    kind = format_of(data)
    try:
        size = {"TIFF": _tiff_size, "WebP": _webp_size, "BMP": _bmp_size}.get(kind, codec_headers.frame_size)(data)
    except (struct.error, IndexError, KeyError):
        return None
    return None if size is None else (*size, kind)


def decode_file(data: bytes, name: str, limits: ImageLimits = DEFAULT_LIMITS, *, page: int | None = None) -> Radiograph:
    """The radiograph in a TIFF, BMP, WebP, JPEG 2000, JPEG XL or JPEG-LS file.

    Args:
        data: The bytes.
        name: The file's name, for errors.
        limits: Pixels and bytes beyond which it is refused.
        page: Counts from 1, and is needed for a file of several pages or frames; for one of one it says nothing.

    Returns:
        Its grey values.

    Raises:
        ImageError: Damaged data, a form that is not read, more than ``limits``, or several pages and none was named.
    """
    found = header(data)
    kind = format_of(data)
    if found is None:
        raise ImageError(f"{name}: the {kind} header cannot be read", hint=_HINT)
    check_limits(found[0], found[1], name, limits)
    notes: list[str] = []
    try:
        decoded, inverted = _tiff(data, name, page, notes) if kind == "TIFF" else (None, False)
        if decoded is None:
            decoded = _decoded(data, kind, name, page, notes)
    except _ERRORS as error:
        text = str(error) or type(error).__name__
        raise ImageError(f"{name}: the {kind} data cannot be decoded: {text}", hint=_HINT) from error
    if decoded.dtype == np.bool_:
        # As a PNG of one bit is read.
        decoded = decoded.astype(np.uint8) * np.uint8(255)
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
    picture = radiograph_of(pixels, bits, mode, GrayscaleRules(bits, bits - 1, inverted=inverted), notes)
    picture.codec = kind
    return picture


def _decoded(data: bytes, kind: str, name: str, page: int | None, notes: list[str]) -> NDArray[Any]:
    if kind == "WebP":
        return _webp(data, name, page, notes)
    if kind == "BMP":
        stated = int.from_bytes(data[2:6], "little")
        if stated > len(data):
            raise ValueError("the file is cut short")
        if 0 < stated < len(data):
            notes.append(BEHIND)
        return np.asarray(imagecodecs.bmp_decode(data, asrgb=True))
    if codec_headers.is_followed(data, kind):
        notes.append(BEHIND)
    if kind == codec_headers.JXL and (turned := codec_headers.jxl_orientation(data)) != 1:
        notes.append(f"JPEG XL orientation {turned} was not applied: pixels are as stored")
    decoded = codecs.decode_codestream(data, kind)
    width, height = codec_headers.frame_size(data) or (0, 0)
    if kind == codec_headers.JXL and decoded.shape[:2] != (height, width) == decoded.shape[1:3]:
        return np.asarray(decoded[check_frame(name, len(decoded), page) - 1])
    return decoded


def _webp(data: bytes, name: str, page: int | None, notes: list[str]) -> NDArray[Any]:
    stated = struct.unpack("<I", data[4:8])[0] + 8
    if stated > len(data):
        raise ValueError("the file is cut short")
    if stated + (stated & 1) < len(data):
        notes.append(BEHIND)
    frames, at = 0, 12
    while at + 8 <= stated:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        frames += kind == b"ANMF"
        if kind == b"EXIF":
            note_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"), notes)
        at += 8 + size + (size & 1)
    check_frame(name, max(1, frames), page, animated="WebP")
    decoded = np.asarray(imagecodecs.webp_decode(data, index=0))
    if decoded.shape[1::-1] != _webp_size(data):
        raise ValueError("its first frame does not fill the image")
    return decoded


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


def _offset_size(data: bytes) -> int:
    """Bytes of an offset: 8 in BigTIFF, whose counts and entries are wider too."""
    return 8 if data[2:4] in (b"+\0", b"\0+") else 4


def _directories(data: bytes) -> Iterator[int]:
    """Where each directory of a TIFF begins. Raises ``struct.error`` where one lies behind the end."""
    wide, order = _offset_size(data), _TIFF[data[:4]]
    offset, count = (order + "Q", order + "Q") if wide == 8 else (order + "I", order + "H")
    (at,) = struct.unpack(offset, data[wide : 2 * wide])
    seen: set[int] = set()
    # A chain that leads back into itself ends.
    while at and at not in seen:
        seen.add(at)
        (entries,) = struct.unpack(count, data[at : at + struct.calcsize(count)])
        yield at
        end = at + struct.calcsize(count) + (20 if wide == 8 else 12) * entries
        (at,) = struct.unpack(offset, data[end : end + wide])


def _entries(data: bytes, at: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Tag, type, count, place and bytes of each value of the directory at ``at`` (TIFF 6.0, section 2)."""
    wide, order = _offset_size(data), _TIFF[data[:4]]
    head, number, entry = ("Q", "HHQ", 20) if wide == 8 else ("H", "HHI", 12)
    first = at + struct.calcsize(order + head)
    (count,) = struct.unpack(order + head, data[at:first])
    for start in range(first, first + entry * count, entry):
        place = start + struct.calcsize(order + number)
        tag, kind, many = struct.unpack(order + number, data[start:place])
        size = many * _TYPES.get(kind, 0)
        if size > wide:
            (place,) = struct.unpack(order + ("Q" if wide == 8 else "I"), data[place : place + wide])
        yield tag, kind, many, place, size


def _tiff_tags(data: bytes, at: int) -> dict[int, tuple[int, ...]]:
    """The entries of the directory at ``at`` that are whole numbers of 16, 32 or 64 bits."""
    order, codes = _TIFF[data[:4]], {3: "H", 4: "I", 16: "Q"}
    return {
        tag: struct.unpack(f"{order}{many}{codes[kind]}", data[place : place + size])
        for tag, kind, many, place, size in _entries(data, at)
        if kind in codes and many
    }


def _is_tiff_followed(data: bytes) -> bool:
    """Whether bytes follow all that the directories name; not asked where directories lie within directories."""
    end = 0
    for at in _directories(data):
        tags = _tiff_tags(data, at)
        if _NESTED & tags.keys():
            return False
        strips = zip(*_strips(tags), strict=False)
        places = (place + max(size, _offset_size(data)) for _, _, _, place, size in _entries(data, at))
        end = max(end, at, *places, *map(sum, strips))
    # The number of the next directory, and a byte to an even length.
    return len(data) > end + _offset_size(data) + 1


def _strips(tags: dict[int, tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and sizes of the strips or tiles."""
    return (
        tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS, ()),
        tags.get(_TILE_SIZES) or tags.get(_STRIP_SIZES, ()),
    )


def _pages(data: bytes, notes: list[str]) -> list[tuple[int, dict[int, tuple[int, ...]]]]:
    """Number and entries of each directory that is an image of its own: no thumbnail, no mask (TIFF 6.0, section 8)."""
    found = []
    try:
        for number, at in enumerate(_directories(data)):
            tags = _tiff_tags(data, at)
            if not tags.get(_SUBFILE, (0,))[0] & _PART_OF_ANOTHER:
                found.append((number, tags))
    except struct.error:
        # Damage behind the first page takes nothing from it.
        if not found:
            raise
        notes.append("what follows the first page cannot be read")
    return found or [(0, _tiff_tags(data, next(_directories(data))))]


def _tiff_size(data: bytes) -> tuple[int, int]:
    tags = _tiff_tags(data, next(_directories(data)))
    return tags[_WIDTH][0], tags[_HEIGHT][0]


def _check_strips(tags: dict[int, tuple[int, ...]], data: bytes) -> None:
    """Raise ``ValueError`` for a deflated strip or tile without its end or its checksum: libtiff passes over that."""
    for start, size in zip(*_strips(tags), strict=True):
        stream = zlib.decompressobj()
        try:
            stream.decompress(data[start : start + size])
        except zlib.error as error:
            raise ValueError(f"a strip is damaged: {error}") from error
        if not stream.eof:
            raise ValueError("a strip is cut short")


def _tiff(data: bytes, name: str, page: int | None, notes: list[str]) -> tuple[NDArray[Any], bool]:
    """The samples of a page, and whether 0 is white there."""
    pages = _pages(data, notes)
    if not notes and _is_tiff_followed(data):
        notes.append(BEHIND)
    number, tags = pages[check_frame(name, len(pages), page) - 1]
    turned = tags.get(_ORIENTATION, (1,))[0]
    if turned != 1:
        notes.append(f"TIFF orientation {turned} was not applied: pixels are as stored")
    if tags.get(_COMPRESSION, (1,))[0] in _DEFLATE:
        _check_strips(tags, data)
    decoded = np.asarray(imagecodecs.tiff_decode(data, number, asrgb=tags.get(_PHOTOMETRIC) == (3,)))
    return decoded, decoded.ndim == 2 and tags.get(_PHOTOMETRIC) == (0,)
