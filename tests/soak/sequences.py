"""Random sequences of commands, as many as wanted: ``python -m tests.soak.sequences 10000 --seed 1``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.collection.sequences import World, play
from tests.manifest.made import made

NAMES = ("nih-chestxray14", "chexpert", "mimic-cxr", "mimic-cxr-jpg")


def main() -> int:
    """Play them; the exit code is 1 when any lost something, and each such sequence is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sequences", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        releases = {name: made(name, Path(folder, name)) for name in NAMES}
        for number in range(given.sequences):
            rng = random.Random(f"{given.seed}:{number}")
            name = rng.choice(NAMES)
            with tempfile.TemporaryDirectory() as home:
                world = World(Path(home), name, rng)
                shutil.copytree(releases[name], world.raw)
                try:
                    play(world, given.steps)
                except AssertionError as error:
                    failed += 1
                    print(f"sequence {given.seed}:{number} of {name}: {error}", file=sys.stderr)
    print(f"{given.sequences} sequences, {failed} lost something")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
