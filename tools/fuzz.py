"""Fuzzes every parser that reads what others wrote, guided by coverage where atheris is installed.

usage: fuzz.py [TARGET ...] [--seconds N] [--engine auto|atheris|mutation] [--keep DIR] [--list]

Each target (``tests/fuzz/targets.py``) runs in a process of its own for N seconds (20 by default). An input that
crashes or stalls a parser is written to DIR (default: a temporary folder, which is named); put it into
``tests/fuzz/regressions/TARGET/`` with the mend. Exit code 1 when there is one. ``pip install atheris`` for coverage.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

_MEMORY_MIB = 2048
_LARGEST = 16_384


def _mutate(name: str, seconds: float, keep: Path, seed: int, scratch: Path) -> int:
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import check, emptied, named

    target = named(name)
    outcomes: Counter[str] = Counter()
    begun = time.monotonic()
    for data in mutated(target.seeds(), target.words, seed):
        if time.monotonic() - begun > seconds:
            break
        try:
            outcomes[check(target, data, emptied(scratch))] += 1
        except Exception:  # noqa: BLE001  # whatever comes is a finding
            traceback.print_exc()
            (keep / f"crash-{name}").write_bytes(data)
            print(f"Test unit written to {keep / f'crash-{name}'}", file=sys.stderr)
            return 1
    print(f"Done {sum(outcomes.values())} runs: {dict(outcomes)}", file=sys.stderr)
    return 0


def _guided(name: str, seconds: float, keep: Path, seed: int, scratch: Path) -> int:
    import atheris

    from tests.fuzz.targets import check, emptied, named

    target = named(name)
    folder = emptied(scratch)
    # What is imported here is instrumented; seeds and a first call import everything that the parser needs.
    with atheris.instrument_imports(include=["cxrprep"]):
        seeds = target.seeds()
        check(target, seeds[0], emptied(folder / "scratch"))
    corpus = emptied(folder / "corpus")
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    words = folder / "words"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    words.write_text("".join(f'"{word}"\n' for word in quoted))

    def one(data: bytes) -> None:
        check(target, data, emptied(folder / "scratch"))

    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, round(seconds))}",
        f"-artifact_prefix={keep}/{name}-",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-max_len={_LARGEST}",
        *([f"-dict={words}"] if target.words else []),
        f"-seed={seed}",
        "-timeout=20",
        "-verbosity=1",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(arguments, one)
    # Never returns: the engine ends the process, so whoever started it removes the folder.
    atheris.Fuzz()
    return 0


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _report(name: str, code: int, text: str, took: float) -> str:
    runs = re.findall(r"(?:Done |number_of_executed_units: )(\d+)", text)
    covered = re.findall(r"cov: (\d+)", text)
    state = "ok" if code == 0 else "BROKEN"
    shown = f"{name:18} {state:7} {runs[-1] if runs else '?':>9} inputs {took:6.0f} s"
    return shown + (f"  {covered[-1]} places covered" if covered else "")


def main() -> None:
    """Run from the command line."""
    from tests.fuzz.targets import TARGETS

    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help="which parsers; default: all")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("auto", "atheris", "mutation"), default="auto")
    parser.add_argument("--keep", type=Path, help="where inputs that break a parser are written")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(names))
        return
    unknown = set(options.target) - set(names)
    if unknown:
        parser.error(f"no target called {min(unknown)}; known: {', '.join(names)}")
    guided = options.engine == "atheris" or (options.engine == "auto" and importlib.util.find_spec("atheris"))
    keep = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    if options.alone:
        run: Any = _guided if guided else _mutate
        sys.exit(run(options.target[0], options.seconds, keep, options.seed, options.alone))
    print(f"{'coverage-guided (atheris)' if guided else 'mutations (atheris is not installed)'}; findings go to {keep}")
    broken = []
    for name in options.target or names:
        begun = time.monotonic()
        words = [sys.executable, __file__, name, f"--seconds={options.seconds}", f"--seed={options.seed}"]
        words += [f"--engine={options.engine}", f"--keep={keep}"]
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        with tempfile.TemporaryDirectory(dir=_memory()) as scratch:
            done = subprocess.run(
                [*words, "--alone", f"{scratch}/x"], capture_output=True, check=False, cwd=PROJECT, env=env
            )
        text = (done.stdout + done.stderr).decode(errors="replace")
        print(_report(name, done.returncode, text, time.monotonic() - begun), flush=True)
        if done.returncode:
            broken.append(name)
            lines = [line for line in text.splitlines() if not re.match(r"#\d+\s|INFO:|WARNING:|stat::|\s*0x", line)]
            print("    " + "\n    ".join(lines[-40:]))
    if broken:
        sys.exit(f"broken: {', '.join(broken)}; the inputs are in {keep}")


if __name__ == "__main__":
    main()
