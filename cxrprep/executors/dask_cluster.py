"""Executor on a Dask cluster; each worker of it does its batches in a process of its own.

A decoder that crashes would end the worker, the task would go to the next one and end that too, and a nanny whose
worker dies while it starts gives up: one damaged file could empty a cluster. So it only ends a process beside it.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.errors import CxrprepError, MissingExtraError, SourceUnreachableError, UsageError
from cxrprep.events import Note, ignore
from cxrprep.executors.processes import Lost, WorkerPool
from cxrprep.extras import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.events import Sink

T = TypeVar("T")
R = TypeVar("R")

_CONNECT_SECONDS: Final = 20
# Batches under way, a thread of the cluster: enough that none waits for us, few enough for any scheduler.
_AHEAD: Final = 4
# How long the size of a cluster that grows and shrinks is taken as known, in seconds.
KNOWN: Final = 2.0
# A cluster without workers is said after so many seconds.
LONELY: Final = 5.0
# Dask gives a task up when four workers ended over it. With crashes kept out of them these were nodes that went away.
_WAIT_SECONDS: Final = 25


# ---- on a worker ----

_thread = threading.local()
_pools: list[tuple[WorkerPool, threading.Lock]] = []


def _own_pool() -> tuple[WorkerPool, threading.Lock]:
    found: tuple[WorkerPool, threading.Lock] | None = getattr(_thread, "pool", None)
    if found is None:
        found = _thread.pool = (WorkerPool(1), threading.Lock())
        _pools.append(found)
    return found


def _isolated(function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float) -> list[R | Lost[T]]:
    """A batch in the process beside this thread of a worker."""
    pool, busy = _own_pool()
    with busy:
        return list(pool.run(function, batch, seconds))


def _close_pools() -> None:
    """End the processes that nobody uses: another program may be at work on the same cluster."""
    for pool, busy in _pools:
        if busy.acquire(blocking=False):
            try:
                pool.close()
            finally:
                busy.release()


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112  # runs on workers, text in and out


# ---- here ----


@dataclass(slots=True)
class Cluster:
    """A client of a Dask cluster."""

    client: Any
    inner: cf.Executor
    threads: int = 0
    asked: float = -KNOWN
    seen: float = field(default_factory=time.monotonic)
    reported: bool = False

    def submit(
        self, function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float = 0.0
    ) -> cf.Future[list[R | Lost[T]]]:
        """A batch on its way."""
        return self.inner.submit(_isolated, function, batch, seconds)

    def most(self) -> int:
        """How many batches may be under way: four a thread, as the cluster is now."""
        if time.monotonic() - self.asked >= KNOWN:
            self.threads = sum(self.client.nthreads().values())
            self.asked = time.monotonic()
            if self.threads:
                self.seen = self.asked
        return max(1, self.threads) * _AHEAD

    def report_waiting(self, on_event: Sink) -> None:
        """Say once that nobody works, and where to look."""
        if self.threads:
            self.reported = False
        elif not self.reported and time.monotonic() - self.seen >= LONELY:
            self.reported = True
            board = self.dashboard()
            message = (
                f"the Dask scheduler at {self.client.scheduler.address} has no worker; waiting for one"
                f"{f', dashboard: {board}' if board else ''}"
            )
            on_event(Note("engine", message, "warning", self.client.scheduler.address))

    def dashboard(self) -> str:
        """The address of the scheduler's dashboard; empty when it has none."""
        try:
            return str(self.client.dashboard_link or "")
        except (KeyError, AttributeError, ValueError):
            return ""

    def result(self, future: cf.Future[R]) -> R | None:
        """What a task gave; ``None`` when its workers went away. Raises what it raised, or that the cluster is gone."""
        try:
            return future.result()
        except CxrprepError:
            raise
        except (Exception, cf.CancelledError) as error:
            name = type(error).__name__
            if name == "KilledWorker":
                return None
            if name in ("CancelledError", "FutureCancelledError", "CommClosedError", "TimeoutError"):
                raise SourceUnreachableError(
                    f"the Dask scheduler was lost: {error}", hint="run it again; what is done is kept"
                ) from error
            if isinstance(error, ImportError):
                raise UsageError(
                    f"the workers of the cluster cannot load cxrprep: {error}",
                    hint="install the same cxrprep on every node",
                ) from error
            raise

    def results(
        self,
        function: Callable[[Sequence[T]], Sequence[R]],
        batches: Iterator[list[T]],
        seconds: float = 0.0,
        on_event: Sink = ignore,
    ) -> Iterator[R | Lost[T]]:
        """What the batches give, as they end, with a bounded number of them under way.

        Args:
            function: Takes a batch.
            batches: Lists of items.
            seconds: Longest time for an item; ``None`` sets no limit.
            on_event: Called with remarks.

        Yields:
            Results; ``Lost`` for an item over which its worker died.

        Raises:
            SourceUnreachableError: The scheduler is gone, or has no worker for long.
        """
        waiting: dict[cf.Future[list[R | Lost[T]]], list[T]] = {}
        again: list[list[T]] = []
        gone = 0
        try:
            while True:
                while len(waiting) < self.most():
                    batch = again.pop() if again else next(batches, None)
                    if batch is None:
                        break
                    waiting[self.submit(function, batch, seconds)] = batch
                if not waiting:
                    return
                self.report_waiting(on_event)
                done, _ = cf.wait(waiting, timeout=KNOWN, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    batch = waiting.pop(future)
                    results = self.result(future)
                    if results is not None:
                        yield from results
                        continue
                    again.append(batch)
                    gone += 1
                    if gone == _WAIT_SECONDS:
                        raise SourceUnreachableError(
                            "the workers of the cluster keep stopping",
                            hint="look at their memory limit and wall time; run it again, what is done is kept",
                        )
        finally:
            for future in waiting:
                future.cancel()

    def unseen(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Of each worker, which of these folders it does not see."""
        found: dict[str, list[str]] = self.client.run(_unseen, list(paths))
        return found


@contextmanager
def cluster(scheduler: str) -> Iterator[Cluster]:
    """The cluster at an address. Raises ``UsageError``, ``MissingExtraError`` or ``SourceUnreachableError``."""
    if not scheduler:
        raise UsageError("--engine dask needs the address of a scheduler", hint="--scheduler tcp://host:8786")
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("the dask engine needs dask.distributed", hint=install_command("dask")) from error
    try:
        client: Any = distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]  # dask has no stubs here
    except (OSError, TimeoutError, ValueError) as error:
        raise SourceUnreachableError(
            f"no Dask scheduler answers at {scheduler}: {error}", hint="start one, or run without --engine dask"
        ) from error
    try:
        # pure=False: a task writes files; equal arguments do not make it the same task.
        yield Cluster(client, client.get_executor(pure=False))
        client.run(_close_pools, on_error="ignore")
    finally:
        client.close()
