"""Make the weights by which turned, mirrored and inverted radiographs and other images are found, from upright ones.

usage: python tools/train_orientation.py FOLDER [--hold-out SHARE] [--seed N] [--out FILE]
       python tools/train_orientation.py FOLDER --test

FOLDER holds upright, positive chest radiographs as PNG. Each is augmented: turned by up to 5 degrees, scaled by 0.92 to
1.1 and by 15 % more one way than the other, shifted by 5 %, gamma exp(+-0.4); now and then equalised, in whole or in
tiles, without its coarse shades, with a narrower window, or with bars of a collimator or of an empty cassette, as films
from the bedside have them. Of the 16 ways in which an image may lie a multinomial logistic regression has to find the
one in which it does, with one row of weights for all, fitted by full-batch Adam. What is no frontal chest radiograph is
found by its distance from the 20 strongest directions of the upright ones. With ``--hold-out`` that share of the images
is left out, and what the model makes of them is printed: recall of inverted and turned images, false alarms on the
originals. ``--test`` prints the same for the weights that are there, on a collection that they were not made of. Same
images, same seed, same weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from cxrprep.images.orientation import (  # noqa: E402  # the root comes first
    ALARM,
    CLASSES,
    FEATURES,
    SIDE,
    TURNED_ALARM,
    distance,
    features,
    probabilities,
    undone,
)

AUGMENTED = 24
PLAIN = 8
STEPS = 250
DECAY = 5e-3
WORKING = 160
DIRECTIONS = 20


def ways(grey: Any) -> list[Any]:
    """The image in all 16 ways, in the order of the classes."""
    made = []
    for inverted, turn, mirror in CLASSES:
        image = grey[:, ::-1] if mirror else grey
        image = np.rot90(image, turn)
        made.append(np.ascontiguousarray(255 - image if inverted else image))
    return made


def moved(grey: Any, rng: np.random.Generator, stretch: float = 0.0) -> Any:
    """The image a little turned, scaled, moved and of another gamma; each side longer or shorter by ``stretch``."""
    side = grey.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-5, 5), rng.uniform(0.92, 1.1))
    longer = np.exp(rng.uniform(-stretch, stretch, 2))
    turn *= longer[:, None]
    turn[:, 2] += (1 - longer) * side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    warped = cv2.warpAffine(grey, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    return np.rint(255 * (warped / 255.0) ** gamma).astype(np.uint8)


def between(shown: Any, low: float, high: float) -> Any:
    """The values between two percentiles spread over 0 to 255."""
    ends = np.percentile(shown, [low, high])
    return np.clip((shown.astype(np.float32) - ends[0]) * 255 / max(ends[1] - ends[0], 1), 0, 255).astype(np.uint8)


def augmented(grey: Any, rng: np.random.Generator) -> Any:
    """The image as another hospital may have made it."""
    shown, side = moved(grey, rng, 0.15), grey.shape[0]
    if rng.random() < 0.3:
        shown = cv2.createCLAHE(rng.uniform(1, 4), (8, 8)).apply(shown)
    if rng.random() < 0.2:
        shown = cv2.equalizeHist(shown)
    if rng.random() < 0.3:
        coarse = cv2.GaussianBlur(shown.astype(np.float32), (0, 0), rng.uniform(0.06, 0.2) * side)
        shown = between(shown - rng.uniform(0.3, 0.9) * coarse, 0.5, 99.5)
    if rng.random() < 0.3:
        shown = between(shown, rng.uniform(0, 8), 100 - rng.uniform(0, 8))
    bars = np.zeros(4, int)
    if rng.random() < 0.3:
        top, bottom, left, right = bars = rng.integers(0, int(0.15 * side), 4)
        shown = shown[top : side - bottom, left : side - right]
    if rng.random() < 0.2:
        bars[rng.integers(0, 4)] += rng.integers(int(0.06 * side), int(0.38 * side))
    if bars.any():
        bar = int(rng.choice([0, 255], p=[0.65, 0.35]))
        top, bottom, left, right = map(int, bars)
        shown = cv2.copyMakeBorder(shown, top, bottom, left, right, cv2.BORDER_CONSTANT, value=bar)
    return cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)


def small(grey: Any) -> Any:
    """64 x 64, as the detector sees it."""
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def samples(images: list[Any], rng: np.random.Generator) -> Any:
    """Features of all images, as they are and augmented: (images x AUGMENTED, 768)."""
    shown = (augmented(grey, rng) if number else grey for grey in images for number in range(AUGMENTED))
    return np.stack([features(small(grey)) for grey in shown])


def fitted(upright: Any) -> Any:
    """The weights (768) of the regression: of all ways that an image may lie, the first is the truth."""
    x = np.stack([undone(row) for row in upright])
    flat = x.reshape(-1, FEATURES)
    weights = np.zeros(FEATURES, np.float32)
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        logits = (flat @ weights).reshape(len(x), len(CLASSES))
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        shares[:, 0] -= 1
        slope = shares.ravel() @ flat / len(x) + DECAY * weights
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        weights -= 0.02 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


def spanned(upright: Any) -> dict[str, Any]:
    """The space that features of upright radiographs span: mean, directions, and how far they are from it."""
    mean = upright.mean(axis=0).astype(np.float16)
    directions = np.linalg.svd(upright - upright.mean(axis=0), full_matrices=False)[2][:DIRECTIONS].astype(np.float16)
    away = [distance(row, mean.astype(np.float32), directions.astype(np.float32)) for row in upright]
    return {
        "mean": mean,
        "directions": directions,
        "distances": np.asarray([np.mean(away), np.std(away)], np.float16),
    }


def report(images: list[Any], weights: Any) -> None:
    """Print recall and false alarms of the detector with these weights."""
    held = np.asarray([[probabilities(undone(features(small(way))), weights) for way in ways(grey)] for grey in images])
    inverted = held[:, :, 1].sum(axis=(2, 3))
    turned = 1 - held[:, :, :, 0].sum(axis=(2, 3))
    is_inverted = np.asarray([way[0] for way in CLASSES], bool)
    is_turned = np.asarray([way[1] != 0 for way in CLASSES], bool)
    print(f"{len(images)} images that the weights were not made of, 16 ways each")
    for name, score, truth, alarm in (
        ("inverted", inverted, is_inverted, ALARM),
        ("turned", turned, is_turned, TURNED_ALARM),
    ):
        recall, alarms = (score[:, truth] > alarm).mean(), (score[:, :1] > alarm).mean()
        print(f"{name}: recall {recall:.2%}, false alarms on the originals {alarms:.2%}")
    mirrored = held[:, :, :, :, 1].sum(axis=(2, 3))
    of_mirrored, as_they_are = ((mirrored[:, way] > ALARM).mean() for way in (1, 0))
    print(f"called mirrored: {of_mirrored:.2%} of the mirrored, {as_they_are:.2%} as they are")


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description="Make the weights of cxrprep.images.orientation.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hold-out", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--out", type=Path, default=PROJECT / "cxrprep" / "images" / "orientation.npz")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    kinds = (".png", ".jpg", ".jpeg") if options.test else (".png",)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in kinds)
    read = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths)
    images = [cv2.resize(grey, (WORKING, WORKING), interpolation=cv2.INTER_AREA) for grey in read if grey is not None]
    if options.test:
        with np.load(options.out) as held:
            report(images, held["weights"].astype(np.float32))
        return
    left = int(len(images) * options.hold_out)
    weights = fitted(samples(images[left:], rng)).astype(np.float16)
    if left:
        report(images[:left], weights.astype(np.float32))
        return
    # What radiographs span is asked of their forms, not of how they may be shown.
    plain = [moved(grey, rng) if number else grey for grey in images for number in range(PLAIN)]
    np.savez(options.out, weights=weights, **spanned(np.stack([features(small(grey)) for grey in plain])))
    print(f"{len(images)} images: {options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
