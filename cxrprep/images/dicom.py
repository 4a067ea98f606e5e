"""DICOM files as pictures: the words of the pixel data, and the rules of the header.

Uncompressed files are read without a copy through pydicom's data set; everything else goes through pydicom's decoders.
No tag that could identify a person is looked at.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.errors import ImageError
from cxrprep.images.grey import GreyRules, Lut, Window
from cxrprep.images.picture import DEFAULT_LIMITS, Limits, Picture, picture_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NATIVE: Final = {"1.2.840.10008.1.2": 8, "1.2.840.10008.1.2.1": 12}
_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def is_dicom(data: bytes) -> bool:
    """Whether the file has the preamble and prefix of PS3.10 7.1."""
    return data[128:132] == b"DICM"


def read_header(data: bytes, name: str) -> tuple[Any, int]:
    """The data set without its pixels, and the byte where the pixel data element begins. Raises ``ImageError``."""
    import pydicom

    stream = io.BytesIO(data)
    try:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=not is_dicom(data))
    except Exception as e:  # hostile files raise whatever their bytes lead pydicom to
        raise ImageError(f"{name}: not a readable DICOM file: {e}", hint="check what the file is") from e
    return dataset, stream.tell()


def dicom_header(dataset: Any, name: str) -> tuple[int, int, str]:
    """Width, height and photometric interpretation. Raises ``ImageError`` when there is no image."""
    with _values_of(name):
        rows, columns = dataset.get("Rows"), dataset.get("Columns")
        photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if not isinstance(rows, int) or not isinstance(columns, int) or rows < 1 or columns < 1:
        raise ImageError(
            f"{name}: DICOM without an image (no Rows and Columns)", hint="it may be a report or a directory"
        )
    return columns, rows, photometric


@contextlib.contextmanager
def _values_of(name: str) -> Iterator[None]:
    """Turn what a damaged value makes pydicom raise into ``ImageError``; values are read when they are asked for."""
    try:
        yield
    except ImageError:
        raise
    except Exception as e:
        raise ImageError(f"{name}: a value in the header cannot be read: {e}", hint="check what the file is") from e


def decode_dicom(data: bytes, name: str, limits: Limits = DEFAULT_LIMITS, *, frame: int | None = None) -> Picture:
    """The picture in a DICOM file.

    ``frame`` counts from 1 and is needed for a file of several. Raises ``ImageError`` for files without pixels, with
    damaged or unknown pixel data, and past ``limits``.
    """
    with _values_of(name):
        return _decode(data, name, limits, frame)


def _decode(data: bytes, name: str, limits: Limits, frame: int | None) -> Picture:
    dataset, start = read_header(data, name)
    columns, rows, photometric = dicom_header(dataset, name)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if rows * columns > limits.pixels:
        raise ImageError(
            f"{name}: {columns} x {rows} pixels are more than the limit of {limits.pixels:,}",
            hint="raise it with --max-pixels when the file is genuine",
        )
    if frames > 1 and frame is None:
        raise ImageError(f"{name}: {frames} frames in one file", hint="a radiograph has one; leave the file out")
    notes: list[str] = []
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples == 1 and photometric.startswith("MONOCHROME"):
        words = _native_words(dataset, data, start, rows, columns) if frames == 1 else None
        if words is None:
            words = _decoded_words(data, name, frame)
        rules = grey_rules(dataset, words, notes)
        picture = picture_of(words, rules.bits_stored, photometric, rules, notes)
    else:
        grey = _colour_as_grey(data, name, frame)
        notes.append(f"{photometric} was reduced to luma")
        bits = 16 if grey.dtype == np.uint16 else 8
        picture = picture_of(grey, bits, photometric, GreyRules(bits, bits - 1), notes)
    picture.spacing_mm = spacing(dataset, notes)
    return picture


def _native_words(dataset: Any, data: bytes, start: int, rows: int, columns: int) -> NDArray[Any] | None:
    """The words of uncompressed pixel data where they lie in the file; ``None`` for any other layout."""
    syntax = str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", ""))
    header = _NATIVE.get(syntax)
    allocated = dataset.get("BitsAllocated")
    if header is None or allocated not in (8, 16) or data[start : start + 4] != b"\xe0\x7f\x10\x00":
        return None
    stated = int.from_bytes(data[start + header - 4 : start + header], "little")
    wanted = rows * columns * allocated // 8
    if stated == 0xFFFFFFFF or stated < wanted or len(data) < start + header + wanted:
        return None
    kind: Any = np.uint8 if allocated == 8 else np.dtype("<u2")
    words: NDArray[Any] = np.frombuffer(data, kind, rows * columns, start + header).reshape(rows, columns)
    return words


def _dataset_with_pixels(data: bytes, name: str) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(io.BytesIO(data), force=not is_dicom(data))
    except Exception as e:  # hostile files raise whatever their bytes lead pydicom to
        raise ImageError(f"{name}: damaged DICOM file: {e}", hint="fetch it again: cxrprep verify ROOT --repair") from e


def _pixel_array(data: bytes, name: str, frame: int | None, *, raw: bool) -> NDArray[Any]:
    from pydicom.pixels.utils import pixel_array

    dataset = _dataset_with_pixels(data, name)
    if "PixelData" not in dataset:
        raise ImageError(f"{name}: DICOM without pixel data", hint="it may be a report or a header only")
    if not getattr(dataset.file_meta, "TransferSyntaxUID", None):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    try:
        pixels: NDArray[Any] = pixel_array(dataset, raw=raw, index=None if frame is None else frame - 1)
    except Exception as e:  # decoders of several libraries, each with errors of its own
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", "?")
        raise ImageError(
            f"{name}: pixel data ({getattr(syntax, 'name', syntax)}) cannot be decoded: {str(e).splitlines()[0]}",
            hint="for compressed files: pip install 'cxrprep[codecs]'; a damaged file: cxrprep verify ROOT --repair",
        ) from e
    return pixels


def _decoded_words(data: bytes, name: str, frame: int | None) -> NDArray[Any]:
    pixels = _pixel_array(data, name, frame, raw=True)
    if pixels.ndim != 2:
        raise ImageError(f"{name}: decoded to {pixels.ndim} dimensions, not to one grey image")
    if pixels.dtype.itemsize == 1:
        return np.ascontiguousarray(pixels).view(np.uint8)
    if pixels.dtype.itemsize == 2:
        return np.ascontiguousarray(pixels).view(np.uint16)
    raise ImageError(
        f"{name}: {pixels.dtype.itemsize * 8} bits a pixel", hint="only 8 and 16 bits allocated are radiographs"
    )


def _colour_as_grey(data: bytes, name: str, frame: int | None) -> NDArray[np.uint8] | NDArray[np.uint16]:
    from pydicom.pixels.processing import apply_color_lut

    dataset = _dataset_with_pixels(data, name)
    if str(dataset.get("PhotometricInterpretation")) == "PALETTE COLOR":
        pixels = apply_color_lut(_pixel_array(data, name, frame, raw=True), dataset)
        if pixels.dtype == np.uint16 and int(pixels.max()) <= 255:
            pixels = pixels.astype(np.uint8)
    else:
        pixels = _pixel_array(data, name, frame, raw=False)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name}: colour data of shape {pixels.shape} and type {pixels.dtype} is no radiograph")
    grey: NDArray[Any] = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return grey


def grey_rules(dataset: Any, words: NDArray[Any], notes: list[str]) -> GreyRules:
    """What the header says of the grey scale; values that break the standard are left out, and noted."""
    allocated = words.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") if dataset.get("HighBit") is not None else stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        notes.append(f"BitsStored {stored} and HighBit {high} do not fit {allocated} bits: all bits were taken")
        stored, high = allocated, allocated - 1
    signed = dataset.get("PixelRepresentation") == 1
    modality = _lut(_first(dataset, "ModalityLUTSequence"), signed, notes)
    padding = None
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if isinstance(value, int):
        other = limit if isinstance(limit, int) else value
        padding = (min(value, other), max(value, other))
    luts = [_lut(item, signed and modality is None, notes) for item in dataset.get("VOILUTSequence") or ()]
    return GreyRules(
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        slope=_number(dataset.get("RescaleSlope"), 1.0) or 1.0,
        intercept=_number(dataset.get("RescaleIntercept"), 0.0),
        modality=modality,
        luts=tuple(lut for lut in luts if lut is not None),
        windows=_windows(dataset, notes),
        padding=padding,
        inverted=str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1",
    )


def _first(dataset: Any, keyword: str) -> Any:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _number(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return (
        list(value)
        if isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str))
        else [value]
    )


def _windows(dataset: Any, notes: list[str]) -> tuple[Window, ...]:
    centres, widths = _many(dataset.get("WindowCenter")), _many(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        notes.append(f"unknown VOI LUT function {function!r} was taken as LINEAR")
        function = "LINEAR"
    explanations = [str(text) for text in _many(dataset.get("WindowCenterWidthExplanation"))]
    windows = []
    for number, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        c, w = _number(centre, math.nan), _number(width, math.nan)
        if math.isnan(c) or math.isnan(w) or w <= 0 or (function == "LINEAR" and w < 1):
            notes.append(f"window {number + 1} (centre {centre}, width {width}) is not valid and was left out")
            continue
        windows.append(Window(c, w, function, explanations[number] if number < len(explanations) else ""))
    if len(centres) != len(widths):
        notes.append("window centre and width do not come in pairs")
    return tuple(windows)


def _lut(item: Any, signed: bool, notes: list[str]) -> Lut | None:
    """A LUT item with its descriptor read as PS3.3 C.11.1.1.1 says; ``None`` for one that cannot be right."""
    if item is None:
        return None
    descriptor, data = _many(item.get("LUTDescriptor")), item.get("LUTData")
    if len(descriptor) != 3 or data is None:
        notes.append("a LUT without descriptor or data was left out")
        return None
    entries, first, bits = (int(v) for v in descriptor)
    entries = entries or 65536
    if signed and first > 32767:
        first -= 65536
    if isinstance(data, bytes | bytearray):
        packed = len(data) < 2 * entries
        values = np.frombuffer(data, np.uint8 if packed else np.dtype("<u2"))
    else:
        values = np.asarray(_many(data), np.int64) & 0xFFFF
        if len(values) * 2 == entries or len(values) * 2 == entries + 1:
            values = values.astype("<u2").view(np.uint8)
    values = values[:entries]
    if len(values) < 2:
        notes.append("a LUT without entries was left out")
        return None
    if len(values) < entries:
        notes.append(f"a LUT states {entries} entries and has {len(values)}")
    if not 8 <= bits <= 16:
        notes.append(f"a LUT states {bits} bits an entry")
        bits = max(8, int(values.max()).bit_length())
    return Lut(first, tuple(int(v) for v in values), bits, str(item.get("LUTExplanation") or ""))


def spacing(dataset: Any, notes: list[str]) -> tuple[float, float] | None:
    """Row and column spacing in mm: PixelSpacing, else ImagerPixelSpacing, else NominalScannedPixelSpacing."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = [_number(v, 0.0) for v in _many(dataset.get(keyword))]
        if len(values) == 2 and min(values) > 0:
            return values[0], values[1]
        if values:
            notes.append(f"{keyword} does not hold two positive numbers")
    return None
