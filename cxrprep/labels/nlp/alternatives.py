"""Alternatives: both sides of "A or B" and of "A versus B" are uncertain, unless they are denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.mentions import BACKWARD, CHOICE, FORWARD, VERB, MentionStatus, PhraseMatch, Rule
from cxrprep.labels.nlp.ruleset import Cue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.labels.nlp.ruleset import Rules

# Words that may stand between "or" and the mention beside it.
_CHOICE_GAP: Final = 5
# Items before a conjunction that are looked at.
_WINDOW: Final = 40
_DENIALS: Final = frozenset(("no", "not", "without"))
_QUALITIES: Final = frozenset(("@where", "@degree", "@adv", "@plain"))


def apply_alternatives(items: Sequence[PhraseMatch], words: Sequence[str], rules: Rules) -> None:
    """Make both sides of "A or B" and of "A versus B" uncertain, unless they are denied."""
    for index, item in enumerate(items):
        if not item.cue & CHOICE or item.mentions:
            continue
        if not item.cue & Cue.VERSUS and _of_no_change(items, index, words) and not _explain(items, index):
            continue
        before, after = _neighbour(items, index, -1), _neighbour(items, index, 1)
        left = items[before] if before is not None else None
        right = items[after] if after is not None else None
        if left is not None and right is not None and left.mentions == right.mentions:
            continue
        if not item.cue & Cue.VERSUS and (left is None or right is None):
            # One side is no mention: "mucus plugging or atelectasis". Mere qualities do not count: "left or right".
            left = left if left and left.last == item.first and not _qualifies(words, item.last, rules) else None
            right = right if right and not _qualifies(words, item.first - 1, rules) else None
        for side in (left, right):
            # What is seen is there, whatever it turns out to be: "opacity/atelectasis".
            if side is not None and side.status is MentionStatus.POSITIVE and not (side.structure or side.appearance):
                side.decide(MentionStatus.UNCERTAIN, Rule.ALTERNATIVE, item)
        if before is not None and (right is not None or words[item.last - 1] == "both"):
            _chain(items, before, item)


def _explain(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether the alternatives around ``index`` explain what is seen: "the opacity, edema or pneumonia"."""
    before = items[max(0, index - 3) : index]
    return len(before) == 3 and before[0].appearance and bool(before[1].cue & Cue.COMMA) and bool(before[2].mentions)


def apply_less_favoured(items: Sequence[PhraseMatch], words: Sequence[str], word: str) -> None:
    """Make B of "A is favored over B" and of "more likely A than B" uncertain: it is the less likely one."""
    over = words.index(word)
    before = words[max(0, over - _WINDOW) : over]
    favoured = any(each.startswith(("favor", "favour", "prefer", "likel", "probab")) for each in before)
    favoured = favoured and (word == "over" or "more" in before or "rather" in before)
    rejected = next((item for item in items if item.mentions and item.first > over), None)
    near = rejected is not None and rejected.first - over <= _CHOICE_GAP
    if favoured and near and rejected is not None and rejected.status is MentionStatus.POSITIVE:
        rejected.decide(MentionStatus.UNCERTAIN, Rule.ALTERNATIVE, rejected)


def _of_no_change(items: Sequence[PhraseMatch], index: int, words: Sequence[str]) -> bool:
    """Whether the list is one of what has not changed: "no change in edema, atelectasis, or effusions"."""
    for item in reversed(items[max(0, index - _WINDOW) : index]):
        if item.cue & (Cue.STABLE | Cue.NOT_NEGATION):
            return words[item.first] in _DENIALS
        if item.cue & (Cue.STOP | VERB | FORWARD):
            return False
    return False


def _qualifies(words: Sequence[str], place: int, rules: Rules) -> bool:
    """Whether the word at ``place`` only qualifies: a side, a size, a number, a preposition; or is not there."""
    if not 0 <= place < len(words):
        return True
    word = words[place]
    return len(word) < 4 or word.isdecimal() or not _QUALITIES.isdisjoint(rules.lexicon.symbols(word))


def _neighbour(items: Sequence[PhraseMatch], index: int, step: int) -> int | None:
    """Where the mention beside a conjunction stands, with nothing but its own words between."""
    edge = items[index].first if step < 0 else items[index].last
    place = index + step
    blocking = Cue.STOP | Cue.WITH | Cue.COMMA | Cue.AND | VERB | BACKWARD | (FORWARD if step < 0 else 0)
    while 0 <= place < len(items):
        item = items[place]
        gap = edge - item.last if step < 0 else item.first - edge
        if gap > _CHOICE_GAP:
            return None
        if item.mentions:
            return place
        if item.cue & blocking and not (step < 0 and item.cue & Cue.COMMA and item.last == edge):
            # The comma of "A, B, or C" parts nothing.
            return None
        place += step
    return None


def _chain(items: Sequence[PhraseMatch], place: int, cue: PhraseMatch) -> None:
    """Carry an alternative back over "A, B, or C", but not to an opacity: it is what the alternatives explain."""
    while place >= 2 and items[place - 1].cue & Cue.COMMA and items[place - 2].mentions:
        before = items[place - 2]
        far = items[place].first - items[place - 1].last > _CHOICE_GAP
        if before.status is not MentionStatus.POSITIVE or before.structure or before.appearance or far:
            return
        before.decide(MentionStatus.UNCERTAIN, Rule.ALTERNATIVE, cue)
        place -= 2
