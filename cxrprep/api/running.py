"""Verbs that tell, while they run and when they fail, how far they are: for ``status`` and for whoever watches."""

from __future__ import annotations

import contextlib
import functools
import inspect
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from cxrprep.api.keywords import Keywords
from cxrprep.errors import UsageError
from cxrprep.events import ignore
from cxrprep.model import FolderRef, Selection
from cxrprep.selection.options import options_of
from cxrprep.storage.locks import writing_tables
from cxrprep.storage.paths import CACHE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# These read the tables of their folder and write them anew: two at once would lose what the other one wrote.
_WRITES_TABLES: Final = frozenset({"extract-labels", "manifest", "pairs", "duplicates"})
P = ParamSpec("P")
R = TypeVar("R")


def notes_progress(verb: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for a verb with ``on_event``: its run is noted beside the record for as long as it is not done."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*positional: P.args, **named: P.kwargs) -> R:
            from cxrprep.record.last_run import LastRun

            bound = signature.bind(*positional, **named)
            given = bound.arguments
            words = given | given.get("words", {})
            shard, dataset = (str(words.get(name) or "") for name in ("shard", "dataset"))
            asked = _asked(words) if verb == "download" else []
            caches = _caches(verb, words)
            with contextlib.ExitStack() as held:
                # Before it is said that it runs: the other run is, and a failure of this one is none of the folder's.
                # The parts of a job array have folders of their own; who joins them waits for the tables then.
                for cache in caches if verb in _WRITES_TABLES and not shard else ():
                    held.enter_context(writing_tables(cache))
                run = held.enter_context(
                    LastRun(caches, verb, _stages(verb, words), shard=shard, dataset=dataset, asked=asked)
                )
                given["on_event"] = run.counting(given.get("on_event", ignore))
                done = function(*bound.args, **bound.kwargs)
            where = _folder(words)
            if where.state is not None and "://" not in f"{where.root} {where.state}":
                from cxrprep.collection.state_folder import note_root

                note_root(where.path, where.state)
            return done

        return call

    return decorate


def _asked(given: Mapping[str, Any]) -> list[str]:
    """The mirror and the selection of a download, as options that go on with it; none where a plan says them."""
    source = given.get("source")
    try:
        chosen = Keywords(given).selection(given.get("selection", Selection()))
    except UsageError:
        # It is refused by the verb, in its own words.
        return []
    if given.get("plan") is not None:
        return []
    # An address is not kept: what is read from a file that lies about names no host.
    named = ["--source", str(source)] if source and "://" not in str(source) else []
    return [*named, *(word for option in options_of(chosen) for word in shlex.split(option))]


def _folder(given: Mapping[str, Any]) -> FolderRef:
    """The folder that a verb works in, as its parameters name it."""
    return FolderRef.of(given.get("root") or str(given.get("dataset")), state=given.get("state") or None)


def _caches(verb: str, given: Mapping[str, Any]) -> list[Path]:
    """Of the folder, and of that which is made from it."""
    places = [str(_folder(given).home)]
    if verb == "convert":
        recipe = Path(str(given["recipe"])).stem
        places.append(str(given.get("out") or Path(places[0], "derived", recipe)))
    return [Path(place) / CACHE_NAME for place in places if "://" not in place]


def _stages(verb: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``status`` calls it."""
    if verb == "convert":
        return (f"convert {Path(str(given['recipe'])).stem}",)
    if verb == "export":
        return (f"export {given.get('form', '')}",)
    then = given.get("then") or getattr(given.get("options"), "then", None)
    return (verb, f"convert {Path(str(then)).stem}") if then else (verb,)
