"""Splits by patient: stable ones by a hash, and stratified ones that are not stable and say so.

A patient is in one split only, whatever the seed, the fractions and the order of rows. By hash, a patient's place
depends on nothing but the seed and the patient's id: it stays when patients are added or taken away.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.events import Note, ignore
from cxrprep.model import Split
from cxrprep.schemas import CATEGORY
from cxrprep.vocabulary import column_of, published_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from cxrprep.events import Sink

_NAMES: Final = (Split.TRAIN, Split.VALIDATE, Split.TEST)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How patients are divided: ``fractions`` for train, validate and test (or for the first two), summing to 1.

    ``within`` divides only the images of one official split and leaves the others alone: ``train_val`` of NIH, whose
    release has no validation part. ``stratify`` names an observation whose positive patients are divided in the same
    fractions as the others: a patient's place then depends on who else is there.
    """

    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    within: Split | None = None
    stratify: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a division."""
        if (
            not 2 <= len(self.fractions) <= len(_NAMES)
            or min(self.fractions) < 0
            or abs(sum(self.fractions) - 1) > 1e-9
        ):
            shown = ",".join(f"{fraction:g}" for fraction in self.fractions)
            raise UsageError(
                f"fractions {shown} are no division of patients", hint="two or three numbers that sum to 1: 0.8,0.1,0.1"
            )

    @classmethod
    def parse(
        cls,
        *,
        by: str = "patient",
        fractions: str = "0.8,0.1,0.1",
        seed: int = 0,
        within: str | None = None,
        stratify: str | None = None,
    ) -> Self:
        """The rule that words name. Raises ``UsageError``."""
        if by != "patient":
            raise UsageError(f"cannot split by {by!r}", hint="only --split-by patient keeps a patient in one split")
        try:
            numbers = tuple(float(part) for part in fractions.split(","))
        except ValueError as error:
            raise UsageError(f"fractions {fractions!r} are not numbers", hint="write them as 0.8,0.1,0.1") from error
        try:
            limited = None if within is None else Split.parse(within)
        except ValueError as error:
            raise UsageError(f"unknown split {within!r}", hint=f"known: {', '.join(Split)}") from error
        return cls(numbers, seed, limited, None if stratify is None else stem_of(stratify))

    @classmethod
    def described(cls, words: Mapping[str, Any]) -> Self:
        """The rule that ``describe`` gave these words for, as they stand in a footer."""
        fractions = ",".join(repr(float(fraction)) for fraction in words["fractions"])
        keys = ("by", "seed", "within", "stratify")
        return cls.parse(fractions=fractions, **{key: words[key] for key in keys})

    @property
    def stable(self) -> bool:
        """Whether a patient keeps its split when other patients are added."""
        return self.stratify is None

    def describe(self) -> dict[str, Any]:
        """The rule as JSON values, for footers and cards."""
        return {
            "by": "patient",
            "fractions": list(self.fractions),
            "seed": self.seed,
            "within": None if self.within is None else str(self.within),
            "stratify": None if self.stratify is None else published_name(self.stratify),
            "stable": self.stable,
        }

    def place(self, patient: str) -> Split:
        """The split of a patient by hash alone."""
        return self._at(_position(self.seed, patient))

    def _at(self, position: float) -> Split:
        limit = 0.0
        for name, fraction in zip(_NAMES, self.fractions, strict=False):
            limit += fraction
            if position < limit:
                return name
        # Only rounding of the sum leads here; the last split that may hold anyone takes the patient.
        return next(n for n, f in reversed(list(zip(_NAMES, self.fractions, strict=False))) if f > 0)

    def assign(self, patients: Iterable[str], positive: frozenset[str] = frozenset()) -> dict[str, Split]:
        """Each patient's split; ``positive`` are the patients that have the observation of ``stratify``."""
        everyone = sorted(set(patients))
        if self.stratify is None:
            return {patient: self.place(patient) for patient in everyone}
        placed: dict[str, Split] = {}
        for stratum in ([p for p in everyone if p in positive], [p for p in everyone if p not in positive]):
            ordered = sorted(stratum, key=lambda patient: (_position(self.seed, patient), patient))
            for index, patient in enumerate(ordered):
                placed[patient] = self._at((index + 0.5) / len(ordered))
        return placed

    def apply(self, table: pa.Table, on_event: Sink = ignore) -> pa.Table:
        """``table`` (of images) with its ``split`` column set anew; rows outside ``within`` keep theirs."""
        if not table.num_rows:
            return table
        patient = table.column("patient_id").combine_chunks()
        split = table.column("split").combine_chunks().cast(pa.string())
        if self.within is None:
            concerned = pa.array([True]).take(pa.array([0] * len(patient)))
        else:
            concerned = pc.fill_null(pc.equal(split, str(self.within)), fill_value=False)
            elsewhere = pc.unique(patient.filter(pc.invert(concerned)))
            both = pc.is_in(pc.unique(patient.filter(concerned)), value_set=elsewhere)
            leaking = int(pc.sum(both).as_py() or 0)
            if leaking:
                # The release itself leaks them: the official part wins, so that no division of ours adds to it.
                message = (
                    f"{leaking:,} patients of {self.within} are in another split too: their images are left as they are"
                )
                on_event(Note("split", message, "warning"))
                concerned = pc.and_(concerned, pc.invert(pc.is_in(patient, value_set=elsewhere)))
        members = pc.unique(patient.filter(concerned))
        positive: frozenset[str] = frozenset()
        if self.stratify is not None:
            found = pc.fill_null(pc.equal(table.column(column_of(self.stratify)), 1), fill_value=False).combine_chunks()
            positive = frozenset(pc.unique(patient.filter(pc.and_(found, concerned))).to_pylist())
            name = published_name(self.stratify)
            on_event(Note("split", f"stratified by {name}: adding patients can move others between splits", "info"))
        placed = self.assign(members.to_pylist(), positive)
        words = pa.array([str(placed[p]) for p in members.to_pylist()], pa.string())
        new = words.take(pc.index_in(patient, value_set=members))
        self._say_what_left_the_test_split(split, pc.if_else(concerned, new, split), on_event)
        changed = pc.if_else(concerned, new, split).dictionary_encode().cast(CATEGORY)
        index = table.schema.get_field_index("split")
        table = _with_release_split(table)
        return table.set_column(index, table.schema.field(index), changed)

    @staticmethod
    def _say_what_left_the_test_split(before: pa.Array, after: pa.Array, on_event: Sink) -> None:
        """Note how many images of the released test split would be trained on: results on it would not compare."""
        tested = pc.fill_null(pc.equal(before, str(Split.TEST)), fill_value=False)
        moved = pc.and_(tested, pc.fill_null(pc.not_equal(after, str(Split.TEST)), fill_value=False))
        count = pc.sum(moved).as_py() or 0
        if count:
            message = (
                f"{count:,} of {pc.sum(tested).as_py():,} images of the released test split are in another split now: "
                "results do not compare with published ones; --split-within train_val (or train) leaves it alone"
            )
            on_event(Note("split", message, "warning"))


def _with_release_split(table: pa.Table) -> pa.Table:
    """``table`` with the split as it was in ``release_split``, where the table does not say it itself."""
    if "release_split" in table.column_names:
        return table
    return table.append_column("release_split", table.column("split").cast(CATEGORY))


def _position(seed: int, patient: str) -> float:
    """A number in [0, 1) that depends on the seed and the patient alone, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
