"""The program: ``cxrprep``, or ``python -m cxrprep`` where it is not on the path."""

import gc
from typing import Final, NoReturn

# New objects after which Python looks for cycles. Loading a verb makes 40,000, and few of them are in one.
_OBJECTS: Final = 100_000


def main() -> NoReturn:
    """Start the command line."""
    # By default Python looks after 700: fifty times before a download has its list, a twentieth of all that time.
    gc.set_threshold(_OBJECTS)
    from cxrprep.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
