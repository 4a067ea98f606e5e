"""The rule set: phrase tables and cues read from TOML, merged with a user's own, compiled once.

A rule set has a digest over its files, so that a label table can say exactly which rules made it.
"""

from __future__ import annotations

import difflib
import enum
import functools
import hashlib
import operator
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.toml import TomlText, value_problem
from cxrprep.errors import ConfigError
from cxrprep.labels.nlp.phrase_matcher import Lexicon, expand
from cxrprep.vocabulary import CHEXPERT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OBSERVATIONS = CHEXPERT.names
"""The 14 published names in the order of the CheXpert release."""

NO_FINDING = "No Finding"


class Role(enum.StrEnum):
    """What a phrase says of its observation when no cue stands near."""

    FINDING = "finding"
    APPEARANCE = "appearance"
    STRUCTURE = "structure"
    SIGN = "sign"
    SUSPECT = "suspect"
    IGNORED = "ignored"


class Cue:
    """What a word does to the mentions around it. A word may do several things: "normal" opens a statement too.

    Plain integers: flags of the enum module cost ten times as much in the innermost loops.
    """

    NEGATION: Final = 1 << 0
    NEGATION_AFTER: Final = 1 << 1
    UNCERTAINTY: Final = 1 << 2
    UNCERTAINTY_AFTER: Final = 1 << 3
    DOUBT: Final = 1 << 4
    DOUBT_AFTER: Final = 1 << 5
    STABLE: Final = 1 << 6
    NOT_NEGATION: Final = 1 << 7
    NORMAL: Final = 1 << 8
    ABNORMAL: Final = 1 << 9
    BORDERLINE: Final = 1 << 10
    STOP: Final = 1 << 11
    WITH: Final = 1 << 12
    OPENER: Final = 1 << 13
    VERB: Final = 1 << 14
    COPULA: Final = 1 << 15
    COMMA: Final = 1 << 16
    AND: Final = 1 << 17
    OR: Final = 1 << 18
    VERSUS: Final = 1 << 19
    LIST: Final = 1 << 20
    WEAK: Final = 1 << 21
    FIRM: Final = 1 << 22
    COLON: Final = 1 << 23
    REMARK: Final = 1 << 24
    PERSISTS: Final = 1 << 25
    REMARK_AFTER: Final = 1 << 26
    BOTH: Final = 1 << 27
    CHANGE: Final = 1 << 28
    UNFINISHED: Final = 1 << 29


CUES: Final[dict[str, int]] = {name.lower(): kind for name, kind in vars(Cue).items() if name.isupper()}
"""The kinds of cue by their names in TOML."""


class Hedge(enum.StrEnum):
    """How strongly a hedge speaks for a finding, the firmest first: a policy is a cut of this scale."""

    FIRM = "firm"
    LIKELY = "likely"
    PROBABLE = "probable"
    SUSPICIOUS = "suspicious"
    OPEN = "open"


_SCALE = tuple(Hedge)


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """What one phrase means: ``mentions`` pairs an observation's index with a role; ``cue`` is 0 for a mere mention."""

    mentions: tuple[tuple[int, Role], ...] = ()
    cue: int = 0
    appearance: bool = field(init=False, default=False)
    sign: bool = field(init=False, default=False)
    structure: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Note which roles there are: sentences ask for them far more often than entries are made."""
        roles = {role for _, role in self.mentions}
        object.__setattr__(self, "appearance", Role.APPEARANCE in roles)
        object.__setattr__(self, "sign", Role.SIGN in roles)
        object.__setattr__(self, "structure", bool(roles & {Role.SIGN, Role.STRUCTURE}))

    def joined(self, other: RuleEntry) -> RuleEntry:
        """Both meanings at once."""
        return RuleEntry(tuple(dict.fromkeys((*self.mentions, *other.mentions))), self.cue | other.cue)


@dataclass(frozen=True, slots=True)
class Rules:
    """A compiled rule set. ``observations`` are all names, hidden ones last; ``digest`` is sha256 over its sources.

    ``titles`` are a user's own titles of sections, each with the section that it stands for.
    """

    observations: tuple[str, ...]
    hidden: frozenset[str]
    lexicon: Lexicon[RuleEntry]
    digest: str
    titles: tuple[tuple[str, str], ...] = ()

    @property
    def reported(self) -> tuple[str, ...]:
        """The observations that have a label: the published 14, then those that a user's vocabulary adds."""
        return tuple(name for name in self.observations if name not in self.hidden)


