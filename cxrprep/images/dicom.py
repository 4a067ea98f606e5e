"""DICOM files: pixel data to stored values, and the rules of the header for their grey scale.

Uncompressed pixels are used where they lie in the file, compressed grey ones are decoded by ``codecs``, what is left
(colour, big endian, bits packed in bytes, syntaxes that are new) by pydicom. No tag that could identify a person is
looked at.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cxrprep.errors import IMAGE_AGAIN, ImageError
from cxrprep.extras import install_command
from cxrprep.images import codec_headers, codecs
from cxrprep.images.dicom_file import CHECK_FILE, DicomFile, dicom_header, header_values, open_dicom
from cxrprep.images.dicom_grayscale import aspect, code, grayscale_rules, spacing
from cxrprep.images.dicom_lut import GrayscaleRules
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits, Radiograph, check_frame, one_channel, radiograph_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


_NATIVE: Final = {"1.2.840.10008.1.2": 8, "1.2.840.10008.1.2.1": 12}
_UID: Final = re.compile(r"[0-9.]{1,64}")
_OTHER_SYNTAX: Final = "save it uncompressed, for example with gdcmconv --raw or dcmdjpeg"
_UNCOMPRESSED: Final = "uncompressed"
_ITEM: Final = b"\xfe\xff\x00\xe0"
_DELIMITER: Final = b"\xfe\xff\xdd\xe0"
_UNDEFINED: Final = b"\xff\xff\xff\xff"
_TRAILING_PADDING: Final = b"\xfc\xff\xfc\xff"
# pydicom's words for a syntax that none of its installed decoders knows.
_NO_DECODER: Final = ("missing dependencies", "no available", "not supported")


def _unquoted(text: str) -> str:
    """The first line of what a library says, without what it quotes: that may be a value of the header."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|b'.*", "...", text.splitlines()[0]).rstrip(":") if text else "no reason given"


def decode_dicom(
    data: bytes | DicomFile, name: str, limits: ImageLimits = DEFAULT_LIMITS, *, frame: int | None = None
) -> Radiograph:
    """The radiograph in a DICOM file.

    Args:
        data: The bytes, or the file with its header parsed.
        name: The file's name, for errors.
        limits: Pixels and bytes beyond which it is refused.
        frame: Counts from 1, and is needed for a file of several; for one of one it says nothing.

    Returns:
        Stored values with the rules of their grey scale.

    Raises:
        ImageError: No pixels, damaged or unknown pixel data, or more than ``limits``.
    """
    with header_values(name):
        file = data if isinstance(data, DicomFile) else open_dicom(data, name, limits)
        return _decode(file, limits, frame)


def _decode(file: DicomFile, limits: ImageLimits, frame: int | None) -> Radiograph:
    dataset = file.dataset
    columns, rows, photometric = dicom_header(dataset, file.name)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if rows * columns > limits.pixels:
        raise ImageError(
            f"{file.name}: {columns} x {rows} pixels are more than the limit of {limits.pixels:,}",
            hint="raise it with --max-pixels when the file is genuine",
        )
    check_frame(file.name, frames, frame)
    notes: list[str] = list(file.oddities)
    source: _PixelData | None = None
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples == 1 and photometric.startswith("MONOCHROME"):
        words = _native_words(file, rows, columns, notes) if frames == 1 else None
        if words is None:
            source = _PixelData(file, frame, frames, notes)
            words = _decoded_words(source, rows, columns, notes)
        rules = grayscale_rules(dataset, words, notes)
        picture = radiograph_of(words, rules.bits_stored, photometric, rules, notes)
    else:
        source = _PixelData(file, frame, frames, notes)
        grey = _colour_as_grey(source, rows, columns, notes)
        bits = 16 if grey.dtype == np.uint16 else 8
        picture = radiograph_of(grey, bits, photometric, GrayscaleRules(bits, bits - 1), notes)
    picture.codec = _UNCOMPRESSED if source is None else source.codec
    picture.spacing_mm = spacing(dataset, notes)
    picture.stated_aspect = aspect(dataset, picture.spacing_mm)
    return picture


def _native_words(file: DicomFile, rows: int, columns: int, notes: list[str]) -> NDArray[Any] | None:
    """The words of uncompressed pixel data where they lie in the file; ``None`` for any other layout."""
    data, start = file.data, file.start
    header = _NATIVE.get(str(getattr(getattr(file.dataset, "file_meta", None), "TransferSyntaxUID", "") or ""))
    allocated = file.dataset.get("BitsAllocated")
    if header is None or allocated not in (8, 16) or not file.has_pixel_element:
        return None
    stated = int.from_bytes(data[start + header - 4 : start + header], "little")
    wanted = rows * columns * allocated // 8
    if stated == 0xFFFFFFFF or stated < wanted or len(data) < start + header + wanted:
        return None
    if (
        file.deflated
        and data[start + header + stated :].strip(b"\0")
        and data[start + header + stated : start + header + stated + 4] != _TRAILING_PADDING
    ):
        # Deflate has no checksum: damage shows in the length of what comes out alone.
        raise ImageError(
            f"{file.name}: the deflated data set is damaged: it does not end with its pixels", hint=IMAGE_AGAIN
        )
    if stated > wanted + (wanted & 1):
        notes.append("the pixel data is longer than the image")
    kind: Any = np.uint8 if allocated == 8 else np.dtype("<u2")
    words: NDArray[Any] = np.frombuffer(data, kind, rows * columns, start + header).reshape(rows, columns)
    return words


