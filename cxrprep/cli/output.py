"""Output of the command line: results as text or JSON to standard output, everything else to standard error.

Three forms: ``human`` (colours on a terminal, plain aligned text in a pipe), ``json`` (one document), and ``quiet``
(nothing on success).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from cxrprep.credentials.secret import mask_urls
from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.humanize import format_number, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.api.result import Result

Row = Mapping[str, Any]

# Control characters, and those that turn the direction of writing around.
_CONTROLS: Final = "\\x00-\\x08\\x0b-\\x1a\\x1c-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069"
_OBEYED: Final = re.compile(f"[\\x1b{_CONTROLS}]")
_OBEYED_BUT_COLORS: Final = re.compile(rf"\x1b(?!\[[0-9;]*m)|[{_CONTROLS}]")


def inert(text: str, *, colors: bool = False) -> str:
    """``text`` without what a terminal would obey: names come from servers and archives, and may hold anything.

    Line ends and tabs stay, and colours where ``colors`` says that we set them ourselves.
    """
    return (_OBEYED_BUT_COLORS if colors else _OBEYED).sub(lambda found: ascii(found[0])[1:-1], text)


def cell(value: Any) -> str:
    """A value as a person reads it in a table: unknown is ``-``, never 0."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return format_number(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(cell(item) for item in value) or "-"
    return str(value)


_SYMBOLS: Final = {
    "ok": ("✓", "ok:"),
    "warning": ("!", "warning:"),
    "problem": ("✗", "problem:"),
    "next": ("→", "next:"),
    "optional": ("-", "-"),
}
_COLORS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "next": "cyan", "optional": "white"}


def lead_nowhere(*streams: TextIO) -> None:
    """Lead those whose reader has gone to nowhere: what is written later, or flushed at the end, is no more error."""
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


