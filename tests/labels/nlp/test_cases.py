"""Invented sentences by kind of fault (``cases.toml``): each has the labels that it should have, and no other."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cxrprep import label_report
from cxrprep.labels.nlp.ruleset import NO_FINDING, OBSERVATIONS

CASES = tomllib.loads((Path(__file__).parent / "cases.toml").read_text("utf-8"))
VALUES = {"1": 1, "0": 0, "-1": -1, "null": None}


def expected(labels: str) -> dict[str, set[int | None] | None]:
    """What is right for each observation that is judged; ``None`` where anything is."""
    wanted: dict[str, set[int | None] | None] = {name: {None} for name in OBSERVATIONS if name != NO_FINDING}
    for part in labels.split(";"):
        name, value = part.strip().rsplit("=", 1)
        for each in OBSERVATIONS if name == "ALL" else [name]:
            wanted[each] = None if value == "any" else {VALUES[one] for one in value.split("/")}
    return wanted


def wrong(text: str, labels: str) -> str | None:
    got = label_report(text).labels
    said = [f"{name} {got[name]}" for name, right in expected(labels).items() if right and got[name] not in right]
    return f"{text!r}: {', '.join(said)}, not {labels}" if said else None


@pytest.mark.parametrize("kind", CASES)
def test_sentences_of_a_kind(kind: str) -> None:
    assert not [complaint for text, labels in CASES[kind]["cases"] if (complaint := wrong(text, labels))]
