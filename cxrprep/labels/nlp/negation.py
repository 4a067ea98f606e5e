"""Negation and uncertainty: what denies a mention in a sentence, and what makes it uncertain.

A sentence is a row of items (mentions and cues). A cue reaches over a list ("no effusion, pneumothorax or
consolidation") to the next word that opens a new statement. Every look ahead or back is bounded, so that time is
linear in the length of the sentence, whatever it holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.anatomy import settle_structures
from cxrprep.labels.nlp.mentions import (
    ABNORMAL,
    AND,
    BACKWARD,
    BOTH,
    CHOICE,
    COLON,
    COMMA,
    DOUBT,
    DOUBT_AFTER,
    FIRM,
    FORWARD,
    LIST,
    NEGATION,
    NEGATION_AFTER,
    NOT_NEGATION,
    OPENER,
    PERSISTS,
    REMARK,
    REMARK_AFTER,
    SEPARATOR,
    STABLE,
    STOP,
    UNCERTAINTY,
    VERB,
    VERSUS,
    WEAK,
    WITH,
    Found,
    MentionStatus,
    PhraseMatch,
    Rule,
)
from cxrprep.labels.nlp.phrase_matcher import WORDS
from cxrprep.labels.nlp.ruleset import OBSERVATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.labels.nlp.ruleset import RuleEntry, Rules

# Words that may stand between "or" and the mention beside it.
_CHOICE_GAP: Final = 5
# Items that a cue looks ahead for the end of a list, or back for what it denies.
_WINDOW: Final = 40
# Words of a remark in brackets that still belongs to its sentence: "no effusion (or pneumothorax)".
_SHORT_ASIDE: Final = 5
# The halves of a contraction: "is nt", "ca nt", "wo nt".
_SPOKEN: Final = {"nt": "not", "ca": "can", "wo": "will"}
# Where a sentence ends: phrases may name it.
_END: Final = "$"
# First words of a remark in brackets that says something of its own: "no pneumothorax (small effusion)".
_ASSERTS: Final = frozenset(
    ("small", "moderate", "large", "mild", "tiny", "trace", "minimal", "new", "left", "right", "bilateral", "there")
)
# Words between "but" and "persists" that keep to one finding: "has resolved on the left but persists on the right".
_SAME: Final = frozenset(
    ("the", "a", "left", "right", "one", "ones", "on", "in", "at", "it", "they", "this", "that", "there", "is", "are",
     "has", "have", "still", "now", "side", "other", "upper", "lower", "base", "apex", "apical", "basal", "component",
     "small", "tiny", "residual", "latter", "former", "and", "largely", "essentially", "otherwise")
)  # fmt: skip
_CONTRASTS: Final = frozenset(("but", "while", "whereas", "though", "although", "however", "and", "yet"))
_DEVICES: Final = OBSERVATIONS.index("Support Devices")
_ENDS: Final = frozenset(("tip", "tips", "course", "sideport", "termination"))
_FAULTS: Final = frozenset(
    ("fracture", "break", "kink", "kinking", "malposition", "malpositioning", "misplacement", "migration",
     "dislodgement", "displacement", "disconnection", "loosening", "coiling", "retraction", "complication",
     "complications", "failure")
)  # fmt: skip
_DETERMINERS: Final = frozenset(("a", "an", "the"))
_INSIDE: Final = frozenset(("of", "in", "within", "to"))
_PRONOUNS: Final = frozenset(("this", "it", "these", "they", "that", "both"))
_PARTED: Final = frozenset((",", ";", "is", "are"))
_ONE: Final = frozenset(("one", "ones"))
_ASKED: Final = frozenset(("follow", "followup"))
_ANSWERED: Final = frozenset((":", "?", "="))
_UNSEEN: Final = frozenset(("not", "cannot"))
_PAST: Final = frozenset(("ago", "previously", "formerly", "childhood", "child", "youth", "once"))
_YEAR: Final = re.compile(r"(?:19|20)\d\d").fullmatch
_PREPOSITIONS: Final = frozenset(
    ("in", "on", "at", "of", "with", "given", "from", "by", "as", "over", "within", "near", "because", "due", "after",
     "and", "but", ",", ";", "if", "when", "based", "than", "despite", "under", "although", "though")
)  # fmt: skip
_DENIALS: Final = frozenset(("no", "not", "without"))
_QUALITIES: Final = frozenset(("@where", "@degree", "@adv", "@plain"))


def words_of(sentence: str) -> list[str]:
    """Words of a sentence in normal form, without the placeholders of de-identification."""
    words = [word for word in WORDS.findall(sentence) if is_word(word)]
    return [_SPOKEN.get(word, word) for word in words] if " nt" in sentence else words


def is_word(word: str) -> bool:
    """Whether ``word`` is more than a placeholder: XXXX of Open-i (MIMIC's ___ is a blank in normal form)."""
    return len(word) < 3 or bool(word.strip("x"))


def read_sentence(sentence: str, rules: Rules) -> tuple[Found, ...]:
    """The mentions of a sentence in normal form, each with its status and the rule that decided."""
    words = words_of(sentence)
    if "(" in words:
        _part_aside(words)
    if words[:1] == ["["]:
        _answer_from_boxes(words)
    count = len(words)
    hits = rules.lexicon.scan([*words, _END])
    if not any(entry.mentions for _, _, entry in hits):
        return ()
    hits = _by_direction(hits, [*words, _END], rules)
    items = [PhraseMatch(first, min(last, count), entry) for first, last, entry in hits if first < count]
    apply_forward(items, words)
    apply_backward(items, words)
    _taken_back(items, words)
    _doubted_at_the_end(items, len(words))
    _alternatives(items, words, rules)
    if "over" in words:
        _less_favoured(items, words, "over")
    if "than" in words:
        _less_favoured(items, words, "than")
    if words[0] in _ASKED and not {"of", "for"}.isdisjoint(words[1:3]) and len(words) <= _WINDOW // 4:
        _asked(items)
    if "had" in words:
        _long_past(items, words)
    settle_structures(items, words)
    return tuple(found for item in items for found in item.found())


def _part_aside(words: list[str]) -> None:
    """Let a remark in brackets that ends the sentence speak for itself: "no effusion (blunting may be old scars)"."""
    opening = len(words) - 1 - words[::-1].index("(")
    rest = words[opening + 1 :]
    asserts = rest[:1] and rest[0] in _ASSERTS and ")" in rest[2:] and rest[rest.index(")") - 1] not in _ASSERTS
    last = ")" not in rest[:-1]
    if asserts or (len(rest) > _SHORT_ASIDE and last and rest[0] not in {"or", "and", "nor"}):
        words[opening] = ";"


def _answer_from_boxes(words: list[str]) -> None:
    """Let boxes that stand before what they tick speak ahead: "[x] cardiomegaly [ ] effusion"."""
    for place, word in enumerate(words):
        if word == "[":
            ticked = words[place + 1 : place + 2] != ["]"]
            words[place : place + 2] = [";", ";" if ticked else "no"]
        elif word == "]":
            words[place] = ";"


def _by_direction(
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
    return not subject or (len(between) <= _CHOICE_GAP and _PREPOSITIONS.isdisjoint(between))


def _taken_back(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let "but persists on the right" take back what "has resolved on the left" denies."""
    for index, item in enumerate(items):
        if item.status is not MentionStatus.NEGATIVE or not item.mentions:
            continue
        begin = -1
        for later in items[index + 1 : index + 1 + _WINDOW]:
            if later.mentions:
                break
            if later.cue & PERSISTS and not _ONE.isdisjoint(words[later.first : later.last]):
                # "; a small one is seen", ", the old one has healed", ". There is one on the right".
                begin = later.first if words[later.first - 1] in _PARTED else begin
            elif words[later.first] in _CONTRASTS:
                begin = later.last
            if begin < 0:
                continue
            if later.cue & (PERSISTS | STABLE):
                if _SAME.issuperset(words[begin : later.first]):
                    item.decide(MentionStatus.POSITIVE, Rule.NAMED, later)
                    item.by = None
                break


def apply_forward(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let negations and uncertainties reach over what follows them."""
    governor: PhraseMatch | None = None
    reached = False
    for index, item in enumerate(items):
        cue = item.cue
        if governor is not None and (item.mentions or cue & ABNORMAL):
            # A denied or doubted "enlarged" denies or doubts for the structure that it describes.
            if not _of_a_fault(item, words, governor.last):
                _decide_forward(item, governor)
            reached = reached or bool(item.mentions)
        if cue & STOP:
            if governor is not None and governor.last == item.first and words[item.first] == "there":
                # "It is possible that there is": the statement is the one that is doubted.
                continue
            governor, reached = (item if cue & FORWARD else None), False
        elif cue & FORWARD and _speaks_ahead(items, index, governor):
            governor, reached = item, False
        elif cue & WITH:
            # "Possible nodule with effusion", but: "nodule, possibly with effusion".
            if governor is not None and governor.last != item.first:
                governor = None
        elif cue & COLON and reached:
            # "No effusion: left consolidation is present."
            governor = None
        elif (
            cue & (COMMA | AND)
            and governor
            and (reached or governor.cue & LIST)
            and not _goes_on(items, index, governor, words)
        ):
            governor = None


def _speaks_ahead(items: Sequence[PhraseMatch], index: int, governor: PhraseMatch | None) -> bool:
    """Whether the cue at ``index`` takes over from ``governor``: "no effusion, possible atelectasis"."""
    cue = items[index].cue
    if cue & BACKWARD and not _points_forward(items, index):
        return False
    if governor is None:
        return True
    if cue & REMARK:
        return True
    if governor.cue & DOUBT:
        return bool(cue & DOUBT)
    if governor.cue & NEGATION and cue & UNCERTAINTY:
        # "No evidence to suggest possible pneumonia" stays a negation, "no suspicious nodule" too.
        before = items[index - 1]
        return not cue & WEAK and bool(before.cue & (COMMA | AND)) and before.last == items[index].first
    return True


def _decide_forward(item: PhraseMatch, governor: PhraseMatch) -> None:
    if governor.cue & REMARK:
        item.drop()
    elif governor.cue & DOUBT:
        item.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, governor)
    elif governor.cue & NEGATION:
        item.decide(MentionStatus.NEGATIVE, Rule.NEGATED, governor)
    else:
        item.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN, governor)


def _points_forward(items: Sequence[PhraseMatch], index: int) -> bool:
    """Whether a word that may look both ways ("resolved", "suspected") looks at what follows."""
    for later in items[index + 1 : index + 5]:
        if later.mentions:
            return True
        if later.cue & (STOP | WITH | COMMA | AND | VERB | FORWARD):
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
        conjoined = conjoined or bool(items[place].cue & AND)
        place += 1
    if place == end:
        return True
    following = items[place]
    if following.cue & (STOP | VERB) or following.structure:
        return False
    if governor.cue & LIST and not conjoined and words[following.first] in _DETERMINERS and _has_verb(items, place):
        # "After clearing of the edema, a consolidation is now evident".
        return False
    opened = bool(following.cue & OPENER) and bool(not governor.cue & LIST or _is_firm(items, place))
    mentioned = False
    for later in items[place : place + _WINDOW]:
        if later.cue & STOP:
            break
        if later.cue & CHOICE:
            # "No consolidation, large effusion, or pneumothorax": the list ends behind the "or".
            return True
        if later.cue & VERB:
            # "No effusion and the heart is enlarged", "no consolidation, effusion is small": a statement of its own.
            return not opened and (not mentioned or bool(later.cue & LIST))
        if mentioned and later.cue & STABLE and not conjoined:
            # "No pneumothorax, effusion unchanged".
            return False
        mentioned = mentioned or bool(later.mentions)
    return not opened


def _has_verb(items: Sequence[PhraseMatch], place: int) -> bool:
    """Whether what begins at ``place`` has a verb before the next comma or conjunction."""
    for item in items[place : place + _WINDOW]:
        if item.cue & VERB:
            return True
        if item.cue & (SEPARATOR | STOP) and not item.mentions:
            return False
    return False


def _is_firm(items: Sequence[PhraseMatch], place: int) -> bool:
    """Whether what opens a statement at ``place`` says that something is there: "small", "a new"."""
    following = items[place + 1] if place + 1 < len(items) else items[place]
    return bool(items[place].cue & FIRM) or (following.first == items[place].last and bool(following.cue & FIRM))


def apply_backward(items: Sequence[PhraseMatch], words: Sequence[str]) -> None:
    """Let "is not seen", "cannot be excluded" and their like reach back over what stands before them."""
    for index, item in enumerate(items):
        if not item.cue & BACKWARD or (item.cue & FORWARD and _points_forward(items, index)):
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
                    _decide_backward(earlier, item)
                seen, joined = True, False
            elif earlier.cue & (CHOICE | AND):
                if seen and words[earlier.last] == "the" and _states(items, place, words):
                    # "There is edema and the effusion has resolved".
                    break
                joined, listed = True, listed or seen
            elif earlier.cue & COMMA:
                # "A, B, and C have been removed", but: "there is A, and B has been removed".
                if seen and not answers and (not (joined or listed) or _states(items, place, words)):
                    break
                joined, apart = True, not seen
            elif refers and not seen:
                # "Nodule at the base; this is a nipple shadow": the statement before is the one that is spoken of.
                continue
            elif earlier.cue & (STOP | WITH | BACKWARD) or (earlier.cue & VERB and (seen or apart)):
                break


def _states(items: Sequence[PhraseMatch], place: int, words: Sequence[str]) -> bool:
    """Whether what stands before the comma at ``place`` says something by itself: it has a verb."""
    before = items[max(0, place - _WINDOW) : place]
    return any(item.cue & VERB or (item.cue & STOP and words[item.first] == "there") for item in before)


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


def _decide_backward(item: PhraseMatch, cue: PhraseMatch) -> None:
    if cue.cue & REMARK_AFTER:
        if item.status is MentionStatus.POSITIVE:
            item.drop()
    elif item.rule is Rule.NEGATED and item.by is not None and item.by.cue & BOTH and cue.cue & NEGATION_AFTER:
        # "Neither pneumonia nor edema can be excluded", "none of the effusions has resolved".
        item.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, cue)
    elif cue.cue & DOUBT_AFTER:
        item.decide(MentionStatus.UNCERTAIN, Rule.NOT_EXCLUDED, cue)
    elif cue.cue & NEGATION_AFTER:
        if item.rule is not Rule.NOT_EXCLUDED:
            item.decide(MentionStatus.NEGATIVE, Rule.NEGATED_AFTER, cue)
    elif item.status is MentionStatus.POSITIVE:
        item.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN_AFTER, cue)


