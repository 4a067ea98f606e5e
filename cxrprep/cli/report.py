"""``cxrprep report``: one HTML page about a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation


@verb(
    "report",
    examples=(
        ("cxrprep report /data/nih", "manifests/report.html: open it in any browser"),
        ("cxrprep report /data/nih --out nih.html --images 60", "elsewhere, with a larger contact sheet"),
    ),
)
@options.folder
@options.release
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="default: ROOT/manifests/report.html")
@click.option("--images", type=click.IntRange(0, 500), default=24, metavar="N", help="images on the contact sheet [24]")
def command(invocation: Invocation, out: Path | None, images: int) -> int:
    """Write one self-contained HTML page: counts against the published facts, labels, co-occurrence, ages, splits.

    It holds no report text, and no identifier beyond the dataset's own; it needs no network and no JavaScript.
    """
    from cxrprep.api.report import report
    from cxrprep.cli.arguments import folder_arguments

    with invocation.events() as sink:
        result = report(**folder_arguments(invocation), out=out, thumbnails=images, on_event=sink)
    return invocation.out.result(f"Report of {invocation.root}", result, command="report")
