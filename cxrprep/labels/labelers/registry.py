"""Labelers by their names: the shipped ones, and those of other packages (entry-point group ``cxrprep.labelers``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.labels.labelers.contract import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.labels.labelers.contract import LabelerOptions, ReportLabeler

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


def labeler_named(name: str, options: LabelerOptions) -> ReportLabeler:
    """The labeler of that name, made ready.

    Args:
        name: of a shipped one, or of an entry point whose value is a function of ``LabelerOptions``.
        options: what a person chose.

    Raises:
        UsageError: there is none, or its options do not suffice, or text would leave this machine unasked.
        MissingExtraError: a package that it needs is not here.
    """
    from importlib.metadata import entry_points

    shipped = _shipped()
    if name in shipped:
        return shipped[name](options)
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join((RULES, *shipped, *sorted(found)))
        raise UsageError(f"no labeler is called {name!r}", hint=f"known: {known}")
    labeler: ReportLabeler = found[name].load()(options)
    return labeler
