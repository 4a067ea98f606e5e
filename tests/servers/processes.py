"""Real servers as processes on loopback: started on a free port, waited for, ended with the block."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(words: list[str], port: int, log: Path, *, seconds: float = 20.0) -> Iterator[None]:
    """``words`` run, listening at ``port``, for as long as the block lasts; what they print goes to ``log``."""
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT) as child:
        try:
            deadline = time.monotonic() + seconds
            while not _answers(port):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{words[0]} did not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.02)
            yield
        finally:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            if child.poll() is None:
                child.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
