"""The manual pages: one a command, as the code says, and without a mistake that a reader of man would see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.golden import commands
from tests.parts import need

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, made as the wheel's build makes them."""
    out = tmp_path_factory.mktemp("man")
    (out / "cxrprep-gone.1").touch()
    subprocess.run([sys.executable, str(ROOT / "tools" / "manpages.py"), "--out", str(out)], check=True)
    return out


def test_every_command_has_one(folder: Path) -> None:
    names = {"cxrprep.1", *(f"cxrprep-{'-'.join(words)}.1" for words in commands())}
    assert {path.name for path in folder.glob("*.1")} == names


@pytest.mark.part("mandoc")
def test_a_strict_reader_finds_nothing_wrong(folder: Path) -> None:
    program = need("mandoc")
    done = subprocess.run(
        [program, "-T", "lint", "-W", "warning", *sorted(map(str, folder.glob("*.1")))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A date would make every build differ; the version says what the page is about.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line] == []


@pytest.mark.part("mandoc")
def test_what_man_shows_has_options_examples_and_exit_codes(folder: Path) -> None:
    program = need("mandoc")

    def shown(name: str) -> str:
        done = subprocess.run(
            [program, "-T", "ascii", "-O", "width=78", str(folder / name)], capture_output=True, text=True, check=True
        )
        # Bold letters are overstruck.
        text = done.stdout
        while "\b" in text:
            at = text.index("\b")
            text = text[: at - 1] + text[at + 1 :]
        return text

    page = shown("cxrprep-download.1")
    assert "--limit-rate RATE" in page
    assert "cxrprep download nih-chestxray14 /data/nih" in page
    assert "EXIT STATUS" in shown("cxrprep.1")
    assert "another run holds this folder" in shown("cxrprep.1")
