"""Real servers as processes on loopback: started on a free port, waited for, ended with the block."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port for a server that cannot choose its own.

    It lies below those that the system hands out by itself: between this look and the server's start no client and no
    other test is given it, and a client that asks for it too early is not connected with itself.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        lowest = 49_152
    # Of the system's own chance: tests seed the other one, and would then all begin at the same port.
    chance = random.SystemRandom()
    for _ in range(1_000):
        port = chance.randrange(12_000, max(lowest, 16_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port of this machine is free")


@contextmanager
def closed_port() -> Iterator[int]:
    """A port at which nobody listens for as long as the block lasts: it is held, and nobody else gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def process(words: list[str], port: int, log: Path, *, seconds: float = 60.0, **variables: str) -> Iterator[None]:
    """``words`` run, listening at ``port``, for as long as the block lasts; what they print goes to ``log``."""
    # The services are in UTC, and some emulators state the time of wherever they run.
    here = {**os.environ, "TZ": "UTC", **variables}
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=here) as child:
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
                child.wait(20)
            if child.poll() is None:
                child.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
