"""Limits of a transfer: rate (bandwidth), free disk space, stop, idle time (timeout)."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from typing import TYPE_CHECKING, Final

from cxrprep.errors import StorageError
from cxrprep.events import ItemStarted, Sink, Throttle
from cxrprep.humanize import format_bytes
from cxrprep.storage.paths import nearest_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self


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


class IdleTimer:
    """When a byte last came over any connection, and how many did. As a context: somebody waits for bytes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._last = clock()
        self.moved = 0

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

    def bytes_arrived(self, count: int = 0) -> None:
        """Bytes came: so many."""
        with self._lock:
            self._last = self._clock()
            self.moved += count

    @property
    def idle_seconds(self) -> float:
        """Seconds without a byte; 0 while nobody waits for one."""
        with self._lock:
            return self._clock() - self._last if self._waiting else 0.0


def check_space(root: Path, need: int) -> int:
    """The free bytes of the disk under ``root``. Raises ``StorageError`` when they are fewer than ``need``."""
    free = shutil.disk_usage(nearest_folder(root)).free
    if free < need:
        raise StorageError(
            f"{root}: {format_bytes(need)} are needed, {format_bytes(free)} are free",
            hint="free some space, choose another folder, or fetch less (--patients, --split, --limit)",
        )
    return free


class ByteCounter:
    """The bytes of one item. A file that is done within a tenth of a second makes no event of its own here."""

    def __init__(
        self, key: str, size: int | None, have: int, *, rate: Rate, stop: Stop, idle_timer: IdleTimer, on_event: Sink
    ) -> None:
        """Nothing is counted yet.

        Args:
            key: the file's key, for events.
            size: its bytes, where they are known.
            have: bytes that are here already.
            rate: waits where bytes come too fast.
            stop: ends the item.
            idle_timer: learns when bytes arrive.
            on_event: gets progress.
        """
        self._rate = rate
        self._stop = stop
        self._idle_timer = idle_timer
        self._begun = ItemStarted("download", key, size, have)
        self._progress = Throttle("download", on_event, key, first=self._begun)

    @property
    def moved(self) -> int:
        """Bytes that came."""
        return self._progress.total

    def add(self, count: int) -> None:
        """Count bytes that came; waits when they came too fast. Raises ``Stopped``."""
        self._idle_timer.bytes_arrived(count)
        self._progress.advance(size=count)
        self._rate.take(count)
        self._stop.check()

    def restart(self) -> None:
        """Tell that nothing is here of the item: what was here cannot be continued."""
        self._begun = dataclasses.replace(self._begun, offset=0)
        self._progress.restart(self._begun)

    def close(self) -> None:
        """Tell what was not told yet, if anything was told at all."""
        self._progress.flush()
