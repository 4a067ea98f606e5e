"""Digests of many files, as fast as the machine can compute them.

OpenSSL's digests release the interpreter, so threads keep every core busy. One reused buffer of 1 MiB a thread and
``readinto`` measured best: faster than memory maps (page faults, and threads wait for one another in the kernel) and
than reading into new bytes. Files of a few kilobytes spend their time in system calls, where threads only hinder each
other; those stay on the calling thread.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

CHUNK: Final = 1 << 20
_BATCH_FILES: Final = 256
_BATCH_BYTES: Final = 16 << 20
_TINY: Final = 8 << 10
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


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


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self, data: Any = b"") -> None:
        self._value = zlib.crc32(data)

    def update(self, data: Any, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    def __init__(self, data: Any = b"") -> None:
        import google_crc32c

        self._extend = google_crc32c.extend
        self._value = 0
        self.update(data)

    def update(self, data: Any, /) -> None:
        self._value = self._extend(self._value, bytes(data))

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_MAKERS: Final[Mapping[str, Callable[..., _Hash]]] = {
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "crc32": _Crc32,
    "crc32c": _Crc32c,
}


def usable_cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def hash_files(
    root: Path,
    jobs: Iterable[Job],
    *,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[list[Hashed]]:
    """The digests of ``jobs``, in their order, some hundred files at a time; whatever cannot be read says why.

    A few batches are ahead of the caller at any time, so memory does not grow with the number of files. ``on_bytes``
    is called from several threads with the number of bytes just read.
    """
    count = threads or usable_cores()
    prefix = f"{root}{os.sep}"
    stop = threading.Event()
    waiting: deque[list[Hashed] | Future[list[Hashed]]] = deque()
    with ThreadPoolExecutor(count, "verify") as pool:
        try:
            for batch in _batches(jobs):
                if sum(job.size for job in batch) < _TINY * len(batch):
                    waiting.append(_hash_batch(prefix, batch, on_bytes, stop))
                else:
                    waiting.append(pool.submit(_hash_batch, prefix, batch, on_bytes, stop))
                while len(waiting) > 2 * count:
                    yield _finished(waiting.popleft())
            while waiting:
                yield _finished(waiting.popleft())
        finally:
            # Reached early when the caller was interrupted: let no thread go on through a file of gigabytes.
            stop.set()
            pool.shutdown(cancel_futures=True)


def _finished(item: list[Hashed] | Future[list[Hashed]]) -> list[Hashed]:
    return item.result() if isinstance(item, Future) else item


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


_local = threading.local()


def _buffer() -> memoryview:
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(CHUNK))
    return view


def _hash_batch(
    prefix: str, batch: list[Job], on_bytes: Callable[[int], None] | None, stop: threading.Event
) -> list[Hashed]:
    view = _buffer()
    target = [view]
    done: list[Hashed] = []
    unsaid = 0
    for path, _, algorithms in batch:
        total = 0
        try:
            handle = os.open(prefix + path, _FLAGS)
            try:
                total = count = os.readv(handle, target)
                hashes = [_MAKERS[name](view[:count]) for name in algorithms]
                # A short read of a regular file is its end; the loop asks again only after a full buffer.
                while count == CHUNK and not stop.is_set():
                    count = os.readv(handle, target)
                    for one in hashes:
                        one.update(view[:count])
                    total += count
                    if on_bytes is not None:
                        on_bytes(count)
                        unsaid -= count
            finally:
                os.close(handle)
        except OSError as error:
            done.append(Hashed(path, total, (), error.strerror or str(error)))
            continue
        unsaid += total
        digests = tuple([f"{name}:{one.hexdigest()}" for name, one in zip(algorithms, hashes, strict=True)])
        done.append(Hashed(path, total, digests))
    if on_bytes is not None and unsaid:
        on_bytes(unsaid)
    return done
