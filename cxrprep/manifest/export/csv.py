"""Plain CSV: one row an image, one column per observation, blanks for nulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.csv as pacsv

from cxrprep.events import Advanced
from cxrprep.labels.policy import Uncertain
from cxrprep.manifest.export.run import STAGE, ExportResult, card_of
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from cxrprep.datasets.catalog import DatasetSpec
    from cxrprep.events import Sink
    from cxrprep.manifest.export.run import ExportOptions
    from cxrprep.manifest.export.target import Target
    from cxrprep.manifest.load import Dataset

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


def export(
    dataset: Dataset, spec: DatasetSpec | None, target: Target, options: ExportOptions, on_event: Sink
) -> ExportResult:
    """Write ``images.csv`` and ``README.md``. With ``ignore`` a column ``mask <observation>`` follows each label.

    Args:
        dataset: The images, the policy applied.
        spec: The dataset's entry; ``None`` without one.
        target: Where it goes.
        options: See ``ExportOptions``.
        on_event: Called with progress and remarks.

    Returns:
        The files.

    Raises:
        StorageError: The disk refuses.
    """
    table = plain(dataset.to_arrow().select([*_ABOUT, *(["fold"] if dataset.folds else [])]))
    sections = dataset.report_sections()
    for name in dataset.texts:
        table = table.append_column(name, sections.column(name))
    labels, mask = dataset.labels(), dataset.mask()
    for stem in dataset.observations:
        name = published_name(stem)
        table = table.append_column(name, labels.column(name))
        if dataset.policy.of(stem)[0] is Uncertain.IGNORE:
            table = table.append_column(f"mask {name}", mask.column(name))
    data = csv_of(table)
    target.write(target.file("images.csv"), lambda part: part.write_bytes(data))
    on_event(Advanced(STAGE, items=len(dataset)))
    front = front_matter([Config([(EVERY_SPLIT, target.file("images.csv").name)], _features(table))], spec)
    text = card_of(dataset, spec, options, on_event, front=front) + _NOTE
    target.write(target.card, lambda part: part.write_text(text, encoding="utf-8"))
    return ExportResult("csv", target.out, len(dataset), tuple(target.files))