def _doubted_at_the_end(items: Sequence[PhraseMatch], length: int) -> None:
    """Let a last word doubt what stands before it ("pneumonia?"): nothing follows that it could speak of."""
    last = items[-1]
    if last.cue & UNCERTAINTY and not last.cue & BACKWARD and last.last == length and len(items) > 1:
        edge = items[-2].last
        for before in reversed(items[:-1]):
            if not before.mentions or before.last != edge or before.status is not MentionStatus.POSITIVE:
                return
            before.decide(MentionStatus.UNCERTAIN, Rule.UNCERTAIN_AFTER, last)
            edge = before.first


def _alternatives(items: Sequence[PhraseMatch], words: Sequence[str], rules: Rules) -> None:
    """Make both sides of "A or B" and of "A versus B" uncertain, unless they are denied."""
    for index, item in enumerate(items):
        if not item.cue & CHOICE or item.mentions:
            continue
        if not item.cue & VERSUS and _of_no_change(items, index, words) and not _explain(items, index):
            continue
        before, after = _neighbour(items, index, -1), _neighbour(items, index, 1)
        left = items[before] if before is not None else None
        right = items[after] if after is not None else None
        if left is not None and right is not None and left.mentions == right.mentions:
            continue
        if not item.cue & VERSUS and (left is None or right is None):
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
    return len(before) == 3 and before[0].appearance and bool(before[1].cue & COMMA) and bool(before[2].mentions)


