"""The command ``cxrprep``: commands imported when they are called, signals (Ctrl-C), exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import click

from cxrprep._version import __version__
from cxrprep.cli.context import Invocation
from cxrprep.cli.output import lead_nowhere
from cxrprep.credentials.secret import withdraw
from cxrprep.errors import FAILING, FAILING_HINT, CxrprepError, ExitCode, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

# heading -> command -> (module, one line of help). The line stands here so that `cxrprep --help` imports no command.
COMMANDS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "The job, step by step": {
        "download": ("download", "fetch a dataset, or a part of it, and check every byte"),
        "verify": ("verify", "check the files of a folder against checksums and published facts"),
        "extract-labels": ("extract_labels", "read label tables or reports: each finding 1, 0, -1 or null"),
        "convert": ("convert", "make training images by a named recipe"),
        "manifest": ("manifest", "build the Parquet manifest again"),
        "export": ("export", "export the manifest as CSV, COCO, WebDataset, ..."),
        "pairs": ("pairs", "images with their reports by sections, one row per study or image"),
        "duplicates": ("duplicates", "find copies of an image, and one patient under two names"),
        "digest": ("digest", "64 digits that name a training set, for a paper"),
        "prove": ("prove", "check a folder, or one image, against such a digest"),
    },
    "The whole job, and how it stands": {
        "run": ("run", "do all steps of a job file, skipping what is done"),
        "status": ("status", "what is here, missing or partial, and what comes next"),
        "report": ("report", "one HTML page about a folder: counts, labels, images"),
    },
    "Ask": {
        "datasets": ("datasets", "the datasets: size, places, access, licence, citation"),
        "explain": ("explain", "label one report and show the reason for each label"),
        "doctor": ("doctor", "check this machine, credentials and network"),
        "config": ("config", "check, show or begin a configuration"),
        "completion": ("completion", "completion for bash, zsh or fish"),
    },
}

_START = """\
Download, check, label and convert the public chest X-ray collections:
CheXpert, MIMIC-CXR, NIH ChestX-ray14 and others.

\b
Begin with:
  cxrprep datasets            what there is, and how to get access
  cxrprep doctor              what this machine and your logins still lack
  cxrprep COMMAND --help      options and examples
A first look that needs no account:
  cxrprep download nih-chestxray14 --limit 100 --dry-run
"""


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the same as Ctrl-C for everyone on the way, another exit code at the end."""


class _Stopped(BaseException):
    """The run was ended by a signal."""

    def __init__(self, *, terminated: bool) -> None:
        super().__init__()
        self.terminated = terminated


class Lazy(click.Group):
    """A group that knows its commands from the table alone and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        del ctx
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called ``cmd_name``, imported now; ``None`` when there is none."""
        del ctx
        for commands in COMMANDS.values():
            if cmd_name in commands:
                module = importlib.import_module(f"cxrprep.cli.{commands[cmd_name][0]}")
                command: click.Command = module.command
                # The shell's completion shows the same line as the table.
                command.short_help = commands[cmd_name][1]
                return command
        return None

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """The context of a call. Of help that nobody reads click makes exit code 1, by the error's number."""
        try:
            return super().make_context(*args, **more)
        except BrokenPipeError:
            raise BrokenPipeError from None

    def invoke(self, ctx: click.Context) -> Any:
        """What the command gives. An interrupt is passed on as it is: click's own word for it knows no SIGTERM."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Stopped(terminated=isinstance(stop, _Terminated)) from None
        except BrokenPipeError:
            raise BrokenPipeError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, by headings, in columns that line up over all of them."""
        del ctx
        width = max(len(name) for commands in COMMANDS.values() for name in commands)
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])


@click.group(
    cls=Lazy,
    help=_START,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="cxrprep %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Show the help when no command is named; otherwise leave everything to the command."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _on_signals() -> None:
    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        # A second signal means at once; every file is safe at any moment, so nothing is lost.
        signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
        signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.TERMINATED))
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    # The terminal or the login has gone. Under nohup the signal is ignored, and stays so.
    if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, end)


