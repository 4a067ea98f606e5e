"""What negates a mention, what makes it uncertain, and how far each reaches: with the cue that decided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrprep.labels.nlp.custom_rules import selftest
from cxrprep.labels.nlp.label_report import label_report
from cxrprep.labels.nlp.mentions import MentionStatus, Rule
from cxrprep.labels.nlp.negation import read_sentence
from cxrprep.labels.nlp.ruleset import build_rules, shipped_sources


def test_every_shipped_example_gives_its_labels() -> None:
    done = selftest()
    assert done.examples > 1000
    assert done.failures == ()
    assert done.passed


@pytest.mark.parametrize(
    ("text", "phrase", "status", "rule", "cue"),
    [
        ("Small effusion.", "effusion", 1, Rule.NAMED, ""),
        ("No effusion.", "effusion", 0, Rule.NEGATED, "No"),
        ("No edema, effusion, or pneumothorax.", "pneumothorax", 0, Rule.NEGATED, "No"),
        ("Without edema.", "edema", 0, Rule.NEGATED, "Without"),
        ("Edema is not seen.", "Edema", 0, Rule.NEGATED_AFTER, "is not seen"),
        ("The effusion has resolved.", "effusion", 0, Rule.NEGATED_AFTER, "has resolved"),
        ("Possible edema.", "edema", -1, Rule.UNCERTAIN, "Possible"),
        ("Opacity may represent pneumonia.", "pneumonia", -1, Rule.UNCERTAIN, "may represent"),
        ("Edema is suspected.", "Edema", -1, Rule.UNCERTAIN_AFTER, "is suspected"),
        ("Pneumonia cannot be excluded.", "Pneumonia", -1, Rule.NOT_EXCLUDED, "cannot be excluded"),
        ("Cannot exclude pneumonia.", "pneumonia", -1, Rule.NOT_EXCLUDED, "Cannot exclude"),
        ("No new consolidation.", "consolidation", -1, Rule.NOT_EXCLUDED, "No new"),
        ("Atelectasis or consolidation.", "Atelectasis", -1, Rule.ALTERNATIVE, "or"),
        ("Atelectasis, consolidation, or edema.", "Atelectasis", -1, Rule.ALTERNATIVE, "or"),
        ("Atelectasis versus consolidation.", "Atelectasis", -1, Rule.ALTERNATIVE, "versus"),
        ("Vascular congestion.", "Vascular congestion", -1, Rule.SUSPECT, ""),
        ("The heart is enlarged.", "The heart", 1, Rule.ABNORMAL, "enlarged"),
        ("The heart is normal.", "The heart", 0, Rule.NORMAL, "normal"),
        ("The heart is stable.", "The heart", -1, Rule.STABLE, "stable"),
        ("Borderline heart size.", "heart size", -1, Rule.BORDERLINE, "Borderline"),
    ],
)
def test_the_rule_and_the_cue_that_decide(text: str, phrase: str, status: int, rule: Rule, cue: str) -> None:
    found = [mention for mention in label_report(text).mentions if mention.phrase == phrase]
    assert [(int(mention.status), mention.rule, mention.cue) for mention in found] == [(status, rule, cue)]
    assert all(mention.reason for mention in found)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        # What ends the reach of a negation.
        ("No effusion, but mild edema.", {"Pleural Effusion": 0, "Edema": 1}),
        ("No effusion; mild edema.", {"Pleural Effusion": 0, "Edema": 1}),
        ("No effusion and there is edema.", {"Pleural Effusion": 0, "Edema": 1}),
        ("No effusion with chest tube in place.", {"Pleural Effusion": 0, "Support Devices": 1}),
        ("Resolved edema, small effusion.", {"Edema": 0, "Pleural Effusion": 1}),
        # What looks like a negation and is none.
        ("No change in the effusion.", {"Pleural Effusion": 1}),
        ("No change in edema, atelectasis, or effusions.", {"Edema": 1, "Atelectasis": 1, "Pleural Effusion": 1}),
        ("The effusion has not resolved.", {"Pleural Effusion": 1}),
        ("No interval increase in the effusion.", {"Pleural Effusion": 1}),
        # Lists of alternatives do not take what they explain.
        ("Opacity, atelectasis versus infiltrate.", {"Lung Opacity": 1, "Atelectasis": -1}),
        # A chest tube that was removed does not deny what follows.
        ("Chest tube removed without pneumothorax.", {"Support Devices": 0, "Pneumothorax": 0}),
        # Doubt wins over denial.
        ("No effusion, although pneumonia cannot be excluded.", {"Pleural Effusion": 0, "Pneumonia": -1}),
    ],
)
def test_how_far_a_cue_reaches(text: str, labels: dict[str, int]) -> None:
    given = label_report(text).labels
    assert {name: given[name] for name in labels} == labels


WORDS = (
    "no", "without", "effusion", "edema", ",", "and", "or", "versus", "/", "the", "heart", "is", "stable", "enlarged",
    "normal", "may", "represent", "cannot", "be", "excluded", "but", ";", "with", "new", "removed", "resolved",
    "possible", "change", "in", "opacity", "mediastinum", "not", "seen", "small", "left", "tube", "?", "x",
)  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_row_of_words_is_read(words: list[str]) -> None:
    found = read_sentence(" ".join(words), build_rules(shipped_sources()))
    for mention in found:
        assert mention.status in MentionStatus
        assert 0 <= mention.first < mention.last <= len(words)
        assert (mention.cue_first < 0) == (mention.rule in {Rule.NAMED, Rule.SUSPECT})
