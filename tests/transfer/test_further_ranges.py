"""Ranges of one large file: further connections join once no other file needs them."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import pytest

from cxrprep.events import ignore
from cxrprep.model import RemoteFile
from cxrprep.planning.plan import Action, Item
from cxrprep.sources.base import Body, ByteStream, Politeness
from cxrprep.transfer import range_fetch
from cxrprep.transfer.connection_limit import ConnectionLimit
from cxrprep.transfer.limits import ByteCounter, IdleTimer, Rate, Stop
from cxrprep.transfer.partial_file import Partial
from cxrprep.transfer.range_fetch import SegmentedFetch
from cxrprep.transfer.retry import Retrier
from tests.transfer.runs import QUICK, image, noise

OBJECT = image(7)


class _Slow:
    """A source whose first stream waits until another range was asked for, once others may be."""

    address, politeness = "slow", Politeness(ranges=4)

    def __init__(self, data: bytes, limit: ConnectionLimit) -> None:
        self.data, self.limit = data, limit
        self.threads: set[str] = set()
        self.joined = threading.Event()

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        self.threads.add(threading.current_thread().name)
        if len(self.threads) > 1:
            self.joined.set()
        return _Waits(self, offset, end)


class _Waits(Body):
    def __init__(self, source: _Slow, offset: int, end: int | None) -> None:
        self._source, self.offset = source, offset
        self.length, self.validator, self.digest = len(source.data), '"a"', None
        self._left = io.BytesIO(source.data[offset:end])

    def readinto(self, buffer: memoryview) -> int:
        self._source.limit.resize(4)
        self._source.joined.wait(3)
        return self._left.readinto(buffer)

    def close(self) -> None:
        self._left.close()


def test_further_ranges_join_when_connections_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other files had all connections at the beginning, the last large one had a single one to its end."""
    monkeypatch.setattr(range_fetch, "_SMALLEST", 1 << 20)
    monkeypatch.setattr(range_fetch, "_ALONE_SECONDS", 0.01)
    stop, data = Stop(), noise(6_000_000)
    limit = ConnectionLimit(1, stop)
    source = _Slow(data, limit)
    item = Item(RemoteFile(OBJECT, len(data)), OBJECT, Action.FETCH)
    counter = ByteCounter(OBJECT, None, 0, rate=Rate(None, stop), stop=stop, idle_timer=IdleTimer(), on_event=ignore)
    partial = Partial(OBJECT, str(tmp_path / "part"), fresh=True)
    retrier = Retrier(QUICK, stop, ignore)
    with limit:
        fetch = SegmentedFetch(source, item, partial, counter, retrier, stop, limit)  # type: ignore[arg-type]
        fetch.begin()
        digest = fetch.run("md5")
    assert digest.value == hashlib.md5(data).hexdigest()
    assert len(source.threads) > 1
    assert not limit.wanted
    partial.close()
