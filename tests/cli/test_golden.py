"""Help, listings and errors, word for word. After a change on purpose: ``python -m tests.cli.golden``."""

from __future__ import annotations

import pytest

from tests.cli.golden import FOLDER, NEW_WORDS, said, scenes

SCENES = scenes()


@pytest.mark.skipif(not NEW_WORDS, reason="the files hold the words of click 8.4 and newer: pip install -U click")
@pytest.mark.parametrize("name", SCENES)
def test_the_program_says_what_it_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    kept = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert said(SCENES[name]) == kept, "to keep the new words: python -m tests.cli.golden"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(SCENES)


@pytest.mark.parametrize("name", [name for name in SCENES if name.startswith(("help", "alone", "datasets", "error"))])
def test_nothing_but_addresses_and_examples_is_wider_than_80_columns(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").partition("Examples:")[0]
    for line in text.splitlines()[1:]:
        free = ("Error", "Hint", "  title = ", "  author = ", "  booktitle = ")
        assert len(line) <= 80 or "://" in line or line.startswith(free), line


@pytest.mark.parametrize("name", [name for name in SCENES if name.startswith("error")])
def test_every_error_says_what_to_do_next(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert "Hint:" in text or '"hint": "' in text
    assert text.endswith("--- exit code 2\n")
