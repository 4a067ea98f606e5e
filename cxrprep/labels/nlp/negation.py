"""Negation and uncertainty: what denies a mention in a sentence, and what makes it uncertain.

A sentence is a row of items (mentions and cues). A cue reaches over a list ("no effusion, pneumothorax or
consolidation") to the next word that opens a new statement. Every look ahead or back is bounded, so that time is
linear in the length of the sentence, whatever it holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.alternatives import apply_alternatives, apply_less_favoured
from cxrprep.labels.nlp.anatomy import settle_structures
from cxrprep.labels.nlp.cue_direction import by_direction
from cxrprep.labels.nlp.mentions import (
    BACKWARD,
    CHOICE,
    FORWARD,
    SEPARATOR,
    VERB,
    Found,
    MentionStatus,
    PhraseMatch,
    Rule,
)
from cxrprep.labels.nlp.ruleset import OBSERVATIONS, Cue, RuleEntry, Rules
from cxrprep.labels.nlp.tokens import answer_from_boxes, part_aside, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# Items that a cue looks ahead for the end of a list, or back for what it denies.
_WINDOW: Final = 40
# Where a sentence ends: phrases may name it.
_END: Final = "$"
# Words between "but" and "persists" that keep to one finding: "has resolved on the left but persists on the right".
_SAME: Final = frozenset(
    ("the", "a", "left", "right", "one", "ones", "on", "in", "at", "it", "they", "this", "that", "there", "is", "are",
     "has", "have", "still", "now", "side", "other", "upper", "lower", "base", "apex", "apical", "basal", "component",
     "small", "tiny", "residual", "latter", "former", "and", "largely", "essentially", "otherwise")
)  # fmt: skip
_CONTRASTS: Final = frozenset(("but", "while", "whereas", "though", "although", "however", "and", "yet", "where"))
_DEVICES: Final = OBSERVATIONS.index("Support Devices")
_ENDS: Final = frozenset(("tip", "tips", "course", "sideport", "termination"))
_FAULTS: Final = frozenset(
    ("fracture", "break", "kink", "kinking", "malposition", "malpositioning", "misplacement", "migration",
     "dislodgement", "displacement", "disconnection", "loosening", "coiling", "retraction", "complication",
     "complications", "failure")
)  # fmt: skip
# First words of what a cue right before them speaks of.
_SAID_OF: Final = frozenset(
    ("there", "due", "secondary", "related", "attributed", "consistent", "compatible", "representing", "reflecting",
     "indicating", "suggesting", "suggestive", "that")
)  # fmt: skip
_RELATIVES: Final = frozenset(("which", "that"))
_STATEMENTS: Final = frozenset(("that", "if", "whether"))
_EXCEPTIONS: Final = frozenset(("except", "other", "apart", "aside", "save", "bar", "besides", "beyond"))
# What was so on another day takes nothing back.
_BEFORE: Final = frozenset(
    ("yesterday", "previously", "before", "earlier", "previous", "prior", "last", "initially", "formerly", "once")
)
_DETERMINERS: Final = frozenset(("a", "an", "the"))
_INSIDE: Final = frozenset(("of", "in", "within", "to"))
_PRONOUNS: Final = frozenset(("this", "it", "these", "they", "that", "both", "there"))
_PARTED: Final = frozenset((",", ";", "is", "are"))
_ONE: Final = frozenset(("one", "ones"))
_ASKED: Final = frozenset(("follow", "followup"))
_ANSWERED: Final = frozenset((":", "?", "="))
_UNSEEN: Final = frozenset(("not", "cannot"))
_PAST: Final = frozenset(("ago", "previously", "formerly", "childhood", "child", "youth", "once"))
_YEAR: Final = re.compile(r"(?:19|20)\d\d").fullmatch


def read_sentence(sentence: str, rules: Rules) -> tuple[Found, ...]:
    """The mentions of a sentence in normal form, each with its status and the rule that decided."""
    words = words_of(sentence)
    if "(" in words:
        part_aside(words)
    if words[:1] == ["["]:
        answer_from_boxes(words)
    count = len(words)
    hits = rules.lexicon.scan([*words, _END])
    if not any(entry.mentions for _, _, entry in hits):
        return ()
    # Most sentences have few kinds of cue. measured: 112 -> 77 ms of CPU for 7,048 sentences beside all steps for each.
    cues = _cues_of(hits)
    if cues & BACKWARD:
        hits = by_direction(hits, [*words, _END], rules)
        cues = _cues_of(hits)
    items = [PhraseMatch(first, min(last, count), entry) for first, last, entry in hits if first < count]
    if cues & (FORWARD | BACKWARD):
        apply_forward(items, words)
        if cues & BACKWARD:
            apply_backward(items, words)
        if cues & (Cue.PERSISTS | Cue.STABLE):
            _taken_back(items, words)
        if cues & Cue.UNFINISHED:
            _unfinished(items)
        if cues & Cue.UNCERTAINTY:
            _doubted_at_the_end(items, count)
    if cues & CHOICE:
        apply_alternatives(items, words, rules)
    if "over" in words:
        apply_less_favoured(items, words, "over")
    if "than" in words:
        apply_less_favoured(items, words, "than")
    if words[0] in _ASKED and not {"of", "for"}.isdisjoint(words[1:3]) and len(words) <= _WINDOW // 4:
        _asked(items)
    if "had" in words:
        _long_past(items, words)
    settle_structures(items, words)
    return tuple([found for item in items if item.mentions for found in item.found()])


def _cues_of(hits: Sequence[tuple[int, int, RuleEntry]]) -> int:
    """All kinds of cue that the phrases are."""
    cues = 0
    for _, _, entry in hits:
        cues |= entry.cue
    return cues


def _taken_back(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let "but persists on the right" take back what "has resolved on the left" denies."""
    for index, item in enumerate(items):
        if item.status is not MentionStatus.NEGATIVE or not item.mentions:
            continue
        begin = -1
        for later in items[index + 1 : index + 1 + _WINDOW]:
            if later.mentions:
                break
            if later.cue & Cue.PERSISTS and not _ONE.isdisjoint(words[later.first : later.last]):
                # "; a small one is seen", ", the old one has healed", ". There is one on the right".
                begin = later.first if words[later.first - 1] in _PARTED else begin
            elif words[later.first] in _CONTRASTS or words[later.first] in _EXCEPTIONS:
                begin = later.last
            if begin < 0:
                continue
            if later.cue & (Cue.PERSISTS | Cue.STABLE):
                if _SAME.issuperset(words[begin : later.first]) and _BEFORE.isdisjoint(
                    words[later.last : later.last + 4]
                ):
                    item.decide(MentionStatus.POSITIVE, Rule.NAMED, later)
                    item.by = None
                break


