"""What workers are at, as they write it down for this process; and one that is at an item for too long, ended.

A decoder may loop for ever over a damaged file. Nothing can be thrown into it from outside: its process is ended, as if
it had crashed, and since the item is known by then, nobody else is suspected.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Final

IDLE: Final = -1
# Seconds between two looks. What this process itself missed (a laptop that slept) counts as two of them at most.
_LOOK: Final = 1.0
_LOOKS_A_LIMIT: Final = 4


class Desks:
    """A place for each worker, in shared memory: serial number of its batch, items of it that it began, its process."""

    def __init__(self, spawn: Any, workers: int) -> None:
        """``spawn`` is the context in which the workers are started."""
        self.serial = spawn.RawArray("q", [IDLE] * workers)
        self.items = spawn.RawArray("q", workers)
        self.process = spawn.RawArray("q", workers)

    def __len__(self) -> int:
        """How many places there are."""
        return len(self.serial)

    def busy(self) -> list[int]:
        """The desks at which a batch is under way."""
        return [desk for desk, serial in enumerate(self.serial) if serial != IDLE]

    def end(self, desk: int) -> None:
        """End the process that works there, whatever it is at."""
        with contextlib.suppress(OSError):
            os.kill(self.process[desk], getattr(signal, "SIGKILL", signal.SIGTERM))


class Watch:
    """Looks at the workers of one pool; ``late`` is the desk whose worker was ended."""

    def __init__(self, desks: Desks, seconds: float) -> None:
        """``seconds`` are granted to each item that a worker announced (see ``begin_item``); 0 grants any time."""
        self.seconds = seconds
        self.every: float | None = min(_LOOK, seconds / _LOOKS_A_LIMIT) if seconds else None
        self._desks = desks
        self._seen: list[tuple[int, int]] = [(IDLE, 0)] * len(desks)
        self._spent = [0.0] * len(desks)
        self._looked = time.monotonic()
        self._ended: tuple[int, tuple[int, int]] | None = None

    def look(self) -> None:
        """Note what each worker is at, and end one that is too long at it."""
        if self.every is None or self._ended is not None:
            return
        since = time.monotonic() - self._looked
        if since < self.every / 2:
            return
        self._looked += since
        for desk, before in enumerate(self._seen):
            now = self._at(desk)
            self._seen[desk] = now
            if now != before or now[0] == IDLE or not now[1]:
                self._spent[desk] = 0.0
                continue
            self._spent[desk] += min(since, 2 * self.every)
            if self._spent[desk] >= self.seconds:
                self._ended = (desk, now)
                self._desks.end(desk)
                return

    def late(self) -> tuple[int, int] | None:
        """Serial number of the batch and place in it of the item that took too long; ``None`` when none did."""
        if self._ended is None:
            return None
        desk, was = self._ended
        # It may have come to its end in the very moment: then its process died over something else.
        return (was[0], was[1] - 1) if self._at(desk) == was else None

    def _at(self, desk: int) -> tuple[int, int]:
        return self._desks.serial[desk], self._desks.items[desk]