_TABLES = ("observations.toml", "cues.toml")
_ROLES = {
    "findings": Role.FINDING,
    "appearances": Role.APPEARANCE,
    "structures": Role.STRUCTURE,
    "signs": Role.SIGN,
    "suspects": Role.SUSPECT,
    "ignored": Role.IGNORED,
}


def shipped_sources() -> list[tuple[str, str]]:
    """``(name, text)`` of the phrase tables in the package."""
    folder = resources.files("cxrprep.labels.nlp") / "data"
    return [(name, (folder / name).read_text("utf-8")) for name in _TABLES]


def build_rules(sources: Sequence[tuple[str, str]], cut: Hedge = Hedge.PROBABLE) -> Rules:
    """The rule set that TOML ``sources``, pairs of name and text, describe together. Raises ``ConfigError``.

    Hedges as strong as ``cut``, or stronger, leave a finding positive.
    """
    return _build(tuple(sources), cut)


# 0.4 s a time: a labeling run asks for the same rules from its plan, its batches and its table of sources.
@functools.lru_cache(maxsize=4)
def _build(sources: tuple[tuple[str, str], ...], cut: Hedge) -> Rules:
    digest = hashlib.sha256()
    observations: dict[str, None] = dict.fromkeys(OBSERVATIONS)
    hidden: set[str] = set()
    classes: dict[str, list[str]] = {}
    spelling: list[str] = []
    titles: dict[str, str] = {}
    tables = [(name, parse_source(name, text)) for name, text in sources]
    for (_, table), (_, text) in zip(tables, sources, strict=True):
        digest.update(text.encode())
        for label, members in table.get("classes", {}).items():
            classes.setdefault(label, []).extend(members)
        spelling += table.get("spelling", [])
        titles |= {" ".join(t.lower().split()): part for part, each in table.get("sections", {}).items() for t in each}
        for block in table.get("observation", []):
            observations.setdefault(block["name"])
            if block.get("hidden"):
                hidden.add(block["name"])
    names = tuple(sorted(observations, key=lambda label: label in hidden))
    lexicon: Lexicon[RuleEntry] = Lexicon(classes, spelling)
    entries: dict[tuple[str, ...], RuleEntry] = {}
    # Mentions and cues apart: a word may be both, and is taken back as the one or the other.
    mentions: dict[tuple[str, ...], RuleEntry] = {}
    cues: dict[tuple[str, ...], RuleEntry] = {}
    for name, table in tables:
        for block in table.get("observation", []):
            _add_observation(mentions, block, names.index(block["name"]), name)
        for block in table.get("cue", []):
            _add_cue(cues, block, cut, name)
    entries = mentions | {form: mentions[form].joined(cue) if form in mentions else cue for form, cue in cues.items()}
    entries = {form: entry for form, entry in entries.items() if entry.mentions or entry.cue}
    prefixes = [form[0][:-1] for form in entries if len(form) == 1 and form[0].endswith("*")]
    for form, entry in entries.items():
        meaning = entry
        if len(form) == 1:
            # A word that is listed itself also means what a prefix of it means: "enlarged" and "enlarge*".
            for prefix in prefixes:
                if form[0].startswith(prefix) and form[0] != prefix + "*":
                    meaning = meaning.joined(entries[(prefix + "*",)])
        lexicon.node(form).value = _without_ignored(meaning)
    return Rules(names, frozenset(hidden), lexicon, f"sha256:{digest.hexdigest()}", tuple(sorted(titles.items())))


def _add_observation(entries: dict[tuple[str, ...], RuleEntry], block: dict[str, Any], index: int, name: str) -> None:
    """Take a block's phrases in, after those of its observation that it replaces or removes are gone."""
    if block.get("replace") or block.get("remove"):
        ours = [form for form, entry in entries.items() if any(each == index for each, _ in entry.mentions)]
        for form in ours if block.get("replace") else _forms_to_remove(block, set(ours), block["name"], name):
            entries[form] = RuleEntry(tuple(pair for pair in entries[form].mentions if pair[0] != index))
    for role, meaning in _ROLES.items():
        _collect(entries, block.get(role, []), RuleEntry(((index, meaning),)), name)


def _add_cue(entries: dict[tuple[str, ...], RuleEntry], block: dict[str, Any], cut: Hedge, name: str) -> None:
    """Take a block's cues in: with ``replace`` they mean nothing else any more."""
    phrases = block.get("phrases", [])
    gone = _forms_to_remove(block, set(entries), "a cue", name) if block.get("remove") else []
    for form in [*gone, *(_forms(phrases, name) if block.get("replace") else ())]:
        entries.pop(form, None)
    if phrases:
        # A firm hedge opens a statement of its own, and doubts nothing.
        firm = _strength(block) <= _SCALE.index(cut)
        _collect(entries, phrases, RuleEntry((), Cue.OPENER | Cue.FIRM if firm else _cue(block)), name)


