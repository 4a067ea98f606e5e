"""Parallel worker processes, by Pebble: a crash, or an item without end, costs that item alone.

A batch over which its process ended is given out again item by item, so that the one at fault is found and named.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import sys
import threading
import time
import types
from dataclasses import dataclass
from multiprocessing import context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cxrprep.errors import CxrprepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pebble import ProcessPool

T = TypeVar("T")
R = TypeVar("R")

# Seconds that a run which ends too early waits for what its workers are at.
GRACE: Final = 5.0
_BEGIN_SECONDS: Final = 5.0
# Batches under way, a worker: enough that none waits for this process.
_AHEAD: Final = 2
# Pools that broke one after another without a result: then no item is to blame.
_BROKEN_POOLS: Final = 3
_DIED: Final = "the worker process died over it (a crash in a decoder, or memory ran out)"
# The exit code with which faulthandler ends a process.
_LATE: Final = 1


@dataclass(frozen=True, slots=True)
class Lost(Generic[T]):
    """An item over which a worker process died; ``cause`` says how. ``late``: it was ended, the item took too long."""

    item: T
    cause: str
    late: bool = False


class _Worker(context.SpawnProcess):
    """A process that does not import the program which started it, and may be started by a daemon.

    What it runs comes from this package alone. Without this a script that calls ``cxrprep.convert`` outside of
    ``if __name__ == "__main__"`` would run itself again in every worker. The workers of a Dask cluster are daemons,
    which may have no children, lest these outlive them; ours end with their parent.
    """

    def start(self) -> None:
        """Start it."""
        main, own = sys.modules["__main__"], multiprocessing.current_process()
        daemon = own._config.pop("daemon", None)  # type: ignore[attr-defined]  # noqa: SLF001  # the way of loky and joblib
        sys.modules["__main__"] = types.ModuleType("__main__")
        reader, self._begun = multiprocessing.Pipe(duplex=False)
        try:
            super().start()
            _forget_begun(0.0)
            with _starting_lock:
                _starting.append(reader)
        finally:
            # The child has its own end; a child that died shows as the end of the pipe.
            self._begun.close()
            sys.modules["__main__"] = main
            if daemon is not None:
                own._config["daemon"] = daemon  # type: ignore[attr-defined]  # noqa: SLF001  # as it was

    def run(self) -> None:
        """Say that the process has read what it is to do, and do it."""
        self._begun.close()
        super().run()


# Of each process that was started, what tells that it has begun.
_starting: list[Any] = []
_starting_lock: Final = threading.Lock()


def _await_beginnings() -> None:
    """Wait until processes that were just started have read what they are to do.

    One that finds the pool gone by then prints a traceback on the screen of somebody who pressed Ctrl-C.
    """
    until = time.monotonic() + _BEGIN_SECONDS
    while _starting and time.monotonic() < until:
        _forget_begun(0.05)
    _forget_begun(0.0)


def _forget_begun(seconds: float) -> None:
    """Let go of the pipes of processes that have begun, or died; wait ``seconds`` at most for one."""
    with _starting_lock:
        begun: list[Any] = wait(_starting, seconds)
        for reader in begun:
            _starting.remove(reader)
            reader.close()


class _Spawn(context.SpawnContext):
    # Spawned, not forked: codec libraries and threads do not survive a fork well.
    Process = _Worker


# ---- in a worker ----

_seconds = 0.0
_traceback: Any = None


def _work(function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float) -> Sequence[R]:
    global _seconds  # noqa: PLW0603  # a worker process is at one batch at a time
    _seconds = seconds
    try:
        return function(batch)
    finally:
        end_item()
        _seconds = 0.0


def begin_item() -> None:
    """Announce that the function of a batch begins its next item, so that one without end is ended.

    A function that announces nothing has all the time in the world. Outside of a worker process nothing happens.
    """
    global _traceback  # noqa: PLW0603  # one file for the life of the process
    if not _seconds:
        return
    # faulthandler's watchdog is a C thread: a decoder that loops for ever and keeps the interpreter's lock cannot
    # hold it up, as it would a timer of Python's. measured: 46 us an item, beside 5 ms and more of a conversion.
    if _traceback is None:
        _traceback = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # stays open
    faulthandler.dump_traceback_later(_seconds, exit=True, file=_traceback)


def end_item() -> None:
    """Announce that what follows belongs to no item, such as writing what was made of all."""
    if _seconds:
        faulthandler.cancel_dump_traceback_later()


# ---- here ----


class WorkerPool(contextlib.AbstractContextManager["WorkerPool"]):
    """Processes that are started when the first batch comes; a context that ends them. Any thread may use it.

    Left by an exception or an interrupt, workers may end what they are at within ``grace`` seconds.
    """

    def __init__(self, workers: int, *, grace: float = GRACE) -> None:
        """``workers`` processes at most."""
        self.workers = workers
        self._grace = grace
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()
        self._waiting: dict[cf.Future[Any], ProcessPool] = {}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the processes."""
        if kind is not None:
            for future in tuple(self._waiting):
                if not future.running():
                    future.cancel()
            cf.wait(tuple(self._waiting), timeout=self._grace)
        self.close()

    def close(self) -> None:
        """End the processes; whoever waits for one of them is told that the item is lost."""
        for future in tuple(self._waiting):
            future.cancel()
        self._end(self._pool)

    def _end(self, pool: ProcessPool | None) -> None:
        """End a pool, unless another thread has done so; batches that it was given are tried again elsewhere."""
        from concurrent.futures.process import BrokenProcessPool

        with self._lock:
            if pool is None or pool is not self._pool:
                return
            self._pool = None
        _await_beginnings()
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()
        for future in [future for future, given_to in tuple(self._waiting.items()) if given_to is pool]:
            # Pebble leaves those without an end that nobody had taken.
            with contextlib.suppress(RuntimeError, cf.InvalidStateError):
                if future.cancelled():
                    future.set_running_or_notify_cancel()
                else:
                    future.set_exception(BrokenProcessPool("ended"))

    def run(
        self, function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float = 0.0
    ) -> Iterator[R | Lost[T]]:
        """The results of one batch.

        Args:
            function: takes a batch and gives a result for each of its items; picklable.
            batch: the batch; picklable.
            seconds: granted to each item that ``function`` announces; 0 grants any time.

        Raises:
            CxrprepError: processes cannot even begin. What ``function`` raises is passed on.
        """
        return self.results(function, iter([batch]), seconds)

    def results(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterator[list[T]], seconds: float = 0.0
    ) -> Iterator[R | Lost[T]]:
        """The results of all batches as they come, with a bounded number of batches under way; see ``run``."""
        # It brings asyncio with it, a tenth of the imports of a command that decodes nothing.
        from concurrent.futures.process import BrokenProcessPool

        from pebble import ProcessExpired

        waiting: dict[cf.Future[Sequence[R]], list[T]] = {}
        again: list[list[T]] = []
        broken = 0
        while True:
            while len(waiting) < self.workers * _AHEAD:
                batch = again.pop() if again else next(batches, None)
                if batch is None:
                    break
                waiting[self._submit(function, batch, seconds)] = batch
            if not waiting:
                return
            done, _ = cf.wait(waiting, return_when=cf.FIRST_COMPLETED)
            failed: set[ProcessPool] = set()
            for future in done:
                batch, pool = waiting.pop(future), self._waiting[future]
                try:
                    results = future.result()
                except BrokenProcessPool:
                    failed.add(pool)
                    again.append(batch)
                except (ProcessExpired, cf.CancelledError) as error:
                    if len(batch) > 1:
                        again += [[item] for item in reversed(batch)]
                    else:
                        yield _lost(batch[0], error, seconds)
                else:
                    broken = 0
                    yield from results
                finally:
                    del self._waiting[future]
            for pool in failed:
                self._end(pool)
            if failed:
                broken += 1
                if broken == _BROKEN_POOLS:
                    raise CxrprepError(
                        "worker processes die at their start", hint="look at the memory limit of this job and its log"
                    )

    def _submit(
        self, function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float
    ) -> cf.Future[Sequence[R]]:
        from concurrent.futures.process import BrokenProcessPool

        from cxrprep.executors.pebble_pool import PebblePool

        future: cf.Future[Sequence[R]]
        with self._lock:
            if self._pool is None:
                self._pool = PebblePool(self.workers, _Spawn())
            # Without the pool's own limit, which goes by the clock: that steps when a machine wakes up or is set.
            try:
                future = self._pool.schedule(_work, args=(function, batch, seconds))
            except RuntimeError as error:
                # It broke meanwhile over somebody else's batch.
                future = cf.Future()
                future.set_exception(BrokenProcessPool(str(error)))
            self._waiting[future] = self._pool
        return future


def _lost(item: T, error: BaseException, seconds: float) -> Lost[T]:
    late = seconds > 0 and getattr(error, "exitcode", None) == _LATE
    return Lost(item, f"not finished after {seconds:g} s; its process was stopped" if late else _DIED, late)


def peeked(batches: Iterator[list[T]], count: int) -> tuple[int, Iterator[list[T]]]:
    """How many batches there are, up to ``count``, and all of them: more workers than batches are not started."""
    first = list(itertools.islice(batches, count))
    return len(first), itertools.chain(first, batches)
