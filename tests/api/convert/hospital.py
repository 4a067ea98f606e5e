"""A hospital's own folder: DICOM with identities, PNG, JPEG, and what else lies in such folders. Generated, seeded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

# Nothing of these may ever be found in what cxrprep writes.
SECRETS = (
    b"ZWIEBEL", b"HANNELORE", b"PAT-99127", b"ACC-55310", b"19310417", b"20240305", b"1.2.826.0.1.3680043.77.1",
    b"ELBKLINIKUM", b"DR-WERNICKE", b"SN-448812",
)  # fmt: skip
IDENTITY = {
    "PatientName": "ZWIEBEL^HANNELORE",
    "PatientID": "PAT-99127",
    "PatientBirthDate": "19310417",
    "AccessionNumber": "ACC-55310",
    "StudyDate": "20240305",
    "StudyInstanceUID": "1.2.826.0.1.3680043.77.1",
    "InstitutionName": "ELBKLINIKUM",
    "ReferringPhysicianName": "DR-WERNICKE",
    "DeviceSerialNumber": "SN-448812",
}


def body(seed: int, rows: int = 96, columns: int = 80) -> np.ndarray:
    """A bright body with two dark lungs on a dark ground, 12 bits."""
    y, x = np.mgrid[0:rows, 0:columns]
    shape = np.exp(-(((x - columns / 2) / (columns * 0.4)) ** 4) - ((y - rows * 0.55) / (rows * 0.5)) ** 4)
    noise = np.random.default_rng(seed).normal(0, 25, (rows, columns))
    pixels = shape * 2600 + 250 + noise
    pixels[rows // 4 : rows * 3 // 4, columns // 5 : columns * 2 // 5] *= 0.45
    pixels[rows // 4 : rows * 3 // 4, columns * 3 // 5 : columns * 4 // 5] *= 0.45
    return pixels.clip(0, 4095).astype(np.uint16)


def dicom(pixels: np.ndarray | None, *, kind: str = "1.2.840.10008.5.1.4.1.1.1.1", **tags: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.826.0.1.3680043.77.1.5"
    dataset.Modality = "DX"
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.WindowCenter, dataset.WindowWidth = 1500, 3000
    for name, value in tags.items():
        setattr(dataset, name, value)
    if pixels is not None:
        dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def png(pixels: np.ndarray, text: bytes = b"") -> bytes:
    data = cv2.imencode(".png", pixels)[1].tobytes()
    if not text:
        return data
    chunk = b"tEXt" + b"Comment\0" + text
    return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def small(seed: int) -> np.ndarray:
    return (body(seed) >> 4).astype(np.uint8)


def write(root: Path) -> Path:
    """Six images, three of them DICOM, and everything around them."""
    files: dict[str, bytes] = {
        "ward 1/b/IM0001": dicom(body(1), **IDENTITY, PatientAge="093Y", PatientSex="F", ViewPosition="PA"),
        "ward 1/1.2.840.113619.2": dicom(
            body(2), **IDENTITY, PatientAge="093Y", PatientSex="F", PixelSpacing=[0.2, 0.1]
        ),
        "ward 1/x.dcm": dicom(body(3), PatientID="OTHER"),
        "ward 1/x.png": png(small(4)),
        "ward 1/y.JPG": cv2.imencode(".jpg", small(5))[1].tobytes(),
        "z.png": png(small(6), b"ZWIEBEL"),
        "ward 1/report.dcm": dicom(None, kind="1.2.840.10008.5.1.4.1.1.88.11", **IDENTITY),
        "notes.txt": b"ZWIEBEL called",
        "DICOMDIR": b"\0" * 128 + b"DICM" + b"\0" * 64,
        "ward 1/._x.dcm": b"\0" * 200,
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def many(root: Path, count: int, side: int = 96) -> Path:
    """``count`` DICOM files in folders of ten."""
    for index in range(count):
        path = root / f"s{index // 10:03d}" / f"i{index:05d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(body(index, side, side)))
    return root
