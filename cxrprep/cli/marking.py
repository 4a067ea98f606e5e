"""A report with its mentions marked, and the reasons as rows."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cxrprep.cli.output import Output
    from cxrprep.labels.report.results import ReportLabels

_MARKS: Final = {1: "+", 0: "-", -1: "?"}
_COLORS: Final = {1: "red", 0: "green", -1: "yellow"}
_WORDS: Final = {1: "1  positive", 0: "0  negative", -1: "-1 uncertain"}


def marked(out: Output, text: str, answer: ReportLabels) -> str:
    """``text`` with each mention in its colour, or in brackets with its sign where there are no colours.

    With colours, what was not read is dim.
    """
    pieces: list[str] = []
    done = 0
    read_from, read_to = (answer.start, answer.end) if answer.section else (len(text), len(text))

    def plain(begin: int, end: int) -> None:
        for first, last, dim in (
            (begin, min(end, read_from), True),
            (max(begin, read_from), min(end, read_to), False),
            (max(begin, read_to), end, True),
        ):
            if first < last:
                shown = _printable(text[first:last])
                pieces.append(out.styled(shown, out.stdout, dim=True) if dim and answer.section else shown)

    for mention in sorted(answer.mentions, key=lambda m: (m.start, -m.end)):
        if mention.start < done:
            # Two observations share the words; the first has marked them, the table names both.
            continue
        status = int(mention.status)
        words = _printable(text[mention.start : mention.end])
        shown = (
            out.styled(words, out.stdout, fg=_COLORS[status], bold=True)
            if out.colors(out.stdout)
            else f"[{_MARKS[status]}{words}]"
        )
        plain(done, mention.start)
        pieces.append(shown)
        done = mention.end
    plain(done, len(text))
    read = f"{answer.status.value}; read: {answer.section or 'nothing'}"
    return "".join(pieces).rstrip() + f"\n\n{out.styled(read, out.stdout, dim=True)}\n"


def _printable(text: str) -> str:
    # A report is foreign text: its control characters must not reach the terminal.
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def reasons(answer: ReportLabels) -> list[dict[str, Any]]:
    """A row for each mention, then the observations that got a label without one, then nothing for the others."""
    rows = []
    named = set()
    for mention in sorted(answer.mentions, key=lambda m: (m.observation, m.start)):
        first = mention.observation not in named
        named.add(mention.observation)
        rows.append(
            {
                "observation": mention.observation if first else "",
                "label": _word(answer.labels.get(mention.observation)) if first else "",
                "phrase": _printable(" ".join(mention.phrase.split())),
                "reason": _printable(mention.reason),
            }
        )
    rows += [
        {"observation": name, "label": _word(label), "phrase": "", "reason": "follows from the others"}
        for name, label in answer.labels.items()
        if label is not None and name not in named
    ]
    return rows


def _word(label: int | None) -> str:
    return "not mentioned" if label is None else _WORDS[label]


def as_plain(answer: ReportLabels) -> dict[str, Any]:
    """The answer as plain values, ready for JSON."""
    mentions = [{**dataclasses.asdict(mention), "reason": mention.reason} for mention in answer.mentions]
    return {**dataclasses.asdict(answer), "mentions": mentions}
