"""What one worker has for itself: a buffer, and the item that comes next, which may have been asked for already.

A server needs a moment for each answer. So as soon as the last bytes of a file are here the next one is asked for over
the same connection, and its answer is on its way while those bytes are written, digested and put in place. To leave
that to another worker would cost a change of threads for each file.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cxrprep.transfer.limits import Slot

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from cxrprep.planning import Item
    from cxrprep.sources.base import AsksAhead

_BUFFER: Final = 1 << 18


class Desk:
    """One worker's own; used by one thread.

    ``slots`` counts the connections that may be open at once. ``upcoming`` takes the next item that may be asked for
    ahead; ``source`` is ``None`` when nothing is to be. ``begun`` is the moment, on the monotonic clock, when the
    present item was asked for, or else taken.
    """

    def __init__(
        self, slots: threading.Semaphore, source: AsksAhead | None, upcoming: Callable[[], Item | None]
    ) -> None:
        self.buffer = memoryview(bytearray(_BUFFER))
        self._slots = slots
        self._source = source
        self._upcoming = upcoming
        self._next: Item | None = None
        self._asked: tuple[Item, Slot] | None = None
        self._asked_at = 0.0
        self.begun = 0.0

    def take(self) -> Item | None:
        """The item that this worker has taken for next, if any; it is no longer here then."""
        item, self._next = self._next, None
        self.begun = self._asked_at if self._asked is not None else time.monotonic()
        return item

    def slot(self, item: Item) -> Slot:
        """The slot over which ``item`` was asked for, or one to wait for."""
        # An attempt that failed after its last bytes has asked for the next item already.
        self.withdraw(item)
        asked, self._asked = self._asked, None
        return Slot(self._slots) if asked is None else asked[1]

    def go_on(self, slot: Slot) -> None:
        """Nothing more comes over ``slot`` for this file: ask for the next one over it, or let others have it."""
        if self._source is not None and self._next is None:
            item = self._next = self._upcoming()
            if item is not None and self._source.ask(item.file):
                self._asked, self._asked_at = (item, slot.hand_over()), time.monotonic()
                return
        slot.release()

    def withdraw(self, item: Item | None = None) -> None:
        """Drop what was asked for, unless it is ``item``; it stays the next one."""
        if self._asked is not None and self._asked[0] is not item:
            (asked, slot), self._asked = self._asked, None
            assert self._source is not None
            self._source.withdraw(asked.file)
            slot.release()
