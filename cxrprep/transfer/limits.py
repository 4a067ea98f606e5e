"""Bounds on a transfer: how fast, how much disk, and when to stop."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from cxrprep.errors import StorageError
from cxrprep.events import Advanced, ItemStarted
from cxrprep.humanize import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cxrprep.events import Sink

_SLICE_SECONDS: Final = 0.2


class Stopped(Exception):  # noqa: N818  # not an error: somebody asked for it
    """The run was asked to stop; what is here is kept."""


class Stop:
    """A flag that every thread looks at between two pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask everybody to stop."""
        self._event.set()

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises ``Stopped`` when somebody asked."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep, but not through a request to stop. Raises ``Stopped``."""
        if self._event.wait(seconds):
            raise Stopped


class Slot:
    """One of the connections that may be open at once, as a context; waits for it at entry."""

    def __init__(self, slots: threading.Semaphore, *, held: bool = False) -> None:
        """``held`` when somebody has waited for it already."""
        self._slots = slots
        self._held = held

    def __enter__(self) -> Self:
        """Wait until a connection is free, and take it."""
        if not self._held:
            self._slots.acquire()
            self._held = True
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        self.release()

    def release(self) -> None:
        """Let others have it already, since nothing more comes over it; a second call does nothing."""
        if self._held:
            self._held = False
            self._slots.release()

    def hand_over(self) -> Slot:
        """The same connection for another file; this one no longer has it."""
        self._held = False
        return Slot(self._slots, held=True)


class Rate:
    """A token bucket that all connections draw from. ``None`` bytes a second means no limit."""

    def __init__(self, limit: int | None, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._free = clock()

    @property
    def piece(self) -> int | None:
        """The largest number of bytes to read at once so that the limit is smooth; ``None`` without one."""
        return None if self.limit is None else max(int(self.limit * _SLICE_SECONDS), 1024)

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes may have come. Raises ``Stopped``."""
        if self.limit is None:
            return
        with self._lock:
            now = self._clock()
            # Time that nobody used is gone: no burst after a pause.
            self._free = max(self._free, now - _SLICE_SECONDS) + size / self.limit
            wait = self._free - now
        if wait > 0:
            self._stop.wait(wait)


class Pulse:
    """When a byte last came over any connection. As a context: for that time somebody waits for bytes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._last = clock()

    def __enter__(self) -> Self:
        """Begin to wait."""
        with self._lock:
            if not self._waiting:
                self._last = self._clock()
            self._waiting += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Wait no longer."""
        with self._lock:
            self._waiting -= 1
            self._last = self._clock()

    def beat(self) -> None:
        """A byte came."""
        self._last = self._clock()

    @property
    def silence(self) -> float:
        """Seconds without a byte; 0 while nobody waits for one."""
        with self._lock:
            return self._clock() - self._last if self._waiting else 0.0


def check_space(root: Path, need: int) -> int:
    """The free bytes of the disk under ``root``. Raises ``StorageError`` when they are fewer than ``need``."""
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise StorageError(
            f"{root}: {format_bytes(need)} are needed, {format_bytes(free)} are free",
            hint="free some space, choose another folder, or fetch less (--patients, --split, --limit)",
        )
    return free


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
