"""A stranger's errands: the word that one would type leads to the module, by its name or its first line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cxrprep"
ERRANDS = """
retry; lock; cache; HTTP client; authentication; proxy; certificates; checksum; digest; partial file; archive; journal;
selection; split; vocabulary; label policy; negation; sections; VOI LUT; grayscale; transforms; encoding; quality;
shard; recipe; manifest; export; dataset card; pairs; near-duplicates; report page; thumbnails; progress bar; settings;
credentials; executor; download plan; record; listing; catalog; protected health information
"""
WORDS = [word.strip() for word in ERRANDS.replace("\n", " ").split(";") if word.strip()]


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


MODULES = {path.relative_to(PACKAGE).as_posix(): first_line(path) for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("errand", WORDS)
def test_a_word_leads_to_its_module(errand: str) -> None:
    found = [
        name
        for name, line in MODULES.items()
        if all(word in f"{name.replace('_', ' ')} {line}".lower() for word in errand.lower().split())
    ]
    assert found, errand


def test_there_are_enough_errands() -> None:
    assert len(WORDS) >= 30


def test_every_module_says_what_it_is_in_a_sentence() -> None:
    assert [name for name, line in MODULES.items() if len(line.split()) < 3 and not name.endswith("/__init__.py")] == []
