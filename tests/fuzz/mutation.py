"""Byte mutations from a seed: what fuzzing is where no coverage-guided engine is installed, and in the quick tests."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x2C, 0x2F, 0x5C)


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Inputs without end: the seeds as they are, then one to six changes to one of them; ``seed`` fixes all."""
    yield from seeds
    yield b""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            _change(rng, data, seeds, words)
        yield bytes(data)


def _change(rng: random.Random, data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    span = min(len(data) - at, rng.choice((1, 2, 4, 16, 64, 400)))
    kind = rng.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.choice(_ODD)
    elif kind == 2:
        del data[at : at + span]
    elif kind == 3:
        data[at:at] = data[at : at + span] * rng.choice((1, 2, 30))
    elif kind == 4 and words:
        data[at:at] = rng.choice(words)
    elif kind == 5:
        data[at : at + span] = rng.randbytes(span)
    elif kind == 6:
        other = rng.choice(seeds)
        start = rng.randint(0, len(other))
        data[at:] = other[start:]
    else:
        del data[at:]
