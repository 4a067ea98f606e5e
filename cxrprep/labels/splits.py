"""Splits by patient (train, validate, test; folds for cross-validation): stable by a hash, but for stratified ones.

A patient is in one split only, whatever the seed, the fractions and the order of rows. By hash, a patient's place
depends on nothing but the seed and the patient's id: it stays when patients are added or taken away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.model import Split
from cxrprep.schemas import CATEGORY
from cxrprep.vocabulary import column_of, published_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Self


_NAMES: Final = (Split.TRAIN, Split.VALIDATE, Split.TEST)
_MOST_FOLDS: Final = 100
ALL: Final = "all"
"""Stands for every observation of the table, to be stratified by."""


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How patients are divided: ``fractions`` for train, validate and test (or for the first two), summing to 1.

    ``within`` divides only the images of one official split and leaves the others alone: ``train_val`` of NIH, whose
    release has no validation part. ``stratify`` names observations (stems, or ``all`` of the table) whose positive
    patients are divided in the same fractions as the others: a patient's place then depends on who else is there.

    ``folds`` gives each patient one of so many folds, numbered from 0, in a column beside the split; images of a test
    split are in none. Without ``fractions`` the split itself stays as it is.
    """

    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    within: Split | None = None
    stratify: tuple[str, ...] | str | None = None
    folds: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be a division."""
        if isinstance(self.stratify, str):
            object.__setattr__(self, "stratify", (self.stratify,))
        if self.folds and not 2 <= self.folds <= _MOST_FOLDS:
            raise UsageError(f"{self.folds} folds are not possible", hint=f"use a number from 2 to {_MOST_FOLDS}")
        if self.folds and not self.fractions:
            return
        if (
            not 2 <= len(self.fractions) <= len(_NAMES)
            or min(self.fractions) < 0
            or abs(sum(self.fractions) - 1) > 1e-9
        ):
            shown = ",".join(f"{fraction:g}" for fraction in self.fractions)
            raise UsageError(
                f"fractions {shown} do not divide the patients", hint="two or three numbers that sum to 1: 0.8,0.1,0.1"
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
        folds: int = 0,
    ) -> Self:
        """The rule that words name.

        Args:
            by: ``patient``; nothing else keeps a patient in one split.
            fractions: Of train, validate and test, with commas; empty leaves the split as it is, for folds alone.
            seed: Decides, with the patient's id, where a patient goes.
            within: Divide this released split only.
            stratify: Observations with commas, or ``all``.
            folds: How many folds beside the split; 0: none.

        Returns:
            The rule.

        Raises:
            UsageError: A word that names nothing, or fractions and folds that are no division.
        """
        if by != "patient":
            raise UsageError(f"cannot split by {by!r}", hint="only --split-by patient keeps a patient in one split")
        try:
            numbers = tuple(float(part) for part in fractions.split(",") if fractions)
        except ValueError as error:
            raise UsageError(f"fractions {fractions!r} are not numbers", hint="write them as 0.8,0.1,0.1") from error
        try:
            limited = None if within is None else Split.parse(within)
        except ValueError as error:
            raise UsageError(f"unknown split {within!r}", hint=f"known: {', '.join(Split)}") from error
        names = [] if not stratify else [name.strip() for name in stratify.split(",")]
        stems = tuple(dict.fromkeys(name if name == ALL else stem_of(name) for name in names))
        return cls(numbers, seed, limited, stems or None, folds)

    @classmethod
    def described(cls, words: Mapping[str, Any]) -> Self:
        """The rule that ``describe`` gave these words for, as they stand in a footer."""
        fractions = ",".join(repr(float(fraction)) for fraction in words["fractions"])
        keys = ("by", "seed", "within", "stratify")
        return cls.parse(fractions=fractions, folds=int(words.get("folds", 0)), **{key: words[key] for key in keys})

    def beside(self, last: SplitRule | None) -> SplitRule:
        """This rule; where it is of folds alone, with the split that ``last`` made, which stays as it is."""
        if self.fractions or last is None or not last.fractions:
            return self
        kept = replace(last, folds=self.folds)
        others = {"seed": 0, "within": None, "stratify": None}
        alike = all(getattr(self, name) in (default, getattr(last, name)) for name, default in others.items())
        return kept if alike else self

    @property
    def stable(self) -> bool:
        """Whether a patient keeps its split when other patients are added."""
        return self.stratify is None

    def words(self) -> str:
        """The rule for a person: ``by patient: train 0.8, validate 0.1, test 0.1; seed 0``."""
        parts = ", ".join(f"{name} {fraction:g}" for name, fraction in zip(_NAMES, self.fractions, strict=False))
        said = [f"by patient: {parts}"] if parts else ["as it was"]
        said += [f"only of {self.within}"] if self.within is not None else []
        said += [f"balanced by {', '.join(self.stratify)}"] if self.stratify else []
        said += [f"{self.folds} folds"] if self.folds else []
        return "; ".join([*said, f"seed {self.seed}"])

    def describe(self) -> dict[str, Any]:
        """The rule as JSON values, for footers and cards."""
        return {
            "by": "patient",
            "fractions": list(self.fractions),
            "seed": self.seed,
            "within": None if self.within is None else str(self.within),
            "stratify": ",".join(_shown(self.stratify)) or None,
            "stable": self.stable,
            **({"folds": self.folds} if self.folds else {}),
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

    def assign(self, patients: Iterable[str], observed: Mapping[str, frozenset[str]]) -> dict[str, Split]:
        """Each patient's split; ``observed`` are the patients that have the observations of ``stratify``, by name."""
        everyone = sorted(set(patients))
        if self.stratify is None:
            return {patient: self.place(patient) for patient in everyone}
        if len(self.stratify) > 1 or self.stratify == (ALL,):
            parts = stratified(self._ordered(everyone), observed, self.fractions)
            return {patient: _NAMES[part] for patient, part in parts.items()}
        placed: dict[str, Split] = {}
        members = next(iter(observed.values()), frozenset())
        for stratum in ([p for p in everyone if p in members], [p for p in everyone if p not in members]):
            for index, patient in enumerate(ordered := self._ordered(stratum)):
                placed[patient] = self._at((index + 0.5) / len(ordered))
        return placed

    def assign_folds(self, patients: Iterable[str], observed: Mapping[str, frozenset[str]]) -> dict[str, int]:
        """Each patient's fold, from 0; ``observed`` are the patients that have the observations of ``stratify``."""
        everyone = sorted(set(patients))
        if self.stratify is not None:
            return stratified(self._ordered(everyone), observed, [1 / self.folds] * self.folds)
        # Another hash than that of the split: the folds of a part would all be one else.
        return {patient: int(_position(f"{self.seed}:fold", patient) * self.folds) for patient in everyone}

    def _ordered(self, patients: Iterable[str]) -> list[str]:
        return sorted(patients, key=lambda patient: (_position(self.seed, patient), patient))

    def apply(self, table: pa.Table, on_event: Sink = ignore) -> pa.Table:
        """``table`` (of images) with its ``split`` and ``fold`` set anew; rows outside ``within`` keep their split."""
        if not table.num_rows:
            return table
        counts = Counter[str]()
        divided = self.divided(table, counts)
        for note in self.notes(counts):
            on_event(note)
        return divided

    def divided(self, table: pa.Table, counts: Counter[str]) -> pa.Table:
        """The same; of a ``stable`` rule also of some patients after others. ``counts`` are for ``notes``."""
        patient = table.column("patient_id").combine_chunks()
        split = table.column("split").combine_chunks().cast(pa.string())
        concerned = self._concerned(patient, split, counts)
        if "release_split" not in table.column_names:
            table = table.append_column("release_split", table.column("split").cast(CATEGORY))
        if self.fractions:
            members = pc.unique(patient.filter(concerned))
            placed = self.assign(members.to_pylist(), self._observed(table, patient, concerned))
            words = pa.array([str(placed[p]) for p in members.to_pylist()], pa.string())
            new = pc.if_else(concerned, words.take(pc.index_in(patient, value_set=members)), split)
            of_test, stay = (pc.fill_null(pc.equal(one, str(Split.TEST)), fill_value=False) for one in (split, new))
            counts["of_test"] += pc.sum(of_test).as_py() or 0
            counts["moved"] += pc.sum(pc.and_not(of_test, stay)).as_py() or 0
            table = _with_column(table, "split", new.dictionary_encode().cast(CATEGORY))
            split = new
        if self.folds:
            tested = pc.fill_null(pc.equal(split, str(Split.TEST)), fill_value=False)
            folded = pc.and_(concerned, pc.invert(tested))
            members = pc.unique(patient.filter(folded))
            fold = self.assign_folds(members.to_pylist(), self._observed(table, patient, folded))
            numbers = pa.array([fold[p] for p in members.to_pylist()], pa.int8())
            places = pc.if_else(folded, pc.index_in(patient, value_set=members), None)
            table = _with_column(table, "fold", numbers.take(places))
        return table

    def notes(self, counts: Mapping[str, int]) -> Iterator[Note]:
        """What is to be said of images that were divided."""
        if leaking := counts["leaking"]:
            # The release itself leaks them: the official part wins, so that no division of ours adds to it.
            message = (
                f"{leaking:,} patients of {self.within} are in another split too: their images are left as they are"
            )
            yield Note("split", message, "warning")
        if self.stratify is not None:
            names = ", ".join(_shown(self.stratify))
            yield Note("split", f"stratified by {names}: adding patients can move others between splits", "info")
        if counts["moved"]:
            # They would be trained on: results on that split would not compare.
            message = (
                f"{counts['moved']:,} of {counts['of_test']:,} images of the released test split are in another split "
                "now: results do not compare with published ones; --split-within train_val (or train) leaves it alone"
            )
            yield Note("split", message, "warning")

    def _concerned(self, patient: pa.Array, split: pa.Array, counts: Counter[str]) -> pa.Array:
        """Which rows are divided, as Booleans: those of ``within`` whose patients are in no other split."""
        if self.within is None:
            return pa.array([True]).take(pa.array([0] * len(patient)))
        concerned = pc.fill_null(pc.equal(split, str(self.within)), fill_value=False)
        elsewhere = pc.unique(patient.filter(pc.invert(concerned)))
        both = pc.is_in(pc.unique(patient.filter(concerned)), value_set=elsewhere)
        counts["leaking"] += int(pc.sum(both).as_py() or 0)
        return pc.and_(concerned, pc.invert(pc.is_in(patient, value_set=elsewhere)))

    def _observed(self, table: pa.Table, patient: pa.Array, rows: pa.Array) -> dict[str, frozenset[str]]:
        """The patients among ``rows`` that have each observation of ``stratify``."""
        found = {}
        for stem in self._stems(table):
            if column_of(stem) not in table.column_names:
                raise UsageError(
                    f"no label {published_name(stem)} is in the manifest", hint="name one of its columns label_..."
                )
            cells = pc.fill_null(pc.equal(table.column(column_of(stem)), 1), fill_value=False).combine_chunks()
            found[stem] = frozenset(pc.unique(patient.filter(pc.and_(cells, rows))).to_pylist())
        return found

    def _stems(self, table: pa.Table) -> tuple[str, ...]:
        if self.stratify != (ALL,):
            return tuple(self.stratify or ())
        kinds = ((field.name, field.type) for field in table.schema)
        return tuple(
            name.removeprefix("label_") for name, kind in kinds if name.startswith("label_") and kind == pa.int8()
        )


