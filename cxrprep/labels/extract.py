"""``extract-labels``: a release's tables become ``labels.parquet``, a row per image and label source."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.datasets.catalog import declaration_of
from cxrprep.errors import TableError
from cxrprep.events import Event, Note, Sink, StageFinished, ignore
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.label_counts import LabelsResult, count_labels
from cxrprep.labels.label_losses import MASKS_NAME, check_known, check_labels
from cxrprep.labels.label_rows import MASK_ORDER, LabelOptions, LabelRows, Labels, in_order, provenance
from cxrprep.labels.label_sources import ADDED_ROLES, added_sources, release_labels, uses_of, with_added_sources
from cxrprep.labels.locate_tables import STAGE, Tables, find_tables
from cxrprep.schemas import LABELS
from cxrprep.storage.parquet import check_as_written, footer_of, write_parts, write_table
from cxrprep.storage.table_checksums import is_as_listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cxrprep.collection import DatasetFolder
    from cxrprep.datasets.facts import DatasetSpec
    from cxrprep.labels.label_sources import Parse
    from cxrprep.labels.last_options import LastOptions
    from cxrprep.labels.mimic_parts import LabelParts

LABELS_NAME: Final = "labels.parquet"


def read_labels(
    spec: DatasetSpec,
    root: Path,
    *,
    release: str | None = None,
    tables: Path | None = None,
    options: LabelOptions | None = None,
    on_event: Sink = ignore,
) -> Labels:
    """Everything that the label tables say, without writing anything.

    Args:
        spec: The dataset.
        root: Its folder.
        release: Which tables count; ``None`` takes the newest that are there.
        tables: A folder with tables that go over those in ``root``.
        options: What is read beside the labels.
        on_event: Called with remarks.

    Returns:
        The rows, with what became of each table.

    Raises:
        UsageError: A folder or release that does not exist.
        TableError: A table that is not what it should be, with file, line and column.
    """
    found = find_tables(spec, root, release, tables=tables, on_event=on_event)
    return read_found(spec, found, options=options, on_event=on_event)


def read_found(
    spec: DatasetSpec,
    found: Tables,
    *,
    options: LabelOptions | None = None,
    known: Path | None = None,
    cells: bool = False,
    on_event: Sink = ignore,
) -> Labels:
    """The same of tables that were found.

    Args:
        spec: The dataset.
        found: The tables.
        options: What is read beside the labels.
        known: A ``labels.parquet``, which is read instead of the tables where it was made from the same.
        cells: Of it the source tables' cells are wanted, too.
        on_event: Called with remarks.

    Returns:
        The rows, with what became of each table.

    Raises:
        TableError: A table that is not what it should be, with file, line and column.
    """
    options = options or LabelOptions()
    digest_of_inputs = partial(_digest_of_inputs, spec, found, options)
    if known and known.is_file() and (same := _read_again(known, digest_of_inputs(), on_event, cells=cells)):
        return same
    said: list[tuple[str, str, str]] = []

    def keep_note(event: Event) -> None:
        if isinstance(event, Note):
            said.append(without_folder(event))
        on_event(event)

    label_rows = LabelRows(spec.name, found.release, found.stated, keep_note, options)
    importlib.import_module(f"cxrprep.labels.{spec.module}").read(found, label_rows)
    if not label_rows.blocks:
        names = ", ".join(path.name for _, path in found.files)
        raise TableError(
            f"the tables of {spec.name} that are here label no image: {names}",
            hint="add a label table of the release, or name its folder with --tables DIR",
        )
    masks = in_order(pa.concat_tables(label_rows.masks), MASK_ORDER) if label_rows.masks else None
    # What was read has its digest: no file is read a second time for it.
    inputs = digest_of_inputs({use.path: str(use.digest) for use in label_rows.uses})
    return Labels(
        label_rows.release, label_rows.table(), tuple(label_rows.uses), masks=masks, inputs=inputs, notes=tuple(said)
    )


def without_folder(note: Note) -> tuple[str, str, str]:
    """A note as the footer keeps it: files by their names, so that a copied folder has the same bytes."""
    name = note.subject.replace("\\", "/").rsplit("/", 1)[-1]
    return note.message.replace(note.subject, name) if name else note.message, name, note.level


def _digest_of_inputs(
    spec: DatasetSpec, found: Tables, options: LabelOptions, read: Mapping[str, str] | None = None
) -> str:
    """The digest of the tables that are here, the options, the dataset's file and the code that reads them.

    Empty for tables of many files, whose contents are known only when they are read; ``read`` are digests by path.
    """
    if found.sets:
        return ""
    named = [(table.name, path) for table, path in found.files]
    named += [("patients", options.patients)] if options.patients is not None else []
    read = read or {}
    told: list[Any] = [spec.name, found.release, found.stated]
    told += [(name, path.name, read.get(str(path)) or str(digest_of(path))) for name, path in named]
    told += [(key, bool(value)) for key, value in sorted(dataclasses.asdict(options).items())]
    whole = hashlib.sha256(json.dumps([*told, repr(spec)]).encode())
    if spec.declared:
        whole.update(repr(declaration_of(spec.name)).encode())
    whole.update(_code())
    return whole.hexdigest()


# measured: 2.2 ms of CPU a time, and `extract-labels` asks two or three times.
@cache
def _code() -> bytes:
    """The digest of the modules that make labels of tables: another version may read them otherwise."""
    here = Path(__file__).parent
    whole = hashlib.sha256()
    for path in (*sorted(here.glob("*.py")), here.parent / "schemas.py", here.parent / "vocabulary.py"):
        whole.update(path.read_bytes() if path.is_file() else path.name.encode())
    return whole.digest()


def _read_again(known: Path, inputs: str, on_event: Sink, *, cells: bool) -> Labels | None:
    """The labels of a table that was made from the same inputs, with what was said then; ``None`` where there is none.

    MIMIC-CXR-JPG's four tables take five times as long to read as the table that was made of them.
    """
    footer = footer_of(known)
    if not _is_same(known, footer, inputs):
        return None
    try:
        release, table, uses = release_labels(known, cells=cells or _has_added(known))
    except TableError:
        return None
    notes = _notes_of(footer)
    for message, name, level in notes:
        on_event(Note(STAGE, message, level, name))
    return Labels(release, table, uses, inputs=inputs, notes=notes, unchanged=True)


def _is_same(known: Path, footer: Mapping[str, Any], inputs: str) -> bool:
    """Whether a table was made from these inputs, and its checksum says that nobody changed it since."""
    if not inputs or footer.get("inputs") != inputs:
        return False
    if footer.get("masks") and footer_of(known.with_name(MASKS_NAME)).get("inputs") != inputs:
        return False
    tables = [known, known.with_name(MASKS_NAME)] if footer.get("masks") else [known]
    return all(map(is_as_listed, tables))


def written_labels(
    folder: DatasetFolder, asked: LastOptions, release: str | None
) -> tuple[LabelsResult, list[Event]] | None:
    """What ``labels.parquet`` holds, by its footer alone, where it would be made of the same tables again.

    ``release`` says which tables count; ``None`` takes the newest that are there. ``None`` is given where the table has
    to be read or made: it or a table differs, or label sources were added. Else its counts, and what is to be said.
    Raises ``UsageError`` for a folder or release that does not exist, ``TableError`` for a table that cannot be read.
    """
    path, stated = folder.manifests / LABELS_NAME, asked.described(folder.root)
    footer, said = footer_of(path), list[Event]()
    if "counts" not in footer or footer.get("options", {}) != stated.get("options", {}):
        return None
    if _has_added(path) or added_sources(path.parent):
        return None
    found = find_tables(folder.spec, folder.root, release, tables=asked.tables, on_event=said.append)
    inputs = _digest_of_inputs(folder.spec, found, asked.options)
    if not _is_same(path, footer, inputs):
        return None
    said += (Note(STAGE, message, level, name) for message, name, level in _notes_of(footer))
    return LabelsResult.of_footer(footer, path, tuple(uses_of(footer))), said


def _notes_of(footer: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(message), str(name), str(level)) for message, name, level in footer.get("notes", ()))


def with_added(dataset: str, parse: Parse | None, labels: Labels, path: Path, *, on_event: Sink = ignore) -> Labels:
    """The release's labels and those of the label sources that were added to the folder.

    Args:
        dataset: Its name.
        parse: Names the images of rows that name paths.
        labels: The release's.
        path: The folder's ``labels.parquet``, beside which the added sources are.
        on_event: Called with remarks.

    Returns:
        All of them.

    Raises:
        TableError: The table of an added source is gone or damaged.
    """
    add = partial(with_added_sources, manifests=path.parent, dataset=dataset, release=labels.release, parse=parse)
    table, uses, notes = add(labels.table)
    if uses and (whole := _with_cells(labels, path)) is not labels:
        labels = whole
        table, uses, notes = add(labels.table)
    for note in notes:
        on_event(Note(STAGE, note, "warning", str(path)))
    added = tuple(name for name in table.schema.names if name not in labels.table.schema.names)
    unchanged = labels.unchanged and not uses and not _has_added(path)
    return replace(labels, table=table, tables=(*labels.tables, *uses), added=added, unchanged=unchanged)


def _with_cells(labels: Labels, path: Path) -> Labels:
    """The labels with the source tables' cells, which are not read of a table that stays as it is."""
    return replace(labels, table=release_labels(path)[1]) if labels.unchanged and not _has_added(path) else labels


