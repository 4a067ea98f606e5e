"""Small files of a mirror: many requests at once in one thread, each file written when its bytes are right.

Whatever is more than that (an error, a login, a redirect, a long file, wrong bytes, something in its place) goes to the
threads of the downloader, the first file among them: where a login is asked for, or nobody answers, they meet it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.errors import CxrprepError
from cxrprep.transfer.limits import IdleTimer, Stop, Stopped
from cxrprep.transfer.result import Outcome, OutcomeStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.planning.plan import Item
    from cxrprep.sources.base import Received
    from cxrprep.sources.http_requests import HttpRequests
    from cxrprep.transfer.connection_limit import ConnectionLimit
    from cxrprep.transfer.retry import Retrier
    from cxrprep.transfer.worker import Worker

# So many more files handed on than came: a mirror that redirects each, or whose files are long.
_HANDED_ON: Final = 8
# So many requests go out before so many files are written: of all together the answers come together, and the lines
# idle while those are read. measured: 2,000 files with 30 ms a request over 64 connections in 1.6 s all together, 1.4 s
# in sixteens, 1.3 s in fours, with 0.98, 1.00 and 1.19 s of CPU time (the best of 5 runs on a busy machine).
_AT_ONCE: Final = 16
_COUNT_SECONDS: Final = 0.1


@dataclass(slots=True, eq=False)
class SmallFiles:
    """Fetches what ``take`` gives, in the thread that calls ``run``.

    Attributes:
        worker: knows what is simple, and writes files.
        requests: of one thread.
        take: the next item, if there is one.
        hand_on: takes an item for the threads.
        settle: counts an outcome.
        await_first: waits until the threads have brought a file, or failed to; whether they brought one.
        connection_limit: connections that may be open at once.
        retrier: knows when all are to wait.
        idle_timer: learns when bytes arrive.
        stop: ends everything.
    """

    worker: Worker
    requests: HttpRequests
    take: Callable[[], Item | None]
    hand_on: Callable[[Item], None]
    settle: Callable[[Outcome], None]
    await_first: Callable[[], bool]
    connection_limit: ConnectionLimit
    retrier: Retrier
    idle_timer: IdleTimer
    stop: Stop
    _asked: dict[str, Item] = field(default_factory=dict, init=False)
    _connections: int = field(default=0, init=False)
    _handed_on: int = field(default=0, init=False)
    _counted: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Fetch until nothing is left, the run is to end, or this is no way for this mirror."""
        try:
            if self._begin():
                with self.idle_timer:
                    while not self.stop.asked and (self._ask() or self._asked):
                        self._receive()
        except Stopped:
            pass
        finally:
            self.requests.close()
            self._give_back(0)
            for item in self._asked.values():
                self.hand_on(item)

    def _begin(self) -> bool:
        """Leave files to the threads until one has come; whether there is more to do."""
        while not self.stop.asked and (item := self.take()) is not None:
            self.hand_on(item)
            if self.await_first():
                return True
        return False

    def _ask(self, most: int = sys.maxsize) -> bool:
        """Ask for ``most`` files, and no more than there may be connections; whether there is more to do."""
        if self._handed_on > _HANDED_ON:
            return False
        while most > 0 and self.requests.ready and not self.retrier.on_hold:
            if len(self._asked) >= self._connections and not self.connection_limit.acquire(blocking=False):
                return True
            self._connections = max(self._connections, len(self._asked) + 1)
            item = self.take()
            if item is None:
                return False
            if self._request(item):
                most -= 1
            else:
                self.hand_on(item)
        return True

    def _request(self, item: Item) -> bool:
        if item.file.key in self._asked or not self.worker.is_simple(item):
            return False
        try:
            asked = self.requests.ask(item.file)
        except CxrprepError:
            # Who is patient meets it again.
            asked = False
        if asked:
            self._asked[item.file.key] = item
        else:
            self._handed_on += 1
        return asked

    def _receive(self) -> None:
        if not self._asked:
            # All are to wait.
            self._give_back(0)
            self.stop.wait(0.05)
            return
        received = self.requests.responses()
        came = [(self._asked.pop(answer.file.key), answer) for answer in received]
        self._give_back(self._connections - self.connection_limit.wanted)
        refusal, self.requests.refusal = self.requests.refusal, None
        if refusal is not None:
            self.retrier.turned_away(refusal)
            # There are too many connections; it says nothing of this way.
            self._handed_on -= sum(answer.data is None for answer in received)
        more = True
        for number, (item, answer) in enumerate(came):
            if number % _AT_ONCE == 0:
                more = more and self._ask(_AT_ONCE)
                self.requests.send()
            self._keep(item, answer)
        now = time.monotonic()
        if now - self._counted > _COUNT_SECONDS:
            self._counted = now
            moved = self.requests.moved()
            if moved:
                self.idle_timer.bytes_arrived(moved)
                self.retrier.reached()

    def _keep(self, item: Item, answer: Received) -> None:
        outcome = None
        if answer.data is not None:
            try:
                outcome = self.worker.keep(item, answer.data, answer.validator)
            except CxrprepError as error:
                outcome = Outcome(item, OutcomeStatus.ERROR, error=error)
            if outcome is None:
                self.requests.wrong()
        if outcome is None:
            self._handed_on += 1
            self.hand_on(item)
        else:
            self._handed_on = max(self._handed_on - 1, 0)
            self.settle(outcome)

    def _give_back(self, most: int) -> None:
        """Let go of connections that are not in use, where there may be no more than ``most``."""
        while self._connections > max(len(self._asked), most):
            self.connection_limit.release()
            self._connections -= 1
