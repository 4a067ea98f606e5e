"""Headers of compressed pixels: which codec, size, orientation and end a codestream states, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAMILY: Final = "1.2.840.10008.1.2."
JPEG_MAGIC: Final = b"\xff\xd8\xff"
END_OF_JPEG: Final = b"\xff\xd9"
_CODESTREAM: Final = b"\xff\x4f\xff\x51"  # SOC and SIZ, ITU-T T.800 A.4
_JP2_BOX: Final = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_JXL_BOX: Final = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_JXL_CODESTREAM: Final = b"\xff\x0a"
_BOXES: Final = 4096  # where a codestream begins at the latest behind the boxes of a file

JPEG, LOSSLESS, LS, J2K, HTJ2K, JXL = "JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "JPEG XL"
RLE, DEFLATED, PLAIN = "RLE", "deflated frames", "encapsulated uncompressed"
# Transfer syntax (PS3.5 10 and A.4) -> the codec that it states.
_STATED: Final[Mapping[str, str]] = {
    **{f"{_FAMILY}4.{number}": JPEG for number in (50, 51, 52, 53, 54, 55, 56, 59, 60, 61, 62, 63, 64)},
    **{f"{_FAMILY}4.{number}": LOSSLESS for number in (57, 58, 65, 66, 70)},
    **{f"{_FAMILY}4.{number}": LS for number in (80, 81)},
    **{f"{_FAMILY}4.{number}": J2K for number in (90, 91, 92, 93)},
    **{f"{_FAMILY}4.{number}": HTJ2K for number in (201, 202, 203)},
    **{f"{_FAMILY}4.{number}": JXL for number in (110, 111, 112)},
    f"{_FAMILY}5": RLE,
    f"{_FAMILY}8.1": DEFLATED,
    f"{_FAMILY}1.98": PLAIN,
}


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG or JPEG-LS (ITU-T T.81 B.2.2): ``marker`` is its process, ``at`` its place."""

    width: int
    height: int
    channels: int
    precision: int
    marker: int
    at: int

    @property
    def codec(self) -> str:
        """JPEG, JPEG lossless or JPEG-LS."""
        return {0xC3: LOSSLESS, 0xF7: LS}.get(self.marker, JPEG)


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The frame header of a JPEG or JPEG-LS; ``None`` without one."""
    if data[:2] != JPEG_MAGIC[:2]:
        return None
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0x01, *range(0xD0, 0xD9)):
            at += 2
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return JpegFrame(width, height, channels, precision, marker, at) if width else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def stated_codec(syntax: str) -> str:
    """The codec that a transfer syntax stands for; ``""`` for plain words and for syntaxes that are not known here."""
    return _STATED.get(str(syntax), "")


def codec_of(data: bytes) -> str:
    """The codec of a codestream, or of a file that is little more than one, by its first bytes; ``""`` for unknown."""
    if data[:2] == JPEG_MAGIC[:2]:
        found = jpeg_frame(data)
        return JPEG if found is None else found.codec
    if data[:4] == _CODESTREAM or data[:12] == _JP2_BOX:
        start = max(0, data.find(_CODESTREAM, 0, _BOXES))
        # CAP (T.800 A.5.2) comes in codestreams with block coders of other parts, of which HTJ2K is the one in use.
        return HTJ2K if b"\xff\x50" in data[start : start + 256] else J2K
    return JXL if data[:2] == _JXL_CODESTREAM or data[:12] == _JXL_BOX else ""


def frame_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS, JPEG 2000 or JPEG XL states; ``None`` where it states none."""
    if data[:2] == JPEG_MAGIC[:2]:
        found = jpeg_frame(data)
        return None if found is None else (found.width, found.height)
    if data[:2] == _JXL_CODESTREAM or data[:12] == _JXL_BOX:
        start = data.find(_JXL_CODESTREAM, 0, _BOXES)
        return None if start < 0 else _jxl_header(data[start + 2 : start + 18])[:2]
    # SIZ follows SOC at once (ITU-T T.800 A.5.1); some writers put the boxes of a .jp2 file around them.
    start = data.find(_CODESTREAM, 0, _BOXES)
    if start < 0 or len(data) < start + 24:
        return None
    x1, y1, x0, y0 = struct.unpack(">IIII", data[start + 8 : start + 24])
    return x1 - x0, y1 - y0


