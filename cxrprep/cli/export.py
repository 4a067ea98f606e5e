"""``cxrprep export``: the manifest in the forms that other tools open."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting
from cxrprep.config.job import FORMATS
from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


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
@setting("export.format", "--format", metavar="NAME")
@setting("export.out", "--out", metavar="PATH")
@options.labels_handed_on
@setting("export.text", "--text", metavar="SECTION,...", shell_complete=completers.section)
@setting("export.pairs", "--pairs", metavar="FILE")
@setting("export.paired", "--paired")
@options.split("--split-seed")
@options.selection
@options.cluster
def command(invocation: Invocation) -> int:
    """Export the manifest of ROOT, with the label policy applied."""
    with invocation.events() as sink:
        result = perform(invocation, sink)
    made = result.value
    # One file with its card has no folder of its own that verify could look at.
    cards = [path for path in made.files if path.name.endswith("README.md")]
    where = shlex.quote(str(made.out))
    following = [f"cxrprep verify {where}"] if made.out.is_dir() else [f"read {card}" for card in cards]
    return invocation.out.result(f"Exported {invocation.root}", result, command="export", following=following)


def perform(invocation: Invocation, sink: Sink, root: Path | None = None) -> Any:
    """The verb itself, with the settings of this call; ``root`` in the place of the job's own."""
    from cxrprep.api.export import export
    from cxrprep.cli.arguments import engine_of, export_arguments

    about = invocation.job.export
    if not about.format:
        hint = "cxrprep export --help shows every option"
        raise UsageError(f"--format is missing; one of {', '.join(FORMATS)}", hint=hint)
    what = export_arguments(invocation) | ({"root": root} if root else {})
    texts: dict[str, Any] = {"text": about.text, "pairs": invocation.path(about.pairs), "paired": about.paired}
    out, engine = invocation.path(about.out), engine_of(invocation)
    return export(**what, **texts, form=about.format, out=out, engine=engine, on_event=sink)


def perform_step(invocation: Invocation, sink: Sink) -> Any:
    """The step of a job, which may export what another step made."""
    return perform(invocation, sink, invocation.path(invocation.job.export.root))
