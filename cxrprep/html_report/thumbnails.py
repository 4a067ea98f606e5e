"""The contact sheet: a few images of the folder as small JPEGs inside the page."""

from __future__ import annotations

import base64
import heapq
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2

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


def sample_paths(paths: Sequence[str], count: int) -> list[int]:
    """Positions of up to ``count`` paths, drawn by a hash of the path: the same folder shows the same images."""
    # measured: 0.3 s for 377,110 paths, where a SHA-256 of each and a full sort took 2.2 s.
    first = heapq.nsmallest(
        count, range(len(paths)), key=lambda index: (zlib.crc32(paths[index].encode()), paths[index])
    )
    return sorted(first, key=lambda index: paths[index])


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
