"""Cache of listings that seldom change: checksums of 605,000 files, directories of huge archives.

What is kept is bound to the validator that the server gave, and lies in the user's cache folder, which may be deleted
at any time. Two runs that fetch the same list write the same bytes to the same places, so neither needs a lock.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.retry import with_retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cxrprep.sources.base import ByteStream

_BLOCK: Final = 1 << 20


class CachedListing:
    """The bytes ``start`` to ``end`` of something remote, read from disk where they were read before.

    A connection that breaks is opened again where it broke; what a killed run had read is not asked for again.
    """

    def __init__(
        self, name: str, identity: str, *, start: int, end: int, open_at: Callable[[int], ByteStream], validator: str
    ) -> None:
        """Nothing is read yet.

        Args:
            name: what the file in the cache is called.
            identity: what the bytes are of: address and validator; another one is another file.
            start: first byte of the range.
            end: the byte after its last.
            open_at: opens the range's source at an absolute offset.
            validator: what the source must still say when it is opened.
        """
        tag = hashlib.sha256(f"{identity}\0{start}\0{end}".encode()).hexdigest()[:20]
        self._name = name
        self._whole = _folder() / f"{name}.{tag}"
        self._part = self._whole.with_name(self._whole.name + ".part")
        self._start, self._length = start, end - start
        self._open_at, self._validator = open_at, validator

    @property
    def is_here(self) -> bool:
        """Whether all of it is on disk."""
        try:
            return self._whole.stat().st_size == self._length
        except OSError:
            return False

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks of any size.

        Raises ``SourceUnreachableError`` when the connection stays broken, or the content changes meanwhile.
        """
        whole = self.is_here
        file: BinaryIO | None = self._whole.open("rb") if whole else self._part_file()
        done, remote = 0, None
        try:
            while file is not None and (block := file.read(_BLOCK)):
                done += len(block)
                yield block
            if whole:
                return
            remote = RemoteList(self._name, self._open_at, self._validator, at=self._start + done)
            while done < self._length:
                block = remote.read(min(_BLOCK, self._length - done))
                if not block:
                    raise SourceUnreachableError(f"{self._name} ended before its stated size", hint="run again")
                file = _written(file, block)
                done += len(block)
                yield block
            if file is not None:
                self._publish(file)
        finally:
            if remote is not None:
                remote.close()
            if file is not None:
                file.close()

    def forget(self) -> None:
        """Delete what is kept: it turned out to be no such list."""
        for path in (self._whole, self._part):
            with contextlib.suppress(OSError):
                path.unlink()

    # ---- inside ----

    def _part_file(self) -> BinaryIO | None:
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except OSError:
            # Nowhere to keep it: then it is read anew each time.
            return None
        if os.fstat(file.fileno()).st_size > self._length:
            file.close()
            return None
        return file

    def _publish(self, file: BinaryIO) -> None:
        with contextlib.suppress(OSError):
            file.flush()
            os.fsync(file.fileno())
            self._part.replace(self._whole)
            for other in self._whole.parent.glob(f"{glob.escape(self._name)}.*"):
                if other != self._whole:
                    other.unlink()


class RemoteList(io.RawIOBase):
    """A remote list as a file object; where its connection breaks, ``open_at`` opens it again."""

    def __init__(
        self,
        name: str,
        open_at: Callable[[int], ByteStream],
        validator: str | None,
        stream: ByteStream | None = None,
        *,
        at: int = 0,
    ) -> None:
        """Nothing is read yet.

        Args:
            name: what messages call it.
            open_at: opens it at an offset.
            validator: what it must still say when it is opened.
            stream: one that is open at ``at``, if any.
            at: the first byte to read.
        """
        self._name, self._open_at, self._validator = name, open_at, validator
        self._stream, self._at = stream, at

    def readable(self) -> bool:
        """``True``."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer``; 0 at the end. Raises ``SourceUnreachableError``."""
        view = memoryview(buffer)  # type: ignore[arg-type]  # any writable buffer
        count = with_retries(lambda: self._more(view))
        self._at += count
        return count

    def _more(self, view: memoryview) -> int:
        try:
            if self._stream is None:
                self._stream = self._open_at(self._at)
                if self._stream.validator != self._validator or (self._at and self._validator is None):
                    raise SourceUnreachableError(f"{self._name} may have changed while it was read", hint="run again")
                self._skip(self._stream, self._at - self._stream.offset)
            return self._stream.readinto(view)
        except SourceUnreachableError:
            self._drop()
            raise

    def _skip(self, stream: ByteStream, size: int) -> None:
        while size > 0:
            count = stream.readinto(memoryview(bytearray(min(size, _BLOCK))))
            if count == 0:
                raise SourceUnreachableError(f"{self._name} ended before its end", hint="run again")
            size -= count

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Close what is open."""
        self._drop()
        super().close()


def lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of ``blocks`` without their ends, decoded as UTF-8."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
    if rest:
        yield rest.decode("utf-8", "replace")


def _written(file: BinaryIO | None, block: bytes) -> BinaryIO | None:
    """``file`` after ``block``; ``None`` from the moment on when it cannot be kept."""
    if file is None:
        return None
    try:
        file.write(block)
        file.flush()
    except OSError:
        file.close()
        return None
    return file


def _folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_path("cxrprep", appauthor=False)) / "listings"
