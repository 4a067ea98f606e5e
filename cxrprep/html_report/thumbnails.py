"""The contact sheet: a few images of the folder as small JPEGs inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import ImageError, StorageError
from cxrprep.images.decode import decode, read_bytes
from cxrprep.images.transforms import Resize, Voi

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SIDE: Final = 192
_QUALITY: Final = 80


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image as a ``data:`` address, its sides in pixels; ``problem`` says why there is none."""

    path: str
    address: str = ""
    width: int = _SIDE
    height: int = _SIDE
    problem: str = ""


def sample_rows(paths: pa.ChunkedArray | Sequence[str], count: int) -> list[int]:
    """Positions of up to ``count`` paths, evenly spread over their order: the same folder shows the same images."""
    if not isinstance(paths, pa.ChunkedArray):
        paths = pa.chunked_array([pa.array(paths, pa.string())])
    order = pc.sort_indices(paths) if not _sorted(paths) else None
    drawn = [index * len(paths) // count for index in range(count)] if count < len(paths) else range(len(paths))
    return [place if order is None else order[place].as_py() for place in drawn]


def _sorted(paths: pa.ChunkedArray) -> bool:
    # A manifest is: to sort it again would take as long as all the rest of the page.
    return len(paths) < 2 or bool(pc.all(pc.less_equal(paths[:-1], paths[1:])).as_py())


def thumbnail(root: Path, path: str) -> Thumbnail:
    """The image at ``root/path``, made small with the grey scale that its header asks for. Raises nothing."""
    try:
        small = Resize(longest=_SIDE)(Voi()(decode(read_bytes(root / path), path)))
        done, encoded = cv2.imencode(".jpg", small.pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except (ImageError, StorageError) as error:
        return Thumbnail(path, problem=error.message)
    if not done:
        return Thumbnail(path, problem="cannot be written as JPEG")
    address = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
    return Thumbnail(path, address, small.width, small.height)
