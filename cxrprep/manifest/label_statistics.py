"""Label statistics of a manifest by split: images, patients, prevalence and positive weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.errors import TableError, UsageError
from cxrprep.model import ScoreSummary
from cxrprep.schemas import own_observations
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.value_codes import value_codes, with_codes
from cxrprep.storage.value_codes import value_counts as count_values
from cxrprep.vocabulary import OBSERVATIONS, published_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


COLUMNS: Final = (
    "image_id", "patient_id", "study_id", "split", "path", "bytes", "width", "height", "source_mode", "orig_width",
    "orig_height", "view", "projection", "sex", "age_years", "age_flag", "label_source", "table_name", "table_digest",
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


def require_images(path: Path) -> None:
    """Raise ``UsageError`` when there is no manifest at ``path``."""
    if not path.is_file():
        raise UsageError(f"there is no manifest {path}", hint="make it: cxrprep manifest ROOT")


SCORES: Final = ("inverted_score", "turned_score", "mirrored_score", "structure")


def score_summary(table: pa.Table) -> ScoreSummary | None:
    """What the scores of converted images say of all of them; ``None`` where nobody asked for scores."""
    from cxrprep.images.orientation import ALARM, STRUCTURE, TURNED_ALARM

    if not set(SCORES) <= set(table.column_names):
        return None
    scored = table.select(SCORES).filter(pc.is_valid(table["structure"]))
    if not scored.num_rows:
        return None
    inverted, turned, mirrored, structure = (scored[name].to_numpy() for name in SCORES)
    shows = structure >= STRUCTURE
    return ScoreSummary(
        scored=len(structure),
        inverted=int((shows & (inverted > ALARM)).sum()),
        turned=int((shows & (turned > TURNED_ALARM)).sum()),
        blank=int((~shows).sum()),
        mirrored_share=round(float((shows & (mirrored > ALARM)).mean()), 4),
    )


def read_images(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The manifest's columns that the page needs, and its footer.

    Raises ``UsageError`` when there is no manifest, ``TableError`` when it is damaged.
    """
    require_images(path)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        findings = _findings(file.schema_arrow)
        names = [n for n in file.schema_arrow.names if n in (*COLUMNS, *QUALITY) or n in findings]
        table = file.read(columns=names)
        footer = json.loads((file.schema_arrow.metadata or {}).get(b"cxrprep", b"{}"))
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="run: cxrprep manifest ROOT") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise TableError(f"{path} lacks the columns {', '.join(missing)}", hint="run: cxrprep manifest ROOT")
    return with_codes(table, ("patient_id", "study_id")), footer


def worst(table: pa.Table, count: int) -> dict[str, list[dict[str, Any]]]:
    """The ``count`` worst images by each of ``QUALITY``, the worst first; empty for images as they were released.

    Each is a dict of ``image_id``, ``path`` and the ``value`` of the measure.
    """
    found = {}
    for name in QUALITY:
        if name in table.column_names and table[name].null_count < table.num_rows:
            order = "ascending" if name in _BAD_WHEN_LOW else "descending"
            keys = [(name, order), ("path", "ascending")]
            stated = table.select(["image_id", "path", name]).filter(pc.is_valid(table[name]))
            rows = stated.take(pc.select_k_unstable(stated, min(count, stated.num_rows), keys)).to_pylist()
            found[name] = [{**row, "value": row.pop(name)} for row in rows]
    return found


def count_rows(path: Path, column: str, value: str) -> int:
    """How many rows of a Parquet file have ``value`` in ``column``; 0 for a file that cannot be read."""
    try:
        found = read_rows(path, columns=[column]).column(column).cast(pa.string())
    except (OSError, KeyError, pa.ArrowInvalid):
        return 0
    return int(pc.sum(pc.equal(found, value)).as_py() or 0)


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer. Raises ``TableError`` for a damaged one."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="run the command that makes it again") from error


def distinct(table: pa.Table, name: str) -> int:
    """How many different values a column has; null is none."""
    return value_codes(table[name]).distinct()


def value_counts(table: pa.Table, name: str) -> list[tuple[str | None, int]]:
    """The values of a column with how often each occurs, the most frequent first, null among them."""
    return sorted(count_values(table[name]).items(), key=lambda pair: (-pair[1], pair[0] or ""))


