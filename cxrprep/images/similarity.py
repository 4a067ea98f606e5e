"""Similarity of two radiographs by their pixels: fingerprints that find candidates, and an alignment that proves them.

All chest radiographs look alike: at one false pair in 100,000, hashes of 64 bits find nothing, and a release of 112,120
images has 6,000,000,000 pairs. So a fingerprint of local contrast names the nearest few, and each of these is proven:
both images are aligned (ECC, Evangelidis and Psarakis 2008) and their fine detail is correlated. Brightness, contrast,
inversion, JPEG, small turns, crops and shifts, borders and burnt-in text do not hide a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cxrprep.images.transforms import shown_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrprep.images.radiograph import Radiograph

THUMBNAIL: Final = 64
DETAIL: Final = 256
# 114 radiographs of NIH ChestX-ray14 (51 pairs of one patient): of the 250 closest pairs of different patients none
# was above 0.25. Of altered copies (JPEG, gamma, equalised, turned up to 5 degrees, cut by 8 %, padded by 10 %, text)
# all were above 0.3, and all but those cut by 8 % above 0.6.
RELATED: Final = 0.3
SAME_EXPOSURE: Final = 0.65
# What a coarse alignment at 64 x 64 must reach before the fine one is made: copies reached 0.80 and more, and three
# quarters of the closest pairs of different patients 0.77 and less. It takes a sixth of the time.
_COARSE: Final = 0.78
_SIDE: Final = 32
FINGERPRINT: Final = _SIDE**2
# Levels that a row or column must span to be no border.
_BORDER: Final = 8
# Shares of each side that are cut off for the fingerprints of an image, so that a cropped copy meets one of them.
_CUTS: Final = (0.0, 0.04, 0.08)
CUTS: Final = range(len(_CUTS))


def reduced(picture: Radiograph) -> NDArray[np.uint8]:
    """An image as DICOM says that it is shown, without uniform borders: ``DETAIL`` x ``DETAIL`` grey levels."""
    shown = shown_sample(picture, 8 * DETAIL)
    eight = shown if shown.dtype == np.uint8 else (shown >> 8).astype(np.uint8)
    return cv2.resize(_without_borders(eight), (DETAIL, DETAIL), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def thumbnail(detail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What ``reduced`` gave at ``THUMBNAIL`` x ``THUMBNAIL``: enough for fingerprints and the coarse alignment."""
    return cv2.resize(detail, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def fingerprints(thumbnails: NDArray[np.uint8], cut: int = 0) -> NDArray[np.float32]:
    """Unit vectors of 1,024 numbers, a row an image of ``thumbnails`` (n x 64 x 64).

    The absolute cosine of two says how alike the images are.
    ``cut`` is an index of ``CUTS``: how much of each side is left out.
    """
    edge = round(_CUTS[cut] * THUMBNAIL)
    rows = np.empty((len(thumbnails), FINGERPRINT), np.float32)
    for row, image in zip(rows, thumbnails, strict=True):
        part = image[edge : THUMBNAIL - edge, edge : THUMBNAIL - edge]
        row[:] = _local_contrast(part, _SIDE, 3.0).ravel()
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6
    return rows


def coarse_alignment(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """The affine map between two thumbnails, for ``correlation``; ``None`` where they cannot be copies."""
    a, b = _signed(first, second, THUMBNAIL, THUMBNAIL / 16)
    reached, matrix = _align(a, b, np.eye(2, 3, dtype=np.float32), 15, 3)
    return matrix if reached >= _COARSE else None


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8], start: NDArray[np.float32]) -> float:
    """The correlation of the detail of two images after their alignment, from -1 to 1; negative for an inverted copy.

    Args:
        first: What ``reduced`` gave of one image.
        second: And of the other.
        start: What ``coarse_alignment`` gave of their thumbnails.

    Returns:
        0 where too little of them overlaps, or no alignment is found.
    """
    half = DETAIL // 2
    a, b = _signed(first, second, half, half / 16)
    matrix = start.copy()
    matrix[:, 2] *= half / THUMBNAIL
    reached, matrix = _align(a, b, matrix, 40, 5)
    if not reached:
        return 0.0
    matrix[:, 2] *= DETAIL / half
    one, other = (_local_contrast(image, DETAIL, 4.0) for image in (first, second))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, matrix, (DETAIL, DETAIL), flags=flags)
    inside = cv2.warpAffine(np.ones_like(other), matrix, (DETAIL, DETAIL), flags=flags) > 0.999
    inside[:8] = inside[-8:] = False
    inside[:, :8] = inside[:, -8:] = False
    if inside.mean() < RELATED:
        return 0.0
    return float(np.corrcoef(one[inside], moved[inside])[0, 1])


def _without_borders(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image without rows and columns at its sides that hold one grey level, or nearly."""
    rows, columns = (np.flatnonzero(np.ptp(image.astype(np.int16), axis=axis) > _BORDER) for axis in (1, 0))
    if min(rows.size, columns.size) < _SIDE:
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _local_contrast(image: NDArray[Any], side: int, sigma: float) -> NDArray[np.float32]:
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = small - cv2.GaussianBlur(small, (0, 0), sigma)
    deviation = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), sigma)) + np.float32(1)
    return (detail / deviation).astype(np.float32, copy=False)


def _signed(
    first: NDArray[np.uint8], second: NDArray[np.uint8], side: int, sigma: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The local contrast of both; of the second with the sign that fits, since an inverted copy is a copy."""
    a, b = (_local_contrast(image, side, sigma) for image in (first, second))
    return a, (-b if float((a * b).sum()) < 0 else b)


def _align(
    a: NDArray[np.float32], b: NDArray[np.float32], start: NDArray[np.float32], steps: int, blur: int
) -> tuple[float, NDArray[np.float32]]:
    """The correlation that an affine alignment reaches, and its matrix; 0 where it does not converge."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, steps, 1e-5)
    try:
        reached, matrix = cv2.findTransformECC(a, b, start, cv2.MOTION_AFFINE, criteria, None, blur)  # type: ignore[call-overload]  # None: all of it
    except cv2.error:
        return 0.0, start
    return float(reached), matrix.astype(np.float32)
