"""Downloader: threads that carry out a plan until nothing is left or it is stopped."""

from __future__ import annotations

import sys
import threading
import time
import urllib.parse
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.errors import CxrprepError
from cxrprep.events import ItemFinished, Note, Sink, StageFinished, StageStarted, Stalled, ignore
from cxrprep.planning.plan import Action, Plan
from cxrprep.sources.base import ReusesConnections, Source
from cxrprep.storage.locks import FolderLock, LockLost, RunId
from cxrprep.transfer.connection_limit import ConnectionLimit, ConnectionTuner
from cxrprep.transfer.file_fetch import Fetcher
from cxrprep.transfer.limits import IdleTimer, Rate, Stop, Stopped, check_space
from cxrprep.transfer.local_state import FolderState
from cxrprep.transfer.measured_rate import remember_rate
from cxrprep.transfer.partial_folder import PartialFolder
from cxrprep.transfer.queue import TransferQueue
from cxrprep.transfer.result import Outcome, OutcomeStatus, TransferResult
from cxrprep.transfer.retry import Retrier
from cxrprep.transfer.small_files import SmallFiles
from cxrprep.transfer.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cxrprep.datasets.layout import Layout
    from cxrprep.record.record import Record
    from cxrprep.transfer.options import TransferOptions

_BUFFER: Final = 1 << 18
# How often threads hand the interpreter on; Python's own is 5 ms. measured: 580 -> 750 files/s of 90 KB on `download`
# with 16 connections from this machine (`near` of benchmarks/connections.py, server and client on two busy cores,
# medians of 4 alternating runs); where the network is waited for it makes no difference.
_SWITCH_SECONDS: Final = 0.0005
_ANSWER_SECONDS: Final = 0.7
_MIXED_UP: Final = (
    "the server, or a proxy before it, sent answers to no request: {:,} files without a published "
    "checksum are fetched again, over a connection each"
)
# So long without a byte is worth a word; a connection is given up only later.
_STALL_SECONDS: Final = 10.0


