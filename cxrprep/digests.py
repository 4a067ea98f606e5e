"""Digests (checksums) of bytes that go by, of a file, and of many files at once."""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cxrprep.errors import storage_errors
from cxrprep.model import Digest
from cxrprep.system import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    Buffer = bytes | bytearray | memoryview

CHUNK: Final = 1 << 20
# Files and bytes of one task for a thread, and tasks under way for each: enough that no thread waits for the caller.
_BATCH_FILES: Final = 512
_BATCH_BYTES: Final = 32 << 20
_AHEAD: Final = 2
# Bytes of a file that is read in one piece.
_SMALL: Final = 1 << 17
_READING: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Hasher(Protocol):
    """A digest in the making."""

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """The value of all bytes so far."""
        ...


class _Checksum:
    """A 32-bit checksum with the interface of hashlib."""

    def __init__(self, extend: Callable[[int, Buffer], int]) -> None:
        self._extend = extend
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._extend(self._value, data)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def new_hasher(algorithm: str) -> Hasher:
    """A hasher for one of the algorithms that ``Digest`` knows."""
    if algorithm == "crc32":
        return _Checksum(lambda value, data: zlib.crc32(data, value))
    if algorithm == "crc32c":
        import google_crc32c

        # The C library takes nothing but bytes.
        return _Checksum(lambda value, data: google_crc32c.extend(value, bytes(data)))
    # By its own name: half the time of ``hashlib.new``, which looks for it in OpenSSL's list.
    hasher: Hasher = getattr(hashlib, algorithm)(usedforsecurity=False)
    return hasher


def finished(algorithm: str, hasher: Hasher) -> Digest:
    """The digest that ``hasher`` has arrived at."""
    return Digest(algorithm, hasher.hexdigest())


def digest_of(data: Buffer, algorithm: str = "sha256") -> Digest:
    """The digest of bytes in memory, by one of the algorithms that ``Digest`` knows."""
    hasher = new_hasher(algorithm)
    hasher.update(data)
    return finished(algorithm, hasher)