def _unfinished(items: Sequence[PhraseMatch]) -> None:
    """Let "is incomplete" keep what "resolution of" took away, and "is not certain" doubt an "absence of"."""
    for index, item in enumerate(items):
        if not item.cue & Cue.UNFINISHED:
            continue
        for earlier in reversed(items[max(0, index - _WINDOW) : index]):
            if earlier.mentions and earlier.by is not None and earlier.by.cue & Cue.NEGATION:
                if earlier.by.cue & Cue.CHANGE and not item.cue & (Cue.UNCERTAINTY_AFTER | Cue.DOUBT_AFTER):
                    earlier.decide(MentionStatus.POSITIVE, Rule.NAMED, item)
                    earlier.by = None
                elif earlier.by.cue & Cue.LIST:
                    earlier.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, item)
            elif earlier.cue & (Cue.STOP | Cue.COMMA | VERB):
                break


def apply_forward(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let negations and uncertainties reach over what follows them."""
    governor: PhraseMatch | None = None
    reached = again = False
    for index, item in enumerate(items):
        cue = item.cue
        if item.structure and reached and index and items[index - 1].mentions and not items[index - 1].cue:
            # "No effusion heart enlarged": a statement of its own.
            governor = None
        if governor is not None and (item.mentions or cue & Cue.ABNORMAL):
            # A denied or doubted "enlarged" denies or doubts for the structure that it describes.
            if not _of_a_fault(item, words, governor.last):
                _decide_forward(item, governor)
            reached = reached or bool(item.mentions)
        if cue & Cue.STOP:
            if governor is not None and governor.last == item.first and words[item.first] in _SAID_OF:
                # "It is possible that there is", "unlikely due to": the statement is the one that is doubted.
                continue
            governor, reached = (item if cue & FORWARD else None), False
        elif cue & BACKWARD and not cue & FORWARD and _is_a_title(items, index):
            # "Not excluded: small pneumothorax".
            governor, reached = item, False
        elif cue & FORWARD and _speaks_ahead(items, index, governor, words):
            again = words[item.first] == "no" and governor is not None and reached and words[governor.first] == "no"
            governor, reached = item, False
        elif cue & Cue.WITH:
            # "Possible nodule with effusion", but: "nodule, possibly with effusion".
            if governor is not None and governor.last != item.first:
                governor = None
        elif cue & Cue.COMMA and again and reached and _ends_alone(items, index):
            # "No fracture, no effusion, cardiomegaly": what has no "no" is there.
            governor = None
        elif cue & Cue.COLON and reached:
            # "No effusion: left consolidation is present."
            governor = None
        elif (
            cue & (Cue.COMMA | Cue.AND)
            and governor
            and (reached or governor.cue & Cue.LIST)
            and not _goes_on(items, index, governor, words)
        ):
            governor = None


def _is_a_title(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether a cue that looks back has nothing before it and a colon behind."""
    following = items[index + 1] if index + 1 < len(items) else None
    colon = following is not None and following.first == items[index].last and bool(following.cue & Cue.COLON)
    return colon and not any(item.mentions for item in items[max(0, index - 5) : index])


def _ends_alone(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether one finding and nothing else follows the comma at ``index``."""
    rest = items[index + 1 : index + 4]
    return sum(bool(item.mentions) for item in rest) == 1 and not any(item.cue & (SEPARATOR | FORWARD) for item in rest)


def _speaks_ahead(items: Sequence[PhraseMatch], index: int, governor: PhraseMatch | None, words: Sequence[str]) -> bool:
    """Whether the cue at ``index`` takes over from ``governor``: "no effusion, possible atelectasis"."""
    cue = items[index].cue
    if cue & BACKWARD and not _points_forward(items, index, words):
        return False
    if governor is None:
        return True
    if cue & Cue.REMARK:
        return True
    if governor.cue & Cue.DOUBT:
        return bool(cue & Cue.DOUBT)
    if governor.cue & Cue.NEGATION and cue & Cue.UNCERTAINTY:
        # "No evidence to suggest possible pneumonia" stays a negation, "no suspicious nodule" too.
        before = items[index - 1]
        return not cue & Cue.WEAK and bool(before.cue & (Cue.COMMA | Cue.AND)) and before.last == items[index].first
    return True


def _decide_forward(item: PhraseMatch, governor: PhraseMatch) -> None:
    if governor.cue & (Cue.REMARK | Cue.REMARK_AFTER):
        item.drop()
    elif governor.cue & (Cue.DOUBT | Cue.DOUBT_AFTER):
        item.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, governor)
    elif governor.cue & (Cue.NEGATION | Cue.NEGATION_AFTER):
        item.decide(MentionStatus.NEGATIVE, Rule.NEGATED, governor)
    else:
        item.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN, governor)


def _points_forward(items: Sequence[PhraseMatch], index: int, words: Sequence[str]) -> bool:
    """Whether a word that may look both ways ("resolved", "suspected") looks at what follows."""
    if words[items[index].last : items[index].last + 1] and words[items[index].last] in _STATEMENTS:
        # "It is doubtful that this represents an effusion".
        return True
    for later in items[index + 1 : index + 5]:
        if later.mentions:
            return True
        if later.cue & (Cue.STOP | Cue.WITH | Cue.COMMA | Cue.AND | VERB | FORWARD):
            # "Chest tube removed without pneumothorax": the next statement has begun.
            return False
    return False


def _goes_on(items: Sequence[PhraseMatch], index: int, governor: PhraseMatch, words: Sequence[str]) -> bool:
    """Whether the list that ``governor`` speaks of goes on after the comma or "and" at ``index``."""
    place = index
    conjoined = False
    end = min(len(items), index + _WINDOW)
    while place < end and items[place].cue & SEPARATOR and not items[place].mentions:
        if items[place].cue & CHOICE:
            return True
        conjoined = conjoined or bool(items[place].cue & Cue.AND)
        place += 1
    if place == end:
        return True
    following = items[place]
    if following.cue & (Cue.STOP | VERB) or following.structure:
        return False
    if governor.cue & Cue.LIST and not conjoined and words[following.first] in _DETERMINERS and _has_verb(items, place):
        # "After clearing of the edema, a consolidation is now evident".
        return False
    opened = bool(following.cue & Cue.OPENER) and bool(not governor.cue & Cue.LIST or _is_firm(items, place))
    mentioned = False
    for later in items[place : place + _WINDOW]:
        if later.cue & Cue.STOP:
            break
        if later.cue & CHOICE:
            # "No consolidation, large effusion, or pneumothorax": the list ends behind the "or".
            return True
        if later.cue & VERB:
            # "No effusion and the heart is enlarged", "no consolidation, effusion is small": a statement of its own.
            return not opened and (not mentioned or bool(later.cue & Cue.LIST))
        if mentioned and later.cue & Cue.STABLE and not conjoined:
            # "No pneumothorax, effusion unchanged".
            return False
        mentioned = mentioned or bool(later.mentions)
    return not opened


def _has_verb(items: Sequence[PhraseMatch], place: int) -> bool:
    """Whether what begins at ``place`` has a verb before the next comma or conjunction."""
    for item in items[place : place + _WINDOW]:
        if item.cue & VERB:
            return True
        if item.cue & (SEPARATOR | Cue.STOP) and not item.mentions:
            return False
    return False


def _is_firm(items: Sequence[PhraseMatch], place: int) -> bool:
    """Whether what opens a statement at ``place`` says that something is there: "small", "a new"."""
    item = items[place]
    following = items[place + 1] if place + 1 < len(items) else item
    return bool(item.cue & Cue.FIRM) or (following.first == item.last and bool(following.cue & Cue.FIRM))


def apply_backward(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let "is not seen", "cannot be excluded" and their like reach back over what stands before them."""
    for index, item in enumerate(items):
        if not item.cue & BACKWARD or (item.cue & FORWARD and _points_forward(items, index, words)):
            continue
        joined = listed = False
        seen = False
        apart = False
        # "Effusion, collapse: none": the answer is one for all.
        answers = words[item.first] in _ANSWERED
        refers = words[item.first] in _PRONOUNS
        for place in range(index - 1, max(-1, index - 1 - _WINDOW), -1):
            earlier = items[place]
            if earlier.mentions:
                if seen and not joined and items[place + 1].first - earlier.last > 1:
                    break
                if not _of_its_tip(earlier, item, words):
                    _decide_backward(earlier, item, words)
                seen, joined = True, False
            elif earlier.cue & (CHOICE | Cue.AND):
                if seen and words[earlier.last] == "the" and _states(items, place, words):
                    # "There is edema and the effusion has resolved".
                    break
                joined, listed = True, listed or seen
            elif earlier.cue & Cue.COMMA:
                # "A, B, and C have been removed", but: "there is A, and B has been removed".
                if seen and not answers and (not (joined or listed) or _states(items, place, words)):
                    break
                joined, apart = True, not seen
            elif refers and not seen:
                # "Nodule at the base; this is a nipple shadow": the statement before is the one that is spoken of.
                continue
            elif not seen and earlier.cue & Cue.STOP and words[earlier.first] in _RELATIVES:
                # "The effusion that was seen before has gone": a remark in between.
                continue
            elif earlier.cue & (Cue.STOP | Cue.WITH | BACKWARD) or (earlier.cue & VERB and (seen or apart)):
                break


def _states(items: Sequence[PhraseMatch], place: int, words: Sequence[str]) -> bool:
    """Whether what stands before the comma at ``place`` says something by itself: it has a verb."""
    before = items[max(0, place - _WINDOW) : place]
    return any(item.cue & VERB or (item.cue & Cue.STOP and words[item.first] == "there") for item in before)


def _of_its_tip(item: PhraseMatch, cue: PhraseMatch, words: Sequence[str]) -> bool:
    """Whether only the end or a fault of a device is not seen: "the tip of the nasogastric tube is not seen"."""
    if not any(observation == _DEVICES for observation, _ in item.mentions):
        return False
    if _of_a_fault(item, words, 0):
        return True
    unseen = not _UNSEEN.isdisjoint(words[cue.first : cue.last])
    return unseen and not _ENDS.isdisjoint(words[max(0, item.first - 6) : cue.first])


def _of_a_fault(item: PhraseMatch, words: Sequence[str], begin: int) -> bool:
    """Whether what is said is said of a fault of a device: "no kink in the drain", "fracture of the lead"."""
    if not any(observation == _DEVICES for observation, _ in item.mentions):
        return False
    before = range(max(begin, item.first - 6, 0) + 1, item.first)
    inside = any(words[place - 1] in _FAULTS and words[place] in _INSIDE for place in before)
    return inside or (item.last - item.first > 1 and words[item.first] in _FAULTS)


def _decide_backward(item: PhraseMatch, cue: PhraseMatch, words: Sequence[str]) -> None:
    denied_by = item.by.cue if item.rule is Rule.NEGATED and item.by is not None else 0
    if cue.cue & Cue.REMARK_AFTER:
        if item.status is MentionStatus.POSITIVE:
            item.drop()
    elif cue.cue & Cue.DOUBT_AFTER or (denied_by & Cue.BOTH and cue.cue & Cue.NEGATION_AFTER):
        # "Neither pneumonia nor edema can be excluded", "none of the effusions has resolved".
        item.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, cue)
    elif (
        denied_by & Cue.CHANGE and cue.cue & Cue.NEGATION_AFTER and not _UNSEEN.isdisjoint(words[cue.first : cue.last])
    ):
        # "Resolution of the edema is not seen".
        item.decide(MentionStatus.POSITIVE, Rule.NAMED, cue)
        item.by = None
    elif cue.cue & Cue.NEGATION_AFTER:
        if item.rule is not Rule.NOT_EXCLUDED:
            item.decide(MentionStatus.NEGATIVE, Rule.NEGATED_AFTER, cue)
    elif item.status is MentionStatus.POSITIVE:
        item.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN_AFTER, cue)


