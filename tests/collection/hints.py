"""The commands that messages name, read by the parser of the command line: an option that is none is a fault."""

from __future__ import annotations

import re
import shlex
from typing import Final

import click

from cxrprep.cli.main import COMMANDS, cli

NAMES: Final = tuple(name for group in COMMANDS.values() for name in group)
_VERB: Final = "|".join(NAMES)
# A command ends where the sentence goes on.
_END: Final = r"[;,)`]|\.\s|\.$| \(|: |$| or: | and | then "
_COMMAND: Final = re.compile(rf"\bcxrprep ((?:{_VERB})\b(?:(?!{_END}).)*)", re.MULTILINE)

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
        with found.make_context(words[0], words[1:], parent=context):
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
