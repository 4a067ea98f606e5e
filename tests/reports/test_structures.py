"""The heart and the mediastinum: what counts is the state that they are given."""

from __future__ import annotations

import pytest

from cxrprep.labels.report.labeler import label_report

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
