"""Where work runs: in processes here, or on a Dask cluster that exists. One function over batches, whatever the engine.

The seam is ``concurrent.futures.Executor``, which ``dask.distributed`` offers too. A batch is some tens of items, so
that one task lasts long enough to be worth sending; a bounded number of batches is under way. A worker that dies takes
only its batch with it: the batch is cut in halves until the item that kills is found, and that one is reported.
"""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cxrprep.errors import MissingExtraError, SourceUnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Lost(Generic[T]):
    """An item whose worker process died twice over it; ``cause`` says how."""

    item: T
    cause: str


def available_cores() -> int:
    """Processors that this process may use, at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Engine:
    """What the user chose: ``name`` local or dask, ``jobs`` processes here, ``scheduler`` a Dask address."""

    name: str = "local"
    jobs: int | None = None
    scheduler: str = ""

    @property
    def workers(self) -> int:
        """How many batches can run at once, as far as is known before a cluster was asked."""
        return self.jobs or available_cores()

    def run(
        self, function: Callable[[Sequence[T]], Sequence[R]], items: Iterable[T], *, batch: int = 32
    ) -> Iterator[R | Lost[T]]:
        """What ``function`` gives for each batch of ``items``, flattened, as batches finish.

        ``function`` and items must be picklable. Order within a batch is kept, order of batches is not promised. An
        exception of ``function`` ends the run. Raises ``SourceUnreachableError`` when no cluster answers.
        """
        batches = _batches(items, batch)
        if self.name == "dask":
            yield from self._on_dask(function, batches)
        elif self.workers == 1:
            for held in batches:
                yield from function(held)
        else:
            yield from self._here(function, batches)

    @contextmanager
    def executor(self) -> Iterator[cf.Executor]:
        """The plain executor, for work that is not in batches; it is shut down at the end."""
        if self.name == "dask":
            with _dask(self.scheduler) as (executor, _):
                yield executor
        else:
            with _pool(self.workers) as pool:
                yield pool

    # ---- processes here ----

    def _here(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterator[list[T]]
    ) -> Iterator[R | Lost[T]]:
        source = batches
        while True:
            try:
                with _pool(self.workers) as pool:
                    yield from _drive(pool, function, source, self.workers * 3)
            except _Broken as broken:
                # The culprit is among these: run them alone, one at a time, each in a process of its own.
                suspects, rest = broken.under_way, broken.rest
                for held in suspects:
                    yield from _alone(function, held)
                source = rest
                continue
            return

    # ---- a Dask cluster ----

    def _on_dask(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterator[list[T]]
    ) -> Iterator[R | Lost[T]]:
        with _dask(self.scheduler) as (executor, workers):
            waiting: dict[cf.Future[Sequence[R]], list[T]] = {}
            for held in itertools.islice(batches, workers * 4):
                waiting[executor.submit(function, held)] = held
            while waiting:
                done, _ = cf.wait(waiting, return_when=cf.FIRST_COMPLETED)
                for future in done:
                    held = waiting.pop(future)
                    try:
                        yield from future.result()
                    except Exception as error:
                        if type(error).__name__ != "KilledWorker":
                            raise
                        if len(held) == 1:
                            yield Lost(held[0], "workers of the cluster died over it")
                        else:
                            half = len(held) // 2
                            for part in (held[:half], held[half:]):
                                waiting[executor.submit(function, part)] = part
                    for following in itertools.islice(batches, 1):
                        waiting[executor.submit(function, following)] = following


class _Broken(Exception):  # noqa: N818  # a signal within this module, not an error for anyone
    def __init__(self, under_way: list[list[Any]], rest: Iterator[list[Any]]) -> None:
        super().__init__()
        self.under_way = under_way
        self.rest = rest


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while held := list(itertools.islice(iterator, size)):
        yield held


@contextmanager
def _pool(workers: int) -> Iterator[cf.ProcessPoolExecutor]:
    # Spawned, not forked: codec libraries and threads do not survive a fork well.
    pool = cf.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _quiet_worker() -> None:
    # The parent answers Ctrl-C; a traceback of every worker would bury its message.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _drive(
    pool: cf.ProcessPoolExecutor,
    function: Callable[[Sequence[T]], Sequence[R]],
    batches: Iterator[list[T]],
    most: int,
) -> Iterator[R | Lost[T]]:
    waiting: dict[cf.Future[Sequence[R]], list[T]] = {}
    try:
        for held in itertools.islice(batches, most):
            waiting[pool.submit(function, held)] = held
        while waiting:
            done, _ = cf.wait(waiting, return_when=cf.FIRST_COMPLETED)
            for future in done:
                results = future.result()
                del waiting[future]
                yield from results
                for held in itertools.islice(batches, 1):
                    waiting[pool.submit(function, held)] = held
    except BrokenProcessPool:
        raise _Broken(list(waiting.values()), batches) from None


def _alone(function: Callable[[Sequence[T]], Sequence[R]], held: list[T]) -> Iterator[R | Lost[T]]:
    try:
        with _pool(1) as pool:
            results = pool.submit(function, held).result()
    except BrokenProcessPool:
        if len(held) == 1:
            yield Lost(held[0], "the worker process died over it (a crash in a decoder, or memory ran out)")
            return
        half = len(held) // 2
        yield from _alone(function, held[:half])
        yield from _alone(function, held[half:])
        return
    yield from results


@contextmanager
def _dask(scheduler: str) -> Iterator[tuple[cf.Executor, int]]:
    if not scheduler:
        raise UsageError("--engine dask needs the address of a scheduler", hint="--scheduler tcp://host:8786")
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("the dask engine needs dask.distributed", hint="pip install 'cxrprep[dask]'") from error
    try:
        client: Any = distributed.Client(scheduler, timeout=20, set_as_default=False)  # type: ignore[no-untyped-call]  # dask has no stubs here
    except (OSError, TimeoutError, ValueError) as error:
        raise SourceUnreachableError(
            f"no Dask scheduler answers at {scheduler}: {error}", hint="start one, or run without --engine dask"
        ) from error
    try:
        workers = sum(client.nthreads().values()) or 1
        # pure=False: a task writes files; equal arguments do not make it the same task.
        yield client.get_executor(pure=False), workers
    finally:
        client.close()
