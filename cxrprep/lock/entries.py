"""The files of a record as a mapping that reads its columns as it is asked, and holds nothing."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING

from cxrprep.lock.entry import FileEntry

if TYPE_CHECKING:
    from cxrprep.lock.record import Record


class Entries(Mapping[str, FileEntry]):
    """The entries of a record, read from its columns as they are asked for."""

    def __init__(self, record: Record) -> None:
        """``record`` may change: what is asked next shows it."""
        self._record = record

    def __getitem__(self, path: str) -> FileEntry:
        """The entry of ``path``. Raises ``KeyError``."""
        entry = self._record.get(path)
        if entry is None:
            raise KeyError(path)
        return entry

    def __contains__(self, path: object) -> bool:
        """Whether ``path`` is recorded."""
        return isinstance(path, str) and self._record.get(path) is not None

    def __iter__(self) -> Iterator[str]:
        """The paths in order."""
        return (path for (path,) in self._record.rows(["path"]))

    def __len__(self) -> int:
        """How many files are recorded."""
        return int(self._record.table().num_rows)

    def values(self) -> ValuesView[FileEntry]:
        """Each entry, in order of path, without looking any up."""
        return _Values(self)

    def items(self) -> ItemsView[str, FileEntry]:
        """Each path with its entry, in order of path, without looking any up."""
        return _Items(self)

    def in_order(self) -> Iterator[FileEntry]:
        """The entries of a snapshot, some thousands in memory at a time."""
        names = FileEntry.__slots__
        for row in self._record.rows(names):
            yield FileEntry.from_row(dict(zip(names, row, strict=True)))


class _Values(ValuesView[FileEntry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[FileEntry]:
        return self._mapping.in_order()


class _Items(ItemsView[str, FileEntry]):
    _mapping: Entries

    def __iter__(self) -> Iterator[tuple[str, FileEntry]]:
        return ((entry.path, entry) for entry in self._mapping.in_order())
