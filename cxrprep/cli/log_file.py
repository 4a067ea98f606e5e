"""Log file of a run: versions, arguments, every problem; no credential, no signature, no report text.

It is written to ``ROOT/.cxrprep/logs`` once that folder belongs to cxrprep, else to the user's own log folder, so that
a folder which cxrprep only looked at stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import socket
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from cxrprep._version import __version__
from cxrprep.cli.progress_text import retry_line, stall_line, summary, total
from cxrprep.credentials.secret import mask_urls
from cxrprep.errors import StorageError
from cxrprep.events import Event, ItemFinished, Note, Retrying, StageFinished, StageStarted, Stalled
from cxrprep.humanize import one_line
from cxrprep.storage.table_checksums import note_checksum

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT: Final = 50
# An overloaded server is the reason of hundreds of thousands of attempts, and each line would say the same.
_RETRIES_OF_A_CAUSE: Final = 20
# Lines held back while it is not yet known where the log belongs.
_MOST_BUFFERED: Final = 200


def shown_command(arguments: Sequence[str]) -> str:
    """The command as it was typed, ready to be pasted into a shell; addresses lose their signatures."""
    return mask_urls(shlex.join(["cxrprep", *arguments]))


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """A sink that writes what happened to a file; a disk that refuses it does not stop the run."""

    def __init__(self, arguments: Sequence[str], *, file: Path | None = None) -> None:
        self._arguments = tuple(arguments)
        self._file = file
        self._folder: Path | None = None
        self._stream: TextIO | None = None
        self._buffered: list[str] = []
        self._retries: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._broken = False
        self.path: Path | None = None

    def belongs_to(self, state: Path) -> None:
        """Say where the dataset's record is: its ``.cxrprep/logs`` takes the log, as soon as ``.cxrprep`` is there."""
        self._folder = state / ".cxrprep"

    def __exit__(self, *_: object) -> None:
        """Write what is held back, if anything happened, and close."""
        with self._guard:
            if self._buffered:
                self._open(self._home() or _own_folder())
            self._close()

    def __call__(self, event: Event) -> None:
        """Write events that a person looks for afterwards; bytes that advance are not among them."""
        if isinstance(event, StageStarted):
            self.line(f"{event.stage}: {total(event)}")
        elif isinstance(event, StageFinished):
            for cause, count in self._retries.items():
                if count > _RETRIES_OF_A_CAUSE:
                    self.line(f"{event.stage}: retry: {cause}: {count - _RETRIES_OF_A_CAUSE:,} times more")
            self._retries.clear()
            self.line(f"{event.stage}: {summary(event)}")
        elif isinstance(event, Note):
            about = f"{event.subject}: " if event.subject else ""
            self.line(f"{event.stage}: {event.level}: {about}{event.message}")
        elif isinstance(event, ItemFinished) and event.status in ("error", "impossible"):
            self.line(f"{event.stage}: {event.status}: {event.key}: {event.detail}")
        elif isinstance(event, Retrying):
            self._retries[event.cause] += 1
            if self._retries[event.cause] <= _RETRIES_OF_A_CAUSE:
                self.line(f"{event.stage}: retry: {retry_line(event)}")
        elif isinstance(event, Stalled):
            self.line(f"{event.stage}: stalled: {stall_line(event)}")

    def line(self, text: str) -> None:
        """Add one line, with its time."""
        moment = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._guard:
            self._write(f"{moment} {one_line(mask_urls(text))}\n")

    def crash(self, error: BaseException) -> Path | None:
        """Write the traceback of an error that nobody expected; the file that holds it, ``None`` if none could be."""
        import traceback

        text = mask_urls("".join(traceback.format_exception(error)))
        with self._guard:
            if self._stream is None:
                self._buffered.append(text)
                self._open(self._home() or _own_folder())
            else:
                self._put(text)
            self._close()
        return self.path

    def _write(self, text: str) -> None:
        if self._stream is None and not self._broken:
            self._buffered.append(text)
            home = self._home()
            if home is not None or len(self._buffered) > _MOST_BUFFERED:
                self._open(home or _own_folder())
            return
        self._put(text)

    def _put(self, text: str) -> None:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError:
                self._give_up()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _home(self) -> Path | None:
        if self._file is not None:
            return self._file.parent
        with contextlib.suppress(OSError):
            if self._folder is not None and self._folder.is_dir() and os.access(self._folder, os.W_OK):
                return self._folder / "logs"
        return None

    def _open(self, folder: Path) -> None:
        moment = datetime.now().astimezone()
        verb = next((word for word in self._arguments if not word.startswith("-")), "cxrprep")
        safe = "".join(c for c in verb if c.isalnum() or c == "-")[:30] or "cxrprep"
        path = self._file or folder / f"{moment:%Y%m%d-%H%M%S}-{safe}-{os.getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8", errors="backslashreplace")
            self._stream.write("".join([self._header(), *self._buffered]))
            self._stream.flush()
            if self._file is not None:
                # In a folder of ours it is no stranger.
                note_checksum(path)
        except (OSError, StorageError):
            self._give_up()
            return
        self.path = path
        self._buffered.clear()
        if self._file is None:
            _prune(folder)

    def _header(self) -> str:
        # Not platform.platform(): it starts a program to learn the processor's name.
        machine = f"{platform.system()} {platform.release()} {platform.machine()}"
        lines = [
            f"cxrprep {__version__}, Python {platform.python_version()}, {machine}",
            f"command: {shown_command(self._arguments)}",
            f"folder: {Path.cwd()}",
            f"host: {socket.gethostname()}, process {os.getpid()}",
        ]
        return "".join(f"# {line}\n" for line in lines)

    def _give_up(self) -> None:
        self._broken = True
        self._buffered.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError:
                return


def _own_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "cxrprep" / "log"
    import platformdirs

    return platformdirs.user_log_path("cxrprep", appauthor=False)


def _prune(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for old in sorted(folder.glob("*-*-*.log"))[:-_KEPT]:
            old.unlink()
