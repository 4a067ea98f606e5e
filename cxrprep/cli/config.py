"""``cxrprep config``: check job files, show every value and who set it, or begin a file."""

from __future__ import annotations

import shlex
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cxrprep.cli import completers
from cxrprep.cli.help_format import SETTINGS, verb
from cxrprep.cli.options import setting
from cxrprep.config.job import KEYS, named_recipes
from cxrprep.storage.small_files import toml_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cxrprep.cli.context import Invocation


@click.group("config", context_settings=SETTINGS, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Check, show or begin a configuration.

    Later ones override earlier ones: the defaults, your own file, ./cxrprep.toml, the file of --config,
    CXRPREP_ variables, options.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@verb("check", asks=True, examples=(("cxrprep config check configs/*.toml", "every ready-made job file"),))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE...")
def check(invocation: Invocation, files: tuple[Path, ...]) -> int:
    """Read job files and say what is wrong with them: syntax, keys, values, names. Asks no server."""
    from cxrprep.cli.job_check import NO_JOBS, check_job
    from cxrprep.errors import ExitCode, UsageError

    if not files:
        raise UsageError("which file?", hint="cxrprep config check FILE...")
    out = invocation.out
    results = [{"file": str(file), **check_job(file)} for file in files]
    if out.form == "json":
        out.document(results)
    for result in results:
        for warning in result["warnings"]:
            out.note(warning, level="warning")
        if result["error"]:
            hint = f"\n  {result['hint']}" if result["hint"] else ""
            out.note(f"{result['error']}{hint}", level="problem")
        elif out.form == "human":
            out.text(f"{out.symbol('ok', out.stdout)} {result['file']}: {result['summary']}", result)
            if len(files) == 1 and files[0].name not in NO_JOBS and not result["warnings"]:
                then = out.symbol("next", out.stdout)
                out.text(f"  {then} cxrprep run {shlex.quote(result['file'])} --dry-run", result)
    return ExitCode.USAGE if any(result["error"] for result in results) else ExitCode.DONE


@verb(
    "show",
    asks=True,
    examples=(
        ("cxrprep config show", "every value, who set it, and what it means"),
        ("cxrprep config show --changed --config configs/cluster-cron.toml", "only what is not the default"),
    ),
)
@click.option("--changed", is_flag=True, help="only values that somebody set")
def show(invocation: Invocation, changed: bool) -> None:
    """Show every value and who set it, in a form that is itself a job file."""
    settings = invocation.settings
    shown = [
        {"name": key.name, "value": settings.value(key.name), "set_by": settings.origins[key.name], "help": key.help}
        for key in KEYS.values()
        if not changed or settings.origins[key.name] != "default"
    ]
    invocation.out.text(_as_toml(shown) if shown else "# everything is at its default", shown)


@verb(
    "init",
    asks=True,
    examples=(
        ("cxrprep config init nih.toml", "asks for what a job needs: dataset, folder, mirror, recipe"),
        ("cxrprep config init nih.toml --dataset nih-chestxray14 --root /data/nih", "the same without questions"),
        ("cxrprep config init", "./cxrprep.toml, read by every command that is started beside it"),
    ),
)
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@setting("dataset", "--dataset", metavar="NAME", shell_complete=completers.dataset)
@setting("root", "--root", metavar="DIR", shell_complete=completers.folder)
@setting("download.source", "--source", metavar="MIRROR", shell_complete=completers.mirror)
@setting("convert.recipe", "--recipe", metavar="RECIPE", shell_complete=completers.recipe)
@click.option("--force", is_flag=True, help="write over a file that is there")
def init(invocation: Invocation, file: Path | None, force: bool) -> None:
    """Write a job file; at a terminal, ask what it needs.

    FILE holds every key and what it means, and is ready to run: what was not asked for is a comment at its default.
    """
    from cxrprep.errors import UsageError

    path = file or Path("cxrprep.toml")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", hint="name another file, or --force")
    chosen = {name: value for name, (value, _) in invocation.flags.items() if name in _ASKED}
    if invocation.has_person:
        chosen = _ask_for(chosen)
    elif file is not None and "dataset" not in chosen:
        raise UsageError(
            "which dataset is the job about?", hint=f"cxrprep config init {shlex.quote(str(file))} --dataset chexpert"
        )
    path.write_text(template(_resolved(chosen)), encoding="utf-8")
    following = (
        f"cxrprep config check {shlex.quote(str(path))}"
        if chosen.get("dataset")
        else "every command that is started beside it reads it; `cxrprep run` needs a dataset in it too"
    )
    done, step = (invocation.out.symbol(kind, invocation.out.stdout) for kind in ("ok", "next"))
    invocation.out.text(f"{done} Wrote {path}\n  {step} {following}", {"file": str(path)})


# The keys that `config init` asks for, or takes as options.
_ASKED: Final = ("dataset", "root", "download.source", "convert.recipe")
_NONE: Final = "none"


def _resolved(chosen: Mapping[str, str]) -> dict[str, str]:
    """The answers as the file holds them: the dataset by its own name. Raises ``UsageError`` for unknown names."""
    from cxrprep.cli.job_check import check_recipe
    from cxrprep.datasets.catalog import find_dataset
    from cxrprep.errors import UsageError

    values = {name: value for name, value in chosen.items() if value}
    if "dataset" in values:
        spec = find_dataset(values["dataset"])
        values = {"root": spec.name, **values, "dataset": spec.name}
        if not spec.default_mirror and "download.source" not in values:
            raise UsageError(
                f"no mirror of {spec.name} can be listed", hint="name the folder of its files: --source DIR"
            )
    if "convert.recipe" in values:
        check_recipe(values["convert.recipe"])
    return values


def _ask_for(given: Mapping[str, str]) -> dict[str, str]:
    """What a person at the terminal answers; what was given as an option is not asked again."""
    from cxrprep.cli.job_check import check_recipe
    from cxrprep.datasets.catalog import catalog, find_dataset

    answers = dict(given)

    def ask(key: str, question: str, default: str, check: Callable[[str], object] = str) -> None:
        if key not in answers:
            answers[key] = click.prompt(question, default or None, value_proc=partial(_accepted, check), err=True)

    # The large one that asks for no account.
    ask("dataset", f"Dataset ({', '.join(catalog())})", "nih-chestxray14", find_dataset)
    spec = find_dataset(answers["dataset"])
    ask("root", "Folder for it", spec.name)
    places = ", ".join([*dict.fromkeys(mirror.name for mirror in spec.mirror), "an address or a folder"])
    ask("download.source", f"Fetch it from ({places})", spec.default_mirror)
    names = ", ".join(named_recipes())
    ask("convert.recipe", f"Recipe for training images ({names}, none)", "square-224", check_recipe)
    return answers | ({"convert.recipe": ""} if answers["convert.recipe"] == _NONE else {})


def _accepted(check: Callable[[str], object], answer: str) -> str:
    """``answer``, unless ``check`` raises; then ``click`` says why and asks again."""
    from cxrprep.errors import UsageError

    try:
        if answer != _NONE:
            check(answer)
    except UsageError as error:
        raise click.UsageError(f"{error.message}; {error.hint}") from None
    return answer


for _part in (check, show, init):
    command.add_command(_part)


def template(chosen: Mapping[str, str] | None = None) -> str:
    """A job file with every key: those of ``chosen`` are set, the others are comments at their defaults."""
    chosen = chosen or {}
    lines = ["# A job of cxrprep. Check it with `cxrprep config check FILE`, run it with `cxrprep run FILE`.", ""]
    for owner, keys in groupby(KEYS.values(), lambda key: key.name.rpartition(".")[0]):
        lines += ["", f"[{owner}]"] if owner else []
        for key in keys:
            known = ", ".join(filter(None, key.choices))
            value = chosen.get(key.name, "" if key.default is None else key.default)
            written = f"{key.name.rpartition('.')[2]} = {toml_value(value)}"
            lines += [f"# {key.help} ({known})" if known else f"# {key.help}"]
            lines += [written if key.name in chosen else f"# {written}"]
    return "\n".join(lines) + "\n"


def _as_toml(shown: list[dict[str, Any]]) -> str:
    lines: list[str] = []
    for owner, items in groupby(shown, lambda item: item["name"].rpartition(".")[0]):
        lines += ["", f"[{owner}]"] if owner else []
        for item in items:
            name = item["name"].rpartition(".")[2]
            value = f"# {name} is not set" if item["value"] is None else f"{name} = {toml_value(item['value'])}"
            lines += [f"# {item['help']}", f"{value:<40}  # {item['set_by']}"]
    return "\n".join(lines).lstrip("\n")
