"""Which way a cue looks: "negative" ahead, in "negative for effusion", or back, in "the film is negative"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.mentions import BACKWARD, FORWARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.labels.nlp.ruleset import RuleEntry, Rules

# Words between a cue and the finding that it speaks of, where another finding stands before it.
_GAP: Final = 5
# Phrases before a cue among which its subject is looked for.
_WINDOW: Final = 40
_PREPOSITIONS: Final = frozenset(
    ("in", "on", "at", "of", "with", "given", "from", "by", "as", "over", "within", "near", "because", "due", "after",
     "and", "but", ",", ";", "if", "when", "based", "than", "despite", "under", "although", "though")
)  # fmt: skip


def by_direction(
    hits: list[tuple[int, int, RuleEntry]], words: Sequence[str], rules: Rules
) -> list[tuple[int, int, RuleEntry]]:
    """The phrases of a sentence, where a cue that looks back yields to one inside it that looks ahead.

    "Negative" alone looks ahead to "for pneumothorax", "is negative" looks back. Both readings are kept until it is
    known what stands before and behind; the longer one is not the right one for being longer.
    """
    chosen: list[tuple[int, int, RuleEntry]] = []
    until = 0
    for place, (first, last, entry) in enumerate(hits):
        if first < until:
            continue
        ahead = None
        if entry.cue & BACKWARD and not entry.cue & FORWARD and last - first > 1:
            ahead = _inside(first, last, words, rules)
        if ahead is not None and _applies_to_what_follows(hits, place, ahead, words, chosen):
            end, verb = rules.lexicon.longest(words[: ahead[0]], first)
            if verb is not None:
                chosen.append((first, end, verb))
            chosen.append(ahead)
            until = ahead[1]
        else:
            chosen.append((first, last, entry))
    return chosen


def _inside(first: int, last: int, words: Sequence[str], rules: Rules) -> tuple[int, int, RuleEntry] | None:
    """The longest cue inside a phrase that looks ahead and reaches at least as far as the phrase."""
    for begin in range(first + 1, last):
        end, entry = rules.lexicon.longest(words, begin)
        if entry is not None and end >= last and entry.cue & FORWARD and not entry.mentions:
            return begin, end, entry
    return None


def _applies_to_what_follows(
    hits: Sequence[tuple[int, int, RuleEntry]],
    place: int,
    ahead: tuple[int, int, RuleEntry],
    words: Sequence[str],
    before: Sequence[tuple[int, int, RuleEntry]],
) -> bool:
    """Whether the reading that looks ahead is meant: a finding follows, and none stands before that is spoken of."""
    following = next(((first, entry) for first, _, entry in hits[place + 1 :] if first >= ahead[1]), None)
    mention = next((first for first, _, entry in hits[place + 1 :] if first >= ahead[1] and entry.mentions), None)
    if mention is None or following is None:
        return False
    if ahead[1] > hits[place][1]:
        # "Is unlikely to represent", "is negative for": what makes it longer points ahead.
        return True
    between = words[ahead[1] : mention]
    subject = any(entry.mentions for _, _, entry in before[-_WINDOW:])
    return not subject or (len(between) <= _GAP and _PREPOSITIONS.isdisjoint(between))
