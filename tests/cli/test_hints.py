"""Every command that a sentence of the program names is one that the command line takes."""

from __future__ import annotations

import ast
from pathlib import Path

import cxrprep
from tests.collection.hints import commands_in, why_not


def sentences(module: Path) -> list[str]:
    """The texts of a module, ``X`` where something is put in."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in node.values}
    found = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values) for node in joined
    ]
    plain = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in parts)
    return [*found, *(text for text in plain if isinstance(text, str))]


def test_hints_name_commands_and_options_that_there_are() -> None:
    modules = sorted(Path(cxrprep.__file__).parent.rglob("*.py"))
    named = [
        (module.name, command) for module in modules for text in sentences(module) for command in commands_in(text)
    ]
    assert len(named) > 150
    assert [(name, command, why_not(command)) for name, command in named if why_not(command)] == []


def test_a_command_that_is_none_is_seen() -> None:
    assert commands_in("run: cxrprep verify X --repair; or cxrprep convert X, then look") == [
        "verify X --repair", "convert X",
    ]  # fmt: skip
    assert "--repiar" in why_not("verify X --repiar")
    assert "2 arguments" in why_not("extract-labels X --compare A")
