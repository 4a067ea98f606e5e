"""``cxrprep duplicates``: images that show one exposure, or one patient under two names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from cxrprep.api.duplicates import DuplicatesResult
    from cxrprep.cli.context import Invocation


@verb(
    "duplicates",
    examples=(
        ("cxrprep duplicates /data/nih/derived/square-224", "copies, and patients that lie in two splits"),
        ("cxrprep duplicates /data/nih --against /data/openi --least 0.65", "the same exposure in two collections"),
    ),
)
@options.folder
@options.path("--against", "FOLDER", "compare with FOLDER too; repeatable", multiple=True)
@click.option(
    "--least",
    type=float,
    metavar="NUMBER",
    help="lowest correlation to list, from 0.3 (same patient) to 1; the same exposure has 0.65 or more",
)
@options.path("--out", "FILE", "default: ROOT/manifests/near_duplicates.parquet")
@options.selection
def command(invocation: Invocation, **chosen: Any) -> int:
    """Find images of ROOT that show the same exposure as another one, or the same patient under another name.

    Altered copies are found too: inverted, mirrored, brighter, slightly turned or cropped, with text or a border. They
    are listed with their splits, the most alike first; nothing is removed.
    """
    from cxrprep.api.duplicates import duplicates
    from cxrprep.cli.arguments import source_arguments

    with invocation.events() as sink:
        result = duplicates(**source_arguments(invocation), **chosen, on_event=sink)
    following = (_following(result.value) or f"cxrprep report {invocation.where}",)
    headline = f"Compared the images of {invocation.root}"
    return invocation.out.result(headline, result, command="duplicates", following=following)


def _following(found: DuplicatesResult) -> str:
    if found.across_splits:
        return f"look at the pairs in two splits (across_splits) in {found.path} before you test a model"
    return f"look at the pairs in {found.path}" if found.same_exposure or found.related else ""
