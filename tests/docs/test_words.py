"""Pages, help and messages are in plain English: turns of phrase that readers stumbled over do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cxrprep
from tests.docs.lines import PAGES, ROOT

_THINGS = "image|study|patient|report|file|folder|line|split|core|worker|node|process|shard"
BANNED = re.compile(
    r"\bn of N\b|\bneeds open\b|\brepeated means\b|\bbears?\b|\bmend(?:s|ed)?\b|\bhand(?:s|ed)? over\b|"
    r"1 > -1|\bstands? behind the\b|\blies? among\b|\b(?:goes|stays?) to nobody\b|"
    rf"\b(?:is|are|was|were) told\b|\b(?:rows?|one) an? (?:{_THINGS})\b",
    re.IGNORECASE,
)


def messages(module: Path) -> list[str]:
    """The texts of a module that a user may read: sentences that are no docstrings."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return [node.value for node in texts if isinstance(node.value, str) and len(node.value.split()) > 3]


def test_pages_and_messages_are_in_plain_english() -> None:
    pages = [(page.name, page.read_text(encoding="utf-8")) for page in PAGES]
    pages.append(("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    modules = sorted(Path(cxrprep.__file__).parent.rglob("*.py"))
    said = [(module.name, text) for module in modules for text in messages(module)]
    assert len(said) > 1000
    found = [(name, text[max(one.start() - 40, 0) : one.end() + 20]) for name, text in (*pages, *said)
             for one in BANNED.finditer(text)]  # fmt: skip
    assert found == []


def test_what_is_banned_is_found() -> None:
    for words in ("n of N", "a row an image", "what the mirror bears", "one a core", "mends itself", "you are told"):
        assert BANNED.search(words), words
