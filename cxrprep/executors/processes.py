"""Worker processes of this machine, and what is left of them when one dies.

A worker that dies takes only its batch with it. Each writes down the serial number of the batch it works on, so that
the guilty are looked for among those alone: in a process of their own, in halves, until one item is left. One that is
at an item for too long is ended (see ``cxrprep.executors.watch``), and that item is named at once.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import itertools
import multiprocessing
import os
import queue
import sys
import threading
import time
import types
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, context
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from cxrprep.errors import CxrprepError
from cxrprep.executors.watch import IDLE, Desks, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")

# Seconds that a run which ends too early waits for what its workers are at.
GRACE: Final = 5.0
_OFTEN: Final = 0.02
_DIED: Final = "the worker process died over it (a crash in a decoder, or memory ran out)"


@dataclass(frozen=True, slots=True)
class Lost(Generic[T]):
    """An item over which a worker process died; ``cause`` says how. ``late``: it was ended, the item took too long."""

    item: T
    cause: str
    late: bool = False


def _without(held: list[T], place: int, seconds: float) -> tuple[Lost[T], list[T]]:
    """The item that took too long, and the others of its batch."""
    # The one item of a batch may be many things (a shard of images), each of which it announced.
    place = min(place, len(held) - 1)
    cause = f"no end of the work on it after {seconds:g} s; its process was ended"
    return Lost(held[place], cause, late=True), held[:place] + held[place + 1 :]


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
    """The executor, and a desk for each worker where it writes down what it is at."""

    executor: cf.ProcessPoolExecutor
    desks: Desks

    @classmethod
    def of(cls, workers: int) -> Pool:
        """A pool of ``workers`` processes, each started when it is needed."""
        spawn = _Spawn()
        desks, taken = Desks(spawn, workers), spawn.Value("i", 0)
        executor = cf.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker, initargs=(desks, taken))
        return cls(executor, desks)

    def hurry(self, grace: float = GRACE) -> None:
        """Let workers end what they are at for some seconds, then end them; the way out after Ctrl-C or an error."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + grace
        while busy := self.desks.busy():
            if time.monotonic() >= until:
                for desk in busy:
                    self.desks.end(desk)
                return
            time.sleep(_OFTEN)


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """A pool for as long as the block lasts."""
    made = Pool.of(workers)
    try:
        yield made
    except BaseException:
        made.hurry()
        raise
    finally:
        made.executor.shutdown(wait=True, cancel_futures=True)


_own: Desks | None = None
_slot = 0


def _begin_worker(desks: Desks, taken: Any) -> None:
    global _own, _slot  # noqa: PLW0603  # a worker process is one worker for its whole life
    import signal

    # The parent answers Ctrl-C; a traceback of every worker would bury its message.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with taken.get_lock():
        _slot = taken.value
        taken.value += 1
    if _slot < len(desks):
        _own = desks
        desks.process[_slot] = os.getpid()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent was killed: nobody else would, since both ends of the queue are in this process too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(function: Callable[[Sequence[T]], Sequence[R]], serial: int, held: list[T]) -> Sequence[R]:
    if _own is not None:
        _own.items[_slot] = 0
        _own.serial[_slot] = serial
    results = function(held)
    if _own is not None:
        _own.serial[_slot] = IDLE
    return results


def begin_item() -> None:
    """Announce that the function of a batch begins its next item, so that one without end can be told and ended.

    A function that announces nothing has all the time in the world. Outside of a worker process nothing happens.
    """
    if _own is not None:
        _own.items[_slot] += 1


def end_item() -> None:
    """Announce that what follows belongs to no item, such as writing what was made of all."""
    if _own is not None:
        _own.items[_slot] = 0