# What people type who know other programs.
_WORDS: Final = {"help": "--help", "version": "--version"}


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit code. Nothing is raised: every error is said on standard error."""
    if arguments and arguments[0] in _WORDS:
        arguments = [*arguments[1:2], _WORDS[arguments[0]]]
    invocation = Invocation(arguments)
    try:
        answer: Any = cli.main(list(arguments), prog_name="cxrprep", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
        code = answer if isinstance(answer, int) else int(ExitCode.DONE)
    except BaseException as error:  # noqa: BLE001  # the last frame: everything is turned into an exit code
        code = _report(invocation, error)
    return code


def _report(invocation: Invocation, error: BaseException) -> int:
    out = invocation.safe_out
    if isinstance(error, BrokenPipeError):
        # `cxrprep --help | head -1` has what it wanted.
        return int(ExitCode.DONE)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(ExitCode.BUG)
    if isinstance(error, KeyboardInterrupt | click.Abort | _Stopped):
        terminated = isinstance(error, _Terminated) or (isinstance(error, _Stopped) and error.terminated)
        return _interrupted(invocation, ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED)
    if os.environ.get("CXRPREP_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        listed = "lists the commands" if context and isinstance(context.command, click.Group) else "shows every option"
        hint = f"{context.command_path} --help {listed}" if context else ""
        return out.error(_click_message(error, invocation.arguments), hint=hint, code=ExitCode.USAGE, kind="UsageError")
    if isinstance(error, CxrprepError):
        return out.raised(error, hint=_of_this_folder(invocation, error.hint))
    if limit := _limit_of(error):
        return out.error(limit[0], hint=limit[1], code=ExitCode.STORAGE, kind="StorageError")
    if named := _no_place_in(error):
        return out.error(named[0], hint=named[1], code=ExitCode.USAGE, kind="UsageError")
    # An extra that is missing raises an error of its own.
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("cxrprep"):
        missing = error.name.partition(".")[0]
        return out.error(
            f"the Python package {missing} is needed and not installed in {sys.prefix}",
            hint="install cxrprep again there, which adds what it needs (pip install . in its checkout); "
            f"where code of your own asks for {missing}, install that",
            code=ExitCode.USAGE,
            kind="UsageError",
        )
    path = invocation.log.crash(error) if "settings" in invocation.__dict__ else None
    details = f"please report it, with {path}, to" if path else "please report it to"
    return out.error(
        f"{type(error).__name__}: {error} (a bug in cxrprep)",
        hint=f"{details} the people who gave you cxrprep; finished files are safe, and the command may be run again; "
        "CXRPREP_DEBUG=1 prints the traceback",
        code=ExitCode.BUG,
        kind=type(error).__name__,
    )


# A command of a hint whose folder is the one at hand.
_ROOT: Final = re.compile(r"(cxrprep (?!download|datasets)[a-z-]+ )ROOT\b")


def _of_this_folder(invocation: Invocation, hint: str) -> str:
    """``hint`` with the folder of this run in its commands, ready to be pasted; as it is where none is known."""
    if "settings" not in invocation.__dict__ or not _ROOT.search(hint):
        return hint
    try:
        where = invocation.where
    except CxrprepError:
        return hint
    return _ROOT.sub(lambda found: found[1] + where, hint)


# How click quotes what was typed in place of one of several words, and of a command.
_TYPED: Final = re.compile(r"'(.*?)' is not one of")
_NO_COMMAND: Final = re.compile(r"No such command '(.*?)'")


def _click_message(error: click.ClickException, arguments: Sequence[str]) -> str:
    if isinstance(error, click.NoSuchOption):
        where = error.ctx.command_path if error.ctx else "cxrprep"
        if error.option_name in ("-v", "--verbose"):
            return f"{where} has no option {error.option_name}: the log file has every detail; -V is --version"
        if name := _command_with(error, arguments):
            return f"{error.option_name} comes after the command: cxrprep {name} {error.option_name}"
        # The nearest one is enough: a list of guesses is read by nobody.
        known = (
            [name for one in error.ctx.command.params for name in (*one.opts, *one.secondary_opts)] if error.ctx else ()
        )
        near = did_you_mean(error.option_name, known)
        return f"{where} has no option {error.option_name}; {near}".rstrip("; ")
    if isinstance(error, click.MissingParameter) and error.param is not None:
        parameter = error.param
        names = parameter.opts if isinstance(parameter, click.Option) else [parameter.human_readable_name.upper()]
        kind = parameter.type
        choices = f"; one of {', '.join(kind.choices)}" if isinstance(kind, click.Choice) else ""
        return f"{names[0]} is missing{choices}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        kind = error.param.type
        if isinstance(kind, (type(click.INT), type(click.FLOAT))):
            number = "whole number" if isinstance(kind, type(click.INT)) else "number"
            least = getattr(kind, "min", None)
            return f"{error.param.opts[0]}: it takes a {number}" + (f" from {least}" if least is not None else "")
        if not isinstance(kind, click.Choice):
            return error.format_message()
        known, typed = kind.choices, _TYPED.match(error.message)
        name = error.param.opts[0] if isinstance(error.param, click.Option) else (error.param.name or "").upper()
        near = did_you_mean(typed[1], known) if typed else ""
        return f"{name}: {error.message.rstrip('.')}; {near}".rstrip("; ")
    if isinstance(error, click.UsageError) and error.ctx and (wrong := _NO_COMMAND.match(error.message)):
        near = did_you_mean(wrong[1], cast("click.Group", error.ctx.command).list_commands(error.ctx))
        return f"there is no command {wrong[1]!r}; {near}".rstrip("; ")
    return error.format_message()


def _command_with(error: click.NoSuchOption, arguments: Sequence[str]) -> str:
    """The command of this line, where it has the option that was written before it; else nothing."""
    group = error.ctx.command if error.ctx else None
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = group.get_command(error.ctx, name) if isinstance(group, Lazy) and error.ctx else None
    return name if command and any(error.option_name in one.opts for one in command.params) else ""


def _limit_of(error: BaseException) -> tuple[str, str] | None:
    """What this machine gives too little of, and what helps; ``None`` where it is none of that."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "this process may not open more files",
            "allow more of them (ulimit -n 1024), then run the same command again",
        )
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return (
            "there is not enough memory",
            "give it more (ulimit -v, the scheduler's limit) or take fewer workers: -j 1",
        )
    if isinstance(error, OSError) and error.errno in _STORAGE | FAILING:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = f"{'free some space' if is_full else 'make it readable and writable'}, then run the same command again"
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", FAILING_HINT if error.errno in FAILING else hint
    return None


