"""A row of the record: one file, its digest, and where that digest comes from."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cxrprep.model import Digest
from cxrprep.storage.paths import safe_path

if TYPE_CHECKING:
    from collections.abc import Mapping


class Origin(enum.StrEnum):
    """Where a digest comes from, best first."""

    PUBLISHED = "published"
    """The publisher states it, and the bytes had it."""
    TRANSPORT = "transport"
    """The service stated it of the bytes that came, or the archive that they came in was proven."""
    FIRST_READ = "first-read"
    """Nobody states it; the bytes had it when they were first read here."""


# Of XFS and ext4, NTFS, NFS and Python's os.utime, Lustre and tar, FAT.
_TIME_UNITS: Final = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)


def _time(value: Any) -> int | None:
    """A time that another may have written; ``None`` for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def was_written_at(recorded: int | None, mtime_ns: int) -> bool:
    """Whether a file with this time is the one of which the time was recorded; never where none was.

    File systems and copy tools keep a time in full, or cut off what they have no room for (1 ns to 2 s).
    """
    return recorded is not None and any(mtime_ns == recorded // unit * unit for unit in _TIME_UNITS)


class FileState(enum.StrEnum):
    """Whether a recorded file should be on the disk."""

    HERE = "here"
    DISCARDED = "discarded"
    """It was proven, used and dropped on purpose: not missing, not to be fetched again."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What is known of one file of the folder.

    ``path`` is its release path under ROOT; ``size`` in bytes. ``source_key`` is its name at the mirror, ``""`` when
    that is the path. ``validator`` is the mirror's (an ETag, a generation). ``archive`` names the archive that it was
    unpacked from. ``fetched`` says that cxrprep put the file there (downloaded, linked or unpacked): one that was
    here before, and one of which an older record does not say it, is somebody else's, and is never removed. Raises
    ``UnsafePathError`` for a path that would leave the root, ``ValueError`` for a negative size. ``mtime_ns`` is when
    cxrprep wrote the file, as the file system had it: a record that was copied beside another copy of the release is
    told by it, and a folder that was moved, or copied with its times, is not.
    """

    path: str
    size: int
    digest: Digest | None = None
    origin: Origin = Origin.FIRST_READ
    state: FileState = FileState.HERE
    source_key: str = ""
    validator: str | None = None
    archive: str | None = None
    fetched: bool = False
    mtime_ns: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no listing, archive or record may say."""
        safe_path(self.path)
        if self.size < 0:
            raise ValueError(f"{self.path}: a size of {self.size} bytes")

    def as_row(self) -> dict[str, Any]:
        """The entry as plain values, the form it has in journals and in the table."""
        return {
            "path": self.path,
            "size": self.size,
            "digest": None if self.digest is None else str(self.digest),
            "origin": str(self.origin),
            "state": str(self.state),
            "source_key": None if self.source_key == self.path else self.source_key or None,
            "validator": self.validator,
            "archive": self.archive,
            "fetched": self.fetched,
            "mtime_ns": self.mtime_ns,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FileEntry:
        """The entry that ``as_row`` gave. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        digest = row["digest"]
        size = row["size"]
        if not isinstance(size, int) or not isinstance(row["path"], str):
            raise TypeError(f"not a row of a record: {row!r}")
        return cls(
            path=row["path"],
            size=size,
            digest=None if digest is None else Digest.parse(digest),
            origin=Origin(row["origin"]),
            state=FileState(row["state"]),
            source_key=row["source_key"] or "",
            validator=row["validator"],
            archive=row["archive"],
            # A record that was written before there was this column says nothing of it.
            fetched=row.get("fetched") is True,
            mtime_ns=_time(row.get("mtime_ns")),
        )
