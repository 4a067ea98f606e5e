"""Check of a dataset's file: what is wrong in it, what it makes of a folder, and whether it keeps the contract.

The contract is what every dataset must hold, built in or of one's own: paths lead to ids and back, the folder is
recognised, no row of a table is lost unsaid, every word becomes a label, and the same tables give the same rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxrprep.api.result import Result
from cxrprep.collection.recognition import recognise, sample_names
from cxrprep.config.toml import TomlText
from cxrprep.datasets.catalog import check_aliases, declaration_of, find_dataset
from cxrprep.errors import ExitCode, UsageError, did_you_mean
from cxrprep.events import Sink, ignore
from cxrprep.humanize import format_count, short_repr
from cxrprep.storage.paths import OWN_FOLDERS, home_path, refuse_address
from cxrprep.storage.small_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.labels.label_rows import Labels


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that every dataset must hold: what it is, whether it holds, and what does not."""

    what: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What a dataset's file says, and what its tables gave.

    ``images_here`` image files were found in the folder, ``images_listed`` are in its tables, ``images_matched`` are
    both. ``boxes`` and ``masks`` are drawn on those listed. ``sources`` are label sources with their rows,
    ``observations`` the columns that have a label; ``contract`` says what every dataset must hold, where that was asked
    for, and ``contradicted`` which of the file's facts do not.
    """

    __repr__ = short_repr

    dataset: str
    file: Path
    tables: int
    images_here: int | None = None
    images_listed: int | None = None
    images_matched: int | None = None
    patients: int | None = None
    boxes: int | None = None
    masks: int | None = None
    sources: tuple[tuple[str, int], ...] = ()
    observations: tuple[str, ...] = ()
    contract: tuple[Clause, ...] = ()
    contradicted: tuple[str, ...] = ()


def check_dataset(
    file: Path, root: Path | None = None, *, contract: bool = False, on_event: Sink = ignore
) -> Result[DatasetCheck]:
    """What a dataset's file describes, and what it makes of a folder.

    Args:
        file: The file, or the name of a dataset of the catalog.
        root: A folder with its tables and images.
        contract: Check also what every dataset must hold; exit 4 where something does not.
        on_event: Called with remarks.

    Returns:
        What was found.

    Raises:
        ConfigError: The file has a mistake, named with its line.
        TableError: A table is not what the file says, named with file, line and column.
        UsageError: A folder that is not there.
    """
    for place, what in ((file, "FILE"), (root, "ROOT")):
        refuse_address(str(place or ""), what)
    spec = find_dataset(str(file))
    _check_words(spec, file)
    layout = spec.layout()
    found = DatasetCheck(spec.name, file, len(spec.table))
    if root is None:
        if contract:
            raise UsageError("a contract is checked on a folder", hint=f"cxrprep datasets check {file} ROOT --contract")
        return _result(found)
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint="name the folder that holds the dataset")
    from cxrprep.labels.extract import read_labels
    from cxrprep.labels.label_counts import count_labels
    from cxrprep.storage.patient_table import OneRange
    from cxrprep.verification.finding import Level
    from cxrprep.verification.published_facts import check_facts

    labels = read_labels(spec, root, on_event=on_event)
    counted = count_labels(spec.name, labels, root)
    here = {key: identity.image for key in keys_in(root) if (identity := layout.parse(key)) is not None}
    rows = OneRange(labels.table)
    facts = [one for _, findings in check_facts(spec, labels.release, root, rows) for one in findings]
    listed = set(labels.table.column("image_id").drop_null().to_pylist())
    columns = [name for name in labels.table.column_names if name.startswith("label_") and name != "label_source"]
    return _result(
        DatasetCheck(
            spec.name,
            file,
            len(spec.table),
            images_here=len(here),
            images_listed=len(listed),
            images_matched=len(listed.intersection(here.values())),
            patients=counted.patients,
            boxes=counted.boxes,
            masks=0 if labels.masks is None else labels.masks.num_rows,
            sources=tuple((source.label_source, source.rows) for source in counted.sources),
            observations=tuple(c for c in columns if labels.table.column(c).null_count < labels.table.num_rows),
            contract=tuple(_clauses(spec, root, labels, here)) if contract else (),
            contradicted=tuple(one.detail for one in facts if one.level == Level.ERROR),
        )
    )


def _check_words(spec: DatasetSpec, file: Path) -> None:
    """Raise ``ConfigError`` for an alias of another dataset, or a fact whose measure is none."""
    from cxrprep.verification.measures import MEASURES

    if file.suffix.lower() != ".toml":
        return
    toml = TomlText(read_text(home_path(file)), str(file))
    check_aliases(spec, toml)
    for number, fact in enumerate(spec.fact, 1):
        if (word := fact.measure.partition("@")[0].partition(".")[0]) not in MEASURES:
            meant = did_you_mean(word, MEASURES)
            toml.mistake(f"fact.{number}.measure", f"[[fact]] {fact.id}: there is no measure {word!r}", meant.strip())
    toml.raise_mistakes()


def keys_in(root: Path) -> Iterator[str]:
    """The files below a folder as paths from it, but for those that cxrprep makes."""
    for folder, inner, names in os.walk(root):
        if folder == str(root):
            inner[:] = [name for name in inner if name not in OWN_FOLDERS]
        yield from (os.path.relpath(f"{folder}/{name}", root).replace(os.sep, "/") for name in names)


# ---- the contract ----


def _clauses(spec: DatasetSpec, root: Path, labels: Labels, here: dict[str, str]) -> Iterator[Clause]:
    from cxrprep.labels.extract import read_labels

    layout = spec.layout()
    ids = list(here.values())
    twice = next((one for one in ids if ids.count(one) > 1), "") if len(set(ids)) < len(ids) else ""
    yield _clause("each image of the folder has an id of its own", not twice, f"two files are {twice}")
    moved = next((key for key in here if layout.place(key, release=labels.release) != key), "")
    place = layout.place(moved, release=labels.release) if moved else ""
    said = f"a download would put {moved} to {place}: correct image or place of [paths], or leave place out"
    yield _clause("a path leads to its image and back", not moved, said)
    other = recognise(sample_names(root))
    known = other is None or other.name == spec.name or other.name in spec.aliases
    said = f"it looks like {other and other.name}: say in sure of [paths] which name only this one has"
    yield _clause("the folder is recognised as no other dataset", known, said)
    table = labels.table
    listed = set(table.column("image_id").drop_null().to_pylist())
    apart = len(listed.difference(ids))
    some = bool(listed.intersection(ids))
    yield _clause("the tables speak of images that are here", some, f"none of {apart:,} images in the tables is")
    lost = [use.name for use in labels.tables if use.rows != use.used + sum(count for _, count in use.apart)]
    yield _clause("every row of a table is used, or reported as left out", not lost, ", ".join(lost))
    again = read_labels(spec, root).table
    yield _clause("the same tables give the same rows", again.equals(table), "a second reading differs")
    if spec.declared:
        yield _every_word(spec, table)
        yield _views_declared(spec, table)


def _clause(what: str, holds: bool, detail: str) -> Clause:
    return Clause(what, holds, "" if holds else detail)


def _every_word(spec: DatasetSpec, table: Any) -> Clause:
    """Whether every word that an image has is a label of it."""
    rules = declaration_of(spec.name).vocabulary
    words = {word for cell in table.column("labels_raw").to_pylist() for word in cell or ()}
    passed = {"", *rules.not_observations}
    columns = {
        word: f"label_{shared[0]}" if (shared := rules.shared(word)) else rules.column(word)
        for word in words
        if word not in passed
    }
    lost = [word for word, column in columns.items() if column not in table.column_names]
    return _clause("every finding is kept", not lost, f"{', '.join(lost[:5])} has no column")


def _views_declared(spec: DatasetSpec, table: Any) -> Clause:
    known = declaration_of(spec.name).views
    words = set(table.column("view_raw").to_pylist()) - {None}
    strange = sorted(words.difference(known))
    return _clause("every word of a view is in [views]", not strange, f"missing from it: {', '.join(strange[:8])}")


def _result(found: DatasetCheck) -> Result[DatasetCheck]:
    summary = {"dataset": found.dataset, "tables": f"{found.tables:,} declared"}
    if found.images_listed is not None:
        summary |= {
            "images": f"{found.images_listed:,} in the tables, {found.images_here:,} files here, "
            f"{found.images_matched:,} of them in both",
            "patients": f"{found.patients:,}",
            **{f"labels {source}": format_count(rows, "row") for source, rows in found.sources},
            "drawn": f"{found.boxes:,} boxes, {found.masks:,} masks",
            "observations": ", ".join(name.removeprefix("label_") for name in found.observations) or "none",
        }
    kept = [clause for clause in found.contract if clause.holds]
    rows = list(summary.items())
    if found.contract:
        rows.append(("contract", f"{len(kept)} of {len(found.contract)} hold"))
        rows += [("", f"does not hold: {one.what}: {one.detail}") for one in found.contract if not one.holds]
    rows += [("does not hold", fact) for fact in found.contradicted]
    holds = len(kept) == len(found.contract) and not found.contradicted
    code = ExitCode.DONE if holds else ExitCode.INTEGRITY
    return Result("datasets", found, exit_code=code, rows=tuple(rows))
