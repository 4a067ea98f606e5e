"""Draws phantom chest radiographs: no patient, no real pixel, yet recognisable enough to judge a conversion by eye.

``radiograph(rng, ...)`` gives one; the same generator state gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


def _ellipse(
    size: int, centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0
) -> NDArray[np.float32]:
    """A soft-edged filled ellipse, 0 to 1; ``centre`` and ``axes`` as fractions of ``size``."""
    canvas = np.zeros((size, size), np.float32)
    middle = (round(centre[0] * size), round(centre[1] * size))
    cv2.ellipse(canvas, middle, (round(axes[0] * size), round(axes[1] * size)), angle, 0, 360, 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), size / 120), np.float32)


def _ribs(size: int, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = np.zeros((size, size), np.float32)
    for number in range(9):
        top = (0.17 + 0.075 * number + rng.normal(0, 0.003)) * size
        centre = (round((0.5 + side * 0.18) * size), round(top + 0.11 * size))
        axes = (round((0.17 + 0.012 * min(number, 5)) * size), round(0.13 * size))
        start, end = (200, 330) if side > 0 else (210, 340)
        cv2.ellipse(canvas, centre, axes, side * 8, start, end, 1.0, max(2, size // 70), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), size / 260), np.float32)


def radiograph(
    rng: np.random.Generator,
    *,
    size: int = 1024,
    findings: Collection[str] = (),
    female: bool = False,
) -> tuple[NDArray[np.uint8], dict[str, tuple[float, float, float, float]]]:
    """A frontal radiograph, (size, size) uint8, bone white, and the box (x, y, w, h in pixels) of each drawn finding.

    Draws Cardiomegaly, Effusion, Pneumothorax, Mass, Nodule, Infiltration, Pneumonia, Consolidation and Atelectasis;
    other findings leave no mark and have no box.
    """
    shift = rng.normal(0, 0.01)
    boxes: dict[str, tuple[float, float, float, float]] = {}
    image = 0.55 * _ellipse(size, (0.5 + shift, 0.62), (0.43, 0.62))
    image += 0.15 * _ellipse(size, (0.5 + shift, 0.05), (0.11, 0.2))
    lungs = np.maximum(
        _ellipse(size, (0.31 + shift, 0.46), (0.125, 0.31), 4), _ellipse(size, (0.69 + shift, 0.46), (0.125, 0.31), -4)
    )
    image -= 0.42 * lungs
    image += 0.22 * _ellipse(size, (0.5 + shift, 0.5), (0.075, 0.5))
    heart = (0.155 if "Cardiomegaly" in findings else 0.105) + rng.normal(0, 0.004)
    centre = (0.545 + shift, 0.62)
    image += 0.27 * _ellipse(size, centre, (heart, 0.13), -35)
    if "Cardiomegaly" in findings:
        boxes["Cardiomegaly"] = _box(size, centre, heart, 0.14)
    image += 0.3 * _ellipse(size, (0.3 + shift, 0.88), (0.17, 0.13)) + 0.28 * _ellipse(
        size, (0.7 + shift, 0.9), (0.17, 0.13)
    )
    image += 0.07 * (_ribs(size, -1, rng) + _ribs(size, 1, rng))
    for row in np.arange(0.12, 0.9, 0.055):
        image += 0.035 * _ellipse(size, (0.5 + shift, float(row)), (0.035, 0.02))
    if female:
        image += 0.06 * (_ellipse(size, (0.28, 0.7), (0.15, 0.12)) + _ellipse(size, (0.72, 0.7), (0.15, 0.12)))

    side = 1 if rng.random() < 0.5 else -1
    x = 0.5 + shift + side * 0.19
    blobs = {"Infiltration": (0.07, 0.06, 0.10), "Pneumonia": (0.08, 0.07, 0.16), "Consolidation": (0.08, 0.08, 0.2)}
    for name, (across, down, density) in blobs.items():
        if name in findings:
            spot = (x + rng.normal(0, 0.01), 0.5 + rng.normal(0, 0.06))
            patch = _ellipse(size, spot, (across, down))
            image += (
                density
                * patch
                * (0.7 + 0.3 * cv2.GaussianBlur(rng.random((size, size), np.float32), (0, 0), size / 60))
            )
            boxes[name] = _box(size, spot, across, down)
    for name, radius, density in (("Nodule", 0.014, 0.24), ("Mass", 0.04, 0.26)):
        if name in findings:
            spot = (x - side * rng.uniform(0, 0.05), rng.uniform(0.3, 0.6))
            image += density * _ellipse(size, spot, (radius, radius))
            boxes[name] = _box(size, spot, radius, radius)
    if "Atelectasis" in findings:
        spot = (x, 0.66)
        image += 0.2 * _ellipse(size, spot, (0.09, 0.012), side * 12)
        boxes["Atelectasis"] = _box(size, spot, 0.09, 0.025)
    if "Effusion" in findings:
        spot = (0.5 + shift + side * 0.22, 0.78)
        image += 0.3 * _ellipse(size, spot, (0.11, 0.1))
        boxes["Effusion"] = _box(size, spot, 0.11, 0.1)
    if "Pneumothorax" in findings:
        spot = (0.5 + shift - side * 0.2, 0.25)
        image -= 0.1 * _ellipse(size, spot, (0.09, 0.08))
        boxes["Pneumothorax"] = _box(size, spot, 0.09, 0.08)

    texture = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 2.0)
    image += 0.02 * texture + rng.normal(0, 0.008, (size, size)).astype(np.float32)
    return np.clip(image * 255, 0, 255).astype(np.uint8), boxes


def _box(size: int, centre: tuple[float, float], across: float, down: float) -> tuple[float, float, float, float]:
    left, top = max(0.0, (centre[0] - across) * size), max(0.0, (centre[1] - down) * size)
    right, bottom = min(size, (centre[0] + across) * size), min(size, (centre[1] + down) * size)
    return (round(left, 3), round(top, 3), round(right - left, 3), round(bottom - top, 3))
