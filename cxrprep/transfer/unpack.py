"""An archive's files to their release paths: each proven, recorded and in place before the next; resumable."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cxrprep.archives import read_members, reading
from cxrprep.errors import ArchiveError
from cxrprep.lock import FileEntry, FileState, Origin
from cxrprep.model import Digest
from cxrprep.paths import safe_path
from cxrprep.transfer.partial import Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cxrprep.archives import Member
    from cxrprep.lock import Record
    from cxrprep.transfer.limits import Stop
    from cxrprep.transfer.partial import Partial
    from cxrprep.transfer.parts import Parts


@dataclass(slots=True)
class Unpacked:
    """What came out of an archive: files written, files that were here already, and names outside the release."""

    written: int = 0
    kept: int = 0
    size: int = 0
    foreign: int = 0
    index: list[tuple[str, int]] = field(default_factory=list)
    """Release path and size of every file of the release in the archive, wanted or not."""


def unpack(
    path: Path,
    archive: str,
    *,
    record: Record,
    parts: Parts,
    place: Callable[[str], str | None],
    wanted: Callable[[str], bool],
    origin: Origin,
    spent: Callable[[str], bool] | None = None,
    stop: Stop,
    on_file: Callable[[str], None],
) -> Unpacked:
    """Unpack the archive at ``path``, whose release path is ``archive``, below the record's root.

    ``place`` maps a member's name to its release path, ``wanted`` says which are to be written, ``on_file`` is told
    each release path that was written or found. ``origin`` is the archive's own proof: what came out of a proven
    archive is proven as well. ``spent`` says whether one that was used up need not come again. Raises ``ArchiveError``,
    ``UnsafePathError``, ``StorageError``, ``Stopped``.
    """
    buffer = memoryview(bytearray(1 << 18))
    proof = Origin.FIRST_READ if origin is Origin.FIRST_READ else Origin.TRANSPORT
    done = Unpacked()
    for member in read_members(path):
        stop.check()
        dest = place(member.name)
        if dest is None:
            done.foreign += 1
            continue
        safe_path(dest)
        done.index.append((dest, member.size))
        if not wanted(dest):
            continue
        if _is_here(record, dest, member.size, archive, spent):
            done.kept += 1
        else:
            digest = _write(path, member, parts.open(dest), record.root / dest, buffer)
            record.add(FileEntry(dest, member.size, digest, proof, archive=archive, source_key=member.name))
            done.written += 1
            done.size += member.size
        on_file(dest)
    return done


def _is_here(record: Record, dest: str, size: int, archive: str, spent: Callable[[str], bool] | None) -> bool:
    held = record.get(dest)
    if held is None or held.archive != archive or held.size != size:
        return False
    if held.state is FileState.DISCARDED:
        return spent is None or spent(dest)
    try:
        return os.stat(record.root / dest).st_size == size  # noqa: PTH116  # as everywhere that files are counted
    except OSError:
        return False


def _write(path: Path, member: Member, partial: Partial, final: Path, buffer: memoryview) -> Digest:
    hasher = hashlib.sha256()
    partial.restart([Segment(0, member.size)])
    segment = partial.segments[0]
    try:
        with reading(path), member.open() as stream:
            while count := stream.readinto(buffer):  # type: ignore[attr-defined]  # what both libraries return has it
                if segment.done + count > member.size:
                    break
                partial.write(segment, buffer[:count])
                hasher.update(buffer[:count])
        if segment.done != member.size or count:
            raise ArchiveError(
                f"{path.name}: {member.name!r} does not have the {member.size} bytes that the archive states",
                hint="remove the archive and run the download again",
            )
        partial.publish(str(final))
    except BaseException:
        partial.discard()
        raise
    return Digest("sha256", hasher.hexdigest())
