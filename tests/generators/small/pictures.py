"""Small real image files for the generated releases: PNG by hand, JPEG and DICOM by the libraries users have."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width, dtype=np.float64)[None, :] + rng.integers(0, 55, (height, width))
    return ramp.astype(np.uint8)


@functools.cache
def _png(seed: int, width: int, height: int, *, rgba: bool) -> bytes:
    pixels = _pixels(seed, height, width)
    if rgba:
        pixels = np.dstack([pixels, pixels, pixels, np.full_like(pixels, 255)])
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if rgba else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def png(path: Path, seed: int, *, width: int = 64, height: int = 64, rgba: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(seed, width, height, rgba=rgba))


def jpeg(path: Path, seed: int, *, width: int = 60, height: int = 50) -> None:
    import cv2

    done, data = cv2.imencode(".jpg", _pixels(seed, height, width), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def dicom(path: Path, seed: int, *, width: int = 60, height: int = 50) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.9.{seed + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = Dataset()
    item.file_meta = meta
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    item.Modality, item.PhotometricInterpretation = "CR", "MONOCHROME2"
    item.Rows, item.Columns, item.SamplesPerPixel = height, width, 1
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.PixelData = (_pixels(seed, height, width).astype(np.uint16) * 16).tobytes()
    buffer = io.BytesIO()
    item.save_as(buffer, enforce_file_format=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
