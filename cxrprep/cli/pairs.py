"""``cxrprep pairs``: images with their reports by sections."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.cli.context import Invocation

FILTERS = (
    "all", "official", "findings", "findings-frontal-1", "findings-or-impression-frontal-3w",
    "both-views-both-sections", "findings-2w", "openi-r2gen",
)  # fmt: skip
TEXTS = ("as-is", "one-blank", "r2gen-mimic", "r2gen-iu", "mgca")


@verb(
    "pairs",
    examples=(
        ("cxrprep pairs /data/mimic --filter findings --per image", "R2Gen's pairs, a row per image"),
        ("cxrprep pairs /data/mimic --filter official --format json --text r2gen-mimic", "an annotation.json"),
        ("cxrprep pairs NLMCXR_reports.tgz --filter openi-r2gen --out openi.parquet", "the 2,955 studies of Open-i"),
    ),
)
@options.folder
@options.tables
@options.path("--reports", "PATH", "a zip, folder, CSV or XML; default: in ROOT")
@click.option(
    "--filter", type=click.Choice(FILTERS), default="all", metavar="NAME", help="which pairs: " + ", ".join(FILTERS)
)
@click.option(
    "--per", type=click.Choice(["study", "image"]), default="study", help="one row for each study, or for each image"
)
@click.option(
    "--text",
    type=click.Choice(TEXTS),
    default="as-is",
    metavar="FORM",
    help="how the text is written: " + ", ".join(TEXTS),
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "json"]),
    default="parquet",
    help="file format of the table",
)
@options.path("--out", "FILE", "default: ROOT/manifests/pairs.parquet")
def command(invocation: Invocation, **chosen: Any) -> int:
    """Write the image-report pairs of ROOT: images by view, sections, prior study, split, word counts.

    Named filters reproduce published recipes and say where their counts differ. Report text is under the release's
    agreement: the table holds it because you asked for it.
    """
    from cxrprep.api.pairs import pairs
    from cxrprep.cli.arguments import folder_of

    with invocation.events() as sink:
        result = pairs(folder_of(invocation), **chosen, on_event=sink)
    headline = f"Paired images and reports of {invocation.root}"
    following = _following(invocation, result.value.path)
    return invocation.out.result(headline, result, command="pairs", following=following)


def _following(invocation: Invocation, table: Path) -> tuple[str, ...]:
    """An export with the text, where there are images to go with it."""
    manifests = (invocation.state or invocation.root) / "manifests"
    if table.suffix != ".parquet" or not (manifests / "images.parquet").is_file():
        return ()
    other = "" if table.parent == manifests else f" --pairs {shlex.quote(str(table))}"
    return (f"cxrprep export {invocation.where} --format webdataset --text findings,impression --paired{other}",)
