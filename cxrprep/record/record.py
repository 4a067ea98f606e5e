"""The record of a folder as an object: look up, add from any thread, save.

Between two saves, what was added stands in journals under ``.cxrprep/journal/``, one for each writer, so a killed run
loses nothing and the shards of a job array may write side by side. ``save`` folds every journal into the table, whose
metadata remembers how far each was read: a line counts once, whoever saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import threading
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from cxrprep.datasets.catalog import naming_options
from cxrprep.errors import BusyError, CxrprepError, IntegrityError, UnsafePathError, UsageError, storage_errors
from cxrprep.record import file_table as files
from cxrprep.record.entry import FileEntry, FileState, was_written_at
from cxrprep.record.loading import load_record, read_files, stored_header
from cxrprep.record.lockfile import Header, dump_header
from cxrprep.record.plain_rows import PlainRows, write_rows
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.journal import Journal, journal_name, read_journal
from cxrprep.storage.locks import LockLost, SaveLock, writer_is_gone
from cxrprep.storage.paths import CACHE_NAME, FILES_NAME, LOCK_NAME
from cxrprep.system import plain_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.model import Digest, Selection
    from cxrprep.record.stored_table import ChangedTable

# Entries held as objects before they are folded into columns: as many as are folded without pyarrow.compute, which
# takes 0.2 s to load. They are 0.7 KB each.
_PENDING_ROWS: Final = 30_000
# Rows of a large record that are held in memory before they are saved.
_UNSAVED_ROWS: Final = 250_000
_TORN_WRITES: Final = 8
# How often a place in line may be lost to others before that is said.
_LOST_LOCKS: Final = 5
# Files whose times tell a folder from another copy of the release.
_COMPARED: Final = 64


class Record(contextlib.AbstractContextManager["Record"]):
    """What a folder holds: a header, and an entry for each file. Threads may share it; processes open one each.

    ``root`` is the folder; ``home`` is where the record lies, which is ``root`` unless a state folder was named (then
    ``root`` is never written to).
    """

    def __init__(
        self,
        root: Path,
        home: Path,
        header: Header,
        table: pa.Table | ChangedTable | PlainRows | None,
        read_to: dict[str, int],
    ) -> None:
        """Wrap what ``open`` has read; ``table`` is ``None`` where there is none yet, and pyarrow is not loaded.

        Args:
            root: the folder that it is about.
            home: where it is kept.
            header: dataset, release, mirror and selections.
            table: an entry per file; ``None`` for none yet.
            read_to: how far each journal is in the table, in bytes by journal.
        """
        self.root = root
        self.home = home
        self.header = header
        self._take(table)
        self._read_to = read_to
        # The save that the columns in memory are of; the header may be a newer one's, when another process saved.
        self._generation = header.generation
        self._pending: dict[str, FileEntry | None] = {}
        self._mutex = threading.RLock()
        self._journal = self._new_journal()
        self._dirty = False

    @classmethod
    def open(cls, root: Path, state: Path | None = None, *, files: bool = True, held: bool = True) -> Self:
        """The record of ``root``, empty when it has none; nothing is written.

        Args:
            root: The folder that it is about.
            state: The folder that keeps it for a read-only ``root``.
            files: Read the entries; without, for whoever needs the header alone: those of 377,110 images take 0.25 s of
                CPU time and 140 MiB.
            held: Hold them; else those of a record that is not small are read part by part, each time anew.

        Returns:
            The record.

        Raises:
            IntegrityError: It is damaged.
            UnsafePathError: It names a path outside.
            ConfigError: A file that is not ours.
        """
        home = state or root
        try:
            loaded = load_record(home, plain=True, held=held) if files else (stored_header(home), None, {})
        except (IntegrityError, UnsafePathError) as error:
            error.hint = error.hint.replace("ROOT", shlex.join(folder_words(root, home)))
            raise
        record = cls(root, home, *loaded)
        if files:
            record._replay()
        return record

    # ---- what it says ----

    @property
    def exists(self) -> bool:
        """Whether anything was recorded. Without a record, files can be called neither proven nor missing."""
        return bool(self.header.dataset) or self._large is not None or self.count() > 0

    @property
    def cache(self) -> Path:
        """The folder for what can be computed again."""
        return self.home / CACHE_NAME

    @property
    def digest(self) -> Digest | None:
        """The digest of the file table, where it is all that was recorded; ``None`` where a journal adds to it."""
        table, listing = self.header.table, self.home / FILES_NAME
        is_all = table is not None and listing.is_file() and not any(self._journals())
        return table if is_all and files.digest_of(listing) == table else None

    @property
    def selections(self) -> tuple[Selection, ...]:
        """What the downloads into this folder asked for, oldest first; together they say what should be here."""
        return self.header.selections

    def entries(self) -> Iterator[FileEntry]:
        """Every recorded file in order of path, of a snapshot of which some thousands are in memory at a time."""
        names = FileEntry.__slots__
        return (FileEntry.from_row(dict(zip(names, row, strict=True))) for row in self.rows(names))

    def get(self, path: str) -> FileEntry | None:
        """The entry of ``path``, or ``None``."""
        with self._mutex:
            if path in self._pending:
                return self._pending[path]
            self._read_table()
            if self._large is not None:
                return self._large.find(path)
            return None if self._table is None else files.find_entry(self._table, path)

    def is_discarded(self, path: str) -> bool:
        """Whether a file was proven, used and removed on purpose, as an archive that was unpacked."""
        entry = self.get(path)
        return entry is not None and entry.state is FileState.DISCARDED

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All entries, or some columns of them, sorted by path (see ``file_table.schema``); a snapshot.

        Of a large record all of it is read into memory: ``tables`` reads it piece by piece.
        """
        import pyarrow as pa

        schema = files.schema()
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        with self._mutex:
            small = self._folded()
        if small is not None:
            return small.select(wanted.names)
        return pa.concat_tables([wanted.empty_table(), *self.tables(columns)]).unify_dictionaries()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All entries of a snapshot in order of path, some thousands at a time."""
        with self._mutex:
            small = self._folded() if self._large is None else None
            large = self._fold_large()
        if large is not None:
            yield from large.tables(columns)
        elif small is not None:
            # Imported late: it loads pyarrow.compute, of which a small download has no need.
            from cxrprep.storage.sorted_tables import parts

            yield from parts(small if columns is None else small.select(list(columns)))

    @cached_property
    def is_of_this_copy(self) -> bool:
        """Whether the files here are those that were recorded, by their times: a record may lie beside another copy.

        Most of some fetched files, taken evenly, tell; a record of an earlier version has no times, and is believed.
        """
        found = [
            (path, mtime)
            for path, fetched, state, mtime in self.rows(["path", "fetched", "state", "mtime_ns"])
            if fetched and state == FileState.HERE and mtime is not None
        ]
        ours = others = 0
        for path, mtime in found[:: max(1, len(found) // _COMPARED)]:
            with contextlib.suppress(OSError):
                same = was_written_at(mtime, (self.root / path).stat().st_mtime_ns)
                ours, others = ours + same, others + (not same)
        return ours >= others

    def count(self) -> int:
        """How many files are recorded."""
        with self._mutex:
            large = self._fold_large()
            return large.num_rows if large is not None else int(self.table().num_rows)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Plain values of these columns, sorted by path, of a snapshot: the quickest way through all entries."""
        with self._mutex:
            if not self._pending and self._plain is not None and (found := self._plain.rows(names)) is not None:
                return found
            self._read_table()
            if self._large is None and self._table is None and not self._pending:
                return iter(())
            if self._large is None:
                return files.rows(self.table(), names)
        return (row for table in self.tables(names) for row in files.rows(table, names))

    # ---- what changes it ----

    def describe(self, *, dataset: str, release: str, mirror: str = "", tool: str = "") -> None:
        """Say what the folder holds, and write that down at once.

        Args:
            dataset: Its name.
            release: The release.
            mirror: Where it comes from.
            tool: Who fetched it.

        Raises:
            UsageError: It holds another dataset or release already: two of them never share a folder.
            StorageError: The disk refuses.
        """

        def change(header: Header) -> Header:
            if header.dataset and (header.dataset, header.release) != (dataset, release):
                raise UsageError(
                    f"{self.root} holds {header.dataset} {header.release}, not {dataset} {release}",
                    hint="name another folder, or leave --dataset and --release out",
                )
            return dataclasses.replace(
                header, dataset=dataset, release=release, mirror=mirror or header.mirror, tool=tool or header.tool
            )

        self._update(change)

    def select(self, selection: Selection) -> None:
        """Add what a download asks for, once, and write that down at once."""

        def change(header: Header) -> Header:
            if selection in header.selections:
                return header
            return dataclasses.replace(header, selections=(*header.selections, selection))

        self._update(change)

    def add(self, entry: FileEntry) -> None:
        """Record a file that is complete under its final name; kept even if the process is killed right after."""
        with self._mutex:
            self._journal.append(entry.as_row())
            self._change(entry.path, entry)
            if not self._pending and self._unsaved >= (files.LARGE if self._large is None else _UNSAVED_ROWS):
                # Nothing is lost where that cannot be done now: the journal has it, and the end says what is wrong.
                with contextlib.suppress(CxrprepError):
                    self._saved_at = self._unsaved
                    self.save()

    def forget(self, path: str) -> None:
        """Take a file out of the record; no error when it is not there."""
        with self._mutex:
            if self.get(path) is not None:
                self._journal.append({"forget": path})
                self._change(path, None)

    def expect_save(self) -> None:
        """Load the library that ``save`` needs in a thread of its own, while the caller waits for a network.

        measured: 0.2 s of the 4.5 s that 2,000 files take with 30 ms a request and 16 connections.
        """
        if self._table is None:
            threading.Thread(target=files.load_library, name="record", daemon=False).start()

    def save(self) -> None:
        """Fold what every writer has added into the file table, and put it and the header in place.

        Raises ``StorageError`` when the disk refuses, ``BusyError`` when another process holds the record for long.
        """
        with self._mutex:
            if not self._dirty and not any(self._journals()):
                return
            self._journal.close()
            # measured: 127 -> 120 MiB at the peak of `download` of 20,000 files (`many` of benchmarks/download.py).
            with plain_memory():
                self._with_lock(self._fold)
            # What follows goes to a fresh journal: the old one's length is in the table's metadata.
            self._journal = self._new_journal()

    def close(self) -> None:
        """Save, and let go of the journal."""
        self.save()
        self._journal.close()

    def __exit__(self, *_: object) -> None:
        """Save, whatever happened: what was fetched before an error is still fetched."""
        self.close()

    # ---- inside ----

    def _with_lock(self, work: Callable[[SaveLock], None]) -> None:
        """Do ``work`` in the one place in line; again, with what is on the disk by then, where the place was lost.

        A process that is suspended for minutes loses it, and another one may have saved meanwhile.
        """
        for _ in range(_LOST_LOCKS):
            with contextlib.suppress(LockLost), SaveLock(self.cache) as lock:
                work(lock)
                return
            # What was read under the lock is not what the folder has now.
            self._generation = -1
        raise BusyError(f"another process keeps saving the record of {self.root}", hint="run again later")

    def _fold(self, lock: SaveLock) -> None:
        """Put the table and the header in place, with what every journal says."""
        stored = stored_header(self.home)
        if stored.generation == self._generation:
            # Nobody else has saved: all that this writer's journal says is in memory already.
            with contextlib.suppress(FileNotFoundError):
                self._read_to[self._journal.path.name] = self._journal.path.stat().st_size
        else:
            self._pending = {}
            stored, table, self._read_to = load_record(self.home)
            self._take(table)
        self._replay()
        self._write(stored, lock)
        self._dirty = False
        for path in self._journals():
            if path.name == self._journal.path.name or writer_is_gone(path.name):
                path.unlink(missing_ok=True)

    def _new_journal(self) -> Journal:
        # Names sort by time: a later run's word about a file goes over an earlier run's.
        return Journal(self.cache / "journal" / journal_name())

    def _change(self, path: str, entry: FileEntry | None) -> None:
        self._pending[path] = entry
        self._dirty = True
        if len(self._pending) >= _PENDING_ROWS:
            self._folded()

    def _read_table(self) -> None:
        """Read the table of which plain rows are held; that of a later save is as good, since it says more."""
        if self._plain is not None:
            self._take(load_record(self.home)[1])

    def _take(self, table: pa.Table | ChangedTable | PlainRows | None) -> None:
        """Go on from what was read: columns in memory, of a large record a file, or rows until more is asked."""
        self._plain = table if isinstance(table, PlainRows) else None
        if isinstance(table, PlainRows):
            table = None
        is_large = table is not None and not hasattr(table, "to_batches")
        self._table: pa.Table | None = None if is_large else table
        self._large: ChangedTable | None = table if is_large else None
        self._saved_at = 0 if is_large or table is None else int(table.num_rows)

    @property
    def _unsaved(self) -> int:
        """Rows in memory that the file does not have, at most."""
        held = self._large.changes if self._large is not None else 0 if self._table is None else self._table.num_rows
        return held - self._saved_at

    def _fold_large(self) -> ChangedTable | None:
        self._read_table()
        if self._large is not None and self._pending:
            self._large, self._pending = self._large.with_changes(self._pending), {}
        return self._large

    def _folded(self) -> pa.Table | None:
        """The columns of a record that is not large, with what was changed."""
        if self._fold_large() is not None:
            return None
        if self._table is None:
            self._table = files.empty()
        if self._pending:
            self._table = files.merge(self._table, self._pending)
            self._pending = {}
        return self._table

    def _journals(self) -> list[Path]:
        with storage_errors(self.cache, "read"):
            return sorted((self.cache / "journal").glob("*.jsonl"))

    def _replay(self) -> None:
        """Apply what journals say beyond the table, and remember how far each was read."""
        read_to = {}
        for path in self._journals():
            offset = self._read_to.get(path.name, 0)
            for item, end in read_journal(path, offset):
                offset = end
                gone = item.get("forget")
                try:
                    entry = None if gone is not None else FileEntry.from_row(item)
                except (KeyError, TypeError, ValueError):
                    continue
                self._change(str(gone) if entry is None else entry.path, entry)
            read_to[path.name] = offset
        self._read_to = read_to

    def _write(self, stored: Header, lock: SaveLock) -> None:
        table = self._folded()
        generation = stored.generation
        for _ in range(_TORN_WRITES):
            generation += 1
            state = {"generation": generation, "journals": self._read_to}
            digest, count, size = self._write_table(table, state, lock)
            self._generation = generation
            header = dataclasses.replace(stored, generation=generation, files=count, size=size, table=digest)
            self._write_header(header, lock)
            # Where the place in line is none (O_EXCL that excludes nobody, clocks that disagree), another process may
            # have put its table under our header: whoever wrote last makes the two agree.
            if files.digest_of(self.home / FILES_NAME) == digest:
                if table is not None:
                    write_rows(self.cache, table, state, digest)
                self._let_go(table)
                return

    def _let_go(self, table: pa.Table | None) -> None:
        """Hold no more of a large record in memory than the file has not."""
        if table is None or table.num_rows > files.LARGE:
            self._take(read_files(self.home / FILES_NAME)[0])

    def _write_table(self, table: pa.Table | None, state: Mapping[str, Any], lock: SaveLock) -> tuple[Digest, int, int]:
        """Write the file table; its digest, its rows, and the bytes of all files together."""
        place = self.home / FILES_NAME
        if table is not None:
            return files.write(table, place, state, lock.check), table.num_rows, files.size_of(table)
        from cxrprep.record import stored_table

        return stored_table.write(self.tables(), place, state, lock.check)

    def _update(self, change: Callable[[Header], Header]) -> None:
        """Apply ``change`` to the header on the disk, which another process may have changed since ``open``."""
        with self._mutex:
            if change(self.header) == self.header:
                return

            def apply(lock: SaveLock) -> None:
                stored = stored_header(self.home) if (self.home / LOCK_NAME).exists() else self.header
                self._write_header(change(stored), lock)

            self._with_lock(apply)

    def _write_header(self, header: Header, lock: SaveLock) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        header = dataclasses.replace(header, created=header.created or now, updated=now)
        text = dump_header(header)
        replace_file(self.home / LOCK_NAME, lambda part: part.write_text(text, encoding="utf-8"), lock.check)
        self.header = header


def folder_words(root: Path, home: Path, dataset: str | None = None) -> list[str]:
    """A folder as commands name it: with ``--state`` where its record lies elsewhere, in ``home``.

    With ``dataset``, its name or file, also with what a command needs to find the description of one's own.
    """
    state = ["--state", str(home)] if home != root else []
    return [str(root), *state, *([] if dataset is None else naming_options(dataset))]
