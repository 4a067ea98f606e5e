"""Files read one after the other, and their digests; also the program of a process that does nothing else.

``hashing`` starts this file as a script, one process a core: threads would wait for one another's turn with the
interpreter four times a file, and for the thread that lists the folder. It imports the standard library alone and is
at work after ten milliseconds. The two ends are the same interpreter, so they speak in ``marshal``.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import zlib
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:  # the real name would load typing, a third of such a process's start
    from collections.abc import Callable, Mapping
    from typing import IO, Any, Final, Protocol

    class _Hash(Protocol):
        def update(self, data: Any, /) -> None: ...

        def hexdigest(self) -> str: ...


CHUNK: Final = 1 << 20
_SAID: Final = 16 * CHUNK
_LENGTH: Final = 4
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


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


def digest_files(
    prefix: str,
    files: list[tuple[str, int, tuple[str, ...]]],
    on_bytes: Callable[[int], object],
    going_on: Callable[[], bool] = lambda: True,
) -> list[tuple[int, tuple[str, ...], str]]:
    """Of each file bytes read, digests as ``"sha256:..."``, and ``""`` or a problem.

    ``files`` are paths behind ``prefix``, sizes as listed, and algorithms. ``on_bytes`` is told of the bytes read, now
    and then; the sum is right in the end. ``going_on`` is asked once a MiB. One reused buffer and ``readv`` measured
    best: faster than memory maps (page faults) and than new bytes.
    """
    view = memoryview(bytearray(CHUNK))
    target = [view]
    done: list[tuple[int, tuple[str, ...], str]] = []
    unsaid = 0
    for path, size, algorithms in files:
        total = 0
        try:
            handle = os.open(prefix + path, _FLAGS)
            try:
                total = count = os.readv(handle, target)
                unsaid += count
                hashes = [_MAKERS[name](view[:count]) for name in algorithms]
                # A read that is short ends a file of the size that was listed; some file systems read in pieces.
                while count and (count == CHUNK or total < size) and going_on():
                    count = os.readv(handle, target)
                    for one in hashes:
                        one.update(view[:count])
                    total += count
                    unsaid += count
                    if unsaid >= _SAID:
                        on_bytes(unsaid)
                        unsaid = 0
            finally:
                os.close(handle)
        except OSError as error:
            done.append((total, (), error.strerror or str(error)))
            continue
        done.append((total, tuple([f"{name}:{one.hexdigest()}" for name, one in zip(algorithms, hashes)]), ""))  # noqa: B905  # made of one another
    if unsaid:
        on_bytes(unsaid)
    return done


def send(pipe: IO[bytes], message: Any) -> None:
    """Write a message of plain values."""
    data = marshal.dumps(message)
    pipe.write(len(data).to_bytes(_LENGTH, "little") + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Raises ``EOFError`` when the other end is gone."""
    head = pipe.read(_LENGTH)
    length = int.from_bytes(head, "little")
    data = pipe.read(length)
    if len(head) < _LENGTH or len(data) < length:
        raise EOFError
    return marshal.loads(data)  # noqa: S302  # from our own process, over a pipe that nobody else has


def _serve() -> None:
    """Answer requests until the other end is gone: numbers of bytes while reading, then what ``digest_files`` gives."""
    import signal

    # The parent answers Ctrl-C, and then lets go of the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        while True:
            prefix, files = receive(requests)
            send(answers, digest_files(prefix, files, partial(send, answers)))
    except (EOFError, BrokenPipeError):
        os._exit(0)


if __name__ == "__main__":
    _serve()
