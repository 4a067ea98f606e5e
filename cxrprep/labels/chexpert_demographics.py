"""CheXpert's demographics: a workbook with a row per patient, joined on request.

Its columns become ``raw_`` columns as they are. The key is ``PATIENT``, written ``patient00001`` or as a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from cxrprep.errors import TableError
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.resaved_formats import sheets_of
from cxrprep.schemas import TEXT
from cxrprep.storage.small_files import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables

_KEYS: Final = ("patient", "patient_id", "patientid")
_PATIENT: Final = re.compile(r"(?:patient)?0*(\d{1,5})(?:\.0)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Demographics:
    """``columns`` as text, a value for each ``patient``; nobody appears twice."""

    patient: pa.Array
    columns: dict[str, pa.Array]


def read_demographics(tables: Tables, label_rows: LabelRows) -> Demographics | None:
    """The demographics workbook; ``None`` unless it is asked for. Of two rows of one patient the first is taken.

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
    return Demographics(pa.array(list(first), pa.string()), columns)


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
