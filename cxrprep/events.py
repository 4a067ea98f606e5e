"""Events, as frozen dataclasses: the library emits them; a sink shows, records or ignores them.

An event never holds a credential, a signed query string or report text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_EVERY_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. ``stage`` is the verb at work: download, verify, extract-labels, convert, manifest."""

    stage: str


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A stage begins. ``items`` and ``size`` (bytes) are totals, ``None`` while they are still being counted."""

    items: int | None = None
    size: int | None = None
    unit: str = "files"


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    """A stage ended. ``done``, ``kept`` and ``failed`` count items; ``size`` is bytes moved; ``seconds`` wall time."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    size: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemStarted(Event):
    """Work on one item begins. ``offset`` bytes of ``size`` were here already (a resumed download)."""

    key: str
    size: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Advanced(Event):
    """``size`` more bytes of ``key`` are done (or ``items`` more items where bytes are not counted).

    Coalesced by the emitter: at most some ten a second and item, never one a chunk.
    """

    key: str = ""
    size: int = 0
    items: int = 0


@dataclass(frozen=True, slots=True)
class ItemFinished(Event):
    """One item ended. ``status`` is ok, notneeded, impossible or error; ``size`` is bytes moved for it.

    ``counted`` items are in the ``items`` of an ``Advanced`` too, and count once.
    """

    key: str
    status: str = "ok"
    size: int = 0
    detail: str = ""
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt failed and another follows after ``wait`` seconds; ``cause`` says why in one line."""

    key: str
    cause: str
    attempt: int
    wait: float


@dataclass(frozen=True, slots=True)
class Stalled(Event):
    """No byte arrived for ``seconds``; ``cause`` names the host and what is being waited for."""

    key: str
    seconds: float
    cause: str


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something a person should read once. ``level`` is info, warning or problem; ``subject`` is a file or a table."""

    message: str
    level: str = "info"
    subject: str = ""


Sink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink of callers that asked for none."""


class Throttle:
    """Progress throttle: many small steps become one ``Advanced``, at most ten per second, from any thread."""

    def __init__(self, stage: str, sink: Sink, key: str = "", *, first: Event | None = None) -> None:
        """Count for ``stage`` (and its item ``key``), and tell ``sink``.

        Args:
            stage: the stage that the events name.
            sink: gets them.
            key: the item that they name.
            first: sent before the first ``Advanced``, which then waits its tenth of a second: a file that is done
                earlier makes no event.
        """
        self._stage, self._sink, self._key, self._first = stage, sink, key, first
        self._guard = threading.RLock()
        self._size = self._items = 0
        self._sent = time.monotonic() if first else 0.0
        self.total = 0

    def advance(self, *, size: int = 0, items: int = 0) -> None:
        """Count ``size`` more bytes and ``items`` more items."""
        with self._guard:
            self.total += size
            self._size += size
            self._items += items
            if time.monotonic() - self._sent >= _EVERY_SECONDS:
                first, self._first = self._first, None
                if first:
                    self._sink(first)
                self.flush()

    def restart(self, first: Event) -> None:
        """Forget what was counted and not sent yet; ``first`` is sent before what is counted from now on."""
        with self._guard:
            self._size = self._items = 0
            self._first = first

    def flush(self) -> None:
        """Send what was counted and not sent yet; nothing before ``first``."""
        with self._guard:
            if (self._size or self._items) and self._first is None:
                self._sink(Advanced(self._stage, self._key, self._size, self._items))
            self._size = self._items = 0
            self._sent = time.monotonic()
