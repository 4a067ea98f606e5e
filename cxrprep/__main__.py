"""The program: ``cxrprep``, or ``python -m cxrprep`` where it is not on the path."""

import gc
from typing import Final, NoReturn

# New objects after which Python looks for cycles; by default 700, and a plan of a release is a million that stay.
# measured: 1.76 -> 1.63 s of CPU time (median of 7) on `download mimic-cxr-jpg --dry-run`, 377,110 images.
_OBJECTS: Final = 100_000


def main() -> NoReturn:
    """Start the command line."""
    gc.set_threshold(_OBJECTS)
    from cxrprep.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
