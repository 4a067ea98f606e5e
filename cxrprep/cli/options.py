"""Options, bound to settings: an option says which setting it sets, and the settings know its type and its help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from cxrprep.cli.context import Invocation
from cxrprep.config.job import KEYS
from cxrprep.errors import UsageError
from cxrprep.storage.paths import refuse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from cxrprep.datasets.catalog import DatasetSpec

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


def invocation_of(ctx: click.Context) -> Invocation:
    """What this run needs, as far as it is known."""
    found = ctx.find_object(Invocation)
    if found is None:
        # Documentation tools and shell completion parse without the program around.
        found = ctx.obj = Invocation(())
    return found


def setting(
    key: str,
    *declarations: str,
    section: str = "Options",
    metavar: str | None = None,
    text: str = "",
    **more: Any,
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


def complete_dataset(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of datasets that begin like ``incomplete``, for the shell."""
    from click.shell_completion import CompletionItem

    from cxrprep.datasets.catalog import catalog

    del ctx, parameter
    return [CompletionItem(n, help=s.title) for n, s in catalog().items() if n.startswith(incomplete)]


def complete_show(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The word ``show``, and the datasets that may follow without it."""
    return [*_items(("show",), incomplete), *complete_dataset(ctx, parameter, incomplete)]


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    import importlib.resources

    folder = importlib.resources.files("cxrprep.images") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def complete_recipe(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The named recipes that begin like ``incomplete``, for the shell."""
    from click.shell_completion import CompletionItem

    del ctx, parameter
    return [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.lower().startswith(incomplete.lower())]


def complete_folder(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders: the shell knows them."""
    from click.shell_completion import CompletionItem

    del ctx, parameter
    return [CompletionItem(incomplete, type="dir")]


def complete_file(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files: the shell knows them."""
    from click.shell_completion import CompletionItem

    del ctx, parameter
    return [CompletionItem(incomplete, type="file")]


def _specs(ctx: click.Context) -> list[DatasetSpec]:
    """The dataset that the command line names before, or all of them."""
    from cxrprep.datasets.catalog import catalog

    # Behind an option that still lacks its value, click leaves the arguments as they were typed.
    named = {invocation_of(ctx).flags.get("dataset", ("", ""))[0], *ctx.args}
    found = [spec for spec in catalog().values() if named & {spec.name, *spec.aliases}]
    return found or list(catalog().values())


def complete_mirror(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The mirrors of the dataset; folders too, since a folder is a mirror."""
    names = dict.fromkeys(mirror.name for spec in _specs(ctx) for mirror in spec.mirror)
    return _items(names, incomplete) or complete_folder(ctx, parameter, incomplete)


def complete_release(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The releases of the dataset."""
    del parameter
    return _items(dict.fromkeys(name for spec in _specs(ctx) for name in spec.releases), incomplete)


def complete_label_source(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Who labelled: the sources that the dataset's tables have."""
    del parameter
    found = (table.label_source for spec in _specs(ctx) for table in spec.table if table.label_source)
    return _items(dict.fromkeys(found), incomplete)


def complete_label(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The observations, in the form that has no spaces; each with the name that is published."""
    from click.shell_completion import CompletionItem

    from cxrprep.vocabulary import OBSERVATIONS, published_name

    del ctx, parameter
    wanted = incomplete.lower().replace(" ", "_")
    return [CompletionItem(stem, help=published_name(stem)) for stem in OBSERVATIONS if stem.startswith(wanted)]


def _listed(words: Callable[[], Iterable[str]]) -> Callable[..., list[CompletionItem]]:
    """What completes a list of ``words``: after a comma, with those that are not named yet."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del ctx, parameter
        before, comma, last = incomplete.rpartition(",")
        rest = [word for word in words() if word not in before.split(",")]
        return _items((before + comma + word for word in rest if word.lower().startswith(last.lower())), "")

    return complete


def _observations() -> Iterable[str]:
    from cxrprep.vocabulary import OBSERVATIONS, PRESETS

    return (*PRESETS, *OBSERVATIONS)


def _stratify() -> Iterable[str]:
    from cxrprep.vocabulary import OBSERVATIONS

    return ("all", *OBSERVATIONS)


def _steps() -> Iterable[str]:
    from cxrprep.config.job import ALL_STEPS

    return ALL_STEPS


def _fixes() -> Iterable[str]:
    from cxrprep.images.recipe import FIXES

    return FIXES


def _columns() -> Iterable[str]:
    from cxrprep.schemas import IMAGES

    return tuple(map(str, IMAGES.names))


def _sections() -> Iterable[str]:
    from cxrprep.manifest.pairs import SECTIONS

    return SECTIONS


def _policies() -> Iterable[str]:
    from cxrprep.labels.nlp.policies import POLICIES

    return POLICIES


def _labelers() -> Iterable[str]:
    from cxrprep.labels.labelers.registry import labeler_names

    return labeler_names()


complete_observations = _listed(_observations)
complete_steps = _listed(_steps)
complete_fix = _listed(_fixes)
complete_section = _listed(_sections)
complete_policy = _listed(_policies)
complete_labeler = _listed(_labelers)


def complete_split(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of splits."""
    from cxrprep.model import Split

    del ctx, parameter
    return _items(map(str, Split), incomplete)


def complete_view(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of views and projections."""
    from cxrprep.config.job import PROJECTIONS
    from cxrprep.model import View

    del ctx, parameter
    return _items((*PROJECTIONS, *(view.value for view in View)), incomplete)


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
    shell_complete=complete_folder,
)
dataset_argument = click.argument(
    "dataset",
    required=False,
    expose_value=False,
    callback=_keep("dataset", "DATASET"),
    metavar="DATASET",
    shell_complete=complete_dataset,
)
dataset = setting(
    "dataset",
    "--dataset",
    metavar="NAME",
    shell_complete=complete_dataset,
    text="what ROOT holds, for a folder that cxrprep did not make",
)
state = setting("state", "--state", metavar="DIR", shell_complete=complete_folder)
tables = setting("tables", "--tables", metavar="DIR", shell_complete=complete_folder)
release = setting("release", "--release", metavar="NAME", shell_complete=complete_release)
shard = setting("shard", "--shard", metavar="I/N")
jobs = setting("engine.jobs", "--jobs", "-j")

folder = several(root, dataset, state)

selection = several(
    setting("selection.split", "--split", section="Selection", metavar="NAME", shell_complete=complete_split),
    setting("selection.view", "--view", section="Selection", metavar="NAME", shell_complete=complete_view),
    setting("selection.label", "--label", section="Selection", metavar="NAME[=V]", shell_complete=complete_label),
    setting(
        "selection.where",
        "--where",
        section="Selection",
        metavar="CONDITION",
        shell_complete=_listed(_columns),
    ),
    setting("selection.patients", "--patients", section="Selection", metavar="ID|FILE", shell_complete=complete_file),
    setting("selection.studies", "--studies", section="Selection", metavar="ID|FILE", shell_complete=complete_file),
    setting("selection.ids", "--ids", section="Selection", metavar="FILE", shell_complete=complete_file),
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
    setting("download.cookie_file", "--cookie-file", section="Network", metavar="FILE", shell_complete=complete_file),
    setting("download.billing_project", "--billing-project", section="Network", metavar="PROJECT"),
    setting("download.requester_pays", "--requester-pays", section="Network"),
    setting("download.url_file", "--url-file", section="Network", metavar="FILE", shell_complete=complete_file),
)

label_policy = several(
    setting("labels.source", "--label-source", section="Labels", metavar="NAME", shell_complete=complete_label_source),
    setting("labels.uncertain", "--uncertain", section="Labels"),
    setting("labels.blank", "--blank", section="Labels"),
)


def split(*seed: str) -> Callable[[F], F]:
    """The options of a split of one's own; ``seed`` are the names of its seed."""
    return several(
        setting("split.by", "--split-by", section="Split"),
        setting("split.fractions", "--fractions", section="Split", metavar="F,F,F"),
        setting("split.seed", *seed, section="Split"),
        setting("split.within", "--split-within", section="Split", metavar="NAME", shell_complete=complete_split),
        setting(
            "split.stratify",
            "--stratify",
            section="Split",
            metavar="LABEL[,LABEL]",
            shell_complete=_listed(_stratify),
        ),
        setting("split.folds", "--folds", section="Split", metavar="K"),
    )


report_text = several(
    click.option(
        "--text",
        default="",
        metavar="SECTION,...",
        shell_complete=complete_section,
        help="add the text of these report sections, such as findings",
    ),
    click.option(
        "--pairs",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="with --text: the table of image-report pairs; default: that of ROOT, or of the folder ROOT was made from",
    ),
    click.option("--paired", is_flag=True, help="only images whose report has one of these sections"),
)

engine = several(
    setting("engine.name", "--engine", section="Engine"),
    setting("engine.scheduler", "--scheduler", section="Engine", metavar="ADDRESS"),
    setting("engine.jobs", "--jobs", "-j", section="Engine"),
    setting("shard", "--shard", section="Engine", metavar="I/N"),
)


def _add_catalog(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Put the folders before those of the environment, where worker processes find them, too."""
    del parameter
    if value and not ctx.resilient_parsing:
        import os

        from cxrprep.datasets.catalog import CATALOG_VARIABLE, forget

        for folder in value:
            refuse_address(folder, "--catalog")
        missing = [folder for folder in value if not Path(folder).expanduser().is_dir()]
        if missing:
            raise UsageError(f"--catalog {missing[0]} is not a folder", hint="name a folder of datasets' TOML files")
        named = [str(Path(folder).expanduser().resolve()) for folder in value]
        before = os.environ.get(CATALOG_VARIABLE, "").split(os.pathsep)
        os.environ[CATALOG_VARIABLE] = os.pathsep.join(dict.fromkeys([*named, *filter(None, before)]))
        forget()


output = several(
    click.option(
        "--catalog",
        multiple=True,
        metavar="DIR",
        is_eager=True,
        expose_value=False,
        callback=_add_catalog,
        help="a folder of datasets' TOML files, beside those that are known",
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
    setting("output.log_file", "--log-file", section="Output", metavar="FILE", shell_complete=complete_file),
    click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=_keep_config,
        metavar="FILE",
        help="a job file; options win over what it says",
    ),
)
