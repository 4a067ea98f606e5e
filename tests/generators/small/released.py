"""What a generator of a tiny release gives back: the numbers that the tools must come to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Released:
    """``images`` are release paths; ``labels`` counts rows of ``labels.parquet`` by label source."""

    release: str
    images: tuple[str, ...]
    patients: int
    studies: int
    splits: dict[str, int]
    labels: dict[str, int] = field(default_factory=dict)
