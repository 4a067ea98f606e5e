"""Unpacking: the members that an archive extracts get their names when whole; what was here before is spared."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cxrprep.digests import read_digest
from cxrprep.errors import ArchiveError
from cxrprep.events import Sink, ignore
from cxrprep.model import Digest
from cxrprep.record.entry import FileEntry, FileState, Origin
from cxrprep.storage.archives import Member, read_members, reading
from cxrprep.storage.paths import safe_path
from cxrprep.transfer.partial_file import Partial, Segment
from cxrprep.transfer.replaced import keep_foreign, warn_replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cxrprep.record.record import Record
    from cxrprep.transfer.limits import Stop
    from cxrprep.transfer.partial_folder import PartialFolder

_BLOCK: Final = 1 << 18


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
    partial_folder: PartialFolder,
    place: Callable[[str], str | None],
    wanted: Callable[[str], bool],
    origin: Origin,
    spent: Callable[[str], bool] | None = None,
    wrong: frozenset[str] = frozenset(),
    stop: Stop,
    on_file: Callable[[str], None],
    on_event: Sink = ignore,
) -> Unpacked:
    """Unpack the archive at ``path`` below the record's root.

    A file that is here and did not come out of this archive stays: what a mirror delivers by itself goes over an
    archive's copy of it.

    Args:
        path: where the archive lies.
        archive: its release path.
        record: what is known of the folder; what comes out is added.
        partial_folder: where files are written before they have their name.
        place: the release path of a member's name; ``None`` for what is no part of the release.
        wanted: whether a release path is to be written.
        origin: the archive's own proof: what came out of a proven archive is proven as well.
        spent: whether a file that was used up need not come again (default: never).
        wrong: release paths whose bytes are known to be wrong: they are written again.
        stop: asked between members.
        on_file: is told each release path that was written or found.
        on_event: is told which files of somebody else's were replaced.

    Returns:
        What was written and what was there.

    Raises:
        ArchiveError: for damage, links and bombs.
        IntegrityError: where a file behind a link out of the folder has other bytes.
        UnsafePathError: for a name that would leave the root.
        StorageError: when the disk refuses.
        Stopped: when the run is to end.
    """
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
        if dest not in wrong and _is_here(record, dest, member.size, archive, spent):
            done.kept += 1
        else:
            entry = FileEntry(dest, member.size, None, proof, archive=archive, source_key=member.name)
            _write(path, member, entry, record, partial_folder, stop=stop, on_event=on_event)
            done.written += 1
            done.size += member.size
        on_file(dest)
    return done


def _is_here(record: Record, dest: str, size: int, archive: str, spent: Callable[[str], bool] | None) -> bool:
    recorded = record.get(dest)
    if recorded is None:
        return False
    ours = recorded.archive == archive and recorded.size == size
    if recorded.state is FileState.DISCARDED:
        return ours and (spent is None or spent(dest))
    try:
        here = os.stat(record.root / dest).st_size  # noqa: PTH116  # as everywhere that files are counted
    except OSError:
        return False
    # One that came by itself, or out of another archive, is what its own record says.
    return here == recorded.size and (ours or recorded.archive != archive)


def _write(
    path: Path,
    member: Member,
    entry: FileEntry,
    record: Record,
    partial_folder: PartialFolder,
    *,
    stop: Stop,
    on_event: Sink,
) -> None:
    """Put a member in its place, and record it by ``entry``, unless the same bytes are there already.

    A new file is recorded before it has its name, so that a run that is killed in between leaves none of which nobody
    knows who put it there.
    """
    dest = entry.path
    partial, final = partial_folder.open(dest), record.root / dest
    spared, is_new = None, not os.path.lexists(final)
    try:
        digest = _extract(path, member, partial)
        if not is_new:
            buffer = memoryview(bytearray(_BLOCK))
            if read_digest(final, digest.algorithm, lambda _: stop.check(), buffer) == (digest, member.size):
                partial.discard()
                recorded = record.get(dest)
                fetched, mtime_ns = (False, None) if recorded is None else (recorded.fetched, recorded.mtime_ns)
                record.add(replace(entry, digest=digest, fetched=fetched, mtime_ns=mtime_ns))
                return
            spared = keep_foreign(record, partial_folder, dest)
        whole = replace(entry, digest=digest, fetched=True, mtime_ns=partial.mtime_ns)
        if is_new:
            record.add(whole)
        partial.publish(str(final))
    except BaseException:
        partial.discard()
        if spared is not None:
            spared.unlink(missing_ok=True)
        raise
    if not is_new:
        record.add(whole)
    warn_replaced(dest, spared, on_event)


def _extract(path: Path, member: Member, partial: Partial) -> Digest:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    partial.restart([Segment(0, member.size)])
    segment = partial.segments[0]
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
    return Digest("sha256", hasher.hexdigest())
