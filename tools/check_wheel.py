"""Builds the source distribution, the wheel from it, and runs the tests on the installed wheel in an empty folder.

usage: check_wheel.py [--keep DIR] [PYTEST ARGUMENT ...]     default: the tests without server, browser or cluster

The wheel goes into a virtual environment of its own. Its dependencies are those of the environment that runs this, so
that nothing is downloaded; the checkout itself is not on the path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
# What the tests read besides the package; a user of the wheel has none of it.
BESIDE: Final = ("tests", "tools", "configs", "pyproject.toml")
DEFAULT: Final = ("-m", "not slow and not part", "--ignore=tests/docs", "--ignore=tests/packaging")


def build(out: Path) -> tuple[Path, Path]:
    """The source distribution and the wheel that was built from it."""
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(PROJECT)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return source, wheel


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment that holds the wheel and sees the dependencies of this one."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / Path(sys.executable).name
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    # Only as a path: the .pth files there, and with them a checkout that is installed editable, are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    words = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", "--no-warn-script-location"]
    subprocess.run([sys.executable, "-m", "pip", *words, "--force-reinstall", str(wheel)], check=True)
    return python


def run_tests(python: Path, folder: Path, arguments: list[str]) -> int:
    """The exit code of pytest, run in ``folder``, which holds the tests and no package."""
    folder.mkdir()
    for name in BESIDE:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    modules = PROJECT / "tests" / "npm" / "node_modules"
    if modules.is_dir():
        (folder / "tests" / "npm" / "node_modules").symlink_to(modules)
    data = os.environ.get("CXR_SHARED_DATA", str(PROJECT.parent / "shared" / "data"))
    environment = {**os.environ, "CXR_SHARED_DATA": data}
    environment.pop("PYTHONPATH", None)
    where = [str(python), "-c", "import cxrprep; print(cxrprep.__file__)"]
    asked = subprocess.run(where, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    found = asked.stdout.strip()
    if str(PROJECT / "cxrprep") in found:
        raise SystemExit(f"the tests would run on the checkout: {found}")
    print(f"Testing {found}", flush=True)
    words = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(words, cwd=folder, env=environment, check=False).returncode


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="leave the two distributions in this folder")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source, wheel = build(folder / "dist")
        with tarfile.open(source) as packed, zipfile.ZipFile(wheel) as zipped:
            print(f"{source.name}: {len(packed.getnames())} files; {wheel.name}: {len(zipped.namelist())} files")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, options.keep)
            shutil.copy(wheel, options.keep)
        python = install(wheel, folder / "environment")
        return run_tests(python, folder / "empty", arguments or list(DEFAULT))


if __name__ == "__main__":
    sys.exit(main())
