"""Results of the report labeler: labels, the mentions behind them, and whether the report was read."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cxrprep.labels.nlp.mentions import MentionStatus, Rule


class ReportStatus(enum.StrEnum):
    """What became of a report. Only ``labeled`` rows have labels; an empty report is never "No Finding"."""

    LABELED = "labeled"
    EMPTY = "empty"
    NO_SECTION = "no-section"
    UNREADABLE = "unreadable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention of an observation.

    ``start`` and ``end`` are character places in the text that was given; ``phrase`` and ``cue`` are its words there
    (``cue`` is empty when no other word decided). ``sentence`` counts from 0 within the section that was read.
    """

    observation: str
    status: MentionStatus
    section: str
    sentence: int
    start: int
    end: int
    phrase: str
    rule: Rule
    cue: str = ""
    cue_start: int = -1
    cue_end: int = -1

    @property
    def reason(self) -> str:
        """Why the mention has its status, in words."""
        return _REASONS[self.rule].format(cue=f'"{" ".join(self.cue.split())}"')


_REASONS = {
    Rule.NAMED: "named, and nothing denies it",
    Rule.NEGATED: "denied by {cue} before it",
    Rule.NEGATED_AFTER: "denied by {cue} after it",
    Rule.UNCERTAIN: "made uncertain by {cue} before it",
    Rule.UNCERTAIN_AFTER: "made uncertain by {cue} after it",
    Rule.NOT_EXCLUDED: "not excluded: {cue}",
    Rule.ALTERNATIVE: "one of several alternatives: {cue}",
    Rule.SUSPECT: "this wording is uncertain at best",
    Rule.ABNORMAL: "the structure is called {cue}",
    Rule.NORMAL: "the structure is called {cue}",
    Rule.STABLE: "only said to be {cue}: normal or not is left open",
    Rule.BORDERLINE: "left open by {cue}",
}


@dataclass(frozen=True, slots=True)
class ReportLabels:
    """The labels of one report.

    ``labels`` has every reported observation under its published name: 1, 0, -1, or ``None`` for not mentioned.
    ``section`` names the part that was read, ``start`` and ``end`` are its character places in the text.
    """

    labels: dict[str, int | None]
    mentions: tuple[Mention, ...]
    status: ReportStatus
    section: str
    start: int = 0
    end: int = 0
