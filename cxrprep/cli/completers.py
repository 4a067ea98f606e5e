"""Shell completion: the words that may follow an option or an argument."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cxrprep.cli.context import invocation_of
from cxrprep.config.job import ALL_STEPS, PROJECTIONS, named_recipes
from cxrprep.model import Split, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click
    from click.shell_completion import CompletionItem

    from cxrprep.datasets.facts import DatasetSpec


def dataset(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of datasets that begin like ``incomplete``, for the shell."""
    from click.shell_completion import CompletionItem

    from cxrprep.datasets.catalog import catalog

    del ctx, parameter
    return [CompletionItem(n, help=s.title) for n, s in catalog().items() if n.startswith(incomplete)]


def dataset_action(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What ``datasets`` does, and the datasets that may follow without it."""
    return [*_items(("show", "new", "check"), incomplete), *dataset(ctx, parameter, incomplete)]


def dataset_or_file(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A dataset to ``show``, or the file that is ``new`` or to ``check``."""
    return (file if ctx.params.get("what") in ("new", "check") else dataset)(ctx, parameter, incomplete)


def recipe(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The recipes that ship with the package."""
    del ctx, parameter
    return _items(named_recipes(), incomplete)


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.lower().startswith(incomplete.lower())]


def _paths(kind: str, ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Paths: the shell knows them."""
    from click.shell_completion import CompletionItem

    del ctx, parameter
    return [CompletionItem(incomplete, type=kind)]


folder, file = partial(_paths, "dir"), partial(_paths, "file")


def _specs(ctx: click.Context) -> list[DatasetSpec]:
    """The dataset that the command line names before, or all of them."""
    from cxrprep.datasets.catalog import catalog

    # Behind an option that still lacks its value, click leaves the arguments as they were typed.
    named = {invocation_of(ctx).flags.get("dataset", ("", ""))[0], *ctx.args}
    found = [spec for spec in catalog().values() if named & {spec.name, *spec.aliases}]
    return found or list(catalog().values())


def mirror(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The mirrors of the dataset; folders too, since a folder is a mirror."""
    names = dict.fromkeys(mirror.name for spec in _specs(ctx) for mirror in spec.mirror)
    return _items(names, incomplete) or folder(ctx, parameter, incomplete)


def release(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The releases of the dataset."""
    del parameter
    return _items(dict.fromkeys(name for spec in _specs(ctx) for name in spec.releases), incomplete)


def label_source(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Who labelled: the sources that the dataset's tables have."""
    del parameter
    found = (table.label_source for spec in _specs(ctx) for table in spec.table if table.label_source)
    return _items(dict.fromkeys(found), incomplete)


def label(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The observations, in the form that has no spaces; each with the name that is published."""
    from click.shell_completion import CompletionItem

    from cxrprep.vocabulary import OBSERVATIONS, published_name

    del ctx, parameter
    wanted = incomplete.lower().replace(" ", "_")
    return [CompletionItem(stem, help=published_name(stem)) for stem in OBSERVATIONS if stem.startswith(wanted)]


def _words(what: str) -> Iterable[str]:
    """The words that such options take, imported when somebody asks for them."""
    match what:
        case "observations":
            from cxrprep.vocabulary import OBSERVATIONS, PRESETS

            return (*PRESETS, *OBSERVATIONS)
        case "stratify":
            from cxrprep.vocabulary import OBSERVATIONS

            return ("all", *OBSERVATIONS)
        case "steps":
            return ALL_STEPS
        case "column":
            from cxrprep.schemas import IMAGES

            return tuple(map(str, IMAGES.names))
        case "fix":
            from cxrprep.images.recipe import FIXES

            return FIXES
        case "section":
            from cxrprep.manifest.pairs import SECTIONS

            return SECTIONS
        case "policy":
            from cxrprep.labels.nlp.policies import POLICIES

            return POLICIES
        case "labeler":
            from cxrprep.labels.labelers.registry import labeler_names

            return labeler_names()
        case "split":
            return map(str, Split)
        case "view":
            return (*PROJECTIONS, *map(str, View))
    from cxrprep.verification.finding import Kind

    return map(str, Kind)


def _listed(what: str) -> Callable[..., list[CompletionItem]]:
    """What completes a list of such words: after a comma, with those that are not named yet."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del ctx, parameter
        before, comma, last = incomplete.rpartition(",")
        rest = [word for word in _words(what) if word not in before.split(",")]
        return _items((before + comma + word for word in rest if word.lower().startswith(last.lower())), "")

    return complete


observations, stratify, steps, column = map(_listed, ("observations", "stratify", "steps", "column"))
fix, section, policy, labeler = map(_listed, ("fix", "section", "policy", "labeler"))
split, view, kind = map(_listed, ("split", "view", "kind"))
