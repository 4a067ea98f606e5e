"""Sections of a report, and the choice of those that are read.

MIMIC-CXR reports are cut as its authors cut them (their section parser; headings in capitals after a line end and a
blank). Other texts may also write "Impression:" in any case, at the start of a line or after a sentence.
"""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from cxrprep.errors import UsageError, did_you_mean
from cxrprep.labels.nlp.policies import Sections, section_order

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIMIC_HEADING = re.compile(r"\n ([A-Z ()/,-]{1,120}):\s")
_DEDENTED_HEADING = re.compile(r"\n([A-Z ()/,-]{1,120}):\s")
_BLANK_LINE = "\n \n"
_ANY_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_END_OF_SENTENCE = re.compile(r"[.!](?=\s+\S)")
# Sentences and items of a conclusion, and the characters of one that may be a mere pointer.
_PARTS = re.compile(r"[.!?](?:\s|$)|\n[ \t]*\n|(?:^|\s)\d{1,2}[.)](?=\s)")
_DOT_OF_A_TITLE = re.compile(r"(?i)\.(?:(?<=\b[dm]r.)|(?<=\bms.)|(?<=\b[dm]rs.)|(?<=\bprof.))")
_LONGEST_POINTER = 400
_LETTER = re.compile("[A-Za-z]")
# Characters of a title with its marks, from the end of what stands before it to its colon.
_LONGEST_TITLE = 140
_SHORTEST_TITLE = 2
_MARKS = " \t>#*_:"
_MIMIC_START = re.compile(r"\s{0,200}(?:FINAL REPORT|WET READ|FINAL ADDENDUM|ADDENDUM|PFI|EXAMINATION)\b")
_END_OF_IMPRESSION = re.compile(r"(?i)\bend of impression\b")


