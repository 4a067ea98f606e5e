"""Labels of one radiology report, with the evidence for each."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cxrprep.labels.nlp.labeler import Labeler
from cxrprep.labels.nlp.policies import MentionPolicy, policy_named, policy_sources
from cxrprep.labels.nlp.ruleset import Rules, build_rules
from cxrprep.labels.nlp.sections import check_sections

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.nlp.results import ReportLabels


@functools.lru_cache(maxsize=8)
def _labeler(rules: Path | None, written: tuple[int, int] | None, policy: MentionPolicy) -> Labeler:
    from cxrprep.labels.nlp.custom_rules import read_vocabulary

    del written  # a file that was edited is another key
    return Labeler(
        None if rules is None else build_rules([*read_vocabulary(rules), *policy_sources(policy)], policy.hedges),
        policy,
    )


def _written(rules: Path | None) -> tuple[int, int] | None:
    try:
        state = None if rules is None else rules.stat()
    except OSError:
        # Reading it will tell.
        return None
    return state and (state.st_mtime_ns, state.st_size)


def label_report(
    text: str,
    *,
    rules: Path | Rules | None = None,
    policy: MentionPolicy | str = "default",
    study: str = "",
    sections: str = "",
) -> ReportLabels:
    """The labels of one report: ``.labels`` maps the 14 published names to 1, 0, -1 or ``None``; ``.mentions`` say why.

    Args:
        text: a whole report, of which the impression is read (else the findings, else the last paragraph), or a text
            without headings, which is read whole.
        rules: a vocabulary beside the shipped one: a TOML file, or a rule set built from one.
        policy: how mentions add up: a :class:`MentionPolicy` or its name.
        study: the study's id, for the result.
        sections: which parts are read, in order of preference ("findings+impression,report").

    Returns:
        the labels, their mentions and the status of the text, whatever it is: that of an empty report is ``empty``.

    Raises:
        UsageError: an unknown policy or section.
        ConfigError: a vocabulary that is wrong.
    """
    chosen = policy_named(policy, sections=sections) if isinstance(policy, str) else policy
    labeler = Labeler(rules, chosen) if isinstance(rules, Rules) else _labeler(rules, _written(rules), chosen)
    check_sections(labeler.policy.sections, labeler.rules.titles)
    return labeler.label(text, study=study)
