"""Policies: how mentions become labels, and which part of a report is read; each a name for documented decisions.

The named ones are data (``data/policies.toml``), with the evidence for each beside it.
"""

from __future__ import annotations

import enum
import functools
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import UsageError
from cxrprep.labels.nlp.mentions import Found, MentionStatus, Rule
from cxrprep.labels.nlp.ruleset import Hedge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Precedence(enum.StrEnum):
    """Which mention wins when a report says several things of one observation."""

    POSITIVE_WINS = "positive-wins"
    """Positive over uncertain over negative, as the CheXpert paper describes it."""
    CHEXPERT_LABELER = "chexpert-labeler"
    """As its released program does: a negative and an uncertain mention give uncertain, even beside a positive one."""


class Sections(enum.StrEnum):
    """Which part of a report is read."""

    CONCLUSION = "conclusion"
    """The impression; without one the findings; without them the last paragraph."""
    FINDINGS_AND_IMPRESSION = "findings-and-impression"
    """Both, joined; without either as ``conclusion``."""
    EVERYTHING = "everything"
    """The whole text, history and comparison included."""


_ORDERS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    Sections.CONCLUSION: (("impression",), ("findings",), ("last_paragraph",), ("comparison",)),
    Sections.FINDINGS_AND_IMPRESSION: (
        ("findings", "impression"), ("impression",), ("findings",), ("last_paragraph",), ("comparison",)
    ),
    Sections.EVERYTHING: (),
}  # fmt: skip


# measured: 10 us of CPU for sections that a person names, and 0.2 us; a report takes some 120.
@functools.cache
def section_order(sections: str) -> tuple[tuple[str, ...], ...]:
    """The sections that are read, in order of preference: the first group is taken of which a report has one.

    Args:
        sections: one of ``Sections``, or names in that order, parted by commas: "impression,findings+technique"; those
            that a plus joins are read together. ``report`` is a text without titles, read whole.

    Returns:
        Groups of names; none for the whole text.

    Raises:
        UsageError: there is no name.
    """
    if sections in _ORDERS:
        return _ORDERS[sections]
    groups = (tuple(" ".join(name.lower().split()) for name in group.split("+")) for group in sections.split(","))
    order = tuple(tuple(name for name in group if name) for group in groups)
    if not order or not all(order):
        raise UsageError(
            f"{sections!r} names no sections", hint="name them in order of preference: --sections impression,findings"
        )
    return tuple(tuple("last_paragraph" if name == "last paragraph" else name for name in group) for group in order)


@dataclass(frozen=True, slots=True)
class MentionPolicy:
    """How mentions become labels. Every field is one documented decision; the name goes into the table's metadata.

    ``heart_failure``: "heart failure" and "CHF", unless denied, make Cardiomegaly uncertain. ``empty_is_normal``: a
    report without a word is No Finding, as the released CheXpert labeler has it. ``cardiomegaly_enlarges``: a positive
    Cardiomegaly makes Enlarged Cardiomediastinum positive, which no published labeler does. ``hedges`` is the weakest
    hedge that leaves a finding positive. ``sections`` are those that are read, as ``section_order`` understands them.
    ``switches`` are pairs of a switch of ``data/policies.toml`` and its value, ``phrases`` a file there with phrases to
    add or take out.
    """

    name: str = "default"
    precedence: Precedence = Precedence.POSITIVE_WINS
    sections: str = Sections.CONCLUSION
    heart_failure: bool = True
    empty_is_normal: bool = False
    cardiomegaly_enlarges: bool = False
    hedges: Hedge = Hedge.PROBABLE
    switches: tuple[tuple[str, str], ...] = ()
    phrases: str = ""


@functools.cache
def _table() -> dict[str, Any]:
    text = (resources.files("cxrprep.labels.nlp") / "data" / "policies.toml").read_text("utf-8")
    return tomllib.loads(text)


def _policies() -> dict[str, MentionPolicy]:
    policies = {}
    for name, about in _table()["policy"].items():
        given = {key: value for key, value in about.items() if key != "switches"}
        if "precedence" in given:
            given["precedence"] = Precedence(given["precedence"])
        if "hedges" in given:
            given["hedges"] = Hedge(given["hedges"])
        policies[name] = MentionPolicy(name, switches=tuple(sorted(about.get("switches", {}).items())), **given)
    return policies


@dataclass(frozen=True, slots=True)
class Switch:
    """What becomes of the mentions that a rule decided, by a cue with one of ``words`` where there are any.

    ``observations`` are those that it is about, all where there are none; ``status`` is ``None`` for no mention at all.
    """

    rules: frozenset[Rule]
    words: tuple[str, ...]
    observations: frozenset[str]
    status: MentionStatus | None

    def meets(self, found: Found, words: Sequence[str], name: str) -> bool:
        """Whether it is about this mention of the observation ``name``."""
        if found.rule not in self.rules or (self.observations and name not in self.observations):
            return False
        cue = words[found.cue_first : found.cue_last] if found.cue_first >= 0 else ()
        return not self.words or any(word.startswith(self.words) for word in cue)


_STATUSES: Final[Mapping[str, MentionStatus | None]] = {
    "positive": MentionStatus.POSITIVE, "negative": MentionStatus.NEGATIVE,
    "uncertain": MentionStatus.UNCERTAIN, "blank": None,
}  # fmt: skip


def switches_of(policy: MentionPolicy) -> tuple[Switch, ...]:
    """The switches that a policy sets otherwise than the default."""
    found = []
    for name, value in policy.switches:
        about = _table()["switch"][name]
        rules = frozenset(Rule(rule) for rule in about["rules"])
        named = frozenset(about.get("observations", ()))
        found.append(Switch(rules, tuple(about.get("words", ())), named, _STATUSES[value]))
    return tuple(found)


def switched(
    found: Sequence[Found], words: Sequence[str], names: Sequence[str], switches: Sequence[Switch]
) -> tuple[Found, ...]:
    """The mentions of a sentence as a policy's switches have them; the first that is about a mention decides.

    Args:
        found: mentions of one sentence.
        words: words of the sentence.
        names: names of the observations, by their index.
        switches: of the policy, in order.

    Returns:
        the mentions that stay, with the status that the switches give them.
    """
    kept = []
    for mention in found:
        switch = next((each for each in switches if each.meets(mention, words, names[mention.observation])), None)
        if switch is None:
            kept.append(mention)
        elif switch.status is not None:
            kept.append(mention._replace(status=switch.status))
    return tuple(kept)


def policy_sources(policy: MentionPolicy) -> list[tuple[str, str]]:
    """Name and text of the phrases that a policy adds or takes away, where it does."""
    if not policy.phrases:
        return []
    return [(policy.phrases, (resources.files("cxrprep.labels.nlp") / "data" / policy.phrases).read_text("utf-8"))]


def policy_named(name: str, *, sections: str = "") -> MentionPolicy:
    """The policy of that name, with the ``sections`` that are to be read where they are named.

    Raises ``UsageError`` for an unknown policy, and for sections that cannot be read.
    """
    try:
        policy = POLICIES[name]
    except KeyError:
        raise UsageError(f"no label policy is called {name!r}", hint=f"known: {', '.join(POLICIES)}") from None
    if not sections:
        return policy
    section_order(sections)
    return replace(policy, sections=sections)


POLICIES: Final[Mapping[str, MentionPolicy]] = _policies()
