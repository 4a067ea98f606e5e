"""Label statistics of a manifest by split: images, patients, prevalence and positive weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from cxrprep.collection.dataset_folder import require_image_table
from cxrprep.model import ScoreSummary
from cxrprep.schemas import own_columns
from cxrprep.storage.parquet import check_columns, read_combined, read_footer, read_schema
from cxrprep.storage.value_codes import ValueCodes, numbers, shared_patients, stated, value_codes, with_codes
from cxrprep.storage.value_codes import value_counts as count_values
from cxrprep.vocabulary import OBSERVATIONS, published_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


COLUMNS: Final = (
    "patient_id", "study_id", "split", "bytes", "width", "height", "source_mode", "orig_width", "orig_height", "view",
    "projection", "sex", "age_years", "age_flag", "label_source", "table_name", "table_digest",
)  # fmt: skip


# Of converted images, the measures of quality and the scores of the source, with the words for their bad end.
QUALITY: Final = {
    "contrast": "least contrast",
    "sharpness": "least sharp",
    "clipped_share": "most clipped by the grey scale",
    "black_share": "most black",
    "white_share": "most white",
    "inverted_score": "most like a negative",
    "turned_score": "most like a turned image",
    "mirrored_score": "most like a mirror image",
    "structure": "least structure",
    "not_frontal_score": "least like a frontal chest radiograph",
}
_BAD_WHEN_LOW: Final = ("contrast", "sharpness", "structure")
# More do not fit on a page, and PadChest has two hundred.
_TOGETHER: Final = 30
_AGES: Final = range(0, 100, 5)
# Images that are multiplied together.
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Prevalence:
    """How one observation is distributed over the images: every value apart, nothing folded into another.

    ``patients`` counts those with at least one positive image. ``share`` is positives in percent of all images,
    ``stated`` of those that are 1 or 0; ``None`` where there is nothing to divide by.
    """

    stem: str
    name: str
    positive: int
    negative: int
    uncertain: int
    blank: int
    patients: int

    @property
    def positive_weight(self) -> float | None:
        """Negatives over positives, as ``BCEWithLogitsLoss(pos_weight=...)`` takes it; ``None`` without positives."""
        return self.negative / self.positive if self.positive else None

    @property
    def share(self) -> float | None:
        """Positives in percent of all images."""
        total = self.positive + self.negative + self.uncertain + self.blank
        return 100 * self.positive / total if total else None

    @property
    def stated(self) -> float | None:
        """Positives in percent of the images that are 1 or 0."""
        total = self.positive + self.negative
        return 100 * self.positive / total if total else None


@dataclass(frozen=True, slots=True)
class Together:
    """``percent[i][j]``: of the images positive for row ``i``, how many are positive for column ``j`` too."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def percent(self, row: int, column: int) -> float | None:
        """The share in percent; ``None`` where the row has no positive image."""
        total = self.counts[row][row]
        return 100 * self.counts[row][column] / total if total else None


@dataclass(frozen=True, slots=True)
class Leak:
    """Patients whose images lie in more than one split; ``patients`` are the first of them with their splits."""

    count: int
    patients: tuple[tuple[str, tuple[str, ...]], ...]


SCORES: Final = ("inverted_score", "turned_score", "mirrored_score", "structure")


def score_summary(table: pa.Table) -> ScoreSummary | None:
    """What the scores of converted images say of all of them; ``None`` where nobody asked for scores."""
    from cxrprep.images.orientation import ALARM, STRUCTURE, TURNED_ALARM

    if not set(SCORES) <= set(table.column_names):
        return None
    scored = stated(table["structure"])
    if not scored.any():
        return None
    inverted, turned, mirrored, structure = (numbers(table[name], np.nan)[scored] for name in SCORES)
    shows = structure >= STRUCTURE
    return ScoreSummary(
        scored=len(structure),
        inverted=int((shows & (inverted > ALARM)).sum()),
        turned=int((shows & (turned > TURNED_ALARM)).sum()),
        blank=int((~shows).sum()),
        mirrored_share=round(float((shows & (mirrored > ALARM)).mean()), 4),
    )


