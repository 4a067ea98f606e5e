"""Locks on a dataset folder (whole, or one shard of it; its record or tables while they are written), and ids of runs.

A lock is a file that appears with its owner's name in it in one step, so that a kill or a full disk leaves none that
nobody holds, and that is touched while its run lives. A run that was suspended for so long that another one took its
lock finds that out before it writes (``FolderLock.check``, ``SaveLock.check``).

A folder lock saves bandwidth and gives a clear message; it protects nothing. On file systems where exclusive creation
fails, two runs fetch the same bytes into files of their own, and the last one puts the same content in place.
"""

from __future__ import annotations

import contextlib
import errno
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

from cxrprep.errors import BusyError, StorageError, storage_error, storage_errors
from cxrprep.storage.small_files import parse_json, read_file, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.model import Shard


def writer_name() -> str:
    """A name for what this process writes: when, on which machine, by which process; no other has it."""
    return f"{time.time_ns():x}-{_host()}-{os.getpid()}-{os.urandom(4).hex()}"


def writer_is_gone(name: str) -> bool:
    """Whether the writer of a journal or temporary file ran on this host and has ended; of other hosts who knows."""
    parts = name.split("-")
    return len(parts) == 4 and parts[1] == _host() and parts[2].isdecimal() and process_is_gone(int(parts[2]))


def process_is_gone(process: int) -> bool:
    """Whether the process of this machine has ended."""
    # On Windows a signal of 0 is Ctrl-C, so there a journal waits until its own writer has finished.
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_only_remembered(process)


def _is_only_remembered(process: int) -> bool:
    """Whether the process has ended, and the one that adopted it has not asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


_TOUCH_SECONDS: Final = 10.0
# A lock that was not touched for so long is another's to take.
_STALE_SECONDS: Final = 120.0
# Whoever was not awake for so long looks whether the lock is still its own; well before another run may take it.
_ASLEEP_SECONDS: Final = 60.0
# Earlier versions made a lock and wrote into it afterwards: one that stays empty is what a kill in between left.
_EMPTY_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 30.0
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


class LockLost(Exception):  # noqa: N818  # whoever holds a lock begins again, or ends: no fault of the folder
    """Raise when a run finds that another one has taken its lock while it was suspended."""


def _claim(path: Path, body: str) -> None:
    """Make the lock file ``path`` with ``body`` in it, in one step. Raises ``FileExistsError``, ``OSError``."""
    before, after = f".{path.name}.", ".tmp"
    for other in path.parent.glob(f"{before}*{after}"):
        # A run was killed between this file and the lock that it was to become.
        if writer_is_gone(other.name.removeprefix(before).removesuffix(after)):
            other.unlink(missing_ok=True)
    part = path.with_name(f"{before}{writer_name()}{after}")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(body)
        try:
            os.link(part, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _claim_without_links(path, body)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _claim_without_links(path: Path, body: str) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.write(handle, body.encode())
        os.close(handle)
    except OSError:
        # A full disk: nobody is to wait for a lock that nobody holds.
        path.unlink(missing_ok=True)
        raise


def _age(path: Path) -> float:
    """Seconds since the file was touched. Raises ``OSError``."""
    return time.time() - path.stat().st_mtime


class SaveLock:
    """The one place in line for saving the record of a folder; a context.

    A holder that died is passed over at once where it ran on this host, and one that was silent for two minutes on any.
    """

    def __init__(self, cache: Path) -> None:
        """``cache`` is the folder's ``.cxrprep``."""
        self._path = cache / "saving"
        self._name = ""

    def __enter__(self) -> Self:
        """Wait for it. Raises ``BusyError`` when another process holds it for long, ``StorageError``."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            name = writer_name()
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                _claim(self._path, name)
            except FileExistsError:
                with contextlib.suppress(FileNotFoundError):
                    if self._is_free():
                        self._path.unlink()
                        continue
            except OSError as error:
                raise storage_error(self._path, "write", error) from error
            else:
                self._name = name
                return self
            if time.monotonic() > deadline:
                raise BusyError(
                    f"another process is saving the record: {self._path}",
                    hint="run again; if no other cxrprep is running, remove that file",
                )
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        """Let the next one save."""
        if self._holds():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def check(self) -> None:
        """Raise ``LockLost`` when another process has taken the place: what was read before may be of yesterday."""
        if not self._holds():
            raise LockLost(str(self._path))

    def _holds(self) -> bool:
        try:
            return read_file(self._path).decode(errors="replace") == self._name
        except OSError:
            return False

    def _is_free(self) -> bool:
        holder = read_file(self._path).decode(errors="replace")
        # Names of earlier versions had the suffix of a journal.
        gone = writer_is_gone(holder.removesuffix(".jsonl"))
        return gone or _age(self._path) > (_STALE_SECONDS if holder else _EMPTY_SECONDS)


class FolderLock:
    """The right to work on a folder, or on one shard of it. Shards of one job array work side by side."""

    def __init__(self, cache: Path, run_id: RunId, shard: Shard | None = None, *, place: str = "leases") -> None:
        """Nothing is taken yet.

        Args:
            cache: The folder's ``.cxrprep``.
            run_id: Who takes it.
            shard: The part of a job array.
            place: The folder in ``cache`` where locks for one purpose lie.
        """
        self._folder = cache / place
        self._run_id = run_id
        name = f"shard-{shard.in_names}" if shard is not None and shard.count > 1 else "whole"
        self._path = self._folder / name
        self._end = threading.Event()
        self._awake = time.time()
        self.held = False
        self.lost = False
        """Whether another run has taken it while this one was suspended."""

    def __enter__(self) -> Self:
        """Take it. Raises ``BusyError`` when a living run holds it, ``StorageError`` when nothing can be written."""
        with storage_errors(self._path, "write"):
            self._folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                others = self._others()
                if others:
                    raise self._busy(others[0])
                body = {"owner": str(self._run_id), "host": socket.gethostname(), "pid": os.getpid()}
                try:
                    _claim(self._path, json.dumps(body))
                except FileExistsError:
                    if self._lives(self._path):
                        raise self._busy(self._path) from None
                    self._path.unlink(missing_ok=True)
                    continue
                self.held = True
                break
            else:
                raise self._busy(self._path)
        self._end.clear()
        self._awake, self.lost = time.time(), False
        threading.Thread(target=self._touch, name="folder-lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._end.set()
        if self.held:
            self.held = False
            with contextlib.suppress(OSError):
                if self._is_mine():
                    self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise ``LockLost`` when another run has taken the lock while this one was suspended; cheap, so ask often."""
        if self.held and not self.lost and time.time() - self._awake > _ASLEEP_SECONDS:
            self._refresh()
        if self.lost:
            raise LockLost(str(self._path))

    def check_or_end(self) -> None:
        """The same, for a run that ends then: raise ``BusyError``."""
        try:
            self.check()
        except LockLost:
            raise BusyError(
                f"{self._folder.parent.parent}: this run was suspended, and another one has taken the folder over",
                hint="nothing is lost; run again when the other one is done",
            ) from None

    def _refresh(self) -> None:
        """See whose the lock is, and touch it where it is still this run's."""
        if not self._is_mine():
            self.lost = True
            return
        with contextlib.suppress(OSError):
            os.utime(self._path)
        self._awake = time.time()

    def _is_mine(self) -> bool:
        return self._read(self._path).get("owner") == str(self._run_id)

    def _others(self) -> list[Path]:
        """Locks that this one cannot live beside: the whole excludes the shards, and they the whole."""
        whole = self._path.name == "whole"
        return [
            path
            for path in sorted(self._folder.iterdir())
            if not path.name.startswith(".")
            and path != self._path
            and (whole or path.name == "whole")
            and self._lives(path)
        ]

    def _touch(self) -> None:
        while not self._end.wait(_TOUCH_SECONDS) and not self.lost:
            self._refresh()

    @staticmethod
    def _read(path: Path) -> dict[str, object]:
        try:
            body = parse_json(read_text(path))
        except (OSError, ValueError):
            return {}
        return body if isinstance(body, dict) else {}

    def _lives(self, path: Path) -> bool:
        run_id = RunId.parse(str(self._read(path).get("owner", "")))
        if run_id is not None and run_id.gone:
            return False
        try:
            return _age(path) < (_STALE_SECONDS if path.stat().st_size else _EMPTY_SECONDS)
        except OSError:
            return False

    def _busy(self, path: Path) -> BusyError:
        body = self._read(path)
        who = f"process {body.get('pid')} on {body.get('host')}" if body else "another run"
        return BusyError(
            f"{self._folder.parent.parent} is being worked on by {who}",
            hint=f"wait for it, then run the same again: what is done stays; if it has ended, remove {path}",
        )