def _findings(schema: pa.Schema) -> list[str]:
    """The columns that may have labels: of the shared observations, then the dataset's own."""
    return [f"label_{stem}" for stem in OBSERVATIONS] + [field.name for field in own_observations(schema)]


def prevalence(table: pa.Table, stems: Iterable[str] | None = None, *, empty: bool = False) -> list[Prevalence]:
    """The distribution of each observation; one that is null throughout is left out unless ``empty``."""
    found = []
    patients = value_codes(table["patient_id"])
    for stem in [name.removeprefix("label_") for name in _findings(table.schema)] if stems is None else stems:
        column = table[f"label_{stem}"] if f"label_{stem}" in table.column_names else None
        if column is None or (column.null_count == len(column) and not empty):
            continue
        # -1, 0, 1 and none as 0 to 3.
        coded = pc.add(pc.fill_null(column, 2), pa.scalar(1, pa.int8())).to_numpy()
        counts = np.bincount(coded, minlength=4).tolist()
        with_it = np.unique(patients.at[coded == 2])
        found.append(
            Prevalence(
                stem,
                published_name(stem),
                positive=counts[2],
                negative=counts[1],
                uncertain=counts[0],
                blank=counts[3],
                patients=int(np.count_nonzero(with_it >= 0)),
            )
        )
    return found


def together(table: pa.Table, rows: Sequence[Prevalence]) -> Together:
    """How often two observations are positive on the same image; of many the most frequent ones."""
    there = [row for row in rows if row.positive and row.stem != "no_finding"]
    most = sorted(there, key=lambda row: -row.positive)[:_TOGETHER]
    chosen = [row for row in there if row in most]
    columns = [pc.fill_null(pc.equal(table[f"label_{row.stem}"], 1), fill_value=False).to_numpy() for row in chosen]
    if not columns:
        return Together((), ())
    matrix = np.stack(columns).astype(np.int64)
    counts = matrix @ matrix.T
    return Together(tuple(row.name for row in chosen), tuple(tuple(int(c) for c in line) for line in counts))


def ages(table: pa.Table) -> list[tuple[str, dict[str, int]]]:
    """Images by age in classes of five years and by sex (``F``, ``M``, ``unknown``); the last class is 95 and over."""
    known = table.select(["age_years", "sex"]).filter(pc.is_valid(table["age_years"]))
    bins: list[tuple[str, dict[str, int]]] = [(f"{low}", {"F": 0, "M": 0, "unknown": 0}) for low in _AGES]
    places = np.clip(np.floor(known["age_years"].to_numpy() / 5.0).astype(int), 0, len(bins) - 1)
    sexes = value_codes(known["sex"])
    for index, word in enumerate([*sexes.values.to_pylist(), None]):
        sex = word if word in ("F", "M") else "unknown"
        # -1 is the last of these words.
        these = places[sexes.at == (index if index < len(sexes.values) else -1)]
        for place, count in enumerate(np.bincount(these, minlength=len(bins)).tolist()):
            bins[place][1][sex] += count
    last = max((index for index, (_, sexes) in enumerate(bins) if any(sexes.values())), default=-1)
    return bins[: last + 1]


def leak(table: pa.Table, limit: int = 10) -> Leak:
    """Patients in more than one split: what makes a test result too good."""
    splits, patients = value_codes(table["split"]), value_codes(table["patient_id"])
    seen, names = splits.beside(patients)[:-1, :-1], splits.values.to_pylist()
    leaking = np.flatnonzero(seen.sum(axis=0) > 1)
    found = {patients.values[index].as_py(): seen[:, index] for index in leaking.tolist()}
    first = [
        (patient, tuple(sorted(names[split] for split in np.flatnonzero(found[patient]))))
        for patient in sorted(found)[:limit]
    ]
    return Leak(len(found), tuple(first))


def by_split(table: pa.Table) -> list[tuple[str | None, int, int, int]]:
    """Split, images, studies and patients, in the order train, train_val, validate, test, then null."""
    order = ("train", "train_val", "validate", "test")
    splits = value_codes(table["split"])
    studies, patients = (
        splits.beside(value_codes(table[name]))[:, :-1].sum(axis=1).tolist() for name in ("study_id", "patient_id")
    )
    named = [*splits.values.to_pylist(), None]
    rows = [row for row in zip(named, splits.counts().tolist(), studies, patients, strict=True) if row[1]]
    return sorted(rows, key=lambda row: (order.index(row[0]) if row[0] in order else len(order), row[0] or "~"))


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


