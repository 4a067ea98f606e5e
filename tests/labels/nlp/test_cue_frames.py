"""Every cue in every frame: what a cue says does not depend on the verb before it."""

from __future__ import annotations

import pytest

from cxrprep import label_report

# Cues that look ahead, and what each makes of what follows.
AHEAD = {
    "negative for": 0, "free of": 0, "clear of": 0, "without": 0, "devoid of": 0, "unlikely to represent": 0,
    "inconsistent with": 0, "not consistent with": 0, "not suggestive of": 0,
    "suspicious for": -1, "concerning for": -1, "worrisome for": -1, "questionable for": -1, "equivocal for": -1,
    "less likely to be": -1, "inconclusive for": -1,
    "consistent with": 1, "compatible with": 1, "suggestive of": 1, "in keeping with": 1,
}  # fmt: skip
# Cues that look back, and what each makes of what stands before.
BACK = {
    "not seen": 0, "absent": 0, "considered unlikely": 0,
    "no longer visible": 0, "unlikely": 0, "excluded": 0, "ruled out": 0, "resolved": 0,
    "possible": -1, "suspected": -1, "questionable": -1, "not excluded": -1, "not ruled out": -1,
    "difficult to exclude": -1,
    "present": 1, "seen": 1, "unchanged": 1, "not resolved": 1,
}  # fmt: skip
VERBS = ("is", "was", "remains", "appears")
# Each with a neighbour of another observation.
FINDINGS = {
    "pneumothorax": "Pneumothorax", "effusion": "Pleural Effusion", "pneumonia": "Pneumonia", "edema": "Edema",
    "consolidation": "Consolidation", "atelectasis": "Atelectasis", "fracture": "Fracture", "a nodule": "Lung Lesion",
}  # fmt: skip
NAMES = list(FINDINGS)


def other(finding: str) -> str:
    return NAMES[(NAMES.index(finding) + 1) % len(NAMES)]


def check(text: str, **expected: int) -> str | None:
    got = label_report(text).labels
    return next((f"{text!r}: {n} {got[n]}, not {v}" for n, v in expected.items() if got[n] != v), None)


@pytest.mark.parametrize("finding", NAMES)
@pytest.mark.parametrize("cue", AHEAD)
def test_a_cue_that_looks_ahead(cue: str, finding: str) -> None:
    value, name = AHEAD[cue], FINDINGS[finding]
    second = FINDINGS[other(finding)]
    wrong = [check(f"The study {verb} {cue} {finding}.", **{name: value}) for verb in VERBS]
    wrong += [
        check(f"Study {cue} {finding}.", **{name: value}),
        check(f"{cue.capitalize()} {finding}.", **{name: value}),
    ]
    # The list goes on, and "but" ends it.
    if value != 1:
        wrong += [check(f"The study is {cue} {finding} or {other(finding)}.", **{name: value, second: value})]
    wrong += [check(f"The study is {cue} {finding}, but there is {other(finding)}.", **{name: value, second: 1})]
    assert not [complaint for complaint in wrong if complaint]


@pytest.mark.parametrize("finding", NAMES)
@pytest.mark.parametrize("cue", BACK)
def test_a_cue_that_looks_back(cue: str, finding: str) -> None:
    value, name = BACK[cue], FINDINGS[finding]
    second = FINDINGS[other(finding)]
    subject = finding.capitalize()
    wrong = [check(f"{subject} {verb} {cue}.", **{name: value}) for verb in VERBS if (verb, cue) not in NO_ENGLISH]
    wrong += [check(f"{subject} is {cue}, but there is {other(finding)}.", **{name: value, second: 1})]
    wrong += [check(f"There is {other(finding)}. {subject} is {cue}.", **{name: value, second: 1})]
    wrong += [check(f"{subject} and {other(finding)} are {cue}.", **{name: value, second: value})]
    assert not [complaint for complaint in wrong if complaint]


NO_ENGLISH = {("remains", "no longer visible"), ("remains", "resolved"), ("remains", "not resolved"),
              *((verb, "considered unlikely") for verb in ("remains", "appears"))}  # fmt: skip


@pytest.mark.parametrize("finding", NAMES)
@pytest.mark.parametrize(
    ("frame", "first", "second"),
    [
        ("There is {a}.", 1, None),
        ("There is no {a}.", 0, None),
        ("There is no {a} or {b}.", 0, 0),
        ("No {a} or {b}.", 0, 0),
        ("Neither {a} nor {b} is seen.", 0, 0),
        ("No {a} but {b}.", 0, 1),
        ("{a} and {b}.", 1, 1),
        ("{a}/{b}.", -1, -1),
        ("{a} or {b}.", -1, -1),
        ("It is difficult to exclude {a}.", -1, None),
        ("It is possible that there is {a}.", -1, None),
        ("It isn't possible to exclude {a}.", -1, None),
        ("There isn't {a}.", 0, None),
        ("The finding is possible {a}.", -1, None),
        ("{a} hasn't been excluded.", -1, None),
        ("{a} has resolved but {b} persists.", 0, 1),
        ("Resolution of {a} and development of {b}.", 0, 1),
        ("No resolution of {a}.", 1, None),
        ("{a}: absent. {b}: present.", 0, 1),
        ("{a}? No. {b}? Yes.", 0, 1),
        ("No {a}; {b}.", 0, 1),
    ],
)
def test_frames(frame: str, first: int, second: int | None, finding: str) -> None:
    text = frame.format(a=finding, b=other(finding))
    expected = {FINDINGS[finding]: first, **({} if second is None else {FINDINGS[other(finding)]: second})}
    assert check(text, **expected) is None
