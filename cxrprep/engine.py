"""Where work runs: in processes here, or on a Dask cluster that exists. One function over batches, whatever the engine.

The seam is ``concurrent.futures.Executor``, which ``dask.distributed`` offers too. A batch is some tens of items, so
that one task lasts long enough to be worth sending; a bounded number of batches is under way. A worker that dies takes
only its batch with it: that batch is run again alone, in parts, until the item that kills is found; it is reported.
"""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import multiprocessing
import os
import sys
import threading
import time
import types
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cxrprep.errors import CxrprepError, MissingExtraError, SourceUnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")

# Batches under way: enough that no worker waits for this process, few enough that 377,110 images are never in memory.
_AHEAD_HERE: Final = 2
_AHEAD_ON_CLUSTER: Final = 4
# How long the size of a cluster that grows and shrinks is taken as known, in seconds.
_CLUSTER_KNOWN: Final = 2.0
_CONNECT_SECONDS: Final = 20
_IDLE: Final = -1
# Pools that broke one after another with nobody at work: then no item is to blame.
_IDLE_DEATHS: Final = 3
_DIED_HERE: Final = "the worker process died over it (a crash in a decoder, or memory ran out)"
_DIED_THERE: Final = "four workers of the cluster died over it (a crash in a decoder, or memory ran out)"


@dataclass(frozen=True, slots=True)
class Lost(Generic[T]):
    """An item whose worker process died while it had nothing else to do; ``cause`` says how."""

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
    """What the user chose: ``name`` local, dask or inline, ``jobs`` processes here, ``scheduler`` a Dask address.

    Inline is this process itself, for a handful of items: a crash in a decoder then ends it.
    """

    name: str = "local"
    jobs: int | None = None
    scheduler: str = ""

    @property
    def workers(self) -> int:
        """How many batches can run at once, as far as is known before a cluster was asked."""
        return 1 if self.name == "inline" else self.jobs or available_cores()

    def run(
        self, function: Callable[[Sequence[T]], Sequence[R]], items: Iterable[T], *, batch: int = 32
    ) -> Iterator[R | Lost[T]]:
        """What ``function`` gives for each batch of ``items``, flattened, as batches finish.

        ``function`` and items must be picklable. Order within a batch is kept, order of batches is not promised. An
        exception of ``function`` ends the run. No worker is started for no items. Raises ``SourceUnreachableError``
        when no cluster answers.
        """
        batches = _batches(items, batch)
        first = next(batches, None)
        if first is None:
            return
        batches = itertools.chain((first,), batches)
        if self.name == "dask":
            yield from self._on_dask(function, batches)
        elif self.name == "inline":
            for held in batches:
                yield from function(held)
        else:
            yield from self._here(function, batches)

    @contextmanager
    def executor(self) -> Iterator[cf.Executor]:
        """The plain executor, for work that is not in batches; it is shut down at the end."""
        if self.name == "dask":
            with _dask(self.scheduler) as cluster:
                yield cluster.executor
        else:
            with _pool(self.workers) as pool:
                yield pool.executor

    def needs(self, paths: Sequence[str]) -> None:
        """Raise ``UsageError`` when a worker of the cluster does not see one of these folders of ours."""
        if self.name != "dask":
            return
        with _dask(self.scheduler) as cluster:
            for worker, missing in cluster.client.run(_unseen, list(paths)).items():
                if missing:
                    raise UsageError(
                        f"the worker {worker} does not see {missing[0]}",
                        hint="mount the same folder on every node, or use addresses such as gs:// and s3://",
                    )

    # ---- processes here ----

    def _here(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterator[list[T]]
    ) -> Iterator[R | Lost[T]]:
        idle_deaths = 0
        while True:
            with _pool(self.workers) as pool:
                running = _Running(function, pool, batches, self.workers * _AHEAD_HERE)
                yield from running.results()
                if not running.broken:
                    return
                suspects, innocent = running.divided()
            idle_deaths = 0 if suspects else idle_deaths + 1
            if idle_deaths == _IDLE_DEATHS:
                raise _no_workers()
            yield from _alone(function, suspects)
            batches = itertools.chain(innocent, batches)

    # ---- a Dask cluster ----

    def _on_dask(
        self, function: Callable[[Sequence[T]], Sequence[R]], batches: Iterator[list[T]]
    ) -> Iterator[R | Lost[T]]:
        with _dask(self.scheduler) as cluster:
            suspects: deque[list[T]] = deque()
            waiting: dict[cf.Future[Sequence[R]], list[T]] = {}
            try:
                while True:
                    for held in itertools.islice(batches, max(0, cluster.most() - len(waiting))):
                        waiting[cluster.executor.submit(function, held)] = held
                    if not waiting:
                        break
                    done, _ = cf.wait(waiting, timeout=_CLUSTER_KNOWN, return_when=cf.FIRST_COMPLETED)
                    for future in done:
                        held = waiting.pop(future)
                        results = cluster.result(future)
                        if results is None:
                            suspects.append(held)
                        else:
                            yield from results
            finally:
                for future in waiting:
                    future.cancel()
            # Dask blames everything that a dying worker had been given. Guilty is only who kills when nothing else of
            # ours is under way: the batch by itself first, then its items one at a time.
            while suspects:
                held = suspects.popleft()
                results = cluster.result(cluster.executor.submit(function, held))
                if results is not None:
                    yield from results
                elif len(held) == 1:
                    yield Lost(held[0], _DIED_THERE)
                else:
                    suspects.extendleft([item] for item in reversed(held))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while held := list(itertools.islice(iterator, size)):
        yield held


# ---- a pool that says who was at work when it broke ----


