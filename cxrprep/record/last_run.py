"""The last run of each verb at a folder, unless it is done: whether it still runs, how far it is, and how it failed.

A run has a file in ``.cxrprep/runs`` from its start, which it writes anew every two seconds and removes when it is
done: one that is left tells of a run that goes on, was killed, or failed. Only ``status`` reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from cxrprep.credentials.secret import mask_urls
from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.events import Event, Sink, StageStarted
from cxrprep.progress_stats import StageProgress
from cxrprep.storage.locks import RunId
from cxrprep.storage.small_files import MAX_BYTES, parse_json, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER: Final = "runs"
_EVERY_SECONDS: Final = 2.0
# A run that did not write for so long is none: killed on another host, or its process id is another's by now.
_SILENT_SECONDS: Final = 120.0
_LONGEST_MESSAGE: Final = 500
# The folder is as it was: somebody is asked to say something else, or another run is at work.
_REFUSALS: Final = frozenset({ExitCode.USAGE, ExitCode.NOTHING_SELECTED, ExitCode.BUSY})


@dataclass(frozen=True, slots=True)
class RunState:
    """A run that is not done: ``running``, ``interrupted`` or ``failed``.

    ``stages`` are what ``status`` calls its work. ``done`` of ``total`` items, and bytes where they are counted;
    ``total`` is ``None`` while it is being counted. ``rate`` is bytes (or items, where no bytes are counted) per s,
    ``seconds_left`` an estimate; ``None`` while nothing is known of them. ``asked`` are the options of a download.
    """

    stages: tuple[str, ...]
    state: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    size: int = 0
    total_size: int | None = None
    rate: float | None = None
    seconds_left: float | None = None
    exit_code: int | None = None
    message: str = ""
    dataset: str = ""
    asked: tuple[str, ...] = ()
    moment: float = 0.0


class LastRun:
    """A run of a verb, from its start; a context whose end removes its file, or says in it how the run failed."""

    def __init__(
        self,
        caches: Sequence[Path],
        verb: str,
        stages: Sequence[str],
        *,
        shard: str = "",
        dataset: str = "",
        asked: Sequence[str] = (),
    ) -> None:
        """A run that has not begun.

        Args:
            caches: The ``.cxrprep`` of the folders that it works on; one without tables gets none.
            verb: Whose run it is.
            stages: What ``status`` calls it: the verb, and what it makes.
            shard: The part of a job array, such as ``3/16``.
            dataset: What it was told that the folder holds: the only word of it, where nothing came so far.
            asked: Of a download, its mirror and selection as options: no record has them before there is a plan.
        """
        text = f"{stages[0]} {shard.replace('/', ' of ')}" if shard else stages[0]
        name = "".join(c if c.isalnum() or c in "-." else "_" for c in text)[:100]
        self._paths = [cache / FOLDER / f"{name}.json" for cache in caches]
        self._verb, self._stages, self._dataset, self._asked = verb, tuple(stages), dataset, list(asked)
        self._run_id = RunId.new()
        self._guard = threading.Lock()
        self._end = threading.Event()
        self._tallies: dict[str, StageProgress] = {}
        self._now = verb
        self._before: dict[Path, bytes] = {}

    def __enter__(self) -> Self:
        """Say that it runs."""
        for path in self._paths:
            with contextlib.suppress(OSError):
                self._before[path] = read_file(path)
        self._write("running")
        threading.Thread(target=self._keep_writing, name="last-run", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        """Say how it ended."""
        self._end.set()
        self._run_id.end()
        if error is None:
            self._remove()
        elif isinstance(error, CxrprepError) and error.exit_code in _REFUSALS:
            self._put_back()
        elif isinstance(error, Exception):
            code = int(error.exit_code) if isinstance(error, CxrprepError) else int(ExitCode.BUG)
            self._write("failed", exit_code=code, message=_first_line(error))
        else:
            self._write("interrupted")

    def counting(self, sink: Sink) -> Sink:
        """``sink``, and the counts of this run."""

        def both(event: Event) -> None:
            with self._guard:
                self._count(event)
            sink(event)

        return both

    def _count(self, event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage != self._now and self._verb not in self._tallies:
            self._now = event.stage
        tally = self._tallies.get(event.stage)
        if tally is None:
            tally = self._tallies[event.stage] = StageProgress(event.stage)
        tally.add(event)

    def _keep_writing(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self._write("running")

    def _write(self, state: str, *, exit_code: int | None = None, message: str = "") -> None:
        with self._guard:
            if state == "running" and self._end.is_set():
                return
            tally = self._tallies.get(self._now) or StageProgress(self._now, unit="")
            told = {
                "stages": self._stages, "state": state, "exit_code": exit_code, "message": message,
                "done": tally.reached, "total": tally.items, "unit": tally.unit,
                "size": tally.bytes_here, "total_size": tally.size,
                "rate": tally.rate, "seconds_left": tally.left,
                "owner": str(self._run_id), "host": socket.gethostname(), "pid": os.getpid(),
                "dataset": self._dataset, "asked": self._asked,
            }  # fmt: skip
            for path in self._paths:
                self._put(path, json.dumps(told).encode())

    @staticmethod
    def _put(path: Path, body: bytes) -> None:
        # A disk that refuses it does not stop the run, and half of it is read as nothing.
        cache = path.parent.parent
        with contextlib.suppress(OSError):
            if cache.is_dir() or (cache.parent / "manifests").is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.{os.getpid()}")
                part.write_bytes(body)
                part.replace(path)

    def _put_back(self) -> None:
        with self._guard:
            for path in self._paths:
                if path in self._before:
                    self._put(path, self._before[path])
                else:
                    _unlink(path)

    def _remove(self) -> None:
        with self._guard:
            for path in self._paths:
                _unlink(path)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        path.parent.parent.rmdir()


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, CxrprepError) else f"{type(error).__name__}: {error}"
    return mask_urls(text.partition("\n")[0])[:_LONGEST_MESSAGE]


def unfinished_runs(cache: Path) -> Iterator[RunState]:
    """The runs below ``cache`` that go on, were killed or failed, by name; what is no such file is passed over."""
    folder = cache / FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            moment = path.stat().st_mtime
            if path.stat().st_size <= MAX_BYTES:
                yield _state(parse_json(read_file(path)), moment)


def _state(told: dict[str, Any], moment: float) -> RunState:
    stages, state = tuple(told["stages"]), told["state"]
    if not stages or not all(isinstance(stage, str) for stage in stages):
        raise ValueError("no stages")
    if state == "running":
        run_id = RunId.parse(str(told.get("owner", "")))
        gone = run_id is None or run_id.gone or time.time() - moment > _SILENT_SECONDS
        state = "interrupted" if gone else state
    elif state not in ("failed", "interrupted"):
        raise ValueError("no state")
    return RunState(
        stages,
        state,
        done=_count(told.get("done")) or 0,
        total=_count(told.get("total")),
        unit=_text(told.get("unit")),
        size=_count(told.get("size")) or 0,
        total_size=_count(told.get("total_size")),
        rate=_number(told.get("rate")),
        seconds_left=_number(told.get("seconds_left")),
        exit_code=_count(told.get("exit_code")),
        message=_text(told.get("message")),
        dataset=_text(told.get("dataset")),
        asked=tuple(map(_text, asked)) if isinstance(asked := told.get("asked"), list) else (),
        moment=moment,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return float(value)
    return None


def _text(value: object) -> str:
    return value[:_LONGEST_MESSAGE] if isinstance(value, str) else ""
