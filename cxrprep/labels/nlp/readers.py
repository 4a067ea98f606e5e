"""Collections of reports: MIMIC-CXR's zip or folder, Open-i XML, CSV, Parquet; one stream of reports from each.

Nothing is unpacked and nothing is trusted: a member whose name would leave its root, an XML that declares entities, a
file past the size limit is refused by name; bytes that are no UTF-8 are read as Latin-1.
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import itertools
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, cast
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.errors import ArchiveError, NothingSelectedError, TableError, UsageError
from cxrprep.storage.archives import NOT_READABLE, tar_entries
from cxrprep.storage.paths import is_safe
from cxrprep.storage.small_files import encoding_of, parse_json, read_file, regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_REPORT_BYTES: Final = 64 << 20
_MAX_RATIO: Final = 1000
_MIMIC_NAME: Final = re.compile(r"(?:^|/)p(\d{8})/s(\d{8})\.txt$")
_BESIDE: Final = ("license", "readme", "sha256sums", "md5sums", "records", "changelog")
_CSV_FIELD_LIMIT: Final = 128 << 20

_TEXT_COLUMNS: Final = (
    "report",
    "text",
    "report_text",
    "reports",
    "report impression",
    "impression_text",
    "note",
    "note_text",
    "section_text",
)
_PART_COLUMNS: Final = ("findings", "impression")
_SECTION_COLUMNS: Final = {"section_findings": "findings", "section_impression": "impression"}
_WITH_TEXT: Final = frozenset((*_TEXT_COLUMNS, *_PART_COLUMNS, *_SECTION_COLUMNS))
# What mimic_cxr_sectioned.csv holds, in the order in which its authors choose.
_SECTIONED: Final = ("impression", "findings", "last_paragraph", "comparison")
_ID_COLUMNS: Final = (
    "report_id",
    "study_id",
    "study",
    "uid",
    "id",
    "note_id",
    "filename",
    "file",
    "path",
    "path_to_image",
    "dicom_id",
    "accession",
)
_PATIENT_COLUMNS: Final = ("patient_id", "subject_id", "deid_patient_id", "patient")
_STUDY_COLUMNS: Final = ("study_id", "study")


@dataclass(frozen=True, slots=True)
class Report:
    """One report of a collection. ``problem`` says why it could not be read; its ``text`` is then empty.

    ``parts`` are its sections where the collection states them (Open-i's fields, section columns), ``images`` those
    that it names.
    """

    key: str
    text: str = ""
    patient: str | None = None
    study: str | None = None
    sha256: str | None = None
    mimic: bool | None = None
    problem: str = ""
    refused: bool = False
    parts: Mapping[str, str] | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """Where reports come from. ``names`` are files or members that can be read by name; ``None``: only row by row."""

    path: Path
    kind: str
    names: tuple[str, ...] | None = None

    def rows(self) -> Iterator[Report]:
        """The reports of a collection that has no names, one after another."""
        readers = {"csv": _csv_rows, "json": _json_rows, "parquet": _parquet_rows, "tar": _tar_rows}
        return readers[self.kind](self.path)

    def read(self, names: Sequence[str]) -> Iterator[Report]:
        """The reports of these names, in that order."""
        if self.kind == "zip":
            archive = _open_zip(self.path, self.path.stat().st_mtime_ns)
            return (_zip_report(archive, name) for name in names)
        return (_file_report(self.path, name) for name in names)


def open_collection(path: Path) -> Collection:
    """The collection that ``path`` is: a zip, a folder, a tar, one .txt or .xml, a CSV or a Parquet file.

    Raises ``UsageError`` for anything else, ``NothingSelectedError`` for a folder or zip without reports and
    ``ArchiveError`` for a damaged zip.
    """
    if path.is_dir():
        names = sorted(
            file.relative_to(path).as_posix()
            for file in path.rglob("*")
            if _is_report(file.name)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()
        )
        return _named(path, "folder", names)
    if not path.exists():
        raise UsageError(
            f"{path} does not exist", hint="give a zip, a folder, an XML, a CSV or a Parquet file of reports"
        )
    suffix = path.suffix.lower()
    if suffix == ".zip":
        # Let go, with its names: the directory of a large archive is worth a hundred megabytes, and workers read it.
        with _zip(path) as archive:
            listed = "\0".join(sorted({name for name in archive.namelist() if _is_report(name.rpartition("/")[2])}))
        del archive
        return _named(path, "zip", list(filter(None, listed.split("\0"))))
    if suffix in (".txt", ".xml"):
        return Collection(path.parent, "folder", (path.name,))
    if suffix in (".tgz", ".tar") or path.name.lower().endswith(".tar.gz"):
        return Collection(path, "tar")
    if re.search(r"\.(?:csv|tsv)(?:\.gz)?$", path.name.lower()):
        return Collection(path, "csv")
    if re.search(r"\.(?:jsonl|ndjson)(?:\.gz)?$", path.name.lower()):
        return Collection(path, "json")
    if suffix in (".parquet", ".pq"):
        return Collection(path, "parquet")
    raise UsageError(
        f"{path} is not a kind of report collection that cxrprep knows by its name",
        hint="MIMIC's mimic-cxr-reports.zip or its folder, Open-i XML, a .csv, .jsonl or .parquet of reports",
    )


def _is_report(name: str) -> bool:
    """Whether a file's name may be that of a report; what lies beside the reports of a release is none."""
    lower = name.lower()
    return lower.endswith((".txt", ".xml")) and not lower.startswith(_BESIDE)


def _named(path: Path, kind: str, names: Sequence[str]) -> Collection:
    if not names:
        raise NothingSelectedError(
            f"{path} holds no report: no .txt and no .xml file", hint="name the file or folder that holds the reports"
        )
    return Collection(path, kind, tuple(names))


@functools.lru_cache(maxsize=1)
def _open_zip(path: Path, written: int) -> zipfile.ZipFile:
    del written  # an archive that was replaced is another one
    return _zip(path)


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, *NOT_READABLE) as error:
        raise ArchiveError(f"{path} is not a readable zip: {error}", hint="fetch it again") from error


