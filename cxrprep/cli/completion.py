"""``cxrprep completion``: the script that teaches a shell our commands, options, datasets and recipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cxrprep.cli.help_format import verb

if TYPE_CHECKING:
    from cxrprep.cli.context import Invocation

# shell -> where the script belongs, so that new shells find it.
_HOMES: Final = {
    "bash": "cxrprep completion bash > ~/.local/share/bash-completion/completions/cxrprep",
    "zsh": "cxrprep completion zsh > ~/.zfunc/_cxrprep   (with fpath+=~/.zfunc before compinit in ~/.zshrc)",
    "fish": "cxrprep completion fish > ~/.config/fish/completions/cxrprep.fish",
}


@verb(
    "completion",
    asks=True,
    examples=(
        ('eval "$(cxrprep completion bash)"', "for this shell only"),
        (_HOMES["bash"], "for every new bash"),
        (_HOMES["fish"], "for every new fish"),
    ),
)
@click.argument("shell", required=False, type=click.Choice(tuple(_HOMES)), metavar="[bash|zsh|fish]")
def command(invocation: Invocation, shell: str | None) -> None:
    """Print the completion script of a shell; without a name, of the one that runs now."""
    from click.shell_completion import get_completion_class

    from cxrprep.cli.main import cli
    from cxrprep.errors import UsageError

    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _HOMES else None
    if kind is None:
        raise UsageError(f"no completion for the shell {name!r}", hint=f"known: {', '.join(_HOMES)}")
    script = kind(cli, {}, "cxrprep", "_CXRPREP_COMPLETE").source()
    # click 8.5's script for fish cuts a value at its first comma, as lists have them.
    script = script.replace('(string split "," $completion)', '(string split -m 1 "," $completion)')
    invocation.out.text(script, {"shell": name, "script": script})
    if invocation.out.stdout.isatty():
        invocation.out.note(f"To keep it: {_HOMES[name]}")
