"""Reads CheXpert Plus: CheXbert's labels of its report sections (JSON lines), and its reports on request.

Labels may differ between the images of one study there, since the reports were de-identified once per image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.labels.columns import categories, constant, count_true
from cxrprep.labels.csv_table import Form, read_table
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.joins import positions
from cxrprep.schemas import CATEGORY, TEXT
from cxrprep.storage.small_files import parse_json
from cxrprep.vocabulary import CHEXPERT

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables

_SECTIONS: Final = tuple(
    f"section_{name}"
    for name in (
        "narrative", "clinical_history", "history", "comparison", "technique", "procedure_comments", "findings",
        "impression", "end_of_impression", "summary", "accession_number",
    )
)  # fmt: skip
_PERSON: Final = (
    "race", "ethnicity", "interpreter_needed", "insurance_type", "recent_bmi", "deceased",
)  # fmt: skip
_TABLE: Final = Form(
    ("path_to_image", "age", "sex", "frontal_lateral", "ap_pa"),
    optional=("path_to_dcm", "deid_patient_id", "patient_report_date_order", "split", "report", *_PERSON),
    drop=_SECTIONS,
    plain=("path_to_image", "path_to_dcm", "report"),
    multiline=True,
)
_IMAGE: Final = (
    r"(?:^|/)(?P<image>(?P<study>(?P<patient>patient\d{5})/study\d+)/view\d+_(?P<side>frontal|lateral))\.\w+$"
)
_VALUES: Final = {1: "1.0", 0: "0.0", -1: "-1.0"}
_KEPT: Final = ("view", "projection", "view_raw", "sex", "age_years", "age_flag", "split")


def read(tables: Tables, label_rows: LabelRows) -> None:
    """Add the rows of the three label files that are here, and reports to all rows when asked for."""
    for entry, path in tables.of_role("plus-labels"):
        _add_labels(entry.label_source, path, label_rows)
    if label_rows.options.report_text:
        _add_reports(tables, label_rows)


def _add_labels(source: str, path: Path, label_rows: LabelRows) -> None:
    digest = digest_of(path)
    paths: list[str] = []
    cells: dict[str, list[int | None]] = {name: [] for name in CHEXPERT.names}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    _add_line(parse_json(line), paths, cells, f"{path}, line {number}")
    except ValueError as error:
        raise TableError(
            f"{path}, line {len(paths) + 1}: not a line of JSON: {error}", hint="the file is cut short: fetch it again"
        ) from error
    if not paths:
        raise TableError(f"{path} is empty", hint="fetch it again")
    keys = pa.array(paths, pa.string())
    ids = pc.extract_regex(keys, _IMAGE)
    image = pc.struct_field(ids, "image")
    if image.null_count:
        row = pc.index(pc.is_null(image), pa.scalar(value=True)).as_py()
        raise TableError(f"{path}, line {row + 1}, path_to_image: {paths[row]!r} is not the path of an image")
    if pc.count_distinct(image).as_py() < len(paths):
        counts = pc.value_counts(image)
        twice = counts.field(0).filter(pc.greater(counts.field(1), 1))[0]
        raise TableError(f"{path}, path_to_image: {twice} appears twice", hint="fetch the file again")
    rows = len(paths)
    columns: dict[str, Any] = {
        "image_id": image,
        "study_id": pc.struct_field(ids, "study"),
        "patient_id": pc.struct_field(ids, "patient"),
        "path_raw": keys,
        "label_source": constant(source, rows),
        "table_name": constant(path.name, rows),
        "table_digest": constant(str(digest), rows),
        **_from_other_tables(image, pc.struct_field(ids, "side"), label_rows),
    }
    raw: dict[str, pa.Array] = {"path_to_image": keys}
    for term in CHEXPERT.terms:
        values = cells[term.name]
        columns[term.column] = pa.array(values, pa.int8())
        words = pa.array([None if value is None else _VALUES[value] for value in values], pa.string())
        raw[term.name] = words.dictionary_encode().cast(TEXT)
    label_rows.use_file(path, digest, "labels", rows=rows, used=rows, source=source)
    label_rows.add(rows, columns, raw, plain=("path_to_image",))


def _add_line(item: Any, paths: list[str], cells: dict[str, list[int | None]], where: str) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("path_to_image"), str):
        raise TableError(f"{where}, path_to_image: missing", hint="is this a label file of CheXpert Plus?")
    paths.append(item["path_to_image"])
    for name, values in cells.items():
        value = item.get(name)
        if value is not None and (isinstance(value, bool) or value not in _VALUES):
            raise TableError(f"{where}, {name}: expected 1, 0, -1 or null ({value!r})")
        values.append(None if value is None else int(value))


def _from_other_tables(image: pa.Array, side: pa.Array, label_rows: LabelRows) -> dict[str, Any]:
    """What CheXpert's own tables say of the images; where they are not here, what the file name states."""
    with_images = [block for block in label_rows.blocks if block.column("image_id").null_count < block.num_rows]
    if with_images:
        table = pa.concat_tables([block.select(["image_id", *_KEPT]) for block in with_images]).combine_chunks()
        place = positions(image, table.column("image_id"))
        known = {name: table.column(name).combine_chunks().take(place) for name in _KEPT}
    else:
        known = {name: pa.nulls(len(image), CATEGORY) for name in _KEPT if name != "age_years"}
    by_name = pc.if_else(pc.equal(side, "lateral"), "LATERAL", pa.scalar(None, pa.string()))
    known["view"] = categories(pc.coalesce(known["view"].cast(pa.string()), by_name))
    known["projection"] = categories(pc.coalesce(known["projection"].cast(pa.string()), side))
    return known


def _add_reports(tables: Tables, label_rows: LabelRows) -> None:
    """Put each image's report beside all of its rows."""
    found = tables.of_role("plus")
    if not found:
        raise TableError(
            "report texts were asked for, and CheXpert's are in df_chexpert_plus_240401.csv, which is not here",
            hint="name its folder with --tables DIR, or do not ask for report texts",
        )
    table = read_table(found[0][1], _TABLE)
    table.require_match("path_to_image", _IMAGE, "expected a path such as train/patient00001/study1/view1_frontal.jpg")
    image = pc.struct_field(pc.extract_regex(table.text("path_to_image"), _IMAGE), "image")
    if "report" not in table:
        raise TableError(f"{table.path}, line 1: column 'report' is missing", hint="fetch the table again")
    used = 0
    for index, block in enumerate(label_rows.blocks):
        place = positions(block.column("image_id"), image)
        texts = pa.DictionaryArray.from_arrays(place, table.column("report").cast(pa.large_string()))
        label_rows.blocks[index] = block.append_column("report_text", texts)
        used = max(used, count_true(pc.is_in(image, value_set=block.column("image_id"))))
    label_rows.use(table, "reports", used=used, name_images_that_no_label_table_has=table.rows - used)
