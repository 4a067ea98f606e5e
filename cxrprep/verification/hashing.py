"""Digests of many files at once, as fast as the machine can compute them: a process a core, fed by a thread each."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from cxrprep.system import available_cores
from cxrprep.verification import digest_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

_BATCH_FILES: Final = 512
_BATCH_BYTES: Final = 32 << 20
# Batches under way, a process: enough that none waits for the caller.
_AHEAD: Final = 2


class Job(NamedTuple):
    """A file to read: path below the root, size in bytes as far as known, algorithms wanted."""

    path: str
    size: int
    algorithms: tuple[str, ...] = ("sha256",)


class Hashed(NamedTuple):
    """What a file turned out to be: bytes read, and digests as ``"sha256:..."`` in the order of the job's algorithms.

    ``problem`` says why it could not be read, ``""`` when it could.
    """

    path: str
    size: int
    digests: tuple[str, ...]
    problem: str = ""


def hash_files(
    root: Path,
    jobs: Iterable[Job],
    *,
    workers: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[list[Hashed]]:
    """The digests of ``jobs``, in their order, some hundred files at a time; whatever cannot be read says why.

    A few batches are ahead of the caller at any time, so memory does not grow with the number of files. ``on_bytes``
    is called from several threads with the number of bytes just read. Without ``workers`` it is one a core; no process
    is started for what one of them would do.
    """
    batches = _batches(jobs)
    first = list(itertools.islice(batches, 2))
    with _Readers(f"{root}{os.sep}", on_bytes or (lambda _: None)) as readers:
        if len(first) < 2:
            yield from map(readers.read_here, first)
            return
        count = workers or available_cores()
        waiting: deque[Future[list[Hashed]]] = deque()
        with ThreadPoolExecutor(count, "verify") as pool:
            try:
                for batch in itertools.chain(first, batches):
                    waiting.append(pool.submit(readers.read, batch))
                    while len(waiting) > _AHEAD * count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                # Reached early when the caller was interrupted: nobody goes on through a file of gigabytes.
                readers.stop()
                pool.shutdown(cancel_futures=True)


def _batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    size = 0
    for job in jobs:
        if batch and (len(batch) >= _BATCH_FILES or size + job.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += job.size
    if batch:
        yield batch


class _Readers:
    """Processes that read, one for each thread that asks. Where there can be none, the thread itself reads."""

    def __init__(self, prefix: str, on_bytes: Callable[[int], None]) -> None:
        self._prefix = prefix
        self._on_bytes = on_bytes
        self._mine = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for process in self._all:
            # Closes the pipes, and waits. What one that has ended did not take is of no use to anybody.
            with contextlib.suppress(BrokenPipeError), process:
                pass

    def stop(self) -> None:
        """Tell processes and threads to end now."""
        self._stopped.set()
        for process in self._all:
            process.kill()

    def read(self, batch: list[Job]) -> list[Hashed]:
        """The digests of a batch, computed by this thread's process."""
        process = self._process()
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                digest_worker.send(
                    process.stdin, (self._prefix, [(job.path, job.size, job.algorithms) for job in batch])
                )
                while isinstance(answer := digest_worker.receive(process.stdout), int):
                    self._on_bytes(answer)
            except (OSError, EOFError, ValueError):
                # Somebody ended it, or it lacks a module that this process found in its own way.
                self._mine.process = None
            else:
                return _hashed(batch, answer)
        return [] if self._stopped.is_set() else self.read_here(batch)

    def read_here(self, batch: list[Job]) -> list[Hashed]:
        """The digests of a batch, computed by this thread."""
        files = [(job.path, job.size, job.algorithms) for job in batch]
        return _hashed(
            batch, digest_worker.digest_files(self._prefix, files, self._on_bytes, lambda: not self._stopped.is_set())
        )

    def _process(self) -> subprocess.Popen[bytes] | None:
        if not hasattr(self._mine, "process"):
            self._mine.process = _started()
            if self._mine.process is not None:
                self._all.append(self._mine.process)
                if self._stopped.is_set():
                    self._mine.process.kill()
        process: subprocess.Popen[bytes] | None = self._mine.process
        return process


def _started() -> subprocess.Popen[bytes] | None:
    if not sys.executable:
        return None
    try:
        # -P: the modules of this room are no modules of the standard library.
        return subprocess.Popen(
            [sys.executable, "-P", digest_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _hashed(batch: list[Job], answer: list[tuple[int, tuple[str, ...], str]]) -> list[Hashed]:
    return [Hashed(job.path, *found) for job, found in zip(batch, answer, strict=True)]
