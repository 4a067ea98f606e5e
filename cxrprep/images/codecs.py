"""Strict decoders of lossy and lossless compression: JPEG, JPEG-LS, JPEG 2000, JPEG XL, RLE, deflate; and of frames.

A decoder that repairs what it reads turns a damaged file into a grey half of a radiograph, which nobody notices before
a model has learned it. So each codec is read by a library that refuses: libjpeg-turbo with warnings as errors
(simplejpeg), CharLS, OpenJPEG, libjxl and libtiff through imagecodecs, none of which prints. pydicom takes the first
decoder that it finds, so that pixels of lossy files would depend on the machine; here they do not.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import imagecodecs
import numpy as np
import simplejpeg

from cxrprep.images.codec_headers import (
    DEFLATED,
    END_OF_JPEG,
    HTJ2K,
    J2K,
    JPEG,
    JXL,
    LOSSLESS,
    LS,
    PLAIN,
    RLE,
    JpegFrame,
    codec_of,
    end_of_tile_parts,
    is_followed,
    jpeg_frame,
    stated_codec,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_INFLATED: Final = 1 << 20  # bytes that are inflated at a time where nobody keeps them
_ERRORS: Final = (RuntimeError, ValueError, TypeError, IndexError, MemoryError, OverflowError, EOFError)


class _Heard(logging.Filter):
    """What imagecodecs would log on a terminal: nothing is printed, and what is said of pixels is kept by thread."""

    said = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the words, let nothing through."""
        self.said.text = f"{getattr(self.said, 'text', '')}\n{record.getMessage()}"[-2000:]
        return False


logging.getLogger("imagecodecs").addFilter(_Heard())


class FrameShape(NamedTuple):
    """What a DICOM header states of one grey frame: height and width in pixels, bits of a word (8 or 16)."""

    rows: int
    columns: int
    allocated: int


# ---- JPEG ----


