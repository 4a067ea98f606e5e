"""Applies a plan: threads that fetch, adopt, unpack, record and report, until nothing is left or somebody says stop."""

from __future__ import annotations

import functools
import threading
import time
import urllib.parse
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.errors import AccessError, CxrprepError, SomeFailedError, SourceUnreachableError, StorageError
from cxrprep.events import ItemFinished, Note, StageFinished, StageStarted, Stalled, ignore
from cxrprep.planning import Action
from cxrprep.planning.plan import MOVING
from cxrprep.record import Origin
from cxrprep.sources.base import AsksAhead
from cxrprep.storage.locks import Lease, Owner
from cxrprep.transfer.crew import FEW, FEW_AHEAD, Crew
from cxrprep.transfer.desk import Desk
from cxrprep.transfer.file_fetch import SPLIT_FROM, Fetcher
from cxrprep.transfer.limits import Pulse, Rate, Stop, Stopped, check_space
from cxrprep.transfer.local_state import FolderHoldings
from cxrprep.transfer.partial_folder import Parts
from cxrprep.transfer.result import Outcome, Status, TransferResult
from cxrprep.transfer.retry import Patience, Persistence
from cxrprep.transfer.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cxrprep.datasets.layout import Layout
    from cxrprep.events import Sink
    from cxrprep.model import Shard
    from cxrprep.planning import Item, Plan
    from cxrprep.record import Record
    from cxrprep.sources.base import Source

