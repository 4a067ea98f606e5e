"""The commands that messages name, read by the parser of the command line: an option that is none is a fault."""

from __future__ import annotations

import ast
import io
import re
import shlex
from contextlib import redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Final

import click

from cxrprep.cli.main import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES: Final = tuple(name for group in COMMANDS.values() for name in group)
_VERB: Final = "|".join(NAMES)
# A command ends where the sentence goes on.
_END: Final = r"[;,)`]|\.\s|\.$| \(|: |$| or: | and | then "
_COMMAND: Final = re.compile(rf"\bcxrprep ((?:{_VERB})\b(?:(?!{_END}).)*)", re.MULTILINE)

# Examples and help texts are no hints.
_NO_HINTS: Final = {"examples", "epilog", "help", "text"}

_NO_MATTER: Final = ("Got unexpected extra argument", "Missing argument")


def commands_in(text: str) -> list[str]:
    """The commands that a text names, without the name of the program."""
    # A line that was too long for the screen goes on below the column where it began.
    return [found.strip().rstrip(".:") for found in _COMMAND.findall(re.sub(r"\n {8,}", " ", text))]


def why_not(command: str) -> str:
    """What the command line says against a command of a hint; nothing where it takes it.

    Words in capitals stand for what a person puts there, and a sentence that goes on is cut off.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        return str(error)
    context = click.Context(cli, info_name="cxrprep")
    found = cli.get_command(context, words[0])
    if found is None:
        return f"no command {words[0]}"
    try:
        with redirect_stdout(io.StringIO()), found.make_context(words[0], words[1:], parent=context):
            return ""
    except click.exceptions.Exit:
        return ""
    except click.ClickException as error:
        said = str(error.format_message())
        # The sentence goes on ("verify ROOT lists what is missing"), or a table of contents names the verb alone.
        return "" if said.startswith(_NO_MATTER) else f"{words[0]}: {said}"


def to_follow(text: str) -> list[list[str]]:
    """The commands of a message that can be run as they stand: nothing in them is a word in capitals."""
    found = [shlex.split(command) for command in commands_in(text) if not why_not(command)]
    return [words for words in found if len(words) > 1 and not any(re.fullmatch(r"[A-Z_]{2,}", word) for word in words)]


def hints_of(module: Path) -> list[str]:
    """The sentences of a module that a person may meet as a hint, X where something is put in."""
    return list(dict.fromkeys(_sentences(_tree(module))))


def options_of(module: Path) -> list[str]:
    """The hints of a module that name an option and no command."""
    nodes = (node for node in ast.walk(_tree(module)) if isinstance(node, ast.keyword))
    said = (text for node in nodes if node.arg == "hint" for text in _sentences(node.value))
    return [text for text in dict.fromkeys(said) if re.search(r"(?<![\w-])--[a-z]", text) and not commands_in(text)]


@cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def _sentences(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.keyword) and node.arg in _NO_HINTS:
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    words = (
        [] if not isinstance(node, ast.List | ast.Tuple) else [w for w in node.elts if not isinstance(w, ast.Starred)]
    )
    if isinstance(node, ast.JoinedStr) or [_word(word) for word in words[:1]] == ["cxrprep"]:
        yield "".join(map(_word, node.values)) if isinstance(node, ast.JoinedStr) else " ".join(map(_word, words))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _sentences(child)


def _word(node: ast.AST) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "X"
