"""Worker processes of this machine, and what is left of them when one dies.

A worker that dies takes only its batch with it. Each writes down the serial number of the batch it works on, so that
the guilty are looked for among those alone: in a process of their own, in halves, until one item is left.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import itertools
import multiprocessing
import os
import sys
import threading
import types
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cxrprep.errors import CxrprepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")

_IDLE: Final = -1
_DIED: Final = "the worker process died over it (a crash in a decoder, or memory ran out)"


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
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main
            if daemon is not None:
                own._config["daemon"] = daemon  # type: ignore[attr-defined]  # noqa: SLF001  # as it was


class _Spawn(context.SpawnContext):
    # Spawned, not forked: codec libraries and threads do not survive a fork well.
    Process = _Worker


@dataclass(frozen=True, slots=True)
class Pool:
    """The executor, and a place for each worker where it writes down the serial number of its batch."""

    executor: cf.ProcessPoolExecutor
    at_work: Any

    @classmethod
    def of(cls, workers: int) -> Pool:
        """A pool of ``workers`` processes, each started when it is needed."""
        spawn = _Spawn()
        at_work, taken = spawn.RawArray("q", [_IDLE] * workers), spawn.Value("i", 0)
        executor = cf.ProcessPoolExecutor(
            workers, mp_context=spawn, initializer=_begin_worker, initargs=(at_work, taken)
        )
        return cls(executor, at_work)


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool for as long as the block lasts."""
    made = Pool.of(workers)
    try:
        yield made
    finally:
        made.executor.shutdown(wait=True, cancel_futures=True)


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


class Running(Generic[T, R]):
    """Batches on a pool; ``broken`` says that a worker died."""

    def __init__(
        self,
        function: Callable[[Sequence[T]], Sequence[R]],
        pool: Pool,
        batches: Iterator[list[T]],
        most: int,
    ) -> None:
        """``most`` batches are under way at once."""
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


class Shelter:
    """One process in which a batch may die without taking anyone along; started anew when it did."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._pool: Pool | None = None
        self.guard = threading.Lock()

    def run(self, function: Callable[[Sequence[T]], Sequence[R]], held: list[T]) -> Iterator[R | Lost[T]]:
        """The results of a batch; when the process dies over it, of its halves, down to the item that kills."""
        stack = [held]
        while stack:
            batch = stack.pop()
            try:
                results = self.call(function, batch)
            except BrokenProcessPool:
                half = len(batch) // 2
                if half:
                    stack += [batch[half:], batch[:half]]
                else:
                    yield Lost(batch[0], _DIED)
                continue
            yield from results

    def call(self, function: Callable[..., R], *args: Any, **options: Any) -> R:
        """What the function gives, in the process. Raises ``BrokenProcessPool`` when it dies over it."""
        if self._pool is None:
            self._pool = Pool.of(1)
            self._greet()
        try:
            return self._pool.executor.submit(function, *args, **options).result()
        except BrokenProcessPool:
            self.close()
            raise

    def _greet(self) -> None:
        assert self._pool is not None
        try:
            self._pool.executor.submit(os.getpid).result()
        except BrokenProcessPool as error:
            self.close()
            raise no_workers() from error

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.executor.shutdown(wait=True, cancel_futures=True)
        self._pool = None


@contextmanager
def shelter() -> Iterator[Shelter]:
    """A shelter for as long as the block lasts."""
    made = Shelter()
    with contextlib.closing(made):
        yield made


def no_workers() -> CxrprepError:
    """The error when processes cannot even begin."""
    return CxrprepError("worker processes die at their start", hint="look at the memory limit of this job and its log")
