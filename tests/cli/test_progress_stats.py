"""What progress counts: bytes of resumed and small files, rates over a window, time left that can be believed."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cxrprep.cli.log_file import RunLog
from cxrprep.cli.output import Output
from cxrprep.cli.progress import PlainLines
from cxrprep.cli.progress_bar import Live
from cxrprep.cli.progress_text import stage_state, standing
from cxrprep.errors import SourceUnreachableError
from cxrprep.events import (
    Advanced,
    Event,
    ItemFinished,
    ItemStarted,
    Note,
    Retrying,
    StageFinished,
    StageStarted,
    Stalled,
    Throttle,
)
from cxrprep.progress_stats import StageProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tally(clock: Clock, items: int | None = 10, size: int | None = 1000) -> StageProgress:
    counted = StageProgress("download", clock=clock)
    counted.add(StageStarted("download", items=items, size=size))
    return counted


def test_a_resumed_file_counts_what_it_has_but_not_as_speed(clock: Clock) -> None:
    counted = tally(clock)
    counted.add(ItemStarted("download", "a", size=500, offset=300))
    clock.now += 4
    counted.add(Advanced("download", "a", size=100))
    assert counted.bytes_here == 400
    assert counted.fraction == 0.4
    assert counted.rate == pytest.approx(25)
    assert counted.left == pytest.approx(24)


def test_a_small_file_that_comes_in_one_piece_is_counted_once(clock: Clock) -> None:
    counted = tally(clock)
    counted.add(ItemStarted("download", "a", size=200))
    counted.add(ItemFinished("download", "a", size=200))
    counted.add(ItemStarted("download", "b", size=300))
    counted.add(Advanced("download", "b", size=300))
    counted.add(ItemFinished("download", "b", size=300))
    assert (counted.bytes_here, counted.moved, counted.done) == (500, 500, 2)


def test_kept_and_failed_files_are_finished_too(clock: Clock) -> None:
    counted = tally(clock, items=3, size=None)
    counted.add(ItemFinished("download", "a", status="notneeded"))
    counted.add(ItemFinished("download", "b", status="error"))
    assert (counted.kept, counted.failed, counted.finished) == (1, 1, 2)
    # What failed is finished, and not reached: a line says 1 of 3 files, 1 failed.
    assert counted.fraction == pytest.approx(1 / 3)
    assert standing(counted).startswith("33 %, 1 of 3 files, 1 failed")


def test_an_image_that_was_checked_and_is_wrong_is_counted_once(clock: Clock) -> None:
    counted = tally(clock, items=4, size=None)
    for name in "abcd":
        counted.add(Advanced("verify", name, items=1))
        counted.add(ItemFinished("verify", name, status="error", counted=True))
    assert standing(counted).startswith("100 %, 4 of 4 files, 4 failed")
    assert stage_state(counted, wide=True)[:2] == ["4/4 files", "4 failed"]


def test_a_stage_that_goes_on_with_other_items_counts_them_from_the_first(clock: Clock) -> None:
    """Verify reads files, and then decodes images: it was at 54 of 50 images, 108 %."""
    counted = tally(clock, items=54)
    for number in range(54):
        counted.add(ItemFinished("download", f"{number}", "ok", size=10))
    clock.now += 9
    counted.add(StageStarted("download", items=50, unit="images"))
    assert (counted.reached, counted.fraction, counted.rate, counted.seconds) == (0, 0.0, None, 0.0)
    counted.add(ItemFinished("download", "a.png", "ok"))
    # A total that grows is no new beginning.
    counted.add(StageStarted("download", items=100, unit="images"))
    assert (counted.reached, counted.fraction) == (1, 0.01)


def test_totals_that_are_not_known_give_no_fraction_and_no_time_left(clock: Clock) -> None:
    counted = tally(clock, items=None, size=None)
    clock.now += 5
    counted.add(ItemFinished("download", "a"))
    assert counted.fraction is None
    assert counted.left is None


def test_no_rate_is_said_before_it_settles(clock: Clock) -> None:
    counted = tally(clock)
    counted.add(ItemStarted("download", "a", size=1000))
    clock.now += 0.5
    counted.add(Advanced("download", "a", size=100))
    assert counted.rate is None


def test_the_rate_falls_while_nothing_comes(clock: Clock) -> None:
    counted = tally(clock)
    counted.add(ItemStarted("download", "a", size=1000))
    for _ in range(10):
        clock.now += 1
        counted.add(Advanced("download", "a", size=50))
    before = counted.rate
    clock.now += 60
    assert before == pytest.approx(50)
    assert counted.rate is not None
    assert counted.rate < 10


def test_items_are_counted_where_bytes_are_not(clock: Clock) -> None:
    counted = tally(clock, items=100, size=None)
    for _ in range(10):
        clock.now += 1
        counted.add(Advanced("convert", items=5))
    assert counted.fraction == 0.5
    assert counted.rate == pytest.approx(5)
    assert counted.left == pytest.approx(10)


def test_what_workers_need_to_start_is_no_part_of_the_rate(clock: Clock) -> None:
    """Of four seconds of work 44 were left, since the first three images had come after three seconds."""
    counted = tally(clock, items=50, size=None)
    clock.now += 3
    for _ in range(11):
        counted.add(Advanced("verify", items=1))
        clock.now += 0.1
    assert counted.rate == pytest.approx(10, rel=0.1)
    assert counted.left == pytest.approx(3.9, rel=0.1)


def test_a_stall_is_over_when_bytes_come(clock: Clock) -> None:
    counted = tally(clock)
    counted.add(ItemStarted("download", "a", size=1000))
    counted.add(Stalled("download", "a", seconds=30, cause="waiting for physionet.org"))
    assert counted.active["a"].stalled
    counted.add(Advanced("download", "a", size=1))
    assert not counted.active["a"].stalled


_KEYS = st.sampled_from("abc")
_EVENTS = st.one_of(
    st.builds(ItemStarted, st.just("x"), _KEYS, st.none() | st.integers(0, 10**6), st.integers(0, 10**6)),
    st.builds(Advanced, st.just("x"), _KEYS, st.integers(0, 10**6), st.integers(0, 3)),
    st.builds(ItemFinished, st.just("x"), _KEYS, st.sampled_from(["ok", "notneeded", "error"]), st.integers(0, 10**6)),
)


@given(st.lists(_EVENTS, max_size=40), st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 100))
def test_any_order_of_events_gives_sane_numbers(events: list[Event], size: int | None, items: int | None) -> None:
    clock = Clock()
    counted = tally(clock, items=items, size=size)
    for event in events:
        clock.now += 0.7
        counted.add(event)
        assert counted.fraction is None or 0 <= counted.fraction <= 1
        assert counted.rate is None or counted.rate >= 0
        assert counted.left is None or counted.left >= 0


@pytest.mark.parametrize("cause", ["no answer from nihcc.app.box.com", "{}: https://nihcc.app.box.com/{} answered 503"])
def test_one_reason_for_many_files_is_said_once_and_counted(cause: str) -> None:
    stderr = io.StringIO()
    now = [0.0]
    with PlainLines(Output(stderr=stderr), clock=lambda: now[0]) as sink:
        sink(StageStarted("download", items=50))
        for number in range(50):
            now[0] += 1.0
            key = f"images/{number}.png"
            sink(Retrying("download", key, cause.replace("{}", key), number, 1.0))
    lines = stderr.getvalue().splitlines()
    assert sum("nihcc.app.box.com" in line for line in lines) == 1
    assert "images/0.png: images" not in lines[1]
    assert 1 <= sum("more tried again" in line for line in lines) <= 3
    assert len(lines) < 8


def test_one_reason_of_failures_is_said_once_though_it_names_each_file() -> None:
    stderr = io.StringIO()
    with PlainLines(Output(stderr=stderr)) as sink:
        sink(StageStarted("download", items=2))
        for key in ("a.png", "b.png"):
            sink(ItemFinished("download", key, "error", 0, f"{key}: https://mirror.example/{key} does not exist (404)"))
    assert "warning: a.png: https://mirror.example/a.png does not exist (404)" in stderr.getvalue()
    assert "warning: b.png: for the same reason" in stderr.getvalue()


def test_a_name_or_word_of_a_server_forges_no_line(tmp_path: Path) -> None:
    """A newline, a carriage return, a line separator, an escape sequence, a turn of direction: shown, not obeyed."""
    name = "a\n2026-11-29 12:00:00 download: done\rb\u2028c\x1b[2Jd\u202ee"
    events = (Note("download", f"odd {name}", "warning", name), ItemFinished("download", name, "error", 0, name))
    stderr, log = io.StringIO(), RunLog(["download"], file=tmp_path / "log")
    out = Output(stderr=stderr)
    error = out.raised(SourceUnreachableError(f"{name}: it answered 500", hint=name))
    with PlainLines(out) as sink, log:
        for event in (StageStarted("download", items=2), *events):
            sink(event)
            log(event)
    for text in (stderr.getvalue(), (tmp_path / "log").read_text()):
        assert not set(text) & set("\r\x1b\u2028\u202e")
        assert not any(line.startswith("2026-11-29 12:00:00 download: done") for line in text.splitlines())
    assert error == 6


@pytest.mark.parametrize("width", [60, 120])
def test_a_terminal_shows_the_stage_its_failures_and_the_large_files_at_work(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, height=20, color_system=None)
    with Live(Output(stderr=screen), console) as sink:
        sink(StageStarted("download", items=1204, size=200_000_000))
        sink(ItemStarted("download", "a[b]{c}.dcm", size=80_000_000))
        sink(ItemStarted("download", "small.csv", size=10))
        sink(Advanced("download", "a[b]{c}.dcm", size=40_000_000))
        sink(ItemFinished("download", "lost.csv", "error", detail="no answer"))
        sink(Stalled("download", "a[b]{c}.dcm", seconds=10, cause="waiting"))
        for _ in range(2000):
            if "stalled" in screen.getvalue().splitlines()[-1]:
                break
            time.sleep(0.01)
        shown = screen.getvalue()
        sink(Advanced("download", "a[b]{c}.dcm", size=159_999_999))
        sink(StageFinished("download", done=1203, failed=1))
    assert "lost.csv: no answer" in shown
    assert "20%" in shown
    assert "0/1,204 files · 1 failed" in shown
    assert ("40.0 MB/200 MB" in shown) == (width == 120)
    assert "a[b]{c}.dcm" in shown.splitlines()[-1]
    assert shown.splitlines()[-1].rstrip().endswith("stalled")
    assert "  small.csv" not in shown
    assert "100%" not in screen.getvalue()
    assert "download: 1,203 files, 1 failed" in screen.getvalue()


def test_a_file_that_cannot_be_continued_is_counted_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.events._EVERY_SECONDS", 0.0)
    tally = StageProgress("download", items=1, size=100)
    counted = Throttle("download", tally.add, "a", first=ItemStarted("download", "a", 100, 60))
    counted.advance(size=10)
    assert tally.percent == "70%"
    counted.restart(ItemStarted("download", "a", 100, 0))
    counted.advance(size=30)
    assert tally.percent == "30%"
