"""Help that reads well: options under headings, examples at the end, the same order in every command."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

import click

from cxrprep.cli import options
from cxrprep.cli.context import Invocation, invocation_of
from cxrprep.config.job import KEYS
from cxrprep.storage.paths import is_served, refuse_unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# The commands whose ROOT and --out may lie in an object store.
_TAKE_ADDRESSES: Final = frozenset({"convert"})
_LAST: Final = ("Network", "Engine", "Output")
# Columns for the options, in every section of every command; a longer one has its text on the next line.
_WIDE: Final = 26
# Settings that are a name, or the file of one's own.
_NAME_OR_FILE: Final = frozenset(
    {"convert.recipe", "dataset", "download.then", "labels.imports", "selection.patients", "selection.studies"}
)
_WRITTEN: Final = frozenset({"out", "save_plan"})
_FOLDERS: Final = frozenset({"roots", "folder", "against"})


def _paths(command: click.Command, ctx: click.Context) -> list[click.Parameter]:
    """The parameters that are paths and no settings."""
    found = command.get_params(ctx)
    return [one for one in found if isinstance(one.type, click.Path) and not isinstance(one, options.Setting)]


def _as_typed(value: object, arguments: Sequence[str]) -> str:
    """A path as it was typed: a path object has lost the second of two slashes."""
    typed = (word.partition("=")[2] if word.startswith("--") else word for word in arguments)
    return next((word for word in typed if word and type(value)(word) == value), str(value))  # type: ignore[call-arg]


class Grouped(click.Command):
    """A command that shows its options by section; ``examples`` are commands with what they do."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **attributes: Any) -> None:
        self.examples = tuple(examples)
        super().__init__(*args, **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, unless a path of this machine was given as an address: nothing is begun then."""
        from cxrprep.config.settings import refuse_misplaced, without_name

        invocation = invocation_of(ctx)
        invocation.takes_addresses = self.name in _TAKE_ADDRESSES
        invocation.command = self.name or ""
        for parameter in _paths(self, ctx):
            given = ctx.params.get(parameter.name or "")
            name = parameter.opts[0] if isinstance(parameter, click.Option) else (parameter.name or "").upper()
            for value in given if isinstance(given, tuple) else (given,):
                refuse_unserved("" if value is None else _as_typed(value, invocation.arguments), name)
        for key, (value, option) in invocation.flags.items():
            # Beside a plan, which knows its dataset, one word is the folder.
            if key == "dataset" and "download.from_plan" in invocation.flags and "root" not in invocation.flags:
                key = "root"  # noqa: PLW2901
            if KEYS[key].form != "path" and key not in _NAME_OR_FILE:
                continue
            for text in value if isinstance(value, tuple) else (value,):
                refuse_misplaced(key, without_name(str(text)) if key == "labels.imports" else str(text), option)
        with invocation.leaving_buckets():
            self._open_buckets(ctx, invocation)
            return super().invoke(ctx)

    def _open_buckets(self, ctx: click.Context, invocation: Invocation) -> None:
        """Working copies in the place of addresses among the command's own paths; settings see to theirs."""
        for parameter in _paths(self, ctx):
            name = parameter.name or ""
            if name not in ctx.params:
                continue
            given = ctx.params[name]

            def local(value: Any, name: str = name, parameter: click.Parameter = parameter) -> Any:
                if value is None or not is_served(str(value)):
                    return value
                kind = "folder" if name in _FOLDERS else "file" if "FILE" in (parameter.metavar or "") else ""
                writes = name in _WRITTEN or (name, self.name) == ("file", "init")
                if writes:
                    # ROOT first: what lies in its folder is a part of its working copy, and has no lock of its own.
                    _ = invocation.settings
                return type(value)(invocation.bucket(str(value), writes=writes, kind=kind))

            ctx.params[name] = tuple(map(local, given)) if isinstance(given, tuple) else local(given)

    def sections(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """The options with their help, by heading, in the order of ``--help``: what every command has, at the end."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Output": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                common = {"--config", "--help"} & set(parameter.opts)
                section = getattr(parameter, "section", "Output" if common else "Options")
                # Bounds in click's notation; who breaks them is told in words.
                text = re.sub(r"\s*\[(?:\d+<=)?x[<>]=\d+\]$", "", record[1])
                sections.setdefault(section, []).append((record[0], text))
        order = [name for name in sections if name not in _LAST] + [name for name in _LAST if name in sections]
        return {name: sections[name] for name in order if sections[name]}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section after the other, their columns in line."""
        import textwrap

        # Lines are made here, and kept as they are (``\\b``): click's own break names at their hyphens.
        folded = textwrap.TextWrapper(max(formatter.width - _WIDE - 4, 10), break_on_hyphens=False).fill
        for name, records in self.sections(ctx).items():
            with formatter.section(name):
                rows = [(left.ljust(_WIDE), f"\b\n{folded(right)}") for left, right in records]
                formatter.write_dl(rows, col_max=_WIDE)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, ready to be copied."""
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                indent = " " * formatter.current_indent
                formatter.write("\n".join(f"{indent}# {text}\n{indent}{command}\n" for command, text in self.examples))


def verb(
    name: str, *, examples: Sequence[tuple[str, str]], asks: bool = False
) -> Callable[[Callable[..., Any]], Grouped]:
    """A decorator: the function is the command ``name``, with the options of output that every command has.

    The function gets the ``Invocation`` first, then its own parameters; it returns an exit code, or ``None`` for 0. A
    command that ``asks`` answers even where a job file makes work quiet; ``--quiet`` itself still silences it.
    """

    def decorate(function: Callable[..., Any]) -> Grouped:
        @functools.wraps(function)
        @click.pass_obj
        def call(invocation: Invocation, *args: Any, **parameters: Any) -> Any:
            invocation.asks = asks
            return function(invocation, *args, **parameters)

        decorated = options.output(call)
        made: Grouped = click.command(name, cls=Grouped, examples=examples, context_settings=SETTINGS)(decorated)
        return made

    return decorate
