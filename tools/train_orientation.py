"""Make the weights by which turned, mirrored and inverted radiographs and other images are found, from upright ones.

usage: python tools/train_orientation.py FOLDER [--hold-out SHARE] [--seed N] [--out FILE]
       python tools/train_orientation.py FOLDER --test

FOLDER holds upright, positive chest radiographs as PNG. Each is augmented eight times (turned by up to 5 degrees,
scaled by 0.92 to 1.1, shifted by 5 %, gamma exp(+-0.4)) and shown in all 16 ways; a multinomial logistic regression
is fitted by full-batch Adam. What is no frontal chest radiograph is found by its distance from the 20 strongest
directions of the upright ones. With ``--hold-out`` that share of the images is left out, and what the model makes of
them is printed: recall of inverted and turned images, false alarms on the originals. ``--test`` prints the same for
the weights that are there, on a collection that they were not made of. Same images, same seed, same weights.
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
)

AUGMENTED = 8
STEPS = 250
# 0.003 of five tried: on 902 images of four collections that the weights were not made of, 5 false alarms for turned
# images (15 with 0.03) at 99.96 % recall.
DECAY = 3e-3
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


def augmented(grey: Any, rng: np.random.Generator) -> Any:
    """The image a little turned, scaled, moved and of another gamma."""
    side = grey.shape[0]
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-5, 5), rng.uniform(0.92, 1.1))
    turn[:, 2] += rng.uniform(-0.05, 0.05, 2) * side
    moved = cv2.warpAffine(grey, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    gamma = np.exp(rng.uniform(-0.4, 0.4))
    return np.rint(255 * (moved / 255.0) ** gamma).astype(np.uint8)


def small(grey: Any) -> Any:
    """64 x 64, as the detector sees it."""
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def samples(images: list[Any], rng: np.random.Generator) -> tuple[Any, Any]:
    """Features and classes of all images, augmented, in all ways."""
    rows, answers = [], []
    for grey in images:
        for number in range(AUGMENTED):
            shown = augmented(grey, rng) if number else grey
            for answer, way in enumerate(ways(shown)):
                rows.append(features(small(way)))
                answers.append(answer)
    return np.asarray(rows, np.float32), np.asarray(answers)


def fitted(x: Any, y: Any) -> tuple[Any, Any]:
    """Weights (832, 16) and bias (16,) of the regression."""
    parameters = np.zeros((FEATURES + 1, len(CLASSES)), np.float32)
    x = np.hstack([x, np.ones((len(x), 1), np.float32)])
    target = np.eye(len(CLASSES), dtype=np.float32)[y]
    mean, square = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, STEPS + 1):
        logits = x @ parameters
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        slope = x.T @ (shares - target) / len(x) + DECAY * parameters
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        parameters -= 0.02 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return parameters[:-1], parameters[-1]


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


def report(images: list[Any], weights: Any, bias: Any) -> None:
    """Print recall and false alarms of the detector with these weights."""
    held = np.asarray([[probabilities(small(way), weights, bias) for way in ways(grey)] for grey in images])
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
            report(images, held["weights"].astype(np.float32), held["bias"].astype(np.float32))
        return
    left = int(len(images) * options.hold_out)
    x, y = samples(images[left:], rng)
    weights, bias = fitted(x, y)
    weights, bias = weights.astype(np.float16), bias.astype(np.float16)
    if left:
        report(images[:left], weights.astype(np.float32), bias.astype(np.float32))
        return
    np.savez(options.out, weights=weights, bias=bias, **spanned(x[y == 0]))
    print(f"{len(images)} images: {options.out}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