def _shown(stems: Iterable[str] | None) -> list[str]:
    return [stem if stem == ALL else published_name(stem) for stem in stems or ()]


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """``table`` with this column in the place of the one that it has, or behind the others."""
    index = table.schema.get_field_index(name)
    return (
        table.append_column(name, column) if index < 0 else table.set_column(index, table.schema.field(index), column)
    )


def _position(seed: int | str, patient: str) -> float:
    """A number in [0, 1) that depends on the seed and the patient alone, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def stratified(
    patients: Sequence[str], observed: Mapping[str, frozenset[str]], fractions: Sequence[float]
) -> dict[str, int]:
    """The part of each patient, so that each part has its fraction of the patients of every observation.

    The rarest observation that is left is divided first; each of its patients goes where most of them are lacking: the
    iterative rule of Sechidis et al. (2011). Own code, since ``iterative-stratification`` brings scikit-learn and SciPy
    (about 120 MB) for these lines, and takes the order of rows into account.

    Args:
        patients: Everyone, in an order that nothing but a seed and their ids decides: it breaks ties.
        observed: The patients that have each observation, by its name.
        fractions: The size of each part; they sum to 1.

    Returns:
        The index of a part for each patient.
    """
    has: dict[str, list[str]] = {patient: [] for patient in patients}
    for name in sorted(observed):
        for patient in observed[name]:
            has[patient].append(name)
    lacking = {name: [len(observed[name]) * fraction for fraction in fractions] for name in observed}
    room = [len(has) * fraction for fraction in fractions]
    left = {name: len(members) for name, members in observed.items() if members}
    placed: dict[str, int] = {}

    def place(patient: str, wanted: Sequence[float]) -> None:
        part = max((p for p in range(len(fractions)) if fractions[p] > 0), key=lambda p: (wanted[p], room[p], -p))
        placed[patient] = part
        room[part] -= 1
        for name in has[patient]:
            lacking[name][part] -= 1
            left[name] -= 1

    while rarest := min(
        (name for name, count in left.items() if count), key=lambda name: (left[name], name), default=""
    ):
        for patient in [p for p in patients if p not in placed and p in observed[rarest]]:
            place(patient, lacking[rarest])
    for patient in patients:
        if patient not in placed:
            place(patient, room)
    return placed
