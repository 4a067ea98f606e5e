"""Rules first, a model where they leave something open: cheap for most reports, and careful with the others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cxrprep.labels.labelers.contract import LabelerOptions, Labels, ReportLabeler, digest_of, labels_as_given
from cxrprep.labels.nlp.labeler import Labeler
from cxrprep.labels.nlp.policies import policy_named, policy_sources
from cxrprep.labels.nlp.results import ReportLabels, ReportStatus
from cxrprep.labels.nlp.ruleset import build_rules, shipped_sources
from cxrprep.labels.nlp.sentences import split_sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_LONG_WORD: Final = re.compile(r"[a-z]{5,}")
_FEW: Final = 3


class RulesThenModel:
    """The rules label; the model is asked where they say uncertain, contradict themselves, or leave words unread.

    What the rules decided stays: the model settles the observations that they left open, and names others only where a
    sentence was left unread.
    """

    def __init__(self, options: LabelerOptions, model: ReportLabeler) -> None:
        """Over a ``model`` that is made ready. Raises ``ConfigError`` for a wrong vocabulary."""
        policy = policy_named(options.policy)
        rules = build_rules([*(options.sources or shipped_sources()), *policy_sources(policy)], policy.hedges)
        self._rules, self._model = Labeler(rules, policy), model
        self.name = "both" if model.name == "openai" else f"both-{model.name}"
        self.version = model.version
        self.digest = digest_of(rules.digest, policy.name, model.name, model.version, model.digest)
        self.observations = model.observations
        self.at_once = model.at_once
        self.options = replace(model.options, sources=options.sources, policy=options.policy)

    def labels(self, texts: Sequence[str]) -> list[Labels | None]:
        """See ``ReportLabeler``. Raises what the model raises."""
        found = dict(self.as_answered(texts))
        return [found[place] for place in range(len(texts))]

    def as_answered(self, texts: Sequence[str]) -> Iterator[tuple[int, Labels | None]]:
        """The place and the labels of each text, first of those that the rules settle. Raises what the model raises."""
        asked: list[tuple[int, ReportLabels, set[str], bool]] = []
        for place, text in enumerate(texts):
            found = self._rules.label_text(text)
            gap, doubts = self._unread(text, found), _open(found)
            if gap or doubts:
                asked.append((place, found, doubts, gap))
            else:
                yield place, {name: found.labels.get(name) for name in self.observations}
        for number, answer in labels_as_given(self._model, [texts[place] for place, *_ in asked]):
            place, found, doubts, gap = asked[number]
            yield place, self._joined(found, answer, doubts, gap=gap)

    def _joined(self, rules: ReportLabels, model: object, doubts: set[str], *, gap: bool) -> Labels | None:
        if not isinstance(model, dict):
            return None
        taken = {
            name: model[name] if name in doubts or (gap and rules.labels.get(name) is None) else rules.labels.get(name)
            for name in self.observations
        }
        abnormal = any(v in (1, -1) for name, v in taken.items() if name not in ("No Finding", "Support Devices"))
        if abnormal and taken.get("No Finding") == 1:
            taken["No Finding"] = None
        return taken

    def _unread(self, text: str, found: ReportLabels) -> bool:
        """Whether a sentence of long words has few that the rules know, or the text is none that they can read."""
        if found.status is not ReportStatus.LABELED:
            return True
        symbols = self._rules.rules.lexicon.symbols
        for sentence in split_sentences(text):
            words = _LONG_WORD.findall(sentence.text)
            if len(words) >= _FEW and sum(not symbols(word) for word in words) * 2 > len(words):
                return True
        return False


def _open(found: ReportLabels) -> set[str]:
    """The observations that are uncertain, or of which mentions say different things."""
    labels_of_model: dict[str, set[int]] = {}
    for mention in found.mentions:
        labels_of_model.setdefault(mention.observation, set()).add(int(mention.status))
    uncertain = {name for name, label in found.labels.items() if label == -1}
    return uncertain | {name for name, statuses in labels_of_model.items() if len(statuses) > 1}
