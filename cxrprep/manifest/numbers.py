"""What a manifest amounts to, by split: images, patients, prevalence and positive weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.vocabulary import published_name

if TYPE_CHECKING:
    from cxrprep.manifest.load import Dataset


@dataclass(frozen=True, slots=True)
class Prevalence:
    """How often one observation has each value."""

    observation: str
    positive: int
    negative: int
    uncertain: int
    null: int

    @property
    def positive_weight(self) -> float | None:
        """Negatives over positives, as ``BCEWithLogitsLoss(pos_weight=...)`` takes it; ``None`` without positives."""
        return self.negative / self.positive if self.positive else None


@dataclass(frozen=True, slots=True)
class SplitNumbers:
    """One split; ``name`` is empty for images without one."""

    name: str
    images: int
    studies: int
    patients: int
    labels: tuple[Prevalence, ...]


def prevalence(table: pa.Table, observations: tuple[str, ...]) -> tuple[Prevalence, ...]:
    """How often each observation has each value in ``table``."""
    found = []
    for stem in observations:
        counted = {c["values"]: c["counts"] for c in pc.value_counts(table.column(f"label_{stem}")).to_pylist()}
        found.append(Prevalence(published_name(stem), *(counted.get(value, 0) for value in (1, 0, -1, None))))
    return tuple(found)


def numbers(dataset: Dataset) -> tuple[SplitNumbers, ...]:
    """Every split that has images, those without a split last; labels as the policy leaves them."""
    table = dataset.to_arrow()
    split = table.column("split").cast(pa.string())
    found = []
    for name in (*dataset.splits, ""):
        part = table.filter(pc.equal(split, name) if name else pc.is_null(split))
        if part.num_rows:
            found.append(
                SplitNumbers(
                    name,
                    part.num_rows,
                    int(pc.count_distinct(part.column("study_id")).as_py()),
                    int(pc.count_distinct(part.column("patient_id")).as_py()),
                    prevalence(part, dataset.observations),
                )
            )
    return tuple(found)
