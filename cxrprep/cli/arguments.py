"""From settings to the arguments of the verbs of ``api``: the one place where the two are matched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from cxrprep.cli.invocation import Invocation


def _given(text: str) -> str | None:
    return text or None


def folder_arguments(invocation: Invocation) -> dict[str, Any]:
    """What every verb on a folder takes."""
    job = invocation.job
    return {
        "root": invocation.root,
        "dataset": _given(job.dataset),
        "release": _given(job.release),
        "state": invocation.state,
    }


def label_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``api.extract_labels``."""
    from cxrprep.labels.rows import Options

    labels = invocation.job.labels
    options = Options(
        strict_source=labels.strict_source,
        demographics=labels.demographics,
        patients=invocation.path(labels.mimic_iv),
        report_text=labels.report_text,
    )
    return {
        **folder_arguments(invocation),
        "tables": invocation.path(invocation.job.tables),
        "options": options,
        "label_source": _given(labels.source),
    }


def manifest_arguments(invocation: Invocation) -> dict[str, Any]:
    """For ``api.build_manifest``."""
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule

    labels, split = invocation.job.labels, invocation.job.split
    per: dict[str, dict[str, str]] = {}
    for key, table in (("uncertain", labels.uncertain_by), ("blank", labels.blank_by)):
        for name, word in table.items():
            per.setdefault(name, {})[key] = word
    rule = None
    if split.by or split.fractions or split.stratify or split.within:
        rule = SplitRule.parse(
            by=split.by or "patient",
            fractions=split.fractions or "0.8,0.1,0.1",
            seed=split.seed,
            within=_given(split.within),
            stratify=_given(split.stratify),
        )
    return {
        **folder_arguments(invocation),
        "label_source": _given(labels.source),
        "policy": Policy.parse(uncertain=labels.uncertain, blank=labels.blank, derive=labels.derive, per=per),
        "split": rule,
    }


def recipe_of(invocation: Invocation) -> str:
    """The recipe that was named. Raises ``UsageError`` when none was."""
    recipe = invocation.job.convert.recipe
    if not recipe:
        raise UsageError("which recipe?", hint="for example: cxrprep convert ROOT --recipe square-224")
    return recipe
