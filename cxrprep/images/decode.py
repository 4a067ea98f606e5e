"""Decoding: bytes of any format to pixels, and what headers alone state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from cxrprep.errors import IMAGE_AGAIN, ImageError, StorageError
from cxrprep.images import codec_headers, dicom, dicom_file, file_formats, png_jpeg
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits, Radiograph
from cxrprep.storage.small_files import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cxrprep.images.dicom_file import DicomFile
    from cxrprep.storage.filesystem import SizeLimit

_HEAD = 65_536


def decode(
    data: bytes,
    name: str,
    limits: ImageLimits = DEFAULT_LIMITS,
    *,
    reduce: Callable[[int, int], int] | None = None,
    header: DicomFile | None = None,
    frame: int | None = None,
) -> Radiograph:
    """The radiograph in ``data``, recognised by its first bytes, not by ``name``.

    Args:
        data: the file.
        name: what errors call it.
        limits: what one image may cost.
        reduce: may say, for a width and a height, that a JPEG 2, 4 or 8 times smaller will do (``Recipe.reduction``).
        header: the parsed header of a DICOM file, where it is at hand.
        frame: which frame of a file or page of a TIFF, from 1; needed for a file of several.

    Returns:
        Stored values, with the rules of their grey scale.

    Raises:
        ImageError: for damage, an unknown format, images past ``limits``, and several frames of which none is named.
    """
    if not data:
        raise ImageError(f"{name} is empty", hint=IMAGE_AGAIN)
    if data[:8] == png_jpeg.PNG_MAGIC or data[:3] == codec_headers.JPEG_MAGIC:
        return png_jpeg.decode_raster(data, name, limits, reduce=reduce, frame=frame)
    if dicom_file.is_named(data, name):
        return dicom.decode_dicom(header or data, name, limits, frame=frame)
    if file_formats.format_of(data):
        return file_formats.decode_file(data, name, limits, page=frame)
    raise ImageError(
        f"{name} is not in an image format that cxrprep reads", hint="check what the file is; its name may be wrong"
    )


def read_bytes(path: Path, limits: SizeLimit = DEFAULT_LIMITS) -> bytes:
    """The bytes of a file. Raises ``ImageError`` for one past ``limits`` or gone, ``StorageError`` when unreadable."""
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.size:
                raise ImageError(f"{path}: {size:,} bytes are more than the limit of {limits.size:,}")
            return file.read()
    except FileNotFoundError as error:
        # It may lie in a bucket alone, whose tables are here.
        from cxrprep.storage.unfetched import stored_bytes

        data = stored_bytes(path, limits)
        if data is None:
            raise ImageError(f"{path} is gone", hint="cxrprep verify ROOT lists what is missing") from error
        return data
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error


def header(path: Path) -> tuple[int, int, str] | None:
    """Width, height and mode (photometric interpretation) of an image file; ``None`` when its header cannot be read."""
    try:
        with open_file(path) as file:
            return header_of(file, str(path))
    except OSError:
        return None


def header_of(file: BinaryIO, name: str) -> tuple[int, int, str] | None:
    """``header`` of an image that is called ``name``, in an open file."""
    try:
        head = file.read(64)
        if head[:8] == png_jpeg.PNG_MAGIC:
            return png_jpeg.png_header(head)
        head += file.read(_HEAD)
        if head[:2] == codec_headers.JPEG_MAGIC[:2]:
            return png_jpeg.jpeg_header(head) or png_jpeg.jpeg_header(head + file.read())
        if dicom_file.is_dicom(head) or name.lower().endswith((".dcm", ".dicom")):
            try:
                return dicom_file.dicom_header(dicom_file.read_header(head, name)[0], name)
            except ImageError:
                # Tables before the image's size, or a deflated data set: the head alone cannot be read.
                return dicom_file.dicom_header(dicom_file.read_header(head + file.read(), name)[0], name)
        if file_formats.format_of(head):
            return file_formats.header(head) or file_formats.header(head + file.read())
    except (OSError, ImageError):
        return None
    return None


def measure(paths: Sequence[Path]) -> Iterator[tuple[int, int, str] | None]:
    """``header`` of each file, in order."""
    return (header(path) for path in paths)
