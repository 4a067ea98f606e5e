"""Results of a transfer: one per file, and the totals with their exit code."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.errors import CxrprepError, ExitCode, most_pressing
from cxrprep.humanize import short_repr

if TYPE_CHECKING:
    from cxrprep.planning.plan import Item


_MOST: Final = 10_000


class OutcomeStatus(enum.StrEnum):
    """How an item ended."""

    OK = "ok"
    NOT_NEEDED = "notneeded"
    IMPOSSIBLE = "impossible"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one item ended.

    ``size`` is the bytes that moved for it, ``error`` why it failed; of an archive ``unpacked`` counts the files that
    came out of it, ``foreign`` those that do not belong to the release. A ``linked`` one shares the source's bytes.
    """

    item: Item
    status: OutcomeStatus
    size: int = 0
    error: CxrprepError | None = None
    unpacked: int = 0
    foreign: int = 0
    linked: bool = False


@dataclass(slots=True)
class TransferResult:
    """How a transfer ended.

    ``done``, ``kept`` and ``impossible`` count items, ``unpacked`` files out of archives; ``size`` is bytes moved;
    ``left`` counts items that were not tried because the run had to stop. ``failures`` holds the items that failed (the
    first ten thousand of ``failed``).
    """

    __repr__ = short_repr

    done: int = 0
    kept: int = 0
    impossible: int = 0
    failed: int = 0
    unpacked: int = 0
    foreign: int = 0
    linked: int = 0
    left: int = 0
    size: int = 0
    seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)
    codes: set[ExitCode] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.size += outcome.size
        self.unpacked += outcome.unpacked
        self.foreign += outcome.foreign
        self.linked += outcome.linked
        if outcome.status is OutcomeStatus.OK:
            self.done += 1
        elif outcome.status is OutcomeStatus.NOT_NEEDED:
            self.kept += 1
        else:
            if outcome.status is OutcomeStatus.IMPOSSIBLE:
                self.impossible += 1
            else:
                self.failed += 1
            self.codes.add(outcome.error.exit_code if outcome.error is not None else ExitCode.PARTIAL)
            if len(self.failures) < _MOST:
                self.failures.append(outcome)

    @property
    def exit_code(self) -> ExitCode:
        """The one exit code for all that happened."""
        return most_pressing(self.codes)
