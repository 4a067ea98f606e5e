"""``cxrprep status``: what is here, missing, partial or failed, and what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrprep.cli import options
from cxrprep.cli.help_format import verb
from cxrprep.humanize import format_bytes

if TYPE_CHECKING:
    from cxrprep.api.status import PartStatus
    from cxrprep.cli.context import Invocation


@verb(
    "status",
    asks=True,
    examples=(
        ("cxrprep status /data/nih", "parts, stages, and the next command"),
        ("cxrprep status /data/nih --json", "the same for a script"),
    ),
)
@options.folder
@options.release
def command(invocation: Invocation) -> int:
    """Show how ROOT stands, by part of the dataset and by stage. Reads no file, writes nothing."""
    from cxrprep.api.status import plain_stages, status
    from cxrprep.cli.arguments import folder_arguments

    out = invocation.out
    result = status(**folder_arguments(invocation))
    if out.form != "human":
        return out.result("", result, command="status")
    value = result.value
    source = f", from {value.mirror}" if value.mirror else ""
    out.text(out.styled(f"{value.root}: {value.dataset} {value.release}{source}", out.stdout, bold=True) + "\n", {})
    parts = [_part_row(part) for part in value.parts]
    wrong = {"missing": "Missing", "wrong": "Wrong size", "partial": "Partial", "dropped": "Dropped"}
    seen = {key: heading for key, heading in wrong.items() if any(part[key] for part in parts)}
    out.table(parts, {"name": "Part", "here": "Here", "expected": "Release", "size": "Size", **seen})
    out.text("", {})
    stages = plain_stages(value)
    columns = {"name": "Stage", "state": "State", "detail": "Detail"}
    if any(stage["failed"] for stage in stages):
        columns["failed"] = "Failed"
    out.table(stages, columns)
    if value.following:
        mark = out.symbol("next", out.stdout)
        out.text("\n" + "\n".join(f"{mark} {command}" for command in value.following), {})
    return int(result.exit_code)


def _part_row(part: PartStatus) -> dict[str, Any]:
    return {
        "name": part.name,
        "here": part.here,
        "expected": part.expected,
        "size": format_bytes(part.size),
        "missing": part.missing,
        "wrong": part.wrong_size,
        "partial": part.partial,
        "dropped": part.dropped,
    }
