"""Sentences keep their places in the text, whatever the text holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrprep.labels.nlp.sentences import normalised, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No effusion. No edema.", ["no effusion", "no edema"]),
        ("Nodule of 3.5 cm. New.", ["nodule of 3.5 cm", "new"]),
        ("clear.No effusion", ["clear", "no effusion"]),
        ("1. Clear lungs. 2. No edema", ["clear lungs", "no edema"]),
        ("1) Clear lungs 2) No edema", ["clear lungs", "no edema"]),
        ("a) Clear lungs b) No edema", ["clear lungs", "no edema"]),
        ("Findings (a) clear lungs. (b) No edema (mild)", ["findings", "clear lungs", "no edema (mild)"]),
        ("Grade (iii) edema of 1.25 mm) seen", ["grade", "edema of 1.25 mm) seen"]),
        ("1.single view 2.no edema", ["single view", "no edema"]),
        ("Edema vs. pneumonia.", ["edema vs. pneumonia"]),
        ("Seen by Dr. X. Clear.", ["seen by dr. x", "clear"]),
        ("? pneumonia. Clear", ["? pneumonia", "clear"]),
        ("Opacity ? pneumonia", ["opacity ? pneumonia"]),
        ("Pneumonia? Clear!", ["pneumonia?", "clear"]),
        ("wrapped\nline", ["wrapped line"]),
        ("Small effusion\nNo edema\nCardiomegaly", ["small effusion", "no edema", "cardiomegaly"]),
        ("- No effusion\n- Edema\n", ["no effusion", "edema"]),
        ("No effusion,\nEdema or mass", ["no effusion, edema or mass"]),
        (
            "A line that is as long as those that were wrapped at the\nRight margin",
            ["a line that is as long as those that were wrapped at the right margin"],
        ),
        ("one\n\ntwo", ["one", "two"]),
        ("one\n \t\ntwo", ["one", "two"]),
        ("air-space disease", ["air space disease"]),
        ("effusion - none", ["effusion ; none"]),
        ("effusion\u2014none \u2019s", ["effusion none 's"]),
        ("___ year old", ["year old"]),
        ("...", []),
        ("1. 2. 3.", []),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == sentences


@given(st.text())
def test_the_normal_form_has_a_character_for_each(text: str) -> None:
    flat = normalised(text)
    assert len(flat) == len(text)
    assert flat.isascii()


@given(st.text(st.sampled_from("ab. ?!1)\n-") | st.characters(), max_size=200))
def test_a_sentence_is_the_normal_form_of_its_place(text: str) -> None:
    last = 0
    for sentence in split_sentences(text):
        assert last <= sentence.start <= sentence.end <= len(text)
        assert " ".join(normalised(text[sentence.start : sentence.end]).split()) == sentence.text
        last = sentence.end
