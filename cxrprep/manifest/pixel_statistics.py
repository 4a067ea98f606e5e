"""Pixels of the manifest's images, as grey values from 0 to 1: their mean and std (standard deviation) by split."""

from __future__ import annotations

import hashlib
import heapq
import math
from typing import TYPE_CHECKING

import numpy as np

from cxrprep.errors import ImageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.images.decode import decode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cxrprep.manifest.image_reader import ImageReader


def grey(data: bytes, name: str) -> NDArray[np.float32]:
    """The display values of an image file, rows x columns, 0 black to 1 white. Raises ``ImageError``."""
    from cxrprep.images.transforms import Voi

    picture = Voi()(decode(data, name))
    return picture.pixels.astype(np.float32) / np.float32(2**picture.bits - 1)


def moments(
    reader: ImageReader, paths: Iterable[str], *, sample: int, on_event: Sink = ignore
) -> tuple[float, float, int] | None:
    """Mean and standard deviation over all pixels (0 to 1) of some images.

    Images are drawn by a hash of their names, so the same folder gives the same numbers.

    Args:
        reader: Opens the images.
        paths: All of them.
        sample: How many are read at most.
        on_event: Told of images that cannot be decoded, which are left out.

    Returns:
        Both, with how many images these were; ``None`` when none could be read.
    """

    def lot(path: str) -> tuple[bytes, str]:
        return hashlib.blake2b(path.rpartition("/")[2].encode(), digest_size=8).digest(), path

    # Drawn by the hash, and read in the order in which they lie.
    drawn = sorted(heapq.nsmallest(sample, paths, key=lot))
    count = total = squares = 0.0
    used = 0
    for path in drawn:
        try:
            pixels = grey(reader.read(path), path).astype(np.float64)
        except ImageError as error:
            on_event(Note("export", f"left out of mean and deviation: {error}", "warning", path))
            continue
        count += pixels.size
        total += float(pixels.sum())
        squares += float((pixels**2).sum())
        used += 1
    if not used:
        return None
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2)), used