def _doubted_at_the_end(items: Sequence[PhraseMatch], length: int) -> None:
    """Let a last word doubt what stands before it ("pneumonia?"): nothing follows that it could speak of."""
    last = items[-1]
    if last.cue & Cue.UNCERTAINTY and not last.cue & BACKWARD and last.last == length and len(items) > 1:
        edge = items[-2].last
        for before in reversed(items[:-1]):
            if not before.mentions or before.last != edge or before.status is not MentionStatus.POSITIVE:
                return
            before.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN_AFTER, last)
            edge = before.first


def _asked(items: Sequence[PhraseMatch]) -> None:
    """Drop what a sentence only names as the reason of the study: "Follow-up of pneumonia."."""
    if not any(item.cue & (VERB | Cue.STABLE | Cue.COLON | Cue.NEGATION_AFTER) for item in items):
        for item in items:
            item.drop()


def _long_past(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Deny what somebody had once: "the patient had an effusion in 2018"."""
    had = words.index("had")
    past = next((place for place in range(had + 1, len(words)) if words[place] in _PAST or _YEAR(words[place])), None)
    if past is None:
        return
    by = next((item for item in items if item.first <= had < item.last), None)
    for item in items:
        if by is not None and item.mentions and had < item.first < past and item.status is MentionStatus.POSITIVE:
            item.decide(MentionStatus.NEGATIVE, Rule.NEGATED, by)
