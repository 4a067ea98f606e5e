"""Fetch of one file: resumed where that is safe, verified before it gets its final name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cxrprep.datasets.own_folder import SUFFIXES
from cxrprep.digests import Hasher, finished, new_hasher
from cxrprep.errors import IntegrityError, SourceUnreachableError
from cxrprep.events import Note, Sink
from cxrprep.model import Digest, RemoteFile
from cxrprep.record.entry import Origin
from cxrprep.sources.network_errors import FEW_TRIES, NotConnectedError
from cxrprep.transfer.limits import ByteCounter, IdleTimer, Rate, Stop
from cxrprep.transfer.partial_file import Partial, Segment
from cxrprep.transfer.range_fetch import WORTH, SegmentedFetch, SplitRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.planning.plan import Item
    from cxrprep.sources.base import ByteStream, ConnectionState, Source
    from cxrprep.transfer.connection_limit import ConnectionLimit
    from cxrprep.transfer.partial_folder import PartialFolder
    from cxrprep.transfer.retry import Retrier

# Below this a second connection costs more than it brings.
SPLIT_FROM: Final = 64 * 1024 * 1024
# So often a server that breaks off, or says nothing, is asked for the rest of a file; then it is asked for all of it.
_ASKED_FOR_THE_REST: Final = 6
# What is computed where nobody states a digest.
OWN_ALGORITHM: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file under its final name: its size and digest, whose digest that is, and how many bytes moved for it.

    ``came_over`` is the connection, where nothing that the mirror listed proves the bytes.
    """

    size: int
    digest: Digest
    origin: Origin
    validator: str | None
    moved: int
    came_over: ConnectionState | None = None
    mtime_ns: int | None = None


@dataclass(slots=True)
class _Way:
    """What is known while a file is on its way: the expected digest, the one in the making, and of how many bytes.

    ``length`` is what the mirror says of the whole with its answer.
    """

    expected: Digest | None = None
    length: int | None = None
    origin: Origin = Origin.FIRST_READ
    algorithm: str = OWN_ALGORITHM
    hasher: Hasher | None = None
    hashed: int = 0
    digest: Digest | None = None
    came_over: ConnectionState | None = None
    unanswered: int = 0


