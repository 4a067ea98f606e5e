"""Number of connections at once: found by what each number brings (throughput), below a cap or what the user named.

Services throttle by connection, by address, or not at all, and none says so. On six servers the right number was 4, 8,
16, 20 or 64; ``benchmarks/connections.py`` holds the number that is found against fixed ones on each of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from cxrprep.transfer.limits import Stop

_START: Final = 4
# A single one would keep all waiting for one answer that is late.
_FEWEST: Final = 2
_LOOK_SECONDS: Final = 2.0
# What came in the moment after a change still belongs to the number before.
_MEASURED_SECONDS: Final = 1.5
# More connections are worth it while they bring this much of what as many before them did.
_WORTH: Final = 0.4
# Fewer are enough while they bring this much of what the number before did.
_AS_MUCH: Final = 0.97
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0
_FIRST_CEILING, _LONGEST_CEILING = 60.0, 600.0


class ConnectionLimit:
    """How many connections may be open at once, as a semaphore whose size changes. A context takes one of them."""

    def __init__(self, limit: int, stop: Stop) -> None:
        self._limit = limit
        self._stop = stop
        self._open = self._waiting = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    @property
    def limit(self) -> int:
        """How many at once."""
        return self._limit

    @property
    def wanted(self) -> int:
        """How many who holds several should give back: those above the limit, and those that others wait for."""
        return max(self._open - self._limit, 0) + self._waiting

    def resize(self, limit: int) -> None:
        """Allow so many from now on; those that are open stay until they are done."""
        with self._lock:
            self._limit = limit
            self._changed.notify_all()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take one; whether there was one. Raises ``Stopped`` while it waits.

        Who does not wait comes behind all who do.
        """
        with self._lock:
            if not blocking and (self._open >= self._limit or self._waiting):
                return False
            while self._open >= self._limit:
                self._stop.check()
                self._waiting += 1
                try:
                    self._changed.wait(0.2)
                finally:
                    self._waiting -= 1
            self._open += 1
            return True

    def release(self) -> None:
        """Give one back.

        Nobody is woken for it: who had it takes it for the next file, or one of those who wait looks soon. measured:
        68 -> 148 MB/s with two of 64 threads at work (``near`` of benchmarks/connections.py, with priority).
        """
        with self._lock:
            self._open -= 1

    def __enter__(self) -> Self:
        """Wait for one and take it."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()


class ConnectionTuner:
    """Finds the number of connections that brings most, from ``limit.limit`` upward, never above ``most``.

    It doubles while that brings enough; goes back and tries again ever more seldom where it does not, twice looked at,
    and then whether half of it brings as much; and after a refusal (429, 503, a broken connection) stays below the last
    number that was borne for a while, and then adds a quarter. Bytes are counted and not files, since a throttled file
    takes longer than a look. Where it begins with ``most``, as with a number that the user named, only a server that
    says that it is too many (429, 503) makes it go below.
    """

    def __init__(self, limit: ConnectionLimit, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._most, self._clock = limit, most, clock
        self._samples: deque[tuple[float, int]] = deque()
        self._due = clock() + _LOOK_SECONDS
        self._changed_at = clock()
        self._borne = 0
        self._before: tuple[int, float] | None = None
        self._doubling = True
        self._looked_again = False
        self._fewer_tried_from = 0
        self._next_try, self._pause = 0.0, _FIRST_PAUSE
        self._ceiling, self._ceiling_until, self._ceiling_span = most, 0.0, _FIRST_CEILING
        self._refused = self._fell = False
        self._quiet_until = 0.0
        self._named = limit.limit == most

    @staticmethod
    def start(most: int) -> int:
        """The number to begin with."""
        return min(_START, most)

    def refused(self, pause: float = 0.0, overloaded: bool = True) -> None:
        """A server turned a request away, or broke off, and all wait for ``pause`` seconds; from any thread."""
        if self._named and not overloaded:
            return
        now = self._clock()
        # After a step down, what the number before it set off says nothing of this one; nor does what waited then.
        if not self._fell or now - self._changed_at >= _LOOK_SECONDS - _MEASURED_SECONDS:
            self._refused, self._quiet_until = True, now + pause

    def adjust(self, moved: int) -> None:
        """Judge by ``moved``, the bytes that came so far; to be called a few times a second."""
        now = self._clock()
        self._samples.append((now, moved))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _MEASURED_SECONDS:
            self._samples.popleft()
        if self._refused:
            # At once: each moment at this number brings more refusals.
            self._fall_back(now)
        if now < self._due:
            return
        self._due = now + _LOOK_SECONDS
        began, had = self._samples[0]
        rate = (moved - had) / max(now - began, 0.001)
        if self._before is not None:
            self._judge_trial(now, rate)
        else:
            self._borne = max(self._borne, self._limit.limit)
            if now >= self._next_try:
                self._raise_from(rate, now)

    def _judge_trial(self, now: float, rate: float) -> None:
        assert self._before is not None
        (number, brought), self._before = self._before, None
        if self._limit.limit < number:
            if rate < _AS_MUCH * brought:
                self._change(number, now)
            else:
                self._try_fewer(rate, now)
            return
        promised = brought * (self._limit.limit - number) / number
        if rate - brought < _WORTH * promised and not self._looked_again:
            # No network brings the same each second.
            self._before, self._looked_again = (number, brought), True
            return
        self._looked_again = False
        if rate - brought >= _WORTH * promised:
            self._borne = self._limit.limit
            self._pause = _FIRST_PAUSE
            self._raise_from(rate, now)
            return
        self._next_try, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        self._change(number, now)
        self._try_fewer(brought, now)

    def _try_fewer(self, rate: float, now: float) -> None:
        """Halve the number where more bring nothing, once from each: fewer may bring as much, on one machine more."""
        number = self._limit.limit
        if number > _FEWEST and number != self._fewer_tried_from:
            self._fewer_tried_from = number
            self._before = (number, rate)
            self._change(max(number // 2, _FEWEST), now)

    def _fall_back(self, now: float) -> None:
        number = self._limit.limit
        lower = self._borne if 0 < self._borne < number else max(number * 3 // 4, 1)
        if number > _next(lower):
            # What is borne lies between the two: a quarter more is tried before this counts as the ceiling.
            self._next_try = now + _FIRST_PAUSE
        else:
            self._ceiling, self._ceiling_until = lower, now + self._ceiling_span
            self._ceiling_span = min(2 * self._ceiling_span, _LONGEST_CEILING)
        self._refused, self._before, self._doubling, self._looked_again = False, None, False, False
        self._borne = min(self._borne, lower)
        self._change(lower, now)

    def _raise_from(self, rate: float, now: float) -> None:
        number = self._limit.limit
        most = self._ceiling if now < self._ceiling_until else self._most
        more = min(2 * number if self._doubling else _next(number), most)
        if more > number and rate > 0:
            self._before = (number, rate)
            self._change(more, now)

    def _change(self, number: int, now: float) -> None:
        self._changed_at = max(now, self._quiet_until)
        self._due = self._changed_at + _LOOK_SECONDS
        self._fell = number < self._limit.limit
        self._limit.resize(number)


def _next(number: int) -> int:
    """A quarter more."""
    return number + max(number // 4, 1)
