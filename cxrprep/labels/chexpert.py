"""Reads the tables of CheXpert: train, valid and test, CheXbert's and VisualCheXbert's, demographics on request.

The ``Path`` column says which image a row is about, whatever folder it begins with: the part from ``patientNNNNN/`` on.
Its tables are the same in the full and the small release, so either serves for both. CheXpert Plus is read by
``chexpert_plus``. The demographics are a workbook with a row per patient, whose columns become ``raw_`` columns; the
key ``PATIENT`` is written ``patient00001`` or as a number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.humanize import format_count
from cxrprep.labels import chexpert_plus
from cxrprep.labels.columns import coded, count_true, filled_with_zeros, labels, sex, source_columns, whole
from cxrprep.labels.csv_table import Form, read_table
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.joins import positions
from cxrprep.labels.resaved_formats import sheets_of
from cxrprep.labels.text_table import TextTable, first_true
from cxrprep.schemas import TEXT
from cxrprep.storage.small_files import read_file
from cxrprep.vocabulary import CHEXPERT

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables


_PERSON: Final = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_FORMS: Final = {
    "full": Form(("Path", *_PERSON, *CHEXPERT.names), plain=("Path",)),
    "labels": Form(("Path", *CHEXPERT.names), optional=_PERSON, plain=("Path",)),
    "studies": Form(("Study", *CHEXPERT.names), plain=("Study",)),
}
_IMAGE: Final = (
    r"(?:^|/)(?P<image>(?P<study>(?P<patient>patient\d{5})/study\d+)/view\d+_(?P<side>frontal|lateral))"
    r"\.(?:jpe?g|png|dcm)$"
)
_IMAGE_FORM: Final = "expected a path such as CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
_STUDY: Final = r"(?:^|/)(?P<study>(?P<patient>patient\d{5})/study\d+)/?$"
_STUDY_FORM: Final = "expected a study such as CheXpert-v1.0/test/patient64741/study1"
_OLDEST: Final = 90  # the release writes 90 for everyone of 90 or over
_SPLITS: Final = (("train", 1), ("validate", 64541), ("test", 64741))  # with the first patient of each
_SIDES: Final = ("frontal", "lateral")
_BEAMS: Final = ("AP", "PA", "LL", "RL")


def read(tables: Tables, label_rows: LabelRows) -> None:
    """Add the rows that these tables give: one per image and label source."""
    demographics = read_demographics(tables, label_rows)
    for entry, path in tables.of_role("labels"):
        form = _FORMS[entry.settings["form"]]
        table = read_table(path, form)
        # CheXbert's tables have the paths of the full release, whichever the images are of: the first table decides.
        if not label_rows.release_stated and not label_rows.blocks and "Path" in table:
            label_rows.release = _release(table, label_rows.release)
        columns = study_ids(table, "Study") if "Study" in table else image_ids(table, "Path")
        table, columns = _in_order(table, columns)
        columns |= _about(table, columns, label_rows)
        for term in CHEXPERT.terms:
            columns[term.column] = labels(table, term.name)
        columns |= source_columns(entry.label_source, table, table.rows)
        raw = {name: table.column(name) for name in table.names}
        if demographics is not None:
            place = positions(columns["patient_id"], demographics[0])
            raw |= {name: values.take(place) for name, values in demographics[1].items()}
        columns.pop("lateral", None)
        label_rows.use(table, "labels", used=table.rows, source=entry.label_source)
        trained = count_true(pc.equal(columns["split"].cast(pa.string()), "train"))
        if entry.label_source == "radiologist" and trained:
            label_rows.note(
                f"{format_count(trained, 'row', 'is')} about train patients, whom the release's radiologists did not "
                "see: if it is a part of train.csv, move it away, and divide patients with: "
                "cxrprep manifest ROOT --fractions F,F,F",
                str(path),
                "warning",
            )
        if entry.label_source != "radiologist" and (filled := filled_with_zeros(table, CHEXPERT.names)):
            label_rows.note(filled, str(path), "warning")
        label_rows.add(table.rows, columns, raw, plain=("Path", "Study"))
    chexpert_plus.read(tables, label_rows)


def _release(table: TextTable, otherwise: str) -> str:
    first = table.text("Path")[0].as_py() or ""
    known = (release for release in ("v1.0-small", "v1.0-512", "v1.0") if first.startswith(f"CheXpert-{release}/"))
    return next(known, otherwise)


def image_ids(table: TextTable, column: str) -> dict[str, Any]:
    """Ids, split and whether the view is lateral, as a column of paths states. Raises ``TableError``."""
    table.require(column)
    paths = pc.replace_substring(table.text(column), "\\", "/")
    start = (paths[0].as_py() or "").find("patient")
    # All rows but a handful of hand-made tables share one prefix: slices are then a third of the price of a regex.
    # They are ASCII where the form holds, so bytes are characters there, and cost less.
    image = pc.binary_slice(paths.cast(pa.binary()), max(start, 0), -4)
    form = r"^patient\d{5}/study\d+/view\d_(?:frontal|lateral)$"
    ids: dict[str, Any]
    if start >= 0 and all(
        pc.all(holds).as_py()
        for holds in (
            pc.starts_with(paths, paths[0].as_py()[:start]),
            pc.ends_with(paths, ".jpg"),
            pc.match_substring_regex(image, form),
        )
    ):
        ids = {
            "image_id": image.cast(pa.string()),
            "study_id": pc.binary_slice(image, 0, -14).cast(pa.string()),
            "patient_id": pc.binary_slice(image, 0, 12).cast(pa.string()),
            "lateral": pc.ends_with(image, "lateral"),
        }
    else:
        table.with_slashes(column).require_match(column, _IMAGE, _IMAGE_FORM)
        found = pc.extract_regex(paths, _IMAGE)
        ids = {f"{name}_id": pc.struct_field(found, name) for name in ("image", "study", "patient")}
        ids["lateral"] = pc.equal(pc.struct_field(found, "side"), "lateral")
    return {**ids, "path_raw": paths, "split": split_of(ids["patient_id"])}


def _in_order(table: TextTable, ids: dict[str, Any]) -> tuple[TextTable, dict[str, Any]]:
    """The table by image (or study), as ``labels.parquet`` has it: a row's id begins with its patient and study.

    Raises ``TableError`` when two rows are about one image.
    """
    key = ids.get("image_id", ids["study_id"])
    # Put in order before there are sixty columns of it.
    order = pc.sort_indices(key)
    table = table.ordered(order)
    kept = {name: values.take(order) for name, values in ids.items() if name != "path_raw"}
    if "image_id" in kept:
        _refuse_second_rows(table, kept["image_id"])
        kept["path_raw"] = table.text("Path")
    return table, kept


def _refuse_second_rows(table: TextTable, image: pa.Array) -> None:
    again = first_true(pc.equal(image[1:], image[:-1]))
    if again >= 0:
        # Of the rows of one image, which the sort has left in the order of the file, the second is at fault.
        table.require_unique("Path")
        raise table.error(again + 1, "Path", "an earlier row is about the same image", "remove one of the two rows")


def study_ids(table: TextTable, column: str) -> dict[str, Any]:
    """Ids and split that a column of studies states. Raises ``TableError``."""
    table = table.with_slashes(column)
    table.require_match(column, _STUDY, _STUDY_FORM)
    table.require_unique(column)
    found = pc.extract_regex(table.text(column), _STUDY)
    patient = pc.struct_field(found, "patient")
    return {"study_id": pc.struct_field(found, "study"), "patient_id": patient, "split": split_of(patient)}


def split_of(patient: pa.Array) -> pa.Array:
    """The split that a patient's number is in; the release numbers them so, and nobody is in two."""
    number = pc.binary_slice(patient.cast(pa.binary()), 7, 12).cast(pa.string()).cast(pa.int32())
    first = np.searchsorted([first for _, first in _SPLITS], number.to_numpy(), side="right") - 1
    return coded(pa.array(first, mask=first < 0), [name for name, _ in _SPLITS])


