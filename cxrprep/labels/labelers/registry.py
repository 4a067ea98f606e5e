"""Labelers by their names: the shipped ones, and those of other packages (entry-point group ``cxrprep.labelers``)."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from cxrprep.errors import UsageError
from cxrprep.labels.labelers.contract import RULES, LabelerOptions, ReportLabeler

ENTRY_POINTS: Final = "cxrprep.labelers"
# Imported when asked for, as those of other packages are: torch and requests take seconds.
_SHIPPED: Final = {
    "chexbert": "cxrprep.labels.labelers.chexbert:Chexbert",
    "openai": "cxrprep.labels.labelers.openai_endpoint:OpenaiLabeler",
}
# The rules first, and this model where they leave something open.
_WITH_RULES: Final = {"both": "openai", "both-chexbert": "chexbert"}


def _single() -> dict[str, EntryPoint]:
    """The labelers by name, those of other packages behind the shipped ones."""
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    shipped = {name: EntryPoint(name, place, ENTRY_POINTS) for name, place in _SHIPPED.items()}
    return shipped | {name: installed[name] for name in sorted(installed.keys() - shipped.keys())}


def labeler_names() -> tuple[str, ...]:
    """Every labeler that may be asked for: the rules, those that ship with cxrprep, those of other packages."""
    return (RULES, *_WITH_RULES, *_single())


def labeler_named(name: str, options: LabelerOptions) -> ReportLabeler:
    """The labeler of that name, made ready.

    Args:
        name: of a shipped one, or of an entry point whose value is a function of ``LabelerOptions``.
        options: what a person chose.

    Raises:
        UsageError: there is none, or its options do not suffice, or text would leave this machine unasked.
        MissingExtraError: a package that it needs is not here.
    """
    if name in _WITH_RULES:
        from cxrprep.labels.labelers.both import RulesThenModel

        return RulesThenModel(options, labeler_named(_WITH_RULES[name], options))
    found = _single()
    if name not in found:
        raise UsageError(f"no labeler is called {name!r}", hint=f"known: {', '.join(labeler_names())}")
    labeler: ReportLabeler = found[name].load()(options)
    return labeler
