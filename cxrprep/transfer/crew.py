"""How many of the workers work at once: all of them where the network is waited for, few where Python is.

Sixteen threads with small files from a fast server spend half of their time handing the interpreter to each other. So
when the process is busy, fewer are tried for a moment, and whichever number brings more files a second stays. Where the
quickest answer takes so long that few workers could never bring as much, the network is what is waited for, and nothing
is tried.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FEW: Final = 2
# Where workers ask ahead none has to wait while another one works.
FEW_AHEAD: Final = 1
# What either has under way at once.
_UNDER_WAY: Final = 2
# Below these nothing is to be won: the process waits, or the files are large.
_BUSY: Final = 0.8
_FILES_A_SECOND: Final = 400
_LOOK_SECONDS: Final = 0.4
# Few that bring nearly as much are better: they leave the processors to others.
_NEARLY: Final = 0.9
# So long a choice stays; a try that brings less costs its own moment only.
_KEEP_SECONDS: Final = 30.0
_TRY_AGAIN_SECONDS: Final = 6.0
_PARKED_SECONDS: Final = 0.1


class Crew:
    """Workers 0 to ``count``; those from ``limit`` on are parked between two items.

    ``look`` is to be called some times a second by the thread that waits for them.
    """

    def __init__(
        self,
        count: int,
        few: int = FEW,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
    ) -> None:
        self.limit = self._count = count
        self._few = few
        self._clock, self._busy = clock, busy
        self._since, self._spent, self._had = clock(), busy(), 0
        self._all_rate = 0.0
        self._settled_until = 0.0
        self._quickest = math.inf
        self._changed = threading.Condition()

    def works(self, number: int) -> bool:
        """Whether worker ``number`` is to work now."""
        return number < self.limit

    def park(self, number: int) -> bool:
        """Wait a moment if worker ``number`` is not to work now; whether it is not."""
        if self.works(number):
            return False
        with self._changed:
            self._changed.wait(_PARKED_SECONDS)
        return not self.works(number)

    def took(self, seconds: float) -> None:
        """Hear how long it was from the request for an item to its end; from any worker."""
        self._quickest = min(self._quickest, seconds)

    def look(self, done: int) -> None:
        """Judge by the number of items that are done so far whether fewer workers, or all, bring more."""
        now = self._clock()
        elapsed = now - self._since
        if self._count <= self._few or elapsed < _LOOK_SECONDS:
            return
        rate = (done - self._had) / elapsed
        usage = (self._busy() - self._spent) / elapsed
        most_by_few = _UNDER_WAY / self._quickest if self._quickest else math.inf
        self._since, self._spent, self._had, self._quickest = now, self._busy(), done, math.inf
        if now < self._settled_until:
            return
        if self._all_rate:
            # Few have been tried for a moment.
            worse = rate < self._all_rate * _NEARLY
            if worse:
                self._let(self._count)
            self._all_rate = 0.0
            self._settled_until = now + (_TRY_AGAIN_SECONDS if worse else _KEEP_SECONDS)
        elif self.limit < self._count:
            self._let(self._count)
        elif usage > _BUSY and rate > _FILES_A_SECOND and most_by_few > rate * _NEARLY:
            self._all_rate = rate
            self._let(self._few)

    def _let(self, limit: int) -> None:
        with self._changed:
            self.limit = limit
            self._changed.notify_all()