def safe_name(name: str) -> bool:
    """Whether a member's name stays below its root, and can be printed."""
    return is_safe(name.removeprefix("./")) and name.isprintable()


def _zip_report(archive: zipfile.ZipFile, name: str) -> Report:
    if not safe_name(name):
        return Report(name, problem="the member's name would leave the archive's root", refused=True)
    info = archive.getinfo(name)
    if info.file_size > MAX_REPORT_BYTES or info.file_size > _MAX_RATIO * max(info.compress_size, 1024):
        return Report(name, problem=f"{info.file_size} bytes unpacked is too large for a report", refused=True)
    try:
        data = archive.read(info)
    except Exception as error:  # noqa: BLE001 - zlib.error and lzma.LZMAError share no base but Exception
        return Report(name, problem=f"the member is damaged: {error}")
    return _from_bytes(name, data)


def _file_report(root: Path, name: str) -> Report:
    path = root / name
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            return Report(name, problem=f"{path.stat().st_size} bytes is too large for a report", refused=True)
        data = read_file(path)
    except OSError as error:
        return Report(name, problem=f"cannot be read: {error.strerror}")
    return _from_bytes(path.relative_to(root.parent).as_posix() if len(Path(name).parts) == 1 else name, data, key=name)


def _from_bytes(name: str, data: bytes, *, key: str | None = None) -> Report:
    key = key or name
    sha256 = hashlib.sha256(data).hexdigest()
    if key.lower().endswith(".xml"):
        return _openi_report(key, data, sha256)
    found = _MIMIC_NAME.search(name)
    patient, study = (found[1], found[2]) if found else (None, None)
    return Report(key, decoded(data), patient, study, sha256, mimic=True if found else None)


def decoded(data: bytes) -> str:
    """Text from bytes in UTF-8 or, with a byte order mark, UTF-16; whatever is neither is read as Latin-1."""
    encoding = encoding_of(data)
    if encoding != "utf-8":
        return data.decode(encoding, errors="replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _openi_report(name: str, data: bytes, sha256: str) -> Report:
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        return Report(name, problem="the XML declares entities", refused=True, sha256=sha256)
    try:
        root = ET.fromstring(data)  # noqa: S314 - declarations of entities are refused above
    except (ET.ParseError, ValueError) as error:
        return Report(name, problem=f"the XML is damaged: {error}", sha256=sha256)
    stated: dict[str, str] = {}
    for element in root.iter("AbstractText"):
        label = (element.get("Label") or "").lower()
        stated[label] = f"{stated.get(label, '')} {element.text or ''}".strip()
    parts = {label: " ".join(text.split()) for label, text in stated.items()}
    images = tuple(image.get("id") or "" for image in root.iter("parentImage"))
    uid = root.find("uId")
    study = uid.get("id") if uid is not None else None
    text = _joined([parts.get(part, "") for part in _PART_COLUMNS])
    return Report(name, text, None, study, sha256, mimic=False, parts=stated, images=images)


def _joined(parts: Iterable[str]) -> str:
    """Findings and impression as one text without headings: both are read, as Open-i's annotators read both."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _tar_rows(path: Path) -> Iterator[Report]:
    try:
        for _ in tar_entries(path):
            # Whether it is whole shows at its end: no label is made of one that is not.
            pass
        for tar, member in tar_entries(path):
            if not member.isfile() or not _is_report(PurePosixPath(member.name).name):
                continue
            if not safe_name(member.name) or member.size > MAX_REPORT_BYTES:
                yield Report(member.name, problem="the member's name or size is not that of a report", refused=True)
                continue
            file = tar.extractfile(member)
            yield _from_bytes(member.name, file.read() if file else b"")
    except (*NOT_READABLE, OSError) as error:
        raise ArchiveError(f"{path} is not a readable tar: {error}", hint="fetch it again") from error


def _lines(path: Path) -> IO[str]:
    """A table of text, opened; gzip is undone, and a byte order mark says UTF-16. Raises ``TableError``."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        regular(path)
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}", hint="name the file of the reports") from error
    with opened(path, "rb") as raw:
        encoding = encoding_of(raw.read(4))
    return cast("IO[str]", opened(path, "rt", encoding=encoding, errors="replace", newline=""))


