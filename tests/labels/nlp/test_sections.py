"""Sections as the authors of MIMIC-CXR cut them, and headings in other texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrprep.labels.nlp.policies import Sections
from cxrprep.labels.nlp.sections import canonical_name, chosen_sections, mimic_sections, plain_sections

# As the files have it: every line begins with a blank, an empty one too.
_LINES = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation.
 Note: not a heading.

 IMPRESSION:

 No acute cardiopulmonary process.
"""
MIMIC = _LINES.replace("\n\n", "\n \n").replace(":\n", ": \n")


def read(text: str, sections: Sections = Sections.CONCLUSION, **about: object) -> list[tuple[str, str]]:
    return [(s.name, " ".join(text[s.start : s.end].split())) for s in chosen_sections(text, sections, **about)]


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("IMPRESSOIN", "impression"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "findings"),
        ("PORTABLE AP CHEST RADIOGRAPH", "findings"),
        ("PFI", "history"),
        ("CLINICAL HISTORY", "history"),
        ("REASON FOR EXAM", "indication"),
        ("WET READ", "wet read"),
        ("ADDENDUM #1", "addendum"),
        ("NOTE", "note"),
    ],
)
def test_a_heading_stands_for_a_section(heading: str, name: str) -> None:
    assert canonical_name(heading) == name


def test_a_report_of_mimic_is_cut_at_its_headings() -> None:
    assert [s.name for s in mimic_sections(MIMIC)] == [
        "preamble", "examination", "indication", "comparison", "findings", "impression",
    ]  # fmt: skip
    assert read(MIMIC) == [("impression", "No acute cardiopulmonary process.")]


def test_both_parts_are_read_when_the_policy_says_so() -> None:
    assert [name for name, _ in read(MIMIC, Sections.FINDINGS_AND_IMPRESSION)] == ["findings", "impression"]
    assert read(MIMIC, Sections.EVERYTHING)[0][0] == "report"


@pytest.mark.parametrize(
    ("text", "section"),
    [
        (MIMIC.replace("IMPRESSION", "SUMMARY"), ("findings", "There is no focal consolidation. Note: not a heading.")),
        # Of several the last one counts.
        (MIMIC + " IMPRESSION: \n \n Addended.\n", ("impression", "Addended.")),
        # An empty conclusion is none.
        (MIMIC + " IMPRESSION: \n \n", ("impression", "No acute cardiopulmonary process.")),
        # Neither: what follows the first blank line of the last section.
        ("  FINAL REPORT\n HISTORY:  Cough.\n \n The lungs are clear.\n \n No effusion.\n",
         ("last_paragraph", "The lungs are clear. No effusion.")),
        ("  FINAL REPORT\n CHEST RADIOGRAPH\n \n The lungs are clear.\n", ("last_paragraph", "The lungs are clear.")),
        ("  FINAL REPORT\n COMPARISON:  None. The lungs are clear.\n", ("comparison", "None. The lungs are clear.")),
    ],
)  # fmt: skip
def test_the_conclusion_is_chosen_as_mimic_chooses_it(text: str, section: tuple[str, str]) -> None:
    assert read(text) == [section]


def test_a_report_of_mimic_without_any_of_them_has_no_section() -> None:
    assert read("  FINAL REPORT\n HISTORY:  Cough.\n") == []


def test_studies_that_the_authors_cut_by_hand() -> None:
    text = "  FINAL REPORT\n EXAMINATION:  Chest. No effusion.\n \n IMPRESSION: \n \n Nothing.\n"
    assert read(text, study="s59363654") == [("examination", "Chest. No effusion.")]
    assert read(text, study="s58235663") == []
    assert read(" " * 60 + "a" * 400 + "\n IMPRESSION: x\n", study="s56579911", mimic=True) == [("by_hand", "a" * 158)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Findings: clear lungs. Impression: normal.", [("findings", "clear lungs."), ("impression", "normal.")]),
        ("HISTORY: cough FINDINGS: clear", [("history", "cough"), ("findings", "clear")]),
        ("Conclusions:\nnormal", [("impression", "normal")]),
        ("No heading at all. The findings are normal.", []),
        ("1. Effusion. 2. Incidental findings: old fractures.", []),
        ("OLD FRACTURES ARE INCIDENTAL FINDINGS: NONE ACUTE.", []),
    ],
)
def test_headings_of_other_texts(text: str, found: list[tuple[str, str]]) -> None:
    assert [(s.name, text[s.start : s.end].strip()) for s in plain_sections(text)] == found


def test_a_text_without_headings_is_read_whole() -> None:
    assert read("Small effusion.") == [("report", "Small effusion.")]
    # What is advised is nothing that was found.
    assert read("Small effusion. Recommendation: follow-up.") == [("report", "Small effusion.")]


def test_what_follows_the_end_of_the_impression_is_not_read() -> None:
    tail = "END OF IMPRESSION:\nSUMMARY: 4-POSSIBLE SIGNIFICANT FINDINGS.\nI have reviewed the images."
    assert read(f"1. Small effusion.\n{tail}") == [("report", "1. Small effusion.")]
    assert read(f"IMPRESSION:\n1. Small effusion.\n{tail}") == [("impression", "1. Small effusion.")]


def test_headings_alone_are_nothing_to_read() -> None:
    assert read("IMPRESSION:\n") == []
    assert read("Findings:\nImpression: \n") == []


@given(st.text(st.sampled_from("\n :ABFINDGSMPREO ab.") | st.characters(), max_size=400))
def test_sections_lie_within_the_text_and_in_order(text: str) -> None:
    for policy in Sections:
        places = [(s.start, s.end) for s in chosen_sections(text, policy)]
        assert all(0 <= start <= end <= len(text) for start, end in places)
        assert places == sorted(places)


def test_a_mimic_report_whose_findings_are_called_report_is_read() -> None:
    text = " FINAL REPORT\n COMPARISON:  ___.\n \n REPORT:  Large effusion.\n"
    assert read(text) == [("findings", "Large effusion.")]


@pytest.mark.parametrize(
    "pointer", ["As above.", "See findings.", "Please refer to the body of the report.", "1. As described above."]
)
def test_an_impression_that_points_back_is_passed_over(pointer: str) -> None:
    assert read(f"FINDINGS: Effusion.\nIMPRESSION: {pointer}") == [("findings", "Effusion.")]
