"""What uncertain and blank labels become: the policies of the CheXpert paper, over all cells that there are."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import UsageError
from cxrprep.labels.policy import KEEP, Policy
from cxrprep.schemas import CATEGORY
from cxrprep.vocabulary import OBSERVATIONS, published_name

UNTIMED = settings(deadline=None, max_examples=50)
CELLS = st.sampled_from([1, 0, -1, None])
COLUMNS = st.integers(1, 12).flatmap(
    lambda rows: st.fixed_dictionaries({stem: st.lists(CELLS, min_size=rows, max_size=rows) for stem in OBSERVATIONS})
)
WORDS = st.tuples(st.sampled_from(["keep", "ones", "zeros", "ignore"]), st.sampled_from(["null", "zeros"]))


def table(columns, sources=None):
    rows = len(next(iter(columns.values())))
    cells = {f"label_{stem}": pa.array(columns.get(stem, [None] * rows), pa.int8()) for stem in OBSERVATIONS}
    names = pa.array(sources or ["one"] * rows, pa.string()).dictionary_encode().cast(CATEGORY)
    return pa.table({"label_source": names, **cells})


def meant(value, uncertain, blank, known=True):
    if value == -1:
        return {"keep": -1, "ones": 1, "zeros": 0, "ignore": None}[uncertain]
    if value is None:
        return 0 if blank == "zeros" and known else None
    return value


@UNTIMED
@given(COLUMNS, WORDS)
def test_every_cell_becomes_what_the_policy_says(columns, words):
    uncertain, blank = words
    applied = Policy.parse(uncertain=uncertain, blank=blank).apply(table(columns))
    for stem, cells in columns.items():
        known = any(cell is not None for cell in cells)
        assert applied.column(f"label_{stem}").to_pylist() == [meant(c, uncertain, blank, known) for c in cells]


@UNTIMED
@given(COLUMNS, WORDS)
def test_the_mask_is_1_where_a_loss_has_a_label_to_count(columns, words):
    uncertain, blank = words
    policy = Policy.parse(uncertain=uncertain, blank=blank)
    stated = table(columns)
    applied = policy.apply(stated)
    for stem, cells in columns.items():
        mask = policy.mask(stated, stem).to_pylist()
        assert mask == [int(value is not None) for value in applied.column(f"label_{stem}").to_pylist()]
        ignored = [cell == -1 and uncertain == "ignore" for cell in cells]
        assert all(not counted for counted, left_out in zip(mask, ignored, strict=True) if left_out)


@UNTIMED
@given(COLUMNS)
def test_keep_changes_nothing(columns):
    assert KEEP.apply(table(columns)).equals(table(columns))


@UNTIMED
@given(COLUMNS, st.sampled_from(sorted(OBSERVATIONS)), WORDS)
def test_one_observation_may_be_treated_otherwise(columns, stem, words):
    uncertain, blank = words
    policy = Policy.parse(uncertain="zeros", per={published_name(stem): {"uncertain": uncertain, "blank": blank}})
    applied = policy.apply(table(columns))
    for name, cells in columns.items():
        known = any(cell is not None for cell in cells)
        rule = (uncertain, blank) if name == stem else ("zeros", "null")
        assert applied.column(f"label_{name}").to_pylist() == [meant(cell, *rule, known) for cell in cells]


def test_a_blank_is_0_only_where_its_source_knows_the_observation():
    columns = {"edema": [1, None, None, None], "mass": [None, None, None, 0]}
    stated = table(columns, ["chexpert-labeler", "chexpert-labeler", "nih-textmined", "nih-textmined"])
    applied = Policy.parse(blank="zeros").apply(stated)
    assert applied.column("label_edema").to_pylist() == [1, 0, None, None]
    assert applied.column("label_mass").to_pylist() == [None, None, 0, 0]
    assert applied.column("label_fracture").to_pylist() == [None] * 4


@UNTIMED
@given(COLUMNS)
def test_derivation_fills_null_parents_and_overrules_nothing(columns):
    stated = table(columns)
    derived = Policy.parse(derive=True).apply(stated)
    for stem, cells in columns.items():
        found = derived.column(f"label_{stem}").to_pylist()
        assert all(after == before for before, after in zip(cells, found, strict=True) if before is not None)
    for row, (before, lesion) in enumerate(
        zip(columns["lung_lesion"], derived.column("label_lung_lesion").to_pylist(), strict=True)
    ):
        children = {columns["mass"][row], columns["nodule"][row]}
        if before is None:
            assert lesion == (1 if 1 in children else None)


def test_infiltration_makes_an_opacity_only_when_asked_and_fibrosis_never_a_pleural_other():
    columns = {"infiltration": [1], "fibrosis": [1], "pleural_thickening": [None], "lung_opacity": [None]}
    assert KEEP.apply(table(columns)).column("label_lung_opacity").to_pylist() == [None]
    derived = Policy.parse(derive=True).apply(table(columns))
    assert derived.column("label_lung_opacity").to_pylist() == [1]
    assert derived.column("label_pleural_other").to_pylist() == [None]


def test_a_policy_survives_its_description():
    policy = Policy.parse(uncertain="ones", blank="zeros", derive=True, per={"Edema": "zeros", "label_mass": "ignore"})
    assert Policy.parse(**policy.describe()) == policy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"uncertain": "sometimes"}, "unknown policy 'sometimes' for uncertain labels"),
        ({"blank": "ones"}, "unknown policy 'ones' for blank labels"),
        ({"per": {"Beauty": "ones"}}, "unknown observation 'Beauty'"),
        ({"per": {"Edema": {"uncertian": "ones"}}}, "unknown key 'uncertian'"),
    ],
)
def test_what_is_no_policy_is_refused_with_a_hint(words, message):
    with pytest.raises(UsageError, match=message) as caught:
        Policy.parse(**words)
    assert caught.value.hint
