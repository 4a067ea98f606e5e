"""The program: ``cxrprep``, or ``python -m cxrprep`` where it is not on the path."""

import atexit
import gc
import os
import sys
from typing import Final, NoReturn

# New objects after which Python looks for cycles; by default 700, and a plan of a release is a million that stay.
# measured: 2.34 -> 2.07 s of CPU time (medians of 5 alternating runs on a busy machine) on `download mimic-cxr-jpg
# --dry-run` of 120,000 images; the row "a plan of 377,110 files" of benchmarks/download.py.
_OBJECTS: Final = 100_000


def _open_closed_streams() -> None:
    """What is written to a stream that the caller closed (``>&-``) goes nowhere, and into no file of that number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115  # stays open


def _read_names_as_utf8() -> None:
    """Start anew where this locale makes other letters of names: pyarrow names every file in UTF-8, and found none.

    What is written to the terminal stays in the locale's letters.
    """
    if sys.getfilesystemencoding().lower() != "utf-8" and "utf8" not in sys._xoptions:  # noqa: SLF001  # as documented
        spelled = f"{sys.stdout.encoding}:{sys.stdout.errors}"
        os.environ["PYTHONIOENCODING"] = os.environ.get("PYTHONIOENCODING") or spelled
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  # the same program again


def main() -> NoReturn:
    """Start the command line."""
    _open_closed_streams()
    _read_names_as_utf8()
    gc.set_threshold(_OBJECTS)
    # What is left at the end goes with the process, and is not searched for cycles. measured: 0.72 -> 0.65 s of CPU
    # time (medians of 11 alternating runs on a busy machine) on `nothing` of benchmarks/download.py.
    atexit.register(gc.freeze)
    from cxrprep.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
