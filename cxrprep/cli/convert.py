"""``cxrprep convert``: training images by a named recipe, here or on a cluster."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


@verb(
    "convert",
    examples=(
        ("cxrprep convert /data/nih --recipe square-224", "224 x 224 PNG into /data/nih/derived/square-224"),
        ("cxrprep convert /data/mimic --recipe mimic-cxr-jpg --jobs 8", "as MIMIC-CXR-JPG was made"),
        ("cxrprep convert /data/mimic --recipe shortest-512 --preview 12", "look before a million files are made"),
        (
            "cxrprep convert /data/mimic --recipe shortest-512 --engine dask --scheduler tcp://head:8786",
            "on a Dask cluster",
        ),
        ("cxrprep convert /hospital/dicom --recipe square-512 --out /data/ours", "a plain folder of DICOM files"),
        ("cxrprep convert /hospital/dicom --check-phi", "which tags of it look like an identity"),
        ("cxrprep convert /data/nih --recipe square-224 --to parquet", "for load_dataset, labels beside the images"),
    ),
)
@options.folder
@setting("convert.recipe", "--recipe", metavar="NAME|FILE", shell_complete=completers.recipe)
@setting("convert.out", "--out", metavar="DIR")
@setting("convert.to", "--to")
@setting("convert.per_shard", "--per-shard")
@options.tables
@click.option(
    "--preview",
    type=click.IntRange(min=1),
    metavar="N",
    help="write a page with N example images, and convert nothing else",
)
@click.option("--check-phi", is_flag=True, help="list DICOM tags that look like an identity, and convert nothing")
@setting("convert.frame", "--frame", metavar="N")
@setting("convert.scores", "--scores")
@setting("convert.fix", "--fix", metavar="WHAT", shell_complete=completers.fix)
@setting("convert.max_pixels", "--max-pixels")
@setting("convert.max_bytes", "--max-bytes")
@setting("convert.max_seconds", "--max-seconds")
@options.allow_loss
@options.selection
@options.engine
def command(invocation: Invocation, preview: int | None, check_phi: bool) -> int:
    """Make training images of ROOT by a recipe; boxes follow the pixels, and a manifest lies beside them.

    Run it again after anything: a finished image is recognised by its recipe and its source, not by its name alone.
    Another selection into the same --out adds to its files and to its manifest; shards (--to) are replaced.
    """
    where, recipe, place = invocation.where, invocation.job.convert.recipe, invocation.job.convert.out
    whole = f"cxrprep convert {where} --recipe {shlex.quote(recipe or 'square-224')}"
    whole += f" --out {shlex.quote(place)}" if place else ""
    with invocation.events() as sink:
        if check_phi:
            headline, following = f"Tags of {invocation.root} that look like an identity", whole
            result = perform_phi(invocation, sink)
            following += "" if place else " --out DIR"
        elif preview:
            headline, following = f"Preview of {recipe}", whole
            result = perform_preview(invocation, sink, count=preview)
            # Without a place of its own the page lies beside the command.
            following += " --out DIR" if result.value.path.name != "preview.html" else ""
        else:
            result = perform(invocation, sink)
            headline = f"Converted {invocation.root}"
            if result.value.kept == result.value.images > 0:
                headline = f"All images of {invocation.root} were converted before"
            # Of a bucket the value has the paths of its working copy.
            out = shlex.quote(str((result.data or {}).get("out", result.value.out)))
            # Of a part alone verify would say that the others are missing.
            status = f"cxrprep status {out if invocation.job.convert.out else where}"
            following = f"cxrprep verify {out}" if invocation.shard is None else status
    last = ["when every part has run, the same once without --shard lists all images"] if invocation.shard else []
    return invocation.out.result(headline, result, command="convert", following=(following, *last))


def perform(invocation: Invocation, sink: Sink) -> Any:
    """The verb itself, with the settings of this call."""
    from cxrprep.api.convert import convert
    from cxrprep.cli.arguments import convert_arguments

    return convert(**convert_arguments(invocation), on_event=sink)


def perform_phi(invocation: Invocation, sink: Sink) -> Any:
    """Looks for tags with an identity; nothing is converted."""
    from cxrprep.api.phi import check_phi
    from cxrprep.cli.arguments import engine_of, limits_of, source_arguments

    looking = source_arguments(invocation)
    return check_phi(**looking, limits=limits_of(invocation), engine=engine_of(invocation), on_event=sink)


def perform_preview(invocation: Invocation, sink: Sink, count: int = 0) -> Any:
    """Writes a contact sheet of ``count`` images, by default as many as the job says."""
    from cxrprep.api.preview import preview
    from cxrprep.cli.arguments import preview_arguments

    return preview(**preview_arguments(invocation), count=count or invocation.job.convert.preview, on_event=sink)
