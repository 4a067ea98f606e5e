"""The labeler's own examples, shipped with it: a broken installation cannot pass unnoticed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from cxrprep.labels.report.custom import failures
from cxrprep.labels.report.labeler import Labeler


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How many examples were run, and what was wrong: empty when all is well."""

    examples: int
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every example gave what it should."""
        return self.examples > 0 and not self.failures


def examples() -> list[str]:
    """The shipped examples, ``text => Name=label, Name=label``."""
    file = resources.files("cxrprep.labels.report") / "data" / "examples.toml"
    found: list[str] = tomllib.loads(file.read_text("utf-8"))["examples"]
    return found


def selftest() -> SelfTest:
    """Run the shipped examples through the labeler of this installation."""
    labeler = Labeler()
    shipped = examples()
    return SelfTest(len(shipped), tuple(complaint for example in shipped for complaint in failures(labeler, example)))
