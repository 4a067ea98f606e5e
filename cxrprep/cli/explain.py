"""``cxrprep explain``: one report, its mentions marked, and the reason for each label."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cxrprep.cli import completers
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.cli.output import Output
    from cxrprep.labels.nlp.results import ReportLabels


@verb(
    "explain",
    asks=True,
    examples=(
        ("cxrprep explain s50414267.txt", "one report"),
        ('echo "No effusion. Possible edema." | cxrprep explain -', "from standard input"),
        ("cxrprep explain --selftest", "whether this installation labels as it should"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), metavar="[FILE]", required=False)
@setting("labels.policy", "--policy", metavar="NAME", shell_complete=completers.policy)
@setting(
    "labels.policy",
    "--compat",
    type=click.Choice(["chexpert-labeler"]),
    text="decide each label as the original CheXpert labeler does, its known errors included",
)
@setting("labels.sections", "--sections", metavar="NAMES", shell_complete=completers.section)
@setting("labels.vocabulary", "--vocabulary", metavar="FILE")
@click.option("--selftest", is_flag=True, help="run the labeler's own examples instead")
def command(invocation: Invocation, file: Path | None, *, selftest: bool) -> int:
    """Label one report and show why: every mention in its place, its status, and the cue that decided."""
    from cxrprep.api.report_labels import check_labeler, label_report
    from cxrprep.errors import UsageError

    out, labels = invocation.out, invocation.job.labels
    if selftest:
        given = [] if file is None else [str(file)]
        given += [option for key, (_, option) in invocation.flags.items() if key.startswith("labels.")]
        if given:
            raise UsageError(
                f"--selftest runs examples that state their own policy and rules: it does not take {given[0]}",
                hint="leave out one of the two",
            )
        return out.result("The report labeler's own examples", check_labeler(), command="explain")
    if file is None:
        raise UsageError("which report?", hint="name a text file, or - for standard input")
    text = read_report(file)
    answer = label_report(
        text, policy=labels.policy, rules=invocation.path(labels.vocabulary), sections=labels.sections
    )
    out.text(marked(out, text, answer), as_plain(answer))
    rows = reasons(answer)
    if out.form == "human" and rows:
        out.table(rows, {"observation": "Observation", "label": "Label", "phrase": "Phrase", "reason": "Reason"})
    return 0


def read_report(file: Path) -> str:
    """The text of one report; ``-`` is standard input. Raises ``UsageError`` that names the file."""
    from cxrprep.errors import UsageError

    limit = 50_000_000
    from_pipe = str(file) == "-"
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if from_pipe else file.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}", hint="name a text file with one report, or - for standard input"
        ) from error
    if len(data) > limit:
        raise UsageError(f"{file} is too large for one report", hint=_ONE_REPORT)
    return _decoded(data, "standard input" if from_pipe else str(file))


_ONE_REPORT: Final = "name a text file with one report; for many reports: cxrprep extract-labels ROOT --reports FILE"
# So many lines with as many cells as each other are rows of a table.
_ROWS: Final = 4
# How files begin that people take for a report, and that are none.
_NO_TEXT: Final = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive or an office document",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet table",
    b"{\\rtf": "an RTF document",
    b"GIF8": "a GIF image",
}


def _decoded(data: bytes, name: str) -> str:
    """The text that ``data`` holds, in UTF-8 or what its byte order mark says. Raises ``UsageError`` for no text."""
    from cxrprep.errors import UsageError
    from cxrprep.storage.small_files import encoding_of

    if (encoding := encoding_of(data)).startswith("utf-16"):
        return data.decode(encoding, errors="replace")
    kind = next((what for head, what in _NO_TEXT.items() if data.startswith(head)), "")
    if data[128:132] == b"DICM":
        kind = "a DICOM file"
    controls = sum(byte < 9 or 13 < byte < 32 for byte in data[:4096])
    # A few may come with a terminal's colours.
    if not kind and (b"\0" in data or controls > max(8, len(data[:4096]) // 20)):
        kind = "binary data"
    text = data.decode(encoding, errors="replace")
    kind = kind or _form_of_text(text)
    if kind:
        raise UsageError(f"{name} is {kind}, not a report", hint=_ONE_REPORT)
    return text


def _form_of_text(text: str) -> str:
    """What a text is that is no report, as far as its beginning shows; ``""`` for any other."""
    begin = text[:200].lstrip().lower()
    if begin.startswith(("<!doctype html", "<html")):
        return "a web page"
    if begin.startswith(("{", "[")):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return "JSON"
    lines = text.splitlines()[:_ROWS]
    # Sentences do not have the same number of commas in line after line.
    cells = {(line.count(","), line.count("\t")) for line in lines}
    alike = len(lines) == _ROWS and len(cells) == 1 and max(*cells.pop()) >= _ROWS - 1
    return "a table" if alike else ""


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
