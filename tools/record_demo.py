"""Records the demo as a picture for the README: what ``make demo`` prints, as SVG.

Run it again when the output has changed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

PROJECT: Final = Path(__file__).resolve().parents[1]
_WIDTH: Final = 108


def recorded() -> str:
    """What the demo prints on standard output, without what differs from run to run: port and folder."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COLUMNS": str(_WIDTH), "PYTHONPATH": str(PROJECT), "NO_COLOR": "1"}
        words = [sys.executable, str(PROJECT / "tools" / "demo.py")]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", done.stdout)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", nargs="?", type=Path, default=PROJECT / "docs" / "demo.svg", help="docs/demo.svg when none is named"
    )
    out = parser.parse_args().file
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_WIDTH, file=nowhere, force_terminal=True, highlight=False)
        for line in recorded().splitlines():
            console.print(Text(line, style="bold" if line.startswith("$ ") else ""))
        out.write_text(console.export_svg(title="make demo"), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
