"""Queue of a transfer: the items of a plan that wait for a thread, and what became of the others."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from cxrprep.errors import AccessError, SomeFailedError, SourceUnreachableError, StorageError
from cxrprep.planning.plan import MOVING, Action, Item, Plan
from cxrprep.transfer.result import Outcome, OutcomeStatus, TransferResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.planning.plan_items import Kind, SortedItems
    from cxrprep.transfer.limits import Stop

# One archive is unpacked while the next one comes; more would only need more disk.
_ARCHIVES_AT_ONCE: Final = 2
# So many refusals in a row, with no success between them, mean all of them.
_REFUSALS: Final = 5
# Each of these has been tried for as long as the patience goes.
_TIMES_AWAY: Final = 5


class _Waiting:
    """Items that wait: some in memory, and images of a large plan that are read from it as their turn comes."""

    def __init__(self) -> None:
        self._held: deque[Item] = deque()
        self._images: Iterator[Item] = iter(())
        self.following = 0

    def follow(self, images: SortedItems, wanted: Callable[[Kind], bool]) -> None:
        """Let those of ``images`` that are wanted come after the others."""
        self._images = images.of(wanted)
        self.following = sum(total.files for kind, total in images.totals().items() if wanted(kind))

    def __len__(self) -> int:
        return len(self._held) + self.following

    def append(self, item: Item) -> None:
        self._held.append(item)

    def popleft(self) -> Item:
        if self._held:
            return self._held.popleft()
        self.following -= 1
        return next(self._images)

    def taken(self) -> list[Item]:
        """Those in memory; none is left."""
        held = list(self._held)
        self._held.clear()
        self._images, self.following = iter(()), 0
        return held


class TransferQueue:
    """The items still to be worked on, and what became of the others."""

    def __init__(self, plan: Plan, *, hooked: bool) -> None:
        self.result = TransferResult()
        self.bug: BaseException | None = None
        self._tables: deque[Item] = deque()
        self._archives: deque[Item] = deque()
        self._files = _Waiting()
        self._unpacking = 0
        self._refused = 0
        self._away = 0
        self._guard = threading.Condition()
        self._small = _Waiting()
        self._engage: Callable[[], None] | None = None
        self._settled = threading.Event()
        self._images, self._hooked = plan.images_after, hooked
        for item in plan.first:
            if item.action is Action.IMPOSSIBLE:
                error = SomeFailedError(f"{item.dest}: {item.reason}")
                self.result.add(Outcome(item, OutcomeStatus.IMPOSSIBLE, error=error))
            elif not self._is_due((item.action, item.proven)):
                self.result.kept += 1
            elif item.archive:
                self._archives.append(item)
            elif self._archives:
                self._files.append(item)
            else:
                self._tables.append(item)
        self._files.follow(self._images, self._is_due)
        self.result.kept += len(self._images) - self._files.following

    def _is_due(self, kind: Kind) -> bool:
        """Whether there is something to do for an item."""
        return kind[0] in MOVING or not kind[1] or self._hooked

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._small) + self.for_threads

    @property
    def for_threads(self) -> int:
        """How many are not for the thread of small files."""
        return len(self._tables) + len(self._archives) + len(self._files)

    def take(self) -> Item | None:
        """The next item: tables first, then archives, few at a time, and everything else beside them.

        While there is a thread for small files, what that hands on is waited for.
        """
        with self._guard:
            while (item := self._next()) is None and self._engage is not None:
                self._guard.wait()
            return item

    def _next(self) -> Item | None:
        if self._tables:
            return self._tables.popleft()
        if self._archives and self._unpacking < _ARCHIVES_AT_ONCE:
            self._unpacking += 1
            return self._archives.popleft()
        return self._files.popleft() if self._files else None

    # ---- small files, in a thread of their own ----

    def sort(self, engage: Callable[[], None]) -> None:
        """Keep what may be small apart; ``engage`` is called for each item that is handed on."""
        self._engage = engage
        items = (*self._tables, *self._files.taken())
        self._tables.clear()
        for item in items:
            (self._small if item.action is Action.FETCH else self._files).append(item)
        self._small.follow(self._images, lambda kind: kind[0] is Action.FETCH)
        self._files.follow(self._images, lambda kind: kind[0] is not Action.FETCH and self._is_due(kind))

    def await_first(self, stop: Stop) -> bool:
        """Wait until an item has been settled since the last time; whether one has come by now."""
        while not stop.asked and not self._settled.wait(0.1):
            pass
        self._settled.clear()
        return self.result.done > 0

    def take_file(self) -> Item | None:
        """The next one that may be small."""
        with self._guard:
            return self._small.popleft() if self._small else None

    def hand_on(self, item: Item) -> None:
        """An item for the threads."""
        with self._guard:
            self._files.append(item)
            self._guard.notify()
        if self._engage is not None:
            self._engage()

    def unsort(self) -> None:
        """Nobody takes small files any more: what is left is for the threads."""
        for _ in range(len(self._small)):
            self.hand_on(self._small.popleft())
        with self._guard:
            self._engage = None
            self._guard.notify_all()

    def give_back(self, item: Item) -> None:
        """An item that the run did not finish."""
        with self._guard:
            self._files.append(item)

    def take_back(self, items: Sequence[Item]) -> None:
        """Items that are done, and have to be fetched once more."""
        with self._guard:
            self.result.done -= len(items)
            for item in items:
                item.action = Action.REFETCH
                (self._archives if item.archive else self._files).append(item)

    def settle(self, outcome: Outcome) -> bool:
        """Count ``outcome``; whether the run should end here, since the rest would fail the same way."""
        with self._guard:
            self.result.add(outcome)
            self._settled.set()
            if outcome.item.archive:
                self._unpacking -= 1
            if outcome.error is None:
                self._refused = self._away = 0
                return False
            self._refused += isinstance(outcome.error, AccessError)
            self._away += isinstance(outcome.error, SourceUnreachableError)
            return isinstance(outcome.error, StorageError) or self._refused >= _REFUSALS or self._away >= _TIMES_AWAY
