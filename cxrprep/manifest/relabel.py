"""Rows of a manifest with the labels of another source, or with patients divided anew."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections import Counter
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.errors import storage_errors
from cxrprep.events import Sink, ignore
from cxrprep.manifest.label_join import (
    check_sources,
    relabel_from,
    relabelled,
    relabelling_columns,
    rows_of_sources,
)
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.patient_table import IdsOfRanges, NotByPatientError, PatientTable
from cxrprep.storage.table_on_disk import TableOnDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.labels.splits import SplitRule


def relabelled_images(
    path: Path,
    labels: Path | None,
    sources: tuple[str, ...],
    split: SplitRule | None,
    *,
    held: bool,
    on_event: Sink = ignore,
) -> pa.Table | TableOnDisk:
    """The images of a manifest with other labels, other splits or both.

    Args:
        path: The manifest.
        labels: The ``labels.parquet`` that labels are taken from; ``None`` leaves them as they are.
        sources: Whose labels, the best source first.
        split: Divides the patients anew; ``None`` leaves splits as they are.
        held: Hold all rows in memory. Else they are worked on some patients after others, and are in a temporary file:
            not with a split that depends on who else is there, nor where a table is not in order of patients.
        on_event: Told what is to be said of images that were divided.

    Returns:
        All rows of the manifest, in their order.

    Raises:
        UsageError: No row is of these sources.
        TableError: A table is damaged.
        StorageError: The disk for temporary files refuses.
    """
    if not held and (split is None or split.stable):
        with contextlib.suppress(NotByPatientError):
            return _on_disk(path, labels, sources, split, on_event)
    images = read_rows(path)
    if labels is not None:
        rows = read_rows(labels, relabelling_columns(labels)).combine_chunks()
        images = relabel_from(images, rows, sources, labels)
    return images if split is None else split.apply(images, on_event)


def _on_disk(
    path: Path, labels: Path | None, sources: tuple[str, ...], split: SplitRule | None, on_event: Sink
) -> TableOnDisk:
    """The same in a temporary file, which has no name and goes with the table. Raises ``NotByPatientError``."""
    counts, images = Counter[str](), _relabelled_ranges(path, labels, sources)
    with contextlib.ExitStack() as closing:
        with _temporary():
            file = closing.enter_context(tempfile.TemporaryFile(prefix="cxrprep-"))
        _write((rows if split is None else split.divided(rows, counts) for rows in images), file)
        # The table reads it, and closes it.
        closing.pop_all()
    for note in () if split is None else split.notes(counts):
        on_event(note)
    return TableOnDisk.open(path, held=file)


def _relabelled_ranges(path: Path, labels: Path | None, sources: tuple[str, ...]) -> Iterator[pa.Table]:
    """The images of some patients after those of others, with labels of the sources."""
    images = PatientTable(path)
    if labels is None:
        yield from (rows for _, rows in images.rows_in_order())
        return
    table = PatientTable(labels, ["patient_id", *relabelling_columns(labels)])
    check_sources(table.values("label_source"), sources, labels)
    of_images, of_studies = IdsOfRanges(), IdsOfRanges()
    for bounds, rows in images.rows_in_order():
        held = table.between(*bounds)
        of_images.add(rows.column("image_id"), held.column("image_id"))
        of_studies.add(rows.column("study_id"), held.column("study_id"))
        yield relabelled(rows, held, rows_of_sources(rows, held, sources))
    of_images.check()
    of_studies.check()


def _write(tables: Iterator[pa.Table], file: IO[bytes]) -> None:
    first = next(tables)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in itertools.chain([first], tables):
            with _temporary():
                writer.write_table(table)


def _temporary() -> contextlib.AbstractContextManager[None]:
    return storage_errors(tempfile.gettempdir(), "write temporary files in")
