"""The language of phrase tables, and the longest phrase at every word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrprep.errors import ConfigError
from cxrprep.labels.nlp.phrase_matcher import Lexicon, expand


@pytest.mark.parametrize(
    ("phrase", "forms"),
    [
        ("pleural effusion", [("pleural", "effusion")]),
        ("lung|pleural mass", [("lung", "mass"), ("pleural", "mass")]),
        ("heart size?", [("heart", "size"), ("heart",)]),
        ("line(s)", [("line",), ("lines",)]),
        ("opaci*", [("opaci*",)]),
        ("@adv{0,2} new", [("new",), ("@adv", "new"), ("@adv", "@adv", "new")]),
        ("x-ray", [("x", "-", "ray")]),
    ],
)
def test_a_phrase_stands_for_these_wordings(phrase: str, forms: list[tuple[str, ...]]) -> None:
    assert sorted(expand(phrase)) == sorted(forms)


@pytest.mark.parametrize("phrase", ["", "  ", "maybe?", "@adv{0,1}"])
def test_a_phrase_that_may_match_nothing_is_refused(phrase: str) -> None:
    with pytest.raises(ConfigError, match="match nothing"):
        expand(phrase)


def test_a_phrase_of_too_many_wordings_is_refused() -> None:
    with pytest.raises(ConfigError, match="split it"):
        expand("a|b|c|d|e|f|g|h " * 5)


def lexicon(*phrases: str) -> Lexicon[str]:
    made: Lexicon[str] = Lexicon({"adv": ["definite", "any"], "where": ["left", "right"]})
    for phrase in phrases:
        made.add(phrase, phrase)
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("small effusion", [(1, 2, "effusion*")]),
        ("effusions", [(0, 1, "effusion*")]),
        ("pericardial effusion", [(0, 2, "pericardial effusion*")]),
        ("no definite left effusion", [(0, 2, "no @adv?"), (3, 4, "effusion*")]),
        ("no no", [(0, 1, "no @adv?"), (1, 2, "no @adv?")]),
        ("heart size is large", [(0, 2, "heart size?")]),
        ("nothing here", []),
        ("", []),
    ],
)
def test_the_longest_phrase_at_each_word_is_taken(text: str, found: list[tuple[int, int, str]]) -> None:
    table = lexicon("effusion*", "pericardial effusion*", "no @adv?", "heart size?")
    assert table.scan(text.split()) == found


def test_words_are_whole_words() -> None:
    assert lexicon("tube", "plate").scan(["tuberculosis", "platelike", "tube"]) == [(2, 3, "tube")]


def test_a_class_that_nobody_defined_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="@nope; known: @adv, @where"):
        lexicon("no @nope")


def test_a_phrase_is_found_that_was_added_after_a_search() -> None:
    table = lexicon("effusion*", "no @adv?")
    assert table.scan(["no", "effusion", "seen"]) == [(0, 1, "no @adv?"), (1, 2, "effusion*")]
    table.add("no effusion seen|noted", "denied")
    assert table.scan(["no", "effusion", "seen"]) == [(0, 3, "denied")]
    assert table.longest(["left", "no", "effusion", "noted"], 1) == (4, "denied")
    assert table.longest(["left", "no", "effusion", "noted"], 0) == (0, None)


@given(st.lists(st.sampled_from(["no", "definite", "effusion", "heart", "size", "left", "x"]), max_size=40))
def test_what_is_found_is_in_order_and_does_not_overlap(words: list[str]) -> None:
    found = lexicon("effusion*", "no @adv?", "no left effusion", "heart size?", "size x").scan(words)
    ends = [0]
    for start, end, _ in found:
        assert ends[-1] <= start < end <= len(words)
        ends.append(end)
