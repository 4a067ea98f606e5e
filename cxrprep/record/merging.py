"""Merging of two records of one folder: those of the parts of a job array that ran on machines of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrprep.record.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.model import Shard


def merge_records(folder: Path, theirs: Path, part: Shard) -> None:
    """Add to the record in ``folder`` what the one in ``theirs`` says of files that ``part`` does not hold.

    Args:
        folder: The folder of the part; its record knows best what the part holds.
        theirs: A folder with the record of the other parts.
        part: The part.

    Raises:
        UsageError: They are of two datasets or releases.
        IntegrityError: A damaged record.
        StorageError: The disk refuses.
    """
    other = Record.open(theirs)
    with Record.open(folder) as record:
        if other.header.dataset:
            record.describe(dataset=other.header.dataset, release=other.header.release)
        for selection in other.selections:
            record.select(selection)
        for entry in other.entries():
            if not part.holds(entry.path) and record.get(entry.path) != entry:
                record.add(entry)
