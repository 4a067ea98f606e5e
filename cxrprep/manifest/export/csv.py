"""Plain CSV: one row an image, one column per observation, blanks for nulls."""

from __future__ import annotations

import contextlib
import gzip
import json
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.csv as pacsv

from cxrprep.events import Advanced
from cxrprep.labels.policy import Uncertain
from cxrprep.manifest.export.run import STAGE, ExportResult, ExportTask, card_of
from cxrprep.manifest.export.target import MASKS
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, Config, front_matter
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

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


def write_csv(path: Path, tables: Callable[[], Iterable[pa.Table]], *, packed: bool = False) -> None:
    """Write a table that comes in parts; quotation marks only where a cell of it needs them, then around all text.

    The header never has any: NIH's has commas inside of names, which are two names to its readers. The parts are asked
    for again where a cell needs quotation marks. ``packed`` is gzip.
    """
    try:
        with _opened(path, packed) as file:
            _write_parts(file, tables(), "none")
    except pa.ArrowInvalid:
        # Some cell holds a comma, a quotation mark or a line break.
        with _opened(path, packed) as file:
            _write_parts(file, tables(), "needed")


@contextlib.contextmanager
def _opened(path: Path, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if packed:
            # Without a name and a time: the same rows are the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as inside:
                yield cast("BinaryIO", inside)
        else:
            yield file


def _write_parts(file: BinaryIO, tables: Iterable[pa.Table], style: str) -> None:
    for number, table in enumerate(tables):
        if not number:
            header = ",".join(table.column_names)
            file.write(f"{header}\n".encode())
        # In one piece: pyarrow 26 writes what stood in memory before where a first piece has no rows.
        pacsv.write_csv(table.combine_chunks(), file, pacsv.WriteOptions(include_header=False, quoting_style=style))


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
    task.target.write(task.target.beside(MASKS), lambda part: write_csv(part, lambda: [plain(table)]))


def export(task: ExportTask) -> ExportResult:
    """Write ``images.csv`` and ``README.md``, and ``masks.csv`` of a release that draws regions.

    With ``ignore`` a column ``mask <observation>`` follows each label.

    Raises ``StorageError``: the disk refuses.
    """
    dataset, place = task.dataset, task.target.file("images.csv")
    features = _features(_rows_of(dataset.rows(0, 1)))
    front = front_matter([Config([(EVERY_SPLIT, place.name)], features)], task.spec)
    text = card_of(task, front=front) + _NOTE
    # The card first: by it the next run knows a file that was named for one of ours, wherever this one ends.
    task.target.write(task.target.card, lambda part: part.write_text(text, encoding="utf-8"))
    task.target.write(place, lambda part: write_csv(part, lambda: map(_rows_of, dataset.parts())))
    task.on_event(Advanced(STAGE, items=len(dataset)))
    _write_regions(task)
    return ExportResult("csv", task.target.out, len(task.dataset), tuple(task.target.files))


def _rows_of(dataset: Dataset) -> pa.Table:
    table = plain(dataset.to_arrow().select([*_ABOUT, *dataset.split_columns]))
    sections = dataset.report_sections()
    for name in dataset.texts:
        table = table.append_column(name, sections.column(name))
    labels, mask = dataset.labels(), dataset.mask()
    for stem in dataset.observations:
        name = published_name(stem)
        table = table.append_column(name, labels.column(name))
        if dataset.policy.of(stem)[0] is Uncertain.IGNORE:
            table = table.append_column(f"mask {name}", mask.column(name))
    return table