class _PixelData:
    """The pixel data of a file that is read whole: its frame as bytes, or decoded by pydicom."""

    def __init__(self, file: DicomFile, frame: int | None, frames: int, notes: list[str]) -> None:
        self.name, self.dataset = file.name, file.dataset
        self._index, self._frames, self._notes = (frame or 1) - 1, frames, notes
        self.codec = _UNCOMPRESSED
        _read_pixels(file)
        if "PixelData" not in self.dataset and not self._without_end(file):
            if file.has_pixel_element:
                raise ImageError(f"{self.name}: pixel data is cut short", hint=IMAGE_AGAIN)
            raise ImageError(f"{self.name}: DICOM without pixel data", hint="it may be a report or a header only")
        meta = self.dataset.file_meta
        if not getattr(meta, "TransferSyntaxUID", None):
            # A data set without its file header: pydicom has found out by trying.
            implicit, _ = self.dataset.original_encoding
            meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit is not False else "1.2.840.10008.1.2.1"
        self.syntax = meta.TransferSyntaxUID

    @property
    def syntax_name(self) -> str:
        """The transfer syntax in words where the registry of pydicom has it."""
        return (
            codec_headers.stated_codec(self.syntax) if self.syntax.name == str(self.syntax) else str(self.syntax.name)
        )

    def _without_end(self, file: DicomFile) -> bool:
        """Take encapsulated pixel data up to the end of the file where its end mark alone is missing."""
        header = 8 if file.dataset.original_encoding[0] else 12
        start = file.start + header
        if not file.has_pixel_element or file.data[start - 4 : start] != _UNDEFINED:
            return False
        self.dataset.add_new("PixelData", "OB", file.data[start:])
        self.dataset["PixelData"].is_undefined_length = True
        self._notes.append("the pixel data has no end mark")
        return True

    def frame(self) -> bytes | None:
        """The codestream of the frame; ``None`` for pixels that are not compressed.

        Whether there is one is seen by the bytes: some writers encapsulate under the syntax of plain words.
        """
        element = self.dataset["PixelData"]
        if element.is_undefined_length or (element.value[:4] == _ITEM and codec_headers.stated_codec(self.syntax)):
            try:
                stream = self._stream(element.value)
            except Exception as e:  # fragments of hostile files
                raise ImageError(
                    f"{self.name}: pixel data ({self.syntax_name}) is cut short: {_unquoted(str(e))}", hint=IMAGE_AGAIN
                ) from e
        elif codec_headers.stated_codec(self.syntax) and self._frames == 1:
            self._notes.append("the compressed pixels are not encapsulated")
            stream = bytes(element.value)
        else:
            return None
        self.codec = codec_headers.codec_of(stream) or codec_headers.stated_codec(self.syntax) or str(self.syntax)
        return stream

    def _stream(self, value: bytes) -> bytes:
        """One frame put together. The offset table is asked only where fragments do not tell which are its own."""
        from pydicom.encaps import encapsulate, get_frame

        table, fragments = _fragments(value)
        if self._frames == 1 and table not in (b"", bytes(4)):
            self._notes.append("the offset table does not fit the fragments")
        if self._frames not in (1, len(fragments)):
            stream: bytes = get_frame(value, self._index, number_of_frames=self._frames)
            return stream
        stream = b"".join(fragments) if self._frames == 1 else fragments[self._index]
        if self._frames == 1:
            # For pydicom too, which trusts the table.
            self.dataset["PixelData"].value = encapsulate([stream])
        return stream

    def by_codec(self, decode: Callable[[bytes], NDArray[Any] | None], rows: int, columns: int) -> NDArray[Any] | None:
        """What ``decode`` makes of the frame; ``None`` for pixels that are not compressed."""
        frame = self.frame()
        if frame is None:
            return None
        stated = codec_headers.frame_size(frame)
        # A decoder would make room for what the codestream states.
        if stated is not None and stated != (columns, rows):
            raise ImageError(
                f"{self.name}: the compressed pixels are {stated[0]} x {stated[1]}, the header says {columns} x {rows}",
                hint=IMAGE_AGAIN,
            )
        try:
            return decode(frame)
        except ValueError as e:
            raise ImageError(
                f"{self.name}: pixel data ({self.syntax_name}) cannot be decoded: {_unquoted(str(e))}",
                hint=f"it may be damaged; {IMAGE_AGAIN}",
            ) from e

    def array(self, *, raw: bool) -> NDArray[Any]:
        """The samples as pydicom decodes them, in this machine's byte order; ``raw`` keeps colour spaces."""
        from pydicom.pixels.utils import pixel_array

        if not (self.syntax.is_transfer_syntax or codec_headers.stated_codec(self.syntax)) or self.syntax.is_private:
            # Of a header nothing is quoted but what the standard gives a form that no name has.
            stated = f" {self.syntax}" if _UID.fullmatch(self.syntax) else ""
            raise ImageError(
                f"{self.name}: the transfer syntax{stated} is not one that cxrprep reads", hint=_OTHER_SYNTAX
            )
        index = self._index if self._frames > 1 else None
        try:
            pixels: NDArray[Any] = pixel_array(self.dataset, raw=raw, index=index)
        except BaseException as e:  # decoders of several libraries; those in Rust panic past Exception
            if isinstance(e, KeyboardInterrupt | SystemExit):
                raise
            text = str(e) or type(e).__name__
            if "less than expected" in text:
                raise ImageError(f"{self.name}: pixel data is cut short: {_unquoted(text)}", hint=IMAGE_AGAIN) from e
            lacking = any(words in text for words in _NO_DECODER)
            reason = "no decoder is installed" if lacking else _unquoted(text)
            raise ImageError(
                f"{self.name}: pixel data ({self.syntax_name}) cannot be decoded: {reason}",
                hint=_lacking_hint() if lacking else f"it may be damaged; {IMAGE_AGAIN}",
            ) from e
        return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def _fragments(value: bytes) -> tuple[bytes, list[bytes]]:
    """The offset table and the fragments of encapsulated pixel data (PS3.5 A.4); the table may be missing.

    Raises ``ValueError`` where there is none, or one is not whole.
    """
    found, at = [], 0
    while value[at : at + 4] == _ITEM:
        end = at + 8 + int.from_bytes(value[at + 4 : at + 8], "little")
        if end > len(value):
            raise ValueError("a fragment ends behind the data")
        found.append(value[at + 8 : end])
        at = end
    if value[at : at + 4] != _DELIMITER and value[at:].strip(b"\0"):
        raise ValueError(f"no fragment begins at byte {at}")
    is_without_table = bool(found and codec_headers.codec_of(found[0]))
    fragments = found if is_without_table else found[1:]
    if not any(fragments):
        raise ValueError("there is no fragment")
    # An empty one holds nothing; of several frames it might stand for one.
    return b"" if is_without_table else found[0], fragments


