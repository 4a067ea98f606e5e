"""Characters of a report made plain (Unicode NFKC, HTML, line ends), with their places in the text that was given."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is more than one character for one, or one for several: all else keeps its place in sentences.normalised.
_ODD: Final = re.compile(
    r"\r|<\s*/?\s*[A-Za-z][^<>]{0,200}>|&lt;\s*/?\s*[A-Za-z][^<>&]{0,200}&gt;|&(?:[A-Za-z]{2,8}|#\d{1,6}|#[xX][0-9A-Fa-f]{1,5});|[^\x00-\x7f]"
)
_BREAKS: Final = re.compile(r"(?i)(?:<|&lt;)\s*/?\s*(?:br|p|div|li|ul|ol|tr|td|h\d|table|section)\b")
_LINE_ENDS: Final = frozenset("\u2028\u2029\u0085\x0b\x0c")
# Soft hyphen, zero-width characters, byte order mark, word joiner, variation selectors.
_NOTHING: Final = frozenset("\u00ad\u200c\u200d\ufeff\u2060\ufe0e\ufe0f")
_FULL_STOPS: Final = {"\u3002": ". ", "\u3001": ", ", "\uff61": ". "}
_LONG_DASHES: Final = frozenset("\u2014\u2015")
_SHORT_DASHES: Final = frozenset("\u2012\u2013")
# First parts of compounds that are also written with an en dash.
_COMPOUNDS: Final = frozenset(("ground", "right", "lower", "upper", "middle", "small", "large", "mid", "left", "post"))


def plain(text: str) -> tuple[str, Sequence[int] | None]:
    """``text`` in plain characters, and the place of each in ``text``; ``None`` for places that have not moved.

    Ligatures, full-width letters and accents become letters, entities and tags of HTML what they stand for, the line
    ends of any system a line feed; soft hyphens go. A dash that joins two statements gets blanks around it.
    """
    if text.isascii() and "\r" not in text and "&" not in text and "<" not in text:
        return text, None
    pieces: list[str] = []
    places: list[int] = []
    done = 0
    for found in _ODD.finditer(text):
        begin, end = found.span()
        if begin < done:
            continue
        instead = _instead(text, begin, end)
        pieces += (text[done:begin], instead)
        places += range(done, begin)
        places += [begin] * len(instead)
        done = end
    pieces.append(text[done:])
    places += range(done, len(text) + 1)
    return "".join(pieces), places


def _instead(text: str, begin: int, end: int) -> str:
    odd = text[begin:end]
    if odd == "\r":
        return "" if text[end : end + 1] == "\n" else "\n"
    if odd.startswith(("<", "&lt;")) and odd != "&lt;":
        return "\n" if _BREAKS.match(odd) else " "
    if odd.startswith("&"):
        return "".join(_character(char, text, begin, end) for char in html.unescape(odd))
    return _character(odd, text, begin, end)


def _character(char: str, text: str, begin: int, end: int) -> str:
    if char.isascii():
        return char
    if char in _FULL_STOPS:
        return _FULL_STOPS[char]
    if char in _NOTHING:
        return ""
    if char == "\u200b":
        # A zero-width blank parts words.
        return " "
    if char in _LINE_ENDS:
        return "\n"
    if char in _LONG_DASHES or (char in _SHORT_DASHES and _joins_statements(text, begin, end)):
        ranges = text[begin - 1 : begin].isdigit() and text[end : end + 1].isdigit()
        spaced = text[begin - 1 : begin].isspace() or text[end : end + 1].isspace()
        return char if ranges or spaced else " - "
    simple = unicodedata.normalize("NFKC", char)
    return simple if simple.isascii() else _without_accents(simple)


def _without_accents(chars: str) -> str:
    """Letters without their accents; what is no letter stays for the look-alikes of ``sentences``."""
    letters = "".join(each for each in unicodedata.normalize("NFD", chars) if not unicodedata.combining(each))
    return letters if letters.isascii() else chars


def _joins_statements(text: str, begin: int, end: int) -> bool:
    """Whether an en dash without blanks stands between statements: "no pneumothorax(dash)left effusion"."""
    before = re.search(r"[^\W\d_]+\Z", text[max(0, begin - 30) : begin])
    return (
        before is not None
        and len(before[0]) >= 5
        and before[0].lower() not in _COMPOUNDS
        and not before[0].lower().endswith("o")
        and text[end : end + 1].islower()
    )