def split_profiles(table: pa.Table) -> tuple[SplitProfile, ...]:
    """A profile of each split, in the order of ``by_split``."""
    stems = [row.stem for row in prevalence(table)]
    return tuple(_profile(part, counts, stems) for counts, part in _by_split(table))


def _by_split(table: pa.Table) -> Iterable[tuple[tuple[str | None, int, int, int], pa.Table]]:
    names = table["split"].cast(pa.string())
    # Ids of images are as many letters as all the rest.
    table = table.drop([name for name in ("image_id", "path", "digest", "table_digest") if name in table.column_names])
    for counts in by_split(table):
        split = counts[0]
        yield counts, table.filter(pc.is_null(names) if split is None else pc.equal(names, split)).combine_chunks()


def _profile(part: pa.Table, counts: tuple[str | None, int, int, int], stems: Sequence[str]) -> SplitProfile:
    split, images, studies, patients = counts
    per_patient = value_codes(part["patient_id"]).counts()[:-1]
    ages_known = part["age_years"].drop_null()
    unlabelled = pa.array([True] * len(part))
    for stem in stems:
        unlabelled = pc.and_(unlabelled, pc.is_null(part[f"label_{stem}"]).combine_chunks())
    missing = {
        name: part[column].null_count for name, column in (("age", "age_years"), ("sex", "sex"), ("view", "view"))
    }
    return SplitProfile(
        split=split,
        images=images,
        studies=studies,
        patients=patients,
        images_per_patient=len(part) / patients if patients else None,
        most_images=int(per_patient.max(initial=0)),
        studies_per_patient=studies / patients if patients and studies else None,
        labels=tuple(prevalence(part, stems, empty=True)),
        sexes=dict(value_counts(part, "sex")),
        views=dict(value_counts(part, "view")),
        median_age=pc.quantile(ages_known, 0.5)[0].as_py() if len(ages_known) else None,
        missing={**missing, "every label": pc.sum(unlabelled).as_py() or 0},
    )


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
    known = table.select([width, height]).filter(pc.and_(pc.is_valid(table[width]), pc.is_valid(table[height])))
    sides_of = np.stack([known[name].to_numpy().astype(np.int64) for name in (width, height)])
    # Both sides as one number: they fit, and counting pairs of columns takes ten times as long.
    both, counts = np.unique((sides_of[0] << 32) | sides_of[1], return_counts=True)
    ranked = sorted(zip(counts.tolist(), (both >> 32).tolist(), (both & 0xFFFFFFFF).tolist(), strict=True), key=_rank)
    found = [(f"{wide:,} x {high:,}", count) for count, wide, high in ranked[:limit]]
    rest = sum(count for count, _, _ in ranked[limit:])
    return [*found, (f"{len(ranked) - limit:,} other sizes", rest)] if rest else found


def _rank(size: tuple[int, int, int]) -> tuple[int, int, int]:
    count, width, height = size
    return -count, width, height


def sides(table: pa.Table, name: str) -> list[tuple[str, int]]:
    """A histogram of one side of the images in at most 20 classes of equal width; empty when all are the same."""
    column = pc.drop_null(table[name])
    if not len(column):
        return []
    low, high = pc.min(column).as_py(), pc.max(column).as_py()
    if low == high:
        return []
    step = max(-(-(high - low + 1) // 20), 1)
    step = -(-step // 50) * 50 if step > 10 else step
    start = low // step * step
    counts = np.bincount((column.to_numpy() - start) // step).tolist()
    return [(f"{start + index * step:,}", count) for index, count in enumerate(counts)]


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """One split; ``name`` is empty for images without one."""

    name: str
    images: int
    studies: int
    patients: int
    labels: tuple[Prevalence, ...]


def split_counts(table: pa.Table, stems: Sequence[str]) -> tuple[SplitCounts, ...]:
    """Every split that has images, those without a split last, with each of the observations ``stems``."""
    return tuple(
        SplitCounts(split or "", images, studies, patients, tuple(prevalence(part, stems, empty=True)))
        for (split, images, studies, patients), part in _by_split(table)
    )