# One archive is unpacked while the next one comes; more would only need more disk.
_ARCHIVES_AT_ONCE: Final = 2
# Workers beyond the connections: while one puts a file in place, another asks for the next one.
_SPARE: Final = 3
_HEAD_START_SECONDS: Final = 0.008
# So many refusals in a row, with no success between them, mean all of them.
_REFUSALS: Final = 5
# Each of these has been tried for as long as the patience goes.
_TIMES_AWAY: Final = 5
_ANSWER_SECONDS: Final = 0.7
# So long without a byte is worth a word; a connection is given up only later.
_STALL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a plan is applied.

    ``connections`` overrides what the source calls polite; ``rate`` is bytes a second in all; ``link`` is copy, reflink
    or hardlink for files of this machine; ``listing_origin`` says whose digests the listing holds; ``passing`` tells
    the release paths that ``on_complete`` uses up, for which no lasting room is needed; ``spent`` tells whether what an
    earlier run used up need not come again (default: never); ``wrong`` names release paths whose bytes a check found to
    be wrong, which are fetched again; ``lease=False`` leaves out the message that another run is
    at work here (tests of file systems without locks). ``planning`` is for a run that is to say what would be done: it
    asks nobody and writes nothing, unless label tables have to come first.
    """

    connections: int | None = None
    rate: int | None = None
    keep_archives: bool = False
    link: str = "copy"
    shard: Shard | None = None
    listing_origin: Origin = Origin.PUBLISHED
    passing: Callable[[str], bool] | None = None
    spent: Callable[[str], bool] | None = None
    wrong: frozenset[str] = frozenset()
    patience: Patience = field(default_factory=Patience)
    split_from: int = SPLIT_FROM
    lease: bool = True
    planning: bool = False


class Transfer:
    """One run on one folder. A context: holds the lease from entry to exit, so that plan and work see one state.

    ``on_complete`` gets each file's release path and place as soon as it is recorded, files that were here already
    too, in the thread that worked on it; when it returns ``True`` the file has been used up, and is removed and
    recorded as discarded.
    """

    def __init__(
        self,
        record: Record,
        layout: Layout,
        release: str,
        *,
        options: TransferOptions = TransferOptions(),  # frozen
        on_event: Sink = ignore,
        on_complete: Callable[[str, Path], bool | None] | None = None,
    ) -> None:
        """Nothing is written yet."""
        self._record = record
        self._layout = layout
        self._release = release
        self._options = options
        self._emit = on_event
        self._on_complete = on_complete
        self._owner = Owner.new()
        self._lease = Lease(record.cache, self._owner, options.shard) if options.lease else None
        self._stop = Stop()
        self.parts = Parts(record.root, self._owner)

    def __enter__(self) -> Self:
        """Take the lease. Raises ``BusyError``."""
        if self._lease is not None and not self._options.planning:
            self._lease.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back."""
        self._owner.end()
        if self._lease is not None:
            self._lease.__exit__(kind, error, trace)

    def holdings(self, *, same_mirror: bool = True) -> FolderHoldings:
        """What is here, for ``make_plan``."""
        return FolderHoldings(
            self._record, self.parts, same_mirror=same_mirror, spent=self._options.spent, wrong=self._options.wrong
        )

    def stop(self) -> None:
        """Ask the run to end soon and keep what it has; from any thread."""
        self._stop.set()

    def run(self, plan: Plan, source: Source) -> TransferResult:
        """Apply ``plan`` with the bytes of ``source``.

        Items that fail are in the result and do not stop the others; access refused again and again, a server that
        stays away, and a full disk do. Raises ``StorageError`` before the first byte when the disk is too small. On
        ``KeyboardInterrupt`` (or whatever a signal handler raises) partial files are kept, within a second.
        """
        with nullcontext() if self._lease is None or self._lease.held else self._lease:
            return self._run(plan, source)

    # ---- inside ----

    def _run(self, plan: Plan, source: Source) -> TransferResult:
        began = time.monotonic()
        moving = plan.moving()
        if moving.files:
            need = plan.disk_need(
                keep_archives=self._options.keep_archives,
                passing=self._options.passing,
                passing_at_once=self._connections(source),
            )
            check_space(self._record.root, need)
            self.parts.clean()
        work = _Work(plan, hooked=self._on_complete is not None)
        size = moving.size if not moving.unsized else None
        self._emit(StageStarted("download", moving.files, size))
        result = work.result
        try:
            if len(work):
                self._apply(plan, source, work)
        finally:
            result.left = len(work)
            result.seconds = time.monotonic() - began
            self._record.save()
        self._emit(StageFinished("download", result.done, result.kept, result.failed, result.size, result.seconds))
        return result

    def _apply(self, plan: Plan, source: Source, work: _Work) -> None:
        connections = self._connections(source)
        rate, pulse = Rate(self._options.rate, self._stop), Pulse()
        slots = threading.Semaphore(connections)
        persistence = Persistence(self._options.patience, self._stop, self._emit)
        fetcher = Fetcher(
            source,
            self.parts,
            persistence=persistence,
            rate=rate,
            stop=self._stop,
            slots=slots,
            pulse=pulse,
            on_event=self._emit,
            listing_origin=self._options.listing_origin,
            split_from=self._options.split_from,
        )
        worker = Worker(
            plan,
            source,
            fetcher,
            record=self._record,
            parts=self.parts,
            layout=self._layout,
            stop=self._stop,
            link=self._options.link,
            keep_archives=self._options.keep_archives,
            listing_origin=self._options.listing_origin,
            spent=self._options.spent,
            wrong=self._options.wrong,
            on_complete=self._on_complete,
            on_event=self._emit,
        )
        # What a caller does with each file may take long: no server is to wait for that.
        asking = source if isinstance(source, AsksAhead) and rate.limit is None and self._on_complete is None else None
        count = min(connections if asking is not None else connections + _SPARE, len(work))
        finished = threading.Semaphore(0)
        crew = Crew(count, FEW if asking is None else FEW_AHEAD)

        def upcoming(number: int) -> Item | None:
            if self._stop.asked or persistence.waiting or not crew.works(number):
                return None
            return work.take_small(self._options.split_from)

        def hired(number: int) -> threading.Thread:
            desk = Desk(slots, asking, functools.partial(upcoming, number))
            tools = {"worker": worker, "work": work, "crew": crew, "desk": desk, "finished": finished}
            return threading.Thread(
                target=self._serve, args=(number,), kwargs=tools, name=f"transfer-{number}", daemon=True
            )

        threads = [hired(number) for number in range(count)]
        try:
            for thread in threads:
                thread.start()
            self._get_ready(finished)
            due = _STALL_SECONDS
            for _ in threads:
                # In slices: a bare wait would hold signals up on some systems.
                while not finished.acquire(timeout=0.2):
                    due = self._watch(pulse.silence, due, source)
                    if self._on_complete is None:
                        # What a caller does with each file may well keep many processors busy.
                        crew.look(work.result.done)
        except BaseException:
            self._stop.set()
            source.close()
            deadline = time.monotonic() + _ANSWER_SECONDS
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
            raise
        if work.bug is not None:
            raise work.bug
        if worker.spared:
            what = worker.spared[0] if len(worker.spared) == 1 else f"{len(worker.spared):,} files"
            message = f"kept, since the record does not say that cxrprep fetched it: {what}"
            self._emit(Note("download", message, "warning", worker.spared[0]))

    def _get_ready(self, finished: threading.Semaphore) -> None:
        """Load what the record's end needs, when the first requests are out: that holds the interpreter for long."""
        if finished.acquire(timeout=_HEAD_START_SECONDS):
            finished.release()
        self._record.get_ready()

    def _connections(self, source: Source) -> int:
        return max(self._options.connections or source.politeness.connections, 1)

    def _halted(self) -> bool:
        return self._stop.asked

    def _watch(self, silence: float, due: float, source: Source) -> float:
        """Say that nothing comes, after ``due`` seconds and then each time twice as late; when to say it next."""
        if silence < _STALL_SECONDS:
            return _STALL_SECONDS
        if silence < due:
            return due
        host = urllib.parse.urlsplit(source.address).netloc or source.address
        cause = f"waiting for {host}; a connection that stays silent is given up and tried again"
        self._emit(Stalled("download", "", silence, cause))
        return 2 * silence

    def _serve(
        self, number: int, *, worker: Worker, work: _Work, crew: Crew, desk: Desk, finished: threading.Semaphore
    ) -> None:
        try:
            while not self._stop.asked:
                item = desk.take()
                if item is None:
                    if crew.park(number) and len(work):
                        continue
                    item = work.take()
                if item is None:
                    return
                try:
                    outcome = worker.work(item, desk)
                    crew.took(time.monotonic() - desk.begun)
                except Stopped:
                    work.give_back(item)
                    return
                except CxrprepError as error:
                    if self._halted():
                        # The connections were closed under it: it has not failed, it was interrupted.
                        work.give_back(item)
                        return
                    outcome = Outcome(item, Status.ERROR, error=error)
                if work.settle(outcome):
                    self._stop.set()
                if item.action is not Action.KEEP or outcome.status is Status.ERROR:
                    detail = outcome.error.message if outcome.error is not None else ""
                    self._emit(ItemFinished("download", item.dest, str(outcome.status), outcome.size, detail))
        except BaseException as error:  # noqa: BLE001  # a bug: raised again by the thread that waits
            work.bug = error
            self._stop.set()
        finally:
            desk.withdraw()
            untouched = desk.take()
            if untouched is not None:
                work.give_back(untouched)
            finished.release()