def _has_added(path: Path) -> bool:
    return any(use.get("role") in ADDED_ROLES for use in footer_of(path).get("tables", []))


def write_labels(
    dataset: str,
    labels: Labels,
    path: Path,
    *,
    asked: Mapping[str, Any] | None = None,
    allow_loss: bool = False,
    apart: Path | None = None,
    on_event: Sink = ignore,
) -> LabelsResult:
    """What was written to ``labels.parquet``, counted.

    Args:
        dataset: The name of the dataset.
        labels: All that goes into the table.
        path: The table.
        asked: The options and the tables folder, for the footer; by default those that are in it.
        allow_loss: The table may know less than the one that is there.
        apart: Where the table is written instead, for whoever puts it in place.
        on_event: Told the end.

    Returns:
        What was written, counted.

    Raises:
        UsageError: The table would know less than the one that is there.
        StorageError: The disk refuses.
    """
    if labels.unchanged and (asked is None or footer_of(path).get("options", {}) == asked.get("options", {})):
        result = count_labels(dataset, labels, path)
        on_event(StageFinished(STAGE, done=result.rows))
        return result
    check_labels(dataset, labels, path, allow_loss=allow_loss)
    labels = _with_cells(labels, path)
    made_from = _made_from(dataset, labels, path, asked)
    result = count_labels(dataset, labels, path)
    made_from["counts"] = result.counts()
    write_table(labels.table, apart or path, name="labels", made_from=made_from)
    if labels.masks is not None:
        write_table(labels.masks, path.with_name(MASKS_NAME), name="masks", made_from=made_from)
    on_event(StageFinished(STAGE, done=result.rows))
    return result


