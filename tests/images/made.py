"""DICOM files made for one question each, and what others make of them: pydicom, DCMTK, and the standard's formulae."""

from __future__ import annotations

import io
import math
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrprep.images.decode import decode
from cxrprep.images.transforms import Voi
from tests.parts import need


def dataset_of(
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    bits: int = 12,
    high: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **tags: object,
) -> Dataset:
    """A data set with an image, (rows, columns) or (rows, columns, 3); ``tags`` are set as they are."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1 if high is None else high
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    return dataset


def written(dataset: Dataset) -> bytes:
    """The file of a data set, in its own transfer syntax."""
    stream = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    pydicom.dcmwrite(
        stream, dataset, enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
    )  # fmt: skip
    return stream.getvalue()


def dicom_bytes(pixels: np.ndarray, **options: object) -> bytes:
    """A DICOM file of an image; options are those of ``dataset_of``."""
    return written(dataset_of(pixels, **options))


def ramp(top: int = 4095, dtype: type = np.uint16) -> np.ndarray:
    """64 x 64 values from 0 to ``top``, in order."""
    return np.linspace(0, top, 64 * 64).astype(dtype).reshape(64, 64)


def lut(values: list[int], first: int = 0, bits: int = 16) -> Sequence:
    """A LUT sequence with one item."""
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.add_new("LUTData", "OW", np.array(values, "<u2").tobytes())
    return Sequence([item])


def shown(data: bytes, **options: object) -> np.ndarray:
    """What the step ``voi`` makes of the file."""
    return Voi(**options)(decode(data, "x.dcm")).settled().pixels


def real(name: str) -> bytes:
    """A file of pydicom-data, or of pydicom itself; skips where the package is absent."""
    need("pydicom-data")
    import data_store

    places = (Path(data_store.__file__).parent / "data", Path(pydicom.__file__).parent / "data" / "test_files")
    return next(place / name for place in places if (place / name).exists()).read_bytes()


# ---- what others make of a file ----


def by_pydicom(data: bytes) -> np.ndarray:
    """pydicom's display values on 0..255, scaled by the range that its own window functions document."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(dataset.pixel_array, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        y = apply_voi_lut(values, dataset).astype(np.float64)
    low, high = _pydicom_range(dataset)
    y = np.clip((y - low) / (high - low), 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        y = 1 - y
    return np.rint(y * 255).astype(np.uint8)


def _pydicom_range(dataset: Dataset) -> tuple[float, float]:
    if dataset.get("VOILUTSequence"):
        return 0, (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    if dataset.get("ModalityLUTSequence"):
        return 0, (1 << dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    half = 1 << (dataset.BitsStored - 1)
    low, high = (-half, half - 1) if dataset.PixelRepresentation else (0, 2 * half - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def by_dcmtk(data: bytes, folder: Path, *options: str, program: str = "dcmj2pnm") -> np.ndarray:
    """DCMTK's picture of the file, 8 bits, without overlays."""
    need("dcmtk")
    source, target = folder / "x.dcm", folder / "x.pgm"
    source.write_bytes(data)
    subprocess.run([program, "-O", *options, "+op", "+opb", str(source), str(target)], check=True, capture_output=True)
    return cv2.imread(str(target), cv2.IMREAD_GRAYSCALE)


def by_formula(data: bytes) -> np.ndarray:
    """Display values on 0..255 by DICOM PS3.5 8.1.1 and PS3.3 C.11.1, C.11.2, C.7.6.3.1.2, one value at a time."""
    ds = pydicom.dcmread(io.BytesIO(data))
    words = np.frombuffer(ds.PixelData, "<u2" if ds.BitsAllocated == 16 else "u1", ds.Rows * ds.Columns)
    found = {int(word): _display(int(word), ds) for word in np.unique(words)}
    return np.array([found[int(word)] for word in words]).reshape(ds.Rows, ds.Columns)


def _display(word: int, ds: Dataset) -> float:
    n = ds.BitsStored
    value = (word >> (ds.HighBit + 1 - n)) % (1 << n)
    if ds.PixelRepresentation and value >= 1 << (n - 1):
        value -= 1 << n
    low, high = (-(1 << (n - 1)), (1 << (n - 1)) - 1) if ds.PixelRepresentation else (0, (1 << n) - 1)
    if "PixelPaddingValue" in ds:
        ends = (ds.PixelPaddingValue, ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue))
        if min(ends) <= value <= max(ends):
            return 0.0
    if ds.get("ModalityLUTSequence"):
        x, (low, high) = _looked(value, ds.ModalityLUTSequence[0]), (0, 0)
    else:
        slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
        x, low, high = value * slope + intercept, low * slope + intercept, high * slope + intercept
    if ds.get("VOILUTSequence"):
        y = _looked(round(x), ds.VOILUTSequence[0]) / ((1 << ds.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif "WindowWidth" in ds:
        c, w = (v[0] if isinstance(v, pydicom.multival.MultiValue) else v for v in (ds.WindowCenter, ds.WindowWidth))
        y = _windowed(x, float(c), float(w), ds.get("VOILUTFunction") or "LINEAR")
    else:
        y = (x - low) / (high - low)
    return 255 * (1 - y if ds.PhotometricInterpretation == "MONOCHROME1" else y)


def _windowed(x: float, c: float, w: float, function: str) -> float:
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - c) / w))
    if function == "LINEAR_EXACT":
        return 0.0 if x <= c - w / 2 else 1.0 if x > c + w / 2 else (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    return 1.0 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5


def _looked(value: int, item: Dataset) -> int:
    entries, first, _ = item.LUTDescriptor
    data = item.LUTData
    table = np.frombuffer(data, "u1" if len(data) < 2 * entries else "<u2")
    return int(table[min(max(value - first, 0), entries - 1)])


# ---- the set ----


@dataclass(frozen=True)
class Case:
    """A file and how DCMTK is told to show it as the standard says; ``pydicom`` is false where that has a known bug."""

    name: str
    data: bytes
    dcmtk: tuple[str, ...] = ("-W",)
    pydicom: bool = True


_UP = [v * 16 for v in range(4096)]
_GAMMA = [round((v / 4095) ** 0.5 * 4095) for v in range(4096)]
_WINDOW = ("+Wi", "1")
_TABLE = ("+Wl", "1")
_SIGNED = (ramp().astype(np.int32) - 2048).astype(np.int16)
_EDGE = np.where(np.arange(64)[:, None] < 8, 4095, ramp()).astype(np.uint16)
_RUBBISH = (ramp() | (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) << 12)).astype(np.uint16)


def cases() -> list[Case]:
    """One file for each thing that a header may say of the grey scale."""
    one, two = {"photometric": "MONOCHROME1"}, {}
    made: list[Case] = []
    for name, polarity in (("mono1", one), ("mono2", two)):
        for what, tags, options in (
            ("none", {}, ("-W",)),
            ("window", {"WindowCenter": 2048, "WindowWidth": 4096}, _WINDOW),
            ("narrow", {"WindowCenter": 1000, "WindowWidth": 500}, _WINDOW),
            ("decimals", {"WindowCenter": 1000.25, "WindowWidth": 333.5}, _WINDOW),
            ("sigmoid", {"WindowCenter": 2048, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}, _WINDOW),
            ("two-windows", {"WindowCenter": [900, 3000], "WindowWidth": [400, 100]}, _WINDOW),
            ("lut-up", {"VOILUTSequence": lut(_UP)}, _TABLE),
            ("lut-down", {"VOILUTSequence": lut(_UP[::-1])}, _TABLE),
            ("lut-12-bits", {"VOILUTSequence": lut(_GAMMA, bits=12)}, _TABLE),
            ("lut-and-window", {"VOILUTSequence": lut(_UP), "WindowCenter": 9, "WindowWidth": 9}, _TABLE),
            ("lut-part", {"VOILUTSequence": lut(_UP[1000:3000], first=1000)}, _TABLE),
            ("slope", {"RescaleSlope": 0.684, "RescaleIntercept": 200}, ("-W",)),
            ("slope-window",
             {"RescaleSlope": 0.684, "RescaleIntercept": 200, "WindowCenter": 1600, "WindowWidth": 2800}, _WINDOW),
            ("intercept-window",
             {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": -100, "WindowWidth": 700}, _WINDOW),
            ("modality-lut-window",
             {"ModalityLUTSequence": lut([v * 2 for v in range(4096)]), "WindowCenter": 4096,
              "WindowWidth": 8192}, _WINDOW),
        ):  # fmt: skip
            made.append(Case(f"{name}-{what}", dicom_bytes(ramp(), **polarity, **tags), options))
    exact = {"WindowCenter": 1000, "WindowWidth": 800, "VOILUTFunction": "LINEAR_EXACT"}
    eight = [v * 255 // 4095 for v in range(4096)]
    dark = {"photometric": "MONOCHROME1", "PixelPaddingValue": 4095}
    return [
        *made,
        # DCMTK 3.6.7 knows LINEAR and SIGMOID only: LINEAR_EXACT is judged by the formula and by pydicom.
        Case("linear-exact", dicom_bytes(ramp(), **exact), ()),
        Case("threshold", dicom_bytes(ramp(), WindowCenter=1000.5, WindowWidth=1), _WINDOW),
        # pydicom indexes a LUT of 8 bits in 8 bits.
        Case("lut-8-bits", dicom_bytes(ramp(), VOILUTSequence=lut(eight, bits=8)), _TABLE, pydicom=False),
        Case("signed", dicom_bytes(_SIGNED)),
        Case("signed-window", dicom_bytes(_SIGNED, WindowCenter=0, WindowWidth=4096), _WINDOW),
        Case("signed-lut", dicom_bytes(_SIGNED, VOILUTSequence=lut(_UP, first=-2048)), _TABLE),
        Case("rubbish", dicom_bytes(_RUBBISH)),
        # pydicom takes the lowest bits, whatever HighBit says.
        Case("high-bit", dicom_bytes((ramp() << np.uint16(4)).astype(np.uint16), high=15), pydicom=False),
        Case("eight-bits", dicom_bytes(ramp(255, np.uint8), bits=8)),
        Case("eight-bits-window",
             dicom_bytes(ramp(255, np.uint8), bits=8, WindowCenter=100, WindowWidth=60), _WINDOW),
        Case("ten-bits", dicom_bytes(ramp(1023), bits=10, WindowCenter=550, WindowWidth=1024), _WINDOW),
        Case("fifteen-bits", dicom_bytes(ramp(32767), bits=15, WindowCenter=15000, WindowWidth=30000), _WINDOW),
        Case("sixteen-bits", dicom_bytes(ramp(65535), bits=16)),
        Case("shape-inverse", dicom_bytes(ramp(), photometric="MONOCHROME1", PresentationLUTShape="INVERSE")),
        Case("shape-identity", dicom_bytes(ramp(), PresentationLUTShape="IDENTITY")),
        # Peers show padding as if it were an image.
        Case("padding", dicom_bytes(_EDGE, PixelPaddingValue=4095), (), pydicom=False),
        Case("padding-mono1", dicom_bytes(_EDGE, **dark), (), pydicom=False),
        Case("padding-range",
             dicom_bytes(_EDGE, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095), (), pydicom=False),
    ]  # fmt: skip
