"""``cxrprep status``: what is here, missing, partial or failed, and what comes next."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cxrprep.cli import completers, options
from cxrprep.cli.help_format import verb
from cxrprep.errors import CxrprepError, ExitCode, most_pressing
from cxrprep.humanize import format_bytes, format_count, format_rate, format_seconds
from cxrprep.system import defer_pandas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxrprep.api.result import Result
    from cxrprep.api.status import Status
    from cxrprep.cli.context import Invocation

# Seconds between two looks of --watch; one look at 400,000 files takes about one.
_EVERY: Final = 5.0


@verb(
    "status",
    asks=True,
    examples=(
        ("cxrprep status /data/nih", "parts, stages, and the next command"),
        ("cxrprep status /data/nih /data/chexpert", "several folders, a line for each"),
        ("cxrprep status /data/nih --watch", "a line every five seconds: how far, how fast, how long"),
        ("cxrprep status /data/nih --json", "the same for a script"),
        ("cxrprep status /data/nih --check --quiet", "for monitoring: nothing is said where nobody needs to look"),
    ),
)
@click.argument("roots", nargs=-1, type=click.Path(), metavar="[ROOT...]", shell_complete=completers.folder)
@options.dataset
@options.state
@options.release
@click.option("--check", is_flag=True, help="for monitoring: the exit code says whether a person has to look")
@click.option("--watch", is_flag=True, help="show progress until everything is here")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=_EVERY,
    metavar="SECONDS",
    help="with --watch: the time between two lines",
)
def command(invocation: Invocation, roots: tuple[str, ...], *, check: bool, watch: bool, every: float) -> int:
    """Show what ROOT holds per part of the dataset and per stage, and the progress of runs. Writes nothing.

    Several folders get a line each; the exit code is that of the worst. With --check it is that of the last run if it
    failed, 4 where the last verify found faults, 3 where something is incomplete, 75 where a run goes on.
    """
    defer_pandas()
    if len(roots) == 1:
        invocation.flags["root"] = (roots[0], "ROOT")
    if watch:
        return _watch(invocation, [Path(root) for root in roots] or [invocation.root], every)
    if len(roots) > 1:
        return _several(invocation, [Path(root) for root in roots], check=check)
    invocation.note_level()
    result = status_of(invocation, invocation.root)
    if check:
        result = replace(result, exit_code=result.value.trouble)
    if invocation.out.form != "human":
        headline = f"{invocation.root}: {in_a_line(result.value)}"
        return invocation.out.result(headline, result, command="status")
    _show(invocation, result.value)
    return int(result.exit_code)


def status_of(invocation: Invocation, root: Path) -> Result[Status]:
    """How one folder stands. Raises what ``cxrprep.api.status`` raises."""
    from cxrprep.api.status import status

    job = invocation.job
    return status(root=root, dataset=job.dataset or None, release=job.release or None, state=invocation.state)


def _show(invocation: Invocation, value: Status) -> None:
    from cxrprep.datasets.own_folder import dataset_words

    out = invocation.out
    source = f", from {value.mirror}" if value.mirror else ""
    what = dataset_words(value.dataset, value.release)
    out.text(out.styled(f"{value.root}: {what}{source}", out.stdout, bold=True) + "\n", {})
    parts = [{**dataclasses.asdict(part), "size": format_bytes(part.size)} for part in value.parts]
    wrong = {"missing": "Missing", "wrong_size": "Wrong size", "partial": "Partial", "dropped": "Dropped"}
    seen = {key: heading for key, heading in wrong.items() if any(part[key] for part in parts)}
    out.table(parts, {"name": "Part", "here": "Here", "expected": "Release", "size": "Size", **seen})
    out.text("", {})
    stages = [dataclasses.asdict(stage) for stage in value.stages]
    columns = {"name": "Stage", "state": "State", "detail": "Detail"}
    if any(stage["failed"] for stage in stages):
        columns["failed"] = "Failed"
    out.table(stages, columns)
    if value.following:
        mark = out.symbol("next", out.stdout)
        out.text("\n" + "\n".join(f"{mark} {command}" for command in value.following), {})


# ---- several folders ----


def _several(invocation: Invocation, roots: Sequence[Path], *, check: bool) -> int:
    """A line for each folder; one that cannot be opened is a line too, and its exit code counts."""
    from cxrprep.datasets.own_folder import dataset_words

    rows, plain, codes = [], [], []
    for root in roots:
        try:
            result = status_of(invocation, root)
        except CxrprepError as error:
            rows.append({"root": str(root), "what": "-", "state": error.message})
            plain.append({"root": str(root), "error": error.message, "hint": error.hint})
            codes.append(ExitCode(error.exit_code))
        else:
            value, here = result.value, _here(result.value)
            what = dataset_words(value.dataset, value.release)
            size = f"{format_count(here.files, 'file')}, {format_bytes(here.size)}"
            rows.append({"root": str(root), "what": what, "size": size, "state": in_a_line(value)})
            plain.append(result.to_dict())
            codes.append(value.trouble if check else ExitCode(result.exit_code))
    columns = {"root": "Folder", "what": "Dataset", "size": "Here", "state": "State"}
    invocation.out.table(rows, columns, data=plain)
    return int(most_pressing(codes))


def in_a_line(value: Status) -> str:
    """What a person must know of a folder first: the stages that are not done, or that all of them are."""
    open_stages = [
        f"{s.name}: {s.state}{f' ({s.detail})' if s.detail else ''}" for s in value.stages if s.state != "done"
    ]
    return "; ".join(open_stages) or "done"


# ---- watching ----


@dataclass(frozen=True, slots=True)
class Here:
    """What lies in a folder at one moment: files, bytes, and files that were asked for and are not here, or in part."""

    files: int
    size: int
    missing: int
    moment: float


def _here(value: Status) -> Here:
    parts = value.parts
    missing = sum(part.missing + part.partial for part in parts)
    return Here(sum(part.here for part in parts), sum(part.size for part in parts), missing, time.monotonic())


def progress_line(before: Here | None, now: Here) -> str:
    """How far a folder is, how fast it fills, and for how long: ``540 of 1,204 files, 1.4 GB, 26 MB/s, 1 min left``."""
    total = now.files + now.missing
    words = [f"{now.files:,} of {format_count(total, 'file')}", format_bytes(now.size)]
    seconds = now.moment - before.moment if before else 0.0
    # Where all is here and nothing comes any more, there is no rate to tell.
    if before is not None and seconds > 0 and (now.missing or now.size > before.size):
        words.append(format_rate(max(now.size - before.size, 0) / seconds))
        rate = (now.files - before.files) / seconds
        if now.missing and rate > 0:
            words.append(f"{format_seconds(now.missing / rate)} left")
    return ", ".join(words)


def _watch(invocation: Invocation, roots: Sequence[Path], every: float) -> int:
    """A line for each folder, again and again, until no run goes on and nothing that was asked for is missing."""
    earlier: dict[Path, list[Here]] = {}
    # Looks without a run since one was seen: between the steps of a job there is one at most.
    idle: dict[Path, int] = {}
    while True:
        left, codes = 0, []
        for root in roots:
            result = status_of(invocation, root)
            seen = earlier.setdefault(root, [])
            seen.append(_here(result.value))
            # The rate of the last dozen looks: one alone jumps.
            del seen[:-12]
            now = seen[-1]
            stages = result.value.stages
            runs = [f"{stage.name}: {stage.detail}" for stage in stages if stage.state == "running"]
            if runs or root in idle:
                idle[root] = 0 if runs else idle[root] + 1
            over = idle.get(root, 0) > 1
            # What a run that has ended did not bring, nobody brings.
            left += 0 if over else len(runs) + now.missing + (root in idle)
            codes.append(result.value.trouble if over else ExitCode.DONE)
            ended = [f"{s.name}: {s.state}, {s.detail}" for s in stages if s.state in ("failed", "interrupted")]
            line = "; ".join(runs or (ended if over else ())) or progress_line(seen[0] if len(seen) > 1 else None, now)
            partial = sum(part.partial for part in result.value.parts)
            data = {"root": str(root), "files": now.files, "bytes": now.size, "missing": now.missing - partial}
            data |= {"partial": partial, "runs": runs}
            invocation.out.text(f"{root}: {line}", data)
        if not left or not invocation.out.is_read:
            return int(most_pressing(codes))
        time.sleep(every)
