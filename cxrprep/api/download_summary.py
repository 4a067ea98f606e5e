"""Summary of a plan and of a download: rows for people, plain values for JSON."""

from __future__ import annotations

import datetime as dt
import shutil
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from cxrprep.api.download_context import DownloadContext, passing
from cxrprep.events import Note, Sink
from cxrprep.humanize import format_bytes, format_count, format_rate, format_seconds
from cxrprep.manifest import FAILURES_NAME
from cxrprep.planning.plan import Action, Plan
from cxrprep.storage.paths import nearest_folder
from cxrprep.transfer.measured_rate import MeasuredRate, measured_rate

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.transfer.result import TransferResult

STAGE: Final = "download"
_SHOWN: Final = 5
# The speeds that users report are those of so many connections.
_USUAL: Final = 8


def note_foreign(made: Plan, on_event: Sink) -> None:
    """Name the mirror's files that are not taken."""
    if made.foreign:
        names = ", ".join(made.foreign_names[:_SHOWN])
        more = ", ..." if made.foreign > _SHOWN else ""
        some = "a file of the mirror is" if made.foreign == 1 else f"{made.foreign:,} files of the mirror are"
        on_event(Note(STAGE, f"{some} no part of the release: {names}{more}", subject=names))


def _free(root: Path) -> int:
    return shutil.disk_usage(nearest_folder(root)).free


def _need(made: Plan, job: DownloadContext) -> int:
    connections = job.options.connections or job.source.politeness.connections
    return made.disk_need(keep_archives=job.options.keep_archives, passing=passing(job), passing_at_once=connections)


def fits(made: Plan, job: DownloadContext) -> bool:
    """Whether the disk has room for the plan; the download itself asks the same before its first byte."""
    return not made.moving().files or _need(made, job) <= _free(job.folder.root)


def _seconds(made: Plan, job: DownloadContext) -> tuple[float, float, MeasuredRate | None]:
    """The shortest and the longest time to expect; one and the same where the mirror's rate was measured."""
    measured = measured_rate(made.mirror)
    if measured is not None:
        seconds = made.moving().size / measured.bytes_per_second
        return seconds, seconds, measured
    return *made.estimate(job.options.connections or min(job.source.politeness.connections, _USUAL)), None


def plan_data(made: Plan, job: DownloadContext) -> dict[str, Any]:
    """A plan in numbers."""
    need = _need(made, job)
    shortest, longest, measured = _seconds(made, job)
    return {
        "dataset": made.dataset,
        "release": made.release,
        "mirror": made.mirror,
        "actions": {
            str(a): {"files": t.files, "bytes": t.size, "unsized": t.unsized} for a, t in made.totals().items()
        },
        "passed_over": made.passed_over,
        "foreign": made.foreign,
        "disk_need": need,
        "disk_free": _free(job.folder.root),
        "seconds_at_best": round(shortest),
        "seconds_at_worst": round(longest),
        "bytes_per_second_measured": None if measured is None else round(measured.bytes_per_second),
        "costs": job.place.mirror.costs if job.place.mirror else "",
        "tables_from": job.place.mirror.tables if job.place.mirror else "",
    }


def plan_rows(made: Plan, job: DownloadContext) -> tuple[tuple[str, Any], ...]:
    """A plan in words."""
    words = {
        Action.FETCH: "to fetch", Action.RESUME: "to resume", Action.KEEP: "here already",
        Action.REFETCH: "to fetch again", Action.IMPOSSIBLE: "impossible",
    }  # fmt: skip
    rows: list[tuple[str, Any]] = [("from", made.mirror)]
    for action, total in made.totals().items():
        if total.files:
            unknown = f", {total.unsized:,} of unknown size" if total.unsized else ""
            rows.append((words[action], f"{format_count(total.files, 'file')}, {format_bytes(total.size)}{unknown}"))
    if made.passed_over:
        rows.append(("left out by the selection", made.passed_over))
    if made.foreign:
        rows.append(("no part of the release", made.foreign))
    need = _need(made, job)
    small = " besides the converted images" if job.options.discard_raw else ""
    short = "" if fits(made, job) else "; it does not fit: free some space, or choose another folder or a part"
    rows.append(("disk", f"{format_bytes(need)} needed{small}, {format_bytes(_free(job.folder.root))} free{short}"))
    if made.moving().size and not job.place.url.startswith("file:"):
        rows.append(_time_row(*_seconds(made, job)))
    if job.place.mirror and job.place.mirror.costs:
        rows.append(("costs", job.place.mirror.costs))
    if job.place.mirror and job.place.mirror.tables:
        rows.append(("tables", f"labels, splits and boxes come from {job.place.mirror.tables}: here are images alone"))
    return tuple(rows)