def decode_jpeg(data: bytes, found: JpegFrame, *, smaller: int = 1) -> NDArray[Any]:
    """The pixels of a JPEG that is not JPEG-LS: (rows, columns) grey or (rows, columns, 3) as BGR; 8 to 16 bits.

    Args:
        data: the whole codestream.
        found: its frame header.
        smaller: 1, 2, 4 or 8: decode this many times smaller; 8 bits only.

    Raises:
        ValueError: with libjpeg-turbo's reason, also for what it only warns of and then repairs.
    """
    if found.precision == 8 and found.codec == JPEG and found.channels in (1, 3):
        sides = {"min_height": found.height // smaller, "min_width": found.width // smaller} if smaller > 1 else {}
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(
            data, colorspace="GRAY" if found.channels == 1 else "BGR", **sides
        )
        return pixels[:, :, 0] if found.channels == 1 else pixels
    if found.channels == 1:
        # simplejpeg reads 8 bits alone, but the entropy code does not depend on the precision: a copy that states
        # 8 bits is decoded strictly and thrown away, then the file is decoded for its pixels.
        simplejpeg.decode_jpeg(_as_eight_bits(data, found), colorspace="GRAY")
    names = ("ljpeg_decode", "jpegsof3_decode", "jpeg8_decode") if found.codec == LOSSLESS else ("jpeg_decode",)
    decoded = _first_of(names, data)
    if decoded is None:
        raise ValueError(f"JPEG of {found.precision} bits: this build of imagecodecs has no decoder for it")
    return decoded[:, :, ::-1] if decoded.ndim == 3 and decoded.shape[2] == 3 else decoded


def check_four_channels(data: bytes) -> None:
    """Raise ``ValueError`` for a damaged JPEG in CMYK or YCCK, by the same entropy code read as CMYK."""
    simplejpeg.decode_jpeg(data, colorspace="CMYK")


def _as_eight_bits(data: bytes, found: JpegFrame) -> bytes:
    copy = bytearray(data)
    copy[found.at + 4] = 8
    at = found.at + 2 + int.from_bytes(data[found.at + 2 : found.at + 4], "big")
    # Ss, Se, Ah and Al of a sequential scan say nothing; writers that leave zeros there would be refused for it.
    while found.marker in (0xC0, 0xC1) and at + 4 < len(data) and data[at] == 0xFF:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            copy[at + length - 1 : at + length + 2] = b"\x00\x3f\x00"
            break
        at += 2 + length
    return bytes(copy)


# ---- the other codecs ----


def decode_png(data: bytes, notes: list[str]) -> NDArray[Any]:
    """The samples of a PNG, (rows, columns) or (rows, columns, channels) as RGB. Raises ``ValueError``."""
    _Heard.said.text = ""
    decoded = _first_of(("png_decode",), data)
    if decoded is None:
        raise ImportError("this build of imagecodecs has no decoder for PNG")
    said = _Heard.said.text
    if "IDAT" in said or "Extra compressed data" in said:
        # libpng stops at the last row: whether the stream was right up to there, its checksum says. One that goes on
        # and on, past what any image of this size needs, is not followed.
        if "Too much image data" not in said:
            _check_png_stream(data)
        notes.append("bytes follow the compressed pixels")
    return decoded


def _check_png_stream(data: bytes) -> None:
    packed, at = zlib.decompressobj(), 8
    try:
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            if data[at + 4 : at + 8] == b"IDAT" and not packed.eof:
                left = data[at + 8 : end - 4]
                while left and not packed.eof:
                    packed.decompress(left, _INFLATED)
                    left = packed.unconsumed_tail
            at = end
    except zlib.error as error:
        raise ValueError(f"the compressed pixels are damaged: {error}") from error
    if not packed.eof:
        raise ValueError("the compressed pixels do not end where they should")


def decode_codestream(data: bytes, codec: str) -> NDArray[Any]:
    """The samples of a JPEG-LS, JPEG 2000, HTJ2K or JPEG XL, as they are stored.

    Raises:
        ValueError: with the decoder's own reason.
        ImportError: where this build of imagecodecs lacks the decoder.
    """
    if codec in (J2K, HTJ2K):
        end_of_tile_parts(data)
    if codec == LS and END_OF_JPEG not in data[max(0, data.find(b"\xff\xda")) :]:
        # CharLS finds this out too, after 15 seconds for an image of 240 x 200 pixels.
        raise ValueError("the image is cut short: it has no end mark")
    # OpenJPEG for HTJ2K too: it takes twice as long as OpenJPH, whose binding gives half an image without an error.
    names = {LS: "jpegls_decode", JXL: "jpegxl_decode"}.get(codec, "jpeg2k_decode")
    # Labels and boxes refer to pixels as stored, not as a viewer turns them.
    decoded = _first_of((names,), data, **({"keeporientation": True} if codec == JXL else {}))
    if decoded is None:
        raise ImportError(f"this build of imagecodecs has no decoder for {codec}")
    return decoded


def _first_of(names: tuple[str, ...], data: bytes, **options: bool) -> NDArray[Any] | None:
    """What the first decoder makes that is there and reads it; ``None`` when none is there. Raises ``ValueError``."""
    reason: Exception | None = None
    for name in names:
        try:
            # A codec that the build lacks is there by name, and raises ImportError when called.
            decoder: Callable[..., Any] = getattr(imagecodecs, name)
            return np.asarray(decoder(data, **options))
        except (ImportError, AttributeError):
            continue
        except _ERRORS as error:
            reason = reason or error
    if reason is not None:
        raise ValueError(str(reason) or type(reason).__name__) from reason
    return None


def decode_frame(frame: bytes, syntax: str, shape: FrameShape, notes: list[str]) -> NDArray[Any] | None:
    """The words of one grey DICOM frame (rows, columns), uint8 or uint16; signed ones come as the words that hold them.

    Args:
        frame: the codestream, put together from its fragments.
        syntax: the transfer syntax that the file states; another codec in the frame is taken, and noted.
        shape: rows, columns and bits of a word that the header states.
        notes: gets what a person should know.

    Returns:
        ``None`` when nothing here decodes it.

    Raises:
        ValueError: with the decoder's own reason for a frame that is damaged, or no grey image of this size.
    """
    stated, codec = stated_codec(syntax), codec_of(frame)
    codec = codec or stated
    if codec != stated and not {codec, stated} <= {J2K, HTJ2K}:
        notes.append(f"the pixel data is {codec}, the transfer syntax says {stated or 'uncompressed'}")
    try:
        decoded = _decoded(frame, codec, shape, notes)
    except ImportError:
        return None
    if decoded is None:
        return None
    if decoded.shape != shape[:2] or decoded.dtype.itemsize > 2 or decoded.dtype.kind not in "iu":
        raise ValueError(f"decoded to {decoded.shape} of {decoded.dtype}, not to a grey image of {shape.rows} rows")
    return decoded.view(np.uint8 if decoded.dtype.itemsize == 1 else np.uint16)


def _decoded(frame: bytes, codec: str, shape: FrameShape, notes: list[str]) -> NDArray[Any] | None:
    if codec == RLE:
        return _run_lengths(frame, shape, notes)
    if codec in (DEFLATED, PLAIN):
        return _plain(frame, codec, shape)
    if is_followed(frame, codec, padded=True):
        notes.append("bytes follow the end of the compressed pixels")
    if codec in (JPEG, LOSSLESS):
        found = jpeg_frame(frame)
        if found is None:
            raise ValueError("JPEG without a frame header")
        return decode_jpeg(frame, found)
    return decode_codestream(frame, codec) if codec else None


def check_colour(frame: bytes, syntax: str) -> NDArray[Any] | None:
    """The components of a frame in colour, where the decoder that proves it whole gives them as they are stored.

    Args:
        frame: The codestream, put together from its fragments.
        syntax: The transfer syntax that the file states.

    Returns:
        Lossless JPEG of 8 bits, (rows, columns, 3); ``None`` for others, whose pixels are left to another decoder.

    Raises:
        ValueError: It is damaged, as far as a strict decoder reads it.
    """
    stated, codec = stated_codec(syntax), codec_of(frame)
    if not codec and stated not in ("", RLE, DEFLATED, PLAIN):
        raise ValueError(f"it is no {stated}")
    found = jpeg_frame(frame)
    if codec in (J2K, HTJ2K, LS, JXL):
        decode_codestream(frame, codec)
    elif codec and found is None:
        raise ValueError("JPEG without a frame header")
    elif found is not None and found.channels == 4:
        check_four_channels(frame)
    elif found is not None and (found.codec == LOSSLESS or found.precision != 8):
        colours = simplejpeg.decode_jpeg(_as_rgb(frame, found), colorspace="RGB" if found.channels == 3 else "GRAY")
        return np.asarray(colours) if found.precision == 8 and found.channels == 3 else None
    elif found is not None:
        simplejpeg.decode_jpeg(frame, colorspace="GRAY")
    return None


def _as_rgb(data: bytes, found: JpegFrame) -> bytes:
    """A copy that states 8 bits and names its components R, G and B: of lossless colour libjpeg-turbo converts none."""
    copy = bytearray(_as_eight_bits(data, found)) if found.channels == 1 else bytearray(data)
    copy[found.at + 4] = 8
    if found.channels != 3:
        return bytes(copy)
    at, kept = 2, [data[:2]]
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        first, step = (at + 10, 3) if at == found.at else (at + 5, 2)
        if at == found.at or marker == 0xDA:
            for place, name in enumerate(b"RGB"):
                copy[first + step * place] = name
        if not 0xE0 <= marker <= 0xEF:  # JFIF and Adobe say what the colours are
            kept.append(bytes(copy[at:end]))
        at = end
        if marker == 0xDA:
            break
    return b"".join(kept) + data[at:]


def _plain(frame: bytes, codec: str, shape: FrameShape) -> NDArray[Any]:
    rows, columns, allocated = shape
    kind: Any = np.uint8 if allocated == 8 else np.dtype("<u2")
    size = rows * columns * np.dtype(kind).itemsize
    if codec == DEFLATED:
        frame = inflate(frame, size + 1)[0]
    if len(frame) not in (size, size + 1):
        raise ValueError(f"{len(frame)} bytes, and {rows} x {columns} pixels need {size}")
    return np.frombuffer(frame, kind, rows * columns).reshape(rows, columns)


def inflate(packed: bytes, most: int) -> tuple[bytes, int]:
    """A raw deflate stream (RFC 1951) unpacked, and how many bytes follow it. Raises ``ValueError`` past ``most``."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(packed, most)
    except zlib.error as error:
        raise ValueError(f"the deflated data is damaged: {error}") from error
    if not stream.eof:
        over = bool(stream.unconsumed_tail)
        raise ValueError(f"inflates to more than {most:,} bytes" if over else "the deflated data is cut short")
    return data, len(stream.unused_data)


# ---- RLE (PS3.5 annex G) ----


def _run_lengths(frame: bytes, shape: FrameShape, notes: list[str]) -> NDArray[Any]:
    rows, columns, allocated = shape
    kind = np.dtype(np.uint8 if allocated == 8 else "<u2")
    size = rows * columns * kind.itemsize
    # Two bytes become at most 128, so that a shorter frame is no image of this size, whatever its header says.
    if len(frame) * 64 < size:
        raise ValueError(f"{len(frame)} bytes cannot hold {rows * columns} pixels")
    try:
        packed = imagecodecs.dicomrle_decode(frame, kind, out=bytearray(size + (size & 1)))
    except RuntimeError as error:
        cleaned = _with_zero_padding(frame, rows * columns)
        if cleaned == frame:
            raise ValueError(str(error)) from error
        try:
            packed = imagecodecs.dicomrle_decode(cleaned, kind, out=bytearray(size + (size & 1)))
        except RuntimeError:
            raise ValueError(str(error)) from error
        notes.append("pad bytes of the RLE segments are not 0")
    return np.frombuffer(packed, kind, rows * columns).reshape(rows, columns)


def _with_zero_padding(frame: bytes, pixels: int) -> bytes:
    """The frame with 0 in the byte that pads each segment to an even length (G.4), where the runs end before it."""
    count = int.from_bytes(frame[:4], "little")
    starts = struct.unpack(f"<{min(count, 15)}I", frame[4 : 4 + 4 * min(count, 15)])
    copy = bytearray(frame)
    for start, end in zip(starts, (*starts[1:], len(frame)), strict=True):
        at, made = start, 0
        while at < end and made < pixels:
            run = frame[at]
            made += run + 1 if run < 128 else (257 - run if run > 128 else 0)
            at += run + 2 if run < 128 else (2 if run > 128 else 1)
        if made == pixels and at == end - 1:
            copy[at] = 0
    return bytes(copy)
