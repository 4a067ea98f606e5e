"""Small files of a mirror: many requests at once in one thread, each file written when its bytes are right.

Whatever is not as simple (an error, a login, a redirect, a long file, wrong bytes, something in its place) goes to the
threads of the downloader, which go on with the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cxrprep.errors import CxrprepError
from cxrprep.transfer.limits import Stopped
from cxrprep.transfer.result import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.planning import Item
    from cxrprep.sources.base import Requests
    from cxrprep.transfer.connection_limit import ConnectionLimit
    from cxrprep.transfer.limits import IdleTimer, Stop
    from cxrprep.transfer.retry import Retrier
    from cxrprep.transfer.worker import Worker

# More files than came are handed on: a mirror that redirects each, or whose files are long.
_HANDED_ON: Final = 16


class SmallFiles:
    """Fetches what ``take`` gives, in the thread that calls ``run``."""

    def __init__(
        self,
        worker: Worker,
        requests: Requests,
        *,
        take: Callable[[], Item | None],
        hand_on: Callable[[Item], None],
        settle: Callable[[Outcome], None],
        connection_limit: ConnectionLimit,
        retrier: Retrier,
        idle_timer: IdleTimer,
        stop: Stop,
    ) -> None:
        """Nothing is asked yet.

        Args:
            worker: knows what is simple, and writes files.
            requests: of one thread.
            take: the next item, if there is one.
            hand_on: takes an item for the threads.
            settle: counts an outcome.
            connection_limit: connections that may be open at once.
            retrier: knows when all are to wait.
            idle_timer: learns when bytes arrive.
            stop: ends everything.
        """
        self._worker = worker
        self._requests = requests
        self._take = take
        self._hand_on = hand_on
        self._settle = settle
        self._connection_limit = connection_limit
        self._retrier = retrier
        self._idle_timer = idle_timer
        self._stop = stop
        self._asked: dict[str, Item] = {}
        self._handed_on = 0
        self._came = False

    def run(self) -> None:
        """Fetch until nothing is left, the run is to end, or this is no way for this mirror."""
        try:
            with self._idle_timer:
                while not self._stop.asked and (self._ask() or self._asked):
                    self._receive()
        except Stopped:
            pass
        finally:
            self._requests.close()
            for item in self._asked.values():
                self._connection_limit.release()
                self._hand_on(item)

    def _ask(self) -> bool:
        """Ask for as many files as there may be connections; whether there is more to do."""
        if self._handed_on > _HANDED_ON:
            return False
        # One at first: where a login is asked for, what else is under way by then would be turned away too.
        while not self._retrier.on_hold and (self._came or not self._asked):
            if not self._connection_limit.acquire(blocking=False):
                return True
            item = self._take()
            if item is None:
                self._connection_limit.release()
                return False
            if item.file.key in self._asked or not self._worker.is_simple(item):
                self._connection_limit.release()
                self._hand_on(item)
                continue
            self._asked[item.file.key] = item
            try:
                self._requests.ask(item.file)
            except CxrprepError:
                # Who is patient meets it again.
                self._give(item)
        return True

    def _receive(self) -> None:
        requests = self._requests
        if not self._asked:
            # All are to wait.
            self._stop.wait(0.05)
        for file, whole in requests.responses():
            item = self._asked[file.key]
            outcome = None
            if whole is not None:
                try:
                    outcome = self._worker.keep(item, whole)
                except Stopped:
                    raise
                except CxrprepError as error:
                    outcome = Outcome(item, Status.ERROR, error=error)
            if outcome is not None:
                requests.done()
                del self._asked[file.key]
                self._connection_limit.release()
                self._came = True
                self._handed_on = max(self._handed_on - 1, 0)
                self._settle(outcome)
                continue
            if whole is not None:
                requests.hand_on()
            self._give(item)
        if requests.refusal is not None:
            self._retrier.put_off(requests.refusal)
            requests.refusal = None
        if requests.moved:
            self._idle_timer.bytes_arrived(requests.moved)
            self._retrier.reached()
            requests.moved = 0

    def _give(self, item: Item) -> None:
        self._handed_on += 1
        del self._asked[item.file.key]
        self._connection_limit.release()
        self._hand_on(item)
