"""Checked TOML: the line of each key, and every unknown key, wrong type and value out of range of a file at once.

tomllib keeps no positions, so they are found again in the text. Job files, recipes, vocabularies and datasets are
checked here.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ConfigError, did_you_mean
from cxrprep.storage.small_files import parse_toml, toml_value

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME: Final = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_TABLE: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_SHOWN: Final = 200
_ASSIGNMENT: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_PART: Final = re.compile(_NAME)
_YAML: Final = re.compile(r"\s*[\w-]+\s*:(?:\s|$)")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "table": (dict,),
}
_WORDS: Final = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "table": "a table", "list[str]": 'a list of text, ["...", "..."]', "list[float]": "a list of numbers",
    "list[table]": "a list of tables",
    "tuple[str, ...]": "a list of text", "dict[str, str]": "a table of text",
}  # fmt: skip
_QUOTES: Final = "\"'\u201c\u201d\u201e\u2018\u2019"
_ITEM: Final = re.compile(rf"[{_QUOTES}][^{_QUOTES}]*[{_QUOTES}]|[^\s,]+")
_NUMBER: Final = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a file: the line (0: no one line), what it is, and what to do about it."""

    line: int
    message: str
    hint: str = ""


class MistakesError(ConfigError):
    """Raise for a file with mistakes, all of them at once. Do not raise for one that cannot be read at all."""

    def __init__(self, where: str, mistakes: Iterable[Mistake]) -> None:
        """Sort the mistakes by line; one alone is said in one line."""
        self.where = where
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        if len(self.mistakes) == 1:
            [only] = self.mistakes
            super().__init__(f"{_place(where, only.line)}: {only.message}", hint=only.hint)
            return
        lines = [_in_a_line(mistake) for mistake in self.mistakes]
        super().__init__("\n".join((f"{where}: {len(self.mistakes)} mistakes", *lines)))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the mistakes when the error crosses a process boundary."""
        return (type(self), (self.where, self.mistakes))


@dataclass
class TomlText:
    """A TOML text: its values, the line of each dotted name, and the mistakes that were found in it.

    ``where`` names the text in messages. The tables of an array count from 1: ``step.2.do``.
    """

    text: str
    where: str
    data: dict[str, Any] = field(init=False)
    mistakes: list[Mistake] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Parse the text. Raises ``ConfigError`` with the line where it is no TOML."""
        try:
            self.data = parse_toml(self.text)
        except tomllib.TOMLDecodeError as error:
            raise self._syntax_error(str(error)) from error

    @cached_property
    def _lines(self) -> dict[str, int]:
        # Found when something is wrong, or asked for: a catalog of datasets has a thousand keys.
        return dict(_positions(self.text))

    def line(self, name: str) -> int:
        """The line of a dotted name, or of what holds it; 0 when the text has neither."""
        while name:
            if name in self._lines:
                return self._lines[name]
            name = name.rpartition(".")[0]
        return 0

    def at(self, name: str) -> str:
        """``FILE, line N`` of a dotted name."""
        return _place(self.where, self.line(name))

    def mistake(self, name: str, message: str, hint: str = "") -> None:
        """Keep a mistake at a dotted name for ``raise_mistakes``."""
        self.mistakes.append(Mistake(self.line(name), message, hint))

    def unknown(self, name: str, known: Iterable[str]) -> None:
        """Keep the mistake that the last part of a dotted name is none of ``known``."""
        self.mistake(name, f"unknown key {_NUMBER.sub('', name)!r}", unknown_key(name.rpartition(".")[2], known))

    def wrong(self, name: str, problem: str, hint: str = "") -> None:
        """Keep the mistake of the value at a dotted name."""
        self.mistake(name, f"{_NUMBER.sub('', name)}: {problem}", hint)

    def check_table(
        self,
        name: str,
        values: Mapping[str, Any],
        kinds: Mapping[str, str],
        *,
        choices: Mapping[str, Iterable[Any]] | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> dict[str, Any]:
        """Keep every mistake of one table's keys and values.

        Args:
            name: The dotted name of the table; empty for the file.
            values: The table.
            kinds: What each key may hold, as ``type_problem`` takes it.
            choices: What the value of a key must be one of.
            ranges: The smallest and the largest number of a key.

        Returns:
            The values that are right.
        """
        right = {}
        for key, value in values.items():
            place = f"{name}.{key}" if name else key
            if key not in kinds:
                self.unknown(place, kinds)
                continue
            wrong = type_problem(value, kinds[key])
            low, high = (ranges or {}).get(key, (None, None))
            allowed = (choices or {}).get(key, ())
            found = (wrong, "") if wrong else value_problem(value, choices=allowed, low=low, high=high)
            if found is None:
                right[key] = value
            else:
                self.wrong(place, *found)
        return right

    def raise_mistakes(self) -> None:
        """Raise ``MistakesError`` when there are mistakes."""
        if self.mistakes:
            raise MistakesError(self.where, self.mistakes)

    def _syntax_error(self, reason: str) -> ConfigError:
        found = re.search(r"\(at line (\d+), column \d+\)", reason)
        lines = self.text.splitlines()
        number = int(found[1]) if found else max(1, len(lines))
        # A line of 200 kB took six minutes, most of them to be shown.
        line = lines[number - 1][:_SHOWN] if number <= len(lines) else ""
        reason = re.sub(r"\s*\(at .*\)$", "", reason)
        return ConfigError(f"{_place(self.where, number)}: {reason}", hint=_syntax_hint(reason, line))


def _in_a_line(mistake: Mistake) -> str:
    # Beside the nearest word, the list of all words only hides the other mistakes.
    nearest = re.match(r"did you mean [^?]+\?", mistake.hint)
    hint = nearest[0] if nearest else mistake.hint.strip()
    place = f"line {mistake.line}: " if mistake.line else ""
    return f"  {place}{mistake.message}{f' ({hint})' if hint else ''}"


def _place(where: str, line: int) -> str:
    return f"{where}, line {line}" if line else where


def _syntax_hint(reason: str, line: str) -> str:
    if "overwrite" in reason or "twice" in reason or "declare" in reason:
        return "the key or section stands twice: keep one of them"
    if not line.replace("\t", "").isprintable():
        return "the line has a control character in it, which cannot be seen: type the line anew"
    if _YAML.match(line) and _ASSIGNMENT.match(line) is None:
        key, _, value = line.strip().partition(":")
        return f'this is TOML, not YAML: {key.strip()} = "{value.strip()}"'
    key, _, value = (part.strip() for part in line.partition("="))
    # `source = box`, the usual case: bare words are no TOML. A quote that nothing closes has its partner set.
    bare = value.partition(" #")[0].strip().strip(_QUOTES)
    items = ", ".join(f'"{word.strip(_QUOTES)}"' for word in _ITEM.findall(bare.strip("[]")))
    for words, tried in (
        ("true, false and numbers are written so", bare.lower().lstrip("0")),
        ("a list is written so", f"[{items}]" if bare.startswith("[") else ""),
        ("text with a backslash needs single quotes", f"'{bare}'" if "\\" in bare else ""),
        ("text needs quotes", f'"{bare or "..."}"'),
    ):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads(f"{key} = {tried}")
            return f"{words}: {key} = {tried}"
    return 'a line is one KEY = VALUE or one [SECTION]; text needs quotes, and so does a key with "é": source = "box"'


def _positions(text: str) -> Iterable[tuple[str, int]]:
    """Each dotted name with the line where it first stands, the outer ones too."""
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    section = quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            # Within a text of several lines nothing is a key.
            quote = "" if quote in line else quote
            continue
        table, assignment = _TABLE.match(line), _ASSIGNMENT.match(line)
        if table is not None:
            section = _plain(table[2])
            if table[1] == "[[":
                counts[section] = counts.get(section, 0) + 1
                _see(seen, section, number)
                section = f"{section}.{counts[section]}"
            elif section.partition(".")[0] in counts:
                head, dot, rest = section.partition(".")
                section = f"{head}.{counts[head]}{dot}{rest}"
            _see(seen, section, number)
        elif assignment is not None:
            _see(seen, f"{section}.{_plain(assignment[1])}".lstrip("."), number)
            quote = next((q for q in ('"""', "'''") if line.count(q) % 2), "")
    return seen.items()


def _plain(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in _PART.findall(dotted))


def _see(seen: dict[str, int], name: str, number: int) -> None:
    while name:
        seen.setdefault(name, number)
        name = name.rpartition(".")[0]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The hint for a key that is not known: the nearest name, and all of them."""
    names = list(known)
    return f"{did_you_mean(key, names)}known here: {', '.join(names) or 'none'}"


def type_problem(value: Any, kind: str) -> str:
    """Why ``value`` is not of ``kind`` (as annotations write it), or ``""``.

    ``kind`` is ``str``, ``int``, ``float``, ``bool`` or ``table``, ``list[...]`` of one of them, ``tuple[str, ...]``
    (one text will do) or ``dict[str, str]``, or several of these with ``|``. To Python True is a number; to the writer
    of a file it is a mistake.
    """
    names = [name.strip() for name in kind.split("|")]
    if value is None and "None" in names:
        return ""
    found = [name for name in names if name != "None"]
    if any(_is(value, name) for name in found):
        return ""
    return f"expected {' or '.join(_WORDS[name] for name in found)}, found {toml_value(value)}"


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("tuple"):
        return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))
    if kind.startswith("dict"):
        return isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values())
    if kind.startswith("list"):
        return isinstance(value, list) and all(_is(item, kind[5:-1]) for item in value)
    return isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "bool")


def value_problem(
    value: Any, *, choices: Iterable[Any] = (), low: float | None = None, high: float | None = None
) -> tuple[str, str] | None:
    """What is wrong with one value, and a hint; ``None`` when nothing is.

    Args:
        value: A value of the right type; ``None`` passes the range.
        choices: What it must be one of; none given: anything.
        low: The smallest number allowed.
        high: The largest number allowed.

    Returns:
        What is wrong, and a hint; ``None`` where nothing is.
    """
    allowed = list(choices)
    if allowed and value not in allowed:
        shown = [str(choice) for choice in allowed if choice != ""]
        return f"unknown value {value!r}", f"{did_you_mean(str(value), shown)}known: {', '.join(shown)}"
    if value is None:
        return None
    if low is not None and value < low:
        return f"{value} is too small", f"the smallest is {low:g}"
    if high is not None and value > high:
        return f"{value} is too large", f"the largest is {high:g}"
    return None
