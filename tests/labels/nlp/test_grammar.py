"""Sentences as templates: whatever three findings stand in them, each gets the label that the grammar gives it."""

from __future__ import annotations

import itertools

import pytest

from cxrprep.labels.nlp.labeler import Labeler

# In upper case the word begins the sentence. Labels of a, b and c: 1, 0, U for uncertain.
STATED = (
    ("No {a}, {b}, or {c}.", "000"),
    ("No {a}, {b} or {c}.", "000"),
    ("No {a} or {b}. Small {c}.", "001"),
    ("There is no {a}, {b}, or {c}.", "000"),
    ("No evidence of {a}, {b}, or {c} is seen.", "000"),
    ("{A}, {b}, and {c} are unchanged.", "111"),
    ("Stable {a}, {b}, and {c}.", "111"),
    ("No change in {a}, {b}, or {c}.", "111"),
    ("No significant interval change in {a} and {b}. No {c}.", "110"),
    ("Mild {a} with {b} and no {c}.", "110"),
    ("Mild {a} without {b} or {c}.", "100"),
    ("{A} is present. No {b} or {c}.", "100"),
    ("No {a}, but mild {b} and small {c}.", "011"),
    ("There is mild {a}, small {b}, but no {c}.", "110"),
    ("{A} and {b} have resolved. {C} persists.", "001"),
    ("Interval resolution of {a} and {b}. Persistent {c}.", "001"),
    ("{A} cannot be excluded. No {b} or {c}.", "U00"),
    ("Possible {a}. No {b}. Small {c}.", "U01"),
    ("{A} may be present; {b} is unchanged; no {c}.", "U10"),
    ("Neither {a} nor {b} is seen. {C}.", "001"),
    ("No {a}. No {b}. No {c}.", "000"),
    ("Without {a}, {b}, or {c}.", "000"),
    ("Negative for {a}, {b}, or {c}.", "000"),
    ("No new {a}. Unchanged {b} and {c}.", "U11"),
    ("{A}, {b}, {c}.", "111"),
    ("Findings suspicious for {a}. {B} and {c} are noted.", "U11"),
    ("Mild {a}, slightly improved, with {b} and {c}.", "111"),
    ("{A} is not seen. {B} is seen. Possible {c}.", "01U"),
    ("Increased {a} and {b}, with no evidence of {c}.", "110"),
    ("No {a} is identified, and there is no {b}; {c} is noted.", "001"),
    ("Interval development of {a} and {b} without {c}.", "110"),
    ("Persistent {a}, decreased {b}, and new {c}.", "111"),
    ("No {a}, {b}, {c}.", "000"),
    ("The lungs are clear of {a} or {b}. Mild {c}.", "001"),
    ("{A} has increased, {b} has decreased, and {c} has resolved.", "110"),
    ("No {a} and no {b}, but {c} is present.", "001"),
    ("No {a} and {b}. Mild {c}.", "001"),
    ("Cannot exclude {a} or {b}. No {c}.", "UU0"),
)
# An opacity is seen and not concluded, so that alternatives leave it as it is: it is not in these.
DOUBTED = (
    ("{A} or {b}. No {c}.", "UU0"),
    ("{A} versus {b}, with small {c}.", "UU1"),
    ("{A}, {b}, or {c}.", "UUU"),
    ("{A} and/or {b}. {C}.", "UU1"),
    ("{A}/{b} at the left base. No {c}.", "UU0"),
    ("Findings may represent {a}, {b}, or {c}.", "UUU"),
    ("Findings may represent {a} or {b}, and there is {c}.", "UU1"),
    ("Findings may represent {a}. {B}. No {c}.", "U10"),
    ("Likely {a}, although {b} cannot be excluded. No {c}.", "1U0"),
    ("{A}, although superimposed {b} is not excluded. No {c}.", "1U0"),
    ("{A}, although superimposed {b} is not excluded, and small {c}.", "1U1"),
    ("{A} with possible {b}, no {c}.", "1U0"),
    ("{A} and possible {b}. No {c}.", "1U0"),
    ("Differential includes {a}, {b}, and {c}.", "UUU"),
    ("No {a}. {B} is possible. {C}.", "0U1"),
    ("No definite {a}, although {b} is possible; {c} is unchanged.", "0U1"),
    ("{A}, unchanged. Interval resolution of {b}. New {c}.", "101"),
    ("{A} which may represent {b}; {c} is also noted.", "1U1"),
    ("There is {a}, likely {b}, less likely {c}.", "11U"),
    ("{A} rather than {b}. No {c}.", "100"),
    ("{A} is likely. {B} is unlikely. {C} is questionable.", "10U"),
    ("{A} has resolved. {B} may be present. {C} remains.", "0U1"),
    ("{A} without definite {b}, {c} cannot be excluded.", "10U"),
    ("Small {a}, possible {b}, and stable {c}.", "1U1"),
    ("Small {a} and {b}; no definite {c}.", "110"),
    ("Questionable {a}. Otherwise, no {b} or {c}.", "U00"),
    ("{A}; {b} cannot be ruled out; no {c}.", "1U0"),
    ("{A} concerning for {b}, with {c}.", "1U1"),
    ("Interval decrease in {a} without {b}. Possible {c}.", "10U"),
    ("{A} is again seen, with {b}; {c} is not excluded.", "11U"),
    ("The {a} and {b} have improved; the {c} has resolved.", "110"),
    ("The {a} is unchanged, the {b} has resolved, and the {c} is new.", "101"),
    ("No {a} is seen, however {b} is present and {c} cannot be excluded.", "01U"),
    ("Interval removal of {a}. No {b}. Stable {c}.", "001"),
    ("Redemonstrated {a} with interval increase in {b} and interval resolution of {c}.", "110"),
    ("No change in {a}. Interval increase in {b}. No {c}.", "110"),
    ("In addition to {a}, there is {b}, without {c}.", "110"),
    ("Aside from {a}, there is no {b} or {c}.", "100"),
    ("Other than mild {a}, no {b} or {c}.", "100"),
    ("No {a} or {b} other than mild {c}.", "001"),
    ("Except for {a}, the lungs are clear without {b} or {c}.", "100"),
    ("Mild {a}. Otherwise no {b} or {c}.", "100"),
    ("{A} may be due to {b}; {c} is considered less likely.", "1UU"),
    ("Could represent {a} or, less likely, {b}. No {c}.", "UU0"),
    ("{A} (small) and {b} (moderate). No {c}.", "110"),
    ("1. {A}. 2. No {b}. 3. Possible {c}.", "10U"),
    ("1) {A} 2) No {b} 3) Possible {c}", "10U"),
    ("- {A}\n- No {b}\n- Possible {c}", "10U"),
)
FINDINGS = {
    "Lung Lesion": "nodule",
    "Edema": "pulmonary edema",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural effusion",
    "Pleural Other": "pleural thickening",
    "Fracture": "rib fracture",
    "Support Devices": "chest tube",
    "Cardiomegaly": "cardiomegaly",
}
VALUES = {"1": 1, "0": 0, "U": -1}


