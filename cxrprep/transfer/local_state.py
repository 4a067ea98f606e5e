"""Local state for a plan: the record, the disk and the partial files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cxrprep.planning.build import RecordedFile
from cxrprep.record.entry import FileState
from cxrprep.storage.unfetched import names_and_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.record.record import Record
    from cxrprep.transfer.partial_folder import PartialFolder

# As the record's rows spell it: text is compared faster than a member of an enumeration.
_DISCARDED: Final = FileState.DISCARDED.value
_COLUMNS: Final = ("path", "size", "digest", "validator", "state", "archive")


class FolderState:
    """The state of one folder; see ``cxrprep.planning.LocalState``."""

    def __init__(
        self,
        record: Record,
        partial_folder: PartialFolder,
        *,
        same_mirror: bool = True,
        spent: Callable[[str], bool] | None = None,
        wrong: frozenset[str] = frozenset(),
    ) -> None:
        """``same_mirror`` says whether the record's validators come from the mirror that is asked now.

        ``spent`` says of a file that was dropped after its use whether that will do; ``wanted_again`` names one of
        which it will not. ``wrong`` are release paths whose bytes a check found to be wrong.

        Args:
            record: of the folder.
            partial_folder: the files that are not whole yet.
            same_mirror: whether the record's validators come from the mirror that is asked now.
            spent: whether a file that was dropped after its use need not come again.
            wrong: release paths whose bytes a check found to be wrong.
        """
        self._record = record
        self._partial_folder = partial_folder
        self._root = str(record.root) + "/"
        self._tops: dict[str, bool] = {}
        self._there: dict[str, int] | None = None
        self.same_mirror = same_mirror
        self.wanted_again = ""
        self.wrong = wrong
        self._spent = spent

    def rows(self) -> Iterator[RecordedFile]:
        """The record, sorted by path."""
        for path, size, digest, validator, state, archive in self._record.rows(_COLUMNS):
            discarded = state == _DISCARDED
            if discarded and self._spent is not None and not self._spent(path):
                self.wanted_again, discarded = self.wanted_again or path, False
            yield RecordedFile(path, size, digest, validator, discarded, archive)

    def size_of(self, path: str) -> int | None:
        """Bytes of the file at this release path; ``None`` when there is none."""
        top = path.partition("/")[0]
        there = self._tops.get(top)
        if there is None:
            # A new folder holds nothing: hundreds of thousands of files need not be asked for one by one.
            there = self._tops[top] = os.path.lexists(self._root + top)
        if there:
            try:
                return os.stat(self._root + path).st_size  # noqa: PTH116  # a Path object a file would double the time
            except OSError:
                pass
        return self._size_there(path)

    def _size_there(self, path: str) -> int | None:
        """Bytes of a file that lies in the folder's bucket alone."""
        if self._there is None:
            self._there = dict(names_and_sizes(self._record.root))
        return self._there.get(path)

    def partial(self, path: str) -> int | None:
        """Bytes of a partial file that may be continued."""
        return self._partial_folder.bytes_of(path)

    def members(self, archive: str) -> Sequence[tuple[str, int]] | None:
        """What the archive was seen to hold; ``None`` when it was never read to its end."""
        from cxrprep.storage.archives import read_index

        return read_index(self._record.cache, archive)
