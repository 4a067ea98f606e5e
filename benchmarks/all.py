"""Every benchmark with its peers in one run, and one page of what came out.

usage: python benchmarks/all.py [NAME ...] [--small] [--repeats N] [--out FILE] [--skip NAME]

Runs each script of this folder that prints rows (``benchmarks/measuring.py``), one after the other, and writes their
tables with the machine and the versions to FILE (``docs/explanation/benchmarks.md``). A benchmark whose peers are not
here says what to install; the page names it as not run. Exit code 1 when a floor was not reached or a benchmark failed.
With ``--small`` nothing is written unless ``--out`` names a file: numbers of small sizes are none to publish.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.measuring import PROGRAM, Row, file_system, markdown, program_version  # noqa: E402  # the project's root comes first

PAGE = HERE.parent / "docs" / "explanation" / "benchmarks.md"
# What is no benchmark with rows: this file, what they share, and the run at full size, which has a page of its own.
_OTHERS = frozenset({"all", "measuring", "mirror", "scale"})
_INTRODUCTION = """\
# Benchmarks

Written by `make bench`; every number was measured in one run on the machine named below, ours and the peers' in turn.
A row shows medians. *Ratio* is how many times better than the peer we are, so 1 means equal and more is better, also
for times and memory; *floor* is what must be reached. Absolute numbers differ between machines, ratios much less.
"""


class Done(NamedTuple):
    """A benchmark that has ended: its exit code and seconds, and what it wrote."""

    name: str
    code: int
    seconds: float
    written: dict[str, Any] | None
    said: str


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in _OTHERS)


def run(name: str, *, small: bool, repeats: int | None) -> Done:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file)]
        words += ["--small"] if small else []
        words += ["--repeats", str(repeats)] if repeats is not None else []
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        written = json.loads(file.read_text()) if file.exists() else None
    return Done(name, done.returncode, time.monotonic() - begun, written, done.stdout + done.stderr)


def machine() -> list[str]:
    """What the numbers were measured on."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{processor}, {cores} cores, {memory:.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"files on {file_system(tempfile.gettempdir())} (TMPDIR chooses where)",
        program_version([PROGRAM, "--version"]),
    ]


def page(all_done: list[Done], moment: dt.datetime) -> str:
    """The page, with what failed named as such."""
    rows = [Row(**row) for done in all_done if done.written for row in done.written["rows"]]
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = [_INTRODUCTION, f"Measured on {moment:%Y-%m-%d} with:", "", *(f"- {line}" for line in machine()), ""]
    lines.append(f"{len(judged) - len(missed)} of {len(judged)} floors are reached.")
    lines += [f"Not reached: {row.what} beside {row.peer}, {row.ratio:.2f} of {row.floor:g}." for row in missed]
    for done in all_done:
        lines += ["", f"## {done.written['title'] if done.written else done.name}", ""]
        lines += [f"`python benchmarks/{done.name}.py`, {done.seconds:.0f} s.", ""]
        if done.written is None:
            said = (done.said.strip().splitlines() or ["it said nothing"])[-1]
            lines.append(f"Not run: {said}")
            continue
        lines.append(markdown([Row(**row) for row in done.written["rows"]]))
        versions = done.written["versions"]
        if versions:
            lines += ["", "With " + "; ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"which; default: all of {', '.join(names())}")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME")
    parser.add_argument("--small", action="store_true", help="a fraction of the size, to see that all of them run")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--out", type=Path, help=f"the page; default: {PAGE.relative_to(HERE.parent)}")
    options = parser.parse_args()
    unknown = ({*options.name} | {*options.skip}) - {*names()}
    if unknown:
        parser.error(f"no benchmark called {min(unknown)}; known: {', '.join(names())}")
    all_done = []
    for name in options.name or names():
        if name not in options.skip:
            print(f"{name} ...", flush=True)
            all_done.append(run(name, small=options.small, repeats=options.repeats))
            print(all_done[-1].said, flush=True)
    text = page(all_done, dt.datetime.now(dt.UTC))
    out = options.out or (None if options.small else PAGE)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        print(f"written: {out}")
    else:
        print(text)
    return int(any(done.code for done in all_done))


if __name__ == "__main__":
    sys.exit(main())