@dataclass(slots=True, eq=False)
class Fetcher:
    """Fetches files from one source; used by many threads at once.

    Attributes:
        source: opens files at an offset.
        partial_folder: where files are written before they have their name.
        retrier: tries again.
        rate: bytes per second of all together.
        stop: ends everything.
        connection_limit: connections that may be open at once.
        idle_timer: learns when bytes arrive.
        on_event: gets notes and progress.
        listing_origin: whose digests the listing holds.
        split_from: bytes from which on a file comes over several connections.
    """

    source: Source
    partial_folder: PartialFolder
    retrier: Retrier
    rate: Rate
    stop: Stop
    connection_limit: ConnectionLimit
    idle_timer: IdleTimer
    on_event: Sink
    listing_origin: Origin = Origin.PUBLISHED
    split_from: int = SPLIT_FROM

    def counter(self, item: Item, have: int = 0) -> ByteCounter:
        """Counts the bytes of ``item``, of which ``have`` are here, and waits where they come too fast."""
        return ByteCounter(
            item.dest, item.file.size, have,
            rate=self.rate, stop=self.stop, idle_timer=self.idle_timer, on_event=self.on_event,
        )  # fmt: skip

    def fetch(
        self, item: Item, final: str, buffer: memoryview, *, note: Callable[[Fetched], None] | None = None
    ) -> Fetched:
        """Fetch ``item`` to ``final``. Bytes with a wrong digest are kept aside, and fetched anew once.

        What came before an error is kept when it is worth continuing.

        Args:
            item: Of the plan.
            final: Its place.
            buffer: For the bytes on their way.
            note: Told what came right before it gets its name.

        Returns:
            What came.

        Raises:
            CxrprepError: What sources raise; ``IntegrityError`` for wrong bytes; ``StorageError``.
            Stopped: The run is to end.
        """
        moved = 0
        for last in (False, True):
            partial = self.partial_folder.open(item.dest)
            byte_counter = self.counter(item, partial.done)
            try:
                with self.idle_timer:
                    way = self._bring(item, partial, byte_counter, buffer)
                wrong = self._judge(item, partial.done, way)
                if not wrong:
                    return self._publish(item, partial, way, final, moved=moved + byte_counter.moved, note=note)
            except BaseException:
                partial.leave()
                raise
            finally:
                byte_counter.close()
            moved += byte_counter.moved
            aside = self.partial_folder.aside(item.dest)
            partial.set_aside(aside)
            if last:
                raise IntegrityError(
                    f"{item.dest}: {wrong}, twice",
                    hint=f"the bytes are kept in {aside}; ask whoever publishes the mirror",
                )
            self.on_event(Note("download", f"{wrong}; kept as {aside}, fetching it again", "warning", item.dest))
        raise AssertionError("the second round returns or raises")

    @staticmethod
    def _publish(
        item: Item, partial: Partial, way: _Way, final: str, *, moved: int, note: Callable[[Fetched], None] | None
    ) -> Fetched:
        assert way.digest is not None
        validator = item.file.validator or partial.validator
        got = Fetched(partial.done, way.digest, way.origin, validator, moved, way.came_over, partial.mtime_ns)
        if note is not None:
            note(got)
        partial.publish(final)
        return got

    def _bring(self, item: Item, partial: Partial, byte_counter: ByteCounter, buffer: memoryview) -> _Way:
        """Bring all bytes of ``item`` into ``partial``, in one stream or in several ranges."""
        size = item.file.size
        if self.source.politeness.ranges > 1 and size is not None and size >= self.split_from:
            split = SegmentedFetch(
                self.source, item, partial, byte_counter,
                retrier=self.retrier, stop=self.stop, connection_limit=self.connection_limit,
            )  # fmt: skip
            try:
                with self.connection_limit:
                    way = self._expect(item, _Way(), split.begin())
                    way.digest = split.run(way.algorithm)
            except SplitRefused:
                partial.restart()
                byte_counter.restart()
            else:
                return way
        if len(partial.segments) != 1 or partial.segments[0].end is not None:
            partial.restart()
            byte_counter.restart()
        way = _Way()

        def attempt() -> None:
            while not self._stream(item, partial, way, byte_counter, buffer):
                pass

        self.retrier.run(attempt, lambda: partial.done, item.dest)
        assert way.hasher is not None
        way.digest = finished(way.algorithm, way.hasher)
        return way

    def _expect(self, item: Item, way: _Way, stated: Digest | None) -> _Way:
        """Settle which digest the bytes must have and which algorithm computes it. ``stated`` came with the answer."""
        if item.file.digest is not None:
            way.expected, way.origin = item.file.digest, self.listing_origin
        elif stated is not None:
            way.expected, way.origin = stated, Origin.TRANSPORT
        else:
            way.expected, way.origin = None, Origin.FIRST_READ
        algorithm = OWN_ALGORITHM if way.expected is None else way.expected.algorithm
        if algorithm != way.algorithm:
            way.algorithm, way.hasher = algorithm, None
        return way

    def _stream(self, item: Item, partial: Partial, way: _Way, byte_counter: ByteCounter, buffer: memoryview) -> bool:
        """One request: continue at the offset reached so far, or start again where that would not be safe.

        Whether the file is whole: some servers send no more than so much at once.
        """
        segment = partial.segments[0]
        with self.connection_limit:
            self.stop.check()
            offset = 0 if way.unanswered >= _ASKED_FOR_THE_REST else segment.done
            try:
                stream = self.retrier.ask(lambda: self.source.open(item.file, offset))
            except SourceUnreachableError as error:
                away = isinstance(error, NotConnectedError) or error.overloaded
                way.unanswered += 1 if offset and not away else 0
                raise
            way.unanswered = 0
            if segment.done and not _continues(partial, stream, segment.done, item.file):
                if stream.offset or partial.size not in (None, stream.length):
                    # Of another length than before, what came may be the rest alone, without a word of that.
                    stream.close()
                    stream = self.source.open(item.file, 0)
                partial.restart([Segment(0, None)])
                byte_counter.restart()
                segment = partial.segments[0]
            with stream:
                if stream.offset != segment.done:
                    raise SourceUnreachableError(
                        f"{item.dest}: the mirror sent bytes from {stream.offset} where {segment.done} was asked for",
                        hint="run again",
                    )
                stated = stream.digest
                if stated is None and segment.done and partial.digest is not None:
                    # Stated with the first answer; those to a Range leave it out.
                    stated = Digest.parse(partial.digest)
                self._expect(item, way, stated)
                partial.identify(stream.validator, stream.length, way.expected)
                if way.hasher is None or way.hashed != segment.done:
                    self._hash_again(partial, way, segment.done, buffer)
                if item.file.digest is None and (stream.validator is None or stream.validator != item.file.validator):
                    way.came_over = getattr(stream, "came_over", None)
                if stream.offset == 0:
                    self._follow(item, stream)
                packed = getattr(stream, "packed_size", None) is not None
                size = None if packed else item.file.size
                way.length = None if packed else stream.length
                whole = self._copy(stream, partial, way, size, counter=byte_counter, buffer=buffer)
                if whole and packed and item.file.size == stream.packed_size:  # type: ignore[attr-defined]  # seen above
                    # S3 lists the size of an object as it is stored, compressed: all of that came.
                    item.file = dataclasses.replace(item.file, size=None)
                return whole

    def _follow(self, item: Item, stream: ByteStream) -> None:
        """Take the mirror's word for a file that it replaced since it was listed, where nothing is published of it."""
        listed, now = item.file.validator, stream.validator
        if item.file.digest is None and listed is not None and now is not None and listed != now:
            item.file = dataclasses.replace(item.file, size=stream.length, validator=now)
            self.on_event(Note("download", "the mirror replaced it since it was listed", "info", item.dest))

    def _copy(
        self,
        stream: ByteStream,
        partial: Partial,
        way: _Way,
        size: int | None,
        *,
        counter: ByteCounter,
        buffer: memoryview,
    ) -> bool:
        """Bring the stream to its end. ``size`` is what the listing says.

        ``False`` for a range of some length that ended as the server said; raises for a body that is too short.
        """
        segment, hasher = partial.segments[0], way.hasher
        assert hasher is not None
        piece = self.rate.piece
        target = buffer if piece is None else buffer[:piece]
        while count := stream.readinto(target):
            data = target[:count]
            partial.write(segment, data)
            hasher.update(data)
            way.hashed = segment.done
            counter.add(count)
            partial.checkpoint()
            if size is not None and way.expected is None and segment.done > size:
                # Wrong already, and who knows how long it goes on.
                break
        whole = max(stream.length or 0, size or 0)
        if segment.done < (stream.length or 0) and stream.offset and segment.done - stream.offset >= WORTH:
            return False
        if segment.done < whole and (way.expected is None or finished(way.algorithm, hasher) != way.expected):
            raise SourceUnreachableError(
                f"{partial.dest}: the mirror sent {segment.done} of {whole} bytes",
                hint="run again",
                # All that the server says it has came: nothing broke off.
                tries=FEW_TRIES if segment.done == stream.length else None,
            )
        return True

    def _hash_again(self, partial: Partial, way: _Way, size: int, buffer: memoryview) -> None:
        """Digest what an earlier attempt left."""
        way.hasher, way.hashed = new_hasher(way.algorithm), 0
        while way.hashed < size:
            self.stop.check()
            count = partial.read(buffer[: min(len(buffer), size - way.hashed)], way.hashed)
            if count == 0:
                raise IntegrityError(f"{partial.path} is shorter than it was", hint="run again")
            way.hasher.update(buffer[:count])
            way.hashed += count

    @staticmethod
    def _judge(item: Item, size: int, way: _Way) -> str:
        """What is wrong with the bytes that came, or ``""``."""
        if way.expected is not None:
            return "" if way.digest == way.expected else f"has {way.digest}, stated is {way.expected}"
        stated = way.length if item.file.size is None else item.file.size
        if stated not in (None, size):
            return f"has {size} bytes, stated are {stated}"
        if not size and item.dest.lower().endswith(SUFFIXES):
            return "is empty, as no image is"
        return ""


def _continues(partial: Partial, stream: ByteStream, offset: int, file: RemoteFile) -> bool:
    """Whether the bytes of a stream belong behind those of a partial file: same offset, same content, same length.

    A published digest that has not changed stands for the content, since it is checked in the end: the nodes behind one
    address may give the same bytes different validators. ``offset`` is where the server was asked to begin, in bytes.
    """
    if stream.offset != offset or partial.size not in (None, stream.length):
        return False
    if file.digest is not None and str(file.digest) == partial.digest and stream.length is not None:
        return True
    if stream.validator is not None or partial.validator is not None:
        return stream.validator == partial.validator
    return file.digest is not None and str(file.digest) == partial.digest