# A first line under a title of any name that asks for something: "WHY: dyspnea, evaluate for edema".
_ASKS = re.compile(
    r"\s{0,200}(?!(?i:[^:\n]*\b(?:lungs?|chest|heart|pleura|pleural|bones?|mediastinum|airways?|ribs|lines|tubes|"
    r"devices|findings|impression|report|conclusion|opinion|comments?|summary)\b))([A-Za-z][A-Za-z /()?-]{1,38}):"
    r"(?=[^\n]{0,200}?(?:\?|(?i:\b(?:query|evaluate|eval|assess|rule out|r/o|exclude|look(?:ing)? for)\b)))"
    r"[^\n]*\n\s*\S"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A named part of a report; ``start`` and ``end`` are character places in it."""

    name: str
    start: int
    end: int


@functools.cache
def _names() -> dict[str, Any]:
    return tomllib.loads((resources.files("cxrprep.labels.nlp") / "data" / "sections.toml").read_text("utf-8"))


# Words that make a title part of a sentence: "Incidental Findings: old fractures"; the second, a title of some kinds
# alone: "Smoking History: ..." but "asthma, smoking Impression: ...".
_QUALIFIERS = (
    "no", "other", "incidental", "additional", "significant", "further", "new", "key", "main", "these", "following",
    "pertinent", "associated", "ancillary",
)  # fmt: skip
_OF_A_PERSON = ("physical", "surgical", "social", "family", "medical", "past", "smoking")


def _not_behind(words: Sequence[str]) -> str:
    return "".join(rf"(?<!\b[{word[0].upper()}{word[0]}]{word[1:]}[ \t])" for word in words)


_NO_QUALIFIER = rf"{_not_behind(_QUALIFIERS)}(?:{_not_behind(_OF_A_PERSON)}|(?!History|Exam|Findings?|Procedure))"
# "Clinical findings" asks, and findings that follow it have a title of their own; without one, where something was
# asked before, the first word ends what stands before: "Comparison: None. Clinical Findings: Lungs are clear."
_CLINICAL_FINDINGS = re.compile(r"(?i)clin(?:ical)?\.? (findings?)")


def _in_title_case(titles: str) -> str:
    """The titles with a capital at their beginning, whatever follows: "Clinical history" and "Clinical History"."""
    words = [title for title in titles.split("|") if title]
    return "|".join(f"{title[0].upper()}(?i:{title[1:]})" for title in words)


# Titles of a user's own: each with the section that it stands for, in lower case.
Titles = tuple[tuple[str, str], ...]


@functools.cache
def _plain_heading(shouted: bool, own: Titles = ()) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Titles of reports of any layout: those with a colon, and those with a dash or alone on a line."""
    # "Incidental findings: old fractures" is a sentence; "COUGH FINDINGS: clear" has a heading, unless all is capitals.
    listed = (*_names()["plain"]["titles"], *(title for title, _ in own))
    titles = "|".join(sorted((re.escape(title) for title in listed), key=len, reverse=True))
    asked = "|".join(_names()["plain"]["asked"])
    begin = rf"(?:^|[\n.;:!?])[ \t>#*_]{{0,40}}(?i:({titles}|{asked}))"
    if not shouted:
        # In a text without line ends a section may end without a full stop: "Indication: cough Comparison: none".
        begin = rf"(?:{begin}|(?<=[ \t])({titles.upper()})|{_NO_QUALIFIER}(?<=[ \t])({_in_title_case(titles)}))"
    # Titles without a colon have a line, or the start of one, to themselves.
    line = rf"(?:^|\n)[ \t]{{0,40}}(?:#{{1,6}}[ \t]*|\*\*|__)?(?i:({titles}|{asked}))"
    return (
        re.compile(rf"{begin}[ \t]{{0,4}}(?:\*\*|__)?[ \t]{{0,4}}:(?:\*\*|__)?"),
        re.compile(rf"{line}(?:[ \t*_#]{{0,8}}(?=\n)|[ \t]{{1,4}}-(?=[ \t]))"),
    )


def _headings(text: str, own: Titles) -> tuple[re.Match[str], ...]:
    """The titles of a text, in order."""
    with_colon, alone = _plain_heading(text.isupper(), own)
    found: list[re.Match[str]] = []
    end, colon, before = 0, text.find(":"), 0
    while colon >= 0:
        # A title stands right before its colon: to look for one everywhere took a third of the labeler's time.
        begin = max(end, before, colon - _LONGEST_TITLE)
        named = len(text[begin:colon].strip(_MARKS)) >= _SHORTEST_TITLE
        heading = with_colon.search(text, begin, colon + 3) if named else None
        if heading is not None:
            found.append(heading)
            end = heading.end()
        # No title holds a colon: each character is looked at once.
        before, colon = colon, text.find(":", max(end, colon + 1))
    if "\n" in text or "-" in text:
        found += alone.finditer(text)
    kept: list[re.Match[str]] = []
    for heading in sorted(found, key=lambda one: (one.start(), -one.end())):
        if not kept or heading.start() >= kept[-1].end():
            kept.append(heading)
    return tuple(kept)


def is_mimic_report(text: str) -> bool:
    """Whether a text has the form of a MIMIC-CXR report: its beginning, or a heading as its parser finds it."""
    return _MIMIC_START.match(text) is not None or _MIMIC_HEADING.search(text) is not None


def is_cut_by_hand(study: str) -> bool:
    """Whether the authors of MIMIC-CXR named the part of this study ("s50414267") that is read by hand."""
    table = _names()["by_hand"]
    return study in table["ranges"] or study in table["sections"]


# measured: 43 -> 38 ms of CPU for 300 times `label_report` of a report.
@functools.lru_cache(maxsize=64)
def check_sections(sections: str, own: Titles = ()) -> None:
    """Refuse what names no section: a report has none of that name, and the next in order would be read unsaid.

    Args:
        sections: those that are wanted, as ``section_order`` understands them.
        own: further titles, with the section that each stands for.

    Raises:
        UsageError: a name is neither that of a section nor declared in a vocabulary.
    """
    names = _names()
    titles = {**names["mimic"]["names"], **names["plain"]["names"], **dict(own)}
    known = {*titles.values(), *names["stated"]["names"]}
    for name in itertools.chain.from_iterable(section_order(sections)):
        if name not in known:
            near = did_you_mean(name, [*known, *titles], lambda word: word if word in known else titles[word])
            raise UsageError(
                f"no section of a report is called {name!r}",
                hint=f"{near}known: {', '.join(sorted(known))}; a title of your own: [sections] in a --vocabulary file",
            )


def canonical_name(heading: str, own: Titles = ()) -> str:
    """The section that a heading stands for: "CONCLUSION" is the impression, "CHEST, TWO VIEWS" the findings."""
    table = _names()["mimic"]
    name = heading.lower().strip()
    if name in dict(own):
        return dict(own)[name]
    known: str | None = table["names"].get(name)
    if known is not None:
        return known
    for main in table["containing"]:
        if main in name:
            return str(main)
    if any(part in name for part in table["views"]):
        return "findings"
    return name


def mimic_sections(text: str, own: Titles = ()) -> list[Section]:
    """The sections of a MIMIC-CXR report, as the collection's authors cut it; empty conclusions are left out.

    A copy whose lines have lost their leading blank is cut as if they had it.
    """
    dedented = "\n " not in text
    pattern = _DEDENTED_HEADING if dedented else _MIMIC_HEADING
    # In the originals a blank line holds a blank; a copy that has not one of them has lost those too.
    blank_line = _BLANK_LINE if _BLANK_LINE in text else "\n\n"
    found: list[Section] = []
    heading = pattern.search(text)
    if heading is None:
        found.append(Section("full report", 0, len(text)))
    else:
        found.append(Section("preamble", 0, heading.start(1)))
    while heading is not None:
        # The rest of a heading's own line is never a heading: "COMPARISON: ...".
        begin = heading.end()
        line_end = text.find("\n", begin)
        following = pattern.search(text, line_end if line_end >= 0 else begin)
        stop = following.start() if following else len(text)
        name = canonical_name(heading[1], own)
        if name not in ("impression", "findings") or text[begin:stop].strip():
            found.append(Section(name, begin, stop))
        heading = following
    if not any(section.name in ("impression", "findings") for section in found):
        last = found[-1]
        cut = text.find(blank_line, last.start, last.end)
        if cut >= 0:
            found[-1] = Section(last.name, last.start, cut)
            found.append(Section("last_paragraph", cut + len(blank_line), last.end))
    return found


def plain_sections(text: str, own: Titles = ()) -> list[Section]:
    """The sections of any other text, by known titles in any case; none where the text has no such title."""
    return [section for _, section in _titled(text, own) if text[section.start : section.end].strip()]


def _titled(text: str, own: Titles) -> list[tuple[int, Section]]:
    """Where each title begins, and its section; empty ones too."""
    if ":" not in text and "\n" not in text:
        return []
    headings = [*_headings(text, own)]
    asked = _ASKS.match(text)
    if asked is not None and not (headings and headings[0].start(headings[0].lastindex or 0) <= asked.start(1)):
        headings.insert(0, asked)
    if not headings:
        return []
    spans = [heading.span(heading.lastindex or 0) for heading in headings]
    names = [dict(own).get(title) or _name_of_title(title) for title in (text[a:b].lower() for a, b in spans)]
    if "findings" not in names:
        for index, (begin, end) in enumerate(spans):
            split = _CLINICAL_FINDINGS.fullmatch(text, begin, end)
            if split is not None and "indication" in names[:index]:
                spans[index], names[index] = split.span(1), "findings"
    found = []
    ends = [*(begin for begin, _ in spans[1:]), len(text)]
    for heading, (begin, _), name, end in zip(headings, spans, names, ends, strict=True):
        start = text.index(":", begin) + 1 if heading is asked else heading.end()
        found.append((begin, Section(name, start, max(start, end))))
    return found


def _name_of_title(title: str) -> str:
    """The section that a title of any layout stands for; one that is not listed asks for the study."""
    plain = _names()["plain"]
    return plain["names"].get(title) or (canonical_name(title) if title in _listed_titles() else "indication")


@functools.cache
def _listed_titles() -> frozenset[str]:
    return frozenset(_names()["plain"]["titles"])


def _around_titles(text: str, own: Titles) -> list[Section]:
    """What stands around the titles of a text that has none for its findings: the report itself.

    What was asked and how it was done is left out, to the end of its paragraph where it has one, else of its line or,
    in a text of one line, of its sentence.
    """
    unread = set(_names()["plain"]["unread"])
    pieces, begin = [], 0
    for title, section in _titled(text, own):
        if section.name in unread:
            pieces.append(Section("report", begin, title))
            begin = _end_of_body(text, section)
    pieces.append(Section("report", begin, len(text)))
    return [piece for piece in pieces if re.search(r"[A-Za-z]{2}", text[piece.start : piece.end])]


def _end_of_body(text: str, section: Section) -> int:
    body = text[section.start : section.end]
    begin = len(body) - len(body.lstrip())
    blank = _ANY_BLANK_LINE.search(body, begin)
    if blank is not None:
        return section.start + blank.start()
    line = body.find("\n", begin)
    if line >= 0:
        return section.start + line
    stop = _END_OF_SENTENCE.search(body, begin)
    return section.start + stop.end() if stop is not None and "\n" not in text.strip() else section.end


@functools.cache
def _points_back() -> re.Pattern[str]:
    return re.compile("|".join(_names()["plain"]["points_back"]), re.IGNORECASE | re.DOTALL)


def points_back(body: str) -> bool:
    """Whether a conclusion says nothing of its own: "As above.", "See findings.", "Discussed with the ward"."""
    if len(body) > _LONGEST_POINTER:
        return False
    body, begin, pointed = _DOT_OF_A_TITLE.sub("", body), 0, False
    # Most conclusions say something in their first sentence: what follows it is not looked at.
    ends = (stop.span() for stop in _PARTS.finditer(body))
    for end, following in itertools.chain(ends, [(len(body), 0)]):
        part = " ".join(body[begin:end].split()).strip("*#-:;,_ ")
        if _LETTER.search(part):
            if not _points_back().fullmatch(part):
                return False
            pointed = True
        begin = following
    return pointed


def _only_headings(text: str, own: Titles) -> bool:
    if ":" not in text:
        return False
    rest, begin = [], 0
    for heading in _headings(text, own):
        rest.append(text[begin : heading.start()])
        begin = heading.end()
    return not "".join((*rest, text[begin:])).strip()


def chosen_sections(
    text: str, sections: str, *, study: str = "", mimic: bool | None = None, own: Titles = ()
) -> list[Section]:
    """The sections that are read, in their order in ``text``: mostly one, none where nothing can be read.

    Args:
        text: the report.
        sections: those that are wanted, as ``section_order`` understands them. Where they are named one by one nothing
            else is read; a report without titles is then the section ``report``.
        study: a MIMIC-CXR study ("s50414267"): for some the authors name the part by hand.
        mimic: tells that the text is a MIMIC-CXR file; ``None`` looks.
        own: further titles, with the section that each stands for.

    Returns:
        The sections with their places in the text.
    """
    order = section_order(sections)
    if not order:
        return [Section("report", 0, len(text))]
    named = sections not in tuple(Sections)
    if mimic is None:
        mimic = is_mimic_report(text)
    if mimic:
        by_hand = None if named else _by_hand(text, study)
        if by_hand is not None:
            return by_hand
        found = mimic_sections(text, own)
        if all(section.name == "full report" for section in found):
            found = plain_sections(text, own) or found
    else:
        # What follows are codes and signatures.
        # A search in any case costs six times a look for the words in lower case.
        end = _END_OF_IMPRESSION.search(text) if "end of" in text.lower() else None
        if end is not None and text[: end.start()].strip():
            text = text[: end.start()]
        found = plain_sections(text, own)
        if not found:
            whole = [] if _only_headings(text, own) else [Section("report", 0, len(text))]
            return _choice(text, whole, order) if named else whole
        if not any(section.name in ("impression", "findings") for section in found):
            around = _around_titles(text, own)
            if not named:
                return around
            found += around
    return _choice(text, found, order)


def _choice(text: str, found: list[Section], order: Sequence[Sequence[str]]) -> list[Section]:
    last = {section.name: section for section in found}
    if "full report" in last and len(last) == 1:
        last["report"] = last["full report"]
    impression = last.get("impression")
    if impression is not None and len(last) > 1 and points_back(text[impression.start : impression.end]):
        # "IMPRESSION: As above.": what it points to is read.
        del last["impression"]
    for group in order:
        there = [last[name] for name in group if name in last]
        if there:
            return sorted(there, key=lambda section: section.start)
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
