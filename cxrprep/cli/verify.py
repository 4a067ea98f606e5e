"""``cxrprep verify``: is what I have complete, unaltered, and what the paper describes?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.cli.options import setting

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation
    from cxrprep.events import Sink


@verb(
    "verify",
    examples=(
        ("cxrprep verify /data/nih", "every file against its published checksum, and the published facts"),
        ("cxrprep verify /data/nih --images", "decode every image as well"),
        ("cxrprep verify /data/nih --quick", "in a second: size and time as at the last full check"),
        ("cxrprep verify /mnt/lab/nih --dataset nih-chestxray14 --state ~/nih", "a read-only copy that others made"),
        ("cxrprep verify /data/nih --strict --accept wrong-mode", "for CI: a known quirk is accepted by its name"),
        ("cxrprep verify /data/nih --repair", "fetch again what is wrong"),
    ),
)
@options.folder
@options.tables
@setting("verify.images", "--images")
@setting("verify.sample", "--sample")
@setting("verify.quick", "--quick")
@setting("verify.duplicates", "--duplicates")
@setting("verify.complete", "--complete")
@setting("verify.strict", "--strict")
@setting("verify.accept", "--accept", metavar="KIND", shell_complete=completers.kind)
@setting("verify.repair", "--repair")
@setting(
    "download.source",
    "--source",
    metavar="MIRROR",
    shell_complete=completers.mirror,
    text="with --repair: the mirror to fetch from",
)
@options.jobs
@options.shard
@options.network
def command(invocation: Invocation) -> int:
    """Check every file of ROOT against its checksum, and the label tables against published numbers.

    ROOT may hold a part of a release: what was fetched must be here, and the result says how much of the whole it is.
    """
    from cxrprep.verification.finding import refuse_idle_accept

    if "verify.accept" in invocation.flags:
        refuse_idle_accept(strict=invocation.job.verify.strict)
    with invocation.events() as sink:
        result = perform(invocation, sink)
    return invocation.out.result(
        f"Verified {invocation.root}",
        result,
        command="verify",
        following=result.following,
        failed=f"Checked {invocation.root}, and it is not as it should be",
    )


def perform(invocation: Invocation, sink: Sink) -> Any:
    """The verb itself, with the settings of this call."""
    from cxrprep.api.verify import verify
    from cxrprep.cli.arguments import verify_arguments
    from cxrprep.events import Note

    checks = invocation.job.verify
    if checks.accept and not checks.strict:
        place = invocation.settings.origins["verify.accept"]
        sink(Note("verify", f"{place}: accept does nothing without strict = true", level="warning"))
    return verify(**verify_arguments(invocation), on_event=sink)
