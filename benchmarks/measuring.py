"""What a command costs: wall time, CPU time and memory of it and all its children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = str(Path(sys.executable).with_name("cxrprep"))


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and CPU time; ``peak`` is the largest single process, ``tree`` all of them at once, in MiB.

    ``tree`` is sampled (proportional set size, so shared pages count once), ``peak`` comes from the kernel.
    """

    code: int
    wall: float
    cpu: float
    peak: float
    tree: float
    stdout: str
    stderr: str


def _children(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(word) for word in task.read_text().split()]
            except OSError:
                continue
    return found


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def measure(words: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run ``words`` to its end and return what it cost."""
    begun = time.monotonic()
    process = subprocess.Popen(
        list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, cwd=cwd
    )
    assert process.stdout is not None
    assert process.stderr is not None
    ended, highest = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.2):
            highest[0] = max(highest[0], sum(_proportional(pid) for pid in _children(process.pid)))

    read: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda: read.__setitem__("out", process.stdout.read())),
        threading.Thread(target=lambda: read.__setitem__("err", process.stderr.read())),
        threading.Thread(target=watch),
    ]
    for thread in threads:
        thread.start()
    # wait4 and not wait: its usage is this child's and its children's, whatever else this process has run.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    ended.set()
    for thread in threads:
        thread.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        process.returncode,
        wall,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        max(highest[0] / 1024, usage.ru_maxrss / 1024),
        read["out"].decode(errors="replace"),
        read["err"].decode(errors="replace"),
    )
