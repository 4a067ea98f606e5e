"""Who works on a folder: a file made with ``O_EXCL``, touched while its run lives.

It saves bandwidth and gives a clear message; it protects nothing. On file systems where even ``O_EXCL`` fails, two runs
fetch the same bytes into files of their own, and the last one puts the same content in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cxrprep.errors import BusyError, storage_error

if TYPE_CHECKING:
    from cxrprep.model import Shard


def _writer() -> str:
    return f"{time.time_ns():x}-{_host()}-{os.getpid()}-{os.urandom(4).hex()}"


def writer_is_gone(name: str) -> bool:
    """Whether the writer of a journal or temporary file ran on this host and has ended; of other hosts who knows."""
    parts = name.split("-")
    # On Windows a signal of 0 is Ctrl-C, so there a journal waits until its own writer has finished.
    if os.name != "posix" or len(parts) != 4 or parts[1] != _host() or not parts[2].isdecimal():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_only_remembered(int(parts[2]))


def _is_only_remembered(process: int) -> bool:
    """Whether the process has ended, and the one that adopted it has not asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


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


# Runs of this process that have not ended; two of them may share it.
_LIVING: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class Owner:
    """A run: a hash of its host, its process id, and a random word. ``str()`` is part of file names."""

    host: str
    pid: int
    word: str

    @classmethod
    def new(cls) -> Self:
        """This run."""
        owner = cls(_host_digest(), os.getpid(), os.urandom(4).hex())
        _LIVING.add(str(owner))
        return owner

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The run that a file name names, or ``None``."""
        host, _, rest = text.partition("-")
        pid, _, word = rest.partition("-")
        return cls(host, int(pid), word) if pid.isdecimal() and word else None

    def __str__(self) -> str:
        """``host-pid-word``."""
        return f"{self.host}-{self.pid}-{self.word}"

    @property
    def gone(self) -> bool:
        """Whether it surely does not run any more; of another host's nothing is sure."""
        if self.host != _host_digest():
            return False
        if self.pid == os.getpid():
            return str(self) not in _LIVING
        if os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def end(self) -> None:
        """Say that this run is over."""
        _LIVING.discard(str(self))


def _host_digest() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
