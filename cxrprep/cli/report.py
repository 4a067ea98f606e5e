"""``cxrprep report``: one HTML page about a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


@verb(
    "report",
    examples=(
        ("cxrprep report /data/nih", "manifests/report.html: open it in any browser"),
        ("cxrprep report /data/nih --out nih.html --images 60", "elsewhere, with a larger contact sheet"),
        ("cxrprep report /data/nih --beside /data/chexpert", "two folders side by side"),
    ),
)
@options.folder
@options.release
@setting("report.out", "--out", metavar="FILE", shell_complete=completers.file)
@setting("report.images", "--images")
@setting("report.beside", "--beside", metavar="DIR", shell_complete=completers.folder)
def command(invocation: Invocation) -> int:
    """Write one self-contained HTML page: counts against the published facts, labels, co-occurrence, ages, splits.

    It holds no report text, and no identifier beyond the dataset's own; it needs no network and no JavaScript.
    """
    with invocation.events() as sink:
        result = perform(invocation, sink)
    following = (f"open {result.value.path} in a browser",)
    return invocation.out.result(f"Report of {invocation.root}", result, command="report", following=following)


def perform(invocation: Invocation, sink: Sink) -> Any:
    """The verb itself, with the settings of this call."""
    from cxrprep.api.report import report
    from cxrprep.cli.arguments import folder_of

    about = invocation.job.report
    return report(
        folder_of(invocation),
        out=invocation.path(about.out),
        thumbnails=about.images,
        beside=invocation.path(about.beside),
        on_event=sink,
    )
