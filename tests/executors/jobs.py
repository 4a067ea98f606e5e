"""Functions of a batch that workers run; in a module of their own, since workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from cxrprep.executors import begin_item, end_item


def squares(batch: list[int]) -> list[int]:
    return [n * n for n in batch]


def squares_or_crash(batch: list[int]) -> list[int]:
    """7 and 40 end the process as a segmentation fault in a decoder does."""
    for n in batch:
        if n in {7, 40}:
            os.kill(os.getpid(), signal.SIGSEGV)
    return [n * n for n in batch]


def where(batch: list[int]) -> list[tuple[int, int]]:
    return [(n, os.getpid()) for n in batch]


def slowly(batch: list[tuple[str, int]]) -> list[int]:
    """Leaves a note that work began, then takes its time."""
    for folder, n in batch:
        Path(folder, f"{n}-{os.getpid()}").touch()
        time.sleep(0.2)
    return [n for _, n in batch]


def fail(batch: list[int]) -> list[int]:
    raise ValueError(f"cannot do {batch[0]}")


def die(batch: list[int]) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return batch


def squares_or_hang(batch: list[int]) -> list[int]:
    """7 and 40 have no end."""
    for n in batch:
        begin_item()
        while n in {7, 40}:
            time.sleep(1)
    return [n * n for n in batch]


def hang_or_crash(batch: list[int]) -> list[int]:
    """3 has no end, 5 ends the process."""
    for n in batch:
        begin_item()
        while n == 3:
            time.sleep(1)
        if n == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
    return batch


def long_but_in_many_steps(batch: list[int]) -> list[int]:
    """Each item is short beside the limit of one and a half seconds, what follows is long and belongs to none."""
    for _ in batch:
        begin_item()
        time.sleep(0.3)
    end_item()
    time.sleep(2)
    return batch


def rest_or_crash(batch: list[tuple[str, int]]) -> list[int]:
    """7 ends the process; any other leaves a note that work began, and takes its time."""
    for folder, n in batch:
        if n == 7:
            os.kill(os.getpid(), signal.SIGSEGV)
        Path(folder, str(n)).touch()
        time.sleep(1)
    return [n for _, n in batch]
