"""``cxrprep explain``: one report, its mentions marked, and the reason for each label."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxrprep.cli.help import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.invocation import Invocation


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
@setting("labels.policy", "--policy", metavar="NAME")
@setting(
    "labels.policy",
    "--compat",
    type=click.Choice(["chexpert-labeler"]),
    text="add mentions up as the reference labeler does",
)
@setting("labels.vocabulary", "--vocabulary", metavar="FILE")
@click.option("--selftest", is_flag=True, help="run the labeler's own examples instead")
def command(invocation: Invocation, file: Path | None, *, selftest: bool) -> int:
    """Label one report and show why: every mention in its place, its status, and the cue that decided."""
    from cxrprep import api
    from cxrprep.cli.marking import as_plain, marked, reasons
    from cxrprep.errors import UsageError

    out, labels = invocation.out, invocation.job.labels
    if selftest:
        return out.result("The report labeler's own examples", api.check_labeler(), command="explain")
    if file is None:
        raise UsageError("which report?", hint="name a text file, or - for standard input")
    text = read_report(file)
    answer = api.label_report(text, policy=labels.policy, rules=invocation.path(labels.vocabulary))
    out.text(marked(out, text, answer), as_plain(answer))
    rows = reasons(answer)
    if out.form == "human" and rows:
        out.table(rows, {"observation": "Observation", "label": "Label", "phrase": "Phrase", "reason": "Reason"})
    return 0


def read_report(file: Path) -> str:
    """The text of one report; ``-`` is standard input. Raises ``UsageError`` that names the file."""
    from cxrprep.errors import UsageError

    limit = 50_000_000
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}", hint="name a text file with one report, or - for standard input"
        ) from error
    if len(data) > limit:
        raise UsageError(f"{file} is too large for one report", hint="for many reports: extract-labels --reports")
    return data.decode("utf-8", errors="replace")
