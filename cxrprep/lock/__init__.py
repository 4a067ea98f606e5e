"""The record of a folder: what it holds (``cxrprep.lock``) and a row per file (``cxrprep.files.parquet``)."""

from cxrprep.lock.entry import FileEntry, FileState, Origin
from cxrprep.lock.header import Header
from cxrprep.lock.record import CACHE_NAME, FILES_NAME, LOCK_NAME, Record
from cxrprep.paths import safe_path as check_path

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
]
