"""MIMIC-CXR's tables in parts of some thousand patients: labels of more images than memory should hold.

All tables are cut at the same patients, and each part is read as if it were the release. Whatever is not plain (a
remark, an error, rows in another order, an id in two parts) is left to whoever reads the whole, and can name its line.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from zlib_ng import gzip_ng, zlib_ng

from cxrprep.errors import TableError
from cxrprep.events import Event, Note
from cxrprep.labels import mimic_cxr
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.label_counts import LabelCount, LabelsResult, SourceCounts, count_labels, rows_by_source
from cxrprep.labels.label_losses import known_of_sources
from cxrprep.labels.label_rows import LabelOptions, LabelRows, Labels, TableUse
from cxrprep.labels.mimic_annotations import ROLE
from cxrprep.labels.mimic_images import ids_of_names
from cxrprep.schemas import label_columns
from cxrprep.storage.small_files import GZIP, open_file
from cxrprep.storage.sorted_tables import StoredParts
from cxrprep.storage.value_codes import mixed_letters
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cxrprep.labels.locate_tables import Tables


_LARGE: Final = 96 << 20
"""Bytes of the first table of images, unpacked: of some 550,000 images.

measured: the tables of 377,110 images take 5.8 s of CPU time and 410 MiB in parts, and 3.2 s and 450 MiB as a whole."""
_IMAGES: Final = 100_000
_BLOCK: Final = 4 << 20
# The radiologist's table names some hundred studies, and not their patients.
_FEW: Final = 8 << 20
_IDS: Final = ("subject_id", "study_id")
_ID: Final = r"^[15]\d{7}$"


class _NotPlainError(Exception):
    """Raise when the tables have to be read whole."""


class LabelParts:
    """The labels of all parts, on the disk, and what is counted of them."""

    def __init__(self, dataset: str, tables: Tables) -> None:
        """None yet."""
        self.dataset, self.tables = dataset, tables
        self.known: dict[str | None, Counter[str]] = {}
        self.schema = pa.schema([])
        self._digests = {path.name: digest_of(path) for _, path in tables.files}
        self._rows: dict[str, StoredParts] = {}
        self._of_patients: list[list[tuple[str, int]]] = []
        self._counts: list[LabelsResult] = []
        self._uses: list[list[TableUse]] = []
        self._ids: dict[str, list[NDArray[np.uint64]]] = {"image_id": [], "study_id": []}

    def add(self, rows: LabelRows) -> None:
        """The rows of the next part."""
        table = rows.table()
        digests = {str(use.digest): str(self._digests[use.name]) for use in rows.uses}
        place = table.schema.get_field_index("table_digest")
        table = table.set_column(place, table.schema.field(place), _renamed(table.column(place), digests))
        self.schema = self.schema if self._counts else table.schema
        sources = dict(rows_by_source(table))
        if table.schema != self.schema or rows.masks or None in sources:
            raise _NotPlainError
        self._uses.append(rows.uses)
        self._counts.append(count_labels(self.dataset, Labels(rows.release, table, ()), Path()))
        for name, known in known_of_sources(table).items():
            self.known.setdefault(name, Counter()).update(known)
        self._of_patients.append([])
        for name, of in sources.items():
            number = self._rows.setdefault(str(name), StoredParts(self.schema)).append(of)
            self._of_patients[-1].append((str(name), number))
        most = max(sources.values(), key=lambda of: of.num_rows)
        for column, found in self._ids.items():
            numbers = mixed_letters(pc.unique(most.column(column)))
            if numbers is None:
                raise _NotPlainError
            found.append(numbers)

    def labels(self, inputs: str) -> Labels:
        """What is known of the labels beside their rows."""
        uses = []
        paths = {path.name: path for _, path in self.tables.files}
        for use in max(self._uses, key=len):
            same = [other for of_part in self._uses for other in of_part if other.name == use.name]
            rows, used = sum(other.rows for other in same), sum(other.used for other in same)
            digest = self._digests[use.name]
            uses.append(replace(use, path=str(paths[use.name]), digest=digest, rows=rows, used=used))
        return Labels(self.tables.release, self.schema.empty_table(), tuple(uses), inputs=inputs)

    def require_distinct(self) -> None:
        """Raise where an image or a study is in two parts."""
        for found in self._ids.values():
            numbers = np.sort(np.concatenate(found))
            if bool((numbers[1:] == numbers[:-1]).any()):
                raise _NotPlainError

    def counts(self, labels: Labels, path: Path) -> LabelsResult:
        """The counts of all parts, as ``count_labels`` has them of the whole: no patient is in two parts."""
        order = [published_name(name.removeprefix("label_")) for name in label_columns(self.schema)]
        sources = []
        for name in sorted(self._rows):
            parts = [of for counted in self._counts for of in counted.sources if of.label_source == name]
            stated: dict[str, Counter[str]] = {}
            for label in (label for part in parts for label in part.labels):
                words = {"positive": label.positive, "negative": label.negative, "uncertain": label.uncertain}
                stated.setdefault(label.observation, Counter()).update(words)
            one: SourceCounts = _summed(parts)
            found = [(of, stated[of]) for of in order if of in stated]
            # A part without any label of an observation does not count its blanks.
            counted = tuple(LabelCount(of, **words, null=one.rows - words.total()) for of, words in found)
            sources.append(replace(one, labels=counted))
        whole: LabelsResult = _summed(self._counts)
        return replace(whole, sources=tuple(sources), tables=labels.tables, path=path)

    def rows(self) -> Iterator[pa.Table]:
        """All rows in their order."""
        for name in sorted(self._rows):
            yield from self._rows[name].tables()

    def ranges(self) -> Iterator[pa.Table]:
        """All rows, part by part: see ``cxrprep.storage.patient_table.ByPatient``."""
        for places in self._of_patients:
            part = pa.concat_tables([self._rows[name].read(number) for name, number in sorted(places)])
            yield part.unify_dictionaries().combine_chunks()

    def values(self, *names: str) -> Iterator[pa.Table]:
        """Some columns of all rows."""
        return (part.select(list(names)) for part in self.rows())


def read_in_parts(dataset: str, tables: Tables, options: LabelOptions) -> LabelParts | None:
    """The labels of large tables, in temporary files; ``None`` where they are not large, or have to be read whole.

    Raises ``StorageError`` where the disk for those files refuses.
    """
    images = tables.of_role("images")
    if not images or options.report_text or options.patients or tables.sets or tables.of_role(ROLE):
        return None

    def refuse(event: Event) -> None:
        if isinstance(event, Note):
            raise _NotPlainError

    try:
        if _unpacked_size(images[0][1]) < _LARGE:
            return None
        made = LabelParts(dataset, tables)
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            for part in _parts(tables, Path(folder)):
                rows = LabelRows(dataset, tables.release, tables.stated, refuse, options)
                mimic_cxr.read(part, rows)
                made.add(rows)
        made.require_distinct()
    except (_NotPlainError, TableError, OSError, EOFError, ValueError):
        return None
    return made


def _summed(parts: Sequence[Any]) -> Any:
    """The counts of several parts as those of one."""
    names = ("rows", "images", "patients", "studies", "boxes", "boxed_images")
    numbers = {name: sum(getattr(part, name) for part in parts) for name in names if hasattr(parts[0], name)}
    splits = sum((Counter(dict(part.splits)) for part in parts), Counter())
    return replace(parts[0], **numbers, splits=tuple(sorted(splits.items())))


def _renamed(column: pa.ChunkedArray, names: Mapping[str, str]) -> pa.ChunkedArray:
    """Categories with other words."""
    chunks = []
    for chunk in column.chunks:
        words = pa.array([names[word] for word in chunk.dictionary.to_pylist()], chunk.type.value_type)
        chunks.append(pa.DictionaryArray.from_arrays(chunk.indices, words))
    return pa.chunked_array(chunks, column.type)


def _parts(tables: Tables, folder: Path) -> Iterator[Tables]:
    """The tables of some thousand patients after the other, as files in ``folder``."""
    files = [(entry, path) for entry, path in tables.files if entry.role != "reports"]
    if len({path.name for _, path in files}) < len(files):
        raise _NotPlainError
    with contextlib.ExitStack() as opened:
        cut: dict[Path, _ByPatient | _ByStudy] = {}
        for entry, path in files:
            file = opened.enter_context(_opened(path))
            by_patient = _ByPatient(file, listed=entry.settings.get("form") == "filenames")
            cut[path] = by_patient if by_patient.names_patients else _ByStudy(path)
        first = cut[tables.of_role("images")[0][1]]
        if not isinstance(first, _ByPatient):
            raise _NotPlainError
        last = False
        while not last:
            patient = first.patient_after(_IMAGES)
            last = patient is None
            studies = first.studies_upto(patient)
            held = []
            for entry, path in files:
                lines = cut[path]
                text = lines.upto(patient) if isinstance(lines, _ByPatient) else lines.of(studies)
                if text:
                    (folder / path.name).write_bytes(zlib_ng.compress(text, 0, 31) if path.suffix == ".gz" else text)
                    held.append((entry, folder / path.name))
                elif isinstance(lines, _ByPatient):
                    raise _NotPlainError
            yield replace(tables, files=tuple(held), sets=())
        if any(isinstance(lines, _ByStudy) and lines.left for lines in cut.values()):
            raise _NotPlainError


def _is_packed(path: Path) -> bool:
    with open_file(path) as file:
        return file.read(len(GZIP)) == GZIP


def _opened(path: Path) -> Any:
    return gzip_ng.open(path, "rb") if _is_packed(path) else open_file(path)  # type: ignore[no-untyped-call]  # it has no stub for this


def _unpacked_size(path: Path) -> int:
    """The bytes of a table without its compression, which gzip writes behind it."""
    if not _is_packed(path):
        return path.stat().st_size
    with open_file(path) as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")


class _ByPatient:
    """The lines of a table in order of patient: those that are in memory, with patient and study of each."""

    def __init__(self, file: Any, *, listed: bool) -> None:
        """Read the header; a list of paths has none."""
        self._file = file
        self._header = b"" if listed else file.readline()
        self._names = [] if listed else self._header.decode("ascii").strip().split(",")
        self._listed, self._ended = listed, False
        self._data = self._rest = b""
        self._ends = np.zeros(0, np.int64)
        self._ids = {name: np.zeros(0, np.int64) for name in _IDS}
        self.names_patients = listed or set(_IDS) <= set(self._names)

    def patient_after(self, lines: int) -> int | None:
        """The patient of the last of so many lines; ``None`` where not many more are left."""
        self._hold(2 * lines)
        return int(self._ids["subject_id"][lines]) if len(self._ends) >= 2 * lines else None

    def studies_upto(self, patient: int | None) -> NDArray[np.int64]:
        """The studies of the lines in memory of patients up to this one, of the table that names the patients."""
        return self._ids["study_id"][: self._count(patient)]

    def upto(self, patient: int | None) -> bytes:
        """The next lines, of patients up to this one, below the header; empty where there is none."""
        while not self._ended and (patient is None or not len(self._ends) or self._ids["subject_id"][-1] <= patient):
            self._hold(len(self._ends) + 1)
        count = self._count(patient)
        end = int(self._ends[count - 1]) if count else 0
        text, self._data = self._data[:end], self._data[end:]
        self._ends = self._ends[count:] - end
        self._ids = {name: values[count:] for name, values in self._ids.items()}
        return self._header + text if text else b""

    def _count(self, patient: int | None) -> int:
        patients = self._ids["subject_id"]
        return len(patients) if patient is None else int(np.searchsorted(patients, patient, "right"))

    def _hold(self, lines: int) -> None:
        """Read on until so many lines are in memory, or the table ends."""
        while len(self._ends) < lines and not self._ended:
            block = self._rest + self._file.read(_BLOCK)
            self._ended = len(block) == len(self._rest)
            if self._ended and block and not block.endswith(b"\n"):
                block += b"\n"
            end = block.rfind(b"\n") + 1
            block, self._rest = block[:end], block[end:]
            if not block:
                continue
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
            found = self._ids_of(block)
            before = self._ids["subject_id"][-1:]
            patients = np.concatenate([before, found["subject_id"]])
            if len(patients) - len(before) != len(ends) or bool((patients[1:] < patients[:-1]).any()):
                raise _NotPlainError
            self._ends = np.concatenate([self._ends, ends + len(self._data)])
            self._ids = {name: np.concatenate([self._ids[name], values]) for name, values in found.items()}
            self._data += block

    def _ids_of(self, block: bytes) -> dict[str, NDArray[np.int64]]:
        """Patient and study of each line."""
        if self._listed:
            columns = ids_of_names(pa.array(block.decode("ascii").splitlines(), pa.string()))
        else:
            columns = pacsv.read_csv(
                pa.BufferReader(block),
                read_options=pacsv.ReadOptions(column_names=self._names, block_size=len(block) + 1, use_threads=False),
                convert_options=pacsv.ConvertOptions(
                    include_columns=_IDS, column_types=dict.fromkeys(_IDS, pa.string())
                ),
            )
        if columns is None or not all(pc.all(pc.match_substring_regex(columns[name], _ID)).as_py() for name in _IDS):
            raise _NotPlainError
        return {name: columns[name].cast(pa.int64()).to_numpy() for name in _IDS}


class _ByStudy:
    """The lines of a small table that names studies without their patients, those of the parts before left out."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises ``_NotPlainError`` for one that is large."""
        if path.stat().st_size > _FEW or _is_packed(path):
            raise _NotPlainError
        header, *lines = path.read_bytes().splitlines(keepends=True)
        place = header.decode("ascii").strip().split(",").index("study_id")
        if b'"' in header or not lines or any(b'"' in line for line in lines):
            raise _NotPlainError
        self._header = header
        self.left = [(int(line.split(b",")[place].strip()), line) for line in lines]

    def of(self, studies: NDArray[np.int64]) -> bytes:
        """The lines of these studies, below the header; empty where there is none."""
        here = np.isin([study for study, _ in self.left], studies).tolist()
        found = [line for (_, line), is_here in zip(self.left, here, strict=True) if is_here]
        self.left = [line for line, is_here in zip(self.left, here, strict=True) if not is_here]
        return self._header + b"".join(found) if found else b""
