"""``cxrprep digest``: 64 digits that name a training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.cli import options
from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation


@verb(
    "digest",
    examples=(
        ("cxrprep digest /data/nih/derived/square-224", "the digest to cite"),
        ("cxrprep digest /data/chexpert --uncertain ones --split train", "of the training part with U-Ones"),
    ),
)
@options.folder
@options.training_set
def command(invocation: Invocation, **texts: Any) -> int:
    """Print the digest of the training set in ROOT: images by their pixels, labels after the policy, splits, boxes.

    Paths, order, times, encoders, shards and engines are not in it: copies with the same images and labels have the
    same digest.
    """
    from cxrprep.api.digest import digest
    from cxrprep.cli.arguments import export_arguments

    with invocation.events() as sink:
        result = digest(**export_arguments(invocation), **texts, on_event=sink)
    if invocation.out.form == "human":
        invocation.out.text(result.value.value, None)
        options = "" if len(invocation.flags) == 1 else " with the same options"
        invocation.out.note(
            f"to check a copy of these images{options}: cxrprep prove {result.value.value} {invocation.where}",
            level="next",
        )
        return 0
    return invocation.out.result("Digest", result, command="digest")
