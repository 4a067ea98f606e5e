"""Findings of a verification: kinds, severity, and what to do about each."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import ExitCode, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Level(enum.StrEnum):
    """How grave a finding is. Errors decide the exit code; with ``--strict`` warnings and notes do so too."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    """Known and explained: no fault of this copy."""
    INFO = "info"


class Kind(enum.StrEnum):
    """What was found; the names are those of the ``finding`` column of ``verify.parquet``."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    ALTERED = "altered"
    ZERO_BYTE = "zero-byte"
    UPSTREAM_MISMATCH = "upstream-mismatch"
    UNPROVEN = "unproven"
    EXTRA = "extra"
    LEFTOVER = "leftover"
    UNFINISHED = "unfinished"
    UNCHECKED = "unchecked"
    REPAIRED = "repaired"
    OUTDATED = "outdated"
    UNDECODABLE = "undecodable-image"
    CUT_SHORT = "truncated-image"
    WRONG_FORMAT = "wrong-format"
    WRONG_SIZE = "wrong-size"
    WRONG_MODE = "wrong-mode"
    WRONG_DEPTH = "wrong-depth"
    CONSTANT = "constant-image"
    NO_PIXELS = "no-pixel-data"
    DOUBTFUL = "doubtful-image"
    TABLE = "unreadable-table"
    FACT = "contradicts-fact"
    LEAKAGE = "leakage"
    DUPLICATE_ROWS = "duplicate-rows"
    DUPLICATE_PIXELS = "duplicate-pixels"
    IMAGE_WITHOUT_ROW = "image-without-row"
    ROW_WITHOUT_IMAGE = "row-without-image"


_NAMES: Final = re.compile(r"\b(DATASET|ROOT|DOWNLOAD|SAME)\b")
# DATASET, ROOT (with its --state), SAME (without it) and DOWNLOAD, the command that goes on with the folder's download,
# are put in by whoever shows it.
_FETCH: Final = "fetch it again: DOWNLOAD; or: cxrprep verify ROOT --repair"
_IMAGE: Final = "fetch it again: DOWNLOAD; if it stays so, leave it out of training and tell the publisher"
_TABLES: Final = "fetch the release's tables again: DOWNLOAD; if they stay so, do not train on them"
_KINDS: Final[dict[Kind, tuple[Level, str]]] = {
    Kind.MISSING: (Level.ERROR, _FETCH),
    Kind.TRUNCATED: (Level.ERROR, _FETCH),
    Kind.ALTERED: (Level.ERROR, _FETCH),
    Kind.ZERO_BYTE: (Level.ERROR, _FETCH),
    Kind.UPSTREAM_MISMATCH: (Level.NOTE, "for the publisher's own bytes, fetch these files from another mirror"),
    Kind.UNPROVEN: (Level.NOTE, "to have them recorded as they are: cxrprep download DATASET ROOT --source SAME"),
    Kind.EXTRA: (Level.WARNING, "the release has no such file: move it out of the folder"),
    Kind.LEFTOVER: (Level.WARNING, "an interrupted or careless tool left it: it can be removed"),
    Kind.UNFINISHED: (Level.NOTE, "it can be removed, once no other tool writes it"),
    Kind.UNCHECKED: (Level.ERROR, "make it readable, then verify again"),
    Kind.REPAIRED: (Level.INFO, ""),
    Kind.OUTDATED: (Level.ERROR, "make it again from what is here now"),
    Kind.UNDECODABLE: (Level.ERROR, _IMAGE),
    Kind.CUT_SHORT: (Level.ERROR, _IMAGE),
    Kind.WRONG_FORMAT: (Level.ERROR, _IMAGE),
    Kind.WRONG_SIZE: (Level.ERROR, "is it a converted copy? The release's own images have another size"),
    Kind.WRONG_MODE: (Level.ERROR, "is it a converted copy? The release's own images have another pixel form"),
    Kind.WRONG_DEPTH: (Level.ERROR, "is it a converted copy? The release's own images have another depth"),
    Kind.CONSTANT: (Level.ERROR, _IMAGE),
    Kind.NO_PIXELS: (Level.ERROR, _IMAGE),
    Kind.DOUBTFUL: (Level.NOTE, "look at it: a score by its pixels, which is wrong now and then; no pixel was changed"),
    Kind.TABLE: (Level.ERROR, _TABLES),
    Kind.FACT: (Level.ERROR, _TABLES),
    Kind.LEAKAGE: (Level.ERROR, f"a model would be tested on what it was trained on; {_TABLES}"),
    Kind.DUPLICATE_ROWS: (Level.ERROR, _TABLES),
    Kind.DUPLICATE_PIXELS: (Level.WARNING, "keep one of them, or keep them in the same split"),
    Kind.IMAGE_WITHOUT_ROW: (
        Level.WARNING,
        "no labels; fetch the release's tables again: DOWNLOAD; move what is not of the release out of the folder",
    ),
    Kind.ROW_WITHOUT_IMAGE: (Level.INFO, "a part of the release is normal; --complete demands all of it"),
}


