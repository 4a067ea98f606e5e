"""A user's own vocabulary: its examples run when it loads, and it reaches every output."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrprep.errors import ConfigError
from cxrprep.labels.nlp.custom_rules import read_vocabulary
from cxrprep.labels.nlp.label_collection import label_collection
from cxrprep.labels.nlp.label_report import label_report
from tests.labels.nlp.collections import folder, labels

HERNIA = """
examples = ["Sternal wires. No hiatus hernia. => Support Devices=1, Hiatal Hernia=0"]

[[observation]]
name = "Hiatal Hernia"
findings = ["hiatal|hiatus hernia", "intrathoracic stomach"]
examples = ["Large hiatal hernia. => positive", "Possible hiatal hernia. => uncertain", "Clear. => null"]

[[observation]]
name = "Support Devices"
findings = ["sternal wire(s)"]

[[cue]]
kind = "negation"
phrases = ["nil"]
"""


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(HERNIA, "utf-8")
    return file


def test_an_observation_phrases_and_a_cue_are_added(vocabulary: Path) -> None:
    found = label_report("Hiatal hernia. Sternal wires. Nil effusion.", rules=vocabulary).labels
    assert (found["Hiatal Hernia"], found["Support Devices"], found["Pleural Effusion"]) == (1, 1, 0)
    assert len(found) == 15
    assert "Hiatal Hernia" not in label_report("Hiatal hernia.").labels


def test_a_collection_has_a_column_for_it(vocabulary: Path, tmp_path: Path) -> None:
    source = folder(tmp_path / "r", {"a.txt": "Hiatal hernia.", "b.txt": "No hiatal hernia."})
    rows = labels(label_collection(source, tmp_path / "out", vocabulary=vocabulary).labels)
    assert [row["label_hiatal_hernia"] for row in rows] == [1, 0]


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        ("Large hiatal hernia. => negative", "gives Hiatal Hernia=1, not 0"),
        ("Large hiatal hernia.", "has no label"),
        ("=> positive", "has no label"),
        ("Hernia. => maybe", "no known label; known: 1, positive"),
        ("Hernia. => Hernia=1", "names no observation that has a label: 'Hernia'"),
        ("No effusion. => Pleural Effusion=1", "gives Pleural Effusion=0, not 1"),
    ],
)
def test_an_example_that_does_not_hold_stops_the_run(tmp_path: Path, example: str, complaint: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(HERNIA.replace("Clear. => null", example), "utf-8")
    with pytest.raises(ConfigError, match=complaint):
        read_vocabulary(file)
    with pytest.raises(ConfigError):
        label_report("x", rules=file)
    with pytest.raises(ConfigError):
        label_collection(folder(tmp_path / "r", {"a.txt": "x"}), tmp_path / "out", vocabulary=file)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is no UTF-8"):
        read_vocabulary(file)
