"""Small valid images, each with bytes of its own: a few drawn once, stamped with a name where the format allows it.

A JPEG takes the name as a comment, a PNG as a ``tEXt`` chunk, a DICOM file in its identifiers; drawing 377,110 images
would take an hour, stamping them takes a second, and every one of them decodes.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import cv2
import numpy as np

DRAWN = 16
JPEG_SHAPES = ((320, 256), (256, 320), (320, 320), (320, 264))
DICOM_SHAPE = (64, 52)
_UID = "1.2.826.0.1.3680043.8.498."
_PATIENT, _DICOM_ID, _NUMBER = "PPPPPPPP", "D" * 44, "1" * 20


def which(name: str) -> int:
    """Which of the drawings an image of this name shows."""
    return zlib.crc32(name.encode()) % DRAWN


def _drawn(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (6, 5)).astype(np.float32)
    smooth = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255)


def jpeg_shape(name: str) -> tuple[int, int]:
    """Rows and columns of ``jpeg(name)``."""
    return JPEG_SHAPES[which(name) % len(JPEG_SHAPES)]


@cache
def _jpeg(drawing: int) -> bytes:
    grey = _drawn(JPEG_SHAPES[drawing % len(JPEG_SHAPES)], drawing).astype(np.uint8)
    done, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 40])
    assert done
    return data.tobytes()


def jpeg(name: str) -> bytes:
    """A grey 8-bit JPEG of about 1.5 kB whose bytes depend on ``name``."""
    return jpeg_like(which(name), name)


def jpeg_like(drawing: int, name: str) -> bytes:
    """The JPEG of one of the drawings, with ``name`` as its comment."""
    body, mark = _jpeg(drawing), name.encode()
    return b"".join((body[:2], b"\xff\xfe", struct.pack(">H", len(mark) + 2), mark, body[2:]))


@cache
def _png(drawing: int, size: int, rgba: bool) -> bytes:
    # Broad steps of grey: 1024 x 1024 pixels to decode, and few bytes to move.
    image: np.ndarray = (_drawn((size // 16, size // 16), drawing) // 24 * 24).astype(np.uint8)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST)
    if rgba:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return data.tobytes()


def png(name: str, size: int = 1024, *, rgba: bool = False) -> bytes:
    """An 8-bit PNG of ``size`` x ``size`` whose bytes depend on ``name``; grey, or RGBA as some of NIH's are."""
    body, text = _png(which(name), size, rgba), b"Title\x00" + name.encode()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    return body[:33] + chunk + body[33:]


@cache
def _dicom(drawing: int) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = UID(_UID + _NUMBER)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Modality = "DX"
    data.PatientID = _PATIENT
    data.ImageComments = _DICOM_ID
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if drawing % 4 == 0 else "MONOCHROME2"
    data.Rows, data.Columns = DICOM_SHAPE
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 2048, 3600
    data.PixelSpacing = [0.139, 0.139]
    data.PixelData = (_drawn(DICOM_SHAPE, drawing) * 16).astype("<u2").tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(name: str, patient: str) -> bytes:
    """A 12-bit digital radiograph in Explicit VR Little Endian, about 8 kB; ``name`` is a MIMIC dicom id."""
    number = f"1{zlib.crc32(name.encode()):09d}{zlib.crc32(name[::-1].encode()):010d}"[:20]
    body = _dicom(which(name)).replace(_NUMBER.encode(), number.encode())
    return body.replace(_PATIENT.encode(), patient.encode()).replace(_DICOM_ID.encode(), name.encode())
