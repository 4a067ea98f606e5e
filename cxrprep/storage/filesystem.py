"""File system protocol: what local folders and object stores have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cxrprep.model import Digest

# Requests on their way at a time: each waits for the store, not for a core.
REQUESTS: Final = 16


class SizeLimit(Protocol):
    """What a file may cost: ``size`` in bytes."""

    @property
    def size(self) -> int:
        """Bytes beyond which a file is refused."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing shows it: ``digest`` is what the store itself states of the content.

    ``written`` is when it was, in seconds since 1970, where the listing says so.
    """

    name: str
    size: int
    stamp: str
    digest: Digest | None = None
    written: float | None = field(default=None, compare=False)


class ImageStore(Protocol):
    """A folder, wherever it is. Small to pickle: worker processes get it with their work."""

    @property
    def address(self) -> str:
        """The folder as a path or a URL."""
        ...

    def full(self, name: str) -> str:
        """The path or URL of one file."""
        ...

    def list(self) -> Iterator[StoredFile]:
        """Every file below, in no promised order. Raises ``StorageError`` or the store's errors."""
        ...

    def read(self, name: str, limits: SizeLimit | None = None) -> bytes:
        """The bytes of a file. Raises ``ImageError`` for one that is gone or past ``limits``."""
        ...

    def head(self, name: str, size: int) -> bytes | None:
        """The first ``size`` bytes of a file; ``None`` when there is none."""
        ...

    def version_tag(self, name: str) -> str | None:
        """What changes with the file's content; ``None`` when there is none."""
        ...

    def write_with(self, name: str, write: Callable[[Path], object]) -> str:
        """Let ``write`` fill a temporary file here, then put it in place in one step; its stamp."""
        ...

    def write(self, name: str, data: bytes, *, durable: bool = False) -> str:
        """Write a small file in one step; its stamp. ``durable``: the disk has it when this returns."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The file, to be read at any offset. Raises ``ImageError`` when it is gone."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away; nothing happens when there is none."""
        ...