def _no_place_in(error: BaseException) -> tuple[str, str] | None:
    """Which path leads nowhere, and what helps; ``None`` where it is none of that."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP):
        name = str(error.filename or "")
        shown = name if len(name) < 100 else f"{name[:60]}...{name[-30:]}"
        return f"{shown}: {error.strerror}", "choose another name"
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return str(error), "choose another name, or remove that link"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        hint = "set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_CACHE_HOME, to folders of yours"
        return "no home folder is known for this user", hint
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        shown = error.object.encode("utf-8", "backslashreplace").decode()
        return f"{shown[:200]}: a name that is not in UTF-8", "rename it: no table could hold that name"
    return None


# Disk full, quota, read-only, not permitted: the local disk, wherever it was noticed.
_STORAGE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def _interrupted(invocation: Invocation, code: ExitCode) -> int:
    from cxrprep.cli.log_file import shown_command

    if "status" in invocation.arguments[:1]:
        # It made nothing that could be kept, and Ctrl-C is how a person leaves status --watch.
        return int(code)
    word = "Terminated" if code is ExitCode.TERMINATED else "Interrupted"
    return invocation.safe_out.error(
        f"{word}. Finished files and partial files are kept.",
        hint=f"go on with the same command: {shown_command(invocation.arguments)}",
        code=code,
        kind=word,
    )


def main() -> NoReturn:
    """What the program does, whatever started it."""
    for stream in (sys.stdout, sys.stderr):
        # A console that lacks a character shows a substitute; it is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    withdraw()
    _on_signals()
    code = run(sys.argv[1:])
    lead_nowhere(sys.stdout, sys.stderr)
    sys.exit(code)
