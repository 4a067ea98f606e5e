"""Files that cxrprep did not put there and that a download replaces: they stay, under another name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cxrprep.errors import IntegrityError
from cxrprep.events import Note, Sink
from cxrprep.storage.paths import leads_out

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.record.record import Record
    from cxrprep.transfer.partial_folder import PartialFolder


def keep_foreign(record: Record, partial_folder: PartialFolder, dest: str) -> Path | None:
    """A second name for a file of somebody else's that is to be replaced; ``None`` where there is none.

    Raises ``IntegrityError`` for one behind a link that leaves the folder, ``StorageError``.
    """
    # Text and not a Path: most files are new, and nothing that they need takes as long as the making of one.
    if not os.path.lexists(f"{record.root}/{dest}"):
        return None
    if leads_out(record.root, dest):
        raise IntegrityError(
            f"{dest} is not what the mirror has, and stays as it is: a link leads from it out of {record.root}",
            hint="replace it yourself, or take the link away and run again",
        )
    recorded = record.get(dest)
    ours = recorded is not None and recorded.fetched and record.is_of_this_copy
    return None if ours else partial_folder.keep(dest)


def warn_replaced(dest: str, spared: Path | None, on_event: Sink) -> None:
    """Say where the file is now that was ``spared``."""
    if spared is not None:
        message = f"{dest} was not what the mirror has and was replaced; the file that was here is now {spared}"
        on_event(Note("download", message, "warning", dest))
