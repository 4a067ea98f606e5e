"""Range requests: a large file over several connections, each range resumable, digested in order."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from cxrprep.digests import finished, new_hasher
from cxrprep.errors import SourceUnreachableError
from cxrprep.transfer.limits import ByteCounter, Stop, Stopped
from cxrprep.transfer.partial_file import Partial, Segment

if TYPE_CHECKING:
    from cxrprep.model import Digest
    from cxrprep.planning.plan import Item
    from cxrprep.sources.base import ByteStream, Source
    from cxrprep.transfer.connection_limit import ConnectionLimit
    from cxrprep.transfer.retry import Retrier

_ALIGN: Final = 1024 * 1024
_SMALLEST: Final = 16 * _ALIGN
_LARGEST: Final = 256 * _ALIGN
_BUFFER: Final = 1024 * 1024
_LOOK_SECONDS: Final = 0.05
# The first connection is alone for so long. If it brings so many bytes a second by then it fills the line, and others
# would only take processor time from it. measured: 2.9 -> 2.4 s of CPU time for 1 GB over TLS from this machine.
_ALONE_SECONDS: Final = 0.4
_FAST: Final = 200_000_000
# A range of so many bytes that ended as the server said is followed by the next one at once.
WORTH: Final = 1 << 16


class SplitRefused(Exception):  # noqa: N818  # a fact about the server
    """The server sends whole files only, or another file than before: one stream from the start is the way."""


def cut(size: int, ranges: int, start: int = 0) -> list[Segment]:
    """Segments from ``start`` to ``size``: some for each connection, none too small to be worth a request.

    They are worked on in order, so that the digest can follow close behind.
    """
    step = min(max(size // (ranges * 4), _SMALLEST), _LARGEST) // _ALIGN * _ALIGN
    segments = [Segment(0, start, start)] if start else []
    segments += [Segment(at, min(at + step, size)) for at in range(start, size, step)]
    return segments


@dataclass(slots=True, eq=False)
class SegmentedFetch:
    """The fetch of one large file. ``begin`` asks whether the server plays along, ``run`` does it.

    Attributes:
        source: opens the file at an offset.
        item: the file to fetch, of a size that is known.
        partial: where its bytes go.
        byte_counter: counts them.
        retrier: tries again, each segment for itself.
        stop: ends everything.
        connection_limit: connections that may be open at once; the caller holds one.
    """

    source: Source
    item: Item
    partial: Partial
    byte_counter: ByteCounter
    retrier: Retrier
    stop: Stop
    connection_limit: ConnectionLimit
    _open: Segment | None = field(default=None, init=False)
    _first: ByteStream | None = field(default=None, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _failures: list[BaseException] = field(default_factory=list, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _alone_over: threading.Event = field(default_factory=threading.Event, init=False)
    _taken: threading.Event = field(default_factory=threading.Event, init=False)
    _follower: _Follower | None = field(default=None, init=False)
    _size: int = field(init=False)
    _ranges: int = field(init=False)

    def __post_init__(self) -> None:
        """What each request is asked."""
        assert self.item.file.size is not None
        self._size, self._ranges = self.item.file.size, self.source.politeness.ranges

    def begin(self) -> Digest | None:
        """Open the first range; the digest that the server states, if any. Raises ``SplitRefused``."""
        partial = self.partial
        if partial.done and partial.size == self._size and partial.validator is not None:
            last = partial.segments[-1]
            if last.end is None:
                partial.segments = [*partial.segments[:-1], *cut(self._size, self._ranges, last.position)]
        else:
            if partial.done:
                partial.restart()
            partial.segments = cut(self._size, self._ranges)
        if all(segment.complete for segment in partial.segments):
            return None
        segment = next(s for s in partial.segments if not s.complete)
        had = partial.done > 0
        digest = self.retrier.run(lambda: self._probe(segment, had=had), lambda: 0, self.item.dest)
        self._open = segment
        return digest

    def run(self, algorithm: str) -> Digest:
        """Fetch every segment; the digest of the whole. Raises what sources raise, ``StorageError``, ``Stopped``."""
        self._follower = follower = _Follower(self.partial, algorithm, self._over, self.stop)
        todo = iter([s for s in self.partial.segments if not s.complete])
        helpers = [
            threading.Thread(target=self._help, args=(todo,), name=f"range-{number}", daemon=True)
            for number in range(1, self._ranges)
        ]
        for thread in (follower, *helpers):
            thread.start()
        try:
            self._work(todo, [memoryview(bytearray(_BUFFER))])
        finally:
            self._alone_over.set()
            self._taken.set()
            if self._first is not None:
                self._first.close()
            for thread in helpers:
                thread.join()
            self._over.set()
            follower.join()
        if self._failures:
            raise self._failures[0]
        self.stop.check()
        return follower.result()

    # ---- inside ----

    def _probe(self, segment: Segment, *, had: bool) -> Digest | None:
        partial = self.partial
        stream = self.source.open(self.item.file, segment.position, segment.end)
        same = stream.offset == segment.position and stream.length == self._size and stream.validator is not None
        if not same or (had and not self._same_content(stream.validator)):
            stream.close()
            raise SplitRefused
        partial.identify(stream.validator, stream.length, self.item.file.digest or stream.digest)
        self._first = stream
        return stream.digest

    def _same_content(self, validator: str | None) -> bool:
        """Whether a range belongs to the others: by the server's validator, or since a published digest judges all."""
        digest = self.item.file.digest
        return validator == self.partial.validator or (digest is not None and str(digest) == self.partial.digest)

    def _help(self, todo: object) -> None:
        had = self.partial.done
        self._alone_over.wait(_ALONE_SECONDS)
        if self.partial.done - had >= _FAST * _ALONE_SECONDS:
            return
        # The caller holds the first slot; others join as slots are free, which no file waits for.
        while not self.connection_limit.acquire(blocking=False):
            if self._taken.wait(_LOOK_SECONDS):
                return
        try:
            self._alone_over.set()
            self._work(todo, [memoryview(bytearray(_BUFFER))])
        finally:
            self.connection_limit.release()

    def _work(self, todo: object, room: list[memoryview]) -> None:
        """Fetch what is to do; ``room`` holds the buffer, which may be exchanged for another one."""
        try:
            while not self._failures:
                with self._guard:
                    segment = next(todo, None)  # type: ignore[call-overload]  # an iterator over segments
                if segment is None:
                    return
                self._fetch_with_retries(segment, room)
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for all
            self._failures.append(error)

    def _fetch_with_retries(self, segment: Segment, room: list[memoryview]) -> None:
        def attempt() -> None:
            while not segment.complete:
                self._segment(segment, room)

        self.retrier.run(attempt, lambda: segment.done, self.item.dest)

    def _segment(self, segment: Segment, room: list[memoryview]) -> None:
        """One request for what is left of a segment, of which some servers send no more than so much at once."""
        began = segment.done
        with self._guard:
            stream, self._first = (self._first, None) if segment is self._open else (None, self._first)
            self._open = None if segment is self._open else self._open
        if stream is None:
            stream = self.source.open(self.item.file, segment.position, segment.end)
        with stream:
            if (
                stream.offset != segment.position
                or stream.length != self._size
                or not self._same_content(stream.validator)
            ):
                raise SplitRefused
            assert segment.end is not None
            while not segment.complete:
                if self._failures:
                    raise Stopped
                buffer = room[0]
                count = stream.readinto(buffer[: min(len(buffer), segment.end - segment.position)])
                if count == 0 and segment.done - began >= WORTH:
                    return
                if count == 0:
                    raise SourceUnreachableError(
                        f"{self.item.dest}: a range ended {segment.end - segment.position} bytes early",
                        hint="run again",
                    )
                self.partial.write(segment, buffer[:count])
                if self._follower is not None and not self._alone_over.is_set():
                    room[0] = self._follower.take(buffer, count, segment.position - count)
                self.byte_counter.add(count)
                self.partial.checkpoint()


