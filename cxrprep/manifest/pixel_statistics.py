"""Pixels of the manifest's images: as grey values from 0 to 1, and their mean and standard deviation by split."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrprep.errors import ImageError
from cxrprep.events import Note, ignore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cxrprep.events import Sink


def grey(path: str | Path) -> NDArray[np.float32]:
    """The display values of an image file, rows x columns, 0 black to 1 white. Raises ``ImageError``."""
    from cxrprep.images.decode import decode, read_bytes
    from cxrprep.images.transforms import Voi

    path = Path(path)
    picture = Voi()(decode(read_bytes(path), str(path)))
    return picture.pixels.astype(np.float32) / np.float32(2**picture.bits - 1)


def moments(paths: Iterable[Path], *, sample: int, on_event: Sink = ignore) -> tuple[float, float, int] | None:
    """Mean and standard deviation over all pixels (0 to 1) of at most ``sample`` images, and how many these were.

    Images are drawn by a hash of their names, so the same folder gives the same numbers. ``None`` when none could be
    read; images that cannot be decoded are said and left out.
    """
    drawn = sorted(paths, key=lambda path: (hashlib.blake2b(path.name.encode(), digest_size=8).digest(), path))[:sample]
    count = total = squares = 0.0
    used = 0
    for path in drawn:
        try:
            pixels = grey(path).astype(np.float64)
        except ImageError as error:
            on_event(Note("export", f"left out of mean and deviation: {error}", "warning", str(path)))
            continue
        count += pixels.size
        total += float(pixels.sum())
        squares += float((pixels**2).sum())
        used += 1
    if not used:
        return None
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2)), used