class Running(Generic[T, R]):
    """Batches on a pool; ``broken`` says that a worker died."""

    def __init__(
        self,
        function: Callable[[Sequence[T]], Sequence[R]],
        pool: Pool,
        batches: Iterator[list[T]],
        most: int,
        seconds: float = 0.0,
    ) -> None:
        """``most`` batches are under way at once, ``seconds`` are granted to each item (0: any time)."""
        self.broken = False
        self._function = function
        self._pool = pool
        self._batches = batches
        self._most = most
        self._watch = Watch(pool.desks, seconds)
        self._serial = itertools.count()
        self._waiting: dict[cf.Future[Sequence[R]], tuple[int, list[T]]] = {}

    def results(self) -> Iterator[R]:
        """The results as they come, until all is done or a worker died."""
        while not self.broken:
            self._submit()
            if not self._waiting:
                return
            done, _ = cf.wait(self._waiting, timeout=self._watch.every, return_when=cf.FIRST_COMPLETED)
            self._watch.look()
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

    def divided(self) -> tuple[list[Lost[T]], list[list[T]], list[list[T]]]:
        """What is not done: an item that took too long, batches that may have killed, and innocent ones."""
        late = self._watch.late()
        if late is not None:
            # The others died of that one's end, which broke the pool.
            lost: list[Lost[T]] = []
            innocent = []
            for serial, held in self._waiting.values():
                rest = held
                if serial == late[0]:
                    one, rest = _without(held, late[1], self._watch.seconds)
                    lost.append(one)
                innocent.append(rest)
            return lost, [], [held for held in innocent if held]
        begun = set(self._pool.desks.serial)
        suspects = [held for serial, held in self._waiting.values() if serial in begun]
        return [], suspects, [held for serial, held in self._waiting.values() if serial not in begun]


class Shelter:
    """One process in which a batch may die without taking anyone along; started anew when it did."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._pool: Pool | None = None
        self.guard = threading.Lock()

    def run(
        self, function: Callable[[Sequence[T]], Sequence[R]], held: list[T], seconds: float = 0.0
    ) -> Iterator[R | Lost[T]]:
        """The results of a batch; when the process dies over it, of its halves, down to the item that kills.

        ``seconds`` are granted to each item, 0 grants any time.
        """
        stack = [held]
        while stack:
            batch = stack.pop()
            watch = Watch(self._started().desks, seconds)
            try:
                results = self._ended(self._started().executor.submit(_work, function, 0, batch), watch)
            except BrokenProcessPool:
                self.close()
                late = watch.late()
                if late is not None:
                    lost, rest = _without(batch, late[1], seconds)
                    yield lost
                    stack += [rest] if rest else []
                    continue
                half = len(batch) // 2
                if half:
                    stack += [batch[half:], batch[:half]]
                else:
                    yield Lost(batch[0], _DIED)
                continue
            yield from results

    def _started(self) -> Pool:
        if self._pool is None:
            self._pool = Pool.of(1)
            try:
                self._pool.executor.submit(os.getpid).result()
            except BrokenProcessPool as error:
                self.close()
                raise no_workers() from error
        return self._pool

    def _ended(self, future: cf.Future[R], watch: Watch) -> R:
        while not cf.wait([future], timeout=watch.every).done:
            watch.look()
        return future.result()

    def hurry(self, grace: float = GRACE) -> None:
        """Wait some seconds for what is under way, then end the process."""
        if self._pool is not None:
            self._pool.hurry(grace)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.executor.shutdown(wait=True, cancel_futures=True)
        self._pool = None


class Shelters:
    """Shelters for threads that come with one item at a time: each waits until one of ``count`` is free.

    A context: at its end the processes end, after an error or an interrupt at once; what they were at is ``Lost``.
    """

    def __init__(self, count: int) -> None:
        """Nothing is started yet, and no more than are used at once ever will be."""
        self._all = [Shelter() for _ in range(count)]
        # The one that was used last comes first: its process has started.
        self._free: queue.LifoQueue[Shelter] = queue.LifoQueue()
        for one in reversed(self._all):
            self._free.put(one)

    def run(self, function: Callable[[Sequence[T]], Sequence[R]], item: T, seconds: float = 0.0) -> R | Lost[T]:
        """What ``function`` gives for a batch of this one item, or that its process died over it."""
        own = self._free.get()
        try:
            return next(own.run(function, [item], seconds))
        finally:
            self._free.put(own)

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the processes."""
        for one in self._all:
            if kind is not None:
                one.hurry(0.0)
            one.close()


@contextmanager
def shelter() -> Iterator[Shelter]:
    """A shelter for as long as the block lasts."""
    made = Shelter()
    with contextlib.closing(made):
        try:
            yield made
        except BaseException:
            made.hurry()
            raise


def no_workers() -> CxrprepError:
    """The error when processes cannot even begin."""
    return CxrprepError("worker processes die at their start", hint="look at the memory limit of this job and its log")
