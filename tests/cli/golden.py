"""What the program says at 80 columns without a terminal, kept as files, so that every change of it is seen.

usage: python -m tests.cli.golden        writes the files anew; look at the difference before you commit it
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import tempfile
from pathlib import Path

import click

# Older ones word their own errors and usages in other ways.
NEW_WORDS = tuple(map(int, importlib.metadata.version("click").split(".")[:2])) >= (8, 4)
FOLDER = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]


def commands() -> list[tuple[str, ...]]:
    """Every command and command of a group, as words."""
    from cxrprep.cli.main import cli

    found: list[tuple[str, ...]] = []
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, member) for member in command.commands]
    return found


def scenes() -> dict[str, tuple[str, ...]]:
    """Name of the file -> what is typed."""
    from cxrprep.datasets.catalog import catalog

    return {
        "alone": (),
        **{f"help-{'-'.join(words)}": (*words, "--help") for words in commands()},
        "datasets": ("datasets",),
        "datasets-quiet": ("datasets", "--quiet"),
        **{f"datasets-{name}": ("datasets", "show", name) for name in catalog()},
        "datasets-bibtex": ("datasets", "show", "chexpert", "--bibtex"),
        "config-check": ("config", "check", *(f"configs/{p.name}" for p in sorted((ROOT / "configs").glob("*.toml")))),
        "config-show-changed": ("config", "show", "--changed", "--config", "configs/cluster-cron.toml"),
        "error-command": ("dowload",),
        "error-dataset": ("datasets", "show", "chexprt"),
        "error-option": ("download", "nih-chestxray14", "--limt", "3"),
        "error-mirror": ("download", "nih-chestxray14", "nowhere", "--source", "kagle"),
        "error-recipe": ("convert", "nowhere", "--recipe", "squre-224"),
        "error-value": ("verify", "nowhere", "--sample", "0"),
        "error-view": ("download", "nih-chestxray14", "nowhere", "--view", "frontl"),
        "error-label": ("download", "chexpert", "nowhere", "--label", "Edema=2"),
        "error-folder": ("verify", "nowhere"),
        "error-no-root": ("verify",),
        "error-no-dataset": ("download",),
        "error-no-file": ("run",),
        "error-no-format": ("export", "nowhere"),
        "config-alone": ("config",),
        "error-json": ("verify", "nowhere", "--json"),
    }


def said(words: tuple[str, ...]) -> str:
    """What the program prints for ``words``, both streams and the exit code; in a folder of its own."""
    from cxrprep.cli.main import run

    stdout, stderr = io.StringIO(), io.StringIO()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("configs").symlink_to(ROOT / "configs")
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = run(words)
        finally:
            os.chdir(here)
    parts = [f"$ {' '.join(('cxrprep', *words))}\n", stdout.getvalue()]
    if stderr.getvalue():
        parts.append(f"--- standard error\n{stderr.getvalue()}")
    return "".join([*parts, f"--- exit code {code}\n"])


def main() -> None:
    """Write every file, and drop those of scenes that are gone."""
    FOLDER.mkdir(exist_ok=True)
    known = scenes()
    for path in FOLDER.glob("*.txt"):
        if path.stem not in known:
            path.unlink()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update({"COLUMNS": "80", "NO_COLOR": "1", "HOME": home, "XDG_CONFIG_HOME": home})
        for name, words in known.items():
            (FOLDER / f"{name}.txt").write_text(said(words), encoding="utf-8")


if __name__ == "__main__":
    main()