class _Work:
    """The items still to be worked on, and what became of the others."""

    def __init__(self, plan: Plan, *, hooked: bool) -> None:
        self.result = TransferResult()
        self.bug: BaseException | None = None
        self._tables: deque[Item] = deque()
        self._archives: deque[Item] = deque()
        self._files: deque[Item] = deque()
        self._unpacking = 0
        self._refused = 0
        self._away = 0
        self._guard = threading.Lock()
        for item in plan:
            if item.action is Action.IMPOSSIBLE:
                error = SomeFailedError(f"{item.dest}: {item.reason}")
                self.result.add(Outcome(item, Status.IMPOSSIBLE, error=error))
            elif item.action not in MOVING and item.proven and not hooked:
                self.result.kept += 1
            elif item.archive:
                self._archives.append(item)
            else:
                (self._files if self._archives else self._tables).append(item)

    def __len__(self) -> int:
        return len(self._tables) + len(self._archives) + len(self._files)

    def take(self) -> Item | None:
        """The next item: tables first, then archives, few at a time, and everything else beside them."""
        with self._guard:
            if self._tables:
                return self._tables.popleft()
            if self._archives and self._unpacking < _ARCHIVES_AT_ONCE:
                self._unpacking += 1
                return self._archives.popleft()
            return self._files.popleft() if self._files else None

    def take_small(self, below: int) -> Item | None:
        """The next item, if it is one that comes whole in one answer of fewer than ``below`` bytes."""
        with self._guard:
            files = self._tables or (self._files if not self._archives else None)
            if not files or files[0].action is not Action.FETCH or (files[0].file.size or 0) >= below:
                return None
            return files.popleft()

    def give_back(self, item: Item) -> None:
        """An item that the run did not finish."""
        with self._guard:
            self._files.append(item)

    def settle(self, outcome: Outcome) -> bool:
        """Count ``outcome``; whether the run should end here, since the rest would fail the same way."""
        with self._guard:
            self.result.add(outcome)
            if outcome.item.archive:
                self._unpacking -= 1
            if outcome.error is None:
                self._refused = self._away = 0
                return False
            self._refused += isinstance(outcome.error, AccessError)
            self._away += isinstance(outcome.error, SourceUnreachableError)
            return isinstance(outcome.error, StorageError) or self._refused >= _REFUSALS or self._away >= _TIMES_AWAY