@pytest.fixture(scope="module")
def labeler() -> Labeler:
    return Labeler()


def wrong(labeler: Labeler, template: str, expected: str, findings: dict[str, str]) -> list[str]:
    found = []
    for names in itertools.islice(itertools.permutations(findings, 3), 0, None, 7):
        a, b, c = (findings[name] for name in names)
        text = template.format(a=a, b=b, c=c, A=a.capitalize(), B=b.capitalize(), C=c.capitalize())
        labels = labeler.label(text, mimic=False, evidence=False).labels
        if [labels[name] for name in names] != [VALUES[value] for value in expected]:
            found.append(text)
    return found


@pytest.mark.parametrize(("template", "expected"), STATED)
def test_statements(labeler: Labeler, template: str, expected: str) -> None:
    assert wrong(labeler, template, expected, {"Lung Opacity": "opacity", **FINDINGS}) == []


@pytest.mark.parametrize(("template", "expected"), DOUBTED)
def test_statements_with_doubts_and_alternatives(labeler: Labeler, template: str, expected: str) -> None:
    assert wrong(labeler, template, expected, FINDINGS) == []


SPELLINGS = {
    "Lung Opacity": [
        "opacity",
        "opacities",
        "opacification",
        "infiltrate",
        "infiltrates",
        "airspace disease",
        "air-space opacity",
        "airspace opacity",
        "interstitial opacities",
        "increased interstitial markings",
        "ground-glass opacity",
        "scarring",
        "reticular pattern",
        "reticular opacities",
        "peribronchial thickening",
        "retrocardiac density",
        "hazy density",
        "patchy density",
        "retrocardiac opacity",
        "alveolar infiltrate",
        "parenchymal opacity",
        "interstitial lung disease",
        "bronchial wall thickening",
        "air space process",
    ],
    "Lung Lesion": [
        "mass",
        "masses",
        "nodule",
        "pulmonary nodules",
        "nodular opacity",
        "cavitary lesion",
        "lung tumor",
        "lung carcinoma",
        "lung lesion",
        "pulmonary metastases",
        "neoplasm",
        "nodular density",
        "lung mass",
        "hilar mass",
        "mass-like opacity",
    ],
    "Edema": [
        "pulmonary edema",
        "interstitial edema",
        "CHF",
        "congestive heart failure",
        "heart failure",
        "alveolar edema",
        "fluid overload",
        "edema",
    ],
    "Consolidation": [
        "consolidation",
        "focal consolidation",
        "airspace consolidation",
        "consolidative opacity",
        "consolidations",
    ],
    "Pneumonia": [
        "pneumonia",
        "bronchopneumonia",
        "infection",
        "infectious process",
        "aspiration pneumonia",
        "pneumonic infiltrate",
        "superinfection",
    ],
    "Atelectasis": [
        "atelectasis",
        "atelectatic changes",
        "lobar collapse",
        "discoid atelectasis",
        "subsegmental atelectasis",
        "lung collapse",
    ],
    "Pneumothorax": ["pneumothorax", "pneumothoraces", "hydropneumothorax", "tension pneumothorax", "PTX"],
    "Pleural Effusion": [
        "pleural effusion",
        "effusion",
        "effusions",
        "pleural fluid",
        "hemothorax",
        "hydropneumothorax",
        "empyema",
        "hydrothorax",
        "parapneumonic effusion",
    ],
    "Pleural Other": [
        "pleural thickening",
        "pleural scarring",
        "fibrothorax",
        "pulmonary fibrosis",
        "apical pleural thickening",
        "pleural parenchymal scarring",
    ],
    "Fracture": ["rib fracture", "fractures", "compression fracture", "clavicle fracture", "vertebral fracture", "fx"],
    "Cardiomegaly": [
        "cardiomegaly",
        "cardiac enlargement",
        "enlarged heart",
        "enlarged cardiac silhouette",
        "heart enlargement",
    ],
    "Enlarged Cardiomediastinum": [
        "mediastinal widening",
        "widened mediastinum",
        "enlarged cardiomediastinal silhouette",
        "mediastinal enlargement",
    ],
    "Support Devices": [
        "endotracheal tube",
        "nasogastric tube",
        "left PICC",
        "right chest tube",
        "Swan-Ganz catheter",
        "pacemaker",
        "port-a-cath",
        "mediastinal drain",
        "tracheostomy tube",
        "central venous catheter",
        "AICD",
        "Dobbhoff tube",
        "right internal jugular line",
    ],
}
SAID = {
    "{X}.": 1,
    "There is {x}.": 1,
    "No {x}.": 0,
    "No evidence of {x}.": 0,
    "Possible {x}.": -1,
    "{X} cannot be excluded.": -1,
    "Cannot exclude {x}.": -1,
    "{X} has resolved.": 0,
    "Persistent {x}.": 1,
    "Findings may represent {x}.": -1,
    "{X} is suspected.": -1,
    "Without {x}.": 0,
    "{X} is unchanged.": 1,
    "Stable {x}.": 1,
    "No change in {x}.": 1,
    "Mild {x} is present.": 1,
    "Findings concerning for {x}.": -1,
    "{X} is not seen.": 0,
    "Questionable {x}.": -1,
    "{X}?": -1,
    "Findings consistent with {x}.": 1,
    "Likely {x}.": 1,
    "No definite {x} is identified.": 0,
    "{X}, improved.": 1,
    "{X} is less likely.": -1,
    "Findings suspicious for {x}.": -1,
    "{X} is unlikely.": 0,
    "Resolution of {x}.": 0,
    "New {x}.": 1,
    "No new {x}.": -1,
}


@pytest.mark.parametrize("observation", SPELLINGS)
def test_every_spelling_is_affirmed_denied_and_doubted(labeler: Labeler, observation: str) -> None:
    for words in SPELLINGS[observation]:
        for template, expected in SAID.items():
            text = template.format(x=words, X=words[0].upper() + words[1:])
            assert labeler.label(text, mimic=False, evidence=False).labels[observation] == expected, text
