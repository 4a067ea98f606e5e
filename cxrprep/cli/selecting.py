"""From selection options to a ``Selection``: files of ids are read here, text and CSV."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.job import SelectionSettings, selection_of

if TYPE_CHECKING:
    from cxrprep.model import Selection

# What a column of ids may be called: the manifest's names first, then those of the releases.
_COLUMNS: Final = {
    "patients": ("patient_id", "subject_id", "patient id", "patient", "patientid"),
    "studies": ("study_id", "study"),
    "images": ("image_id", "dicom_id", "image index", "image", "path"),
}
_LIMIT: Final = 256_000_000


def chosen(settings: SelectionSettings) -> Selection:
    """The selection that the options describe, id files read. Raises ``UsageError`` that names file and line."""
    patients, studies = _words(settings.patients), _words(settings.studies)
    images: frozenset[str] = frozenset()
    if settings.ids:
        listed = read_ids(_existing(settings.ids))
        patients, studies = patients | listed["patients"], studies | listed["studies"]
        images = listed["images"]
    filled = dataclasses.replace(settings, patients=tuple(sorted(patients)), studies=tuple(sorted(studies)))
    return selection_of(filled, images)


def _existing(text: str) -> Path:
    from cxrprep.settings import expand

    path = expand(text)
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint="name a CSV, Parquet or text file of ids")
    return path


def _words(texts: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    for text in texts:
        path = Path(text).expanduser()
        # An id has no slash and no suffix; whoever writes one means a file.
        if path.is_file():
            found |= {
                line for line in (raw.strip() for raw in _text(path).splitlines()) if line and not line.startswith("#")
            }
        elif "/" in text or path.suffix in (".txt", ".csv"):
            raise UsageError(f"there is no file {path}", hint="name ids separated by commas, or a file with one a line")
        else:
            found.add(text)
    return frozenset(found)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"{path} is too large for a list of ids", hint="one id a line, or a CSV with id columns")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text", hint="one id a line, or a CSV with id columns") from None


def read_ids(path: Path) -> dict[str, frozenset[str]]:
    """The patients, studies and images that a CSV, Parquet or plain list of image ids names.

    When a file names images, they alone decide: its patient and study columns say the same, less precisely. Raises
    ``UsageError`` for a file without a column of ids.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        from cxrprep.manifest.io import read_columns

        names, rows = read_columns(path, tuple(name for group in _COLUMNS.values() for name in group))
    else:
        names, rows = _rows(path)
    places = {kind: _place(names, known) for kind, known in _COLUMNS.items()}
    if all(place is None for place in places.values()):
        raise UsageError(f"{path} has no column of ids", hint="call it patient_id, study_id or image_id")
    if places["images"] is not None:
        places = {"patients": None, "studies": None, "images": places["images"]}
    elif places["studies"] is not None:
        places["patients"] = None
    found: dict[str, set[str]] = {kind: set() for kind in _COLUMNS}
    for row in rows:
        for kind, place in places.items():
            if place is not None and place < len(row) and row[place]:
                found[kind].add(row[place])
    return {kind: frozenset(ids) for kind, ids in found.items()}


def _place(names: list[str], known: tuple[str, ...]) -> int | None:
    lowered = [name.strip().lower() for name in names]
    return next((lowered.index(name) for name in known if name in lowered), None)


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    lines = _text(path).splitlines()
    rows = [[field.strip() for field in row] for row in csv.reader(lines) if row]
    if not rows:
        raise UsageError(f"{path} is empty", hint="one id a line, or a CSV with id columns")
    known = {name for group in _COLUMNS.values() for name in group}
    if any(name.lower() in known for name in rows[0]):
        return rows[0], rows[1:]
    if len(rows[0]) == 1:
        return ["image_id"], [row for row in rows if not row[0].startswith("#")]
    return rows[0], rows[1:]
