"""Digests computed while bytes go by."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Protocol

from cxrprep.errors import storage_error
from cxrprep.model import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    Buffer = bytes | bytearray | memoryview
    from pathlib import Path


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
    return hashlib.new(algorithm, usedforsecurity=False)


def finished(algorithm: str, hasher: Hasher) -> Digest:
    """The digest that ``hasher`` has arrived at."""
    return Digest(algorithm, hasher.hexdigest())


def read_digest(path: Path, algorithm: str, check: Callable[[], None], buffer: memoryview) -> tuple[Digest, int]:
    """Digest and size of the file at ``path``; ``check``, called after a block, may raise. Raises ``StorageError``."""
    hasher = new_hasher(algorithm)
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
                size += count
                check()
    except OSError as error:
        raise storage_error(path, "read", error) from error
    return finished(algorithm, hasher), size
