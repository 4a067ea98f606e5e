"""A part of the cases of a large grid, the same in every run; all of them with ``CXR_ALL`` set (``make test-all``)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Final, TypeVar

T = TypeVar("T")
U = TypeVar("U")
ALL: Final = "CXR_ALL" in os.environ


def some(cases: Iterable[T], *, one_in: int) -> list[T]:
    """One in ``one_in`` of the cases, at least one, in their order. Which ones depends on their number alone."""
    every = list(cases)
    if ALL:
        return every
    chosen = random.Random(len(every)).sample(range(len(every)), -(-len(every) // one_in))
    return [every[number] for number in sorted(chosen)]


def some_of_each(rows: Iterable[T], columns: Iterable[U], *, one_in: int) -> list[tuple[T, U]]:
    """One in ``one_in`` of the pairs, spread evenly over rows and columns."""
    columns = list(columns)
    return [
        (row, column) for y, row in enumerate(rows) for x, column in enumerate(columns) if ALL or (x + y) % one_in == 0
    ]
