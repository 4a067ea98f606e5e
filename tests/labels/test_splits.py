"""Splits by patient: no patient in two, stable when patients come and go, fractions as asked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import UsageError
from cxrprep.labels.splits import SplitRule
from cxrprep.model import Split
from cxrprep.schemas import CATEGORY

UNTIMED = settings(deadline=None)
TWENTY = settings(deadline=None, max_examples=20)
PATIENTS = st.lists(st.text("0123456789abcdefghij", min_size=1, max_size=8), min_size=1, max_size=60)
FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.3), (0.5, 0.25, 0.25), (0.9, 0.1), (1 / 3, 1 / 3, 1 / 3)])
SEEDS = st.integers(0, 2**32)
OFFICIAL = st.sampled_from(["train", "validate", "test", "train_val", None])


def table(patients, *, splits=None, cardiomegaly=None):
    rows = len(patients)
    return pa.table(
        {
            "patient_id": pa.array(patients, pa.string()),
            "split": pa.array(splits or [None] * rows, pa.string()).dictionary_encode().cast(CATEGORY),
            "label_cardiomegaly": pa.array(cardiomegaly or [None] * rows, pa.int8()),
        }
    )


def placed(divided):
    """The splits of each patient."""
    found: dict[str, set[str | None]] = {}
    for patient, split in zip(
        divided.column("patient_id").to_pylist(), divided.column("split").to_pylist(), strict=True
    ):
        found.setdefault(patient, set()).add(split)
    return found


@UNTIMED
@given(PATIENTS, FRACTIONS, SEEDS)
def test_no_patient_is_in_two_splits_and_every_row_is_in_one(patients, fractions, seed):
    divided = SplitRule(fractions, seed).apply(table(patients))
    assert divided.num_rows == len(patients)
    assert divided.column("patient_id").to_pylist() == patients
    for splits in placed(divided).values():
        assert len(splits) == 1
        assert splits <= {"train", "validate", "test"}


@UNTIMED
@given(PATIENTS, PATIENTS, FRACTIONS, SEEDS)
def test_a_patient_stays_when_others_come(patients, others, fractions, seed):
    rule = SplitRule(fractions, seed)
    before, after = placed(rule.apply(table(patients))), placed(rule.apply(table([*others, *patients])))
    assert {patient: after[patient] for patient in before} == before


@UNTIMED
@given(PATIENTS, FRACTIONS, SEEDS, st.randoms())
def test_the_order_of_rows_does_not_matter(patients, fractions, seed, random):
    rule = SplitRule(fractions, seed)
    shuffled = list(patients)
    random.shuffle(shuffled)
    assert placed(rule.apply(table(patients))) == placed(rule.apply(table(shuffled)))


@UNTIMED
@given(PATIENTS, FRACTIONS, SEEDS, st.data())
def test_stratified_splits_leak_no_patient_either(patients, fractions, seed, data):
    cells = data.draw(st.lists(st.sampled_from([1, 0, -1, None]), min_size=len(patients), max_size=len(patients)))
    notes = []
    rule = SplitRule(fractions, seed, stratify="cardiomegaly")
    divided = rule.apply(table(patients, cardiomegaly=cells), notes.append)
    assert all(len(splits) == 1 for splits in placed(divided).values())
    assert not rule.stable
    assert any("adding patients can move others" in note.message for note in notes)


@UNTIMED
@given(PATIENTS, SEEDS, st.data())
def test_within_one_official_split_the_others_are_left_alone(patients, seed, data):
    official = data.draw(st.lists(OFFICIAL, min_size=len(patients), max_size=len(patients)))
    divided = SplitRule((0.9, 0.1), seed, within=Split.TRAIN_VAL).apply(table(patients, splits=official))
    new = divided.column("split").to_pylist()
    leaking = {
        p for p, splits in placed(table(patients, splits=official)).items() if "train_val" in splits and len(splits) > 1
    }
    for patient, before, after in zip(patients, official, new, strict=True):
        if before != "train_val" or patient in leaking:
            assert after == before
        else:
            assert after in ("train", "validate")
    # What the release kept apart stays apart.
    for patient, splits in placed(divided).items():
        assert len(splits) == 1 or len(placed(table(patients, splits=official))[patient]) > 1


@TWENTY
@given(FRACTIONS, SEEDS)
def test_the_fractions_are_those_that_were_asked_for(fractions, seed):
    patients = [f"{number:05d}" for number in range(4000)]
    divided = SplitRule(fractions, seed).apply(table(patients)).column("split").to_pylist()
    for name, fraction in zip(("train", "validate", "test"), fractions, strict=False):
        # Six standard deviations of a binomial count.
        assert abs(divided.count(name) / 4000 - fraction) < 6 * (fraction * (1 - fraction) / 4000) ** 0.5


@TWENTY
@given(FRACTIONS, SEEDS)
def test_strata_are_divided_alike(fractions, seed):
    patients = [f"{number:04d}" for number in range(1000)]
    cells = [1 if number % 10 == 0 else 0 for number in range(1000)]
    rule = SplitRule(fractions, seed, stratify="cardiomegaly")
    divided = rule.apply(table(patients, cardiomegaly=cells)).column("split").to_pylist()
    for name, fraction in zip(("train", "validate", "test"), fractions, strict=False):
        positive = sum(cell for cell, split in zip(cells, divided, strict=True) if split == name)
        assert abs(positive - 100 * fraction) <= 1


def test_another_seed_is_another_division():
    patients = [f"{number:05d}" for number in range(500)]
    one, two = (SplitRule(seed=seed).apply(table(patients)).column("split").to_pylist() for seed in (1, 2))
    assert one != two


def test_the_hash_is_the_same_on_every_machine():
    # A division that people published must come out the same for ever.
    rule = SplitRule((0.8, 0.1, 0.1), seed=7)
    assert [str(rule.place(f"{number:08d}")) for number in range(1, 13)] == [
        "train", "validate", "validate", "train", "train", "train",
        "train", "validate", "train", "train", "train", "train",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"fractions": "0.8,0.1"}, "do not divide"),
        ({"fractions": "1.2,-0.2"}, "do not divide"),
        ({"fractions": "all"}, "are not numbers"),
        ({"by": "image"}, "cannot split by 'image'"),
        ({"within": "somewhere"}, "unknown split 'somewhere'"),
        ({"stratify": "Beauty"}, "unknown observation 'Beauty'"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_hint(words, message):
    with pytest.raises(UsageError, match=message) as caught:
        SplitRule.parse(**words)
    assert caught.value.hint


@UNTIMED
@given(FRACTIONS, SEEDS, st.sampled_from([None, "train_val"]), st.sampled_from([None, "Edema", "Hernia"]))
def test_a_rule_survives_its_description(fractions, seed, within, stratify):
    rule = SplitRule.parse(fractions=",".join(map(repr, fractions)), seed=seed, within=within, stratify=stratify)
    assert SplitRule.described(rule.describe()) == rule


def test_images_that_leave_the_released_test_split_are_said() -> None:
    notes = []
    released = table([f"p{n}" for n in range(40)], splits=["train"] * 30 + ["test"] * 10)
    divided = SplitRule((0.8, 0.2), seed=1).apply(released, notes.append)
    left = sum(split != "test" for split in divided.column("split").to_pylist()[30:])
    assert left
    [note] = notes
    assert note.level == "warning"
    assert note.message.startswith(f"{left} of 10 images of the released test split")
    notes.clear()
    SplitRule((0.8, 0.2), seed=1, within=Split.TRAIN).apply(released, notes.append)
    assert notes == []


def test_the_released_split_is_kept_beside_one_s_own():
    stated = table(["a", "b", "c", "d"], splits=["train", "test", "train", None])
    once = SplitRule((0.5, 0.5), seed=1).apply(stated)
    again = SplitRule((0.5, 0.5), seed=2).apply(once)
    for divided in (once, again):
        assert divided.column("release_split").to_pylist() == ["train", "test", "train", None]


NAMES = ("edema", "hernia", "cardiomegaly", "pneumonia")


def findings(patients: list[str], seed: int) -> pa.Table:
    """Two images a patient, with findings from common to rare."""
    rng = np.random.default_rng(seed)
    rows = [patient for patient in patients for _ in range(2)]
    shares = (0.3, 0.01, 0.1, 0.04)
    cells = {
        f"label_{name}": (rng.random(len(rows)) < share).astype(np.int8)
        for name, share in zip(NAMES, shares, strict=True)
    }
    split = pa.array([None] * len(rows), pa.string()).dictionary_encode().cast(CATEGORY)
    return pa.table(
        {"patient_id": pa.array(rows, pa.string()), "split": split, **{k: pa.array(v) for k, v in cells.items()}}
    )


def held_by(divided: pa.Table, column: str) -> dict[str, dict[object, int]]:
    """How many patients of each part have each finding."""
    found: dict[str, dict[object, set[str]]] = {name: {} for name in NAMES}
    for row in divided.to_pylist():
        for name in NAMES:
            if row[f"label_{name}"] == 1:
                found[name].setdefault(row[column], set()).add(row["patient_id"])
    return {name: {part: len(members) for part, members in parts.items()} for name, parts in found.items()}


@pytest.mark.parametrize("stratify", ["all", "Edema,Hernia,Cardiomegaly,Pneumonia"])
@pytest.mark.parametrize("fractions", ["0.8,0.1,0.1", "0.7,0.3"])
def test_many_observations_are_divided_in_the_fractions_asked_for(stratify: str, fractions: str) -> None:
    stated = findings([f"p{number:04d}" for number in range(2000)], 5)
    rule = SplitRule.parse(fractions=fractions, seed=3, stratify=stratify)
    divided = rule.apply(stated)
    assert all(len(splits) == 1 for splits in placed(divided).values())
    for name, parts in held_by(divided, "split").items():
        for part, fraction in zip(("train", "validate", "test"), rule.fractions, strict=False):
            assert abs(parts[part] - fraction * sum(parts.values())) <= 1.5, (name, part)


@pytest.mark.parametrize("stratify", [None, "all", "Hernia"])
def test_folds_stand_beside_the_split_and_test_images_are_in_none(stratify: str | None) -> None:
    stated = findings([f"p{number:04d}" for number in range(1000)], 6)
    official = ["test" if int(p[1:]) % 10 == 0 else "train" for p in stated.column("patient_id").to_pylist()]
    stated = stated.set_column(1, "split", pa.array(official).dictionary_encode().cast(CATEGORY))
    rule = SplitRule.parse(fractions="", seed=2, stratify=stratify, folds=5)
    divided = rule.apply(stated)
    assert divided.column("split").to_pylist() == official
    folds: dict[str, set[int | None]] = {}
    for row in divided.to_pylist():
        folds.setdefault(row["patient_id"], set()).add(row["fold"])
        assert (row["fold"] is None) == (row["split"] == "test")
    assert all(len(found) == 1 for found in folds.values())
    sizes = [list(folds.values()).count({number}) for number in range(5)]
    assert sum(sizes) == 900
    assert min(sizes) > 130
    if stratify == "all":
        for name, parts in held_by(divided, "fold").items():
            known = {part: count for part, count in parts.items() if part is not None}
            assert max(known.values()) - min(known.values()) <= 2, name
    assert SplitRule.described(rule.describe()) == rule
    assert (
        rule.apply(stated.take(list(range(stated.num_rows))[::-1])).column("fold").to_pylist()
        == divided.column("fold").to_pylist()[::-1]
    )


def test_a_fold_stays_when_other_patients_come_and_is_another_hash_than_the_split() -> None:
    patients = [f"p{number}" for number in range(400)]
    rule = SplitRule((0.5, 0.5), seed=1, folds=4)
    before, after = (rule.apply(table(names)) for names in (patients, [*patients, "new", "newer"]))
    assert after.column("fold").to_pylist()[:400] == before.column("fold").to_pylist()
    train = {
        fold
        for fold, split in zip(before["fold"].to_pylist(), before["split"].to_pylist(), strict=True)
        if split == "train"
    }
    assert train == {0, 1, 2, 3}


@pytest.mark.parametrize(("words", "message"), [({"folds": 1}, "1 folds"), ({"folds": 1000}, "1000 folds")])
def test_folds_that_divide_nothing_are_refused(words: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SplitRule.parse(**words)


def test_an_observation_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no label Hernia"):
        SplitRule.parse(stratify="Hernia").apply(table(["a", "b"]))
