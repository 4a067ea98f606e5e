"""Image information from decoding one file: format, size, bits, mode, for ``verify``."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cxrprep.errors import ImageError, SeveralFramesError
from cxrprep.images import codec_headers, dicom_file, file_formats, png_jpeg
from cxrprep.images.decode import decode
from cxrprep.images.local_files import read_source
from cxrprep.images.orientation import orientation_of
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits, Radiograph
from cxrprep.model import ImageCheck

if TYPE_CHECKING:
    from pathlib import Path


def format_of(data: bytes, name: str) -> str:
    """PNG, JPEG, DICOM or another format by the first bytes; ``""`` for anything else."""
    if data[:8] == png_jpeg.PNG_MAGIC:
        return "PNG"
    if data[:3] == codec_headers.JPEG_MAGIC:
        return "JPEG"
    if dicom_file.is_named(data, name):
        return "DICOM"
    return file_formats.format_of(data)


def _whole(data: bytes, name: str, limits: ImageLimits) -> Radiograph:
    """The first frame of a file, all of whose frames can be decoded. Raises ``ImageError``."""
    try:
        return decode(data, name, limits)
    except SeveralFramesError as error:
        header = dicom_file.open_dicom(data, name, limits) if dicom_file.is_named(data, name) else None
        for number in range(error.frames, 1, -1):
            decode(data, name, limits, header=header, frame=number)
        return decode(data, name, limits, header=header, frame=1)


def inspect(path: Path | str, limits: ImageLimits = DEFAULT_LIMITS) -> ImageCheck:
    """What one image file is, decoded for real; ``path`` may be the address of one in a bucket.

    Raises ``StorageError`` or the store's errors when it cannot be read at all.
    """
    name = str(path)
    try:
        data = read_source(name, limits)
    except ImageError as error:
        return ImageCheck(error=error.message)
    kind = format_of(data, name)
    try:
        picture = _whole(data, name, limits)
    except ImageError as error:
        lacks = "without pixel data" in error.message or "without an image" in error.message
        short = "cut short" in error.message
        return ImageCheck(kind, has_pixels=not lacks, error=error.message, truncated=short)
    pixels = picture.pixels
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes()).hexdigest()
    looks = orientation_of(picture)
    return ImageCheck(
        format=kind,
        width=picture.width,
        height=picture.height,
        mode=picture.mode,
        bits=picture.bits,
        constant=bool(pixels.min() == pixels.max()),
        pixels=f"sha256:{digest}",
        doubts=looks.doubts(),
        scores=looks.columns(),
        alarms=frozenset(looks.alarms()) | ({"mirrored"} if looks.is_mirrored else set()),
    )
