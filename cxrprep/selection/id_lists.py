"""Tables of ids, as people keep them: a list, a CSV or a Parquet file with columns of patients, studies or images."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tempfile
from pathlib import Path
from typing import Final

from cxrprep.errors import NothingSelectedError, StorageError, TableError, UsageError
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import read_text, regular

# What a column of ids may be called: the manifest's names first, then those of the releases.
_COLUMNS: Final = {
    "patients": ("patient_id", "subject_id", "patient id", "patient", "patientid"),
    "studies": ("study_id", "study"),
    "images": ("image_id", "dicom_id", "image index", "image", "path"),
}


_LIMIT: Final = 256_000_000
_FILE: Final = re.compile(r"\.(?:png|jpe?g|dcm)$", re.IGNORECASE)


def read_ids(path: Path) -> dict[str, frozenset[str]]:
    """The patients, studies and images that a CSV, Parquet or plain list of image ids names.

    When a file names images, they alone decide: its patient and study columns say the same, less precisely. Raises
    ``UsageError`` for a file without a column of ids, ``NothingSelectedError`` for one without an id in it, and
    ``TableError`` for a damaged Parquet file.
    """
    names, rows = _table(path, "image_id")
    places = {kind: _place(names, known) for kind, known in _COLUMNS.items()}
    if all(place is None for place in places.values()):
        raise UsageError(f"{path} has no column of ids", hint="call it patient_id, study_id or image_id")
    found = {kind: _column(rows, place) for kind, place in places.items()}
    found["images"] = _image_ids(found["images"])
    precise = next((kind for kind in ("images", "studies", "patients") if found[kind]), None)
    if precise is None:
        raise _nothing(path)
    return {kind: ids if kind == precise else frozenset() for kind, ids in found.items()}


def read_list(path: Path, kind: str) -> frozenset[str]:
    """The ids of one ``kind`` (patients, studies, images) in a file: its column of that kind, or its only column.

    Raises as ``read_ids``.
    """
    names, rows = _table(path, _COLUMNS[kind][0])
    place = _place(names, _COLUMNS[kind])
    if place is None:
        raise UsageError(
            f"{path} has no column of {kind}", hint=f"call it {_COLUMNS[kind][0]}, or give one id per line"
        )
    ids = _column(rows, place)
    if not ids:
        raise _nothing(path)
    return ids


def list_file(kind: str, ids: frozenset[str]) -> Path:
    """A file in the user's cache that lists ``ids``, as ``read_ids`` and ``read_list`` read it.

    Commands that are printed name it, since nobody can paste thousands of ids. The same ids have the same file.
    """
    import platformdirs

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_COLUMNS[kind][0]], *([one] for one in sorted(ids))])
    body = text.getvalue().encode()
    name = f"{kind}-{hashlib.blake2b(body, digest_size=6).hexdigest()}.csv"
    folder = Path(platformdirs.user_cache_path("cxrprep", appauthor=False)) / "ids"
    try:
        if not (folder / name).is_file():
            replace_file(folder / name, lambda part: part.write_bytes(body))
    except StorageError:
        folder = Path(tempfile.gettempdir())
        replace_file(folder / name, lambda part: part.write_bytes(body))
    return folder / name


def _column(rows: list[list[str]], place: int | None) -> frozenset[str]:
    return frozenset() if place is None else frozenset(row[place] for row in rows if place < len(row) and row[place])


def _nothing(path: Path) -> NothingSelectedError:
    # No id at all would mean no condition, and so the whole release.
    return NothingSelectedError(f"{path} names no id", hint="one id per line, or a CSV with id columns")


def _image_ids(names: frozenset[str]) -> frozenset[str]:
    """The ids of images that are named as the releases' own tables and lists do it: by a path or a file name.

    A report's path, which MIMIC-CXR's list of studies has, names no image.
    """
    from cxrprep.datasets.catalog import catalog

    names = frozenset(name for name in names if not name.endswith(".txt"))
    if not any(_FILE.search(name) for name in names):
        return names
    layouts = [spec.layout() for spec in catalog().values()]

    def plain(name: str) -> str:
        known = next((image for layout in layouts if (image := layout.parse(name)) is not None), None)
        return _FILE.sub("", name) if known is None else known.image

    return frozenset(map(plain, names))


def _table(path: Path, only: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows; ``only`` is what the column of a list without a heading is called."""
    return _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _rows(path, only)


def _place(names: list[str], known: tuple[str, ...]) -> int | None:
    lowered = [name.strip().lower() for name in names]
    return next((lowered.index(name) for name in known if name in lowered), None)


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {name for group in _COLUMNS.values() for name in group}
    try:
        file = pq.ParquetFile(regular(path))
        names = [name for name in file.schema_arrow.names if name.lower() in known]
        columns = [file.read(columns=[name]).column(0).cast(pa.string()).to_pylist() for name in names]
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}", hint="name a table of ids") from error
    return names, [[value or "" for value in row] for row in zip(*columns, strict=True)]


def _rows(path: Path, only: str) -> tuple[list[str], list[list[str]]]:
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(_text(path).splitlines()) if row]
    except csv.Error as error:
        raise UsageError(f"{path}: {error}", hint="one id per line, or a CSV with id columns") from error
    if not rows:
        raise UsageError(f"{path} is empty", hint="one id per line, or a CSV with id columns")
    known = {name for group in _COLUMNS.values() for name in group}
    if any(name.lower() in known for name in rows[0]):
        return rows[0], rows[1:]
    if len(rows[0]) == 1:
        return [only], [row for row in rows if not row[0].startswith("#")]
    return rows[0], rows[1:]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"{path} is too large for a list of ids", hint="one id per line, or a CSV with id columns")
        return read_text(path)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text", hint="one id per line, or a CSV with id columns") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
