"""The program: ``cxrprep``, or ``python -m cxrprep`` where it is not on the path."""

import gc
from typing import Final, NoReturn

# New objects after which Python looks for cycles. Loading a verb makes 70,000, none of them in one.
_OBJECTS: Final = 100_000


def main() -> NoReturn:
    """Start the command line."""
    # By default Python looks after 700: a hundred times before a download has its list, a fifteenth of all that time.
    gc.set_threshold(_OBJECTS)
    from cxrprep.cli.app import main as start

    start()


if __name__ == "__main__":
    main()
