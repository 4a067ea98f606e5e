"""Whether a report is in English: other languages share its medical words, and not its denials."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from typing import Final

_LETTERS: Final = re.compile(r"[^\W\d_]+'?")
_SAMPLE: Final = 4000


@functools.cache
def _words() -> dict[str, frozenset[str]]:
    text = (resources.files("cxrprep.labels.nlp") / "data" / "languages.toml").read_text("utf-8")
    return {name: frozenset(words) for name, words in tomllib.loads(text).items()}


def foreign(text: str) -> bool | None:
    """Whether ``text`` is in another language: function words of one, and more of them than of English.

    ``None`` for a text that has no function word of any.
    """
    sample = text[:_SAMPLE].lower()
    words = _words()
    # One look settles it for nearly all reports in English.
    parts = sample.split()
    if words["strong"].isdisjoint(parts):
        return None if words["english"].isdisjoint(parts) else False
    found = _LETTERS.findall(sample.replace("\u2019", "'"))
    theirs = words["strong"] | words["weak"]
    return sum(word in theirs for word in found) > sum(word in words["english"] for word in found)
