"""Progress as it happens: a live display on a terminal, plain timestamped lines without one, or JSON lines.

All of it goes to standard error, and every sink takes events from many threads at once.
"""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cxrprep.cli.progress_sink import ProgressSink, Stages
from cxrprep.cli.progress_text import retry_line, stall_line, standing, summary, total
from cxrprep.credentials.secret import mask_urls
from cxrprep.events import Event, ItemFinished, Note, Retrying, StageFinished, StageStarted, Stalled
from cxrprep.humanize import format_number, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.cli.output import Output
    from cxrprep.progress_stats import StageProgress

_EVERY_SECONDS: Final = 30.0
_EVERY_FRACTION: Final = 0.05
# Lines of one kind within _EVERY_SECONDS before the rest is only counted.
_LINES_OF_A_KIND: Final = 5
# Steps of 5 % in a stage of a few seconds are noise.
_LEAST_SECONDS: Final = 2.0
# The format of one line of ``--events jsonl``; raised when a field changes its meaning.
EVENT_VERSION: Final = 1


class Silent(ProgressSink):
    """Draws nothing, but says problems: quiet and JSON output."""

    def __call__(self, event: Event) -> None:
        """Pass problems on, drop the rest."""
        if isinstance(event, Note):
            self._out.note(one_line(mask_urls(event.message)), level=event.level, subject=one_line(event.subject))


class JsonLines(ProgressSink):
    """One JSON object a line: ``v``, ``time``, ``event`` and the event's own fields."""

    def __call__(self, event: Event) -> None:
        """Write one line."""
        line = json.dumps(event_record(event), ensure_ascii=False)
        with self._guard:
            self._out.line(line, self._out.stderr)


def event_record(event: Event) -> dict[str, Any]:
    """An event as plain values, the form of a line of ``--events jsonl``."""
    fields = {key: mask_urls(v) if isinstance(v, str) else v for key, v in dataclasses.asdict(event).items()}
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"v": EVENT_VERSION, "time": moment, "event": type(event).__name__, **fields}


class PlainLines(Stages):
    """Timestamped lines for a log without a terminal: a line every 30 s or 5 %, problems at once, crowds counted."""

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out, clock)
        self._written_at = 0.0
        self._written_fraction = 0.0
        self._counted_since = 0.0
        self._unsaid: dict[str, tuple[int, int]] = {}

    def _begin(self, event: StageStarted, tally: StageProgress) -> None:
        self._written_at, self._written_fraction = self._clock(), 0.0
        self._line(tally.stage, total(event))

    def _finish(self, event: StageFinished) -> None:
        self._write_counts()
        self._line(event.stage, summary(event, self._tally))
        self._tally = None

    def _leave(self) -> None:
        if self._tally is not None:
            self._line(self._tally.stage, f"left at {standing(self._tally)}")
        self._write_counts()

    def _note(self, event: Note) -> None:
        about = f"{event.subject}: " if event.subject else ""
        self._line(event.stage, about + event.message, event.level)

    def _problem(self, event: Event) -> None:
        if isinstance(event, ItemFinished) and event.status in ("error", "impossible"):
            self._limited(event.stage, "failed", self._failure(event))
        elif isinstance(event, Retrying):
            self._limited(event.stage, "tried again", retry_line(event), event)
        elif isinstance(event, Stalled):
            self._limited(event.stage, "stalled", stall_line(event))

    def _counted(self, event: Event, tally: StageProgress) -> None:  # noqa: ARG002 - lines are due by time, at any event
        now, fraction = self._clock(), tally.fraction or 0.0
        step = fraction - self._written_fraction >= _EVERY_FRACTION and now - self._written_at >= _LEAST_SECONDS
        if step or now - self._written_at >= _EVERY_SECONDS:
            self._write_counts()
            self._written_at, self._written_fraction = now, fraction
            self._line(tally.stage, standing(tally))

    def _limited(self, stage: str, kind: str, text: str, again: Retrying | None = None) -> None:
        now = self._clock()
        if now - self._counted_since >= _EVERY_SECONDS:
            self._write_counts()
            self._counted_since = now
        lines, unsaid = self._unsaid.get(kind, (0, 0))
        # The same cause again is only counted: without a network it would be said for every file and attempt.
        if lines >= _LINES_OF_A_KIND or (again and self._said_before(again.key, again.cause, self._causes)):
            self._unsaid[kind] = (lines, unsaid + 1)
            return
        self._unsaid[kind] = (lines + 1, unsaid)
        self._line(stage, text, "warning")

    def _write_counts(self) -> None:
        stage = self._tally.stage if self._tally else ""
        for kind, (_, unsaid) in self._unsaid.items():
            if unsaid:
                self._line(stage, f"{format_number(unsaid)} more {kind}; the log file names them", "warning")
        self._unsaid.clear()

    def _line(self, stage: str, text: str, level: str = "info") -> None:
        moment = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        mark = "" if level == "info" else f"{level}: "
        self._out.line(f"{moment} {stage}: {mark}{one_line(mask_urls(text))}", self._out.stderr)


def choose(out: Output) -> ProgressSink:
    """The sink that fits: JSON lines when asked for, silence in quiet and JSON form, else by the terminal."""
    if out.events == "jsonl":
        return JsonLines(out)
    if out.form != "human":
        return Silent(out)
    if out.stderr.isatty():
        from cxrprep.cli.progress_bar import Live

        return Live(out)
    return PlainLines(out)
