"""A rule set: merged from files, checked key by key, named by its digest."""

from __future__ import annotations

import pytest

from cxrprep.errors import ConfigError
from cxrprep.labels.nlp.ruleset import CUES, OBSERVATIONS, build_rules, shipped_sources


def merged(text: str) -> object:
    return build_rules([*shipped_sources(), ("mine.toml", text)])


def test_the_shipped_rules_report_the_fourteen_published_names_in_their_order() -> None:
    assert build_rules(shipped_sources()).reported == OBSERVATIONS


def test_every_kind_of_cue_is_used() -> None:
    used = 0
    stack = [build_rules(shipped_sources()).lexicon._root]
    while stack:
        node = stack.pop()
        used |= node.value.cue if node.value else 0
        stack += node.children.values()
    assert {name for name, cue in CUES.items() if not used & cue} == set()


def test_the_digest_is_that_of_the_texts() -> None:
    again = build_rules(shipped_sources())
    assert again.digest == build_rules(shipped_sources()).digest
    assert build_rules([*shipped_sources(), ("x.toml", "# other\n")]).digest != again.digest


def test_hidden_observations_have_no_label() -> None:
    rules = build_rules(shipped_sources())
    assert "Other Abnormality" in rules.hidden
    assert "Other Abnormality" not in rules.reported


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[observation]", "line 1"),
        ("[[observations]]\nname = 'X'", "line 1: unknown key 'observations'"),
        ("[[observation]]\nfindings = ['x']", r"an \[\[observation\]\] has no name"),
        ("[[observation]]\nname = ''", r"an \[\[observation\]\] has no name"),
        ("[[observation]]\nname = 'X'\nfinding = ['x']", "line 3: unknown key 'observation.finding'"),
        ("[[observation]]\nname = 'X'\nfindings = 'x'", "line 3: observation.findings: expected a list of text"),
        ("[[observation]]\nname = 'X'\nfindings = [1]", "line 3: observation.findings: expected a list of text"),
        ("[[observation]]\nname = 'X'\nfindings = ['x?']", "match nothing"),
        ("[observation]\nname = 'X'", "line 1: observation: expected a list of tables"),
        ("[[cue]]\nkind = 'negation'", r"a \[\[cue\]\] has no phrases"),
        ("[[cue]]\nkind = 'denial'\nphrases = ['x']", "line 2: cue.kind: unknown value 'denial'"),
        ("[[cue]]\nkind = ['negation', 'x']\nphrases = ['x']", "line 2: cue.kind: unknown value 'x'"),
        ("[classes]\nadv = 'x'", "line 2: classes.adv: expected a list of text"),
        ("examples = 'x'", "line 1: examples: expected a list of text"),
        ("[[cue]]\nkind = 'negation'\nphrases = ['@nope x']", "unknown word class @nope"),
    ],
)
def test_a_vocabulary_that_is_wrong_is_refused_with_its_file_and_key(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        merged(text)