def _made_from(dataset: str, labels: Labels, path: Path, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the footer says, without the counts."""
    before = footer_of(path)
    told = before if asked is None else asked
    made_from = {**provenance(dataset, labels), **({"added_columns": list(labels.added)} if labels.added else {})}
    made_from |= {"options": told["options"]} if told.get("options") else {}
    made_from |= {"inputs": labels.inputs} if labels.inputs else {}
    made_from |= {"notes": labels.notes} if labels.notes else {}
    if labels.masks is not None:
        made_from["masks"] = labels.masks.num_rows
    elif before.get("masks") and before.get("inputs") == labels.inputs:
        # They lie there, of the same tables.
        made_from["masks"] = before["masks"]
    return made_from


def read_large(
    spec: DatasetSpec, found: Tables, options: LabelOptions | None = None
) -> tuple[LabelParts, Labels] | None:
    """What ``read_found`` reads, some thousand patients at a time, in temporary files, and what is known beside it.

    ``None`` where ``read_found`` has to read them. Raises ``StorageError`` where the disk for those files refuses.
    """
    if spec.module != "mimic_cxr":
        return None
    from cxrprep.labels.mimic_parts import read_in_parts

    options = options or LabelOptions()
    parts = read_in_parts(spec.name, found, options)
    return None if parts is None else (parts, parts.labels(_digest_of_inputs(spec, found, options)))


def write_in_parts(
    folder: DatasetFolder,
    asked: LastOptions,
    found: Tables,
    *,
    apart: Path,
    allow_loss: bool = False,
    on_event: Sink = ignore,
) -> LabelsResult | None:
    """Write the labels of large tables, of which memory holds some thousand patients at a time.

    Args:
        folder: The open folder.
        asked: How the tables are read.
        found: The tables.
        apart: Where ``labels.parquet`` is written, for whoever puts it in place.
        allow_loss: The table may know less than the one that is there.
        on_event: Told the end.

    Returns:
        What was written, counted; ``None`` where ``read_found`` has to read them: they are not large, a label source
        was added, or there is something to say of them.

    Raises:
        UsageError: The table would know less than the one that is there.
        StorageError: The disk refuses.
    """
    spec, path = folder.spec, folder.manifests / LABELS_NAME
    if added_sources(path.parent) or _has_added(path):
        return None
    read = read_large(spec, found, asked.options)
    if read is None:
        return None
    parts, labels = read
    if not allow_loss:
        check_known(spec.name, parts.known, parts.schema.names, path)
    result = parts.counts(labels, path)
    told = asked.described(folder.root)
    made_from = {**_made_from(spec.name, labels, path, told), "counts": result.counts()}
    write_parts(parts.rows(), parts.schema, apart, name="labels", made_from=made_from)
    on_event(StageFinished(STAGE, done=result.rows))
    return result


def refresh_labels(
    dataset: str, parse: Parse | None, release: str, path: Path, *, read: Callable[[], Labels] | None = None,
    asked: Mapping[str, Any] | None = None, allow_loss: bool = False, on_event: Sink = ignore,
) -> LabelsResult:  # fmt: skip
    """``labels.parquet`` again after an added label source has changed, without reading the release's tables again.

    Args:
        dataset: name of the dataset.
        parse: reads ids out of an image's path, or of a study's name; ``None`` where nothing does.
        release: release of the dataset, where neither ``path`` nor ``read`` says so.
        path: the ``labels.parquet``.
        read: reads the release's tables where ``path`` is not there yet.
        asked: the options of ``read``, for the footer.
        allow_loss: the table may know less than the one that is there.
        on_event: receives notes.

    Returns:
        What was written, counted.

    Raises:
        TableError: ``path`` or a table cannot be read, or a table cannot be read.
        UsageError: two sources have one name, or a label source would be lost.
    """
    labels = Labels(release, LABELS.empty_table(), ())
    if path.is_file():
        asked, footer = None, footer_of(path)
        labels = Labels(*release_labels(path), inputs=footer.get("inputs", ""), notes=_notes_of(footer))
        if labels.table.num_rows:
            check_as_written(path)
    elif read is not None:
        try:
            labels = read()
        except TableError as error:
            on_event(Note(STAGE, f"the release's own tables are not read: {error.message}", "info", str(path)))
    # Those without the added sources are let go before the table is written.
    labels = with_added(dataset, parse, labels, path, on_event=on_event)
    return write_labels(dataset, labels, path, asked=asked, allow_loss=allow_loss, on_event=on_event)
