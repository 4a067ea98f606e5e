"""A record's entries by path, as tests ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrprep.record.entry import FileEntry
    from cxrprep.record.record import Record


def entries_of(record: Record) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in record.entries()}
