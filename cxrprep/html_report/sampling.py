"""Rows of a manifest whose images a page shows: a few, evenly spread over all."""

from __future__ import annotations


def sample_rows(rows: int, count: int) -> list[int]:
    """Up to ``count`` of so many rows, evenly spread, so that the same folder shows the same images."""
    return [index * rows // count for index in range(count)] if count < rows else [*range(rows)]
