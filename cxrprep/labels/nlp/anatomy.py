"""The heart, the mediastinum and their like: named in every report, so what counts is the state they are given.

"Enlarged" is positive, "normal" negative, "stable" uncertain (as CheXpert's annotators had it: nobody says what was
seen before), and a structure without a state is no mention: wires overlie the heart. A state belongs to the structures
that follow it ("stable cardiac silhouette") or to those before it ("the heart is enlarged").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.mentions import SEPARATOR, STATE, VERB, MentionStatus, PhraseMatch, Rule
from cxrprep.labels.nlp.ruleset import Cue, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

_FINDINGS: Final = (Role.FINDING, Role.APPEARANCE)
# "Enlargement of the cardiac silhouette" is one thing; with more words between it is not.
_GAP: Final = 4
# Items that a state looks ahead, and structures of one list that share a state.
_WINDOW: Final = 12
# Words that may follow a state without being what it describes: "normal in size", "enlarged for technique".
_FUNCTION_WORDS: Final = frozenset(
    ("in", "for", "on", "at", "of", "by", "than", "from", "to", "the", "a", "given", "size", "sized", "appearance",
     "configuration", "caliber", "contour", "allowing", "accounting", "considering", "technique", "again", "today")
)  # fmt: skip
_ORDER: Final = (Cue.BORDERLINE, Cue.DOUBT_AFTER, Cue.ABNORMAL, Cue.NORMAL, Cue.STABLE)


def settle_structures(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Give each structure the status of its states; those without one stop being mentions."""
    if not any(item.structure for item in items):
        return
    states = _states(items, words)
    before: PhraseMatch | None = None
    for index, item in enumerate(items):
        if item.structure:
            # "Normal heart size, mediastinal contours": the second has the first one's state.
            if not states[id(item)] and before is not None and _listed(items, index):
                states[id(item)] = states[id(before)]
            _settle(item, states[id(item)])
            before = item


def _states(items: Sequence[PhraseMatch], words: Sequence[str]) -> dict[int, dict[int, PhraseMatch]]:
    """For each structure the first item of each kind of state that it is given."""
    states: dict[int, dict[int, PhraseMatch]] = {id(item): {} for item in items if item.structure}
    group: list[PhraseMatch] = []
    given = False
    for index, item in enumerate(items):
        if item.structure:
            previous = items[index - 1] if index else None
            listed = previous is not None and bool(previous.cue & SEPARATOR or previous.structure)
            if given or not listed or len(group) == _WINDOW:
                group = []
            group.append(item)
            given = False
        elif item.cue & STATE:
            ahead = _ahead(items, index, words)
            if ahead and not (group and _predicative(items, index)):
                _give(ahead, item, states)
            elif group and not _of_another(items, index, words):
                _give(group, item, states)
                given = True
        elif not item.cue and any(role in _FINDINGS for _, role in item.mentions):
            # "Heart size normal, left effusion unchanged": what is unchanged is the effusion. But: "the heart and the
            # effusion are unchanged".
            joined = index > 1 and items[index - 1].cue & Cue.AND and items[index - 2].structure and not given
            group = group if joined else []
    return states


def _of_another(items: Sequence[PhraseMatch], index: int, words: Sequence[str]) -> bool:
    """Whether the state at ``index`` belongs to a noun of its own: "stable heart size, with prominent aortic knob"."""
    item = items[index]
    if item.last == len(words) or not items[index - 1].cue & (Cue.COMMA | Cue.AND | Cue.WITH):
        return False
    following = words[item.last]
    taken = index + 1 < len(items) and items[index + 1].first == item.last
    return not taken and following.isalpha() and following not in _FUNCTION_WORDS


def _give(structures: Sequence[PhraseMatch], state: PhraseMatch, states: dict[int, dict[int, PhraseMatch]]) -> None:
    for structure in structures:
        for kind in _ORDER:
            if state.cue & kind:
                states[id(structure)].setdefault(kind, state)


