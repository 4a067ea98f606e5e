"""A stall is named while it lasts, and an interrupted run calls nothing failed that was only interrupted."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrprep
from cxrprep.api.download_context import FetchOptions
from cxrprep.events import Event, ItemFinished, Stalled
from cxrprep.model import RemoteFile
from cxrprep.record.record import Record
from cxrprep.sources.http import HttpSource
from cxrprep.transfer.limits import IdleTimer
from tests.soak import faults
from tests.soak.faults import OBJECT, Mirror, serving


def test_silence_counts_only_while_somebody_waits() -> None:
    now = [100.0]
    idle_timer = IdleTimer(lambda: now[0])
    now[0] += 50
    assert idle_timer.idle_seconds == 0
    with idle_timer:
        now[0] += 7
        assert idle_timer.idle_seconds == 7
        idle_timer.bytes_arrived()
        with idle_timer:
            now[0] += 3
        assert idle_timer.idle_seconds == 0
        now[0] += 2
        assert idle_timer.idle_seconds == 2
    assert idle_timer.idle_seconds == 0


def test_what_the_record_is_written_with_is_loaded_while_the_mirror_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading: list[str] = []
    monkeypatch.setattr(Record, "expect_save", lambda record: loading.append("record"))

    def listed(source: HttpSource, prefix: str = "") -> Iterator[RemoteFile]:
        loading.append("listing")
        yield RemoteFile(OBJECT, 3)

    monkeypatch.setattr(HttpSource, "list", listed)
    with serving(Mirror(b"abc", [faults.honest])) as port:
        address = f"http://127.0.0.1:{port}/mirror/"
        cxrprep.plan("nih-chestxray14", tmp_path / "root", source=address)
        assert loading == ["listing"], "a plan alone writes no record"
        cxrprep.download("nih-chestxray14", tmp_path / "root", source=address)
    assert loading[1:3] == ["record", "listing"]


def test_a_stall_names_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.transfer.downloader._STALL_SECONDS", 0.3)
    seen: list[Event] = []
    body = b"x" * 300_000
    with serving(Mirror(body, [faults.stall(100_000), faults.honest])) as port:
        address = f"http://127.0.0.1:{port}/mirror/"
        options = FetchOptions(timeout=1.5)
        cxrprep.download("nih-chestxray14", tmp_path / "root", source=address, options=options, on_event=seen.append)
    stalls = [event for event in seen if isinstance(event, Stalled)]
    assert stalls
    assert f"127.0.0.1:{port}" in stalls[0].cause
    # Said ever more rarely, not at each look: within one silence each word waits twice as long as the one before.
    for before, after in itertools.pairwise(stalls):
        assert after.seconds < before.seconds or after.seconds >= before.seconds * 1.3
    assert (tmp_path / "root" / OBJECT).read_bytes() == body


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell ignores interrupts for what it starts in the background, and Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_an_interrupt_cut_off_is_not_called_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The signal comes while the main thread waits and a connection is silent: the thread that waits says the stall.
    monkeypatch.setattr("cxrprep.transfer.downloader._STALL_SECONDS", 0.3)
    seen: list[Event] = []

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Stalled) and threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)

    with (
        serving(Mirror(b"x" * 3_000_000, [faults.stall(1_000_000)])) as port,
        pytest.raises(KeyboardInterrupt),
    ):
        cxrprep.download("nih-chestxray14", tmp_path / "root", source=f"http://127.0.0.1:{port}/mirror/", on_event=sink)
    assert any(isinstance(event, Stalled) for event in seen)
    assert not [event for event in seen if isinstance(event, ItemFinished) and event.status == "error"]
