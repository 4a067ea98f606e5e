"""Phrase tables: a small language for radiology wording, compiled to a trie over words.

A phrase is words separated by blanks: ``a|b`` (either), ``word?`` (may be missing), ``word(s)`` (with or
without the ending), ``word*`` (any word that begins so), ``@class`` (a word of a named class), ``@class{0,3}`` (none to
three). Matching takes the longest phrase that starts at a word and never looks further than the longest phrase, so
time is linear in the length of the text.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from cxrprep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WORDS = re.compile(r"[a-z0-9]+(?:\.[0-9]+)?|[^\sa-z0-9]")
"""Words, numbers and single punctuation marks of a normalised sentence (lower case, ASCII)."""

_REPEAT = re.compile(r"(.+)\{(\d),(\d)\}")
_ENDING = re.compile(r"(.+)\((\w+)\)")
_MAX_FORMS = 4096
_MAX_REMEMBERED = 200_000

# Letters of a word that may be misspelled: in shorter ones a slip is another word.
_LONG = 7
_SHORT = 5
# No word is longer: what is would cost the square of its length.
_LONGEST = 40

T = TypeVar("T")


def _with_one_letter_less(word: str) -> set[str]:
    """``word`` and what it is without one of its letters."""
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


def expand(phrase: str) -> list[tuple[str, ...]]:
    """All word sequences that ``phrase`` stands for; classes and prefixes stay as symbols (``@adv``, ``opaci*``).

    Raises ``ConfigError`` for an empty phrase, one that may match nothing, and one that stands for too many.
    """
    choices: list[list[tuple[str, ...]]] = []
    for term in phrase.split():
        repeat = _REPEAT.fullmatch(term)
        if repeat:
            word, low, high = repeat[1], int(repeat[2]), int(repeat[3])
            choices.append([(word,) * n for n in range(low, high + 1)])
            continue
        optional = len(term) > 1 and term.endswith("?")
        body = term[:-1] if optional else term
        options = [form for word in body.split("|") for form in _forms(word)]
        choices.append([*options, ()] if optional else options)
    forms = 1
    for options in choices:
        forms *= len(options)
    if forms > _MAX_FORMS:
        raise ConfigError(f"the phrase {phrase!r} stands for {forms} wordings; split it")
    found = [tuple(itertools.chain.from_iterable(form)) for form in itertools.product(*choices)]
    if not found or () in found:
        raise ConfigError(f"the phrase {phrase!r} would match nothing at all; give it a word that must be there")
    return found


def _forms(word: str) -> list[tuple[str, ...]]:
    if word.startswith("@") or (len(word) > 1 and word.endswith("*")):
        return [(word,)]
    ending = _ENDING.fullmatch(word)
    spelled = [ending[1], ending[1] + ending[2]] if ending else [word]
    return [tuple(WORDS.findall(each)) for each in spelled]


@dataclass(slots=True)
class _Node(Generic[T]):
    children: dict[str, _Node[T]] = field(default_factory=dict)
    value: T | None = None


class _Nodes(Generic[T]):
    """The nodes that some words lead to, the value there, and where each next word leads as far as was asked."""

    __slots__ = ("following", "nodes", "value")

    def __init__(self, nodes: Sequence[_Node[T]]) -> None:
        self.nodes = [node for node in nodes if node.children]
        self.value = next((node.value for node in nodes if node.value is not None), None)
        self.following: dict[tuple[str, ...], _Nodes[T] | None] = {}

    def follow(self, symbols: tuple[str, ...]) -> _Nodes[T] | None:
        """Where a word that is ``symbols`` leads: nowhere for ``None``."""
        children = [node.children[symbol] for node in self.nodes for symbol in symbols if symbol in node.children]
        found = self.following[symbols] = _Nodes(children) if children else None
        return found


class Lexicon(Generic[T]):
    """Phrases with a value each; finds the longest phrase at every word, left to right, without overlap."""

    def __init__(self, classes: Mapping[str, Iterable[str]], spelling: Iterable[str] = ()) -> None:
        self._misspelled = {part: word for word in spelling for part in _with_one_letter_less(word)}
        self._root: _Node[T] = _Node()
        # measured: 46 -> 26 ms of CPU for 7,048 sentences beside a walk of the nodes, symbol by symbol.
        self._begin = _Nodes([self._root])
        self._classes: dict[str, tuple[str, ...]] = {}
        for name, members in classes.items():
            for member in members:
                self._classes[member] = (*self._classes.get(member, ()), "@" + name)
        self._names = {"@" + name for name in classes}
        self._literals: set[str] = set()
        self._prefixes: set[str] = set()
        self._lengths: tuple[int, ...] | None = ()
        self._symbols: dict[str, tuple[str, ...]] = {}

    def add(self, phrase: str, value: T) -> None:
        """Make ``phrase`` stand for ``value``; a value given before is replaced. Raises ``ConfigError``."""
        for form in expand(phrase):
            self.node(form).value = value

    def node(self, form: Sequence[str]) -> _Node[T]:
        """The place of one word sequence in the trie, made where it is missing."""
        node = self._root
        for symbol in form:
            child = node.children.get(symbol)
            if child is None:
                self._note_symbol(symbol)
                child = node.children[symbol] = _Node()
            node = child
        self._lengths = None
        return node

    def _note_symbol(self, symbol: str) -> None:
        if symbol.startswith("@"):
            if symbol not in self._names:
                raise ConfigError(f"unknown word class {symbol}; known: {', '.join(sorted(self._names))}")
        elif symbol.endswith("*") and len(symbol) > 1:
            self._prefixes.add(symbol[:-1])
        else:
            self._literals.add(symbol)

    def symbols(self, word: str) -> tuple[str, ...]:
        """What ``word`` is in the phrases: itself, prefixes that fit, classes that hold it. Empty for most words."""
        if self._lengths is None:
            # Phrases were added: what words stand for is asked anew.
            self._lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))
            self._symbols.clear()
            self._begin = _Nodes([self._root])
        known = self._symbols.get(word)
        if known is None:
            found = [word] if word in self._literals else []
            found += [word[:n] + "*" for n in self._lengths if len(word) >= n and word[:n] in self._prefixes]
            found += self._classes.get(word, ())
            known = tuple(found) or self._of_meant(word)
            if len(self._symbols) >= _MAX_REMEMBERED:
                self._symbols.clear()
            self._symbols[word] = known
        return known

    def _of_meant(self, word: str) -> tuple[str, ...]:
        """The symbols of the word that an unknown word is a slip of: one letter more, less, other or swapped.

        Of a shorter word only swapped ones: "nodlue" is a nodule, "module" is none.
        """
        if not _SHORT <= len(word) <= _LONGEST or not word.isalpha():
            return ()
        meant = next((self._misspelled[p] for p in _with_one_letter_less(word) if p in self._misspelled), None)
        if meant is not None and min(len(word), len(meant)) < _LONG and sorted(word) != sorted(meant):
            return ()
        return () if meant is None or meant[0] != word[0] or abs(len(meant) - len(word)) > 1 else self.symbols(meant)

    def longest(self, words: Sequence[str], position: int) -> tuple[int, T | None]:
        """The end and the value of the longest phrase that starts at one word; 0 for none."""
        found = self.scan(words[position:], 1)
        return (position + found[0][1], found[0][2]) if found else (0, None)

    def scan(self, words: Sequence[str], starts: int | None = None) -> list[tuple[int, int, T]]:
        """``(start, end, value)`` of the phrases in ``words``, in order; ``end`` is exclusive.

        ``starts`` are the words at the beginning that phrases may start at: all where it is ``None``.
        """
        found: list[tuple[int, int, T]] = []
        known = {} if self._lengths is None else self._symbols
        keyed = [each if (each := known.get(word)) is not None else self.symbols(word) for word in words]
        position, count = 0, len(words)
        while position < (count if starts is None else starts):
            longest: tuple[int, int, T] | None = None
            end, place = position, self._begin
            while end < count:
                symbols = keyed[end]
                following = place.following[symbols] if symbols in place.following else place.follow(symbols)
                if following is None:
                    break
                place, end = following, end + 1
                if place.value is not None:
                    longest = position, end, place.value
            if longest is None:
                position += 1
            else:
                found.append(longest)
                position = longest[1]
        return found