def read_images(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The manifest's columns that the page counts, and its footer.

    Raises ``UsageError`` when there is no manifest, ``TableError`` when it is damaged.
    """
    require_image_table(path.parent.parent, path)
    schema, footer = read_schema(path), read_footer(path)
    check_columns(schema, path)
    findings = _findings(schema)
    wanted = [n for n in schema.names if n in (*COLUMNS, *QUALITY) or n in findings]
    return with_codes(read_combined(path, wanted), ("patient_id", "study_id")), footer


def worst(table: pa.Table, count: int) -> dict[str, list[tuple[int, float]]]:
    """Row and value of the ``count`` worst images by each of ``QUALITY``, the worst first; of converted images only."""
    found = {}
    for name in QUALITY:
        if name in table.column_names and table[name].null_count < table.num_rows:
            values = numbers(table[name], np.nan)
            known = np.flatnonzero(~np.isnan(values))
            # Rows are in the order of their paths, so that of equal values the first path comes first.
            ranked = np.argsort(values[known] if name in _BAD_WHEN_LOW else -values[known], kind="stable")[:count]
            found[name] = [(row, float(values[row])) for row in known[ranked].tolist()]
    return found


def distinct(table: pa.Table, name: str) -> int:
    """How many different values a column has; null is none."""
    return value_codes(table[name]).distinct()


def value_counts(table: pa.Table, name: str) -> list[tuple[str | None, int]]:
    """The values of a column with how often each occurs, the most frequent first, null among them."""
    return sorted(count_values(table[name]).items(), key=lambda pair: (-pair[1], pair[0] or ""))


def _findings(schema: pa.Schema) -> list[str]:
    """The columns that may have labels: of the shared observations, then the dataset's own."""
    return [f"label_{stem}" for stem in OBSERVATIONS] + own_columns(schema)


def prevalence(table: pa.Table) -> list[Prevalence]:
    """The distribution of each observation; one that is null throughout is left out."""
    return _prevalence_by(table, np.zeros(len(table), np.int64), 1, _stems(table))[-1]


def prevalence_by_split(table: pa.Table) -> list[list[Prevalence]]:
    """The distribution of each observation that any image has, by the place of the split, and at last of all images."""
    return _prevalence_by(table, *_groups(value_codes(table["split"])), _stems(table))


def _stems(table: pa.Table) -> list[str]:
    columns = {name: table[name] for name in _findings(table.schema) if name in table.column_names}
    return [name.removeprefix("label_") for name, column in columns.items() if column.null_count < len(column)]


def _groups(splits: ValueCodes) -> tuple[NDArray[np.int64], int]:
    """The place of each row's split, the last for rows without one, and the number of places."""
    places = len(splits.values) + 1
    return splits.at.astype(np.int64) % places, places


def _prevalence_by(table: pa.Table, group: NDArray[Any], groups: int, stems: Iterable[str]) -> list[list[Prevalence]]:
    """The distribution of each observation in each group of rows, and at last in all rows.

    ``group`` says for each row which of the ``groups`` it is of.
    """
    found: list[list[Prevalence]] = [[] for _ in range(groups + 1)]
    patients = value_codes(table["patient_id"])
    for stem in stems:
        # -1, 0, 1 and none as 0 to 3.
        coded = numbers(table[f"label_{stem}"], 2).astype(np.int8) + np.int8(1)
        each = np.bincount(group * 4 + coded, minlength=4 * groups).reshape(groups, 4)
        counts = [*each.tolist(), each.sum(axis=0).tolist()]
        with_it = np.zeros((groups, len(patients.values) + 1), bool)
        positive = np.flatnonzero(coded == 2)
        with_it[group[positive], patients.at[positive]] = True
        patients_with = [*with_it[:, :-1].sum(axis=1).tolist(), int(np.count_nonzero(with_it[:, :-1].any(axis=0)))]
        for place, (uncertain, negative, positives, blank) in enumerate(counts):
            found[place].append(
                Prevalence(
                    stem,
                    published_name(stem),
                    positive=positives,
                    negative=negative,
                    uncertain=uncertain,
                    blank=blank,
                    patients=patients_with[place],
                )
            )
    return found


def together(table: pa.Table, rows: Sequence[Prevalence]) -> Together:
    """How often two observations are positive on the same image; of many the most frequent ones."""
    there = [row for row in rows if row.positive and row.stem != "no_finding"]
    most = sorted(there, key=lambda row: -row.positive)[:_TOGETHER]
    chosen = [row for row in there if row in most]
    if not chosen:
        return Together((), ())
    positive = np.stack([numbers(table[f"label_{row.stem}"], 0) == 1 for row in chosen])
    counts = np.zeros((len(chosen), len(chosen)))
    # Numbers with a fraction are multiplied by all that the processor has; so far they are whole.
    for start in range(0, len(table), _BLOCK):
        matrix = positive[:, start : start + _BLOCK].astype(np.float32)
        counts += matrix @ matrix.T
    return Together(tuple(row.name for row in chosen), tuple(tuple(int(c) for c in line) for line in counts))


def ages(table: pa.Table) -> list[tuple[str, dict[str, int]]]:
    """Images by age in classes of five years and by sex (``F``, ``M``, ``unknown``); the last class is 95 and over."""
    bins: list[tuple[str, dict[str, int]]] = [(f"{low}", {"F": 0, "M": 0, "unknown": 0}) for low in _AGES]
    known = np.flatnonzero(stated(table["age_years"]))
    years = numbers(table["age_years"], 0)[known]
    places = np.clip(np.floor(years / 5.0).astype(int), 0, len(bins) - 1)
    sexes = value_codes(table["sex"])
    for index, word in enumerate([*sexes.values.to_pylist(), None]):
        sex = word if word in ("F", "M") else "unknown"
        # -1 is the last of these words.
        these = places[sexes.at[known] == (index if index < len(sexes.values) else -1)]
        for place, count in enumerate(np.bincount(these, minlength=len(bins)).tolist()):
            bins[place][1][sex] += count
    last = max((index for index, (_, sexes) in enumerate(bins) if any(sexes.values())), default=-1)
    return bins[: last + 1]


def leak(table: pa.Table, limit: int = 10) -> Leak:
    """Patients in more than one split: what makes a test result too good."""
    found = shared_patients(table)
    return Leak(len(found), tuple((patient, tuple(splits)) for patient, splits in found[:limit]))


# A split, its images, studies and patients.
SplitRow = tuple[str | None, int, int, int]


def by_split(table: pa.Table) -> list[SplitRow]:
    """Split, images, studies and patients, in the order train, train_val, validate, test, then null."""
    return [row for _, row in _splits(table, value_codes(table["split"]))]


def _splits(table: pa.Table, splits: ValueCodes) -> list[tuple[int, SplitRow]]:
    """The place of each split that has images, and its row of ``by_split``."""
    order = ("train", "train_val", "validate", "test")
    studies, patients = (
        splits.beside(value_codes(table[name]))[:, :-1].sum(axis=1).tolist() for name in ("study_id", "patient_id")
    )
    named = [*splits.values.to_pylist(), None]
    rows = enumerate(zip(named, splits.counts().tolist(), studies, patients, strict=True))
    return sorted(
        ((place, row) for place, row in rows if row[1]),
        key=lambda one: (order.index(one[1][0]) if one[1][0] in order else len(order), one[1][0] or "~"),
    )


@dataclass(frozen=True, slots=True)
class SplitProfile:
    """What the images of one split are, for a table that compares splits.

    Counts are of images unless they say otherwise. ``labels`` has a ``Prevalence`` for each observation that any split
    has; ``missing`` says of how many images age, sex, view and every label are unknown. ``median_age`` is in years.
    """

    split: str | None
    images: int
    studies: int
    patients: int
    images_per_patient: float | None
    most_images: int
    studies_per_patient: float | None
    labels: tuple[Prevalence, ...]
    sexes: dict[str | None, int]
    views: dict[str | None, int]
    median_age: float | None
    missing: dict[str, int]


def split_profiles(table: pa.Table, labels: list[list[Prevalence]] | None = None) -> tuple[SplitProfile, ...]:
    """A profile of each split, in the order of ``by_split``; ``labels`` is what ``prevalence_by_split`` says."""
    if labels is None:
        labels = prevalence_by_split(table)
    splits = value_codes(table["split"])
    group, places = _groups(splits)
    per_patient = splits.counts_beside(value_codes(table["patient_id"]))[:, :-1].max(axis=1, initial=0)
    sexes, views = (_counts_by(splits, table[name]) for name in ("sex", "view"))
    there = {name: stated(table[column]) for name, column in (("age", "age_years"), ("sex", "sex"), ("view", "view"))}
    there["every label"] = np.zeros(len(table), bool)
    for row in labels[-1]:
        there["every label"] |= stated(table[f"label_{row.stem}"])
    missing = {name: np.bincount(group[~known], minlength=places) for name, known in there.items()}
    years = numbers(table["age_years"], 0)
    return tuple(
        SplitProfile(
            split=split,
            images=images,
            studies=studies,
            patients=patients,
            images_per_patient=images / patients if patients else None,
            most_images=int(per_patient[at]),
            studies_per_patient=studies / patients if patients and studies else None,
            labels=tuple(labels[at]),
            sexes=sexes[at],
            views=views[at],
            median_age=float(np.median(known)) if len(known := years[there["age"] & (group == at)]) else None,
            missing={name: int(counts[at]) for name, counts in missing.items()},
        )
        for at, (split, images, studies, patients) in _splits(table, splits)
    )


def whole_profile(table: pa.Table) -> tuple[SplitProfile, ...]:
    """The profile of all images as of one split; empty where there are none."""
    place = table.schema.get_field_index("split")
    return split_profiles(table.set_column(place, "split", pa.nulls(table.num_rows, pa.string())))


def _counts_by(splits: ValueCodes, column: pa.ChunkedArray) -> list[dict[str | None, int]]:
    """For each split how often each value of a column occurs."""
    codes = value_codes(column)
    words = [*codes.values.to_pylist(), None]
    return [dict(zip(words, row, strict=True)) for row in splits.counts_beside(codes).tolist()]


def sizes(table: pa.Table, width: str, height: str, limit: int = 8) -> list[tuple[str, int]]:
    """``"1024 x 1024"`` with how many images have it, the most frequent first; the rest as one line.

    Args:
        table: Rows of a manifest.
        width: The column of widths.
        height: The column of heights.
        limit: How many sizes are named.

    Returns:
        Sizes and counts.
    """
    known = stated(table[width]) & stated(table[height])
    sides_of = [numbers(table[name], 0)[known].astype(np.int64) for name in (width, height)]
    # Both sides as one number: they fit, and counting pairs of columns takes ten times as long.
    both, counts = np.unique((sides_of[0] << 32) | sides_of[1], return_counts=True)
    ranked = sorted(zip((-counts).tolist(), (both >> 32).tolist(), (both & 0xFFFFFFFF).tolist(), strict=True))
    found = [(f"{wide:,} x {high:,}", -less) for less, wide, high in ranked[:limit]]
    rest = -sum(less for less, _, _ in ranked[limit:])
    return [*found, (f"{len(ranked) - limit:,} other sizes", rest)] if rest else found


def sides(table: pa.Table, name: str) -> list[tuple[str, int]]:
    """A histogram of one side of the images in at most 20 classes of equal width; empty when all are the same."""
    column = numbers(table[name], 0)[stated(table[name])]
    low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    if low == high:
        return []
    step = max(-(-(high - low + 1) // 20), 1)
    step = -(-step // 50) * 50 if step > 10 else step
    start = low // step * step
    counts = np.bincount((column - start) // step).tolist()
    return [(f"{start + index * step:,}", count) for index, count in enumerate(counts)]


def labels_by_split(table: pa.Table, stems: Sequence[str]) -> list[tuple[SplitRow, list[Prevalence]]]:
    """Each row of ``by_split`` with the observations ``stems`` in that split."""
    splits = value_codes(table["split"])
    labels = _prevalence_by(table, *_groups(splits), stems)
    return [(row, labels[at]) for at, row in _splits(table, splits)]
