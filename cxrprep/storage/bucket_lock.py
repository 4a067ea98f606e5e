"""Lock of a folder in an object store: an object written only if there is none, and touched while its run lives."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from cxrprep.errors import BusyError, CxrprepError
from cxrprep.storage.locks import process_is_gone
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from cxrprep.storage.object_store import ObjectStore

NAME: Final = ".cxrprep/bucket.lock"
_TOUCH_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 0.5
# A lock that was not touched for so long is another's to take; clocks of two machines may differ by a minute or two.
_STALE_SECONDS: Final = 600.0


# The tokens of the locks that this process holds: one that it could not remove, as a login had expired, is nobody's.
_held: Final[set[str]] = set()


class BucketLock:
    """The lock of one bucket folder."""

    def __init__(self, store: ObjectStore, name: str = NAME) -> None:
        """A lock that is not held yet; ``name`` for one of a part of the folder."""
        self._store, self._name = store, name
        self._token = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(8).hex()}"
        self._ended = threading.Event()
        self._toucher: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock. Raises ``BusyError`` while another run holds it, and the store's errors."""
        if not self._store.create(self._name, self._body()):
            holder = self._holder()
            if holder is not None and not _is_stale(holder):
                where = f"process {holder.get('process')} on {holder.get('host')}"
                raise BusyError(f"{self._store.address}: another run works there ({where})", hint="wait for it to end")
            self._store.remove(self._name)
            if not self._store.create(self._name, self._body()):
                raise BusyError(f"{self._store.address}: another run has just begun there", hint="wait for it to end")
        _held.add(self._token)
        self._toucher = threading.Thread(target=self._touch, daemon=True)
        self._toucher.start()

    def await_turn(self) -> None:
        """Take the lock when the run that holds it ends, for work of seconds; ``BusyError`` after ten minutes."""
        until = time.monotonic() + _STALE_SECONDS
        while True:
            try:
                return self.acquire()
            except BusyError:
                if time.monotonic() > until:
                    raise
            time.sleep(_TURN_SECONDS)

    def check(self) -> None:
        """Raise ``BusyError`` when another run took the lock, as after a long sleep of this one."""
        holder = self._holder()
        if holder is None or holder.get("token") != self._token:
            raise BusyError(
                f"{self._store.address}: another run took over while this one slept; nothing of it was replaced",
                hint="run it again when that run has ended",
            )

    def release(self) -> None:
        """Let go; a lock that another run took is left to it."""
        if self._toucher is None:
            return
        self._ended.set()
        self._toucher.join()
        _held.discard(self._token)
        with contextlib.suppress(CxrprepError):
            self.check()
            self._store.remove(self._name)

    def _touch(self) -> None:
        while not self._ended.wait(_TOUCH_SECONDS):
            with contextlib.suppress(CxrprepError):
                self.check()
                self._store.write(self._name, self._body())

    def _body(self) -> bytes:
        about = {"token": self._token, "host": socket.gethostname(), "process": os.getpid(), "touched": time.time()}
        return json.dumps(about).encode()

    def _holder(self) -> dict[str, object] | None:
        data = self._store.head(self._name, 4096)
        try:
            found = None if data is None else parse_json(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {} if data is not None else None


def _is_stale(holder: dict[str, object]) -> bool:
    touched, process = holder.get("touched"), holder.get("process")
    if not isinstance(touched, float) or time.time() - touched > _STALE_SECONDS:
        return True
    if holder.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    return holder.get("token") not in _held if process == os.getpid() else process_is_gone(process)
