"""A user's own vocabulary: its examples run when it loads, and it reaches every output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cxrprep.errors import ConfigError, UsageError
from cxrprep.labels.nlp.custom_rules import read_vocabulary
from cxrprep.labels.nlp.label_collection import label_collection
from cxrprep.labels.nlp.label_report import label_report
from cxrprep.labels.nlp.policies import policy_named
from tests.labels.nlp.collections import folder, labels, table_csv

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


def rules_of(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own.toml"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("number", [0, 1])
def test_the_vocabularies_of_the_documentation_hold(tmp_path: Path, number: int) -> None:
    page = Path(__file__).parents[3] / "docs" / "explanation" / "report-labeler.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    file = rules_of(tmp_path, blocks[number])
    assert "examples" in blocks[number]
    assert read_vocabulary(file)
    if number:
        text = "GP letter: pneumonia?\nBottom line: effusion. Features of edema."
        found = label_report(text, rules=file, policy="strict").labels
        assert (found["Pneumonia"], found["Pleural Effusion"], found["Edema"]) == (None, 1, 1)
        assert label_report("Features of edema.", policy="strict").labels["Edema"] == -1


def test_shipped_phrases_are_removed_or_replaced(tmp_path: Path) -> None:
    block = '[[observation]]\nname = "Pneumonia"\n'
    found = label_report("Infection. Pneumonia.", rules=rules_of(tmp_path, block + 'remove = ["infection*"]')).mentions
    assert [mention.phrase for mention in found] == ["Pneumonia"]
    found = label_report("Infection.", rules=rules_of(tmp_path, block + 'replace = true\nfindings = ["pus"]')).mentions
    assert not found
    moved = '[[cue]]\nkind = "uncertainty"\nreplace = true\nphrases = ["no"]'
    assert label_report("No effusion.", rules=rules_of(tmp_path, moved)).labels["Pleural Effusion"] == -1
    gone = label_report("Possible effusion.", rules=rules_of(tmp_path, '[[cue]]\nremove = ["possible"]')).labels
    assert gone["Pleural Effusion"] == 1


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ('[[observation]]\nname = "Pneumonia"\nremove = ["infektion*"]', "not a phrase of Pneumonia", "infection"),
        ('[[cue]]\nremove = ["posible"]', "not a phrase of a cue", "possible"),
        ('[[cue]]\nkind = "negation"', "has no phrases", "remove"),
    ],
)
def test_what_is_not_there_cannot_be_removed(tmp_path: Path, text: str, complaint: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_vocabulary(rules_of(tmp_path, text))
    assert hint in str(raised.value.hint)


REPORT = "INDICATION: pneumonia.\nFINDINGS: Left effusion.\nIMPRESSION: Mild edema."


@pytest.mark.parametrize(
    ("sections", "read", "positive"),
    [
        ("", "impression", {"Edema"}),
        ("findings", "findings", {"Pleural Effusion"}),
        ("findings+impression", "findings+impression", {"Pleural Effusion", "Edema"}),
        ("technique, indication", "indication", {"Pneumonia"}),
        ("technique", "", set()),
    ],
)
def test_the_sections_that_are_wanted(tmp_path: Path, sections: str, read: str, positive: set[str]) -> None:
    source = folder(tmp_path / "r", {"a.txt": REPORT, "b.txt": "Left effusion."})
    done = label_collection(source, tmp_path / "out", policy=policy_named("default", sections=sections))
    first, second = labels(done.labels)
    observed = {name for name in ("edema", "pleural_effusion", "pneumonia") if first[f"label_{name}"] == 1}
    assert first["section"] == (read or None)
    assert observed == {name.lower().replace(" ", "_") for name in positive}
    # A text without titles is the section "report".
    assert (second["status"] == "no-section") is bool(sections)
    whole = label_collection(source, tmp_path / "out", policy=policy_named("default", sections="technique,report"))
    assert [row["status"] for row in labels(whole.labels)] == ["no-section", "labeled"]


def test_sections_that_a_table_states_are_chosen_too(tmp_path: Path) -> None:
    header = ["study", "impression", "findings", "last_paragraph", "comparison"]
    source = table_csv(tmp_path / "mimic_cxr_sectioned.csv", header, [["s50000001", "Edema.", "Effusion.", "", ""]])
    for sections, edema, effusion in (("", 1, None), ("findings", None, 1), ("findings+impression", 1, 1)):
        done = label_collection(source, tmp_path / "out", policy=policy_named("default", sections=sections))
        assert [(r["label_edema"], r["label_pleural_effusion"]) for r in labels(done.labels)] == [(edema, effusion)]


def test_sections_that_name_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="names no sections"):
        label_report("x", sections=",impression")


@pytest.mark.parametrize(
    ("sections", "hint"),
    [
        ("impresion,findings", "did you mean impression?"),
        ("impressions", "did you mean impression?"),
        ("findings+conclusions", "did you mean impression?"),
        ("gp letter", "known: "),
        ("nonsense", "[sections] in a --vocabulary file"),
    ],
)
def test_a_section_that_no_report_has_is_refused_before_anything_is_written(
    tmp_path: Path, sections: str, hint: str
) -> None:
    source = folder(tmp_path / "r", {"a.txt": REPORT})
    with pytest.raises(UsageError, match="no section of a report is called") as raised:
        label_collection(source, tmp_path / "out", policy=policy_named("default", sections=sections))
    assert hint in str(raised.value.hint)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="no section of a report is called"):
        label_report("IMPRESSION: Edema.", sections=sections)


def test_a_section_of_ones_own_is_one(tmp_path: Path) -> None:
    text = '[sections]\n"gp letter" = ["letter of the gp"]\n'
    source = folder(tmp_path / "r", {"a.txt": "LETTER OF THE GP: edema.\nFINDINGS: Left effusion."})
    done = label_collection(
        source,
        tmp_path / "out",
        vocabulary=rules_of(tmp_path, text),
        policy=policy_named("default", sections="gp letter"),
    )
    assert [(row["section"], row["label_edema"]) for row in labels(done.labels)] == [("gp letter", 1)]


@pytest.mark.parametrize(
    "name", ["clinical_history", "narrative", "procedure_comments", "summary", "end_of_impression"]
)
def test_the_columns_of_chexpert_plus_are_sections(tmp_path: Path, name: str) -> None:
    source = table_csv(tmp_path / "plus.csv", ["path_to_image", f"section_{name}", "report"], [["a", "Edema.", "x"]])
    done = label_collection(source, tmp_path / "out", policy=policy_named("default", sections=name))
    assert [(row["section"], row["label_edema"]) for row in labels(done.labels)] == [(name, 1)]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        read_vocabulary(file)
