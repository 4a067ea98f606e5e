"""Named policies: what each makes of the wordings on which readers differ, and that a policy is data."""

from __future__ import annotations

import pytest

from cxrprep import label_report
from cxrprep.labels.nlp.policies import POLICIES, policy_sources, switches_of

ORDER = ("default", "chexpert-labeler", "chexpert-annotators", "open-i", "presence", "strict")
# What each of ORDER says: 1, 0, u for -1, a dot for blank.
WORDINGS = {
    ("Left basal change, edema or pneumonia.", "Edema"): "uuu11u",
    ("Consolidation/atelectasis on the right.", "Consolidation"): "uuu11u",
    ("Pneumonia versus edema.", "Pneumonia"): "uuu11u",
    ("There is no new nodule.", "Lung Lesion"): "uuuu0u",
    ("No nodule.", "Lung Lesion"): "000000",
    ("The chest drain was removed.", "Support Devices"): "0000.0",
    ("No tube is seen.", "Support Devices"): "000000",
    ("Mediastinal contour unchanged.", "Enlarged Cardiomediastinum"): "uuuu.u",
    ("There is pulmonary venous congestion.", "Edema"): "uuu11u",
    ("No vascular congestion.", "Edema"): "000000",
    ("Findings of heart failure.", "Cardiomegaly"): "uuuu.u",
    ("The heart is borderline in size.", "Cardiomegaly"): "uuu11u",
    ("Prominent left hilum.", "Enlarged Cardiomediastinum"): "..1...",
    ("Enlarged pulmonary arteries.", "Enlarged Cardiomediastinum"): "..1...",
    ("The aortic contour is enlarged.", "Enlarged Cardiomediastinum"): ".11...",
    ("Cardiomegaly.", "Enlarged Cardiomediastinum"): "....1.",
    ("Low lung volumes without effusion.", "No Finding"): ".1....",
    ("Clips in the left axilla.", "No Finding"): ".1....",
    ("Scoliosis.", "No Finding"): "......",
    ("The heart is obscured.", "Cardiomegaly"): "uuuu.u",
    ("The effusion is not well assessed.", "Pleural Effusion"): "uuuu.u",
    ("Pneumothorax is less likely.", "Pneumothorax"): "uuuu1u",
    ("History of pneumothorax.", "Pneumothorax"): "0000.0",
    ("Scar in the left mid zone.", "Lung Opacity"): "1111.1",
    ("Edema is probable.", "Edema"): "11111u",
    ("Probable edema.", "Edema"): "1u111u",
    ("Findings concerning for edema.", "Edema"): "uu1u1u",
    ("Nodules likely represent nipple shadows.", "Lung Lesion"): "......",
}


@pytest.mark.parametrize("place", range(len(ORDER)), ids=ORDER)
def test_a_policy_decides_what_readers_differ_on(place: int) -> None:
    values = {"1": 1, "0": 0, "u": -1, ".": None}
    wrong = {
        text: got
        for (text, name), said in WORDINGS.items()
        if (got := label_report(text, policy=ORDER[place]).labels[name]) != values[said[place]]
    }
    assert wrong == {}


def test_evidence_keeps_the_words_that_a_switch_decided_on() -> None:
    (mention,) = label_report("There is no new nodule.", policy="presence").mentions
    assert (mention.status, mention.cue) == (0, "no new")


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_built_of_switches_and_phrases_that_are_there(name: str) -> None:
    policy = POLICIES[name]
    assert len(switches_of(policy)) == len(policy.switches)
    assert bool(policy_sources(policy)) is bool(policy.phrases)