def _about(table: TextTable, ids: dict[str, Any], label_rows: LabelRows) -> dict[str, Any]:
    """Sex, age and view; what the table does not have stays null, but for the side that the file name states."""
    if "lateral" not in ids:
        return {}
    lateral = ids["lateral"]
    if "Frontal/Lateral" not in table:
        beam = pa.nulls(table.rows, pa.int8())
        return {"view": _views(beam, lateral), "projection": coded(lateral, _SIDES)}
    sides = {"Frontal": False, "Lateral": True}
    stated = table.translated("Frontal/Lateral", sides.__getitem__, pa.bool_(), "expected Frontal or Lateral")
    table.require("Frontal/Lateral")
    differs = first_true(pc.not_equal(stated, lateral))
    if differs >= 0:
        raise table.error(differs, "Frontal/Lateral", f"the file name says {_SIDES[lateral[differs].as_py()]}")
    codes = {word: code for code, word in enumerate(_BEAMS)}
    zeros = {word: None for word in table.column("AP/PA").dictionary.to_pylist() if word in ("0", "0.0")}
    if zeros:
        label_rows.note(
            "AP/PA is 0 where the release leaves it blank: its blanks were filled with 0, and a blank label of this "
            "table cannot be told from a negative one",
            str(table.path),
            "warning",
        )
    known = {**codes, **zeros}.__getitem__
    beam = table.translated("AP/PA", known, pa.int8(), f"expected {', '.join(_BEAMS)} or blank")
    misfiled = pc.and_not(pc.fill_null(pc.greater(beam, codes["PA"]), fill_value=False), lateral)
    count = count_true(misfiled)
    strict = label_rows.options.strict_source
    if count:
        what = "frontal, as the table says" if strict else "lateral"
        label_rows.note(
            f"{format_count(count, 'row', 'says')} Frontal, with view LL or RL: taken as {what}",
            str(table.path),
            "warning",
        )
    words = pc.coalesce(beam, pc.add(lateral.cast(pa.int8()), pa.scalar(len(_BEAMS), pa.int8())))
    return {
        "view": _views(beam, lateral),
        # Without AP or PA the file name still says which way the beam went.
        "projection": coded(lateral if strict else pc.or_(lateral, misfiled), _SIDES),
        "view_raw": coded(words, (*_BEAMS, "Frontal", "Lateral")),
        "sex": sex(table, "Sex"),
        **_ages(table),
    }


