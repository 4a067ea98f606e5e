"""Published facts in the words of the page: what is counted, how it came out, and numbers that a person can compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.verification.published_facts import FactCheck

# Facts of more numbers than this are shown by their differences.
_SPELLED_OUT: Final = 4
# A longer text is folded away; whoever wants it opens it.
_LONG: Final = 60

_COUNTED: Final[Mapping[str, str]] = {
    "rows": "rows of the table",
    "splits": "of each split",
    "shared_patients": "patients in more than one split",
    "label": "label values, in images",
    "study_label": "label values, in studies",
    "finding": "images by finding",
    "combined": "images with other findings beside",
    "box": "boxes by finding",
    "boxed_images": "images with boxes",
    "boxes_outside": "boxes that leave the image",
    "blank_labels": "studies without any label",
    "blank_images": "images without any label",
    "study_conflicts": "studies whose images differ in labels",
    "study_gaps": "patients with a gap in their study numbers",
    "view_gaps": "studies with a gap in their view numbers",
    "bad_paths": "paths of an unknown form",
    "age_flag": "ages",
    "age_min": "youngest age",
    "age_max": "oldest age",
    "view": "images by view",
    "sex": "images by sex",
    "raw": "column",
    "lines": "lines of",
}
_OUTCOMES: Final[Mapping[str, str]] = {
    "holds": "hold",
    "contradicted": "do not hold",
    "explained": "differ for a known reason",
    "n of N": "cannot be judged, as a part of the release is here",
    "not checked": "were not checked, as their tables are not here",
}


_OF_ONE: Final[Mapping[str, str]] = {
    "holds": "holds",
    "contradicted": "does not hold",
    "explained": "differs for a known reason",
    "not checked": "was not checked, as its table is not here",
}


@dataclass(frozen=True, slots=True)
class Numbers:
    """A text of numbers; ``summary`` stands for it where it is long."""

    text: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class FactRow:
    """A published fact as the page words it."""

    what: str
    published: Numbers
    found: Numbers
    outcome: str
    note: str
    source: str


def counted(measure: str) -> str:
    """What a measure counts: ``patients in more than one split`` for ``shared_patients``."""
    name, at, part = measure.partition("@")
    base, _, about = name.partition(".")
    words = _COUNTED.get(base, base.replace("_", " ").replace("-", " "))
    if base == "splits":
        words = f"{about} {words}"
    elif about:
        words = f"{words}: {about}" if " by " in words else f"{words} {about}"
    return f"{words}, {part.replace('_', ' and ')}" if at else words


def outcome_of_one(status: str) -> str:
    """How one fact came out, in a cell of a table."""
    return {**_OF_ONE, "n of N": "a part is here", "not checked": "not checked"}.get(status, status)


def outcome(status: str, count: int) -> str:
    """How ``count`` facts of one status came out: ``4 hold``, ``1 was not checked, ...``."""
    words = _OUTCOMES.get(status, status)
    return f"{count:,} {_OF_ONE.get(status, words) if count == 1 else words}"


def fact_row(check: FactCheck, table: str = "") -> FactRow:
    """One published fact with what is here; ``table`` is the pattern of the file that it is about."""
    expected, found = check.expected, check.found
    if isinstance(expected, dict) and isinstance(found, dict):
        # What a table does not have at all is counted as none.
        found = {key: found.get(key, 0) for key in expected}
        if len(expected) > _SPELLED_OUT and str(check.status) != "n of N":
            expected, found = _differences(expected, found)
    # Two tables of labels may have the same fact, each with a number of its own.
    what = counted(check.measure) + (f", in {table.strip('*-')}" if table else "")
    return FactRow(what, _numbers(expected), _numbers(found), str(check.status), check.note, check.source)


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> tuple[Any, Any]:
    # Fourteen numbers that agree are one statement; what differs is what a person wants to see.
    differing = [key for key in expected if expected[key] != found[key]]
    agreed = len(expected) - len(differing)
    if not differing:
        return f"{agreed} numbers", "the same"
    others = {"others": f"{agreed} equal"} if agreed else {}
    return {**{k: expected[k] for k in differing}, **others}, {**{k: found[k] for k in differing}, **others}


def _numbers(value: Any) -> Numbers:
    text = spoken(value)
    if isinstance(value, dict) and len(text) > _LONG:
        return Numbers(text, f"{len(value)} numbers")
    return Numbers(text)


def spoken(value: Any) -> str:
    """A number, or numbers by name, as text; nothing for ``None``."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {spoken(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " / ".join(spoken(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return f"{int(value):,}"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
