"""Plain CSV: one row an image, one column per observation, blanks for nulls."""

from __future__ import annotations

import json
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv

from cxrprep.events import Advanced
from cxrprep.labels.policy import Uncertain
from cxrprep.manifest.export.run import STAGE, ExportResult, ExportTask, card_of
from cxrprep.manifest.export.target import MASKS
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter
from cxrprep.vocabulary import published_name

_ABOUT: Final = ("path", "image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years")

_NOTE: Final = """
## How to open it

Read ids as text (pandas: `dtype={"patient_id": str, "study_id": str}`): readers that guess take `00000001` for 1, and
`load_dataset` is one of them. `cxrprep export --format hf` gives a folder whose ids need no care.
"""


def plain(table: pa.Table) -> pa.Table:
    """``table`` with categories as text, which CSV knows."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
    return table


def csv_of(table: pa.Table) -> bytes:
    """``table`` as CSV; quotation marks only where a cell of it needs them, then around all text.

    The header never has any: NIH's has commas inside of names, which are two names to its readers.
    """
    style = "none"
    while True:
        sink = pa.BufferOutputStream()
        try:
            pacsv.write_csv(table, sink, pacsv.WriteOptions(include_header=False, quoting_style=style))
        except pa.ArrowInvalid:
            # Some cell holds a comma, a quotation mark or a line break.
            if style == "needed":
                raise
            style = "needed"
            continue
        header = ",".join(table.column_names)
        return f"{header}\n".encode() + bytes(sink.getvalue().to_pybytes())


def _features(table: pa.Table) -> pa.Schema:
    """The columns as their reader in ``datasets`` can hold them: its integers know no blank."""
    numbers = pa.types.is_integer
    return pa.schema([(f.name, pa.float32() if numbers(f.type) else f.type) for f in table.schema])


def _write_regions(task: ExportTask) -> None:
    """``masks.csv``, or the same beside the file that was named: a row a region; rings as JSON, as CSV has no lists."""
    if not task.dataset.masks:
        return
    table = task.dataset.regions().drop_columns(["dataset", "release"])
    rings = [None if one is None else json.dumps(one) for one in table.column("polygons").to_pylist()]
    table = table.set_column(table.column_names.index("polygons"), "polygons", pa.array(rings, pa.string()))
    data = csv_of(plain(table))
    task.target.write(task.target.beside(MASKS), lambda part: part.write_bytes(data))


def export(task: ExportTask) -> ExportResult:
    """Write ``images.csv`` and ``README.md``, and ``masks.csv`` of a release that draws regions.

    With ``ignore`` a column ``mask <observation>`` follows each label.

    Raises ``StorageError``: the disk refuses.
    """
    table = plain(task.dataset.to_arrow().select([*_ABOUT, *task.dataset.split_columns]))
    sections = task.dataset.report_sections()
    for name in task.dataset.texts:
        table = table.append_column(name, sections.column(name))
    labels, mask = task.dataset.labels(), task.dataset.mask()
    for stem in task.dataset.observations:
        name = published_name(stem)
        table = table.append_column(name, labels.column(name))
        if task.dataset.policy.of(stem)[0] is Uncertain.IGNORE:
            table = table.append_column(f"mask {name}", mask.column(name))
    data = csv_of(table)
    task.target.write(task.target.file("images.csv"), lambda part: part.write_bytes(data))
    task.on_event(Advanced(STAGE, items=len(task.dataset)))
    _write_regions(task)
    front = front_matter([Config([(EVERY_SPLIT, task.target.file("images.csv").name)], _features(table))], task.spec)
    text = card_of(task, front=front) + _NOTE
    task.target.write(task.target.card, lambda part: part.write_text(text, encoding="utf-8"))
    return ExportResult("csv", task.target.out, len(task.dataset), tuple(task.target.files))
