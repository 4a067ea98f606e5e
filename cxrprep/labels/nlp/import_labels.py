"""Another labeler's output as a table of ours: same columns, same values, no text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.errors import StorageError
from cxrprep.labels.agreement import LabelTable, read_label_table
from cxrprep.labels.nlp import output_tables
from cxrprep.labels.nlp.results import ReportStatus
from cxrprep.labels.nlp.ruleset import OBSERVATIONS

if TYPE_CHECKING:
    from pathlib import Path

# Labelers that give no ids repeat the text: it is never an id here.
_TEXTS: Final = frozenset(("reports", "report impression"))
_STUDY: Final = ("study_id", "study")
_PATIENT: Final = "subject_id"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote: ``key`` is the column that the ids came from, empty where rows were numbered."""

    labels: Path
    rows: int
    observations: tuple[str, ...]
    key: str


def import_table(source: Path, out_dir: Path, *, key: str | None = None) -> Imported:
    """Write ``report_labels.parquet`` in ``out_dir`` from ``source``, a table of labels by another program.

    Raises ``TableError``, ``UsageError`` or ``StorageError``.
    """
    read = read_label_table(source, key=key)
    chosen = key or next((name for name in read.ids if name.lower() not in _TEXTS), "")
    names = tuple(dict.fromkeys((*(name for name in OBSERVATIONS if name in read.columns), *read.columns)))
    schema = output_tables.labels_schema(names)
    count = read.rows
    columns: list[Any] = [
        range(count),
        read.ids[chosen] if chosen else [f"row-{row}" for row in range(count)],
        _ids(read, (_PATIENT,)),
        _ids(read, _STUDY),
        [ReportStatus.LABELED.value] * count,
        [None] * count,
        [None] * count,
        *(read.columns[name] for name in names),
    ]
    table = pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
    target = out_dir / f"{output_tables.LABELS_NAME}.parquet"
    made_from = {"imported": source.name, "sha256": _digest(source)}
    output_tables.write_stream([table], schema, target, output_tables.footer(output_tables.LABELS_NAME, made_from))
    output_tables.remove_other_evidence(target)
    return Imported(target, count, names, chosen)


def _ids(read: LabelTable, names: tuple[str, ...]) -> list[str | None]:
    found = next((read.ids[name] for name in names if name in read.ids), None)
    return [None] * read.rows if found is None else [value or None for value in found]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