@dataclass(slots=True, eq=False)
class Transfer:
    """One run on one folder. A context: holds the lock from entry to exit, so that plan and work see one state.

    Attributes:
        record: of the folder to fill.
        layout: says which image a path is of.
        options: connections, rate, retries and the like.
        on_event: gets notes and progress.
        on_complete: gets each file's release path and place as soon as it is recorded, files that were here already
            too, in the thread that worked on it; when it returns ``True`` the file has been used up, and is removed and
            recorded as discarded.
    """

    record: Record
    layout: Layout
    options: TransferOptions
    on_event: Sink = ignore
    on_complete: Callable[[str, Path], bool | None] | None = None
    partial_folder: PartialFolder = field(init=False)
    _stop: Stop = field(default_factory=Stop, init=False)
    _run_id: RunId = field(default_factory=RunId.new, init=False)
    _lock: FolderLock | None = field(init=False)
    _retrier: Retrier = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is written yet."""
        options = self.options
        self._lock = FolderLock(self.record.cache, self._run_id, options.shard) if options.folder_lock else None
        self.partial_folder = PartialFolder(self.record.root, self._run_id)

    def __enter__(self) -> Self:
        """Take the lock. Raises ``BusyError``."""
        if self._lock is not None and not self.options.planning:
            self._lock.__enter__()
        if not (self.options.planning or self.record.exists):
            # Something will be saved: while the mirror lists its files there is time.
            self.record.expect_save()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._run_id.end()
        if self._lock is not None:
            self._lock.__exit__(kind, error, trace)

    def local_state(self, *, same_mirror: bool = True) -> FolderState:
        """What is here, for ``make_plan``."""
        spent, wrong = self.options.spent, self.options.wrong
        return FolderState(self.record, self.partial_folder, same_mirror=same_mirror, spent=spent, wrong=wrong)

    def stop(self) -> None:
        """Ask the run to end soon and keep what it has; from any thread."""
        self._stop.set()

    def run(self, plan: Plan, source: Source) -> TransferResult:
        """Apply ``plan`` with the bytes of ``source``.

        Items that fail are in the result and do not stop the others; access refused again and again, a server that
        stays away, and a full disk do. Raises ``StorageError`` before the first byte when the disk is too small. On
        ``KeyboardInterrupt`` (or whatever a signal handler raises) partial files are kept, within a second.
        """
        with nullcontext() if self._lock is None or self._lock.held else self._lock:
            return self._run(plan, source)

    # ---- inside ----

    def _run(self, plan: Plan, source: Source) -> TransferResult:
        began = time.monotonic()
        moving = plan.moving()
        if moving.files:
            need = plan.disk_need(
                keep_archives=self.options.keep_archives,
                passing=self.options.passing,
                passing_at_once=self._connections(source),
            )
            check_space(self.record.root, need)
            self.partial_folder.clean()
            self.record.expect_save()
        work = TransferQueue(plan, hooked=self.on_complete is not None)
        size = moving.size if not moving.unsized else None
        self.on_event(StageStarted("download", moving.files, size))
        result = work.result
        try:
            if len(work):
                self._apply(plan, source, work)
        finally:
            result.left = len(work)
            result.seconds = time.monotonic() - began
            remember_rate(source.address, result.size, result.seconds)
            self.record.save()
        if self._lock is not None:
            self._lock.check_or_end()
        self.on_event(StageFinished("download", result.done, result.kept, result.failed, result.size, result.seconds))
        return result

    def _apply(self, plan: Plan, source: Source, work: TransferQueue) -> None:
        most = self._connections(source)
        fixed = self.options.connections is not None or not source.politeness.tuned
        limit = ConnectionLimit(most if fixed else ConnectionTuner.start(most), self._stop)
        tuner = ConnectionTuner(limit, most)
        rate, idle = Rate(self.options.limit_rate, self._stop), IdleTimer()
        self._retrier = retrier = Retrier(self.options.retry_policy, self._stop, self.on_event, refused=tuner.refused)
        fetcher = Fetcher(
            source, self.partial_folder, retrier=retrier, rate=rate, stop=self._stop, connection_limit=limit,
            idle_timer=idle, on_event=self.on_event, listing_origin=self.options.listing_origin,
            split_from=self.options.split_from,
        )  # fmt: skip
        worker = Worker(
            plan, source, fetcher, record=self.record, partial_folder=self.partial_folder, layout=self.layout,
            stop=self._stop, options=self.options, check=self._stop_if_lost, on_complete=self.on_complete,
            on_event=self.on_event,
        )  # fmt: skip
        switching = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            small = self._small_files(work, worker, limit, retrier, idle)
            self._work_off(work, worker, most, idle, tuner, small=small)
            if isinstance(source, ReusesConnections) and worker.unproven and not self._stop.asked:
                source.settle()
                again = [item for item, state in worker.unproven if state.dirty]
                worker.unproven.clear()
                if again:
                    self.on_event(Note("download", _MIXED_UP.format(len(again)), "warning", source.address))
                    work.take_back(again)
                    self._work_off(work, worker, most, idle, tuner)
        finally:
            sys.setswitchinterval(switching)
        if worker.spared:
            what = worker.spared[0] if len(worker.spared) == 1 else f"{len(worker.spared):,} files"
            message = f"kept, since the record does not say that cxrprep fetched it: {what}"
            self.on_event(Note("download", message, "warning", worker.spared[0]))

    def _small_files(
        self, work: TransferQueue, worker: Worker, limit: ConnectionLimit, retrier: Retrier, idle: IdleTimer
    ) -> SmallFiles | None:
        """What fetches small files in one thread, where the source can do that, and nobody waits for each file."""
        source = worker.source
        if self.on_complete is not None or self.options.limit_rate is not None:
            return None
        # Of web servers alone; a class to ask for would load libcurl for folders too.
        requests = getattr(source, "requests", lambda: None)()
        if requests is None:
            return None
        return SmallFiles(
            worker, requests, take=work.take_file, hand_on=work.hand_on,
            settle=lambda outcome: self._settle(work, outcome), await_first=lambda: work.await_first(self._stop),
            connection_limit=limit, retrier=retrier, idle_timer=idle, stop=self._stop,
        )  # fmt: skip

    def _work_off(
        self,
        work: TransferQueue,
        worker: Worker,
        most: int,
        idle: IdleTimer,
        tuner: ConnectionTuner,
        *,
        small: SmallFiles | None = None,
    ) -> None:
        """Let threads work until nothing is left, and watch them."""
        source = worker.source
        finished = threading.Semaphore(0)
        threads: list[threading.Thread] = []

        def engage(target: Callable[[], None]) -> None:
            name = f"transfer-{len(threads)}"
            threads.append(
                threading.Thread(target=self._guarded, args=(target, work, finished), name=name, daemon=True)
            )
            threads[-1].start()

        def another() -> None:
            if len(threads) <= most:
                engage(lambda: self._serve(worker, work))

        try:
            if small is not None:
                work.sort(another)
                engage(lambda: self._fetch_small(small, work))
            for _ in range(min(most, work.for_threads)):
                another()
            due = _STALL_SECONDS
            for _ in threads:
                # In slices: a bare wait would hold signals up on some systems.
                while not finished.acquire(timeout=0.2):
                    due = self._watch(idle.idle_seconds, due, source)
                    if len(work):
                        tuner.adjust(idle.moved)
        except BaseException:
            self._stop.set()
            source.close()
            deadline = time.monotonic() + _ANSWER_SECONDS
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
            raise
        if work.bug is not None:
            raise work.bug

    def _stop_if_lost(self) -> None:
        """Raise ``Stopped`` where another run has taken the folder while this one was suspended: it is to end."""
        try:
            if self._lock is not None:
                self._lock.check()
        except LockLost:
            self._stop.set()
            raise Stopped from None

    def _connections(self, source: Source) -> int:
        return max(self.options.connections or source.politeness.connections, 1)

    def _halted(self) -> bool:
        return self._stop.asked

    def _watch(self, idle_seconds: float, due: float, source: Source) -> float:
        """Say that nothing comes, after ``due`` seconds and then each time twice as late; when to say it next."""
        if idle_seconds < _STALL_SECONDS:
            return _STALL_SECONDS
        if idle_seconds < due or self._retrier.is_away:
            return due
        address = urllib.parse.urlsplit(source.address)
        # box://nihcc names no host, but what the mirror is called.
        host = address.netloc if address.scheme in ("http", "https") else source.address
        cause = f"waiting for {host}; a connection that stays silent is given up and tried again"
        self.on_event(Stalled("download", "", idle_seconds, cause))
        return 2 * idle_seconds

    def _serve(self, worker: Worker, work: TransferQueue) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        while not self._stop.asked and (item := work.take()) is not None:
            try:
                outcome = worker.work(item, buffer)
            except Stopped:
                work.give_back(item)
                return
            except CxrprepError as error:
                if self._halted():
                    # The connections were closed under it: it has not failed, it was interrupted.
                    work.give_back(item)
                    return
                outcome = Outcome(item, OutcomeStatus.ERROR, error=error)
            self._settle(work, outcome)

    @staticmethod
    def _fetch_small(small: SmallFiles, work: TransferQueue) -> None:
        try:
            small.run()
        finally:
            work.unsort()

    def _settle(self, work: TransferQueue, outcome: Outcome) -> None:
        item = outcome.item
        if work.settle(outcome):
            self._stop.set()
        if item.action is not Action.KEEP or outcome.status is OutcomeStatus.ERROR:
            detail = outcome.error.message if outcome.error is not None else ""
            self.on_event(ItemFinished("download", item.dest, str(outcome.status), outcome.size, detail))

    def _guarded(self, target: Callable[[], None], work: TransferQueue, finished: threading.Semaphore) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001  # a bug: raised again by the thread that waits
            work.bug = error
            self._stop.set()
        finally:
            finished.release()
