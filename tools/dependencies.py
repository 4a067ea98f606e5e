"""Writes the page about dependencies: what needs each package, what it weighs, and what each command loads.

Sizes are those of the environment that runs this.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from phantom_nih import write_collection

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT: Final = Path(__file__).resolve().parents[1]
OUT: Final = PROJECT / "docs" / "explanation" / "dependencies.md"
_COMMANDS: Final = (
    ("--help",),
    ("datasets",),
    ("config", "check", f"{PROJECT}/configs/demo.toml"),
    ("explain", "--selftest"),
    ("doctor", "--offline"),
    ("download", "nih-chestxray14", "nih", "--source", "mirror", "--dry-run"),
    ("download", "nih-chestxray14", "nih", "--source", "mirror"),
    ("status", "nih"),
    ("verify", "nih"),
    ("verify", "nih", "--images"),
    ("extract-labels", "nih"),
    ("convert", "nih", "--recipe", "square-224"),
    ("manifest", "nih"),
    ("report", "nih"),
    ("export", "nih", "--format", "csv"),
    ("digest", "nih"),
    ("duplicates", "nih"),
)
# Of several runs the quickest: the others waited for something else.
_RUNS: Final = 3
_HEAVY: Final = {"pyarrow", "numpy", "pandas", "cv2", "pydicom", "rich", "requests", "google", "kagglesdk", "pycurl"}
_NAME: Final = re.compile(r"^\s*([A-Za-z0-9._-]+)")


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def stated() -> dict[str, str]:
    """Each required distribution with its reason, as the comment beside it in pyproject.toml says."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    names = tomllib.loads(text)["project"]["dependencies"]
    found = {}
    for requirement in names:
        line = next(line for line in text.splitlines() if line.startswith(f'  "{requirement}"'))
        match = _NAME.match(requirement)
        assert match is not None
        found[match[1]] = line.partition("#")[2].strip()
    return found


def importers() -> dict[str, set[str]]:
    """Top-level module -> the modules of the package that import it, wherever in them."""
    found: dict[str, set[str]] = {}
    for path in (PROJECT / "cxrprep").rglob("*.py"):
        where = str(path.relative_to(PROJECT / "cxrprep"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(where)
    return found


def size(name: str) -> int:
    """Bytes of a distribution's files."""
    paths = [Path(str(file.locate())) for file in importlib.metadata.files(name) or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def needs(name: str, seen: set[str]) -> set[str]:
    """A distribution and all that it requires, without extras."""
    if plain(name) in seen:
        return seen
    try:
        requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return seen
    seen.add(plain(name))
    for requirement in requires:
        match = _NAME.match(requirement)
        if match is not None and "extra ==" not in requirement:
            needs(match[1], seen)
    return seen


def package_rows() -> list[str]:
    """The table of packages, the heaviest first."""
    modules: dict[str, set[str]] = {}
    for module, names in importlib.metadata.packages_distributions().items():
        for name in names:
            modules.setdefault(plain(name), set()).add(module)
    used = importers()
    required = stated()
    rows = []
    for name, reason in required.items():
        others = set().union(*(needs(other, set()) for other in required if other != name))
        alone = needs(name, set()) - others
        by = sorted(set().union(*(used.get(module, set()) for module in modules.get(plain(name), set()))))
        shown = ", ".join(f"`{where}`" for where in by[:3]) + (f" and {len(by) - 3} more" if len(by) > 3 else "")
        own, weight = size(name) / 1e6, sum(size(one) for one in alone) / 1e6
        cells = (name, f"{own:,.1f}", f"{weight:,.1f}", str(len(alone)), shown or "nothing", reason)
        rows.append((max(own, weight), f"| {' | '.join(cells)} |"))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def command_rows() -> list[str]:
    """The table of commands on a phantom collection: modules and milliseconds of imports, and which are heavy."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_collection(Path(folder, "mirror"), patients=4, size=64)
        for words in _COMMANDS:
            runs = [imports(words, folder) for _ in range(_RUNS)]
            loaded, shown = set(runs[0]), " ".join(words).replace(f"{PROJECT}/", "")
            spent = min(sum(run.values()) for run in runs) / 1000
            # An import that is refused is traced as well (``defer_pandas``): pandas is there when its parts are.
            heavy = ", ".join(sorted(name for name in loaded & _HEAVY if name != "pandas" or "pandas.core" in loaded))
            rows.append(f"| `cxrprep {shown}` | {len(loaded):,} | {spent:,.0f} | {heavy or 'none'} |")
    return rows


def imports(words: Sequence[str], folder: str) -> dict[str, int]:
    """Each module that a command imports, with the microseconds of itself alone."""
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cxrprep", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line.removeprefix("import time:").split("|") for line in traced.stderr.splitlines() if "|" in line]
    return {name.strip(): int(alone) for alone, _, name in lines if alone.strip().isdecimal()}


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", nargs="?", type=Path, default=OUT, help="docs/explanation/dependencies.md when none is named"
    )
    out = parser.parse_args().file
    lines = [
        "# Dependencies",
        "",
        "Made by `python tools/dependencies.py`. Gone with a package are itself and what nothing else needs:",
        "none where another package of the list needs it too.",
        "",
        "| package | MB of its own | MB gone with it | packages gone with it | imported by | reason |",
        "|---|---|---|---|---|---|",
        *package_rows(),
        "",
        "A package that nothing imports is listed because another needs it without saying so, or since the project",
        "promises it. What only tests use stands in the extra `dev`, which `pip install .` does not bring.",
        "",
        "## What a command loads",
        "",
        "On a phantom collection of a few images, without worker processes. The time is the quickest of three runs on",
        "one machine, there to be compared.",
        "",
        "| command | modules | ms of imports | of the heavy ones |",
        "|---|---|---|---|",
        *command_rows(),
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
