"""Retry of a file transfer: backoff, Retry-After, and a fresh budget whenever bytes advanced."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cxrprep.errors import SourceUnreachableError
from cxrprep.events import Retrying, Sink
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.retry import attempts

if TYPE_CHECKING:
    from collections.abc import Callable

    import stamina

    from cxrprep.transfer.limits import Stop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is repeated that brings nothing, and how long is waited in between, in seconds.

    The default survives two minutes without a network. ``worth`` is how many bytes are something: a server that sends
    a few and falls silent, again and again, would else be asked for days. ``unreached`` is for how long a host is
    tried to which no connection has come about yet: who works offline, or behind a proxy that nothing names, is to
    hear it now.
    """

    attempts: int = 10
    worth: int = 1 << 16
    first_wait: float = 0.5
    longest_wait: float = 30.0
    jitter: float = 1.0
    unreached: float = 10.0


class _Advanced(Exception):  # noqa: N818  # no failure: bytes came
    pass


@dataclass(slots=True, eq=False)
class Retrier:
    """Repeats what failed for a reason that may pass. 401, 403, 404 and wrong bytes are not repeated.

    Attributes:
        retry_policy: attempts and waits.
        stop: ends a wait.
        on_event: learns of each retry.
        refused: called for each attempt that failed, with the seconds that all are to wait, and whether the server is
            overloaded.
        is_away: whether no connection came about in the last attempt that ended.
    """

    retry_policy: RetryPolicy
    stop: Stop
    on_event: Sink
    refused: Callable[[float, bool], None] | None = None
    is_away: bool = field(default=False, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _not_before: float = field(default=0.0, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)
    _connected: bool = field(default=False, init=False)

    def run(self, work: Callable[[], T], progress: Callable[[], int], key: str) -> T:
        """What ``work`` returns, in the end. ``progress`` counts bytes: enough of them give a full new budget.

        Raises the last ``SourceUnreachableError`` when the budget is used up, and every other error at once.
        """
        try:
            # The first attempt costs nothing extra; most files need no other.
            return self._once(work)
        except SourceUnreachableError as error:
            if error.lasting:
                raise
            failure = error
        while True:
            try:
                return self._again(work, progress, key, failure)
            except _Advanced as advanced:
                cause = advanced.__cause__
                assert isinstance(cause, SourceUnreachableError)
                failure = cause

    def ask(self, question: Callable[[], T]) -> T:
        """What ``question`` returns, to be called by who holds a connection. Raises what it raises, and ``Stopped``.

        Whoever is turned away makes all others wait before the connection goes to the next in line: it would only be
        turned away too.
        """
        self._hold()
        try:
            return question()
        except SourceUnreachableError as error:
            self.put_off(error)
            raise

    @property
    def on_hold(self) -> bool:
        """Whether a server asked one connection to wait, by which it means all of them."""
        return self._not_before > 0.0 and self._not_before > time.monotonic()

    def reached(self) -> None:
        """A connection has come about."""
        self._connected = True

    def _hold(self) -> None:
        wait = self._not_before - time.monotonic()
        if wait > 0:
            self.stop.wait(wait)

    def put_off(self, error: SourceUnreachableError) -> float:
        """Make everybody wait as the error asks; the seconds."""
        pause = error.retry_after
        if pause is None:
            pause = self.retry_policy.first_wait if error.overloaded else 0.0
        with self._guard:
            self._not_before = max(self._not_before, time.monotonic() + pause)
        return pause

    def turned_away(self, error: SourceUnreachableError) -> None:
        """Make everybody wait as the error asks, and let the number of connections go down."""
        pause = self.put_off(error)
        if self.refused is not None:
            self.refused(pause, error.overloaded)

    def _once(self, work: Callable[[], T]) -> T:
        self._hold()
        try:
            found = work()
        except SourceUnreachableError as error:
            self.is_away = isinstance(error, NotConnectedError)
            self._connected = self._connected or not self.is_away
            raise
        self.is_away, self._connected = False, True
        return found

    def _patience(self, error: SourceUnreachableError) -> float:
        """For how many seconds more a host is tried: without end but for one that was never reached in this run."""
        if self._connected or not isinstance(error, NotConnectedError):
            return math.inf
        return self._began + self.retry_policy.unreached - time.monotonic()

    def _again(
        self, work: Callable[[], T], progress: Callable[[], int], key: str, failure: SourceUnreachableError
    ) -> T:
        current: list[stamina.Attempt] = []
        began = progress()

        def judge(error: Exception) -> bool | float:
            if not isinstance(error, SourceUnreachableError) or error.lasting or self.stop.asked:
                return False
            patience = self._patience(error)
            if patience < 0:
                return False
            attempt = current[-1]
            if error.tries is not None and attempt.num >= error.tries:
                return False
            asked = error.retry_after
            wait = asked if asked is not None else min(attempt.next_wait, patience)
            self.turned_away(error)
            if attempt.num < self.retry_policy.attempts:
                self.on_event(Retrying("download", key, error.message, attempt.num, wait))
            # The library's own wait has jitter.
            return True if asked is None and wait < patience else wait

        retry_policy = self.retry_policy
        for attempt in attempts(
            on=judge,
            attempts=retry_policy.attempts,
            timeout=None,
            wait_initial=retry_policy.first_wait,
            wait_max=retry_policy.longest_wait,
            wait_jitter=retry_policy.jitter,
        ):
            current.append(attempt)
            with attempt:
                if attempt.num == 1:
                    # The attempt that has failed already is the first one.
                    raise failure
                try:
                    return self._once(work)
                except SourceUnreachableError as error:
                    if progress() - began >= self.retry_policy.worth:
                        raise _Advanced from error
                    raise
        raise failure
