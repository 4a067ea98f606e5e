"""Progress bars on a terminal: one for the stage, one per large file at work, notes above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from cxrprep.cli.progress_sink import Stages
from cxrprep.cli.progress_text import item_state, retry_line, stage_state, stall_line, summary
from cxrprep.credentials.secret import mask_urls
from cxrprep.events import Event, ItemFinished, Note, Retrying, StageFinished, StageStarted, Stalled
from cxrprep.humanize import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Task, TaskID

    from cxrprep.cli.output import Output
    from cxrprep.progress_stats import StageProgress

# Files with a line of their own.
_SHOWN: Final = 6
# A smaller file is done before its name is read.
_WORTH_A_LINE: Final = 8_000_000
# Failures that are named above the bar; more are only counted there.
_NAMED: Final = 10
# A first attempt that failed is worth a line where the next one is so far away.
_LONG_SECONDS: Final = 10.0


class _StageState(ProgressColumn):
    """What was done, how fast, how long it still takes: by our own counts, as rich's rate does not fall in a stall."""

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self._console = console
        self._separator = " · " if (console.encoding or "").lower().startswith("utf") else ", "

    def render(self, task: Task) -> Text:
        """As many words as the terminal is wide enough for."""
        return Text(self._separator.join(stage_state(task.fields["stage"], wide=self._console.width >= 100)))


class _FileState(ProgressColumn):
    """Bytes done of a file, or that it is stalled."""

    def render(self, task: Task) -> Text:
        """One or two words."""
        return Text(item_state(task.fields["item"]))


def _stage_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(None, table_column=Column(ratio=1, min_width=8)),
        # Rounded down, unlike rich's own column: 100 % is for what is finished.
        TextColumn("{task.fields[stage].percent}", table_column=Column(no_wrap=True, justify="right")),
        _StageState(console),
        console=console,
        expand=True,
    )


def _file_bars(console: Console) -> Progress:
    name = Column(no_wrap=True, overflow="ellipsis", ratio=3)
    return Progress(
        TextColumn("  {task.description}", style="dim", markup=False, table_column=name),
        BarColumn(None, table_column=Column(ratio=2, min_width=8)),
        _FileState(Column(no_wrap=True, justify="right", min_width=19)),
        console=console,
        expand=True,
    )


class Live(Stages):
    """Draws eight times a second, whatever the number of events; wraps nothing at 80 columns."""

    def __init__(self, out: Output, console: Console | None = None) -> None:
        super().__init__(out)
        self._console = console or Console(
            file=out.stderr, no_color=not out.colors(out.stderr), highlight=False, emoji=False, markup=False
        )
        self._live: RichLive | None = None
        self._stages, self._files = _stage_bar(self._console), _file_bars(self._console)
        self._lines: dict[str, TaskID] = {}
        self._failures = 0

    def _begin(self, event: StageStarted, tally: StageProgress) -> None:
        self._failures, self._lines = 0, {}
        self._stages, self._files = _stage_bar(self._console), _file_bars(self._console)
        self._stages.add_task(event.stage, total=None, stage=tally)
        self._live = RichLive(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _finish(self, event: StageFinished) -> None:
        tally = self._tally
        self._leave()
        self._print("problem" if event.failed else "ok", f"{event.stage}: {summary(event, tally)}")

    def _leave(self) -> None:
        live, self._live, self._tally = self._live, None, None
        if live is not None:
            live.stop()

    def _note(self, event: Note) -> None:
        about = f"{event.subject}: " if event.subject else ""
        self._print("" if event.level == "info" else event.level, f"{about}{event.message}")

    def _problem(self, event: Event) -> None:
        if isinstance(event, ItemFinished) and event.status in ("error", "impossible"):
            self._failures += 1
            if self._failures <= _NAMED:
                self._print("problem", self._failure(event))
            elif self._failures == _NAMED + 1:
                self._print("", "  more failures are counted below and named in the log file")
        elif isinstance(event, Retrying) and (event.attempt >= 2 or event.wait >= _LONG_SECONDS):
            if not self._said_before(event.key, event.cause, self._causes):
                self._print("warning", retry_line(event))
        elif isinstance(event, Stalled):
            self._print("warning", stall_line(event))

    def _print(self, mark: str, text: str) -> None:
        symbol = f"{self._out.symbol(mark, self._out.stderr)} " if mark else ""
        self._console.print(Text.from_ansi(symbol + one_line(mask_urls(text))), overflow="ignore", crop=False)

    def _counted(self, event: Event, tally: StageProgress) -> None:
        key = getattr(event, "key", "")
        item = tally.active.get(key)
        if item is None:
            if key in self._lines:
                self._files.remove_task(self._lines.pop(key))
        elif key in self._lines:
            self._files.update(self._lines[key], completed=item.done)
        elif (item.size or 0) >= _WORTH_A_LINE or item.stalled:
            self._lines[key] = self._files.add_task(key, total=item.size, completed=item.done, item=item)

    def _draw(self) -> RenderableType:
        # Drawn in rich's own thread and under its lock: taking the guard here too could lock both out for good.
        for task in self._stages.tasks:
            fraction = task.fields["stage"].fraction
            self._stages.update(task.id, total=None if fraction is None else 1.0, completed=fraction or 0.0)
        room = max(min(_SHOWN, self._console.height - 4), 0)
        return Group(self._stages, self._files.make_tasks_table(self._files.tasks[:room]))