class Output:
    """Prints results, tables, notes and errors in the form that the user chose."""

    def __init__(
        self,
        form: str = "human",
        *,
        color: str = "auto",
        events: str = "",
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        """Output in the form that the person or program wants.

        Args:
            form: human, json or quiet.
            color: auto, always or never.
            events: ``jsonl`` for events as lines of JSON on standard error.
            stdout: the stream of results; by default standard output.
            stderr: the stream of everything else; by default standard error.
        """
        self.form = form
        self.events = events
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.color = color
        # Working copies of buckets are named by their addresses.
        self.shown: Callable[[str], str] = str
        self._warnings: list[dict[str, str]] = []
        self.is_read = True

    # ---- what streams can show ----

    def colors(self, stream: TextIO) -> bool:
        """Whether ``stream`` shows colours: a terminal, unless NO_COLOR or the user says otherwise."""
        if self.color != "auto":
            return self.color == "always"
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        import shutil

        return shutil.get_terminal_size().columns

    def symbol(self, kind: str, stream: TextIO) -> str:
        """The mark of ok, warning, problem or next; a word where the console's encoding lacks the mark."""
        mark, word = _SYMBOLS[kind]
        try:
            mark.encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            mark = word
        return self.styled(mark, stream, fg=_COLORS[kind], bold=True)

    def styled(self, text: str, stream: TextIO, **style: Any) -> str:
        """``text`` in colour where ``stream`` shows it."""
        return click.style(text, **style) if self.colors(stream) else text

    def _write(self, text: str, stream: TextIO) -> None:
        self.line(inert(self.shown(text), colors=self.colors(stream)), stream)

    def line(self, text: str, stream: TextIO) -> None:
        """Write a line. Where nobody reads on, as behind ``| head``, the work and its exit code are what counts."""
        try:
            stream.write(text + "\n")
            stream.flush()
        except BrokenPipeError:
            self.is_read = self.is_read and stream is not self.stdout
            lead_nowhere(stream)

    # ---- results ----

    def document(self, data: Any) -> None:
        """One JSON document on standard output, with what a person would have been warned of."""
        if self._warnings and isinstance(data, dict):
            data = {**data, "warnings": self._warnings}
        self._write(json.dumps(data, indent=2, ensure_ascii=False, default=str), self.stdout)

    def text(self, text: str, data: Any) -> None:
        """A result that is text for people and ``data`` for machines."""
        if self.form == "json":
            self.document(data)
        elif self.form == "human":
            self._write(text, self.stdout)

    def result(
        self, headline: str, result: Result[Any], *, command: str = "", following: Sequence[str] = (), failed: str = ""
    ) -> int:
        """Print what a verb achieved.

        Args:
            headline: What was done, in one line.
            result: The rows and the exit code.
            command: The verb, for JSON.
            following: Commands that make sense next.
            failed: The headline in place of the other where the exit code is not 0.

        Returns:
            The exit code.
        """
        code = int(result.exit_code)
        headline = failed if code and failed else headline
        if self.form == "json":
            self.document({"command": command, "exit_code": code, **result.to_dict()})
        elif self.form == "human":
            self._summary(headline, result, following, self.stdout, command)
        elif code:
            self._summary(headline, result, (), self.stderr, command)
        return code

    def _summary(
        self, headline: str, result: Result[Any], following: Sequence[str], stream: TextIO, command: str
    ) -> None:
        code = int(result.exit_code)
        kind = "ok" if code == ExitCode.DONE else "problem"
        mark = f"{self.symbol(kind, stream)} "
        headline = self._folded(headline, stream, "  ", head=mark).removeprefix(mark)
        lines = [f"{mark}{self.styled(headline, stream, bold=True)}"]
        lines += self._pairs(result.summary_rows(), stream)
        if code:
            meaning = _OF_VERBS.get((command, code)) or MEANINGS[code]
            lines.append(self.styled(self._folded(f"  exit code {code}: {meaning}", stream, "  "), stream, fg="red"))
        head = f"  {self.symbol('next', stream)} "
        lines += [self._folded(step, stream, "    ", head=head) for step in following if not code]
        self._write("\n".join(lines), stream)

    def _pairs(self, pairs: Sequence[tuple[str, Any]], stream: TextIO) -> list[str]:
        import textwrap

        width = max((len(label) for label, _ in pairs), default=0)
        lines = []
        for label, value in pairs:
            head = f"  {label:<{width}}  "
            room = max(self.width - len(head), 30)
            fold = textwrap.TextWrapper(room, break_long_words=False, break_on_hyphens=False).wrap
            folded: list[str] = []
            for line in cell(value).splitlines() or [""]:
                # A path stays whole, so that it can be copied; only prose is folded.
                is_path = os.path.exists(line)  # noqa: PTH110  # says no to prose of any length
                folded += [line] if is_path else fold(line) or [""]
            lines.append(self.styled(f"  {label:<{width}}", stream, dim=True) + f"  {folded[0]}")
            lines += [" " * len(head) + part for part in folded[1:]]
        return lines

    def table(self, rows: Sequence[Row], columns: Mapping[str, str], *, data: Any = None) -> None:
        """Print rows below the headings of ``columns``; JSON prints ``data`` or the rows, quiet the first column.

        Args:
            rows: the cells of each row by column.
            columns: heading by column, in order.
            data: what JSON prints in place of the rows.
        """
        if self.form == "json":
            self.document(list(rows) if data is None else data)
        elif self.form == "quiet":
            first = next(iter(columns))
            for row in rows:
                self._write(cell(row.get(first)), self.stdout)
        elif self.stdout.isatty():
            self._rich_table(rows, columns)
        else:
            self._plain_table(rows, columns)

    def _plain_table(self, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
        lines = [tuple(columns.values()), *(tuple(one_line(cell(row.get(key))) for key in columns) for row in rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        numbers = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in columns]
        for line in lines:
            cells = (f"{t:>{w}}" if n else f"{t:<{w}}" for t, w, n in zip(line, widths, numbers, strict=True))
            self._write("  ".join(cells).rstrip(), self.stdout)

    def _rich_table(self, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        for key, heading in columns.items():
            number = all(isinstance(row.get(key), int | float | None) for row in rows)
            table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=number)
        for row in rows:
            table.add_row(*(self.shown(one_line(cell(row.get(key)))) for key in columns))
        console = Console(
            file=self.stdout, no_color=not self.colors(self.stdout), highlight=False, emoji=False, markup=False
        )
        console.print(table)

    def check(self, state: str, name: str, found: str, hint: str = "") -> None:
        """One line of an examination, with its next step below it.

        Args:
            state: ok, warning or problem, as a symbol.
            name: what was examined.
            found: how it is.
            hint: the next step.
        """
        import textwrap

        room = max(min(self.width, 120) - 6, 30)

        def fold(text: str) -> list[str]:
            return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)

        first, *rest = fold(f"{name}: {found}")
        lines = [f"{self.symbol(state, self.stdout)} {first}", *(f"  {line}" for line in rest)]
        if hint:
            first, *rest = fold(hint)
            lines += [f"  {self.symbol('next', self.stdout)} {first}", *(f"    {line}" for line in rest)]
        self._write("\n".join(lines), self.stdout)

    # ---- everything else ----

    def note(self, message: str, *, level: str = "info", subject: str = "") -> None:
        """Something to read once, on standard error; in quiet and JSON form only problems are said there."""
        if self.form != "human" and level != "problem":
            if level == "warning":
                self._warnings.append({"subject": subject, "message": message})
            return
        if self.events == "jsonl":
            self._write(
                json.dumps({"event": "Note", "level": level, "subject": subject, "message": message}), self.stderr
            )
            return
        head = "" if level == "info" else self.symbol(level, self.stderr) + " "
        about = f"{subject}: " if subject else ""
        self._write(self._folded(f"{about}{message}", self.stderr, head=head), self.stderr)

    def _folded(self, text: str, stream: TextIO, indent: str = "", *, head: str = "") -> str:
        """``text`` with no word broken at a terminal's edge; a line with a command to be copied stays one.

        ``head`` stands before it and may have colours, which take no room.
        """
        import textwrap

        if not stream.isatty():
            return head + text
        seen = click.unstyle(head)
        fold = textwrap.TextWrapper(
            self.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        whole = (seen + text).splitlines()
        lines = ([line] if "cxrprep " in line or " --" in line else fold.wrap(line) for line in whole)
        return head + "\n".join(part for line in lines for part in line or [""]).removeprefix(seen)

    def error(self, message: str, *, hint: str = "", code: int, kind: str = "") -> int:
        """Say on standard error what went wrong and what to do next; JSON gets the same as a document.

        Args:
            message: what went wrong; addresses lose their secrets.
            hint: the next step.
            code: the exit code.
            kind: the name of the error's class.

        Returns:
            the exit code.
        """
        message, hint = mask_urls(message), mask_urls(hint)
        about = {"type": kind, "message": message, "hint": hint, "exit_code": int(code)}
        if self.form == "json":
            self.document({"exit_code": int(code), "error": about})
        if self.events == "jsonl":
            self._write(json.dumps({"event": "Error", **about}), self.stderr)
            return int(code)
        for head, text, color in (("Error:", message, "red"), ("Hint: ", hint, "cyan")):
            if text:
                said = self._folded(f"{head} {text}", self.stderr).removeprefix(head)
                self._write(f"{self.styled(head, self.stderr, fg=color, bold=True)}{said}", self.stderr)
        return int(code)

    def raised(self, error: CxrprepError, *, hint: str = "") -> int:
        """Say what an error of ours says, with ``hint`` in place of its own; its exit code."""
        # A configuration file's mistakes stand in lines; the words of others do not.
        message = error.message if hasattr(error, "mistakes") else one_line(error.message)
        return self.error(message, hint=one_line(hint or error.hint), code=error.exit_code, kind=type(error).__name__)


# exit code -> what it means and what to do, in one line; the reference page is made from it.
MEANINGS: Final[Mapping[int, str]] = {
    ExitCode.DONE: "done, or nothing to do",
    ExitCode.BUG: "a bug in cxrprep; report it to the people who gave you cxrprep",
    ExitCode.USAGE: "an option, a name or a file is wrong; fix it",
    ExitCode.PARTIAL: "some items failed, the others are done; run the same command again",
    ExitCode.INTEGRITY: "a digest, a size or a published fact does not hold; look at it",
    ExitCode.ACCESS: "credentials, an agreement or a billing project are missing; fix it once",
    ExitCode.UNREACHABLE: "the source is unreachable or overloaded; run the same command again later",
    ExitCode.STORAGE: "the local disk is full or not writable; fix it",
    ExitCode.NOTHING_SELECTED: "the selection matched nothing; change it",
    ExitCode.BUSY: "another run holds this folder; nothing to do",
    ExitCode.INTERRUPTED: "interrupted, partial files are kept; run the same command again",
    ExitCode.TERMINATED: "terminated, partial files are kept; run the same command again",
}
# Where the same command would bring the same again: a damaged image stays one.
_OF_VERBS: Final[Mapping[tuple[str, int], str]] = {
    ("convert", ExitCode.PARTIAL): "some images failed, the others are done; the reason of each is in failures.parquet",
    ("datasets", ExitCode.INTEGRITY): "the folder is not as the file declares it; correct what does not hold",
}
