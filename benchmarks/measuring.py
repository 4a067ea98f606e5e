"""What a command costs (wall time, CPU time, memory of it and all its children), and the table all benchmarks print."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAM = str(Path(sys.executable).with_name("cxrprep"))
# As pip does at installation; in a checkout where nothing may write bytecode, each run would compile what was edited.
compileall.compile_dir(Path(__file__).resolve().parents[1] / "cxrprep", quiet=1)


@dataclass(frozen=True)
class Cost:
    """Seconds of wall and CPU time; ``peak`` is the largest single process, ``tree`` all of them at once, in MiB.

    ``peak`` comes from the kernel. ``tree`` is sampled (proportional set size, so shared pages count once) where
    ``measure`` was asked to, since a process waits while its pages are counted; elsewhere it is ``peak``.
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
        try:
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(word) for word in task.read_text().split()]
        except OSError:
            # It has ended meanwhile.
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


def measure(
    words: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, tree: bool = False
) -> Cost:
    """Run ``words`` to its end and return what it cost."""
    begun = time.monotonic()
    process = subprocess.Popen(
        list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, cwd=cwd
    )
    out, err = process.stdout, process.stderr
    assert out is not None
    assert err is not None
    ended, highest = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.2):
            highest[0] = max(highest[0], sum(_proportional(pid) for pid in _children(process.pid)))

    read: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda: read.__setitem__("out", out.read())),
        threading.Thread(target=lambda: read.__setitem__("err", err.read())),
        *([threading.Thread(target=watch)] if tree else []),
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


@dataclass(frozen=True)
class Row:
    """One thing measured beside a peer: medians of runs in turn, in one process tree, in ``unit``.

    ``floor`` is the ratio that must be reached: ours over theirs for a speed, theirs over ours for time and memory
    (``lower=True``), so that more is always better. A row without ``floor`` is for information.
    """

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    floor: float | None = None
    lower: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer we are; ``None`` without a peer."""
        if not self.theirs or not self.ours:
            return None
        return self.theirs / self.ours if self.lower else self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        """Whether the floor is reached; ``None`` without a floor or peer."""
        return None if self.floor is None or self.ratio is None else self.ratio >= self.floor

    def cells(self) -> list[str]:
        """What the table shows of the row."""
        return [
            self.what,
            f"{_number(self.ours)} {self.unit}",
            "" if self.theirs is None else f"{self.peer}: {_number(self.theirs)} {self.unit}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.floor is None else f"{self.floor:g}",
            {True: "yes", False: "NO", None: ""}[self.met] + (f" ({self.note})" if self.note else ""),
        ]


HEADER = ["what", "ours", "peer", "ratio", "floor", "met"]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, ["---", "--:", "--:", "--:", "--:", "---"], *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes, so that ``benchmarks/all.py`` can run it; none needs a positional."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here as well")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn; medians are shown (default 3)")
    parser.add_argument("--small", action="store_true", help="a fraction of the size, to see that the benchmark runs")
    return parser


def finish(
    title: str, rows: Sequence[Row], *, json_file: Path | None = None, versions: Mapping[str, str] | None = None
) -> int:
    """Print the table, write it for ``benchmarks/all.py``, and return the exit code: 1 when a floor is not reached."""
    print(f"\n{title}\n\n{markdown(rows)}\n", flush=True)
    for name, version in (versions or {}).items():
        print(f"{name}: {version}")
    if json_file is not None:
        kept = {"title": title, "rows": [asdict(row) for row in rows], "versions": dict(versions or {})}
        json_file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return int(any(row.met is False for row in rows))


def in_turn(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each run returns, over ``repeats`` rounds in which every one has its turn."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats):
        # The order turns, so that nobody always profits from what ran before.
        names = list(runs)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(runs[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def file_system(folder: str) -> str:
    """The kind of file system that holds ``folder``: what reading and writing cost depends on it."""
    said = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=False).stdout
    return said.split()[-1] if said else "an unknown file system"


def program_version(words: Sequence[str]) -> str:
    """The first line that ``words`` print; "absent" when the program is not there."""
    try:
        done = subprocess.run(list(words), capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "absent"
    return ((done.stdout or done.stderr).strip().splitlines() or ["unknown"])[0]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
