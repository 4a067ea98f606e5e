"""Selection from settings, options or Python keywords, and back to the options of the command line."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from cxrprep.config.job import SelectionSettings, parse_label, parse_split, parse_view
from cxrprep.config.settings import expand
from cxrprep.errors import UsageError, did_you_mean
from cxrprep.model import ColumnTest, Selection
from cxrprep.selection.id_lists import list_file, read_ids, read_list
from cxrprep.storage.paths import home_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# patient00001/study1, p10000032/s50414267, or the bare numbers.
_STUDY: Final = re.compile(r"[a-z]*\d+/[a-z]*\d+", re.IGNORECASE)
_LISTED: Final = frozenset({"include", "exclude", "patients", "studies", "split", "view", "label", "where"})
_UNDIVIDED: Final = frozenset({"include", "exclude", "where"})
SELECTING: Final = frozenset(f"--{name}" for name in (*_LISTED, "ids", "limit", "sample", "seed"))
"""The options that say which images are meant."""
# As many ids are written out; more are named by a file that lists them.
_FEW: Final = 5


def selection_of(settings: SelectionSettings) -> Selection:
    """The selection that the settings describe, id files read.

    Raises ``UsageError`` that names file and line, ``ValueError`` for a split, view or label that is none.
    """
    patients, studies = _words(settings.patients, "patients"), _words(settings.studies, "studies")
    images: frozenset[str] = frozenset()
    if settings.ids:
        listed = read_ids(_existing(settings.ids))
        patients, studies = patients | listed["patients"], studies | listed["studies"]
        images = listed["images"]
    return Selection(
        include=settings.include,
        exclude=settings.exclude,
        patients=patients,
        studies=studies,
        images=images,
        splits=frozenset(parse_split(text) for text in settings.split),
        views=frozenset(parse_view(text) for text in settings.view),
        labels=tuple(parse_label(text) for text in settings.label),
        limit=settings.limit,
        sample=settings.sample,
        seed=settings.seed,
        where=tuple(ColumnTest.parse(text) for text in settings.where),
    )


def selected(selection: Selection | Mapping[str, Any], words: Mapping[str, Any]) -> Selection:
    """A selection as Python callers write it: a ``Selection``, or the command's options by their names.

    Args:
        selection: What was handed in as a whole; a mapping is taken for words.
        words: ``split``, ``view``, ``label``, ``where``, ``patients``, ``studies``, ``ids``, ``include``, ``exclude``,
            ``limit``, ``sample`` and ``seed``, each a text (with commas for several), a number, or several texts.

    Returns:
        The selection; words are in addition to ``selection``, and win over it.

    Raises:
        UsageError: A word that is no option, or names nothing; ``TypeError`` has no next step.
    """
    if not isinstance(selection, Selection):
        words = {**selection, **words}
        selection = Selection()
    if not words:
        return selection
    known = [each.name for each in dataclasses.fields(SelectionSettings)]
    for name in words:
        if name not in known:
            raise UsageError(f"unknown option {name!r}", hint=f"{did_you_mean(name, known)}known: {', '.join(known)}")
    try:
        named = selection_of(SelectionSettings(**{name: _plain_word(name, value) for name, value in words.items()}))
    except ValueError as error:
        raise UsageError(str(error), hint="see: cxrprep download --help") from error
    changed = {f.name: getattr(named, f.name) for f in dataclasses.fields(Selection)}
    usual = Selection()
    return dataclasses.replace(selection, **{n: v for n, v in changed.items() if v != getattr(usual, n)})


def _plain_word(name: str, value: Any) -> Any:
    if name not in _LISTED:
        return str(value) if name == "ids" else value
    if isinstance(value, str):
        return (value,) if name in _UNDIVIDED else tuple(word.strip() for word in value.split(",") if word.strip())
    return tuple(str(word) for word in value)


def _existing(text: str) -> Path:
    path = expand(text)
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="name a CSV, Parquet or text file of ids")
    return path


def _words(texts: tuple[str, ...], kind: str) -> frozenset[str]:
    found: set[str] = set()
    for text in texts:
        path = home_path(text)
        if path.is_file():
            found |= read_list(path, kind)
        elif ("/" in text and not _STUDY.fullmatch(text)) or path.suffix in (".txt", ".csv", ".parquet"):
            # An id has no suffix, and no slash but a study's with its patient; whoever writes one means a file.
            raise UsageError(
                f"there is no file {path}", hint="name ids separated by commas, or a file with one per line"
            )
        else:
            found.add(text)
    return frozenset(found)


def options_of(selection: Selection) -> Iterator[str]:
    """The options that give a selection, as words of a shell; they name a file for a long list of ids."""
    for option, values in (
        ("--include", selection.include),
        ("--exclude", selection.exclude),
        ("--split", sorted(selection.splits)),
        ("--view", sorted(selection.views)),
        ("--label", selection.labels),
        ("--where", selection.where),
    ):
        for value in values:
            yield f"{option} {shlex.quote(str(value))}"
    for option, kind, ids, most in (
        ("--patients", "patients", selection.patients, _FEW),
        ("--studies", "studies", selection.studies, _FEW),
        ("--ids", "images", selection.images, 0),
    ):
        if ids:
            yield f"{option} {shlex.quote(','.join(sorted(ids)) if len(ids) <= most else str(list_file(kind, ids)))}"
    if selection.limit is not None:
        yield f"--limit {selection.limit}"
    if selection.sample is not None:
        yield f"--sample {selection.sample} --seed {selection.seed}"