def _jxl_header(head: bytes) -> tuple[int, int, int]:
    """Width, height and orientation (as EXIF counts them) of a JPEG XL codestream (ISO/IEC 18181-1 annex D)."""
    bits, at = int.from_bytes(head, "little"), 0

    def take(count: int) -> int:
        nonlocal at
        value = (bits >> at) & ((1 << count) - 1)
        at += count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    across, down = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    width = height * across // down if ratio else side()
    has_extra = not take(1) and take(1)
    return width, height, take(3) + 1 if has_extra else 1


def jxl_orientation(data: bytes) -> int:
    """The orientation that a JPEG XL states, as EXIF counts them: 1 is upright."""
    start = data.find(_JXL_CODESTREAM, 0, _BOXES)
    return _jxl_header(data[start + 2 : start + 18])[2]


def bytes_behind(data: bytes, *, padded: bool = False) -> int:
    """How many bytes follow the end of a JPEG or JPEG-LS; ``padded``: one more to an even length does not count."""
    found = jpeg_frame(data)
    # An image within an APP segment, or behind this one, has an end of its own; coded data never looks like one.
    end = -1 if found is None else data.find(END_OF_JPEG, max(found.at, data.find(b"\xff\xda", found.at)))
    behind = 0 if end < 0 else len(data) - end - 2
    return 0 if padded and behind == 1 else behind


def is_followed(data: bytes, codec: str, *, padded: bool = False) -> bool:
    """Whether bytes follow the end of an image, as far as its format tells where that is.

    Args:
        data: The codestream, or the file around it.
        codec: JPEG, JPEG lossless, JPEG-LS, JPEG 2000, HTJ2K or JPEG XL.
        padded: Whether one byte more, to an even length, does not count.
    """
    if codec in (JPEG, LOSSLESS, LS):
        return bytes_behind(data, padded=padded) > 0
    if data[:12] in (_JP2_BOX, _JXL_BOX):
        return _is_boxes_followed(data, padded=padded)
    if codec in (J2K, HTJ2K):
        end = end_of_tile_parts(data)
        return end is not None and len(data) - end > padded
    # The end of a bare JPEG XL is known to its decoder alone, whose coder ends in no such stretch of zeros.
    return codec == JXL and data.endswith(bytes(12))


def _is_boxes_followed(data: bytes, *, padded: bool) -> bool:
    """Whether something follows the boxes (ISO/IEC 15444-1 annex I) of a file that is no box."""
    at = 0
    while at + 8 <= len(data) and data[at + 4 : at + 8].decode("latin-1").isprintable():
        length, first = int.from_bytes(data[at : at + 4], "big"), 8
        if length == 1:
            length, first = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if length == 0:  # up to the end of the file
            end = end_of_tile_parts(data) if data[at + 4 : at + 8] == b"jp2c" else None
            return end is not None and len(data) - end > padded
        if length < first or at + length > len(data):
            break
        at += length
    return len(data) - at > padded


def end_of_tile_parts(data: bytes) -> int | None:
    """Where a JPEG 2000 codestream ends, behind EOC; ``None`` where its last tile-part states no length.

    Raises ``ValueError`` for tile-parts whose lengths (Psot, ITU-T T.800 A.4.2) lead past the end or to no marker.
    """
    at = data.find(_CODESTREAM, 0, _BOXES)
    at = -1 if at < 0 else at + 2
    while at >= 0 and at + 4 <= len(data) and data[at : at + 2] != b"\xff\x90":
        if data[at] != 0xFF:
            raise ValueError("the main header is damaged")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while at >= 0 and data[at : at + 2] == b"\xff\x90" and at + 12 <= len(data):
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        if length == 0:  # the last one, up to the end
            return None
        if length < 14 or at + length > len(data):
            raise ValueError("the codestream is cut short")
        at += length
        if data[at : at + 2] not in (b"\xff\x90", b"\xff\xd9", b"") and data[at:].strip(b"\0"):
            raise ValueError("a tile-part does not end where it says")
    return at + 2 if at >= 0 and data[at : at + 2] == b"\xff\xd9" else None