def _less_favoured(items: Sequence[PhraseMatch], words: Sequence[str], word: str) -> None:
    """Make B of "A is favored over B" and of "more likely A than B" uncertain: it is the less likely one."""
    over = words.index(word)
    before = words[max(0, over - _WINDOW) : over]
    favoured = any(each.startswith(("favor", "favour", "prefer", "likel", "probab")) for each in before)
    favoured = favoured and (word == "over" or "more" in before or "rather" in before)
    rejected = next((item for item in items if item.mentions and item.first > over), None)
    near = rejected is not None and rejected.first - over <= _CHOICE_GAP
    if favoured and near and rejected is not None and rejected.status is MentionStatus.POSITIVE:
        rejected.decide(MentionStatus.UNCERTAIN, Rule.ALTERNATIVE, rejected)


def _asked(items: Sequence[PhraseMatch]) -> None:
    """Drop what a sentence only names as the reason of the study: "Follow-up of pneumonia."."""
    if not any(item.cue & (VERB | STABLE | COLON | NEGATION_AFTER) for item in items):
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


def _of_no_change(items: Sequence[PhraseMatch], index: int, words: Sequence[str]) -> bool:
    """Whether the list is one of what has not changed: "no change in edema, atelectasis, or effusions"."""
    for item in reversed(items[max(0, index - _WINDOW) : index]):
        if item.cue & (STABLE | NOT_NEGATION):
            return words[item.first] in _DENIALS
        if item.cue & (STOP | VERB | FORWARD):
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
    blocking = STOP | WITH | COMMA | AND | VERB | BACKWARD | (FORWARD if step < 0 else 0)
    while 0 <= place < len(items):
        item = items[place]
        gap = edge - item.last if step < 0 else item.first - edge
        if gap > _CHOICE_GAP:
            return None
        if item.mentions:
            return place
        if item.cue & blocking and not (step < 0 and item.cue & COMMA and item.last == edge):
            # The comma of "A, B, or C" parts nothing.
            return None
        place += step
    return None


def _chain(items: Sequence[PhraseMatch], place: int, cue: PhraseMatch) -> None:
    """Carry an alternative back over "A, B, or C", but not to an opacity: it is what the alternatives explain."""
    while place >= 2 and items[place - 1].cue & COMMA and items[place - 2].mentions:
        before = items[place - 2]
        far = items[place].first - items[place - 1].last > _CHOICE_GAP
        if before.status is not MentionStatus.POSITIVE or before.structure or before.appearance or far:
            return
        before.decide(MentionStatus.UNCERTAIN, Rule.ALTERNATIVE, cue)
        place -= 2