def _listed(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether the structure at ``index`` stands in a list right after another one."""
    place = index - 1
    while place > 0 and items[place].cue & (Cue.COMMA | Cue.AND) and not items[place].mentions:
        place -= 1
    return place < index - 1 and items[place].structure


def _predicative(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether the state at ``index`` follows a verb, possibly over other states: "is mildly enlarged"."""
    place = index - 1
    while place > max(0, index - _WINDOW) and items[place].cue & (STATE | Cue.OPENER) and not items[place].mentions:
        place -= 1
    return place >= 0 and bool(items[place].cue & Cue.COPULA) and not items[place].cue & Cue.STOP


def _ahead(items: Sequence[PhraseMatch], index: int, words: Sequence[str]) -> list[PhraseMatch]:
    """The structures that the state at ``index`` qualifies from before: "stable cardiac silhouette"."""
    ahead: list[PhraseMatch] = []
    edge = items[index].last
    state_between = False
    following = items[index + 1] if index + 1 < len(items) else None
    if (
        following is not None
        and following.cue & Cue.AND
        and following.first == edge
        and words[following.last :][:1] == ["the"]
    ):
        # "The lungs are clear and the mediastinum is unchanged": a statement of its own.
        return ahead
    for place, item in enumerate(items[index + 1 : index + 1 + _WINDOW], index + 1):
        if item.first - edge > _GAP:
            break
        if item.structure:
            if ahead and state_between:
                # "Stable heart and normal mediastinum": the second has a state of its own.
                return ahead
            ahead.append(item)
        elif item.cue & Cue.STOP and not ahead and item.first == edge and _state_follows(items, place):
            # "Enlarged but stable cardiac silhouette".
            pass
        elif item.cue & (Cue.STOP | VERB | Cue.COMMA | Cue.WITH):
            break
        elif item.cue & Cue.AND and not ahead and item.first > edge and _own_state(items, place):
            # "Clear lungs and stable heart": what is clear is another noun. "Normal lungs and heart": it is both.
            break
        elif item.mentions and not item.cue:
            # "Stable cardiomegaly and mediastinal contours": both are stable.
            if ahead or not items[index].cue & Cue.STABLE or not _conjoined(items, place):
                break
        else:
            state_between = bool(ahead and item.cue & STATE)
        edge = item.last
    return ahead


def _state_follows(items: Sequence[PhraseMatch], place: int) -> bool:
    following = items[place + 1] if place + 1 < len(items) else None
    return following is not None and following.first == items[place].last and bool(following.cue & STATE)


def _own_state(items: Sequence[PhraseMatch], place: int) -> bool:
    """Whether the structure after the "and" at ``place`` has a state of its own: "and mildly enlarged heart"."""
    for item in items[place + 1 : place + 4]:
        if item.structure:
            return False
        if item.cue & STATE:
            return True
    return False


def _conjoined(items: Sequence[PhraseMatch], place: int) -> bool:
    following = items[place + 1 : place + 3]
    return len(following) == 2 and bool(following[0].cue & Cue.AND) and following[1].structure


def _settle(item: PhraseMatch, states: dict[int, PhraseMatch]) -> None:
    open_state = states.get(Cue.BORDERLINE) or states.get(Cue.DOUBT_AFTER)
    if open_state is not None:
        item.decide(MentionStatus.UNCERTAIN, Rule.BORDERLINE, open_state)
        return
    abnormal, normal = states.get(Cue.ABNORMAL), states.get(Cue.NORMAL)
    if abnormal is not None and (normal is None or abnormal.first < normal.first):
        if abnormal.last <= item.first and item.rule in (Rule.NEGATED_AFTER, Rule.UNCERTAIN_AFTER):
            # "Enlarged cardiac silhouette is suspected".
            return
        # The state itself may be denied or doubted: "no widening of the mediastinum", "the heart may be enlarged".
        rule = {
            MentionStatus.POSITIVE: Rule.ABNORMAL,
            MentionStatus.NEGATIVE: Rule.NORMAL,
            MentionStatus.UNCERTAIN: Rule.BORDERLINE,
        }
        item.decide(abnormal.status, rule[abnormal.status], abnormal)
    elif normal is not None:
        item.decide(MentionStatus.NEGATIVE, Rule.NORMAL, normal)
    elif item.sign:
        return
    elif Cue.STABLE in states:
        item.decide(MentionStatus.UNCERTAIN, Rule.STABLE, states[Cue.STABLE])
    else:
        item.mentions = tuple(pair for pair in item.mentions if pair[1] is not Role.STRUCTURE)