def _forms_to_remove(block: dict[str, Any], known: set[tuple[str, ...]], what: str, name: str) -> list[tuple[str, ...]]:
    """The wordings under ``remove``. Raises ``ConfigError`` for one that is not there to be removed."""
    forms = _forms(block.get("remove", []), name)
    for form in forms:
        if form not in known:
            raise ConfigError(
                f"{name}: {' '.join(form)!r} is not a phrase of {what}, so it cannot be removed",
                hint=f"near to it: {', '.join(_near(form, known)) or 'none'}",
            )
    return forms


def _near(form: tuple[str, ...], known: set[tuple[str, ...]]) -> list[str]:
    phrases = [" ".join(each) for each in known]
    return difflib.get_close_matches(" ".join(form), phrases, n=5, cutoff=0.5)


def _forms(phrases: Iterable[str], name: str) -> list[tuple[str, ...]]:
    try:
        return [form for phrase in phrases for form in expand(phrase)]
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", hint=error.hint) from error


def _collect(entries: dict[tuple[str, ...], RuleEntry], phrases: Iterable[str], entry: RuleEntry, name: str) -> None:
    for form in _forms(phrases, name):
        entries[form] = entries[form].joined(entry) if form in entries else entry


def _without_ignored(entry: RuleEntry) -> RuleEntry:
    ignored = {index for index, role in entry.mentions if role is Role.IGNORED}
    if not ignored:
        return entry
    kept = tuple(pair for pair in entry.mentions if pair[0] not in ignored)
    return RuleEntry(kept, entry.cue)


_TOP = {
    "classes": "table", "observation": "list[table]", "cue": "list[table]", "examples": "list[str]",
    "spelling": "list[str]", "sections": "table",
}  # fmt: skip
_BLOCKS = {
    "observation": {
        "name": "str", "hidden": "bool", "examples": "list[str]", "remove": "list[str]", "replace": "bool",
        **dict.fromkeys(_ROLES, "list[str]"),
    },
    "cue": {
        "kind": "str | list[str]", "phrases": "list[str]", "strength": "str", "remove": "list[str]", "replace": "bool",
    },
}  # fmt: skip


def parse_source(name: str, text: str) -> dict[str, Any]:
    """The table that ``text`` is, with every key known and of its type. Raises ``ConfigError`` with file and lines."""
    file = TomlText(text, name)
    table = file.check_table("", file.data, _TOP)
    for key in ("classes", "sections"):
        lists = table.get(key, {})
        file.check_table(key, lists, dict.fromkeys(lists, "list[str]"))
    for kind, keys in _BLOCKS.items():
        for number, block in enumerate(table.get(kind, ()), 1):
            place = f"{kind}.{number}"
            right = file.check_table(place, block, keys, choices={"strength": _SCALE})
            if kind == "observation" and not str(block.get("name", "")).strip():
                file.mistake(place, "an [[observation]] has no name", 'add name = "..."')
            if kind == "cue":
                _check_cue(block, right, place, file)
    file.raise_mistakes()
    return file.data


def _check_cue(block: dict[str, Any], right: dict[str, Any], place: str, file: TomlText) -> None:
    if "phrases" not in block and "remove" not in block:
        file.mistake(place, "a [[cue]] has no phrases", 'add phrases = ["..."], or remove = ["..."]')
    for word in _kinds(right) if "phrases" in block and ("kind" in right) == ("kind" in block) else ():
        if problem := value_problem(word, choices=tuple(CUES)):
            file.wrong(f"{place}.kind", *problem)


def _kinds(block: dict[str, Any]) -> list[str]:
    kind = block.get("kind", "")
    return [kind] if isinstance(kind, str) else kind


def _strength(block: dict[str, Any]) -> int:
    """The place of a cue on the scale of hedges, 0 for the firmest."""
    word = block.get("strength", Hedge.OPEN if _is_uncertain(_cue(block)) else None)
    return len(_SCALE) if word is None else _SCALE.index(word)


def _is_uncertain(cue: int) -> bool:
    """Whether a cue only makes uncertain: what also denies, stops or doubts is no hedge."""
    return not cue & ~(Cue.UNCERTAINTY | Cue.UNCERTAINTY_AFTER | Cue.WEAK)


def _cue(block: dict[str, Any]) -> int:
    return functools.reduce(operator.or_, (CUES[word] for word in _kinds(block)))
