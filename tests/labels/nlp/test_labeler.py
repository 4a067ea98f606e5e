"""One report: evidence in its place, statuses, memory that changes nothing, time that grows with the length alone."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cxrprep
from cxrprep.errors import ConfigError
from cxrprep.labels.nlp import labeler as rooms
from cxrprep.labels.nlp.label_report import label_report
from cxrprep.labels.nlp.labeler import Labeler
from cxrprep.labels.nlp.policies import MentionPolicy, Sections
from cxrprep.labels.nlp.results import ReportStatus
from cxrprep.labels.nlp.ruleset import OBSERVATIONS


def test_the_public_function_gives_fourteen_names_and_mentions() -> None:
    answer = cxrprep.label_report("Small left effusion. No edema. Possible pneumonia.")
    assert tuple(answer.labels) == OBSERVATIONS
    assert {name: label for name, label in answer.labels.items() if label is not None} == {
        "Pleural Effusion": 1,
        "Edema": 0,
        "Pneumonia": -1,
    }
    assert [(m.observation, m.sentence, m.phrase) for m in answer.mentions] == [
        ("Pleural Effusion", 0, "effusion"),
        ("Edema", 1, "edema"),
        ("Pneumonia", 2, "pneumonia"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "  FINAL REPORT\n INDICATION: ? pneumonia\n \n IMPRESSION: \n \n No pneumo-\n thorax;  MILD   Edema.\n",
        "Cardiac \u2013 silhouette: \u201cenlarged\u201d. Left\teffusion\u2026 no\u00a0edema",
        "___ tube. XXXX effusion is not seen.",
        "\ufeff1. Edema?\r\n2. Cannot exclude\r\npneumonia.",
    ],
)
def test_evidence_points_at_its_words(text: str) -> None:
    answer = label_report(text)
    assert answer.mentions
    for mention in answer.mentions:
        assert text[mention.start : mention.end] == mention.phrase
        assert answer.start <= mention.start < mention.end <= answer.end
        if mention.cue:
            assert text[mention.cue_start : mention.cue_end] == mention.cue


PIECES = st.sampled_from(
    ["No ", "effusion", "possible ", "edema", ". ", ", ", " or ", "the heart is ", "stable ", "\n", "\n \n",
     "IMPRESSION: ", "- ", "XXXX ", "___ ", "\u00e9", "\u2014", "1. ", "?", "\x00", "\t",
     "cannot be excluded", "\U0001f600", "A"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=5), max_size=60).map("".join))
def test_any_text_is_labelled_and_its_evidence_holds(text: str) -> None:
    answer = label_report(text)
    assert set(answer.labels.values()) <= {1, 0, -1, None}
    for mention in answer.mentions:
        assert text[mention.start : mention.end] == mention.phrase
        assert mention.reason
    if answer.status is not ReportStatus.LABELED:
        assert set(answer.labels.values()) == {None}
        assert not answer.mentions


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("...", "empty"),
        ("IMPRESSION:", "no-section"),
        ("  FINAL REPORT\n HISTORY:  Cough.\n", "no-section"),
        ("Kein Erguss, keine Stauung.", "unreadable"),
        ("胸部未见异常", "unreadable"),
        ("Normal.", "labeled"),
        ("Clear lungs", "labeled"),
        ("Findings discussed with Dr. Smith at 5 pm.", "labeled"),
    ],
)
def test_what_becomes_of_a_report(text: str, status: str) -> None:
    answer = label_report(text)
    assert answer.status == status
    assert (answer.labels["No Finding"] == 1) == (status == "labeled")


def test_sections_by_policy() -> None:
    text = "  FINAL REPORT\n HISTORY:  Pneumonia.\n \n FINDINGS: \n \n Edema.\n \n IMPRESSION: \n \n Effusion.\n"

    def positive(sections: Sections) -> set[str]:
        labels = Labeler(policy=MentionPolicy(sections=sections)).label(text).labels
        return {name for name, label in labels.items() if label == 1}

    assert positive(Sections.CONCLUSION) == {"Pleural Effusion"}
    assert positive(Sections.FINDINGS_AND_IMPRESSION) == {"Pleural Effusion", "Edema"}
    assert positive(Sections.EVERYTHING) == {"Pleural Effusion", "Edema", "Pneumonia"}


def test_remembered_sentences_change_nothing_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_REMEMBERED_SENTENCES", 3)
    labeler = Labeler()
    texts = [f"No effusion. {n} cm nodule. Possible edema on day {n % 4}." for n in range(20)] * 2
    assert [labeler.label(text) for text in texts] == [Labeler().label(text) for text in texts]
    assert len(labeler._memory) <= 3


def test_without_evidence_the_labels_are_the_same() -> None:
    text = "No effusion. Stable heart. Edema or pneumonia."
    bare = Labeler().label(text, evidence=False)
    assert bare.mentions == ()
    assert bare.labels == Labeler().label(text).labels


def test_a_vocabulary_that_was_edited_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "words.toml"
    file.write_text('[[observation]]\nname = "Hernia"\nfindings = ["hernia"]\n', "utf-8")
    assert label_report("Hiatal hernia.", rules=file).labels["Hernia"] == 1
    file.write_text('[[observation]]\nname = "Hernia"\nfindings = ["hiatal hernia", "stomach"]\n', "utf-8")
    assert label_report("Hernia. Stomach.", rules=file).labels["Hernia"] == 1
    assert label_report("Hernia.", rules=file).labels["Hernia"] is None
    with pytest.raises(ConfigError, match=r"nowhere.toml cannot be read"):
        label_report("x", rules=tmp_path / "nowhere.toml")


ATOMS = (
    "no ", "effusion, ", "or ", "and ", ", ", "the heart is ", "stable ", "may represent ", "\n ", "\n \n ", ". ",
    "...", "1. ", "IMPRESSION: ", "\n IMPRESSION: ", "a", "-", " - - ", "\n", "?", "cannot be excluded ",
    "enlarged but ", "cardiac silhouette and ", "xxx", "\t", " ", "(", "\u00e9", "findings:", "no new ", "removed ",
    "\n A B", "/", "without ",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_time_grows_with_the_length_and_not_faster(seed: int) -> None:
    # Not how fast, but how it grows: eight times the text takes a square sixty-four times as long. A busy machine gives
    # this process anything between; so a growth that looks too fast must look so every time.
    chance = random.Random(seed)
    unit = "".join(chance.choice(ATOMS) for _ in range(chance.randint(1, 4)))
    short = unit * (10_000 // len(unit))

    def spent(text: str) -> float:
        labeler = Labeler()
        begin = time.process_time()
        labeler.label(text)
        return time.process_time() - begin

    def grows() -> bool:
        return spent(short * 8) > 30 * max(spent(short), 0.002)

    assert not all(grows() for _ in range(8))


@pytest.mark.slow
def test_a_word_without_an_end_is_read() -> None:
    # A misspelling is looked for by leaving out each letter: here that would be terabytes.
    assert label_report("No effusion. " + "a" * 2_000_000).labels["Pleural Effusion"] == 0


def test_ten_megabytes_are_one_report() -> None:
    sentence = "No effusion, possible edema or atelectasis and the heart is stable. "
    text = sentence * (10_000_000 // len(sentence))
    labels = Labeler().label(text, evidence=False).labels
    assert (labels["Pleural Effusion"], labels["Edema"], labels["Cardiomegaly"]) == (0, -1, -1)
