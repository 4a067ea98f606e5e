"""Names: what the releases call things, what we call them, and what is lost between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import UsageError
from cxrprep.vocabulary import (
    CHEXPERT,
    GOOGLE_FOUR,
    NIH,
    OBSERVATIONS,
    PRESETS,
    VOCABULARIES,
    column_of,
    observations_of,
    published_name,
    stem_of,
)

UNTIMED = settings(deadline=None)


def test_there_are_14_observations_of_each_and_no_finding():
    assert len(CHEXPERT.names) == 14
    assert len([name for name in NIH.names if name != "No Finding"]) == 14
    assert {term.stem for v in VOCABULARIES.values() for term in v.terms} == set(OBSERVATIONS)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Effusion", "pleural_effusion"),
        ("Pleural Effusion", "pleural_effusion"),
        ("label_pleural_effusion", "pleural_effusion"),
        ("pleural effusion", "pleural_effusion"),
        ("Pleural_Thickening", "pleural_thickening"),
        ("Infiltrate", "infiltration"),
        ("Airspace Opacity", "lung_opacity"),
        ("airspace opacity", "lung_opacity"),
        ("Nodule or mass", "lung_lesion"),
        ("EDEMA", "edema"),
    ],
)
def test_every_spelling_leads_to_one_observation(name, stem):
    assert stem_of(name) == stem
    assert column_of(name) == f"label_{stem}"


def test_what_is_not_the_same_is_kept_apart():
    assert stem_of("Infiltration") != stem_of("Lung Opacity")
    assert stem_of("Mass") != stem_of("Nodule") != stem_of("Lung Lesion")
    assert stem_of("Fibrosis") != stem_of("Pleural Other")


def test_losses_are_said_where_meanings_differ():
    losses = {term.name: term.loss for v in VOCABULARIES.values() for term in v.terms}
    for name in ("Infiltration", "Effusion", "Mass", "Nodule", "Airspace opacity", "Nodule or mass", "No Finding"):
        assert losses[name]
    assert losses["Cardiomegaly"] == ""
    assert CHEXPERT.no_finding != NIH.no_finding
    assert all(VOCABULARIES[name].no_finding for name in ("chexpert", "nih-chestxray14"))


@UNTIMED
@given(st.sampled_from(sorted(OBSERVATIONS)))
def test_a_published_name_leads_back(stem):
    assert stem_of(published_name(stem)) == stem


def test_presets_are_named_lists():
    assert [published_name(stem) for stem in observations_of("chexpert-competition")] == [
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion",
    ]  # fmt: skip
    assert observations_of("Edema, Effusion,edema") == ("edema", "pleural_effusion")
    assert len(observations_of("chexpert")) == 14
    assert all(observations_of(name) for name in PRESETS)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError) as caught:
        stem_of("Cardiomegly")
    assert "did you mean Cardiomegaly?" in caught.value.hint


def test_google_four_is_part_of_the_vocabulary():
    assert [term.stem for term in GOOGLE_FOUR.terms] == ["fracture", "pneumothorax", "lung_opacity", "lung_lesion"]
