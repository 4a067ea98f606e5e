"""What a sentence is made of once its phrases are found: items, each with the status that the rules give it."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from cxrprep.labels.nlp.ruleset import Cue, Role, RuleEntry


class MentionStatus(enum.IntEnum):
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


class Found(NamedTuple):
    """A mention in a sentence: word places ``first`` to ``last`` (exclusive), and what decided its status."""

    observation: int
    status: MentionStatus
    first: int
    last: int
    rule: Rule
    cue_first: int = -1
    cue_last: int = -1


VERB: Final = Cue.VERB | Cue.COPULA  # a copula is a verb as well
FORWARD: Final = Cue.NEGATION | Cue.UNCERTAINTY | Cue.DOUBT | Cue.REMARK
BACKWARD: Final = Cue.NEGATION_AFTER | Cue.UNCERTAINTY_AFTER | Cue.DOUBT_AFTER | Cue.REMARK_AFTER
CHOICE: Final = Cue.OR | Cue.VERSUS
SEPARATOR: Final = Cue.COMMA | Cue.AND | CHOICE
STATE: Final = Cue.NORMAL | Cue.ABNORMAL | Cue.BORDERLINE | Cue.STABLE | Cue.DOUBT_AFTER


class PhraseMatch:
    """A phrase in the sentence, with what is decided about it so far."""

    # measured: 0.69 -> 0.60 s of CPU for 300 times `label_report` of one report (medians of 5 alternating runs under
    # load; benchmarks/report_labels.py has the reports a second).
    __slots__ = ("appearance", "by", "cue", "first", "last", "mentions", "rule", "sign", "status", "structure")

    def __init__(self, first: int, last: int, entry: RuleEntry) -> None:
        """Take the phrase at word places ``first`` to ``last``."""
        self.first = first
        self.last = last
        self.cue = entry.cue
        self.mentions = entry.mentions
        self.status = MentionStatus.POSITIVE
        self.rule = Rule.NAMED
        self.by: PhraseMatch | None = None
        self.appearance = entry.appearance
        self.sign = entry.sign
        self.structure = entry.structure

    def drop(self) -> None:
        """Let this be no mention: a remark on technique or advice names it."""
        self.mentions = ()
        self.structure = self.sign = self.appearance = False

    def decide(self, status: MentionStatus, rule: Rule, by: PhraseMatch) -> None:
        """Record a status with its reason."""
        self.status, self.rule, self.by = status, rule, by

    def found(self) -> list[Found]:
        """The mentions of this item as the rules left them."""
        cue = (self.by.first, self.by.last) if self.by is not None else (-1, -1)
        found: list[Found] = []
        for observation, role in self.mentions:
            status, rule = self.status, self.rule
            if role is Role.SUSPECT and status is MentionStatus.POSITIVE:
                status, rule = MentionStatus.UNCERTAIN, Rule.SUSPECT
            found.append(Found(observation, status, self.first, self.last, rule, *cue))
        return found
