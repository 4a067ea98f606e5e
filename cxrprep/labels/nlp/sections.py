"""A report's sections, and which of them is read.

MIMIC-CXR reports are cut as its authors cut them (their section parser; headings in capitals after a line end and a
blank). Other texts may also write "Impression:" in any case, at the start of a line or after a sentence.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cxrprep.labels.nlp.aggregate import Sections

_MIMIC_HEADING = re.compile(r"\n ([A-Z ()/,-]{1,120}):\s")
_BLANK_LINE = "\n \n"
_MIMIC_START = re.compile(r"\s{0,200}(?:FINAL REPORT|WET READ|FINAL ADDENDUM|ADDENDUM|PFI|EXAMINATION)\b")
_END_OF_IMPRESSION = re.compile(r"(?i)\bend of impression\b")
_READ = ("impression", "findings", "last_paragraph", "comparison")


@dataclass(frozen=True, slots=True)
class Section:
    """A named part of a report; ``start`` and ``end`` are character places in it."""

    name: str
    start: int
    end: int


@functools.cache
def _names() -> dict[str, Any]:
    return tomllib.loads((resources.files("cxrprep.labels.nlp") / "data" / "sections.toml").read_text("utf-8"))


# Words that make a title part of a sentence: "Incidental Findings: old fractures".
_QUALIFIERS = (
    "no", "other", "incidental", "additional", "significant", "further", "new", "key", "main", "these", "following",
    "pertinent", "associated", "ancillary", "physical", "surgical", "social", "family", "medical", "past", "smoking",
)  # fmt: skip
_NO_QUALIFIER = "".join(rf"(?<!\b[{word[0].upper()}{word[0]}]{word[1:]}[ \t])" for word in _QUALIFIERS)


def _in_title_case(titles: str) -> str:
    """The titles with a capital at their beginning, whatever follows: "Clinical history" and "Clinical History"."""
    words = [title for title in titles.split("|") if title]
    return "|".join(f"{title[0].upper()}(?i:{title[1:]})" for title in words)


@functools.cache
def _plain_heading(shouted: bool) -> re.Pattern[str]:
    # "Incidental findings: old fractures" is a sentence; "COUGH FINDINGS: clear" has a heading, unless all is capitals.
    titles = "|".join(sorted((re.escape(title) for title in _names()["plain"]["titles"]), key=len, reverse=True))
    begin = rf"(?:^|[\n.;:!?])[ \t]{{0,40}}(?i:({titles}))"
    if not shouted:
        # In a text without line ends a section may end without a full stop: "Indication: cough Comparison: none".
        begin = rf"(?:{begin}|(?<=[ \t])({titles.upper()})|{_NO_QUALIFIER}(?<=[ \t])({_in_title_case(titles)}))"
    return re.compile(rf"{begin}[ \t]{{0,4}}:")


def looks_like_mimic(text: str) -> bool:
    """Whether a text has the form of a MIMIC-CXR report: its beginning, or a heading as its parser finds it."""
    return _MIMIC_START.match(text) is not None or _MIMIC_HEADING.search(text) is not None


def is_cut_by_hand(study: str) -> bool:
    """Whether the authors of MIMIC-CXR named the part of this study ("s50414267") that is read by hand."""
    table = _names()["by_hand"]
    return study in table["ranges"] or study in table["sections"]


def canonical_name(heading: str) -> str:
    """The section that a heading stands for: "CONCLUSION" is the impression, "CHEST, TWO VIEWS" the findings."""
    table = _names()["mimic"]
    name = heading.lower().strip()
    known: str | None = table["names"].get(name)
    if known is not None:
        return known
    for main in table["containing"]:
        if main in name:
            return str(main)
    if any(part in name for part in table["views"]):
        return "findings"
    return name


def mimic_sections(text: str) -> list[Section]:
    """The sections of a MIMIC-CXR report, as the collection's authors cut it; empty conclusions are left out."""
    found: list[Section] = []
    heading = _MIMIC_HEADING.search(text)
    if heading is None:
        found.append(Section("full report", 0, len(text)))
    else:
        found.append(Section("preamble", 0, heading.start(1)))
    while heading is not None:
        # The rest of a heading's own line is never a heading: "COMPARISON: ...".
        begin = heading.end()
        line_end = text.find("\n", begin)
        following = _MIMIC_HEADING.search(text, line_end if line_end >= 0 else begin)
        stop = following.start() if following else len(text)
        name = canonical_name(heading[1])
        if name not in ("impression", "findings") or text[begin:stop].strip():
            found.append(Section(name, begin, stop))
        heading = following
    if not any(section.name in ("impression", "findings") for section in found):
        last = found[-1]
        cut = text.find(_BLANK_LINE, last.start, last.end)
        if cut >= 0:
            found[-1] = Section(last.name, last.start, cut)
            found.append(Section("last_paragraph", cut + len(_BLANK_LINE), last.end))
    return found


def plain_sections(text: str) -> list[Section]:
    """The sections of any other text, by known titles in any case; none where the text has no such title."""
    if ":" not in text:
        return []
    headings = list(_plain_heading(text.isupper()).finditer(text))
    found: list[Section] = []
    ends = [heading.start(heading.lastindex or 0) for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=bool(headings)):
        title = heading[heading.lastindex or 0]
        name = _names()["plain"]["names"].get(title.lower()) or canonical_name(title)
        section = Section(name, heading.end(), end)
        if text[section.start : section.end].strip():
            found.append(section)
    return found


def _only_headings(text: str) -> bool:
    return ":" in text and not _plain_heading(text.isupper()).sub("", text).strip()


def chosen_sections(text: str, sections: Sections, *, study: str = "", mimic: bool | None = None) -> list[Section]:
    """The sections that are read, in their order in ``text``: mostly one, none where nothing can be read.

    ``study`` is a MIMIC-CXR study ("s50414267"): for some the authors name the part by hand. ``mimic`` tells that the
    text is a MIMIC-CXR file; ``None`` looks.
    """
    if sections is Sections.EVERYTHING:
        return [Section("report", 0, len(text))]
    if mimic is None:
        mimic = looks_like_mimic(text)
    if mimic:
        by_hand = _by_hand(text, study)
        if by_hand is not None:
            return by_hand
        found = mimic_sections(text)
        if all(section.name == "full report" for section in found):
            found = plain_sections(text) or found
    else:
        # What follows are codes and signatures.
        end = _END_OF_IMPRESSION.search(text)
        if end is not None and text[: end.start()].strip():
            text = text[: end.start()]
        found = plain_sections(text)
        if not found:
            return [] if _only_headings(text) else [Section("report", 0, len(text))]
        if not any(section.name in ("impression", "findings") for section in found):
            # Titles such as "COMPARISON:" alone: what stands around them may be the report itself.
            return [Section("report", 0, len(text))]
    return _choice(found, sections)


def _choice(found: list[Section], sections: Sections) -> list[Section]:
    last = {section.name: section for section in found}
    if sections is Sections.FINDINGS_AND_IMPRESSION:
        both = [last[name] for name in ("findings", "impression") if name in last]
        if both:
            return sorted(both, key=lambda section: section.start)
    for name in _READ:
        if name in last:
            return [last[name]]
    return []


def _by_hand(text: str, study: str) -> list[Section] | None:
    table = _names()["by_hand"]
    if study in table["ranges"]:
        begin, end = table["ranges"][study]
        return [Section("by_hand", begin, min(end, len(text)))] if end else []
    name = table["sections"].get(study)
    if name is None:
        return None
    return [section for section in mimic_sections(text) if section.name == name][-1:]
