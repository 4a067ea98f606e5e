"""Writes the reference pages of the documentation from the code, so that they cannot say anything else.

usage: reference.py [--out FOLDER]        FOLDER is docs/reference when none is named

`make docs` calls it; git does not hold what it makes.

Pages: commands, exit codes, configuration, tables, events, vocabulary, recipes, Python, and one for each dataset.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import click  # noqa: E402  # the project comes onto the path first
from reference_datasets import dataset_pages  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

OUT: Final = PROJECT / "docs" / "reference"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    # A cell is one line: what a docstring says in several paragraphs would end the table.
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"


def code(text: str) -> str:
    """``text`` as code, or nothing."""
    return f"`{text}`" if text else ""


def prose(text: str) -> str:
    """A docstring as Markdown: double backquotes become single ones, lines of a paragraph are joined."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text).replace("``", "`"))
    return "\n\n".join(" ".join(part.split()) for part in paragraphs)


# ---- commands ----


def commands_of(group: click.Group, context: click.Context, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, by its full name, in the order of ``--help``."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield f"{prefix} {name}", command
            yield from commands_of(command, context, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def all_commands() -> list[tuple[str, click.Command]]:
    """Every command of the program."""
    from cxrprep.cli.main import cli

    return list(commands_of(cli, click.Context(cli, info_name="cxrprep"), "cxrprep"))


def sections_of(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options of a command with their help, by heading."""
    from cxrprep.cli.help_format import Grouped

    if isinstance(command, Grouped):
        return command.sections(context)
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    return {"Options": [record for record in records if record]}


def commands() -> str:
    """Every command with all its options and examples."""
    from cxrprep.cli.help_format import Grouped
    from cxrprep.cli.main import COMMANDS

    lines = [
        "# Commands\n",
        (
            "Every command takes `--json`, `--quiet`, `--events jsonl`, `--color`, `--log-file`, `--config` and "
            "`--help`; they are described once, at the end. An option can also stand in a [job "
            "file](configuration.md) or in a `CXRPREP_` variable.\n"
        ),
    ]
    for heading, members in COMMANDS.items():
        rows = [[f"[`cxrprep {name}`](#cxrprep-{name})", text] for name, (_, text) in members.items()]
        lines += [f"**{heading}**\n", table(["command", "what it does"], rows)]
    common: list[tuple[str, str]] = []
    for name, command in all_commands():
        context = click.Context(command, info_name=name)
        words = " ".join(command.collect_usage_pieces(context))
        lines += [f"## {name}\n", f"```text\n{name} {words}\n```\n", prose(command.help or "") + "\n"]
        for heading, records in sections_of(command, context).items():
            if heading == "Output":
                common = records
            elif records and not isinstance(command, click.Group):
                lines += [f"**{heading}**\n", table(["option", "meaning"], [[code(o), t] for o, t in records])]
        if isinstance(command, Grouped) and command.examples:
            shown = "\n\n".join(f"# {text}\n{line}" for line, text in command.examples)
            lines.append(f"```sh\n{shown}\n```\n")
    lines += ["## Options of every command\n", table(["option", "meaning"], [[code(o), t] for o, t in common])]
    return "\n".join(lines)


# ---- exit codes and errors ----


def exit_codes() -> str:
    """What a process says when it ends."""
    from cxrprep import errors
    from cxrprep.cli.output import MEANINGS

    rows = [[str(int(exit_code)), f"`{exit_code.name}`", MEANINGS[exit_code]] for exit_code in errors.ExitCode]
    order = ", ".join(str(int(exit_code)) for exit_code in errors._PRECEDENCE)  # noqa: SLF001  # the rule itself
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CxrprepError) and kind is not errors.CxrprepError
    ]
    kinds.sort(key=lambda kind: (int(kind.exit_code), kind.__name__))
    raised = [[f"`{kind.__name__}`", str(int(kind.exit_code)), prose(kind.__doc__ or "")] for kind in kinds]
    return "\n".join(
        [
            "# Exit codes\n",
            "A script or a cron job can act on the exit code alone.\n",
            table(["code", "name", "meaning, and what to do"], rows),
            f"When several apply, the one on which a person must act is given: the first of {order} that is there.\n",
            (
                "`verify` gives 4 for a file that is missing, altered or unreadable, for a patient in two splits, "
                "and for a published fact that does not hold. A known quirk, a known mismatch of a mirror and an "
                "unproven file are notes and give 0, unless `--strict` is named.\n"
            ),
            "## Errors in Python\n",
            (
                "Every error that cxrprep raises on purpose is a `cxrprep.errors.CxrprepError` with a `message`, a "
                "`hint` (the next step) and an `exit_code`.\n"
            ),
            table(["class", "exit code", "raised when"], raised),
        ]
    )


# ---- configuration ----

_KINDS: Final = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list of text",
    "dict[str, str]": "table of text",
    "int | None": "whole number",
}


def _options_by_key() -> dict[str, list[str]]:
    from cxrprep.cli.options import Setting

    found: dict[str, list[str]] = {}
    for _, command in all_commands():
        for parameter in command.params:
            if isinstance(parameter, Setting):
                name = max(parameter.opts, key=len)
                if name not in found.setdefault(parameter.key, []):
                    found[parameter.key].append(name)
    return found


def configuration() -> str:
    """Every key of a job file."""
    from cxrprep.config.job import KEYS
    from cxrprep.config.settings import FOUND_FILE_KEYS, OTHER_VARIABLES
    from cxrprep.storage.small_files import toml_value

    options = _options_by_key()
    lines = [
        "# Job files and settings\n",
        (
            "A job file, your own file, `./cxrprep.toml`, the environment and the options of a command all set the "
            "same keys. The later of these wins:\n"
        ),
        (
            "1. the default\n"
            "2. your own file, `$XDG_CONFIG_HOME/cxrprep/config.toml` (`~/.config/cxrprep/config.toml` on Linux)\n"
            "3. `cxrprep.toml` in the folder where the command is started; anybody may have put it there, so it "
            f"chooses only {', '.join(code(name) for name in KEYS if name in FOUND_FILE_KEYS)}, "
            "and a mirror by its name (`download.source`). None of these may be an address there, nor a dataset or "
            "recipe the path of a file. `--config cxrprep.toml` makes it a file that you named\n"
            "4. the file of `--config`, of `cxrprep run FILE`, or of `CXRPREP_CONFIG`\n"
            "5. `CXRPREP_` variables\n"
            "6. options\n"
        ),
        (
            "`cxrprep config show` prints every value and who set it. `cxrprep config check FILE` finds what is "
            "wrong with a file, with its line. `cxrprep config init FILE` writes one with every key in it.\n"
        ),
        "Paths may hold `~` and `$VARIABLES`; relative paths start where the command is started.\n",
    ]
    section = None
    rows: list[list[str]] = []
    headings = ["key", "type", "default", "meaning", "option"]

    def finished() -> list[str]:
        return [table(headings, rows)] if rows else []

    for key in KEYS.values():
        owner, _, name = key.name.rpartition(".")
        if owner != section:
            lines += finished()
            rows = []
            section = owner
            lines.append(f"## {f'[{owner}]' if owner else 'At the top'}\n")
        known = ", ".join(code(choice) for choice in key.choices if choice)
        meaning = f"{key.help}; one of {known}" if known and not key.kind.startswith("tuple") else key.help
        default = "not set" if key.default in (None, "") else code(toml_value(key.default))
        rows.append(
            [code(name), _KINDS[key.kind], default, meaning, ", ".join(code(o) for o in options.get(key.name, []))]
        )
    lines += finished()
    lines += [
        "## Environment variables\n",
        (
            "Every key has a variable: `CXRPREP_`, the section and the key, in capitals, such as "
            f"`{KEYS['download.limit_rate'].variable}` or `{KEYS['labels.uncertain'].variable}`. "
            "Lists are written with commas.\n"
        ),
        table(["variable", "meaning"], [[code(name), text] for name, text in OTHER_VARIABLES.items()]),
    ]
    return "\n".join(lines)


# ---- tables ----


def _kind(value: Any) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(value):
        return "category"
    if pa.types.is_struct(value):
        return "struct of " + ", ".join(f"{field.name} {_kind(field.type)}" for field in value)
    if pa.types.is_list(value):
        return f"list of {_kind(value.value_type)}"
    return str(value)


def _fields(schema: Iterable[Any]) -> str:
    rows = []
    for field in schema:
        about = (field.metadata or {}).get(b"description", b"").decode()
        rows.append([code(field.name), _kind(field.type), "no" if not field.nullable else "yes", about])
    return table(["column", "type", "null", "what it holds"], rows)


def tables() -> str:
    """The schemas of everything that is written as Parquet."""
    from cxrprep import schemas
    from cxrprep.labels.nlp import output_tables as reports
    from cxrprep.record import file_table as record
    from cxrprep.storage import parquet

    names = ("Edema", "Pleural Effusion")
    return "\n".join(
        [
            "# Tables\n",
            (
                "Everything is Parquet. Every field carries its description in its metadata, and every file says in "
                "its footer (key `cxrprep`) which schema, tool and source tables it was made from.\n"
            ),
            (
                f"The schemas are version {parquet.SCHEMA_VERSION}: a later version may add columns; it renames none "
                "and changes no meaning. A `category` is text, stored as a dictionary. A label is an `int8`: 1 "
                "positive, 0 negative, -1 uncertain, null when the source does not say.\n"
            ),
            "## manifests/images.parquet\n",
            "The manifest: a row for each image that is here, with the labels of one source.\n",
            _fields(schemas.IMAGES),
            "## derived/RECIPE/manifests/images.parquet\n",
            (
                "For converted images: every column of `manifests/images.parquet`, then these. `path`, `width`, "
                "`height`, `boxes` and the spacing are those of the converted image.\n"
            ),
            _fields(schemas.DERIVED_FIELDS),
            "## manifests/labels.parquet\n",
            (
                "A row for each image and label source that the release's tables name, whether the image is here or "
                "not. Behind these columns stand the release's own, as text, each called `raw_` and its name.\n"
            ),
            _fields(schemas.LABELS),
            "## manifests/studies.parquet\n",
            (
                "A row for each study that has an image here. Labels of a study's images are joined by rank: 1, then "
                "-1, then 0, then null.\n"
            ),
            _fields(schemas.STUDIES),
            "## manifests/report_labels.parquet\n",
            f"Labels of free-text reports, a row per report; shown for {' and '.join(names)}, all others alike.\n",
            _fields(reports.labels_schema(names)),
            "## manifests/mentions.parquet\n",
            "With `--evidence`: a row per mention. This is the one table that holds words of reports.\n",
            _fields(reports.MENTIONS),
            "## manifests/verify.parquet\n",
            "What the last `verify` found.\n",
            _fields(schemas.VERIFY),
            "## manifests/failures.parquet\n",
            "What failed in the last run; there when something did.\n",
            _fields(schemas.FAILURES),
            "## cxrprep.files.parquet\n",
            "The record: a row for each file that was fetched or adopted.\n",
            _fields(record.schema()),
        ]
    )


# ---- events ----


def events() -> str:
    """The events of the library, which are the lines of ``--events jsonl`` too."""
    from cxrprep import events as module
    from cxrprep.cli.progress import EVENT_VERSION, event_record

    lines = [
        "# Events\n",
        (
            "The verbs of the library say what they do as events: pass `on_event=`, a callable that takes one, "
            "called from several threads. On the command line `--events jsonl` writes each as one JSON object a line "
            "to standard error.\n"
        ),
        (
            f"Each line has `v` (the format, {EVENT_VERSION}), `time` (UTC) and `event` (the name below), then the "
            "fields of the event:\n"
        ),
    ]
    example = event_record(module.StageStarted("download", 12, 45_079_862_784))
    example["time"] = "2026-11-25T02:30:00.000+00:00"
    import json

    lines += [f"```json\n{json.dumps(example)}\n```\n", prose(module.__doc__ or "") + "\n"]
    lines.append(
        "A line with the event `Error` comes last when a command fails: `type`, `message`, `hint`, `exit_code`.\n"
    )
    for kind in vars(module).values():
        if not (inspect.isclass(kind) and dataclasses.is_dataclass(kind)):
            continue
        inherited = {f.name for f in dataclasses.fields(module.Event)} if kind is not module.Event else set()
        rows = []
        for field in dataclasses.fields(kind):
            if field.name not in inherited:
                default = "" if field.default is dataclasses.MISSING else code(json.dumps(field.default))
                rows.append([code(field.name), code(str(field.type)), default])
        lines += [f"## {kind.__name__}\n", prose(kind.__doc__ or "") + "\n"]
        lines += [table(["field", "type", "default"], rows)] if rows else []
    return "\n".join(lines)


# ---- vocabulary ----


def vocabulary() -> str:
    """Published names, unified observations, and what is lost between them."""
    from cxrprep.labels import policy
    from cxrprep.labels.policy import Blank, Uncertain
    from cxrprep.vocabulary import OBSERVATIONS, PRESETS, VOCABULARIES, published_name

    implies = policy._IMPLIES  # noqa: SLF001  # the rule itself
    homes: dict[str, list[str]] = {stem: [] for stem in OBSERVATIONS}
    for known in VOCABULARIES.values():
        for term in known.terms:
            homes[term.stem].append(known.name)
    unified = [
        [published_name(stem), f"`label_{stem}`", meaning, ", ".join(homes[stem])]
        for stem, meaning in OBSERVATIONS.items()
    ]
    lines = [
        "# Vocabulary\n",
        (
            "One vocabulary for all collections. A name is never derived from another unless `--derive` asks for it, "
            "and where two names do not mean quite the same, the loss is stated.\n"
        ),
        table(["observation", "column", "1 says that", "named by"], unified),
    ]
    for known in VOCABULARIES.values():
        rows = [[term.name, f"`{term.column}`", term.loss or "none"] for term in known.terms]
        lines += [f"## {known.title}\n", table([f"name in {known.name}", "column", "what is lost"], rows)]
        if known.no_finding:
            lines.append(f"**No Finding** here is {known.no_finding}\n")
    parents = [
        [published_name(parent), ", ".join(published_name(c) for c in children)] for parent, children in implies.items()
    ]
    lines += [
        "## Derived observations\n",
        (
            "With `--derive`, a positive observation on the right makes a null on the left positive. Nothing else is "
            "filled.\n"
        ),
        table(["is made positive", "by a positive"], parents),
        "## Policies\n",
        "What a label becomes on export and load; `labels.parquet` itself never changes.\n",
        table(["`--uncertain`", "-1"], [[code(m.value), _member_text(Uncertain, m.name)] for m in Uncertain]),
        table(["`--blank`", "null"], [[code(m.value), _member_text(Blank, m.name)] for m in Blank]),
        "## Named lists\n",
        "For `observations=` in Python.\n",
        table(["name", "observations"], [[code(name), ", ".join(members)] for name, members in PRESETS.items()]),
    ]
    return "\n".join(lines)


def _member_text(kind: type[Any], member: str) -> str:
    """The words below a member of an enumeration, which Python itself does not keep."""
    source = inspect.getsource(kind)
    found = re.search(rf'^    {member} = .*\n    """(.*?)"""', source, re.MULTILINE)
    assert found is not None, member
    return prose(found[1])


# ---- recipes ----


def recipes() -> str:
    """The named recipes, and the steps of which one's own are made."""
    from cxrprep.config.job import named_recipes
    from cxrprep.images.recipe import load_recipe
    from cxrprep.images.transforms import STEPS
    from cxrprep.storage.small_files import toml_value

    lines = [
        "# Recipes\n",
        "`cxrprep convert ROOT --recipe NAME` takes one of these, or the path of your own TOML file.\n",
    ]
    loaded = [load_recipe(name) for name in named_recipes()]
    lines.append(table(["name", "what it makes"], [[f"[`{r.name}`](#{r.name})", r.summary] for r in loaded]))
    for recipe in loaded:
        text = (PROJECT / "cxrprep" / "images" / "recipes" / f"{recipe.name}.toml").read_text(encoding="utf-8").strip()
        exact = "" if recipe.exact else " It trades a stated error for speed."
        about = f"Fingerprint `{recipe.fingerprint()}`, which changes when the pixels could.{exact}"
        lines += [f"## {recipe.name}\n", f"{about}\n", f"```toml\n{text}\n```\n"]
    lines += [
        "## Steps\n",
        (
            "The order is yours: steps of the grey scale (`voi`, `stretch`, `polarity`) come first, geometry and 8-bit "
            "steps follow. A step with a wrong option is refused when the recipe is read, before any image is.\n"
        ),
    ]
    for name, kind in STEPS.items():
        rows = [
            [
                code(f.name),
                code(str(f.type)),
                "" if f.default is dataclasses.MISSING else _default(toml_value, f.default),
            ]
            for f in dataclasses.fields(kind)
        ]
        lines += [f"### {name}\n", prose(kind.__doc__ or "") + "\n"]
        lines += [table(["option", "type", "default"], rows)] if rows else []
    return "\n".join(lines)


def _default(toml_value: Any, value: Any) -> str:
    return "not set" if value is None else code(toml_value(value))


# ---- Python ----


def python() -> str:
    """The public names of the package."""
    import cxrprep
    from cxrprep.api.result import Result
    from cxrprep.manifest.load import Dataset
    from cxrprep.model import Selection

    lines = ["# Python\n", prose(cxrprep.__doc__ or "").split("\n\n", 1)[1] + "\n"]
    for name in cxrprep.__all__:
        thing = getattr(cxrprep, name)
        if inspect.isfunction(thing):
            lines += [f"## {name}\n", _signature(f"cxrprep.{name}", thing), prose(thing.__doc__ or "") + "\n"]
    for kind, heading in ((Selection, "Selection"), (Result, "Result"), (Dataset, "Dataset")):
        lines += [f"## {heading}\n", prose(kind.__doc__ or "") + "\n"]
        if kind is Selection:
            rows = [[code(f.name), code(str(f.type))] for f in dataclasses.fields(kind)]
            lines.append(table(["field", "type"], rows))
        if kind is Result:
            lines.append(_signature("Result.to_dict", Result.to_dict))
        if kind is Dataset:
            for name, member in vars(kind).items():
                if inspect.isfunction(member) and not name.startswith("_"):
                    lines += [f"### Dataset.{name}\n", _signature(f"Dataset.{name}", member)]
                    lines.append(prose(member.__doc__ or "") + "\n")
    return "\n".join(lines)


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    shown, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        default = parameter.default
        words = (
            f"{parameter.name}: {parameter.annotation}"
            if parameter.annotation is not parameter.empty
            else parameter.name
        )
        if default is not parameter.empty:
            value = default.__name__ if inspect.isfunction(default) else repr(default)
            # A value of ours stands at its default too.
            words += f" = {type(default).__name__}()" if dataclasses.is_dataclass(default) else f" = {value}"
        shown.append(words)
    body = "\n" + "".join(f"    {word},\n" for word in shown) if len(shown) > 2 else ", ".join(shown)
    return f"```python\n{name}({body}) -> {signature.return_annotation}\n```\n"


# ---- all of them ----


def pages() -> dict[str, str]:
    """Path below ``docs/reference`` to text."""
    made = {
        "commands.md": commands(),
        "exit-codes.md": exit_codes(),
        "configuration.md": configuration(),
        "tables.md": tables(),
        "events.md": events(),
        "vocabulary.md": vocabulary(),
        "recipes.md": recipes(),
        "python.md": python(),
        **dataset_pages(),
    }
    note = "<!-- Made from the code by tools/reference.py; change the code. -->\n\n"
    return {name: note + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for name, text in made.items()}


def write(out: Path = OUT) -> None:
    """Write the pages into ``out``; one that is right already keeps its time, so that Sphinx reads it once."""
    for name, text in pages().items():
        path = out / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def main() -> int:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER")
    write(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
