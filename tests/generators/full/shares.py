"""How many of what: integers that sum to what the release says, at its own size and scaled down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def spread(rng: np.random.Generator, total: int, parts: int, *, tail: float = 1.0) -> Ints:
    """``parts`` integers of at least 1 that sum to ``total``; a smaller ``tail`` makes the largest ones larger.

    Patients have one study mostly and some have ninety: what is left over is dealt out by gamma weights.
    """
    if not 0 < parts <= total:
        raise ValueError(f"{total} cannot be spread over {parts} parts of at least 1")
    weights = rng.gamma(tail, size=parts) + 1e-9
    return rng.multinomial(total - parts, weights / weights.sum()) + 1


def scaled(counts: Sequence[int], share: float) -> list[int]:
    """``counts`` times ``share``; they sum to the rounded sum, and nothing that was there becomes 0."""
    exact = np.asarray(counts, float) * share
    whole = np.maximum(np.floor(exact).astype(int), (np.asarray(counts) > 0).astype(int))
    short = max(round(sum(counts) * share), int((np.asarray(counts) > 0).sum())) - int(whole.sum())
    order = np.argsort(whole - exact, kind="stable")
    for place in range(abs(short)):
        index = order[place % len(order)] if short > 0 else int(np.argmax(whole))
        whole[index] += 1 if short > 0 else -1
    return [int(v) for v in whole]


def dealt(rng: np.random.Generator, values: Sequence[object], counts: Sequence[int]) -> NDArray[np.object_]:
    """Each of ``values`` as often as ``counts`` says, in random order."""
    cards = np.repeat(np.asarray(values, dtype=object), counts)
    rng.shuffle(cards)
    return cards


def distinct(rng: np.random.Generator, low: int, high: int, count: int) -> Ints:
    """``count`` different integers from ``low`` up to ``high``, ascending."""
    found = np.unique(rng.integers(low, high, size=count))
    while len(found) < count:
        found = np.unique(np.concatenate([found, rng.integers(low, high, size=count - len(found))]))
    return found
