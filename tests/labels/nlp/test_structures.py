"""The heart and the mediastinum: what counts is the state that they are given."""

from __future__ import annotations

import itertools

import pytest

from cxrprep.labels.nlp.label_report import label_report

HEART, MEDIASTINUM = "Cardiomegaly", "Enlarged Cardiomediastinum"


@pytest.mark.parametrize(
    ("text", "heart", "mediastinum"),
    [
        ("Wires overlie the heart.", None, None),
        ("The heart and mediastinum are normal.", 0, 0),
        ("Enlarged heart and normal mediastinum.", 1, 0),
        ("The heart is enlarged, mediastinum is normal.", 1, 0),
        ("Heart size is normal, and the mediastinum is widened.", 0, 1),
        ("Stable cardiomegaly and mediastinal contours.", 1, -1),
        ("Stable heart and normal mediastinum.", -1, 0),
        ("Stable normal heart size.", 0, None),
        ("Stable enlarged cardiac silhouette.", 1, None),
        ("Enlarged but stable cardiac silhouette.", 1, None),
        ("Heart size is stable, with prominent aortic knob.", -1, None),
        ("Stable cardiomediastinal silhouette and clear lungs.", None, -1),
        ("Stable mediastinum without evidence of widening.", None, 0),
        ("The heart does not appear enlarged.", 0, None),
        ("The heart may be mildly enlarged.", -1, None),
        ("The cardiac silhouette is no longer enlarged.", 0, None),
        ("Heart size mildly prominent but within normal limits.", 0, None),
        ("No mediastinal widening.", None, 0),
        ("No change in the cardiac silhouette.", -1, None),
        ("Heart size cannot be assessed.", -1, None),
    ],
)
def test_the_state_decides(text: str, heart: int | None, mediastinum: int | None) -> None:
    labels = label_report(text).labels
    assert (labels[HEART], labels[MEDIASTINUM]) == (heart, mediastinum)


STATES = {
    "is normal": 0,
    "is enlarged": 1,
    "is stable": -1,
    "is within normal limits": 0,
    "remains mildly enlarged": 1,
    "is not enlarged": 0,
    "is not significantly changed": -1,
    "is enlarged but stable": 1,
    "is stable and within normal limits": 0,
    "is at the upper limits of normal": 0,
    "is obscured": -1,
    "is similar to prior": -1,
    "is mildly enlarged, unchanged": 1,
}
QUALITIES = {"Normal": 0, "Enlarged": 1, "Stable": -1, "Unremarkable": 0, "Mildly enlarged": 1, "Stable enlarged": 1}


@pytest.mark.parametrize("heart", ["heart size", "cardiac silhouette"])
@pytest.mark.parametrize("mediastinum", ["mediastinum", "cardiomediastinal silhouette"])
@pytest.mark.parametrize(
    "template",
    [
        "The {h} {p} and the {m} {q}.",
        "The {h} {p}; the {m} {q}.",
        "The {h} {p}, and the {m} {q}. No effusion.",
        "There is no effusion, and the {h} {p}. The {m} {q}.",
        "The {m} {q}, {h} {p}.",
    ],
)
def test_each_structure_has_the_state_that_its_own_words_give_it(heart: str, mediastinum: str, template: str) -> None:
    for (p, first), (q, second) in itertools.product(STATES.items(), STATES.items()):
        text = template.format(h=heart, m=mediastinum, p=p, q=q)
        labels = label_report(text).labels
        assert (labels[HEART], labels[MEDIASTINUM]) == (first, second), text


@pytest.mark.parametrize(
    "template",
    ["{p} {h} and {q} {m}.", "{p} {h}, {q} {m}.", "{p} {h} with {q} {m}.", "Clear lungs and {p} {h}. {q} {m}."],
)
def test_a_state_in_front_belongs_to_what_follows_it(template: str) -> None:
    for (p, first), (q, second) in itertools.product(QUALITIES.items(), QUALITIES.items()):
        text = template.format(h="heart", m="mediastinum", p=p, q=q.lower())
        labels = label_report(text).labels
        assert (labels[HEART], labels[MEDIASTINUM]) == (first, second), text
