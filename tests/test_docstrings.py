"""Public functions with more than three parameters say what each is, what comes back, and what is raised."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "cxrprep"
ROOMS = sorted(path for path in PACKAGE.iterdir() if path.name != "__pycache__" and path.suffix in ("", ".py"))


def functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions, methods and constructors with their names, commands aside: their docstring is their help."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from functions(child, f"{child.name}.")
        elif isinstance(child, ast.FunctionDef) and child.name != "command":
            if child.name.startswith("_") and child.name != "__init__":
                continue
            yield f"{owner}{child.name}", child


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of the parameters, without that of the object itself."""
    stated = function.args
    names = [each.arg for each in (*stated.posonlyargs, *stated.args, *stated.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def described(docstring: str) -> list[str]:
    """The parameters that the section ``Args:`` names."""
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    return re.findall(r"^    \*{0,2}(\w+): ", section, flags=re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_each_parameter_of_a_public_function_is_described(room: Path) -> None:
    missing = []
    for path in sorted(room.rglob("*.py")) if room.is_dir() else [room]:
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            names = parameters(function)
            docstring = ast.get_docstring(function) or ""
            if len(names) > 3 and [each for each in described(docstring) if each in names] != names:
                missing.append(f"{path.relative_to(PACKAGE)}: {name}")
            gives = function.returns is not None and ast.unparse(function.returns) != "None"
            if len(names) > 3 and gives and not re.search(r"^(Returns|Yields):$", docstring, flags=re.MULTILINE):
                missing.append(f"{path.relative_to(PACKAGE)}: {name} says nothing of what it returns")
    assert missing == []
