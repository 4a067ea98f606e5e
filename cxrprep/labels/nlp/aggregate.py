"""From the mentions of a report to its labels, under a named policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.mentions import MentionStatus
from cxrprep.labels.nlp.policies import MentionPolicy, Precedence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cxrprep.labels.nlp.ruleset import Rules

CARDIOMEGALY: Final = "Cardiomegaly"
ENLARGED: Final = "Enlarged Cardiomediastinum"
NO_FINDING: Final = "No Finding"
SUPPORT_DEVICES: Final = "Support Devices"
HEART_FAILURE: Final = "Heart Failure"

_POSITIVE, _NEGATIVE, _UNCERTAIN = 1, 2, 4
_BITS = {MentionStatus.POSITIVE: _POSITIVE, MentionStatus.NEGATIVE: _NEGATIVE, MentionStatus.UNCERTAIN: _UNCERTAIN}


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
