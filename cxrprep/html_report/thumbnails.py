"""The contact sheet: a few images of the folder as small JPEGs inside the page."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2

from cxrprep.errors import ImageError, StorageError, UnsafePathError
from cxrprep.html_report.svg_charts import data_address
from cxrprep.images.decode import decode, read_bytes
from cxrprep.images.geometry import Resize
from cxrprep.images.resample import reduction
from cxrprep.images.transforms import Voi
from cxrprep.storage.paths import inside

if TYPE_CHECKING:
    from pathlib import Path

_SIDE: Final = 192
_QUALITY: Final = 80
_SMALL: Final = Resize(longest=_SIDE)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image as a ``data:`` address, its sides in pixels; ``problem`` says why there is none."""

    path: str
    address: str = ""
    width: int = _SIDE
    height: int = _SIDE
    problem: str = ""


def thumbnail(root: Path, path: str) -> Thumbnail:
    """The image at ``root/path``, made small with the grey scale that its header asks for. Raises nothing."""
    # measured: 0.82 -> 0.57 s CPU for 24 JPEG files of 2,544 x 3,056 pixels.
    reduce = functools.partial(reduction, target=_SMALL.target)
    try:
        small = _SMALL(Voi()(decode(read_bytes(root / inside(path)), path, reduce=reduce)))
        done, encoded = cv2.imencode(".jpg", small.pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except (ImageError, StorageError, UnsafePathError) as error:
        return Thumbnail(path, problem=error.message)
    if not done:
        return Thumbnail(path, problem="cannot be written as JPEG")
    return Thumbnail(path, data_address("image/jpeg", encoded.tobytes()), small.width, small.height)


def sample_rows(rows: int, count: int) -> list[int]:
    """Up to ``count`` of so many rows, evenly spread, so that the same folder shows the same images."""
    return [index * rows // count for index in range(count)] if count < rows else [*range(rows)]
