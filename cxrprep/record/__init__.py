"""The record of a folder: what it holds (``cxrprep.lock``) and a row per file (``cxrprep.files.parquet``)."""

from cxrprep.record.entry import FileEntry, FileState, Origin, was_written_at
from cxrprep.record.loading import put_aside
from cxrprep.record.lockfile import Header
from cxrprep.record.record import Record, folder_words
from cxrprep.storage.paths import CACHE_NAME, FILES_NAME, LOCK_NAME
from cxrprep.storage.paths import safe_path as check_path

__all__ = [
    "CACHE_NAME",
    "FILES_NAME",
    "LOCK_NAME",
    "FileEntry",
    "FileState",
    "Header",
    "Origin",
    "Record",
    "check_path",
    "folder_words",
    "put_aside",
    "was_written_at",
]
