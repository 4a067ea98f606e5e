"""``cxrprep prove``: whether a folder is the training set of a digest, or an image is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cxrprep.cli import options
from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.cli.context import Invocation


@verb(
    "prove",
    examples=(
        ("cxrprep prove 5d7e...91c0 /data/nih/derived/square-224", "exit code 4 when it is another set"),
        ("cxrprep prove 5d7e...91c0 /data/nih/derived/square-224 --image 00000013_005 --out in.json", "for one image"),
        ("cxrprep prove 5d7e...91c0 --proof in.json", "checked without the images"),
    ),
)
@click.argument("digest", metavar="DIGEST")
@options.folder
@click.option("--image", metavar="ID", help="also make a proof that this image is in the set")
@options.path("--out", "FILE", "where that proof is written, as JSON")
@options.path("--proof", "FILE", "check a proof; no folder is needed")
@options.training_set
def command(
    invocation: Invocation, digest: str, image: str | None, out: Path | None, proof: Path | None, **texts: Any
) -> int:
    """Check that the training set in ROOT has the digest DIGEST, or that one image is in the set that has it.

    Label policy, split and selection have to be those that the digest was made with.
    """
    from cxrprep.api.digest import prove
    from cxrprep.cli.arguments import export_arguments

    if proof is not None:
        result = prove(digest, proof=proof)
    else:
        with invocation.events() as sink:
            result = prove(digest, **export_arguments(invocation), **texts, image=image, out=out, on_event=sink)
    return invocation.out.result("The digest holds", result, command="prove", failed="The digest does not hold")
