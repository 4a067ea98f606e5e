"""Faults by the hundred, and a table of what came of each: exit code 1 when one came out wrong.

usage: python -m tests.soak [kills|servers|disks|hostile|secrets ...] [--kills N] [--seed N] [--only TEXT] [--work DIR]

Without a name all campaigns run, some twenty minutes. Everything happens in a temporary folder and on loopback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak import disks, hostile, kills, secrets, servers


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("kills", "servers", "disks", "hostile", "secrets")
    parser.add_argument("campaign", nargs="*", choices=[*names, []], help="which; default: all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--work", type=Path, help="play here and leave it; default: a temporary folder")
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        for name in options.campaign or names:
            work = (options.work or Path(temporary)) / name
            work.mkdir(parents=True)
            print(f"\n## {name}\n", flush=True)
            begun = time.monotonic()
            if name == "kills":
                failed = kills.main(options.kills, options.seed, 240, work)
            else:
                play = {"servers": servers, "disks": disks, "hostile": hostile, "secrets": secrets}[name]
                failed = play.main(work / "w", options.only)
            print(f"\n{name}: {'WRONG' if failed else 'as it must be'}, {time.monotonic() - begun:.0f} s", flush=True)
            wrong += [name] if failed else []
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
