"""Labels of a report, from its mentions under a named policy; a report in another language than English has none.

Other languages share its medical words, and not its denials.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Final

from cxrprep.labels.nlp.characters import plain
from cxrprep.labels.nlp.mentions import MentionStatus
from cxrprep.labels.nlp.negation import read_sentence
from cxrprep.labels.nlp.phrase_matcher import WORDS
from cxrprep.labels.nlp.policies import MentionPolicy, Precedence, Sections, policy_sources, switched, switches_of
from cxrprep.labels.nlp.results import Mention, ReportLabels, ReportStatus
from cxrprep.labels.nlp.ruleset import Rules, build_rules, shipped_sources
from cxrprep.labels.nlp.sections import Section, chosen_sections
from cxrprep.labels.nlp.sentences import Sentence, normalised, split_sentences
from cxrprep.labels.nlp.tokens import is_word, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cxrprep.labels.nlp.mentions import Found
    from cxrprep.labels.nlp.ruleset import Rules


CARDIOMEGALY: Final = "Cardiomegaly"
ENLARGED: Final = "Enlarged Cardiomediastinum"
NO_FINDING: Final = "No Finding"
SUPPORT_DEVICES: Final = "Support Devices"
HEART_FAILURE: Final = "Heart Failure"

_POSITIVE, _NEGATIVE, _UNCERTAIN = 1, 2, 4
_BITS = {MentionStatus.POSITIVE: _POSITIVE, MentionStatus.NEGATIVE: _NEGATIVE, MentionStatus.UNCERTAIN: _UNCERTAIN}


def _label(bits: int, precedence: Precedence) -> int | None:
    if not bits:
        return None
    if precedence is Precedence.CHEXPERT_LABELER and bits & _NEGATIVE and bits & _UNCERTAIN:
        return -1
    return 1 if bits & _POSITIVE else -1 if bits & _UNCERTAIN else 0


def mask_of(mentions: Iterable[tuple[int, MentionStatus]]) -> int:
    """Mentions, as pairs of observation index and status, in one integer: three bits an observation."""
    mask = 0
    for observation, status in mentions:
        mask |= _BITS[status] << (3 * observation)
    return mask


class Aggregator:
    """Turns masks into labels: a sentence has a mask, a report the union of its sentences' masks."""

    def __init__(self, rules: Rules, policy: MentionPolicy) -> None:
        self._names = rules.observations
        self.policy = policy
        self._labels = tuple(_label(bits, policy.precedence) for bits in range(8))
        self._places = [(name, 3 * self._names.index(name)) for name in rules.reported]
        said = _POSITIVE | _UNCERTAIN
        self._abnormal = sum(
            said << (3 * index) for index, name in enumerate(self._names) if name not in (SUPPORT_DEVICES, NO_FINDING)
        )
        self._failure = said << self._place(HEART_FAILURE) if HEART_FAILURE in self._names else 0
        self._cardiomegaly = self._place(CARDIOMEGALY)
        self._enlarged = self._place(ENLARGED)
        self._no_finding = _POSITIVE << self._place(NO_FINDING)

    def _place(self, name: str) -> int:
        return 3 * self._names.index(name)

    def labels(self, mask: int) -> dict[str, int | None]:
        """The labels of a report whose mentions are in ``mask``, by published name."""
        if not mask & self._abnormal:
            mask |= self._no_finding
        if self.policy.heart_failure and mask & self._failure:
            mask |= _UNCERTAIN << self._cardiomegaly
        if self.policy.cardiomegaly_enlarges and (mask >> self._cardiomegaly) & _POSITIVE:
            mask |= _POSITIVE << self._enlarged
        table = self._labels
        return {name: table[(mask >> place) & 7] for name, place in self._places}


_REMEMBERED_SENTENCES = 50_000
_REMEMBERED_LENGTH = 400
# Characters, and the share of words that must be known for a text to be a report in English.
_SAMPLE = 2000
_ENGLISH = 0.34

# Words that a text without any function word must have before its language is judged: "Bilat pl effs." is English.
_TELLING = 4


