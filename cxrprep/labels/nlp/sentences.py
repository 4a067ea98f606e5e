"""Text to sentences: a normal form that keeps every character's place, and where sentences end."""

from __future__ import annotations

import re
from typing import NamedTuple

# Characters outside printable ASCII become their look-alike or a blank: a place in the normal form is one in the text.
_LOOKALIKES = str.maketrans(
    {
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        "\u2018": "'",
        "\u2019": "'",
        "\u00a0": " ",
        "\u2022": ";",
    }
)
_NON_ASCII = re.compile(r"[^ -~]")
_CONTROL = re.compile(r"[\0-\x09\x0c-\x1f\x7f]")
_LETTER = re.compile(r"[a-z]")
_DASH = re.compile(r"(?<= )-{1,3}(?= )")
# A sentence ends at . ! or ? before a blank or a letter ("clear.No"), at a number that opens a list item, at an empty
# line and at a list line. Any other new line is only a wrapped line.
# Each branch looks back at its first character, which the class has taken: the engine skips to the next of the class.
# measured: 63 -> 13 ms of CPU for 3,160 reports beside branches that look back first.
_STOPS = r"""[.!?\d(\n\v](?:
    (?<=[.!?])(?<![.!?].)[.!?]*+(?=[\s)\]"']|$)
    |(?<=[.])(?=[a-z]{2})
    |(?<=\d)(?<![\w.].)\d?[.)](?=\s*[a-z])
    |(?<=\()(?:[a-h]|i{1,3}|iv|v)\)(?=\s)
    |(?<=\n)[ \t]*\n
    |(?<=\v)
)"""
_END = re.compile(_STOPS, re.VERBOSE | re.DOTALL)
_END_OR_LETTER = re.compile(rf"(?<![\w(])[a-h]\)(?=\s)|{_STOPS}", re.VERBOSE | re.DOTALL)
_LETTERED = re.compile(r"\)(?<=[a-h].)(?=\s)")
# A short line before a capital or a bullet was not wrapped: it is an item of a list.
_LIST_LINE = re.compile(r"(?m)^(?=.{1,40}$)(.*[^\s,;:])[ \t]*(\n)(?=[ \t]{0,40}(?:[A-Z]|[-*\u2022][ \t]*[A-Za-z]))")
# A colon of dots: "Pleural effusion .. no". A contraction keeps its length: "is nt", "ca nt"; see negation.words_of.
_LEADERS = re.compile(r"\.{2,}(?=\s*(?:no|none|nil|absent|negative|present|yes)\b)")
# A tab between cells: "No effusion\tRib fracture".
_CELL = re.compile(r"(?<=[a-z])\t(?=[A-Z])")
_CONTRACTION = re.compile(r"n't\b")
_SHORT_VERB = re.compile(r"\b(there|it|that|this|here|he|she|they|we|i|you|one)'(s|ve|re|ll)\b")
_ANSWER = re.compile(
    r"\s*(?:no|none|nil|absent|negative|yes|present|no evidence|not (?:seen|present|identified|visible)"
    r"|there (?:is|are)(?: not| none)?"
    r"|(?:small|tiny|moderate|large|mild|severe|left|right|bilateral|trace)(?: [a-z]+)?)"
    r"\b\s*(?:[.,;]|$)"
)
# Lines that no sentence runs over: short, without a stop, and not ended by a word that needs another.
_SHORT_LINE = re.compile(r"[^\n]{1,45}")
_RUNS_ON = re.compile(
    r"(?i)(?:[,;:]|\b(?:and|or|of|the|a|an|no|with|without|in|at|on|to|for|is|are|may|left|right|lower|upper|small))$"
)
# A sentence that says of the one before it whether what it names is there: "This is a nipple shadow.", "There is one on
# the right.". Both are read as one.
_REFERRING = (
    "this",
    "it ",
    "these",
    "they",
    "that",
    "there",
    "on ",
    "a ",
    "the ",
    "an ",
    "ct ",
    "both",
    "only ",
    "however",
    "in ",
    "actually",
    "but ",
    "though",
    "indeed",
)
_REFERS = re.compile(
    r"(?:(?:however|in fact|in reality|in retrospect|actually|indeed|but|though)(?: ,|,)? )?"
    r"(?:(?:on [a-z ]{3,40}?,? )?(?:this|it|these|they|that|both)(?: [a-z]+)?? (?:is|s|are|re|was|were|has|have|proved|"
    r"proves|turned|represents?|reflects?|did|does)\b(?! (?:a |an |the )?(?:possible|may))"
    r"|there (?:is|are|was|were) (?:now |also |still )?(?:a |another )?(?:[a-z]+ )?(?:one|ones|some)\b"
    r"|(?:a|an|the|another) (?:[a-z]+ ){0,2}ones?\b"
    r"|(?:the |a )?(?:[a-z]+ )?(?:ct|views?|film|radiograph|study) (?:shows?|showed|confirms?) (?:none|nothing)\b)"
)
_LONGEST_REFERENCE = 200
_STOP = re.compile(r"[.!]")
_LONGEST_LIST = 2_000
_ABBREVIATIONS = frozenset(("vs", "dr", "drs", "mr", "mrs", "ms", "approx", "cf", "e.g", "i.e", "eg", "fig", "st"))
_SHORTENED = tuple(_ABBREVIATIONS)


