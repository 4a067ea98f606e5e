"""The words of a sentence in normal form: contractions, remarks in brackets, boxes that are ticked."""

from __future__ import annotations

from typing import Final

from cxrprep.labels.nlp.phrase_matcher import WORDS

# Words of a remark in brackets that still belongs to its sentence: "no effusion (or pneumothorax)".
_SHORT_ASIDE: Final = 5
# The halves of a contraction: "is nt", "ca nt", "wo nt".
_SPOKEN: Final = {"nt": "not", "ca": "can", "wo": "will"}
_VERBS: Final = {"s": "is", "ve": "have", "re": "are", "ll": "will"}
_SUBJECTS: Final = frozenset(("there", "it", "that", "this", "here", "he", "she", "they", "we", "i", "you", "one"))
# First words of a remark in brackets that says something of its own: "no pneumothorax (small effusion)".
_ASSERTS: Final = frozenset(
    ("small", "moderate", "large", "mild", "tiny", "trace", "minimal", "new", "left", "right", "bilateral", "there")
)


def words_of(sentence: str) -> list[str]:
    """Words of a sentence in normal form, without the placeholders of de-identification."""
    words: list[str] = WORDS.findall(sentence)
    if "xxx" in sentence:
        words = [word for word in words if is_word(word)]
    if " nt" in sentence:
        words = [_SPOKEN.get(word, word) for word in words]
    for place in range(1, len(words)) if " s " in sentence or " ve " in sentence or " re " in sentence else ():
        # "There's", "we've", "they're".
        if words[place - 1] in _SUBJECTS:
            words[place] = _VERBS.get(words[place], words[place])
    return words


def is_word(word: str) -> bool:
    """Whether ``word`` is more than a placeholder: XXXX of Open-i (MIMIC's ___ is a blank in normal form)."""
    return len(word) < 3 or bool(word.strip("x"))


def part_aside(words: list[str]) -> None:
    """Let a remark in brackets that ends the sentence speak for itself: "no effusion (blunting may be old scars)"."""
    opening = len(words) - 1 - words[::-1].index("(")
    rest = words[opening + 1 :]
    asserts = rest[:1] and rest[0] in _ASSERTS and ")" in rest[2:] and rest[rest.index(")") - 1] not in _ASSERTS
    last = ")" not in rest[:-1]
    if asserts or (len(rest) > _SHORT_ASIDE and last and rest[0] not in {"or", "and", "nor"}):
        words[opening] = ";"


def answer_from_boxes(words: list[str]) -> None:
    """Let boxes that stand before what they tick speak ahead: "[x] cardiomegaly [ ] effusion"."""
    for place, word in enumerate(words):
        if word == "[":
            ticked = words[place + 1 : place + 2] != ["]"]
            words[place : place + 2] = [";", ";" if ticked else "no"]
        elif word == "]":
            words[place] = ";"