class Labeler:
    """Labels reports under one rule set and one policy, remembering the sentences that it has read.

    Radiology repeats itself: most sentences of a collection are among a few thousand. The memory is bounded.
    """

    def __init__(self, rules: Rules | None = None, policy: MentionPolicy | None = None) -> None:
        self.policy = policy or MentionPolicy()
        self.rules = rules or _shipped(self.policy)
        self._switches = switches_of(self.policy)
        self._aggregator = Aggregator(self.rules, self.policy)
        self._memory: dict[str, tuple[int, tuple[Found, ...]]] = {}

    def label_text(self, text: str, *, evidence: bool = True) -> ReportLabels:
        """The labels of ``text``, read whole: it is one section already."""
        return self.label(text, evidence=evidence, sections=Sections.EVERYTHING)

    def label(
        self, text: str, *, study: str = "", mimic: bool | None = None, evidence: bool = True, sections: str = ""
    ) -> ReportLabels:
        """The labels of ``text``; see :func:`label_report`. Without ``evidence`` the mentions are left out.

        Args:
            text: the report.
            study: a MIMIC-CXR study ("s50414267"), of which the authors may have named the part by hand.
            mimic: tells that the text is a MIMIC-CXR file; ``None`` looks.
            evidence: also find where each mention stands.
            sections: those that are read, where not those of the policy.

        Returns:
            Labels, status, and the mentions behind them.
        """
        if not text.strip():
            return self._without_labels(ReportStatus.EMPTY)
        other = foreign(text)
        if other:
            return self._without_labels(ReportStatus.UNREADABLE)
        given = text
        text, places = plain(text)
        if other is None and len(text.split()) >= _TELLING and not self._english(text):
            # Medical words alone are shared by all languages; their denials are not.
            return self._without_labels(ReportStatus.UNREADABLE)
        chosen = chosen_sections(
            text, sections or self.policy.sections, study=study, mimic=mimic, own=self.rules.titles
        )
        found = self._label(text, chosen, evidence=evidence)
        return found if places is None else _moved(found, places, given)

    def chosen_text(self, text: str, *, study: str = "", mimic: bool | None = None) -> tuple[ReportStatus, str, str]:
        """What is read of a report by a labeler of another kind: the status, the text and the names of its sections."""
        text, _ = plain(text)
        chosen = chosen_sections(text, self.policy.sections, study=study, mimic=mimic, own=self.rules.titles)
        bodies = [body for section in chosen if (body := text[section.start : section.end].strip())]
        if not bodies:
            return (ReportStatus.NO_SECTION if text.strip() else ReportStatus.EMPTY), "", ""
        name = "+".join(dict.fromkeys(section.name for section in chosen))
        return ReportStatus.LABELED, "\n\n".join(bodies), name

    def _label(self, text: str, sections: list[Section], *, evidence: bool) -> ReportLabels:
        sections = [section for section in sections if text[section.start : section.end].strip()]
        if not sections:
            return self._without_labels(ReportStatus.NO_SECTION)
        mask = 0
        sentences = 0
        mentions: list[Mention] = []
        for section in sections:
            body = text[section.start : section.end]
            for number, sentence in enumerate(split_sentences(body)):
                sentences += 1
                bits, found = self._read(sentence.text)
                mask |= bits
                if evidence and found:
                    mentions += self._located(body, section, number, sentence, found)
        if not sentences:
            foreign = any(char.isalpha() for char in text)
            return self._without_labels(ReportStatus.UNREADABLE if foreign else ReportStatus.EMPTY)
        if not mask and not self._english(text):
            return self._without_labels(ReportStatus.UNREADABLE)
        name = "+".join(dict.fromkeys(section.name for section in sections))
        labels = self._aggregator.labels(mask)
        return ReportLabels(labels, tuple(mentions), ReportStatus.LABELED, name, sections[0].start, sections[-1].end)

    def _english(self, text: str) -> bool:
        """Whether a text without a single mention has English words at all; another language is not "No Finding"."""
        words = words_of(normalised(text[:_SAMPLE]))
        letters = [word for word in words if word[0].isalpha()]
        known = sum(1 for word in letters if self.rules.lexicon.symbols(word))
        return known >= _ENGLISH * len(letters)

    def _without_labels(self, status: ReportStatus) -> ReportLabels:
        labels: dict[str, int | None] = dict.fromkeys(self.rules.reported)
        if self.policy.empty_is_normal:
            labels = self._aggregator.labels(0)
        return ReportLabels(labels, (), status, "")

    def _read(self, sentence: str) -> tuple[int, tuple[Found, ...]]:
        known = self._memory.get(sentence)
        if known is None:
            found = read_sentence(sentence, self.rules)
            if self._switches:
                found = switched(found, words_of(sentence), self.rules.observations, self._switches)
            known = (mask_of((mention.observation, mention.status) for mention in found), found)
            if len(self._memory) >= _REMEMBERED_SENTENCES:
                self._memory.clear()
            if len(sentence) <= _REMEMBERED_LENGTH:
                self._memory[sentence] = known
        return known

    def _located(
        self, body: str, section: Section, number: int, sentence: Sentence, found: tuple[Found, ...]
    ) -> list[Mention]:
        flat = normalised(body[sentence.start : sentence.end])
        places = [word.span() for word in WORDS.finditer(flat) if is_word(word[0])]
        offset = section.start + sentence.start
        located: list[Mention] = []
        for mention in found:
            name = self.rules.observations[mention.observation]
            if name in self.rules.hidden:
                continue
            start, end = places[mention.first][0], places[mention.last - 1][1]
            cue_start = cue_end = -1
            cue = ""
            if mention.cue_first >= 0:
                cue_start, cue_end = places[mention.cue_first][0], places[mention.cue_last - 1][1]
                cue = body[sentence.start + cue_start : sentence.start + cue_end]
                cue_start, cue_end = cue_start + offset, cue_end + offset
            phrase = body[sentence.start + start : sentence.start + end]
            located.append(
                Mention(
                    name, mention.status, section.name, number, start + offset, end + offset, phrase,
                    mention.rule, cue, cue_start, cue_end,
                )
            )  # fmt: skip
        return located


