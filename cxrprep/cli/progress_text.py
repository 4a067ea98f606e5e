"""Progress as text: summaries, totals, retry and stall lines, for logs and terminals alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrprep.events import Retrying, StageFinished, StageStarted, Stalled
from cxrprep.humanize import format_bytes, format_count, format_number, format_rate, format_seconds, singular

if TYPE_CHECKING:
    from cxrprep.progress_stats import Active, StageProgress


def summary(event: StageFinished, tally: StageProgress | None = None) -> str:
    """One line that says what a stage did: ``1,204 files, 3.2 GB in 2 min 3 s (26 MB/s)``.

    The tally knows the unit, and the time where the stage did not take it.
    """
    seconds = event.seconds or (tally.seconds if tally else 0.0)
    words = [format_count(event.done, singular(tally.unit)) if tally else f"{format_number(event.done)} done"]
    if event.kept:
        words.append(f"{format_number(event.kept)} already done")
    if event.failed:
        words.append(f"{format_number(event.failed)} failed")
    if event.size:
        words.append(format_bytes(event.size))
    text = ", ".join(words) + f" in {format_seconds(seconds)}"
    if event.size and seconds >= 1:
        text += f" ({format_rate(event.size / seconds)})"
    return text


def closing(tally: StageProgress) -> StageFinished:
    """What a stage came to that ended without a word of its own."""
    return StageFinished(
        tally.stage,
        done=tally.done - tally.counted,
        kept=tally.kept,
        failed=tally.failed,
        size=tally.moved,
        seconds=tally.seconds,
    )


def total(event: StageStarted) -> str:
    """What a stage is about to do: ``1,204 files, 3.2 GB``."""
    words = [] if event.items is None else [format_count(event.items, singular(event.unit))]
    if event.size:
        words.append(format_bytes(event.size))
    return ", ".join(words) or "counting"


def retry_line(event: Retrying) -> str:
    """Why an item is tried again, and when."""
    cause = event.cause.removeprefix(f"{event.key}: ")
    return f"{event.key}: {cause}; attempt {event.attempt + 1} in {format_seconds(event.wait)}"


def stall_line(event: Stalled) -> str:
    """What an item, or the whole stage, is waiting for."""
    about = f"{event.key}: " if event.key else ""
    return f"{about}no byte for {format_seconds(event.seconds)}; {event.cause}"


def stage_state(tally: StageProgress, *, wide: bool) -> list[str]:
    """The words beside a stage's bar: files done of all, failures, bytes where it is wide, rate and time left."""
    return _state(tally, "/", sized=wide)


def item_state(item: Active) -> str:
    """The words beside a file's bar: ``12 MB/80 MB``, or ``stalled``."""
    return "stalled" if item.stalled else f"{format_bytes(item.done)}/{format_bytes(item.size) if item.size else '?'}"


def standing(tally: StageProgress) -> str:
    """Where a stage stands, in one line: ``45 %, 540 of 1,204 files, 1.4 of 3.2 GB, 26 MB/s, 1 min 8 s left``."""
    # Rounded down: 100 % is for what is finished.
    words = [] if tally.fraction is None else [f"{int(tally.fraction * 100)} %"]
    words += _state(tally, " of ", sized=True)
    return ", ".join(words) + (" left" if tally.left is not None else "")


def _state(tally: StageProgress, of: str, *, sized: bool) -> list[str]:
    """What a bar and a line say alike: items and bytes done ``of`` all, failures, rate and time left."""
    words = [
        f"{format_number(tally.reached)}{'' if tally.items is None else of + format_number(tally.items)} {tally.unit}"
    ]
    if tally.failed:
        words.append(f"{format_number(tally.failed)} failed")
    if tally.size and sized:
        words.append(f"{format_bytes(tally.bytes_here)}{of}{format_bytes(tally.size)}")
    elif tally.moved and not tally.size:
        words.append(format_bytes(tally.moved))
    if tally.stalled:
        words.append("stalled")
    elif tally.rate:
        words.append(format_rate(tally.rate) if tally.size else f"{tally.rate:,.1f} {tally.unit}/s")
    if tally.left is not None:
        words.append(format_seconds(tally.left))
    return words
