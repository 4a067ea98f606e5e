"""Base of the progress displays: a sink of events that is open for the time of a command, one stage at a time."""

from __future__ import annotations

import abc
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from cxrprep.cli.progress_text import closing
from cxrprep.events import Event, ItemFinished, Note, StageFinished, StageStarted
from cxrprep.progress_stats import StageProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.cli.output import Output


class ProgressSink(contextlib.AbstractContextManager["ProgressSink"]):
    """A sink that is open for the time of a command."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._guard = threading.RLock()

    def __exit__(self, *_: object) -> None:  # most sinks hold nothing open
        """Nothing is open."""

    @abc.abstractmethod
    def __call__(self, event: Event) -> None:
        """Take one event."""


class Stages(ProgressSink):
    """Base of the sinks that a person reads: one stage at a time, ended by its own event, the next stage or the end."""

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out)
        self._clock = clock
        self._tally: StageProgress | None = None
        # What was the reason of an attempt before is not said again for each file.
        self._causes: set[str] = set()
        self._reasons: set[str] = set()
        # Done and failed of stages that another one ended: an export's digest comes before its own last event.
        self._said: dict[str, tuple[int, int]] = {}

    def __exit__(self, kind: object = None, *_: object) -> None:
        """Say what a stage came to that did not say so itself, or where it was left."""
        with self._guard:
            if self._tally is not None and kind is None:
                self._finish(closing(self._tally))
            self._leave()

    def __call__(self, event: Event) -> None:
        """Count the event; write what deserves a line of its own."""
        with self._guard:
            if isinstance(event, StageStarted):
                self._start(event)
            elif isinstance(event, StageFinished):
                if self._said.pop(event.stage, None) != (event.done, event.failed):
                    self._finish(event)
            elif isinstance(event, Note):
                self._note(event)
            else:
                self._problem(event)
                if self._tally is not None:
                    self._tally.add(event)
                    self._counted(event, self._tally)

    def _start(self, event: StageStarted) -> None:
        if self._tally is not None and self._tally.stage != event.stage:
            ended = closing(self._tally)
            self._said[ended.stage] = (ended.done, ended.failed)
            self._finish(ended)
        self._said.pop(event.stage, None)
        tally = self._tally or StageProgress(event.stage, clock=self._clock)
        tally.add(event)
        if self._tally is None:
            self._tally = tally
            self._begin(event, tally)

    def _failure(self, event: ItemFinished) -> str:
        """What failed and why; the words of a reason that was said before are not said again."""
        reason = (event.detail or event.status).removeprefix(f"{event.key}: ")
        said = self._said_before(event.key, reason, self._reasons)
        return f"{event.key}: for the same reason" if said else f"{event.key}: {reason}"

    @staticmethod
    def _said_before(key: str, reason: str, known: set[str]) -> bool:
        """Whether the reason is in ``known``, where it is from now on; the names of files make it no other one."""
        reason = reason.replace(key, "")
        said = reason in known
        known.add(reason)
        return said

    @abc.abstractmethod
    def _begin(self, event: StageStarted, tally: StageProgress) -> None:
        """A new stage: say or draw its first line."""

    @abc.abstractmethod
    def _finish(self, event: StageFinished) -> None:
        """The stage is over: say what it came to, and forget its tally."""

    @abc.abstractmethod
    def _leave(self) -> None:
        """The command is over, in peace or by an error."""

    @abc.abstractmethod
    def _note(self, event: Note) -> None:
        """Say a remark."""

    @abc.abstractmethod
    def _problem(self, event: Event) -> None:
        """Say a failure, an attempt or a stall."""

    @abc.abstractmethod
    def _counted(self, event: Event, tally: StageProgress) -> None:
        """The tally has taken the event."""