class _Follower(threading.Thread):
    """Digests the file from its start: what it is handed, and what was written, while the system's cache has it."""

    def __init__(self, partial: Partial, algorithm: str, over: threading.Event, stop: Stop) -> None:
        super().__init__(name="digest", daemon=True)
        self._partial = partial
        self._algorithm = algorithm
        self._over = over
        self._halt = stop
        self._hasher = new_hasher(algorithm)
        self._failure: BaseException | None = None
        self._handed: SimpleQueue[tuple[memoryview, int, int]] = SimpleQueue()
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._free.put(memoryview(bytearray(_BUFFER)))
        self._ended = False

    def take(self, buffer: memoryview, count: int, position: int) -> memoryview:
        """Digest the first ``count`` bytes of ``buffer``, those of the file at ``position``; what may be filled next.

        For one thread alone.
        """
        if self._ended:
            return buffer
        self._handed.put((buffer, count, position))
        return self._free.get() or buffer

    def run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for the digest
            self._failure = error
        self._ended = True
        self._free.put(None)

    def result(self) -> Digest:
        """The digest. Raises what went wrong."""
        if self._failure is not None:
            raise self._failure
        return finished(self._algorithm, self._hasher)

    def _follow(self) -> None:
        own = memoryview(bytearray(_BUFFER))
        position = 0
        for segment in self._partial.segments:
            assert segment.end is not None
            while position < segment.end and not self._halt.asked:
                over = self._over.is_set()
                ready = segment.position - position
                if over and not ready:
                    return
                with suppress(Empty):
                    # What was written last may be handed over in a moment.
                    wait = 0 if over or ready > _BUFFER else _LOOK_SECONDS
                    buffer, count, at = self._handed.get(timeout=wait)
                    if follows := at == position:
                        self._hasher.update(buffer[:count])
                        position += count
                    self._free.put(buffer)
                    if follows:
                        continue
                if not ready:
                    continue
                count = self._partial.read(own[: min(len(own), ready)], position)
                if count == 0:
                    raise SourceUnreachableError(f"{self._partial.path} is shorter than what was written to it")
                self._hasher.update(own[:count])
                position += count
