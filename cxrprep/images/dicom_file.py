"""DICOM files: their header parsed, deflated ones inflated; no tag that could identify a person is looked at."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import IMAGE_AGAIN, ImageError
from cxrprep.images import codecs
from cxrprep.images.dicom_grayscale import code
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_META: Final = 1024
_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"
# What a parser says may quote the value that it could not read, and that may name a patient: its words stay inside.
CHECK_FILE: Final = "check what the file is"


def is_dicom(data: bytes) -> bool:
    """Whether the file has the preamble and prefix of PS3.10 7.1."""
    return data[128:132] == b"DICM"


def is_named(data: bytes, name: str) -> bool:
    """Whether the file is DICOM by its bytes, or by its name: old ones lack the preamble."""
    return is_dicom(data) or name.lower().endswith((".dcm", ".dicom"))


@dataclass(slots=True)
class DicomFile:
    """A DICOM file whose header is parsed: ``dataset`` has no pixels yet, which begin at ``start`` of ``data``.

    ``data`` is inflated where the file is deflated. ``oddities`` are harmless things that a person may want to know.
    """

    name: str
    data: bytes
    dataset: Any
    start: int
    deflated: bool = False
    oddities: tuple[str, ...] = ()

    @property
    def has_pixel_element(self) -> bool:
        """Whether the pixel data element begins where the header ends; pydicom drops one whose end is missing."""
        return self.data[self.start : self.start + 4] == _PIXEL_DATA


def is_deflated(data: bytes) -> bool:
    """Whether a file, or its head, is one whose data set is deflated."""
    return _DEFLATED in data[:_META]


def open_dicom(data: bytes, name: str, limits: ImageLimits = DEFAULT_LIMITS) -> DicomFile:
    """Parse the header of a file. Raises ``ImageError``."""
    oddities: tuple[str, ...] = ()
    deflated = is_deflated(data)
    if deflated:
        data, oddities = _inflated(data, name, limits)
    stream = io.BytesIO(data)
    return DicomFile(name, data, _parse(stream, data, name), stream.tell(), deflated, oddities)


def read_header(data: bytes, name: str) -> tuple[Any, int]:
    """The data set without its pixels, and the byte where the pixel data element begins. Raises ``ImageError``."""
    file = open_dicom(data, name)
    return file.dataset, file.start


def _parse(stream: io.BytesIO, data: bytes, name: str) -> Any:
    import pydicom

    _keep_to_itself()
    try:
        with warnings.catch_warnings():
            # What breaks the standard without harm is pydicom's to say, once a file and to nobody.
            warnings.simplefilter("ignore")
            return pydicom.dcmread(stream, stop_before_pixels=True, force=not is_dicom(data))
    except Exception as e:  # hostile files raise whatever their bytes lead pydicom to
        raise ImageError(f"{name}: not a readable DICOM file ({type(e).__name__})", hint=CHECK_FILE) from e


@functools.cache
def _keep_to_itself() -> None:
    """What pydicom warns of quotes values of headers, whoever asks for them and whenever: nobody is told."""
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")


def _inflated(data: bytes, name: str, limits: ImageLimits) -> tuple[bytes, tuple[str, ...]]:
    """The same file in explicit VR little endian, of which deflate is only a wrapping (PS3.5 A.5)."""
    group = data.find(b"\x02\x00\x00\x00UL\x04\x00", 0, 256)
    if group < 0:
        raise ImageError(f"{name}: not a readable DICOM file: deflated, without a meta group", hint=IMAGE_AGAIN)
    start = group + 12 + int.from_bytes(data[group + 8 : group + 12], "little")
    try:
        body, behind = codecs.inflate(data[start:], limits.size + 1)
    except ValueError as e:
        if "more than" in str(e):
            raise ImageError(f"{name}: inflates to more than the limit of {limits.size:,} bytes") from e
        raise ImageError(f"{name}: the deflated data set is damaged: {e}", hint=IMAGE_AGAIN) from e
    meta = data[:start].replace(_DEFLATED, _DEFLATED[:-3] + b"\0\0\0", 1)
    return meta + body, (("bytes follow the deflated data set",) if behind > 1 else ())


def dicom_header(dataset: Any, name: str) -> tuple[int, int, str]:
    """Width, height and photometric interpretation. Raises ``ImageError`` when there is no image."""
    with header_values(name):
        rows, columns = dataset.get("Rows"), dataset.get("Columns")
        photometric = code(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if not isinstance(rows, int) or not isinstance(columns, int) or rows < 1 or columns < 1:
        raise ImageError(
            f"{name}: DICOM without an image (no Rows and Columns)", hint="it may be a report or a directory"
        )
    return columns, rows, photometric


@contextlib.contextmanager
def header_values(name: str) -> Iterator[None]:
    """Turn what a damaged value makes pydicom raise into ``ImageError``; values are read when they are asked for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Exception as e:
        raise ImageError(f"{name}: a value in the header cannot be read ({type(e).__name__})", hint=CHECK_FILE) from e
