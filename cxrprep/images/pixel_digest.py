"""Digest of what an image file shows, which no encoder's setting changes: of the samples that it decodes to."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

import numpy as np

from cxrprep.digests import digest_of

if TYPE_CHECKING:
    from cxrprep.images.radiograph import Pixels

# Every decoder gives the same samples of these; of all others the bytes of the file count.
_LOSSLESS: Final = (".png",)


def pixel_digest(data: bytes, name: str, *, raw: bool = False) -> str:
    """What an image file shows: of a lossless file its samples, of any other, and of a ``raw`` one, its bytes.

    Raises ``ImageError`` for a lossless file that cannot be decoded.
    """
    if raw or not name.lower().endswith(_LOSSLESS):
        return str(digest_of(data))
    from cxrprep.images.decode import decode

    picture = decode(data, name)
    return digest_of_samples(picture.pixels, picture.bits)


def digest_of_output(pixels: Pixels, suffix: str, file_digest: str) -> str:
    """``pixel_digest`` of a file with this suffix and digest that was encoded from ``pixels`` just now."""
    # A PNG has 8 or 16 bits, whatever the range of its samples is.
    return digest_of_samples(pixels, pixels.dtype.itemsize * 8) if suffix in _LOSSLESS else file_digest


def digest_of_samples(pixels: Pixels, bits: int) -> str:
    """The digest of samples with their bits and shape, as ``pixels:`` and 64 hexadecimal digits."""
    about = json.dumps({"bits": int(bits), "shape": [int(side) for side in pixels.shape]}, separators=(",", ":"))
    # Little-endian on every machine.
    samples = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    hasher = hashlib.sha256(about.encode())
    hasher.update(samples.data)
    return f"pixels:{hasher.hexdigest()}"
