"""Check of doctor: what was looked at, and how it stands."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How a check came out. A problem stops some job; a warning may slow it down or concern a part of it.

    What is optional is not there, and nothing that was asked about needs it.
    """

    OK = "ok"
    OPTIONAL = "optional"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the examination: what was looked at, how it stands, and what to do about it."""

    group: str
    name: str
    state: State
    found: str
    hint: str = ""