@functools.cache
def _shipped(policy: MentionPolicy) -> Rules:
    return build_rules([*shipped_sources(), *policy_sources(policy)], policy.hedges)


def _moved(found: ReportLabels, places: Sequence[int], given: str) -> ReportLabels:
    """The same with its places in the text as it was given, before its characters were made plain, and its words."""

    def at(place: int) -> int:
        return places[place] if place >= 0 else place

    def after(place: int) -> int:
        # What was left out behind a word is no part of it.
        return places[place - 1] + 1 if place > 0 else place

    mentions = []
    for m in found.mentions:
        start, end, cue_start, cue_end = at(m.start), after(m.end), at(m.cue_start), after(m.cue_end)
        cue = given[cue_start:cue_end] if m.cue else ""
        phrase = given[start:end]
        mentions.append(replace(m, start=start, end=end, phrase=phrase, cue=cue, cue_start=cue_start, cue_end=cue_end))
    return replace(found, mentions=tuple(mentions), start=at(found.start), end=after(found.end))


_LETTERS: Final = re.compile(r"[^\W\d_]+'?")
_LANGUAGE_SAMPLE: Final = 4000


@functools.cache
def _words() -> dict[str, frozenset[str]]:
    text = (resources.files("cxrprep.labels.nlp") / "data" / "languages.toml").read_text("utf-8")
    return {name: frozenset(words) for name, words in tomllib.loads(text).items()}


def foreign(text: str) -> bool | None:
    """Whether ``text`` is in another language: function words of one, and more of them than of English.

    ``None`` for a text that has no function word of any.
    """
    sample = text[:_LANGUAGE_SAMPLE].lower()
    words = _words()
    # One look settles it for nearly all reports in English.
    parts = sample.split()
    if words["strong"].isdisjoint(parts):
        return None if words["english"].isdisjoint(parts) else False
    found = _LETTERS.findall(sample.replace("\u2019", "'"))
    theirs = words["strong"] | words["weak"]
    return sum(word in theirs for word in found) > sum(word in words["english"] for word in found)