def refuse_idle_accept(*, strict: bool) -> None:
    """Raise ``UsageError`` for kinds that are accepted where none of them is a fault: only ``strict`` makes it one."""
    if not strict:
        raise UsageError("--accept goes with --strict: without it no such finding is a fault", hint="add --strict")


def accepted_kinds(names: Iterable[str]) -> frozenset[Kind]:
    """The kinds of findings that ``names`` say. Raises ``UsageError`` for an unknown one, with the nearest."""
    found = set()
    for name in names:
        try:
            found.add(Kind(name.strip().lower()))
        except ValueError:
            hint = f"{did_you_mean(name, map(str, Kind))}known: {', '.join(Kind)}"
            raise UsageError(f"accept: {name!r} is not a kind of finding", hint=hint) from None
    return frozenset(found)


REPAIRABLE: Final = frozenset({Kind.MISSING, Kind.TRUNCATED, Kind.ALTERED, Kind.ZERO_BYTE})
WRONG_IMAGES: Final = frozenset({Kind.UNDECODABLE, Kind.CUT_SHORT, Kind.WRONG_FORMAT, Kind.CONSTANT, Kind.NO_PIXELS})
"""Images that came as they should, and are wrong all the same: a mirror may have mended its copy since."""
WRONG_TABLES: Final = frozenset({Kind.TABLE, Kind.FACT, Kind.LEAKAGE, Kind.DUPLICATE_ROWS})
"""What is wrong in the release's tables, whichever of them it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. ``path`` is a release path, or ``""`` for the dataset as a whole.

    ``expected`` and ``found`` are what should be and what is, where that can be said in a few words; ``detail`` is the
    sentence for people, and what is known about the case. It never holds report text.
    """

    kind: Kind
    level: Level
    path: str
    detail: str
    expected: str = ""
    found: str = ""
    hint: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """3 where nothing could be read, 4 for every other error, 0 for the rest."""
        if self.level is not Level.ERROR:
            return ExitCode.DONE
        return ExitCode.PARTIAL if self.kind is Kind.UNCHECKED else ExitCode.INTEGRITY

    def with_words(self, words: Mapping[str, str]) -> Finding:
        """The finding with ``words`` in the place of their names, where its hint ends with the usual one."""
        usual = _KINDS[self.kind][1]
        if not usual or not self.hint.endswith(usual):
            return self
        own = self.hint.removesuffix(usual)
        return replace(self, hint=own + _NAMES.sub(lambda found: words[found[0]], usual))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the form of ``--json``."""
        return {
            "finding": str(self.kind),
            "level": str(self.level),
            "path": self.path,
            "detail": self.detail,
            "expected": self.expected or None,
            "found": self.found or None,
            "hint": self.hint or None,
        }


def make_finding(
    kind: Kind,
    path: str,
    detail: str,
    *,
    level: Level | None = None,
    expected: object = "",
    found: object = "",
    hint: str = "",
) -> Finding:
    """A finding with the level and the hint that its kind usually has.

    Args:
        kind: What is wrong.
        path: Of the file, relative to the folder.
        detail: In words.
        level: In the place of the usual one.
        expected: What should be there.
        found: What is there.
        hint: In the place of the usual one.

    Returns:
        The finding.
    """
    usual, usual_hint = _KINDS[kind]
    return Finding(kind, level or usual, path, detail, str(expected), str(found), hint or usual_hint)
