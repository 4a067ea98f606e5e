"""Who writes: a name for this run that others can judge alive or gone."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from typing import Final, Self

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
        owner = cls(_host(), os.getpid(), os.urandom(4).hex())
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
        if self.host != _host():
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


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
