"""Progress statistics of a stage, from its events: done, skipped, failed, bytes, rate and time left.

Pure but for the clock, which tests replace; the sinks of ``progress`` only draw what is counted here.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.events import Advanced, Event, ItemFinished, ItemStarted, StageStarted, Stalled

if TYPE_CHECKING:
    from collections.abc import Callable


# The rate is averaged over this many seconds: long enough that small files do not make it jump.
_WINDOW: Final = 15.0
# A rate over less time than this says nothing.
_SETTLED: Final = 2.0


@dataclass(slots=True)
class Active:
    """An item at work; ``done`` and ``size`` in bytes. ``stalled`` says what it is waiting for, if anything."""

    key: str
    size: int | None
    done: int
    stalled: str = ""


@dataclass(slots=True)
class StageProgress:
    """The counts of one stage. ``add`` takes every event of the stage, in any thread's order."""

    stage: str
    items: int | None = None
    size: int | None = None
    unit: str = "files"
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    kept: int = 0
    failed: int = 0
    counted: int = 0
    moved: int = 0
    settled: int = 0
    active: dict[str, Active] = field(default_factory=dict)
    began: float = 0.0
    stalled: str = ""
    _samples: deque[tuple[float, float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = self.clock()

    @property
    def finished(self) -> int:
        """Items that need no more work: done, kept or failed."""
        return self.done + self.kept + self.failed - self.counted

    @property
    def reached(self) -> int:
        """Items that are done or were there; one that failed is neither, unless looking at it was the work."""
        return self.done + self.kept

    @property
    def bytes_here(self) -> int:
        """Bytes done, those of a resumed part too."""
        # A copy, since the display reads while the threads at work go on adding.
        return self.settled + sum(item.done for item in list(self.active.values()))

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return self.clock() - self.began

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, by bytes where they are known, else by items; ``None`` while totals are being counted."""
        if self.size:
            return min(self.bytes_here / self.size, 1.0)
        if self.items:
            return min(self.reached / self.items, 1.0)
        return None

    @property
    def percent(self) -> str:
        """``45%``, rounded down, since 100 % is for what is finished; nothing while totals are being counted."""
        return "" if self.fraction is None else f"{int(self.fraction * 100)}%"

    @property
    def rate(self) -> float | None:
        """Bytes (or items, where no bytes are counted) a second over the last seconds; ``None`` before it settles."""
        now = self.clock()
        if len(self._samples) < 2 or now - self.began < _SETTLED or now <= self._samples[0][0]:
            return None
        first, low = self._samples[0]
        return (self._count() - low) / (now - first)

    @property
    def left(self) -> float | None:
        """Seconds that remain at the present rate; ``None`` when that is not known."""
        rate, fraction = self.rate, self.fraction
        # While nothing moves, a rate that sinks would promise ever more time, and no number would be true.
        if not rate or fraction is None or self.stalled:
            return None
        if self.size:
            return max(self.size - self.bytes_here, 0) / rate
        return max((self.items or 0) - self.finished, 0) / rate

    def add(self, event: Event) -> None:
        """Count one event."""
        # The most frequent ones first.
        if isinstance(event, ItemFinished):
            self._finish(event)
        elif isinstance(event, Advanced):
            self._advance(event)
        elif isinstance(event, ItemStarted):
            self.active[event.key] = Active(event.key, event.size, event.offset)
        elif isinstance(event, StageStarted):
            # Sent again when a total becomes known or grows; other items are counted from their first one.
            if event.unit != self.unit:
                self.done = self.kept = self.failed = self.counted = self.moved = self.settled = 0
                self.began = self.clock()
                self._samples.clear()
            self.items, self.size, self.unit = event.items, event.size, event.unit
        elif isinstance(event, Stalled):
            if event.key in self.active:
                self.active[event.key].stalled = event.cause
            elif not event.key:
                self.stalled = event.cause
        self._sample()

    def _advance(self, event: Advanced) -> None:
        self.stalled = ""
        self.done += event.items
        self.moved += event.size
        item = self.active.get(event.key)
        if item is None:
            self.settled += event.size
        else:
            item.done += event.size
            item.stalled = ""

    def _finish(self, event: ItemFinished) -> None:
        self.stalled = ""
        if event.status == "ok":
            self.done += 1
        elif event.status == "notneeded":
            self.kept += 1
        else:
            self.failed += 1
            self.counted += event.counted
        item = self.active.pop(event.key, None)
        if item is None:
            self.settled += event.size
            self.moved += event.size
        elif event.status == "ok" and item.size is not None:
            # Small files come in one piece, without an ``Advanced`` of their own.
            self.moved += max(min(event.size, item.size - item.done), 0)
            self.settled += item.size
        else:
            self.settled += item.done

    def _count(self) -> int:
        return self.moved if self.size else self.finished

    def _sample(self) -> None:
        now = self.clock()
        # Where items are counted, workers load what they need before the first one: that is no part of the rate.
        is_early = now - self._samples[-1][0] < 0.2 if self._samples else not self.size and not self._count()
        if is_early:
            return
        self._samples.append((now, self._count()))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