def _delimiter(path: Path, line: str) -> str:
    """What parts the cells of a table: the character that makes a column of reports of its first line."""
    usual = "\t" if ".tsv" in path.name.lower() else ","
    for character in (usual, ";", "\t", "|"):
        names = next(csv.reader([line], delimiter=character), [])
        if len(names) > 1 and any(name.strip().lower() in _WITH_TEXT for name in names):
            return character
    return usual


def _csv_rows(path: Path) -> Iterator[Report]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        with _lines(path) as file:
            lines = (line.replace("\0", " ") for line in file)
            head = next(lines, None)
            if head is None:
                raise TableError(f"{path} is empty", hint="a CSV of reports has a row per report")
            rows = csv.reader(itertools.chain([head], lines), delimiter=_delimiter(path, head))
            try:
                yield from _read_rows(path, rows)
            except csv.Error as error:
                raise TableError(
                    f"{path}, line {rows.line_num}: {error}", hint="export the table again as CSV"
                ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(f"{path} is not a complete gzip file: {error}", hint="fetch it again") from error


def _read_rows(path: Path, rows: Iterator[list[str]]) -> Iterator[Report]:
    header = next(rows, [])
    names, first = [name.strip().lower() for name in header], 0
    if len(header) == 1 and names[0] not in _WITH_TEXT and " " in names[0]:
        # The chexpert-labeler's own input: one column of reports, no header.
        yield _row_report(0, {"report": header[0]})
        names, first = ["report"], 1
    _needs_text(path, names)
    for number, row in enumerate(rows, first):
        if row:
            yield _row_report(number, dict(zip(names, row, strict=False)))


def _json_rows(path: Path) -> Iterator[Report]:
    with _lines(path) as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise TableError(f"{path}, line {number + 1}: {error}", hint="a line holds one JSON object") from error
            if not isinstance(row, dict):
                raise TableError(f"{path}, line {number + 1}: no JSON object", hint="a line holds one JSON object")
            named = {str(name).strip().lower(): value for name, value in row.items()}
            _needs_text(path, list(named))
            yield _row_report(number, named)


def _parquet_rows(path: Path) -> Iterator[Report]:
    try:
        file = pq.ParquetFile(regular(path))
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"{path} is not a readable Parquet file: {error}", hint="write it again") from error
    wanted = {*_WITH_TEXT, *_SECTIONED, *_ID_COLUMNS, *_PATIENT_COLUMNS}
    columns = [name for name in names if name.strip().lower() in wanted or name.lower().startswith("section_")]
    _needs_text(path, [name.strip().lower() for name in columns])
    number = 0
    batches = file.iter_batches(batch_size=4096, columns=columns)
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            raise TableError(
                f"{path}, row {number}: no readable Parquet from here: {error}", hint="write it again"
            ) from error
        for row in rows:
            yield _row_report(number, {name.strip().lower(): value for name, value in row.items()})
            number += 1


def _needs_text(path: Path, names: Sequence[str]) -> None:
    if not any(name in _WITH_TEXT for name in names):
        raise TableError(
            f"{path} has no column of reports; its columns: {', '.join(names[:20])}",
            hint=f"name one of them {', '.join(_TEXT_COLUMNS[:4])}, or findings and impression",
        )


def _row_report(number: int, row: dict[str, Any]) -> Report:
    cell = {name: str(value) if value is not None else "" for name, value in row.items()}
    text = next((cell[name] for name in _TEXT_COLUMNS if cell.get(name, "").strip()), "")
    mimic: bool | None = None
    if not text:
        renamed = {_SECTION_COLUMNS.get(name, name): value for name, value in cell.items()}
        if "last_paragraph" in cell:
            # The MIMIC-CXR authors' own sections: one of them is read, as from the report itself.
            text = next((cell[name] for name in _SECTIONED if cell.get(name, "").strip()), "")
        else:
            text = _joined(renamed.get(name, "") for name in _PART_COLUMNS)
        mimic = False
    key = next((cell[name] for name in _ID_COLUMNS if cell.get(name)), f"row-{number}")
    patient = next((cell[name] for name in _PATIENT_COLUMNS if cell.get(name)), None)
    study = next((cell[name] for name in _STUDY_COLUMNS if cell.get(name)), None)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    stated = {name.removeprefix("section_"): value for name, value in cell.items() if name.startswith("section_")}
    stated |= {name: cell[name] for name in _SECTIONED if name in cell}
    return Report(key, text, patient, study, sha256, mimic, parts=stated or None)
