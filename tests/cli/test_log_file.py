"""Log file of a run: what is written of many failures with one reason."""

from __future__ import annotations

from pathlib import Path

from cxrprep.cli.log_file import RunLog
from cxrprep.events import Retrying, StageFinished, StageStarted


def test_the_same_reason_is_written_some_times_and_then_counted(tmp_path: Path) -> None:
    with RunLog(["download"], file=tmp_path / "run.log") as log:
        log(StageStarted("download", 1_000))
        for number in range(1_000):
            log(Retrying("download", f"images/{number}.png", "box.com answered 503", 1, 1.0))
        log(Retrying("download", "images/1.png", "no connection", 1, 1.0))
        log(StageFinished("download", 1_000, 0))
    text = (tmp_path / "run.log").read_text()
    assert text.count("; attempt 2 in") == 21
    assert "retry: box.com answered 503: 980 times more" in text
    assert "no connection" in text