def _lacking_hint() -> str:
    """What helps where no decoder was found: the extra, or another syntax when the extra is here already."""
    here = all(importlib.util.find_spec(name) is not None for name in ("pylibjpeg", "openjpeg", "gdcm"))
    return _OTHER_SYNTAX if here else install_command("codecs")


def _read_pixels(file: DicomFile) -> None:
    """Read on where the header ended: nothing is parsed twice."""
    from pydicom.filereader import read_dataset

    stream = io.BytesIO(file.data)
    stream.seek(file.start)
    implicit, little = file.dataset.original_encoding
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.dataset.update(read_dataset(stream, implicit is not False, little is not False))
    except Exception as e:  # hostile files raise whatever their bytes lead pydicom to
        raise ImageError(f"{file.name}: not a readable DICOM file ({type(e).__name__})", hint=CHECK_FILE) from e


def _decoded_words(pixels: _PixelData, rows: int, columns: int, notes: list[str]) -> NDArray[Any]:
    def grey(frame: bytes) -> NDArray[Any] | None:
        shape = codecs.FrameShape(rows, columns, int(pixels.dataset.BitsAllocated))
        return codecs.decode_frame(frame, pixels.syntax, shape, notes)

    words = pixels.by_codec(grey, rows, columns)
    if words is not None:
        return words
    decoded = pixels.array(raw=True)
    if decoded.ndim != 2:
        raise ImageError(f"{pixels.name}: decoded to {decoded.ndim} dimensions, not to one grey image")
    if decoded.dtype.kind not in "iu" or decoded.dtype.itemsize > 2:
        raise ImageError(
            f"{pixels.name}: {decoded.dtype.itemsize * 8} bits a pixel", hint="only 8 and 16 bits are radiographs"
        )
    return decoded.view(np.uint8 if decoded.dtype.itemsize == 1 else np.uint16)


def _colour_as_grey(pixels: _PixelData, rows: int, columns: int, notes: list[str]) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_color_lut

    stored = pixels.by_codec(lambda frame: codecs.check_colour(frame, pixels.syntax), rows, columns)
    photometric = code(pixels.dataset, "PhotometricInterpretation")
    if stored is not None and photometric == "RGB":
        colours = stored
    elif photometric == "PALETTE COLOR":
        colours = apply_color_lut(pixels.array(raw=True), pixels.dataset)
        if colours.dtype == np.uint16 and int(colours.max()) <= 255:
            colours = colours.astype(np.uint8)
    else:
        colours = pixels.array(raw=False)
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{pixels.name}: colour data of shape {colours.shape} and type {colours.dtype}",
            hint="a radiograph is grey, or has three colours of 8 or 16 bits",
        )
    return one_channel(colours[:, :, ::-1], notes)
