"""Digests of files that lie in a bucket alone: by the checksum that the store holds, else read in a stream."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, Final

from cxrprep.digests import FileDigests, FileToRead, digests_of_stream
from cxrprep.errors import ImageError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.storage.filesystem import StoredFile
    from cxrprep.storage.unfetched import Unfetched

# An object up to this size comes in one request, a larger one block by block: 16 threads hold 128 MiB at most.
_AT_ONCE: Final = 8 << 20
# Below, the whole object comes as fast as what the store says of it.
_WORTH_ASKING: Final = 1 << 18
# So many objects of which S3 holds no checksum of the whole, one after another, and it is asked no more.
_PATIENCE: Final = 16


class StoredDigests:
    """The digests of what lies in a bucket; call it with a file to read (see ``digest_files``).

    A checksum that the store holds may acquit an object, and never accuses one: where it is another than expected, the
    bytes decide. ``stated`` and ``stated_bytes`` count what was acquitted so.
    """

    def __init__(self, there: Unfetched) -> None:
        self._there = there
        self.stated = self.stated_bytes = 0
        self._silent = 0
        self._lock = threading.Lock()

    def __call__(
        self, file: FileToRead, buffer: memoryview, on_bytes: Callable[[int], object], /
    ) -> FileDigests | None:
        """The digests of a file; ``None`` where it lies not there. Raises the store's errors."""
        entry = self._there.find(file.path)
        if entry is None:
            return None
        if self._is_acquitted(entry, file):
            return FileDigests(file.path, entry.size, (str(file.expected),))
        try:
            digests, size = digests_of_stream(self._opened(entry), file.algorithms, buffer, on_bytes)
        except ImageError as error:
            return FileDigests(file.path, 0, (), error.message)
        return FileDigests(file.path, size, tuple(map(str, digests)))

    def _opened(self, entry: StoredFile) -> Callable[[memoryview], int]:
        store = self._there.store
        if entry.size > _AT_ONCE:
            opened: Any = store.open(entry.name)
            readinto: Callable[[memoryview], int] = opened.readinto
            return readinto
        try:
            data = store.read_listed(entry)
        except IntegrityError:
            # Not what the store states, three times: whether it is what it should be, its bytes say.
            data = store.read(entry.name)
        return io.BytesIO(data).readinto

    def _is_acquitted(self, entry: StoredFile, file: FileToRead) -> bool:
        """Whether S3 holds of the whole object the one digest that is asked for."""
        if len(file.algorithms) > 1 or not file.expected or entry.size < _WORTH_ASKING or self._silent >= _PATIENCE:
            return False
        held = self._there.store.held_checksum(entry.name)
        with self._lock:
            self._silent = 0 if held is not None and held.algorithm == file.algorithms[0] else self._silent + 1
            acquitted = str(held) == file.expected
            self.stated += acquitted
            self.stated_bytes += acquitted * entry.size
        return acquitted
