"""Reads what others labelled and drew on MIMIC-CXR's images: CXR-LT's long-tailed findings, and MS-CXR's boxes.

Both name images by their ``dicom_id``. A finding without a shared name has a column of its own, so that none is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.columns import count_true, first_of_each, labels, source_columns
from cxrprep.labels.csv_table import Form, read_table
from cxrprep.labels.joins import positions
from cxrprep.schemas import BOX
from cxrprep.vocabulary import CHEXPERT, slug

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables
    from cxrprep.labels.mimic_images import ImageListing
    from cxrprep.labels.text_table import TextTable

ROLE: Final = "annotations"
_IMAGE: Final = r"^(?:.*/)?([0-9a-f]{8}(?:-[0-9a-f]{8}){4})(?:\.\w+)?$"
_NO_FINDINGS: Final = frozenset({
    "dicom_id", "subject_id", "study_id", "path", "fpath", "split", "ViewPosition", "ViewCodeSequence_CodeMeaning",
    "PerformedProcedureStepDescription", "rows", "columns",
})  # fmt: skip
_SIDES: Final = ("x", "y", "w", "h")
_BOXES: Final = Form(("dicom_id", "category_name", *_SIDES), plain=("dicom_id",), open=True, multiline=True)


def read_annotations(tables: Tables, images: ImageListing, about: dict[str, Any], label_rows: LabelRows) -> None:
    """Add a row for each image that these tables speak of.

    Args:
        tables: What is here.
        images: The images of the release, by their ids.
        about: Columns of ``labels.parquet`` that are known of each image.
        label_rows: Gets the rows.

    Raises:
        TableError: A cell is no label, no number or no image.
    """
    for entry, path in tables.of_role(ROLE):
        if entry.label_source == "ms-cxr":
            _add_boxes(read_table(path, _BOXES), entry.label_source, images, about, label_rows)
        else:
            form = Form((), optional=("dicom_id", "path"), plain=("dicom_id", "path", "fpath"), open=True)
            _add_findings(read_table(path, form), entry.label_source, images, about, label_rows)


def _rows_of(table: TextTable, source: str, images: ImageListing, label_rows: LabelRows) -> pa.Array:
    """The row of each of the table's images among the release's; null where it has none."""
    column = "dicom_id" if "dicom_id" in table else "path"
    table = table.trimmed(column, _IMAGE)
    place = positions(table.text(column), images.image)
    lost = place.null_count
    label_rows.use(table, ROLE, used=table.rows - lost, source=source, name_images_that_no_table_lists=lost)
    return place


def _add_findings(
    table: TextTable, source: str, images: ImageListing, about: dict[str, Any], label_rows: LabelRows
) -> None:
    place = _rows_of(table, source, images, label_rows)
    kept = pc.is_valid(place)
    columns = _about(table, source, about, place.filter(kept))
    findings = [name for name in table.names if name not in _NO_FINDINGS]
    shared, own = _named({name: labels(table, name).filter(kept) for name in findings}, "cxr_lt", "CXR-LT")
    raw = {name: table.column(name).filter(kept) for name in findings}
    label_rows.add(count_true(kept), columns | shared, raw, own=own)


def _add_boxes(
    table: TextTable, source: str, images: ImageListing, about: dict[str, Any], label_rows: LabelRows
) -> None:
    """A row per image: its findings are 1, and its boxes in pixels of the released image."""
    place = _rows_of(table, source, images, label_rows)
    sides = [table.translated(name, float, pa.float32(), "expected a number of pixels") for name in _SIDES]
    names = table.text("category_name")
    # A box of two phrases has a row for each.
    first = first_of_each({"place": place, "name": names, **dict(zip(_SIDES, sides, strict=True))})
    rows = np.flatnonzero(pc.and_(place.is_valid(), first).to_numpy(zero_copy_only=False))
    at = place.to_numpy(zero_copy_only=False)[rows].astype(np.int64)
    order = np.lexsort((rows, at))
    taken = pa.array(rows[order])
    boxes = pa.StructArray.from_arrays([values.take(taken) for values in (names, *sides)], fields=list(BOX))
    found, counts = np.unique(at[order], return_counts=True)
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    columns = _about(table, source, about, pa.array(found))
    columns["boxes"] = pa.ListArray.from_arrays(offsets, boxes)
    said = [set(one) for one in _grouped(names.take(taken).to_pylist(), counts.tolist())]
    findings = sorted(set().union(*said))
    cells = {name: pa.array([1 if name in one else None for one in said], pa.int8()) for name in findings}
    shared, own = _named(cells, "ms_cxr", "MS-CXR")
    columns |= shared
    columns["labels_raw"] = pa.array([sorted(one) for one in said], pa.list_(pa.string()))
    label_rows.add(len(found), columns, {}, own=own)


def _about(table: TextTable, source: str, about: dict[str, Any], rows: pa.Array) -> dict[str, Any]:
    columns = {name: values.take(rows) for name, values in about.items()}
    return columns | source_columns(source, table, len(rows))


def _named(cells: dict[str, pa.Array], namespace: str, words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns of findings that have a shared name, and those of the others with what a 1 says."""
    terms = {name: CHEXPERT.term(name) for name in cells}
    shared = {term.column: cells[name] for name, term in terms.items() if term is not None}
    own = {name: (cells[name], f"{name}, as {words} words it") for name, term in terms.items() if term is None}
    return shared, {f"label_{namespace}__{slug(name)}": told for name, told in own.items()}


def _grouped(words: list[str], counts: list[int]) -> Iterable[list[str]]:
    begins = 0
    for count in counts:
        yield words[begins : begins + count]
        begins += count
