"""From mentions to labels: the named policies, and what the reference labeler is known to do."""

from __future__ import annotations

import itertools

import pytest

from cxrprep.errors import UsageError
from cxrprep.labels.nlp.label_report import label_report
from cxrprep.labels.nlp.labeler import _label, mask_of
from cxrprep.labels.nlp.mentions import MentionStatus
from cxrprep.labels.nlp.policies import POLICIES, Precedence, policy_named

P, N, U = MentionStatus.POSITIVE, MentionStatus.NEGATIVE, MentionStatus.UNCERTAIN


@pytest.mark.parametrize(
    ("statuses", "paper", "program"),
    [
        ((), None, None),
        ((P,), 1, 1),
        ((N,), 0, 0),
        ((U,), -1, -1),
        ((N, P), 1, 1),
        ((U, P), 1, 1),
        ((N, U), -1, -1),
        # Where the released program differs from its paper.
        ((N, U, P), 1, -1),
    ],
)
def test_which_mention_wins(statuses: tuple[MentionStatus, ...], paper: int | None, program: int | None) -> None:
    for order in itertools.permutations(statuses):
        assert _label(mask_of((0, status) for status in order), Precedence.POSITIVE_WINS) == paper
        assert _label(mask_of((0, status) for status in order), Precedence.CHEXPERT_LABELER) == program


THREE = "No effusion on the right. Small left effusion. A loculated effusion cannot be excluded."


@pytest.mark.parametrize(
    ("text", "observation", "default", "compat", "derived"),
    [
        (THREE, "Pleural Effusion", 1, -1, 1),
        ("Cardiomegaly.", "Enlarged Cardiomediastinum", None, None, 1),
        # Devices are negated like everything else, and do not speak against No Finding.
        ("The chest tube has been removed.", "Support Devices", 0, 0, 0),
        ("The chest tube has been removed.", "No Finding", 1, 1, 1),
        ("Chest tube in place.", "No Finding", 1, 1, 1),
        ("Possible edema.", "No Finding", None, None, None),
        ("No edema.", "No Finding", 1, 1, 1),
        ("Hiatal hernia.", "No Finding", None, None, None),
        ("Congestive heart failure.", "Cardiomegaly", -1, -1, -1),
        ("Congestive heart failure. Cardiomegaly.", "Cardiomegaly", 1, 1, 1),
        ("No heart failure.", "Cardiomegaly", None, None, None),
        ("Possible heart failure.", "Edema", -1, -1, -1),
    ],
)
def test_the_policies(
    text: str, observation: str, default: int | None, compat: int | None, derived: int | None
) -> None:
    found = [label_report(text, policy=name).labels[observation] for name in ("default", "chexpert-labeler", "derived")]
    assert found == [default, compat, derived]


@pytest.mark.parametrize("text", ["", " \n ", "IMPRESSION:\n", "Kein Erguss, keine Stauung."])
def test_an_empty_report_is_no_finding_only_where_compatibility_asks(text: str) -> None:
    assert set(label_report(text).labels.values()) == {None}
    compat = label_report(text, policy="chexpert-labeler")
    assert compat.labels["No Finding"] == 1
    assert compat.status != "labeled"


def test_no_finding_is_never_negative_or_uncertain() -> None:
    for text in ("No finding of disease.", "Possible edema.", "Normal chest.", THREE):
        for policy in POLICIES:
            assert label_report(text, policy=policy).labels["No Finding"] in {1, None}


def test_an_unknown_policy_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError) as caught:
        policy_named("nobody")
    assert "chexpert-labeler" in caught.value.hint


# One ordered scale of hedges: a policy is where it is cut.
SCALE = (
    "Consistent with edema.",
    "Likely edema.",
    "Probable edema.",
    "Findings suspicious for edema.",
    "Possible edema.",
)


@pytest.mark.parametrize(
    ("policy", "positive"),
    [("strict", 1), ("chexpert-labeler", 2), ("default", 3), ("chexpert-annotators", 4), ("presence", 5)],
)
def test_a_policy_is_a_cut_of_the_scale_of_hedges(policy: str, positive: int) -> None:
    labels = [label_report(text, policy=policy).labels["Edema"] for text in SCALE]
    assert labels == [1] * positive + [-1] * (len(SCALE) - positive)
    assert label_report("No edema.", policy=policy).labels["Edema"] == 0


@pytest.mark.parametrize("text", ["Probable edema.", "Edema is probable.", "Probably edema.", "Signs of edema."])
def test_a_hedge_has_one_value_wherever_it_stands(text: str) -> None:
    assert label_report(text).labels["Edema"] == 1
