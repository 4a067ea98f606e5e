"""Counts the bytes of one item, for events and for the rate limit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from cxrprep.events import Advanced, ItemStarted

if TYPE_CHECKING:
    from cxrprep.events import Sink
    from cxrprep.transfer.limits import Pulse, Rate, Stop

_EVERY: Final = 0.1


class Meter:
    """The bytes of one item. A file that is done within a tenth of a second makes no event of its own here."""

    def __init__(
        self, key: str, size: int | None, have: int, *, rate: Rate, stop: Stop, pulse: Pulse, on_event: Sink
    ) -> None:
        self.moved = 0
        self._key = key
        self._size = size
        self._have = have
        self._rate = rate
        self._stop = stop
        self._pulse = pulse
        self._emit = on_event
        self._told = time.monotonic()
        self._pending = 0
        self._started = False
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that came; waits when they came too fast. Raises ``Stopped``."""
        now = time.monotonic()
        self._pulse.beat()
        with self._lock:
            self.moved += count
            self._pending += count
            if now - self._told > _EVERY:
                self._told = now
                self._tell()
        self._rate.take(count)
        self._stop.check()

    def finish(self) -> None:
        """Tell what was not told yet, if anything was told at all."""
        with self._lock:
            if self._started and self._pending:
                self._tell()

    def _tell(self) -> None:
        if not self._started:
            self._started = True
            self._emit(ItemStarted("download", self._key, self._size, self._have))
        self._emit(Advanced("download", self._key, self._pending))
        self._pending = 0