def _time_row(shortest: float, longest: float, measured: MeasuredRate | None) -> tuple[str, str]:
    if measured is None:
        return (
            "estimated time, from speeds that users report",
            f"{format_seconds(shortest)} to {format_seconds(longest)}",
        )
    day = dt.datetime.fromtimestamp(measured.when, tz=dt.UTC).date().isoformat()
    rate = f"{format_rate(measured.bytes_per_second)}, the rate of the last download from {measured.mirror} ({day})"
    return "estimated time", f"{format_seconds(longest)} at {rate}"


def result_rows(result: TransferResult, made: Plan, job: DownloadContext) -> tuple[tuple[str, Any], ...]:
    """A download in words."""
    rows: list[tuple[str, Any]] = [("from", made.mirror), ("release", f"{made.dataset} {made.release}")]
    size, link = format_bytes(result.size), job.options.link
    if link != "copy":
        links = {"hardlink": "hard links to the source's", "reflink": "clones of the source's"}[link]
        size = f"{result.linked:,} of them as {links}, {size} copied"
    rows.append(("fetched", f"{format_count(result.done, 'file')}, {size} in {format_seconds(result.seconds)}"))
    if result.unpacked:
        rows.append(("unpacked", result.unpacked))
    if result.kept:
        rows.append(("here already", result.kept))
    if result.failed or result.impossible:
        rows.append(("failed", result.failed + result.impossible))
        rows += [("", reason) for reason in _reasons(result)]
        rows.append(("", f"each of them: {job.folder.manifests / FAILURES_NAME}"))
    if result.left:
        rows.append(("not tried", result.left))
    rows.append(("record", str(job.folder.home / "cxrprep.lock")))
    return tuple(rows)


def _reasons(result: TransferResult) -> list[str]:
    """Why files failed: each reason once, with how many files it concerns and one of them."""
    files: dict[str, list[str]] = {}
    for outcome in result.failures:
        if outcome.error is not None:
            # Without its own name a file's reason is that of others too.
            message = outcome.error.message
            for name in (outcome.item.dest, outcome.item.file.key, urllib.parse.quote(outcome.item.file.key)):
                message = message.replace(name, "FILE")
            hint = f" ({outcome.error.hint})" if outcome.error.hint else ""
            files.setdefault(f"{message}{hint}", []).append(outcome.item.dest)
    ranked = sorted(files.items(), key=lambda item: -len(item[1]))
    shown = []
    for reason, paths in ranked[:_SHOWN]:
        text = reason.replace("FILE", paths[0], 1) if "FILE" in reason else f"{paths[0]}: {reason}"
        more = f" (and {format_count(len(paths) - 1, 'other file')} for the same reason)" if len(paths) > 1 else ""
        shown.append(text + more)
    if len(ranked) > _SHOWN:
        shown.append(f"and {format_count(len(ranked) - _SHOWN, 'other reason')}")
    return shown


def result_data(result: TransferResult, made: Plan, job: DownloadContext) -> dict[str, Any]:
    """A download in numbers."""
    return {
        "dataset": made.dataset,
        "release": made.release,
        "mirror": made.mirror,
        "root": str(job.folder.root),
        "done": result.done,
        "kept": result.kept,
        "unpacked": result.unpacked,
        "linked": result.linked,
        "failed": result.failed,
        "impossible": result.impossible,
        "left": result.left,
        "foreign": made.foreign,
        "bytes": result.size,
        "seconds": round(result.seconds, 3),
        "failures": [
            {"path": o.item.dest, "error": type(o.error).__name__, "message": str(o.error), "hint": o.error.hint}
            for o in result.failures
            if o.error is not None
        ],
    }
