"""Worker of a transfer: one item fetched, linked, adopted or unpacked, and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.digests import digest_of, file_digest, read_digest
from cxrprep.errors import IntegrityError, StorageError, storage_errors
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.record.entry import FileEntry, FileState, Origin, was_written_at
from cxrprep.selection.filters import SelectionFilter
from cxrprep.sources.base import SMALL_FILE, ConnectionState, Source
from cxrprep.storage.atomic import settle
from cxrprep.storage.paths import leads_out
from cxrprep.storage.unfetched import bring
from cxrprep.transfer.file_fetch import OWN_ALGORITHM, Fetched, Fetcher
from cxrprep.transfer.links import OnThisMachine, take_over
from cxrprep.transfer.replaced import keep_foreign, warn_replaced
from cxrprep.transfer.result import Outcome, OutcomeStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cxrprep.datasets.layout import Layout
    from cxrprep.events import Sink
    from cxrprep.record.record import Record
    from cxrprep.transfer.limits import ByteCounter, Stop
    from cxrprep.transfer.options import TransferOptions
    from cxrprep.transfer.partial_folder import PartialFolder
    from cxrprep.transfer.unpack import Unpacked

# Bytes of a disk's smallest block. DICOM begins with 128 zeros, and then says what it is.
_BLOCK: Final = 512


@dataclass(slots=True, eq=False)
class Worker:
    """Works on items of one plan; used by many threads at once.

    Attributes:
        plan: with selection and images, for members of archives.
        source: where bytes come from.
        fetcher: fetches a file.
        record: learns what is here.
        partial_folder: where files are written before they have their name.
        layout: says which image a path is of.
        stop: ends everything.
        options: how the plan is applied.
        check: asked before anything is begun, recorded or removed; raises ``Stopped`` where the folder is another run's
            by now.
        on_complete: called with release path and file as each is whole; a true result lets it be dropped.
        on_event: gets notes and progress.
        spared: files that were used up and stay, since cxrprep did not put them there.
        unproven: files without a published checksum, and the connection that each came over.
    """

    plan: Plan
    source: Source
    fetcher: Fetcher
    record: Record
    partial_folder: PartialFolder
    layout: Layout
    stop: Stop
    options: TransferOptions
    check: Callable[[], None]
    on_complete: Callable[[str, Path], bool | None] | None
    on_event: Sink
    spared: list[str] = field(default_factory=list, init=False)
    unproven: list[tuple[Item, ConnectionState]] = field(default_factory=list, init=False)
    _root: str = field(init=False)
    _filter: SelectionFilter = field(init=False)
    _by_itself: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Settle once what each item is asked."""
        plan = self.plan
        self._root = str(self.record.root)
        self._filter = SelectionFilter(plan.selection, plan.images)
        # What the mirror delivers by itself is left out of archives: two threads would write one file.
        by_itself = (item.dest for item in plan if not item.archive and item.action is not Action.IMPOSSIBLE)
        self._by_itself = frozenset(by_itself) if plan.archives() else frozenset()

    def work(self, item: Item, buffer: memoryview) -> Outcome:
        """How ``item`` ended. Raises ``CxrprepError`` for what failed, ``Stopped``."""
        self.check()
        if item.archive:
            return self._archive(item, buffer)
        if item.action is Action.KEEP:
            if not item.proven and not self._adopted(item, buffer):
                if self.plan.in_place:
                    raise IntegrityError(
                        f"{item.dest} does not have the published digest, or holds only zeros",
                        hint="fetch it again from a mirror",
                    )
                return self._fetched(item, buffer)
            self._hand_on(item.dest)
            return Outcome(item, OutcomeStatus.NOT_NEEDED)
        return self._fetched(item, buffer)

    # ---- small files: see ``SmallFiles`` ----

    def is_simple(self, item: Item) -> bool:
        """Whether nothing of ``item`` is here, it is small as far as is known, and a digest proves its bytes."""
        file = item.file
        return (
            item.action is Action.FETCH
            and file.digest is not None
            and (file.size or 0) <= SMALL_FILE
            and not os.path.lexists(self._place(item))
            and self.record.get(item.dest) is None
            and self.partial_folder.bytes_of(item.dest) is None
        )

    def keep(self, item: Item, data: bytes, validator: str | None) -> Outcome | None:
        """Write and record a file of which all bytes are in memory; ``None`` where they have another digest.

        Raises as ``work``.
        """
        digest = item.file.digest
        assert digest is not None
        if digest_of(data, digest.algorithm) != digest:
            return None

        def note(mtime_ns: int) -> None:
            self._note(item, Fetched(len(data), digest, self.options.listing_origin, validator, 0, mtime_ns=mtime_ns))

        self.partial_folder.place(item.dest, data, self._place(item), note)
        return Outcome(item, OutcomeStatus.OK, len(data))

    def _place(self, item: Item) -> str:
        # Making a Path takes longer than most things here.
        return f"{self._root}{os.sep}{item.dest}"

    # ---- one file ----

    def _fetched(self, item: Item, buffer: memoryview) -> Outcome:
        got = self._brought(item, buffer)
        if got.came_over is not None:
            self.unproven.append((item, got.came_over))
        self._hand_on(item.dest, arrived=True)
        return Outcome(item, OutcomeStatus.OK, got.moved, linked=self.options.link != "copy" and not got.moved)

    def _brought(self, item: Item, buffer: memoryview) -> Fetched:
        """Fetch or link the file, and record it; one that cxrprep did not put there stays under another name."""
        recorded = self.record.get(item.dest)
        if item.action is not Action.FETCH and not (recorded is not None and recorded.fetched):
            self._bring(item)
        spared = keep_foreign(self.record, self.partial_folder, item.dest)
        again = (
            recorded is not None
            and item.dest in self.options.wrong
            and item.file.digest is None
            and recorded.digest is not None
            and not self._is_as_recorded(item, recorded)
        )
        if recorded is not None and again:
            # The mirror states nothing of it: what was recorded once is what it must be again.
            item = dataclasses.replace(item, file=dataclasses.replace(item.file, digest=recorded.digest))
        # Recorded before it has its name: killed in between, the next run fetches it, and does not find a file of which
        # nobody knows who put it there. What lies there already is ours only when the new bytes have taken its place.
        is_new = spared is None and (recorded is None or recorded.state is FileState.DISCARDED)
        note = functools.partial(self._note, item) if is_new else None
        try:
            got = self._taken_over(item, buffer, note) or self.fetcher.fetch(item, self._place(item), buffer, note=note)
        except BaseException:
            if spared is not None:
                spared.unlink(missing_ok=True)
            raise
        warn_replaced(item.dest, spared, self.on_event)
        self.check()
        if is_new:
            return got
        if recorded is not None and again:
            got = dataclasses.replace(got, origin=recorded.origin)
        self.record.add(self._entry(item, got, fetched=True))
        return got

    def _note(self, item: Item, got: Fetched) -> None:
        self.check()
        self.record.add(self._entry(item, got, fetched=True))

    def _is_as_recorded(self, item: Item, recorded: FileEntry | None) -> bool:
        """Whether what is wrong with a file is how it came, so that the mirror may have mended it since."""
        path = self.record.root / item.dest
        if recorded is None or recorded.digest is None or not path.is_file():
            return False
        return file_digest(path, recorded.digest.algorithm) == str(recorded.digest)

    def _entry(self, item: Item, got: Fetched, *, fetched: bool) -> FileEntry:
        return FileEntry(
            item.dest, got.size, got.digest, got.origin, source_key=item.file.key, validator=got.validator,
            fetched=fetched, mtime_ns=got.mtime_ns if fetched else None,
        )  # fmt: skip

    def _taken_over(self, item: Item, buffer: memoryview, note: Callable[[Fetched], None] | None) -> Fetched | None:
        """A clone or a link of a file of this machine, read once for its digest; ``None`` when it must be copied."""
        if self.options.link == "copy" or not isinstance(self.source, OnThisMachine):
            return None
        target = self.partial_folder.beside(item.dest)
        if not take_over(self.source.path_of(item.file), target, self.options.link):
            return None
        try:
            got = self._read(item, target, buffer)
            if got is None:
                return None
            if self.options.link == "hardlink":
                # The time is that of somebody else's file.
                got = dataclasses.replace(got, mtime_ns=None)
            final = self.record.root / item.dest
            final.parent.mkdir(parents=True, exist_ok=True)
            if note is not None:
                note(got)
            target.replace(final)
        finally:
            target.unlink(missing_ok=True)
        return got

    def _adopted(self, item: Item, buffer: memoryview) -> bool:
        """Read and record a file that lies in place without a record; whether it is what is published."""
        path = self.record.root / item.dest
        # Beside its place: what comes into that, and goes, would be put into the bucket and removed there.
        away = None if path.exists() else self.partial_folder.beside(item.dest)
        try:
            is_away = away is not None and bring(self.record.root, item.dest, away)
            got = self._read(item, away if away is not None and is_away else path, buffer)
        finally:
            if away is not None:
                away.unlink(missing_ok=True)
        if got is None:
            return False
        self.record.add(self._entry(item, got, fetched=False))
        return True

    def _bring(self, item: Item) -> None:
        """Bring a file that lies in the folder's bucket alone, to be kept under another name."""
        path, place = self.record.root / item.dest, self.partial_folder.beside(item.dest)
        if not path.exists() and bring(self.record.root, item.dest, place):
            path.parent.mkdir(parents=True, exist_ok=True)
            place.replace(path)

    def _read(self, item: Item, path: Path, buffer: memoryview, counter: ByteCounter | None = None) -> Fetched | None:
        """The file at ``path`` as if it had been fetched, its bytes counted where somebody counts them.

        ``None`` when its digest is not the one stated, or none is stated and it begins as no released file does: with a
        block of zeros, as a power cut or a reserved place leaves it.
        """
        stated = item.file.digest
        if stated is None and _begins_with_zeros(path):
            return None
        check = counter.add if counter is not None else lambda _: self.stop.check()
        digest, size = read_digest(path, stated.algorithm if stated else OWN_ALGORITHM, check, buffer)
        if stated is not None and digest != stated:
            return None
        origin = Origin.FIRST_READ if stated is None else self.options.listing_origin
        return Fetched(size, digest, origin, item.file.validator, 0, mtime_ns=path.stat().st_mtime_ns)

    def _hand_on(self, dest: str, *, arrived: bool = False) -> None:
        """Tell the caller that a file is complete, and drop it when that used it up; it may have ``arrived`` now."""
        if self.on_complete is None:
            return
        recorded = self.record.get(dest)
        if recorded is None or recorded.state is FileState.DISCARDED:
            return
        if self.on_complete(dest, self.record.root / dest):
            self.check()
            if self._may_remove(recorded) and (arrived or self._is_recorded(recorded)):
                _discard(self.record, dest)
            else:
                self.spared.append(dest)

    def _may_remove(self, recorded: FileEntry) -> bool:
        """Whether cxrprep put the file there: nothing else is its to remove, nor what lies behind a link."""
        return recorded.fetched and not leads_out(self.record.root, recorded.path)

    def _is_recorded(self, recorded: FileEntry) -> bool:
        """Whether the file is the one that was fetched, and has its bytes: one in its place, or of another copy of the
        release beside which the record was put, is not ours.
        """  # noqa: D205  # the summary needs both lines
        path, digest = self.record.root / recorded.path, recorded.digest
        if digest is None or not self._is_of_that_time(recorded):
            return False
        return file_digest(path, digest.algorithm) == str(digest)

    def _is_of_that_time(self, recorded: FileEntry) -> bool:
        with contextlib.suppress(OSError):
            return was_written_at(recorded.mtime_ns, (self.record.root / recorded.path).stat().st_mtime_ns)
        return False

    # ---- archives ----

    def _archive(self, item: Item, buffer: memoryview) -> Outcome:
        # Readers of archives, and what they load, where there are archives alone.
        from cxrprep.storage.archives import read_index, write_index

        if item.action is Action.KEEP:
            for path, _ in read_index(self.record.cache, item.dest) or ():
                self._hand_on(path)
            return Outcome(item, OutcomeStatus.NOT_NEEDED)
        near, stated = self._archive_elsewhere(item, buffer)
        try:
            got = None if near is not None else self._archive_here(item, buffer)
            done, recorded = self._unpack(item, near, stated)
        except (StorageError, FileNotFoundError):
            if near is not None or (self.record.root / item.dest).exists():
                raise
            # A run that no lock keeps apart from this one was done with the archive and removed it: fetch it again.
            got = self._archive_here(item, buffer)
            done, recorded = self._unpack(item, near, stated)
        drop = near is None and not self.options.keep_archives and self._may_remove(recorded)
        if drop and got is None and not self._is_of_that_time(recorded):
            self.spared.append(item.dest)
            drop = False
        moved = near.stat().st_size if near is not None else 0 if got is None else got.moved
        if drop:
            # Its members were left to the system to write: they must be on the disk before it goes.
            settle()
            # Recorded before the index is: killed in between, the next run reads the archive once more, and drops it.
            self.record.add(dataclasses.replace(recorded, state=FileState.DISCARDED))
        write_index(self.record.cache, item.dest, done.index)
        if drop:
            _discard(self.record, item.dest)
        return Outcome(item, OutcomeStatus.OK, moved, unpacked=done.written, foreign=done.foreign)

    def _unpack(self, item: Item, near: Path | None, stated: FileEntry | None) -> tuple[Unpacked, FileEntry]:
        """What came out of the archive, and what the record says of the archive itself."""
        from cxrprep.transfer.unpack import unpack

        recorded = stated or self.record.get(item.dest)
        assert recorded is not None
        done = unpack(
            near or self.record.root / item.dest,
            item.dest,
            record=self.record,
            partial_folder=self.partial_folder,
            place=lambda name: self.layout.place(name, release=self.plan.release),
            wanted=lambda dest: dest not in self._by_itself and self._filter.wants(dest, self.layout.parse(dest)),
            origin=recorded.origin,
            spent=self.options.spent,
            wrong=self.options.wrong,
            stop=self.stop,
            on_file=self._hand_on,
            on_event=self.on_event,
        )
        if stated is not None:
            # Not before: of one that is damaged, or was read in part, nobody would miss what did not come out of it.
            self.record.add(stated)
        return done, recorded

    def _archive_elsewhere(self, item: Item, buffer: memoryview) -> tuple[Path | None, FileEntry | None]:
        """The archive in a folder of this machine, proven, to be unpacked from there; its entry once that is done."""
        if self.options.keep_archives or not isinstance(self.source, OnThisMachine):
            return None, None
        path = self.source.path_of(item.file)
        # Gigabytes, of a mounted folder perhaps: at the rate that was asked for, and counted for who watches.
        with contextlib.closing(self.fetcher.counter(item)) as counter:
            got = self._read(item, path, buffer[: self.fetcher.rate.piece], counter)
        if got is None:
            raise IntegrityError(
                f"{path} does not have the stated digest {item.file.digest}", hint="it is damaged; get another copy"
            )
        return path, dataclasses.replace(self._entry(item, got, fetched=True), state=FileState.DISCARDED)

    def _archive_here(self, item: Item, buffer: memoryview) -> Fetched | None:
        """Make sure that the archive lies, proven and recorded, at its place; what came, if it was not there."""
        path = self.record.root / item.dest
        recorded = self.record.get(item.dest)
        if item.action is not Action.REFETCH and path.exists():
            if recorded is not None and recorded.size == path.stat().st_size:
                if recorded.state is FileState.DISCARDED:
                    self.record.add(dataclasses.replace(recorded, state=FileState.HERE))
                return None
            if self._adopted(item, buffer):
                return None
        return self._brought(item, buffer)


def _begins_with_zeros(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_BLOCK)
    return len(head) == _BLOCK and not any(head)


def _discard(record: Record, dest: str) -> None:
    """Remove a file that was used, and record that this was on purpose. Raises ``StorageError``."""
    recorded = record.get(dest)
    if recorded is not None:
        # The record first: a file that is recorded as discarded and still here only wastes room.
        record.add(dataclasses.replace(recorded, state=FileState.DISCARDED))
    path = record.root / dest
    with storage_errors(path, "remove"):
        path.unlink(missing_ok=True)