def _views(beam: pa.Array, lateral: pa.Array) -> pa.Array:
    unstated = pc.and_(lateral, pc.is_null(beam))
    return coded(pc.if_else(unstated, pa.scalar(len(_BEAMS), pa.int8()), beam), (*_BEAMS, "LATERAL"))


def _ages(table: TextTable) -> dict[str, Any]:
    """Years; 0 means unknown in this release (nobody is under 18), and 90 is everyone of 90 or over."""

    def age(text: str) -> float:
        value = whole(text)
        if not 0 <= value <= 120:
            raise ValueError(text)
        return float(value)

    years = table.translated("Age", age, pa.float32(), "expected an age in years")
    unknown = pc.equal(years, 0)
    flag = pc.if_else(unknown, "implausible", pc.if_else(pc.equal(years, _OLDEST), "capped", None))
    return {"age_years": pc.if_else(unknown, None, years), "age_flag": flag}


_KEYS: Final = ("patient", "patient_id", "patientid")
_PATIENT: Final = re.compile(r"(?:patient)?0*(\d{1,5})(?:\.0)?", re.IGNORECASE)


def read_demographics(tables: Tables, label_rows: LabelRows) -> tuple[pa.Array, dict[str, pa.Array]] | None:
    """Patients, and the columns of the demographics workbook as text; ``None`` unless it is asked for.

    Of two rows of one patient the first is taken.

    Raises ``TableError`` for one that is absent, damaged or without patients, ``MissingExtraError`` without openpyxl.
    """
    if not label_rows.options.demographics:
        return None
    found = tables.of_role("demographics")
    if not found:
        raise TableError(
            "CHEXPERT DEMO.xlsx is not here",
            hint="download it, name its folder with --tables DIR, or do not ask for it",
        )
    path = found[0][1]
    header, *rows = _sheet(path)
    names = ["" if name is None else str(name).strip() for name in header]
    key = next((index for index, name in enumerate(names) if name.lower() in _KEYS), None)
    if key is None:
        raise TableError(
            f"{path}, line 1: column 'PATIENT' is missing", hint=f"it has: {', '.join(filter(None, names))}"
        )
    first: dict[str, tuple[str | None, ...]] = {}
    repeated = differing = blank = 0
    for line, row in enumerate(rows, 2):
        # Rows of a workbook end with their last cell that is not empty.
        padded = (*row, *(None for _ in names[len(row) :]))
        cells = tuple(None if cell is None else str(cell).strip() for cell in padded)
        if not any(cells):
            blank += 1
            continue
        patient = _patient(cells[key], f"{path}, line {line}, column {names[key]!r}")
        held = first.setdefault(patient, cells)
        repeated += held is not cells and held == cells
        differing += held != cells
    label_rows.use_file(
        path,
        digest_of(path),
        "demographics",
        rows=len(rows),
        used=len(first),
        repeat_an_earlier_row=repeated,
        say_otherwise_than_an_earlier_row_of_the_patient=differing,
        are_blank=blank,
    )
    columns = {
        name: pa.array([cells[index] for cells in first.values()], pa.string()).dictionary_encode().cast(TEXT)
        for index, name in enumerate(names)
        if name and index != key
    }
    return pa.array(list(first), pa.string()), columns


def _patient(cell: str | None, where: str) -> str:
    found = _PATIENT.fullmatch(cell or "")
    if found is None:
        raise TableError(
            f"{where}: expected a patient such as patient00001 ({cell!r})",
            hint="fix the cell, or fetch the sheet again",
        )
    return f"patient{int(found[1]):05d}"


def _sheet(path: Path) -> list[tuple[Any, ...]]:
    rows = next(iter(sheets_of(path, read_file(path)).values()), [])
    if len(rows) < 2:
        raise TableError(f"{path} has no rows", hint="fetch it again")
    return rows
