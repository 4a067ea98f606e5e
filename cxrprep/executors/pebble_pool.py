"""Pebble's process pool, whose dead workers are judged by all that they said: what they took, and what they had done.

Pebble 5.2 reads what workers say in one thread and looks for dead ones in another. Where a death is seen first, as on a
busy machine, it forgets the batch of a worker that died at once, takes an earlier one for it, or gives up the pool.
"""

from __future__ import annotations

import threading
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from pebble import ProcessPool
from pebble.pool.process import PoolManager

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext


class _Manager(PoolManager):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reading = threading.Lock()

    def process_next_message(self, timeout: float) -> None:
        # Waited for without the lock, which the other thread could never get otherwise.
        if self._has_message(timeout):
            with self._reading:
                super().process_next_message(0)

    def handle_worker_expiration(self, expiration: tuple[int, int]) -> None:
        # Nothing more comes of a process that is dead: all that it said lies in the pipe.
        with self._reading:
            while self._has_message(0):
                super().process_next_message(0)
        super().handle_worker_expiration(expiration)

    def _has_message(self, timeout: float) -> bool:
        channel = self.worker_manager.pool_channel
        try:
            return channel is not None and bool(channel.poll(timeout))
        except OSError as error:
            raise BrokenProcessPool("the pool is closed") from error


class PebblePool(ProcessPool):
    """``pebble.ProcessPool`` with another manager of messages and deaths: there is no public way to name one."""

    def __init__(self, workers: int, context: BaseContext) -> None:
        """``workers`` processes at most, which ``context`` starts."""
        super().__init__(workers, context=context)
        self._pool_manager = _Manager(self._context, context)
