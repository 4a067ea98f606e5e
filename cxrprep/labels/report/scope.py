"""From phrases in a sentence to the status of each mention: what negates it, what makes it uncertain, and why.

A sentence is a row of items (mentions and cues). A cue reaches over a list ("no effusion, pneumothorax or
consolidation") to the next word that opens a new statement. Structures such as the heart take their status from the
state that the sentence gives them. All walks are over items once or over bounded windows: linear in the sentence.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrprep.labels.report.phrases import WORDS
from cxrprep.labels.report.rules import Cue, Entry, Role, Rules

if TYPE_CHECKING:
    from collections.abc import Sequence


class Status(enum.IntEnum):
    """What a mention says of its observation; the values that tables hold."""

    POSITIVE = 1
    NEGATIVE = 0
    UNCERTAIN = -1


class Rule(enum.StrEnum):
    """Which rule decided a mention."""

    NAMED = "named"
    NEGATED = "negated"
    NEGATED_AFTER = "negated-after"
    UNCERTAIN = "uncertain"
    UNCERTAIN_AFTER = "uncertain-after"
    NOT_EXCLUDED = "not-excluded"
    ALTERNATIVE = "alternative"
    SUSPECT = "suspect-at-best"
    ABNORMAL = "structure-abnormal"
    NORMAL = "structure-normal"
    STABLE = "structure-stable"
    BORDERLINE = "structure-borderline"


@dataclass(frozen=True, slots=True)
class Found:
    """A mention in a sentence: word places ``first`` to ``last`` (exclusive), and what decided its status."""

    observation: int
    status: Status
    first: int
    last: int
    rule: Rule
    cue_first: int = -1
    cue_last: int = -1


_NEG = int(Cue.NEGATION)
_NEG_AFTER = int(Cue.NEGATION_AFTER)
_UNC = int(Cue.UNCERTAINTY)
_UNC_AFTER = int(Cue.UNCERTAINTY_AFTER)
_DOUBT = int(Cue.DOUBT)
_DOUBT_AFTER = int(Cue.DOUBT_AFTER)
_STABLE = int(Cue.STABLE)
_NORMAL = int(Cue.NORMAL)
_ABNORMAL = int(Cue.ABNORMAL)
_BORDERLINE = int(Cue.BORDERLINE)
_STOP = int(Cue.STOP)
_WITH = int(Cue.WITH)
_OPENER = int(Cue.OPENER)
_COPULA = int(Cue.COPULA)
_VERB = int(Cue.VERB) | _COPULA
_COMMA = int(Cue.COMMA)
_AND = int(Cue.AND)
_OR = int(Cue.OR)
_VERSUS = int(Cue.VERSUS)
_SKIP = int(Cue.SKIP)
_LIST = int(Cue.LIST)
_WEAK = int(Cue.WEAK)
_FORWARD = _NEG | _UNC | _DOUBT
_AFTER = _NEG_AFTER | _UNC_AFTER | _DOUBT_AFTER
_SEPARATOR = _COMMA | _AND | _OR | _VERSUS
_STATE = _NORMAL | _ABNORMAL | _BORDERLINE | _STABLE | _DOUBT_AFTER

# Words that may stand between "no" or "may represent" and the end of its reach do not matter; words between a state
# and the structure that follows it do: "enlargement of the cardiac silhouette" is one thing within so many words.
_ATTRIBUTE_GAP = 4
_OR_GAP = 5


class Item:
    """A phrase in the sentence, with what is decided about it so far."""

    __slots__ = ("by", "cue", "first", "last", "mentions", "rule", "sign", "status", "structure")

    def __init__(self, first: int, last: int, entry: Entry) -> None:
        """Take the phrase at word places ``first`` to ``last``."""
        self.first = first
        self.last = last
        self.cue = entry.cue
        self.mentions = entry.mentions
        self.status = Status.POSITIVE
        self.rule = Rule.NAMED
        self.by: Item | None = None
        self.sign = any(role is Role.SIGN for _, role in entry.mentions)
        self.structure = self.sign or any(role is Role.STRUCTURE for _, role in entry.mentions)

    def decide(self, status: Status, rule: Rule, by: Item | None) -> None:
        """Record a status with its reason."""
        self.status, self.rule, self.by = status, rule, by


def words_of(sentence: str) -> list[str]:
    """Words of a sentence in normal form, without the placeholders of de-identification."""
    return [word for word in WORDS.findall(sentence) if is_word(word)]


def is_word(word: str) -> bool:
    """Whether ``word`` is more than a placeholder: XXXX of Open-i (MIMIC's ___ is a blank in normal form)."""
    return len(word) < 3 or bool(word.strip("x"))


def read_sentence(sentence: str, rules: Rules) -> tuple[Found, ...]:
    """The mentions of a sentence in normal form, each with its status and the rule that decided."""
    words = words_of(sentence)
    hits = rules.lexicon.scan(words)
    if not any(entry.mentions for _, _, entry in hits):
        return ()
    items = [Item(first, last, entry) for first, last, entry in hits]
    _forward(items)
    _backward(items, len(words))
    _alternatives(items)
    _structures(items)
    return tuple(_results(items))


def _forward(items: list[Item]) -> None:
    """Let negations and uncertainties reach over what follows them."""
    governor: Item | None = None
    reached = False
    skipping = False
    count = len(items)
    for index, item in enumerate(items):
        cue = item.cue
        if item.mentions:
            if skipping:
                item.decide(Status.UNCERTAIN, Rule.UNCERTAIN, governor)
            elif governor is not None:
                _apply_forward(item, governor)
                reached = True
            if not cue & _FORWARD:
                continue
        if cue & _STOP:
            governor, skipping = None, False
        elif cue & _FORWARD and (not cue & _AFTER or _points_forward(items, index)):
            if governor is None or not (governor.cue & _DOUBT) or cue & _DOUBT:
                if governor is not None and governor.cue & _NEG and cue & _UNC and (cue & _WEAK or not _after_separator(items, index)):
                    continue
                if (
                    governor is not None
                    and governor.cue & _NEG
                    and cue & _NEG
                    and items[index - 1] is governor
                    and False
                ):
                    continue
                governor, reached = item, False
        elif cue & _SKIP:
            governor = item
        elif cue & _WITH:
            governor = None
        elif cue & (_COMMA | _AND) and reached and governor is not None and not _goes_on(items, index, count, bool(governor.cue & _LIST)):
            governor = None


def _after_separator(items: Sequence[Item], index: int) -> bool:
    return index > 0 and bool(items[index - 1].cue & (_COMMA | _AND)) and items[index - 1].last == items[index].first


def _apply_forward(item: Item, governor: Item) -> None:
    if governor.cue & _DOUBT:
        item.decide(Status.UNCERTAIN, Rule.NOT_EXCLUDED, governor)
    elif governor.cue & _NEG:
        item.decide(Status.NEGATIVE, Rule.NEGATED, governor)
    elif governor.cue & _UNC:
        item.decide(Status.UNCERTAIN, Rule.UNCERTAIN, governor)


def _points_forward(items: Sequence[Item], index: int) -> bool:
    """Whether a word that may look both ways ("resolved", "suspected") looks at what follows."""
    for later in items[index + 1 : index + 5]:
        if later.mentions:
            return True
        if later.cue & (_STOP | _WITH | _COMMA | _AND | _VERB):
            return False
    return False


def _goes_on(items: Sequence[Item], index: int, count: int, listing: bool) -> bool:
    """Whether a list goes on after the comma or "and" at ``index``."""
    place = index
    conjoined = False
    while place < count and items[place].cue & _SEPARATOR and not items[place].mentions:
        if items[place].cue & (_OR | _VERSUS):
            return True
        conjoined = conjoined or bool(items[place].cue & _AND)
        place += 1
    if place == count:
        return True
    following = items[place]
    if following.cue & (_STOP | _VERB):
        return False
    if following.structure:
        return False
    seen_mention = False
    later_or = False
    opened = bool(following.cue & _OPENER) and not listing
    for later in items[place:]:
        if later.cue & _STOP:
            break
        if later.cue & (_OR | _VERSUS):
            later_or = True
            break
        if later.cue & _VERB:
            if seen_mention and not later_or and (conjoined or opened):
                return False
            break
        seen_mention = seen_mention or bool(later.mentions)
    return later_or or not opened


def _backward(items: list[Item], length: int) -> None:
    """Let "is not seen", "cannot be excluded" and their like reach back over what stands before them."""
    for index, item in enumerate(items):
        if not item.cue & _AFTER:
            continue
        if item.cue & _FORWARD and _points_forward(items, index):
            continue
        joined = False
        seen = False
        for place in range(index - 1, -1, -1):
            earlier = items[place]
            if earlier.mentions:
                if seen and not joined and items[place + 1].first - earlier.last > 1:
                    break
                _apply_backward(earlier, item)
                seen, joined = True, False
            elif earlier.cue & (_OR | _AND | _VERSUS):
                joined = True
            elif earlier.cue & _COMMA:
                joined = joined or not seen
                if seen and not joined:
                    break
            elif earlier.cue & (_STOP | _WITH | _AFTER):
                break
            elif earlier.cue & _VERB:
                break
    last = items[-1]
    if last.cue & _UNC and not last.cue & _AFTER and last.last == length and len(items) > 1:
        # "Pneumonia?", "infiltrate, questionable": nothing follows that the cue could speak of.
        before = items[-2]
        if before.mentions and before.status is Status.POSITIVE:
            before.decide(Status.UNCERTAIN, Rule.UNCERTAIN_AFTER, last)


def _apply_backward(item: Item, cue: Item) -> None:
    if cue.cue & _DOUBT_AFTER:
        item.decide(Status.UNCERTAIN, Rule.NOT_EXCLUDED, cue)
    elif cue.cue & _NEG_AFTER:
        if item.rule is not Rule.NOT_EXCLUDED:
            item.decide(Status.NEGATIVE, Rule.NEGATED_AFTER, cue)
    elif item.status is Status.POSITIVE:
        item.decide(Status.UNCERTAIN, Rule.UNCERTAIN_AFTER, cue)


def _alternatives(items: list[Item]) -> None:
    """ "A or B", "A versus B": neither is sure, unless denied."""
    for index, item in enumerate(items):
        if not item.cue & (_OR | _VERSUS) or item.mentions:
            continue
        left = _neighbour(items, index, -1)
        right = _neighbour(items, index, 1)
        sides = [side for side in (left, right) if side is not None]
        if not item.cue & _VERSUS and len(sides) < 2:
            continue
        if len(sides) == 2 and sides[0].mentions == sides[1].mentions:
            continue
        for side in sides:
            if side.status is Status.POSITIVE and not side.structure:
                side.decide(Status.UNCERTAIN, Rule.ALTERNATIVE, item)
        if left is not None and len(sides) == 2:
            _chain(items, items.index(left), item)


def _neighbour(items: Sequence[Item], index: int, step: int) -> Item | None:
    """The mention beside a conjunction, with nothing but its own words between."""
    edge = items[index].first if step < 0 else items[index].last
    place = index + step
    while 0 <= place < len(items):
        item = items[place]
        gap = edge - item.last if step < 0 else item.first - edge
        if gap > _OR_GAP:
            return None
        if item.mentions:
            return item
        if item.cue & (_STOP | _WITH | _COMMA | _AND | _VERB | _AFTER):
            return None
        place += step
    return None


def _chain(items: Sequence[Item], index: int, cue: Item) -> None:
    """Carry an alternative back over "A, B, or C"."""
    place = index
    while place >= 2 and items[place - 1].cue & _COMMA and items[place - 2].mentions:
        before = items[place - 2]
        if (
            before.status is not Status.POSITIVE
            or before.structure
            or items[place].first - items[place - 1].last > _OR_GAP
        ):
            return
        before.decide(Status.UNCERTAIN, Rule.ALTERNATIVE, cue)
        place -= 2


def _structures(items: list[Item]) -> None:
    """Give the heart and its like the state that the sentence gives them; without one they are no mention."""
    if not any(item.structure for item in items):
        return
    states: dict[int, list[Item]] = {id(item): [] for item in items if item.structure}
    group: list[Item] = []
    predicated = False
    open_group = False
    for index, item in enumerate(items):
        if item.structure:
            between = items[index - 1] if index else None
            if predicated or not open_group or between is None or not (between.cue & _SEPARATOR or between.structure):
                group = []
            group.append(item)
            predicated, open_group = False, True
        elif item.cue & _STATE:
            ahead = _structures_ahead(items, index)
            if ahead and not (open_group and _predicative(items, index)):
                for each in ahead:
                    states[id(each)].append(item)
            elif open_group:
                for each in group:
                    states[id(each)].append(item)
                predicated = True
        elif item.mentions and any(role is Role.FINDING for _, role in item.mentions) and not item.cue:
            open_group = False
    before: Item | None = None
    for index, item in enumerate(items):
        if item.structure:
            # "Normal heart size, mediastinal contours": the second has the first one's state.
            if not states[id(item)] and before is not None and _listed(items, index):
                states[id(item)] = states[id(before)]
            _settle(item, states[id(item)])
            before = item


def _listed(items: Sequence[Item], index: int) -> bool:
    """Whether the structure at ``index`` stands in a list right after another one."""
    place = index - 1
    while place > 0 and items[place].cue & (_COMMA | _AND) and not items[place].mentions:
        place -= 1
    return place < index - 1 and items[place].structure


def _predicative(items: Sequence[Item], index: int) -> bool:
    """Whether the state at ``index`` follows a verb, possibly over other states: "is mildly enlarged"."""
    place = index - 1
    while place >= 0 and items[place].cue & (_STATE | _OPENER) and not items[place].mentions:
        place -= 1
    return place >= 0 and bool(items[place].cue & _COPULA) and not items[place].cue & _STOP


def _structures_ahead(items: Sequence[Item], index: int) -> list[Item]:
    """The structures that the state at ``index`` qualifies from before: "stable cardiac silhouette"."""
    ahead: list[Item] = []
    edge = items[index].last
    for item in items[index + 1 :]:
        if item.first - edge > _ATTRIBUTE_GAP:
            break
        if item.structure:
            ahead.append(item)
        elif item.cue & (_STOP | _VERB | _COMMA | _WITH) :
            break
        elif item.mentions and not item.cue:
            break
        edge = item.last
    if len(ahead) > 1:
        for item in items[items.index(ahead[0]) + 1 : items.index(ahead[-1])]:
            if item.cue & _STATE:
                return ahead[:1]
    return ahead


def _settle(item: Item, states: Sequence[Item]) -> None:
    first: dict[int, Item] = {}
    for state in states:
        for kind in (_BORDERLINE, _DOUBT_AFTER, _ABNORMAL, _NORMAL, _STABLE):
            if state.cue & kind:
                first.setdefault(kind, state)
    if _BORDERLINE in first or _DOUBT_AFTER in first:
        item.decide(Status.UNCERTAIN, Rule.BORDERLINE, first.get(_BORDERLINE) or first[_DOUBT_AFTER])
        return
    abnormal, normal = first.get(_ABNORMAL), first.get(_NORMAL)
    if abnormal is not None and (normal is None or abnormal.first < normal.first):
        if abnormal.status is Status.NEGATIVE:
            item.decide(Status.NEGATIVE, Rule.NORMAL, abnormal)
        elif abnormal.status is Status.UNCERTAIN:
            item.decide(Status.UNCERTAIN, Rule.BORDERLINE, abnormal)
        else:
            item.decide(Status.POSITIVE, Rule.ABNORMAL, abnormal)
    elif normal is not None:
        item.decide(Status.NEGATIVE, Rule.NORMAL, normal)
    elif item.sign:
        return
    elif _STABLE in first:
        item.decide(Status.UNCERTAIN, Rule.STABLE, first[_STABLE])
    else:
        item.mentions = tuple(pair for pair in item.mentions if pair[1] is not Role.STRUCTURE)


def _results(items: Sequence[Item]) -> list[Found]:
    found: list[Found] = []
    for item in items:
        by = item.by
        cue = (by.first, by.last) if by is not None else (-1, -1)
        for observation, role in item.mentions:
            status, rule = item.status, item.rule
            if role is Role.SUSPECT and status is Status.POSITIVE:
                status, rule = Status.UNCERTAIN, Rule.SUSPECT
            found.append(Found(observation, status, item.first, item.last, rule, *cue))
    return found
