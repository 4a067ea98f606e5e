"""Who works on a folder: a file made with ``O_EXCL``, touched while its run lives.

It saves bandwidth and gives a clear message; it protects nothing. On file systems where even ``O_EXCL`` fails, two runs
fetch the same bytes into files of their own, and the last one puts the same content in place.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from cxrprep.durable import storage_error
from cxrprep.errors import BusyError
from cxrprep.transfer.owner import Owner

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.model import Shard

_TOUCH_SECONDS: Final = 10.0
_STALE_SECONDS: Final = 120.0


class Lease:
    """The right to work on a folder, or on one shard of it. Shards of one job array work side by side."""

    def __init__(self, cache: Path, owner: Owner, shard: Shard | None = None) -> None:
        """``cache`` is the folder's ``.cxrprep``."""
        self._folder = cache / "leases"
        self._owner = owner
        name = f"shard-{shard.index}-of-{shard.count}" if shard is not None and shard.count > 1 else "whole"
        self._path = self._folder / name
        self._end = threading.Event()
        self.held = False

    def __enter__(self) -> Self:
        """Take it. Raises ``BusyError`` when a living run holds it, ``StorageError`` when nothing can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                others = self._others()
                if others:
                    raise self._busy(others[0])
                try:
                    handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                except FileExistsError:
                    if self._lives(self._path):
                        raise self._busy(self._path) from None
                    self._path.unlink(missing_ok=True)
                    continue
                body = {"owner": str(self._owner), "host": socket.gethostname(), "pid": os.getpid()}
                os.write(handle, json.dumps(body).encode())
                os.close(handle)
                self.held = True
                break
            else:
                raise self._busy(self._path)
        except OSError as error:
            raise storage_error(self._path, "write", error) from error
        self._end.clear()
        threading.Thread(target=self._touch, name="lease", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._end.set()
        if self.held:
            self.held = False
            with contextlib.suppress(OSError):
                if self._read(self._path).get("owner") == str(self._owner):
                    self._path.unlink(missing_ok=True)

    def _others(self) -> list[Path]:
        """Leases that this one cannot live beside: the whole excludes the shards, and they the whole."""
        whole = self._path.name == "whole"
        return [
            path
            for path in sorted(self._folder.iterdir())
            if path != self._path and (whole or path.name == "whole") and self._lives(path)
        ]

    def _touch(self) -> None:
        while not self._end.wait(_TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    @staticmethod
    def _read(path: Path) -> dict[str, object]:
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return body if isinstance(body, dict) else {}

    def _lives(self, path: Path) -> bool:
        owner = Owner.parse(str(self._read(path).get("owner", "")))
        if owner is not None and owner.gone:
            return False
        try:
            return time.time() - path.stat().st_mtime < _STALE_SECONDS
        except OSError:
            return False

    def _busy(self, path: Path) -> BusyError:
        body = self._read(path)
        who = f"process {body.get('pid')} on {body.get('host')}" if body else "another run"
        return BusyError(
            f"{self._folder.parent.parent} is being worked on by {who}",
            hint=f"wait for it; if it does not run any more, remove {path}",
        )