def read_digest(path: Path, algorithm: str, check: Callable[[int], object], buffer: memoryview) -> tuple[Digest, int]:
    """Digest and size of the file at ``path``; ``check``, called with the size of each block, may raise.

    Args:
        path: the file.
        algorithm: md5, sha256 or crc32c.
        check: called with the size of each block in bytes; may raise to end the reading.
        buffer: memory that blocks are read into, reused from file to file.

    Returns:
        digest, and size in bytes.

    Raises:
        StorageError: the file cannot be read.
    """
    with storage_errors(path, "read"):
        (digest,), size = _read(path, (algorithm,), buffer, check)
    return digest, size


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of one small file as text (``sha256:...``). Raises ``StorageError``, ``ValueError``."""
    return str(read_digest(path, algorithm, lambda _: None, memoryview(bytearray(1 << 18)))[0])


def _read(
    path: Path | str, algorithms: tuple[str, ...], buffer: memoryview, on_bytes: Callable[[int], object]
) -> tuple[tuple[Digest, ...], int]:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # making a Path costs more than reading a small file
        return digests_of_stream(file.readinto, algorithms, buffer, on_bytes)


def digests_of_stream(
    read_into: Callable[[memoryview], int],
    algorithms: tuple[str, ...],
    buffer: memoryview,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> tuple[tuple[Digest, ...], int]:
    """The digests of what ``read_into`` gives until it gives nothing, and how many bytes that were.

    Args:
        read_into: fills the buffer and says how much of it; a file's ``readinto``.
        algorithms: md5, sha256 or crc32c.
        buffer: memory that blocks are read into.
        on_bytes: called with the size of each block; may raise to end the reading.

    Returns:
        Digests in the order of the algorithms, and the size in bytes.
    """
    hashers = [new_hasher(algorithm) for algorithm in algorithms]
    size = 0
    while count := read_into(buffer):
        for hasher in hashers:
            hasher.update(buffer[:count])
        size += count
        on_bytes(count)
    return tuple(map(finished, algorithms, hashers)), size


class FileToRead(NamedTuple):
    """A file whose digests are wanted: path below the root, size in bytes as far as known, algorithms.

    ``expected`` is the digest that it should have, by the last of them; ``None`` where nobody knows.
    """

    path: str
    size: int
    algorithms: tuple[str, ...] = ("sha256",)
    expected: str | None = None


class FileDigests(NamedTuple):
    """The bytes read of a file, and its digests as ``"sha256:..."`` in the order of the algorithms asked for.

    ``problem`` says why it could not be read, ``""`` when it could.
    """

    path: str
    size: int
    digests: tuple[str, ...]
    problem: str = ""


class Elsewhere(Protocol):
    """Tells digests of files that are not on this disk."""

    def __call__(
        self, file: FileToRead, buffer: memoryview, on_bytes: Callable[[int], object], /
    ) -> FileDigests | None:
        """The digests of ``file``; ``None`` where it is not there either."""
        ...


class _Stopped(Exception):  # noqa: N818  # no error: nobody wants the digest any more
    pass


def digest_files(
    root: Path,
    files: Iterable[FileToRead],
    *,
    workers: int | None = None,
    on_bytes: Callable[[int], object] = lambda _: None,
    elsewhere: Elsewhere | None = None,
) -> Iterator[list[FileDigests]]:
    """The digests of files, in their order, some hundred files at a time.

    Threads: hashlib lets go of the interpreter's lock for more than 2 KiB. A few batches are ahead of the caller at any
    time, so memory does not grow with the number of files; a caller that leaves early stops the reading.

    Args:
        root: the folder below which the paths lie.
        files: what to read; one that cannot be read says why in its ``problem``.
        workers: threads; by default one per core.
        on_bytes: called from several threads with the number of bytes just read.
        elsewhere: says the digests of a file that is not on this disk; ``None`` where it knows none of that name.

    Yields:
        The digests of some files.
    """
    stopped, own = threading.Event(), threading.local()

    def count_bytes(count: int) -> None:
        on_bytes(count)
        if stopped.is_set():
            raise _Stopped

    def read(batch: list[FileToRead]) -> list[FileDigests]:
        if not hasattr(own, "buffer"):
            own.buffer = memoryview(bytearray(CHUNK))
        found = list(map(partial(_digests_at_once, root), batch))
        # Files of a few kilobytes are many: they are counted together.
        count_bytes(sum(one.size for one in found if one is not None))
        return [
            _digests_of(root, file, own.buffer, count_bytes, elsewhere) if one is None else one
            for file, one in zip(batch, found, strict=True)
        ]

    count = workers or available_cores()
    # It brings logging with it, and most commands digest no folder.
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[Future[list[FileDigests]]] = deque()
    with ThreadPoolExecutor(count, "digest") as pool:
        try:
            for batch in _batches(files):
                waiting.append(pool.submit(read, batch))
                while len(waiting) > _AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Reached early when the caller was interrupted: nobody goes on through a file of gigabytes.
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _digests_at_once(root: Path, file: FileToRead) -> FileDigests | None:
    """The digests of a small file that is as long as it should be; ``None`` for any other, which has to be looked at.

    measured: 20 -> 13 us of CPU time for a file of 2 kB, read and digested on a busy machine (benchmarks/verify.py).
    """
    if file.size >= _SMALL:
        return None
    try:
        handle = os.open(f"{root}/{file.path}", _READING)
        try:
            # Whether there is more shows without a second read.
            data = os.read(handle, file.size + 1)
        finally:
            os.close(handle)
    except OSError:
        return None
    if len(data) != file.size:
        return None
    hashers = {algorithm: new_hasher(algorithm) for algorithm in file.algorithms}
    for hasher in hashers.values():
        hasher.update(data)
    return FileDigests(file.path, file.size, tuple([f"{name}:{one.hexdigest()}" for name, one in hashers.items()]))


def _digests_of(
    root: Path, file: FileToRead, buffer: memoryview, count_bytes: Callable[[int], None], elsewhere: Elsewhere | None
) -> FileDigests:
    try:
        digests, size = _read(f"{root}/{file.path}", file.algorithms, buffer, count_bytes)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        found = elsewhere(file, buffer, count_bytes) if elsewhere is not None and is_missing else None
        return found or FileDigests(file.path, 0, (), error.strerror or str(error))
    return FileDigests(file.path, size, tuple(map(str, digests)))


def _batches(files: Iterable[FileToRead]) -> Iterator[list[FileToRead]]:
    batch: list[FileToRead] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _BATCH_FILES or size + file.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch
