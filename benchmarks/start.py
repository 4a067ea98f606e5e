"""What each command costs before its work begins: the time of its imports, and of the whole command on 8 tiny images.

usage: python benchmarks/start.py [--small] [--repeats N] [--json FILE]

Imports are measured by ``python -X importtime`` and the sum of what the interpreter says of each module, so that a
command's own work does not count. The whole command is measured without it. Peers are tools whose users wait for the
same thing; ``import pandas`` and ``import pyarrow.parquet`` say what a script of one's own would cost. Pandas, which
pyarrow imports by itself with the first Python list that becomes a column, is loaded by a verb that reads the tables of
a dataset described in TOML, and by no other.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks.measuring import PROGRAM, Row, arguments, finish, in_turn, measure  # noqa: E402  # the project's root

_IMPORTED: Final = re.compile(r"^import time:\s+(\d+) \|", re.MULTILINE)
# In an order in which each has what it needs from those before it.
COMMANDS: Final = (
    ("--help",),
    ("datasets",),
    ("config", "check", str(PROJECT / "configs" / "demo.toml")),
    ("download", "nih-chestxray14", "ROOT", "--source", "MIRROR"),
    ("status", "ROOT"),
    ("verify", "ROOT"),
    ("extract-labels", "ROOT"),
    ("manifest", "ROOT"),
    ("convert", "ROOT", "--recipe", "square-224", "--jobs", "1"),
    ("digest", "ROOT"),
    ("export", "ROOT", "--format", "csv", "--out", "EXPORT"),
    ("report", "ROOT"),
    ("duplicates", "ROOT"),
    ("explain", "ROOT"),
    ("doctor", "--offline"),
)
PEERS: Final = (
    ("kaggle", "--help"),
    ("hf", "--help"),
    ("python", "-c", "import pandas"),
    ("python", "-c", "import pyarrow.parquet"),
)


def imports(words: list[str]) -> tuple[float, int]:
    """Milliseconds that the imports of a command take, and how many modules they are."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, errors="replace", check=False
    )
    found = [int(number) for number in _IMPORTED.findall(done.stderr)]
    return sum(found) / 1000, len(found)


def command_row(words: tuple[str, ...], places: dict[str, str], repeats: int) -> Row:
    """One command: its second run and those after it, since the first has the work."""
    asked = [places.get(word, word) for word in words]
    measure([PROGRAM, *asked])
    loaded = [imports([PROGRAM, *asked]) for _ in range(repeats)]
    whole = statistics.median(measure([PROGRAM, *asked]).wall for _ in range(repeats))
    milliseconds, modules = statistics.median(time for time, _ in loaded), loaded[0][1]
    note = f"{modules} modules; the whole command, run again: {whole * 1000:.0f} ms"
    return Row(f"cxrprep {words[0]}: imports", milliseconds, "ms", lower=True, note=note)


def help_rows(repeats: int) -> list[Row]:
    """``--help`` beside the help of other tools, and beside two imports."""
    here = {words: shutil.which(words[0], path=str(Path(sys.executable).parent)) for words in PEERS}
    runs = {"ours": functools.partial(_wall, [PROGRAM, "--help"])}
    for words, program in here.items():
        if program:
            runs[" ".join(words)] = functools.partial(_wall, [program, *words[1:]])
    found = in_turn(runs, repeats)
    ours = found.pop("ours")
    return [Row("cxrprep --help, whole", ours, "ms", name, time, lower=True) for name, time in found.items()]


def _wall(words: list[str]) -> float:
    return measure(words).wall * 1000


def main() -> int:
    """Measure and print."""
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = os.environ["XDG_CACHE_HOME"] = f"{folder}/home"
        sys.path.insert(0, str(PROJECT / "tools"))
        from phantom_nih import write_collection

        places = {name: f"{folder}/{name.lower()}" for name in ("ROOT", "MIRROR", "EXPORT")}
        write_collection(Path(places["MIRROR"]), patients=3, size=64)
        commands = COMMANDS[:3] if options.small else COMMANDS
        rows = [*help_rows(options.repeats), *(command_row(words, places, options.repeats) for words in commands)]
    return finish("Start: what a command costs before its work", rows, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main())
