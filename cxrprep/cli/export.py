"""``cxrprep export``: the manifest in the forms that other tools open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation

FORMATS = ("csv", "coco", "webdataset", "hf", "original")


@verb(
    "export",
    examples=(
        ("cxrprep export /data/chexpert --format csv --uncertain ones", "plain CSV with U-Ones"),
        (
            "cxrprep export /data/chexpert --format csv --observations chexpert-competition --uncertain ignore",
            "the five of the competition, with masks",
        ),
        ("cxrprep export /data/nih --format coco --out boxes.json", "NIH's boxes for a detector"),
        (
            "cxrprep export /data/mimic/derived/square-224 --format webdataset --text findings,impression --paired",
            "images with the sections of their reports; cxrprep pairs cut them",
        ),
        ("cxrprep export /data/nih/derived/square-224 --format hf --out /data/nih-hf", "a folder for load_dataset"),
    ),
)
@options.folder
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    metavar="NAME",
    help="csv, coco (boxes), webdataset (tar shards), hf (for load_dataset) or original (the release's own CSV)",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="where it goes; default: ROOT/export/NAME")
@options.label_policy
@setting(
    "labels.observations",
    "--observations",
    section="Labels",
    metavar="NAME",
    shell_complete=options.complete_observations,
)
@setting("labels.derive", "--derive", section="Labels")
@options.report_text
@options.split("--split-seed")
@options.selection
def command(invocation: Invocation, form: str, out: Path | None, **texts: Any) -> int:
    """Export the manifest of ROOT, with the label policy applied."""
    from cxrprep.api.export import export
    from cxrprep.cli.arguments import export_arguments

    with invocation.events() as sink:
        result = export(**export_arguments(invocation), **texts, form=form, out=out, on_event=sink)
    return invocation.out.result(f"Exported {invocation.root}", result, command="export")