class _Worker(context.SpawnProcess):
    """A process that does not import the program which started it.

    What it runs comes from this package alone. Without this a script that calls ``cxrprep.convert`` outside of
    ``if __name__ == "__main__"`` would run itself again in every worker.
    """

    def start(self) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Spawn(context.SpawnContext):
    # Spawned, not forked: codec libraries and threads do not survive a fork well.
    Process = _Worker


@dataclass(frozen=True, slots=True)
class _Pool:
    """The executor, and a place for each worker where it writes down the serial number of its batch."""

    executor: cf.ProcessPoolExecutor
    at_work: Any


@contextmanager
def _pool(workers: int) -> Iterator[_Pool]:
    spawn = _Spawn()
    at_work, taken = spawn.RawArray("q", [_IDLE] * workers), spawn.Value("i", 0)
    executor = cf.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker, initargs=(at_work, taken))
    try:
        yield _Pool(executor, at_work)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_own: Any = None
_slot = 0


def _begin_worker(at_work: Any, taken: Any) -> None:
    global _own, _slot  # noqa: PLW0603  # a worker process is one worker for its whole life
    import signal

    # The parent answers Ctrl-C; a traceback of every worker would bury its message.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with taken.get_lock():
        _slot = taken.value
        taken.value += 1
    _own = at_work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent was killed: nobody else would, since both ends of the queue are in this process too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(function: Callable[[Sequence[T]], Sequence[R]], serial: int, held: list[T]) -> Sequence[R]:
    if _own is not None and _slot < len(_own):
        _own[_slot] = serial
    results = function(held)
    if _own is not None and _slot < len(_own):
        _own[_slot] = _IDLE
    return results


def _hello() -> bool:
    return True


class _Running(Generic[T, R]):
    """Batches on a pool; ``broken`` says that a worker died."""

    def __init__(
        self,
        function: Callable[[Sequence[T]], Sequence[R]],
        pool: _Pool,
        batches: Iterator[list[T]],
        most: int,
    ) -> None:
        self.broken = False
        self._function = function
        self._pool = pool
        self._batches = batches
        self._most = most
        self._serial = itertools.count()
        self._waiting: dict[cf.Future[Sequence[R]], tuple[int, list[T]]] = {}

    def results(self) -> Iterator[R]:
        """The results as they come, until all is done or a worker died."""
        while not self.broken:
            self._submit()
            if not self._waiting:
                return
            done, _ = cf.wait(self._waiting, return_when=cf.FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    self.broken = True
                    continue
                results = future.result()
                del self._waiting[future]
                yield from results

    def _submit(self) -> None:
        for held in itertools.islice(self._batches, self._most - len(self._waiting)):
            serial = next(self._serial)
            try:
                self._waiting[self._pool.executor.submit(_work, self._function, serial, held)] = (serial, held)
            except BrokenProcessPool:
                self.broken = True
                self._waiting[cf.Future()] = (serial, held)
                return

    def divided(self) -> tuple[list[list[T]], list[list[T]]]:
        """What is not done, as the batches that were being worked on, and those that had not begun."""
        begun = set(self._pool.at_work)
        suspects = [held for serial, held in self._waiting.values() if serial in begun]
        return suspects, [held for serial, held in self._waiting.values() if serial not in begun]


def _alone(function: Callable[[Sequence[T]], Sequence[R]], suspects: list[list[T]]) -> Iterator[R | Lost[T]]:
    """The suspects one batch at a time in one process; a batch over which it dies is halved until it is one item."""
    stack = suspects[::-1]
    while stack:
        with _pool(1) as pool:
            try:
                pool.executor.submit(_hello).result()
            except BrokenProcessPool as error:
                raise _no_workers() from error
            while stack:
                held = stack.pop()
                try:
                    results = pool.executor.submit(_work, function, 0, held).result()
                except BrokenProcessPool:
                    half = len(held) // 2
                    if half:
                        stack += [held[half:], held[:half]]
                    else:
                        yield Lost(held[0], _DIED_HERE)
                    break
                yield from results


def _no_workers() -> CxrprepError:
    return CxrprepError("worker processes die at their start", hint="look at the memory limit of this job and its log")


# ---- a cluster ----


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112  # runs on workers, text in and out


@dataclass(slots=True)
class _Cluster:
    """A client of a Dask cluster, and its executor."""

    client: Any
    executor: cf.Executor
    threads: int = 0
    asked: float = -_CLUSTER_KNOWN

    def most(self) -> int:
        """How many batches may be under way: four a thread, as the cluster is now."""
        if time.monotonic() - self.asked >= _CLUSTER_KNOWN:
            self.threads = sum(self.client.nthreads().values())
            self.asked = time.monotonic()
        return max(1, self.threads) * _AHEAD_ON_CLUSTER

    def result(self, future: cf.Future[Sequence[R]]) -> Sequence[R] | None:
        """What a task gave; ``None`` when workers died over it. Raises what it raised, or that the cluster is gone."""
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


@contextmanager
def _dask(scheduler: str) -> Iterator[_Cluster]:
    if not scheduler:
        raise UsageError("--engine dask needs the address of a scheduler", hint="--scheduler tcp://host:8786")
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("the dask engine needs dask.distributed", hint="pip install 'cxrprep[dask]'") from error
    try:
        client: Any = distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]  # dask has no stubs here
    except (OSError, TimeoutError, ValueError) as error:
        raise SourceUnreachableError(
            f"no Dask scheduler answers at {scheduler}: {error}", hint="start one, or run without --engine dask"
        ) from error
    try:
        # pure=False: a task writes files; equal arguments do not make it the same task.
        yield _Cluster(client, client.get_executor(pure=False))
    finally:
        client.close()