# The folders whose tables are being written, each with the thread of this process that does, and its lock.
_WRITING: Final[dict[Path, tuple[int, FolderLock]]] = {}


def check_writing(path: Path) -> None:
    """Raise ``BusyError`` where the tables around ``path`` are another run's by now, as this one was suspended."""
    for cache, (_, lock) in tuple(_WRITING.items()):
        if path.absolute().is_relative_to(cache.parent):
            lock.check_or_end()


@contextlib.contextmanager
def writing_tables(cache: Path, *, since: float | None = None) -> Iterator[None]:
    """The one place in line for reading and writing the tables of a folder; whoever holds it may ask for it again.

    A folder that is not there, or into which nobody may write, has no line: the verb itself says so. A run that has
    been at work ``since`` then (``time.monotonic()``) waits as long again, and half a minute at least.

    Raises:
        BusyError: Another run writes them, and goes on for long.
    """
    key, here = cache.absolute(), threading.get_ident()
    if _WRITING.get(key, (0,))[0] == here or not cache.parent.is_dir():
        yield
        return
    run_id = RunId.new()
    lock, deadline = FolderLock(cache, run_id, place="writing"), time.monotonic()
    deadline += _WAIT_SECONDS if since is None else max(_WAIT_SECONDS, deadline - since)
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lock)
                _WRITING[key] = here, lock
                break
            except StorageError:
                break
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        try:
            yield
        finally:
            held.close()
            run_id.end()
            if _WRITING.get(key) == (here, lock):
                del _WRITING[key]
            with contextlib.suppress(OSError):
                (cache / "writing").rmdir()
                cache.rmdir()


# Runs of this process that have not ended; two of them may share it.
_LIVING: Final[set[str]] = set()


@dataclass(frozen=True, slots=True)
class RunId:
    """A run: a hash of its host, its process id, and a random word. ``str()`` is part of file names."""

    host: str
    pid: int
    word: str

    @classmethod
    def new(cls) -> Self:
        """This run."""
        run_id = cls(_host_digest(), os.getpid(), os.urandom(4).hex())
        _LIVING.add(str(run_id))
        return run_id

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
        return str(self) not in _LIVING if self.pid == os.getpid() else process_is_gone(self.pid)

    def end(self) -> None:
        """Say that this run is over."""
        _LIVING.discard(str(self))


def _host_digest() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
