"""Progress bars on a terminal: one for the stage, one per large file at work, notes above."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cxrprep.cli.progress_stats import Active, StageProgress
from cxrprep.cli.progress_text import closing, retry_line, stall_line, summary
from cxrprep.credentials.secret import mask_urls
from cxrprep.events import Event, ItemFinished, Note, Retrying, StageFinished, StageStarted, Stalled
from cxrprep.humanize import format_bytes, format_number, format_rate, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cxrprep.cli.output import Output

# Files with a line of their own.
_SHOWN: Final = 6
# A smaller file is done before its name is read.
_WORTH_A_LINE: Final = 8_000_000
# Failures that are named above the bar; more are only counted there.
_NAMED: Final = 10


class Live:
    """Draws eight times a second, whatever the number of events; wraps nothing at 80 columns."""

    def __init__(self, out: Output, console: Console | None = None) -> None:
        self._out = out
        self._console = console or Console(
            file=out.stderr, no_color=not out.colors(out.stderr), highlight=False, emoji=False, markup=False
        )
        self._guard = threading.RLock()
        self._tally: StageProgress | None = None
        self._live: RichLive | None = None
        self._named = 0
        # What was the reason of an attempt before is not said again for each file.
        self._causes: set[str] = set()

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        """Take the bars away; say what a stage came to that did not say so itself."""
        with self._guard:
            if self._tally is not None and kind is None:
                self._finish(closing(self._tally))
            self._stop()

    def __call__(self, event: Event) -> None:
        """Count the event; print what deserves a line of its own."""
        with self._guard:
            if isinstance(event, StageStarted):
                self._start(event)
            elif isinstance(event, StageFinished):
                self._finish(event)
            elif isinstance(event, Note):
                self._note(event)
            else:
                if isinstance(event, ItemFinished) and event.status in ("error", "impossible"):
                    self._failed(event)
                elif isinstance(event, Retrying) and event.attempt >= 2 and event.cause not in self._causes:
                    self._causes.add(event.cause)
                    self._print(f"{self._out.symbol('warning', self._out.stderr)} {retry_line(event)}")
                elif isinstance(event, Stalled):
                    self._print(f"{self._out.symbol('warning', self._out.stderr)} {stall_line(event)}")
                if self._tally is not None:
                    self._tally.add(event)

    def _finish(self, event: StageFinished) -> None:
        tally = self._tally
        self._stop()
        mark = self._out.symbol("problem" if event.failed else "ok", self._out.stderr)
        self._print(f"{mark} {event.stage}: {summary(event, tally)}")

    def _start(self, event: StageStarted) -> None:
        if self._tally is None or self._tally.stage != event.stage:
            if self._tally is not None:
                self._finish(closing(self._tally))
            self._tally = StageProgress(event.stage)
            self._named = 0
            self._live = RichLive(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._tally.add(event)
            self._live.start()
        else:
            self._tally.add(event)

    def _stop(self) -> None:
        live, self._live, self._tally = self._live, None, None
        if live is not None:
            live.stop()

    def _note(self, event: Note) -> None:
        about = f"{event.subject}: " if event.subject else ""
        mark = "" if event.level == "info" else self._out.symbol(event.level, self._out.stderr) + " "
        self._print(f"{mark}{about}{event.message}")

    def _failed(self, event: ItemFinished) -> None:
        self._named += 1
        if self._named <= _NAMED:
            self._print(f"{self._out.symbol('problem', self._out.stderr)} {event.key}: {event.detail or event.status}")
        elif self._named == _NAMED + 1:
            self._print("  more failures are counted below and named in the log file")

    def _print(self, text: str) -> None:
        self._console.print(Text.from_ansi(mask_urls(text)), soft_wrap=True)

    # ---- drawing ----

    def _draw(self) -> RenderableType:
        # Drawn in rich's own thread and under its lock: taking the guard here too could lock both out for good.
        tally = self._tally
        if tally is None:
            return Text("")
        # A copy: the threads at work go on changing the original.
        active = [item for item in list(tally.active.values()) if (item.size or 0) >= _WORTH_A_LINE or item.stalled]
        room = max(min(_SHOWN, self._console.height - 4), 0)
        lines: list[RenderableType] = [self._stage_line(tally)]
        lines += [self._item_line(item) for item in active[:room]]
        return Group(*lines)

    def _stage_line(self, tally: StageProgress) -> Table:
        wide = self._console.width >= 100
        of = "" if tally.items is None else f"/{format_number(tally.items)}"
        words = [f"{format_number(tally.finished)}{of} {tally.unit}"]
        if tally.failed:
            words.append(f"{format_number(tally.failed)} failed")
        if tally.size and wide:
            words.append(f"{format_bytes(tally.bytes_here)}/{format_bytes(tally.size)}")
        if tally.stalled:
            words.append("stalled")
        elif tally.rate:
            words.append(format_rate(tally.rate) if tally.size else f"{tally.rate:,.0f}/s")
        words.append(format_seconds(tally.left) if tally.left is not None else "-")
        fraction = tally.fraction
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, min_width=8)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True)
        bar = ProgressBar(total=1.0, completed=fraction or 0.0, pulse=fraction is None)
        percent = "" if fraction is None else f"{int(fraction * 100)}%"
        grid.add_row(
            Text(tally.stage, style="bold"), bar, percent, " · ".join(words) if self._unicode else ", ".join(words)
        )
        return grid

    def _item_line(self, item: Active) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
        grid.add_column(ratio=2, min_width=8)
        grid.add_column(no_wrap=True, justify="right", min_width=19)
        completed = min(item.done / item.size, 1.0) if item.size else 0.0
        size = format_bytes(item.size) if item.size else "?"
        state = "stalled" if item.stalled else f"{format_bytes(item.done)}/{size}"
        grid.add_row(Text(f"  {item.key}", style="dim"), ProgressBar(total=1.0, completed=completed), Text(state))
        return grid

    @property
    def _unicode(self) -> bool:
        return (self._console.encoding or "").lower().startswith("utf")
