"""A user's own vocabulary: observations, phrases and cues in a TOML file, with examples that are run when it loads.

::

    [[observation]]
    name = "Hiatal Hernia"
    findings = ["hiatal|hiatus hernia", "intrathoracic stomach"]
    examples = ["Large hiatal hernia. => positive", "No hiatal hernia. => negative"]

A block under a published name adds phrases to it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ConfigError
from cxrprep.humanize import short_repr
from cxrprep.labels.nlp.labeler import Labeler
from cxrprep.labels.nlp.ruleset import build_rules, parse_source, shipped_sources
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES: Final = {
    "1": 1, "positive": 1, "0": 0, "negative": 0, "-1": -1, "uncertain": -1,
    "null": None, "none": None, "not mentioned": None,
}  # fmt: skip


def read_vocabulary(path: Path) -> tuple[tuple[str, str], ...]:
    """The shipped sources and that of ``path``, after its examples gave what they say.

    Raises ``ConfigError`` that names the file and the line, phrase or example that is wrong.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {why}", hint="a vocabulary is a TOML file in UTF-8") from error
    sources = (*shipped_sources(), (path.name, text))
    labeler = Labeler(build_rules(sources))
    for number, (example, default) in enumerate(_examples(parse_source(path.name, text)), 1):
        for complaint in failures(labeler, example, default):
            raise ConfigError(f"{path}, example {number}: {complaint}", hint="correct the phrase or the example")
    return sources


def _examples(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for block in (table, *table.get("observation", [])):
        for example in block.get("examples", []):
            yield example, "" if block is table else block["name"]


def failures(labeler: Labeler, example: str, default: str = "") -> Iterator[str]:
    """What is wrong with an example: ``text => label``, or ``text => Name=label, Name=label``. Nothing when it holds.

    Raises ``ConfigError`` for an example that cannot be read.
    """
    text, arrow, wanted = example.rpartition("=>")
    if not arrow or not text.strip():
        raise ConfigError(f"the example {example!r} has no label", hint='write it as "text => positive"')
    labels = labeler.label(text.strip(), mimic=False).labels
    for part in wanted.split(","):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else default
        if name not in labels:
            raise ConfigError(f"the example {example!r} names no observation that has a label: {name!r}")
        if value.strip().lower() not in VALUES:
            raise ConfigError(f"the example {example!r} has no known label; known: {', '.join(VALUES)}")
        expected = VALUES[value.strip().lower()]
        if labels[name] != expected:
            yield f"{text.strip()!r} gives {name}={_shown(labels[name])}, not {_shown(expected)}"


def _shown(value: int | None) -> str:
    return "null" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How many examples were run, and what was wrong: empty when all is well."""

    __repr__ = short_repr

    examples: int
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every example gave what it should."""
        return self.examples > 0 and not self.failures


def examples() -> list[str]:
    """The shipped examples, ``text => Name=label, Name=label``."""
    file = resources.files("cxrprep.labels.nlp") / "data" / "examples.toml"
    found: list[str] = tomllib.loads(file.read_text("utf-8"))["examples"]
    return found


def selftest() -> SelfTest:
    """Run the shipped examples through the labeler of this installation."""
    labeler = Labeler()
    shipped = examples()
    return SelfTest(len(shipped), tuple(complaint for example in shipped for complaint in failures(labeler, example)))
