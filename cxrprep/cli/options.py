"""Options, bound to settings: an option says which setting it sets, and the settings know its type and its help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from cxrprep.cli import completers
from cxrprep.cli.context import invocation_of
from cxrprep.config.job import KEYS
from cxrprep.errors import UsageError
from cxrprep.storage.paths import home_path, refuse_address

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

# Globs may hold commas; every other list may be written with them.
_UNDIVIDED: Final = frozenset({"selection.include", "selection.exclude"})


class Setting(click.Option):
    """An option that sets one setting. ``section`` is the heading under which ``--help`` shows it."""

    def __init__(self, *declarations: Any, key: str, section: str, **attributes: Any) -> None:
        self.key = key
        self.section = section
        super().__init__(*declarations, callback=self._take, expose_value=False, **attributes)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The row of ``--help``; the ``--no-`` form of a switch is understood and not shown."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        return record[0].partition(" / ")[0], record[1]

    def _take(self, ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if parameter.name and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            if isinstance(value, tuple):
                if self.key not in _UNDIVIDED:
                    value = tuple(word.strip() for text in value for word in text.split(","))
                value = tuple(word for word in value if word.strip())
            if value in ("", ()):
                # A script's variable that is not set: to take it for no condition could mean the whole release.
                raise UsageError(f"{self.opts[0]} is empty", hint="leave it out, or give it a value")
            flags = invocation_of(ctx).flags
            if self.key == "output.format" and flags.get(self.key, ("",))[0] == "json":
                # --json --quiet: a document is asked for, and nothing beside it is said anyway.
                return value
            flags[self.key] = (value, self.opts[0])
        return value


def setting(
    key: str, *declarations: str, section: str = "Options", metavar: str | None = None, text: str = "", **more: Any
) -> Callable[[F], F]:
    """A decorator: the option ``declarations`` sets ``key``; type, choices and help come from the setting.

    Args:
        key: the setting's name in a job file, such as ``download.source``.
        declarations: the option's names, as click takes them.
        section: the heading that the help lists it under.
        metavar: the word for its value in the help.
        text: help in place of the setting's own.
        more: further attributes of the click option.

    Returns:
        the decorator.
    """
    about = KEYS[key]
    kind = about.kind.partition(" ")[0]
    attributes: dict[str, Any] = {"help": text or about.help, "default": None, "metavar": metavar, **more}
    if kind == "bool":
        switch = declarations[-1]
        declarations = (*declarations[:-1], f"{switch}/--no-{switch.removeprefix('--')}")
    elif kind in ("int", "float"):
        attributes["type"] = int if kind == "int" else float
    elif about.choices and "type" not in more:
        choices = [choice for choice in about.choices if choice]
        attributes["type"] = click.Choice(choices)
        attributes["metavar"] = metavar or "|".join(choices)
    if isinstance(attributes.get("type"), click.Choice):
        attributes["metavar"] = attributes["metavar"] or "|".join(attributes["type"].choices)
    attributes["multiple"] = kind.startswith("tuple")
    attributes["metavar"] = attributes["metavar"] or {"int": "N", "float": "SECONDS"}.get(kind)
    return click.option(*declarations, cls=Setting, key=key, section=section, **attributes)


def path(name: str, metavar: str, text: str, **more: Any) -> Callable[[F], F]:
    """A decorator: the option ``name`` is a path of this call alone, and no setting."""
    return click.option(name, type=click.Path(path_type=Path), metavar=metavar, help=text, **more)


def _allow(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    invocation_of(ctx).allow_loss = value


# No setting: what a job file says once for all nights was not asked for tonight.
allow_loss = click.option(
    "--allow-loss",
    is_flag=True,
    expose_value=False,
    callback=_allow,
    help="allow a table to be replaced by one with less in it: fewer rows, labels, boxes, splits or digests",
)


def several(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Decorators as one, in reading order."""

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _keep(key: str, name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def take(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        del parameter
        if value is not None:
            invocation_of(ctx).flags[key] = (str(value), name)
        return value

    return take


def _keep_config(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    del parameter
    if value is not None:
        refuse_address(str(value), "--config")
        invocation_of(ctx).config = value
    return value


root = click.argument(
    "root",
    required=False,
    type=click.Path(),
    expose_value=False,
    callback=_keep("root", "ROOT"),
    metavar="[ROOT]",
    shell_complete=completers.folder,
)
dataset_argument = click.argument(
    "dataset",
    required=False,
    expose_value=False,
    callback=_keep("dataset", "DATASET"),
    metavar="DATASET",
    shell_complete=completers.dataset,
)
dataset = setting(
    "dataset",
    "--dataset",
    metavar="NAME",
    shell_complete=completers.dataset,
    text="what ROOT holds, for a folder that cxrprep did not make",
)
state = setting("state", "--state", metavar="DIR", shell_complete=completers.folder)
tables = setting("tables", "--tables", metavar="DIR", shell_complete=completers.folder)
release = setting("release", "--release", metavar="NAME", shell_complete=completers.release)
shard = setting("shard", "--shard", metavar="I/N")
jobs = setting("engine.jobs", "--jobs", "-j")

folder = several(root, dataset, state)

selection = several(
    setting("selection.split", "--split", section="Selection", metavar="NAME", shell_complete=completers.split),
    setting("selection.view", "--view", section="Selection", metavar="NAME", shell_complete=completers.view),
    setting("selection.label", "--label", section="Selection", metavar="NAME[=V]", shell_complete=completers.label),
    setting("selection.where", "--where", section="Selection", metavar="CONDITION", shell_complete=completers.column),
    setting("selection.patients", "--patients", section="Selection", metavar="ID|FILE", shell_complete=completers.file),
    setting("selection.studies", "--studies", section="Selection", metavar="ID|FILE", shell_complete=completers.file),
    setting("selection.ids", "--ids", section="Selection", metavar="FILE", shell_complete=completers.file),
    setting("selection.include", "--include", section="Selection", metavar="GLOB"),
    setting("selection.exclude", "--exclude", section="Selection", metavar="GLOB"),
    setting("selection.limit", "--limit", section="Selection"),
    setting("selection.sample", "--sample", section="Selection"),
    setting("selection.seed", "--seed", section="Selection"),
)

network = several(
    setting("download.connections", "--connections", section="Network"),
    setting("download.limit_rate", "--limit-rate", section="Network", metavar="RATE"),
    setting("download.timeout", "--timeout", section="Network"),
    setting("download.user_agent", "--user-agent", section="Network", metavar="TEXT"),
    setting("download.cookie_file", "--cookie-file", section="Network", metavar="FILE", shell_complete=completers.file),
    setting("download.billing_project", "--billing-project", section="Network", metavar="PROJECT"),
    setting("download.requester_pays", "--requester-pays", section="Network"),
    setting("download.url_file", "--url-file", section="Network", metavar="FILE", shell_complete=completers.file),
)

label_policy = several(
    setting(
        "labels.source", "--label-source", section="Labels", metavar="NAME", shell_complete=completers.label_source
    ),
    setting("labels.uncertain", "--uncertain", section="Labels"),
    setting("labels.blank", "--blank", section="Labels"),
)
labels_handed_on = several(
    label_policy,
    setting("labels.observations", "--observations", section="Labels", metavar="NAME",
            shell_complete=completers.observations),
    setting("labels.derive", "--derive", section="Labels"),
)  # fmt: skip


def split(*seed: str) -> Callable[[F], F]:
    """The options of a split of one's own; ``seed`` are the names of its seed."""
    return several(
        setting("split.by", "--split-by", section="Split"),
        setting("split.fractions", "--fractions", section="Split", metavar="F,F,F"),
        setting("split.seed", *seed, section="Split"),
        setting("split.within", "--split-within", section="Split", metavar="NAME", shell_complete=completers.split),
        setting(
            "split.stratify", "--stratify", section="Split", metavar="LABEL[,LABEL]", shell_complete=completers.stratify
        ),
        setting("split.folds", "--folds", section="Split", metavar="K"),
    )


report_text = several(
    click.option(
        "--text",
        default="",
        metavar="SECTION,...",
        shell_complete=completers.section,
        help="add the text of these report sections, such as findings",
    ),
    path(
        "--pairs",
        "FILE",
        "with --text: the table of image-report pairs; default: that of ROOT, or of the folder ROOT was made from",
    ),
    click.option("--paired", is_flag=True, help="only images whose report has one of these sections"),
)
training_set = several(labels_handed_on, report_text, split("--split-seed"), selection)

cluster = several(
    setting("engine.name", "--engine", section="Engine"),
    setting("engine.scheduler", "--scheduler", section="Engine", metavar="ADDRESS"),
    setting("engine.jobs", "--jobs", "-j", section="Engine"),
)
engine = several(cluster, setting("shard", "--shard", section="Engine", metavar="I/N"))


def _add_catalog(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    del parameter
    if value and not ctx.resilient_parsing:
        from cxrprep.datasets.catalog import add_folders

        for folder in value:
            refuse_address(folder, "--catalog")
        missing = [folder for folder in value if not home_path(folder).is_dir()]
        if missing:
            raise UsageError(f"--catalog {missing[0]} is not a folder", hint="name a folder of datasets' TOML files")
        add_folders(value)


output = several(
    click.option(
        "--catalog",
        multiple=True,
        metavar="DIR",
        is_eager=True,
        expose_value=False,
        callback=_add_catalog,
        help="a folder with TOML files of your own datasets",
    ),
    setting(
        "output.format",
        "--json",
        section="Output",
        type=str,
        is_flag=True,
        flag_value="json",
        text="results as one JSON document",
    ),
    setting(
        "output.format",
        "--quiet",
        "-q",
        section="Output",
        type=str,
        is_flag=True,
        flag_value="quiet",
        text="say nothing on success",
    ),
    setting("output.events", "--events", section="Output", type=click.Choice(["jsonl"]), metavar="jsonl"),
    setting("output.color", "--color", section="Output"),
    setting("output.log_file", "--log-file", section="Output", metavar="FILE", shell_complete=completers.file),
    click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=_keep_config,
        metavar="FILE",
        help="a job file; options override what it says",
    ),
)
