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

from cxrprep._version import __version__
from cxrprep.errors import CxrprepError, MissingExtraError, SourceUnreachableError, UsageError
from cxrprep.events import Note, Sink, ignore
from cxrprep.executors.processes import Lost, WorkerPool
from cxrprep.extras import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


T = TypeVar("T")
R = TypeVar("R")
# The folders of ours that a worker has to see, and the version that it has to have.
Needed = tuple[tuple[str, ...], str]

_CONNECT_SECONDS: Final = 20
# Batches under way, a thread of the cluster: enough that none waits for us, few enough for any scheduler.
_AHEAD: Final = 4
# How long the size of a cluster that grows and shrinks is taken as known, in seconds.
KNOWN: Final = 2.0
# A cluster without workers is said after so many seconds.
LONELY: Final = 5.0
# Dask gives a task up when four workers ended over it. With crashes kept out of them these were nodes that went away.
_WAIT_SECONDS: Final = 25
_SAME: Final = "install the same cxrprep on every node, and mount the same folders; or use gs:// and s3://"


# ---- on a worker ----

_thread = threading.local()
_pools: list[tuple[WorkerPool, threading.Lock]] = []


def _own_pool() -> tuple[WorkerPool, threading.Lock]:
    found: tuple[WorkerPool, threading.Lock] | None = getattr(_thread, "pool", None)
    if found is None:
        found = _thread.pool = (WorkerPool(1), threading.Lock())
        _pools.append(found)
    return found


class UnfitWorkerError(Exception):
    """Raise on a worker that may not do our work; do not raise where the work itself fails."""


def _isolated(
    function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float, needed: Needed
) -> list[R | Lost[T]]:
    """A batch in the process beside this thread of a worker, which may have joined after the others were asked."""
    from distributed import get_worker

    folders, version = needed
    if version != __version__:
        raise UnfitWorkerError(get_worker().address, f"has cxrprep {__version__}, and not {version}")
    if missing := _unseen(list(folders)):
        raise UnfitWorkerError(get_worker().address, f"does not see {missing[0]}")
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
    """A client of a Dask cluster: ``folders`` of ours are needed by its workers, ``unfit`` are those that lack one."""

    client: Any
    inner: cf.Executor
    folders: tuple[str, ...] = ()
    unfit: dict[str, str] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    threads: int = 0
    asked: float = -KNOWN
    seen: float = field(default_factory=time.monotonic)
    reported: bool = False

    def submit(
        self, function: Callable[[Sequence[T]], Sequence[R]], batch: list[T], seconds: float = 0.0
    ) -> tuple[cf.Future[list[R | Lost[T]]], frozenset[str]]:
        """A batch on its way, and the workers that alone may do it; none are named while all may.

        Args:
            function: Takes a batch.
            batch: The items.
            seconds: Longest time for an item.

        Returns:
            What gives the results, and addresses.

        Raises:
            UsageError: No worker may do it.
        """
        fit = self.addresses - self.unfit.keys() if self.unfit else frozenset[str]()
        if self.unfit and self.addresses and not fit:
            worker, why = next(iter(self.unfit.items()))
            raise UsageError(f"no worker is left: {worker} {why}", hint=_SAME)
        inner = self.client.get_executor(pure=False, workers=sorted(fit)) if fit else self.inner
        return inner.submit(_isolated, function, batch, seconds, (self.folders, __version__)), fit

    def most(self) -> int:
        """How many batches may be under way: four a thread, as the cluster is now."""
        if time.monotonic() - self.asked >= KNOWN:
            threads = self.client.nthreads()
            self.threads, self.addresses = sum(threads.values()), frozenset(threads)
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
        except (CxrprepError, UnfitWorkerError):
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
            UsageError: No worker is left that has this version and sees the folders.
        """
        waiting: dict[cf.Future[list[R | Lost[T]]], tuple[list[T], frozenset[str]]] = {}
        again: list[list[T]] = []
        gone = 0
        try:
            while True:
                while len(waiting) < self.most():
                    batch = again.pop() if again else next(batches, None)
                    if batch is None:
                        break
                    future, fit = self.submit(function, batch, seconds)
                    waiting[future] = (batch, fit)
                if not waiting:
                    return
                self.report_waiting(on_event)
                done, _ = cf.wait(waiting, timeout=KNOWN, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    batch, _ = waiting.pop(future)
                    try:
                        results = self.result(future)
                    except UnfitWorkerError as error:
                        worker, why = error.args
                        self._leave_out(worker, why, on_event)
                        again.append(batch)
                        continue
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
                # What only workers may do that went away meanwhile is given to those that are here now.
                for future, (batch, fit) in list(waiting.items()):
                    if fit and not fit & self.addresses and future.cancel():
                        del waiting[future]
                        again.append(batch)
        finally:
            for future in waiting:
                future.cancel()

    def _leave_out(self, worker: str, why: str, on_event: Sink) -> None:
        """Give a worker no more work, and say so once."""
        if worker not in self.unfit:
            message = f"the worker {worker} {why}: it gets no work"
            on_event(Note("engine", message, "warning", worker))
        self.unfit[worker] = why

    def unseen(self, paths: Sequence[str]) -> dict[str, list[str]]:
        """Of each worker, which of these folders it does not see."""
        found: dict[str, list[str]] = self.client.run(_unseen, list(paths))
        return found


@contextmanager
def cluster(scheduler: str, folders: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """The cluster at an address, whose workers have to see ``folders``.

    Raises ``UsageError``, ``MissingExtraError`` or ``SourceUnreachableError``.
    """
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
        yield Cluster(client, client.get_executor(pure=False), folders)
        client.run(_close_pools, on_error="ignore")
    finally:
        client.close()
