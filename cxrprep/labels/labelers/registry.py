"""Labelers by their names: the shipped ones, and those of other packages (entry-point group ``cxrprep.labelers``)."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.labels.labelers.contract import RULES, LabelerOptions, ReportLabeler

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint


ENTRY_POINTS: Final = "cxrprep.labelers"


def _shipped() -> dict[str, Callable[[LabelerOptions], ReportLabeler]]:
    # Imported when asked for: torch and requests take seconds.
    def chexbert(options: LabelerOptions) -> ReportLabeler:
        from cxrprep.labels.labelers.chexbert import Chexbert

        return Chexbert(options)

    def openai(options: LabelerOptions) -> ReportLabeler:
        from cxrprep.labels.labelers.openai_endpoint import OpenaiLabeler

        return OpenaiLabeler(options)

    def both(options: LabelerOptions) -> ReportLabeler:
        from cxrprep.labels.labelers.both import RulesThenModel

        return RulesThenModel(options, labeler_named("openai", options))

    def both_chexbert(options: LabelerOptions) -> ReportLabeler:
        from cxrprep.labels.labelers.both import RulesThenModel

        return RulesThenModel(options, labeler_named("chexbert", options))

    return {"both": both, "both-chexbert": both_chexbert, "chexbert": chexbert, "openai": openai}


def _installed() -> dict[str, EntryPoint]:
    """The labelers of other packages, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def labeler_names() -> tuple[str, ...]:
    """Every labeler that may be asked for: the rules, those that ship with cxrprep, those of other packages."""
    return (RULES, *_shipped(), *sorted(_installed()))


def labeler_named(name: str, options: LabelerOptions) -> ReportLabeler:
    """The labeler of that name, made ready.

    Args:
        name: of a shipped one, or of an entry point whose value is a function of ``LabelerOptions``.
        options: what a person chose.

    Raises:
        UsageError: there is none, or its options do not suffice, or text would leave this machine unasked.
        MissingExtraError: a package that it needs is not here.
    """
    shipped = _shipped()
    if name in shipped:
        return shipped[name](options)
    found = _installed()
    if name not in found:
        raise UsageError(f"no labeler is called {name!r}", hint=f"known: {', '.join(labeler_names())}")
    labeler: ReportLabeler = found[name].load()(options)
    return labeler
