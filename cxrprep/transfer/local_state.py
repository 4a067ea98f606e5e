"""Local state for a plan: the record, the disk and the partial files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
class FolderState:
    """The state of one folder; see ``cxrprep.planning.LocalState``.

    Attributes:
        record: of the folder.
        partial_folder: the files that are not whole yet.
        same_mirror: whether the record's validators come from the mirror that is asked now.
        spent: whether a file that was dropped after its use need not come again; ``wanted_again`` names one that must.
        wrong: release paths whose bytes a check found to be wrong.
    """

    record: Record
    partial_folder: PartialFolder
    same_mirror: bool = True
    spent: Callable[[str], bool] | None = None
    wrong: frozenset[str] = frozenset()
    wanted_again: str = field(default="", init=False)
    _tops: dict[str, bool] = field(default_factory=dict, init=False)
    _there: dict[str, int] | None = field(default=None, init=False)
    _root: str = field(init=False)

    def __post_init__(self) -> None:
        """Joined once, and not for each of many paths."""
        self._root = f"{self.record.root}/"

    def rows(self) -> Iterator[RecordedFile]:
        """The record, sorted by path."""
        for path, size, digest, validator, state, archive in self.record.rows(_COLUMNS):
            discarded = state == _DISCARDED
            if discarded and self.spent is not None and not self.spent(path):
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
            self._there = dict(names_and_sizes(self.record.root))
        return self._there.get(path)

    def partial(self, path: str) -> int | None:
        """Bytes of a partial file that may be continued."""
        return self.partial_folder.bytes_of(path)

    def members(self, archive: str) -> Sequence[tuple[str, int]] | None:
        """What the archive was seen to hold; ``None`` when it was never read to its end."""
        from cxrprep.storage.archives import read_index

        return read_index(self.record.cache, archive)
