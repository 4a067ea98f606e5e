"""Random sequences of commands, as many as wanted: ``python -m tests.soak.sequences 10000 --seed 1``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.collection.sequences import play
from tests.collection.worlds import DECLARED, NAMES, release, world
from tests.commands import in_this_process


def main() -> int:
    """Play them; the exit code is 1 when any lost something, and each such sequence is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sequences", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the number of the first; to play one again")
    parser.add_argument("--declared", action="store_true", help="releases that are declared by one file each, too")
    given = parser.parse_args()
    failed = 0
    # In memory where there is such a place: thousands of small files are made and removed.
    tempfile.tempdir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sequences-") as folder, in_this_process():
        os.environ |= {f"XDG_{name}_HOME": f"{folder}/home" for name in ("STATE", "CACHE", "CONFIG", "DATA")}
        names = (*NAMES, *DECLARED) if given.declared else NAMES
        releases = {name: release(name, Path(folder, name)) for name in names}
        for number in range(given.first, given.first + given.sequences):
            rng = random.Random(f"{given.seed}:{number}")
            name = rng.choice(names)
            with tempfile.TemporaryDirectory(prefix="sequence-") as home:
                try:
                    play(world(releases[name], Path(home), name, rng), given.steps)
                except AssertionError as error:
                    failed += 1
                    text = str(error).replace(home, "~")
                    print(f"sequence {given.seed}:{number} of {name}: {text}\n", file=sys.stderr, flush=True)
            if number % 50 == 49:
                print(f"{number + 1} sequences, {failed} lost something", flush=True)
    print(f"{given.sequences} sequences, {failed} lost something")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
