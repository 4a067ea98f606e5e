"""Compressed grey frames of DICOM files, decoded by what comes with the package, whatever else is installed.

pydicom takes the first decoder that it finds, so that pixels of lossy files would depend on the machine. Here one
library (imagecodecs: libjpeg-turbo, CharLS, OpenJPEG, OpenJPH) decodes all, and pydicom's decoders are the fallback.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import imagecodecs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


_FAMILY: Final = "1.2.840.10008.1.2."


RLE: Final = f"{_FAMILY}5"


# Transfer syntax (PS3.5 10, A.4) -> decoders to try in turn; looked up when used, since builds leave some out.
_DECODERS: Final[Mapping[str, tuple[str, ...]]] = {
    f"{_FAMILY}4.50": ("jpeg8_decode", "jpeg_decode"),  # baseline, 8 bits
    f"{_FAMILY}4.51": ("jpeg_decode",),  # extended, 8 or 12 bits
    f"{_FAMILY}4.57": ("ljpeg_decode", "jpegsof3_decode"),  # lossless, process 14
    f"{_FAMILY}4.70": ("ljpeg_decode", "jpegsof3_decode"),  # lossless, process 14, selection value 1
    f"{_FAMILY}4.80": ("jpegls_decode",),
    f"{_FAMILY}4.81": ("jpegls_decode",),  # near-lossless
    f"{_FAMILY}4.90": ("jpeg2k_decode",),  # lossless only
    f"{_FAMILY}4.91": ("jpeg2k_decode",),
    f"{_FAMILY}4.201": ("htj2k_decode", "jpeg2k_decode"),  # lossless
    f"{_FAMILY}4.202": ("htj2k_decode", "jpeg2k_decode"),  # lossless, by resolution
    f"{_FAMILY}4.203": ("htj2k_decode", "jpeg2k_decode"),
}


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 codestream states; ``None`` where it states none."""
    if frame[:2] == b"\xff\xd8":
        found = jpeg_frame(frame)
        return found and found[:2]
    # SIZ follows SOC at once (ITU-T T.800 A.5.1); some writers put the boxes of a .jp2 file around them.
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(frame) < start + 24:
        return None
    x1, y1, x0, y0 = struct.unpack(">IIII", frame[start + 8 : start + 24])
    return x1 - x0, y1 - y0


def decode_frame(frame: bytes, syntax: str, rows: int, columns: int, allocated: int) -> NDArray[Any] | None:
    """The words of one grey frame (rows, columns), uint8 or uint16; signed samples come as the words that hold them.

    ``None`` when the syntax is unknown here, or this build of imagecodecs lacks its decoder. Raises ``ValueError`` with
    the decoder's own reason for a frame that is damaged, or no grey image of this size.
    """
    reason: Exception | None = None
    decoded = None
    if syntax == RLE:
        decoded = _run_lengths(frame, rows, columns, allocated)
    for name in _DECODERS.get(syntax, ()):
        try:
            # A codec that the build lacks is there by name, and raises ImportError when called.
            decoder: Callable[[bytes], Any] = getattr(imagecodecs, name)
            decoded = np.asarray(decoder(frame))
            break
        except (ImportError, AttributeError):
            continue
        except (RuntimeError, ValueError, TypeError, MemoryError, OverflowError) as error:
            reason = error
    if decoded is None:
        if reason is not None:
            raise ValueError(str(reason)) from reason
        return None
    if decoded.shape != (rows, columns) or decoded.dtype.itemsize > 2 or decoded.dtype.kind not in "iu":
        raise ValueError(f"decoded to {decoded.shape} of {decoded.dtype}, not to a grey image of {rows} rows")
    return decoded.view(np.uint8 if decoded.dtype.itemsize == 1 else np.uint16)


def _run_lengths(frame: bytes, rows: int, columns: int, allocated: int) -> NDArray[Any]:
    kind = np.dtype(np.uint8 if allocated == 8 else "<u2")
    size = rows * columns * kind.itemsize
    # Two bytes become at most 128, so that a shorter frame is no image of this size, whatever its header says.
    if len(frame) * 64 < size:
        raise ValueError(f"{len(frame)} bytes cannot hold {rows * columns} pixels")
    try:
        packed = imagecodecs.dicomrle_decode(frame, kind, out=bytearray(size + (size & 1)))
        return np.frombuffer(packed, kind, rows * columns).reshape(rows, columns)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


JPEG_MAGIC: Final = b"\xff\xd8\xff"


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels from a JPEG's or JPEG-LS's frame header (ITU-T T.81 B.2.2); ``None`` without one."""
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
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (width, height, data[at + 9]) if width else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
