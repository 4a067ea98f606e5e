"""``cxrprep manifest``: build ``images.parquet`` and ``studies.parquet`` again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.cli import options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting
from cxrprep.errors import UsageError

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


@verb(
    "manifest",
    examples=(
        ("cxrprep manifest /data/nih", "a row for each image that is here"),
        ("cxrprep manifest /data/chexpert --label-source visualchexbert", "with the labels of another labeler"),
        ("cxrprep manifest /data/nih --split-by patient --fractions 0.8,0.1,0.1 --seed 7", "with a split of your own"),
        (
            "cxrprep manifest /data/nih --split-within train_val --fractions 0.9,0.1",
            "with a validation part, which NIH's release has not",
        ),
    ),
)
@options.folder
@options.tables
@setting("labels.derive", "--derive")
@options.label_policy
@options.allow_loss
@options.split("--seed", "--split-seed")
def command(invocation: Invocation) -> int:
    """Build the manifest of ROOT again, with other labels or another split; the other commands keep it up to date."""
    if "tables" in invocation.flags:
        # It would have no effect, and somebody who names a folder expects one.
        raise UsageError(
            "manifest joins the tables that were read before, and reads none",
            hint=f"cxrprep extract-labels {invocation.where} --tables DIR",
        )
    with invocation.events() as sink:
        result = perform(invocation, sink)
    following = (f"cxrprep report {invocation.where}",)
    return invocation.out.result(f"Manifest of {invocation.root}", result, command="manifest", following=following)


def perform(invocation: Invocation, sink: Sink) -> Any:
    """The verb itself, with the settings of this call."""
    from cxrprep.api.manifest import build_manifest
    from cxrprep.cli.arguments import manifest_arguments

    return build_manifest(**manifest_arguments(invocation), on_event=sink)