class Sentence(NamedTuple):
    """``text`` in normal form (lower case, single blanks) and ``start``, ``end`` of the original characters."""

    text: str
    start: int
    end: int


def normalised(text: str) -> str:
    """``text`` in lower-case ASCII, character for character: places in it are places in ``text``.

    Line ends stay (empty lines end sentences); hyphens become blanks, a dash between blanks a semicolon.
    """
    if not text.isascii():
        text = _NON_ASCII.sub(_replacement, text)
    if "\t" in text:
        text = _CELL.sub(";", text)
    lowered = text.lower()
    if not lowered.isprintable():
        lowered = _CONTROL.sub(" ", lowered)
    if "n't" in lowered:
        lowered = _CONTRACTION.sub(" nt", lowered)
    if "'" in lowered:
        lowered = _SHORT_VERB.sub(r"\1 \2", lowered)
    if ".." in lowered:
        lowered = _LEADERS.sub(lambda found: ":" + " " * (len(found[0]) - 1), lowered)
    if "/ no" in lowered:
        # "No effusion / no consolidation / nodule".
        lowered = lowered.replace(" / ", " ; ")
    if " -" in lowered:
        lowered = _DASH.sub(lambda found: ";" * len(found[0]), lowered)
    return lowered.replace("-", " ").replace("_", " ")


def _replacement(found: re.Match[str]) -> str:
    char = found[0]
    return char if char in "\n\v" else char.translate(_LOOKALIKES) if ord(char) in _LOOKALIKES else " "


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of ``text``, in order; those without a letter are left out."""
    flat = normalised(_with_list_lines(text) if "\n" in text else text)
    found: list[Sentence] = []
    start = 0
    for end in (_END_OR_LETTER if _LETTERED.search(flat) else _END).finditer(flat):
        stop, following = end.span()
        if flat[stop] == ".":
            if flat.endswith(_SHORTENED, 0, stop) and _abbreviated(flat, stop):
                continue
        elif flat[stop] == "?":
            if flat[max(0, stop - 1) : stop] in ("", " ") and _LETTER.search(flat, following, following + 80):
                # "Opacity, ? pneumonia": it doubts what follows.
                continue
            if _ANSWER.match(flat, following):
                # "Pneumothorax? No.": the answer belongs to the question.
                continue
            # A question mark belongs to what it doubts.
            stop += 1
        _append(found, flat, start, stop)
        start = following
    _append(found, flat, start, len(flat))
    return found


def _with_list_lines(text: str) -> str:
    """The text with a vertical tab in place of each new line that ends an item of a list."""
    if _is_list(text):
        return text.replace("\n", "\v")
    ends = [line.start(2) for line in _LIST_LINE.finditer(text)]
    if not ends:
        return text
    pieces = [text[begin:end] for begin, end in zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)]
    return "\v".join(pieces)


def _is_list(text: str) -> bool:
    """Whether each line is an item of a list: short, and never one that runs on in the next."""
    if len(text) > _LONGEST_LIST or "." in text:
        return False
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    # Two lines of one word each are one line that was wrapped.
    return (
        len(lines) > 1
        and all(" " in line for line in lines)
        and all(_SHORT_LINE.fullmatch(line) and not _RUNS_ON.search(line) for line in lines)
    )


def _abbreviated(flat: str, dot: int) -> bool:
    begin = max(flat.rfind(" ", max(0, dot - 8), dot), flat.rfind("\n", max(0, dot - 8), dot)) + 1
    return flat[begin:dot] in _ABBREVIATIONS


def _append(found: list[Sentence], flat: str, start: int, end: int) -> None:
    if not _LETTER.search(flat, start, end):
        return
    text = " ".join(flat[start:end].split())
    if found and text.startswith(_REFERRING) and len(text) <= _LONGEST_REFERENCE and _REFERS.match(text):
        before = found[-1]
        gap = _STOP.sub(";", flat[before.end : start], count=1)
        if ";" in gap and len(before.text) <= _LONGEST_REFERENCE:
            found[-1] = Sentence(f"{before.text} {' '.join(gap.split())} {text}", before.start, end)
            return
    found.append(Sentence(text, start, end))
