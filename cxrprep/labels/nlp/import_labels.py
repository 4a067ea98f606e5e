"""Another labeler's output as a label source of a folder: our columns, our values, no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.errors import UsageError
from cxrprep.humanize import short_repr
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.label_sources import FOLDER, OURS, check_name
from cxrprep.labels.label_table import IMAGE_KEYS, LabelTable, read_label_table
from cxrprep.labels.nlp import output_tables
from cxrprep.labels.nlp.results import ReportStatus
from cxrprep.labels.nlp.ruleset import OBSERVATIONS
from cxrprep.schemas import RAW_PREFIX, describe
from cxrprep.storage.parquet import with_footer

if TYPE_CHECKING:
    from pathlib import Path

# Labelers that give no ids repeat the text: it is never an id here.
_TEXTS: Final = frozenset(("reports", "report impression"))
_STUDY: Final = ("study_id", "study")
_PATIENT: Final = ("subject_id", "patient_id")
_IMAGE: Final = describe("image_id", pa.string(), "image, where the table names one: an id or a path")


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote: ``key`` is the column that the ids came from, empty where rows were numbered.

    ``left_out`` are columns that are no labels, with the line of the first cell that is none.
    """

    __repr__ = short_repr

    labels: Path
    rows: int
    observations: tuple[str, ...]
    key: str
    name: str = ""
    left_out: tuple[tuple[str, int], ...] = ()


def name_of(source: Path) -> str:
    """The label source that a file without a name of its own is imported as: ``chexbert`` for ``chexbert.csv.gz``."""
    return check_name(source.name.split(".", 1)[0].strip().replace(" ", "-"))


def import_table(source: Path, out_dir: Path, *, name: str | None = None, key: str | None = None) -> Imported:
    """Write ``label_sources/NAME.parquet`` in ``out_dir`` from ``source``, a table of labels by another program.

    Args:
        source: a CSV (also gzipped) or Parquet table; ids and observations are known by the names of their columns.
        out_dir: the manifests folder.
        name: the label source; by default the file's own name.
        key: the id column, where it is not found; rows are numbered without one.

    Returns:
        What was taken, counted.

    Raises:
        TableError: the table cannot be read, or a cell is no label.
        UsageError: the name cannot name a label source, or there is no column ``key``.
        StorageError: the disk refuses.
    """
    name = check_name(name) if name else name_of(source)
    if name == OURS:
        raise UsageError(
            f"{OURS} is the label source of reports that are labelled here", hint="import it under another name"
        )
    read = read_label_table(source, key=key)
    chosen = key or next((column for column in read.ids if column.lower() not in _TEXTS), "")
    names = tuple(dict.fromkeys((*(each for each in OBSERVATIONS if each in read.columns), *read.columns)))
    schema, count = _schema(names, read), read.rows
    columns: dict[str, Any] = {
        "row": range(count),
        "report_id": read.ids[chosen] if chosen else [f"row-{row}" for row in range(count)],
        "patient_id": _ids(read, _PATIENT),
        "study_id": _ids(read, _STUDY),
        "image_id": _ids(read, IMAGE_KEYS),
        "status": [ReportStatus.LABELED.value] * count,
        "section": [None] * count,
        "text_sha256": [None] * count,
        **{output_tables.column_of(each): read.columns[each] for each in names},
        **{RAW_PREFIX + each: read.extra[each] for each in read.extra},
    }
    table = pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    target = out_dir / FOLDER / f"{name}.parquet"
    digest = digest_of(source).value
    made_from = {
        "imported": source.name, "sha256": digest, "label_source": name, "labeler": {"name": name, "version": ""},
    }  # fmt: skip
    output_tables.write_stream([table], with_footer(schema, output_tables.LABELS_NAME, made_from), target)
    return Imported(target, count, (*names, *read.extra), chosen, name, tuple(read.left_out.items()))


def _schema(names: tuple[str, ...], read: LabelTable) -> pa.Schema:
    ours = [*output_tables.labels_schema(names)]
    place = [field.name for field in ours].index("study_id") + 1
    further = [describe(RAW_PREFIX + each, pa.int8(), f"{each}, as the imported table has it") for each in read.extra]
    return pa.schema([*ours[:place], _IMAGE, *ours[place:], *further])


def _ids(read: LabelTable, names: tuple[str, ...]) -> list[str | None]:
    known = {column.lower(): column for column in read.ids}
    found = next((read.ids[known[name]] for name in names if name in known), None)
    return [None] * read.rows if found is None else [value or None for value in found]
