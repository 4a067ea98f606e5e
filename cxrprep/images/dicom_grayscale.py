"""Grayscale of a DICOM header: Modality LUT, VOI LUT and windows (PS3.3 C.11), polarity, aspect and pixel spacing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cxrprep.images.dicom_lut import GrayscaleRules, Lut, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def grayscale_rules(dataset: Any, words: NDArray[Any], notes: list[str]) -> GrayscaleRules:
    """What the header says of the grey scale; values that break the standard are left out, and noted."""
    allocated = words.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") if dataset.get("HighBit") is not None else stored - 1)
    photometric, shape = code(dataset, "PhotometricInterpretation"), code(dataset, "PresentationLUTShape")
    # PS3.3 C.8.11.3: IDENTITY goes with MONOCHROME2, INVERSE with MONOCHROME1; in known bad files the shape is wrong.
    if (photometric, shape) in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        notes.append(f"PresentationLUTShape {shape} contradicts {photometric} and was ignored")
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        notes.append(f"BitsStored {stored} and HighBit {high} do not fit {allocated} bits: all bits were taken")
        stored, high = allocated, allocated - 1
    signed = dataset.get("PixelRepresentation") == 1
    modality = _lut(_first(dataset, "ModalityLUTSequence"), signed, notes)
    padding = None
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if isinstance(value, int):
        ends = [_as_stored(end, stored, allocated, signed=signed) for end in (value, limit) if isinstance(end, int)]
        padding = (min(ends), max(ends))
    luts = [_lut(item, signed and modality is None, notes) for item in dataset.get("VOILUTSequence") or ()]
    notes += [
        f"a VOI LUT states {lut.bits} bits and its entries need {lut.bits_used}"
        for lut in luts
        if lut is not None and lut.bits_used != lut.bits
    ]
    return GrayscaleRules(
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        slope=_number(dataset.get("RescaleSlope"), 1.0) or 1.0,
        intercept=_number(dataset.get("RescaleIntercept"), 0.0),
        modality=modality,
        luts=tuple(lut for lut in luts if lut is not None),
        windows=_windows(dataset, notes),
        padding=padding,
        inverted=photometric == "MONOCHROME1",
        rescaled=dataset.get("RescaleSlope") is not None and dataset.get("RescaleIntercept") is not None,
    )


def _as_stored(value: int, stored: int, allocated: int, *, signed: bool) -> int:
    """A padding value that was written with the sign of the other kind of pixels (US for SS, PS3.5 6.2)."""
    if signed and value >= 1 << (stored - 1):
        return value - (1 << allocated)
    return value + (1 << allocated) if value < 0 and not signed else value


def code(dataset: Any, keyword: str) -> str:
    """A code string (VR CS) in the upper case that it should have."""
    return str(dataset.get(keyword) or "").strip().upper()


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
        notes.append("an unknown VOI LUT function was taken as LINEAR")
        function = "LINEAR"
    explanations = [str(text) for text in _many(dataset.get("WindowCenterWidthExplanation"))]
    windows = []
    for number, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        c, w = _number(centre, math.nan), _number(width, math.nan)
        if math.isnan(c) or math.isnan(w) or w <= 0 or (function == "LINEAR" and w < 1):
            notes.append(f"window {number + 1} (centre {c:g}, width {w:g}) is not valid and was left out")
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


def aspect(dataset: Any, stated: tuple[float, float] | None) -> float | None:
    """Height of a pixel by its width: by spacing, else by PixelAspectRatio (PS3.3 C.7.6.3.1.7)."""
    if stated is not None:
        return stated[0] / stated[1]
    ratio = [_number(v, 0.0) for v in _many(dataset.get("PixelAspectRatio"))]
    return ratio[0] / ratio[1] if len(ratio) == 2 and min(ratio) > 0 else None


def spacing(dataset: Any, notes: list[str]) -> tuple[float, float] | None:
    """Row and column spacing in mm: PixelSpacing, else ImagerPixelSpacing, else NominalScannedPixelSpacing."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = [_number(v, 0.0) for v in _many(dataset.get(keyword))]
        if len(values) == 2 and min(values) > 0:
            return values[0], values[1]
        if values:
            notes.append(f"{keyword} does not hold two positive numbers")
    return None
