"""From the mentions of a report to its labels, under a named policy."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.labels.nlp.mentions import MentionStatus
from cxrprep.labels.nlp.ruleset import Hedge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cxrprep.labels.nlp.ruleset import Rules

CARDIOMEGALY: Final = "Cardiomegaly"
ENLARGED: Final = "Enlarged Cardiomediastinum"
NO_FINDING: Final = "No Finding"
SUPPORT_DEVICES: Final = "Support Devices"
HEART_FAILURE: Final = "Heart Failure"

_POSITIVE, _NEGATIVE, _UNCERTAIN = 1, 2, 4
_BITS = {MentionStatus.POSITIVE: _POSITIVE, MentionStatus.NEGATIVE: _NEGATIVE, MentionStatus.UNCERTAIN: _UNCERTAIN}


class Precedence(enum.StrEnum):
    """Which mention wins when a report says several things of one observation."""

    POSITIVE_WINS = "positive-wins"
    """Positive over uncertain over negative, as the CheXpert paper describes it."""
    CHEXPERT_LABELER = "chexpert-labeler"
    """As its released program does: a negative and an uncertain mention give uncertain, even beside a positive one."""


class Sections(enum.StrEnum):
    """Which part of a report is read."""

    CONCLUSION = "conclusion"
    """The impression; without one the findings; without them the last paragraph."""
    FINDINGS_AND_IMPRESSION = "findings-and-impression"
    """Both, joined; without either as ``conclusion``."""
    EVERYTHING = "everything"
    """The whole text, history and comparison included."""


_ORDERS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    Sections.CONCLUSION: (("impression",), ("findings",), ("last_paragraph",), ("comparison",)),
    Sections.FINDINGS_AND_IMPRESSION: (
        ("findings", "impression"), ("impression",), ("findings",), ("last_paragraph",), ("comparison",)
    ),
    Sections.EVERYTHING: (),
}  # fmt: skip


@functools.cache
def section_order(sections: str) -> tuple[tuple[str, ...], ...]:
    """The sections that are read, in order of preference: the first group is taken of which a report has one.

    Args:
        sections: one of ``Sections``, or names in that order, parted by commas: "impression,findings+technique"; those
            that a plus joins are read together. ``report`` is a text without titles, read whole.

    Returns:
        Groups of names; none for the whole text.

    Raises:
        UsageError: there is no name.
    """
    if sections in _ORDERS:
        return _ORDERS[sections]
    groups = (tuple(" ".join(name.lower().split()) for name in group.split("+")) for group in sections.split(","))
    order = tuple(tuple(name for name in group if name) for group in groups)
    if not order or not all(order):
        raise UsageError(
            f"{sections!r} names no sections", hint="name them in order of preference: --sections impression,findings"
        )
    return tuple(tuple("last_paragraph" if name == "last paragraph" else name for name in group) for group in order)


@dataclass(frozen=True, slots=True)
class MentionPolicy:
    """How mentions become labels. Every field is one documented decision; the name goes into the table's metadata.

    ``heart_failure``: "heart failure" and "CHF", unless denied, make Cardiomegaly uncertain. ``empty_is_normal``: a
    report without a word is No Finding, as the released CheXpert labeler has it. ``cardiomegaly_enlarges``: a positive
    Cardiomegaly makes Enlarged Cardiomediastinum positive, which no published labeler does. ``hedges`` is the weakest
    hedge that leaves a finding positive. ``sections`` are those that are read, as ``section_order`` understands them.
    """

    name: str = "default"
    precedence: Precedence = Precedence.POSITIVE_WINS
    sections: str = Sections.CONCLUSION
    heart_failure: bool = True
    empty_is_normal: bool = False
    cardiomegaly_enlarges: bool = False
    hedges: Hedge = Hedge.PROBABLE


POLICIES: Final = {
    policy.name: policy
    for policy in (
        MentionPolicy(),
        MentionPolicy(
            "chexpert-labeler", precedence=Precedence.CHEXPERT_LABELER, empty_is_normal=True, hedges=Hedge.LIKELY
        ),
        MentionPolicy("chexpert-annotators", hedges=Hedge.SUSPICIOUS),
        MentionPolicy("presence", hedges=Hedge.OPEN),
        MentionPolicy("strict", hedges=Hedge.FIRM),
        MentionPolicy("derived", cardiomegaly_enlarges=True),
    )
}


def policy_named(name: str, *, sections: str = "") -> MentionPolicy:
    """The policy of that name, with the ``sections`` that are to be read where they are named.

    Raises ``UsageError`` for an unknown policy, and for sections that cannot be read.
    """
    try:
        policy = POLICIES[name]
    except KeyError:
        raise UsageError(f"no label policy is called {name!r}", hint=f"known: {', '.join(POLICIES)}") from None
    if not sections:
        return policy
    section_order(sections)
    return replace(policy, sections=sections)


def settle(statuses: Iterable[MentionStatus], precedence: Precedence = Precedence.POSITIVE_WINS) -> int | None:
    """The label that several mentions of one observation give together: 1, 0, -1, or ``None`` for none."""
    bits = 0
    for status in statuses:
        bits |= _BITS[status]
    return _table(precedence)[bits]


def _table(precedence: Precedence) -> tuple[int | None, ...]:
    return tuple(_label(bits, precedence) for bits in range(8))


def _label(bits: int, precedence: Precedence) -> int | None:
    if not bits:
        return None
    if precedence is Precedence.CHEXPERT_LABELER and bits & _NEGATIVE and bits & _UNCERTAIN:
        return -1
    return 1 if bits & _POSITIVE else -1 if bits & _UNCERTAIN else 0


def mask_of(mentions: Iterable[tuple[int, MentionStatus]]) -> int:
    """Mentions, as pairs of observation index and status, in one integer: three bits an observation."""
    mask = 0
    for observation, status in mentions:
        mask |= _BITS[status] << (3 * observation)
    return mask


class Aggregator:
    """Turns masks into labels: a sentence has a mask, a report the union of its sentences' masks."""

    def __init__(self, rules: Rules, policy: MentionPolicy) -> None:
        self._names = rules.observations
        self.policy = policy
        self._labels = _table(policy.precedence)
        self._places = [(name, 3 * self._names.index(name)) for name in rules.reported]
        said = _POSITIVE | _UNCERTAIN
        self._abnormal = sum(
            said << (3 * index) for index, name in enumerate(self._names) if name not in (SUPPORT_DEVICES, NO_FINDING)
        )
        self._failure = said << self._place(HEART_FAILURE) if HEART_FAILURE in self._names else 0
        self._cardiomegaly = self._place(CARDIOMEGALY)
        self._enlarged = self._place(ENLARGED)
        self._no_finding = _POSITIVE << self._place(NO_FINDING)

    def _place(self, name: str) -> int:
        return 3 * self._names.index(name)

    def labels(self, mask: int) -> dict[str, int | None]:
        """The labels of a report whose mentions are in ``mask``, by published name."""
        if not mask & self._abnormal:
            mask |= self._no_finding
        if self.policy.heart_failure and mask & self._failure:
            mask |= _UNCERTAIN << self._cardiomegaly
        if self.policy.cardiomegaly_enlarges and (mask >> self._cardiomegaly) & _POSITIVE:
            mask |= _POSITIVE << self._enlarged
        table = self._labels
        return {name: table[(mask >> place) & 7] for name, place in self._places}
