"""The import graph of the package: no two modules reach each other."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "cxrprep").rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports: at the top, for types alone, and inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & MODULES.keys()


def test_no_two_modules_reach_each_other() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    assert len(graph) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def names_of(tree: ast.Module) -> set[str]:
    """What a module defines for itself or others: functions, classes and constants that say their type."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def uses_in(name: str, tree: ast.Module) -> set[tuple[str, str]]:
    """The names that a module reads, with the module that each is of: its own, or those that it imports from others."""
    found, rooms = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
            rooms |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            found.add((name, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
            found.add((rooms[node.value.id], node.attr))
    return found


# Registries name functions and classes as text: "cxrprep.sources.gcs:GcsSource", "command".
BY_TEXT = re.compile(r"(?:[\w.]+[:.])?([a-z]\w+)|[\w.]+:([A-Z]\w+)")
# A dataset's module is asked for its layout, whichever it is.
BY_MODULE = {"layout"}


def test_nothing_is_defined_that_nothing_uses() -> None:
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    used = {use for name, tree in trees.items() for use in uses_in(name, tree)}
    texts = {
        found[1] or found[2]
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := BY_TEXT.fullmatch(node.value))
    }
    unused = {
        f"{name}.{one}"
        for name, tree in trees.items()
        for one in names_of(tree)
        if (name, one) not in used and one not in texts | BY_MODULE and not one.startswith("__")
    }
    assert unused == set()


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("if TYPE_CHECKING:\n    from cxrprep import api\ndef f():\n    import cxrprep.cli.main\n")
    assert imports(file) == {"cxrprep.api", "cxrprep.cli.main"}
