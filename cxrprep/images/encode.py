"""Encoding of pixels as PNG, JPEG or WebP, with the recipe and the source digest in the file.

The mark lies where each format keeps text: a PNG ``tEXt`` chunk, a JPEG comment, a WebP ``XMP`` chunk, a JPEG XL
``xml`` box. It holds nothing of the source's header.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np
from zlib_ng import zlib_ng

from cxrprep.errors import ImageError
from cxrprep.images.png_jpeg import PNG_MAGIC
from cxrprep.model import CONVERSION_KEY

if TYPE_CHECKING:
    from cxrprep.images.output_metadata import OutputMetadata
    from cxrprep.images.radiograph import Radiograph
    from cxrprep.images.recipe import OutputForm


def encode(picture: Radiograph, form: OutputForm, mark: OutputMetadata) -> bytes:
    """The bytes of the output file. Raises ``ImageError`` when the form cannot hold the picture's bits."""
    pixels = picture.pixels
    if form.format in ("jpeg", "webp") and pixels.dtype != np.uint8:
        raise ImageError(f"{form.format} holds 8 bits", hint="add a step bits with to = 8, or choose png")
    if form.format == "png":
        return _png(pixels, CONVERSION_KEY + b"\0" + mark.dump())
    if form.format == "jpeg":
        data = _opencv(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, form.quality])
        comment = CONVERSION_KEY + b":" + mark.dump()
        return data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]
    if form.format == "webp":
        return _webp(
            _opencv(".webp", cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101]), picture, mark
        )
    return _jxl(picture, mark)


def _png(pixels: Any, text: bytes) -> bytes:
    """A grey PNG whose rows all have the Up filter: near the size of chosen filters, at a fifth of their cost.

    What the filter leaves of a radiograph is noise, in which no string comes twice: only the entropy coder of deflate
    is used, which makes it smaller too. Rows that are all black cost an eighth.
    """
    rows, columns = pixels.shape
    depth = pixels.dtype.itemsize * 8
    flat = pixels if depth == 8 else pixels.byteswap().view(np.uint8).reshape(rows, columns * 2)
    lines = np.empty((rows, flat.shape[1] + 1), np.uint8)
    lines[:, 0] = 2
    lines[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
    packer = zlib_ng.compressobj(1, zlib_ng.DEFLATED, 15, 9, zlib_ng.Z_HUFFMAN_ONLY)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0)),
        (b"tEXt", text),
        (b"IDAT", packer.compress(lines.data) + packer.flush()),
        (b"IEND", b""),
    )
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib_ng.crc32(body, zlib_ng.crc32(kind)))
        for kind, body in chunks
    ]
    return PNG_MAGIC + b"".join(packed)


def _opencv(suffix: str, pixels: object, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)  # type: ignore[call-overload]  # its stubs know no unions
    if not done:
        raise ImageError(f"the image cannot be written as {suffix}")
    return bytes(data.tobytes())


def _webp(data: bytes, picture: Radiograph, mark: OutputMetadata) -> bytes:
    # The simple form holds no metadata: the extended one (VP8X, RFC 9649 section 2.7) with the XMP flag does.
    xmp = CONVERSION_KEY + b":" + mark.dump()
    size = (picture.width - 1).to_bytes(3, "little") + (picture.height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes([0x04, 0, 0, 0]) + size + data[12:]
    body += b"XMP " + struct.pack("<I", len(xmp)) + xmp + b"\0" * (len(xmp) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jxl(picture: Radiograph, mark: OutputMetadata) -> bytes:
    data = bytes(imagecodecs.jpegxl_encode(picture.pixels, lossless=True, effort=1, usecontainer=True))
    text = CONVERSION_KEY + b":" + mark.dump()
    # Behind the signature and ftyp boxes (ISO/IEC 18181-2 9.1), where boxes may come in any order.
    return data[:32] + struct.pack(">I", len(text) + 8) + b"xml " + text + data[32:]
