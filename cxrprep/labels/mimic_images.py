"""The images of MIMIC-CXR, from the four tables that list them: metadata, split, record list, file names.

Any of them will do. Where several are here, an image's study and patient must be the same in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.humanize import format_count
from cxrprep.labels.columns import categories, count_true, projection_of, whole
from cxrprep.labels.csv_table import Form, read_names, read_table
from cxrprep.labels.joins import all_distinct, order_by_both, positions, rises, row_numbers
from cxrprep.labels.text_table import TextTable, first_true
from cxrprep.model import Split, View
from cxrprep.schemas import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables

_IDS: Final = ("dicom_id", "subject_id", "study_id")
_DICOM: Final = r"^[0-9a-f]{8}(?:-[0-9a-f]{8}){4}$"
STUDY: Final = r"^5\d{7}$"
PATIENT: Final = r"^1\d{7}$"
_METADATA_RAW: Final = (
    "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
    "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
_FORMS: Final = {
    "metadata": Form(
        (*_IDS, "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime"),
        optional=(*_METADATA_RAW, "AcquisitionDeviceProcessingDescription"),
        plain=_IDS,
    ),
    "split": Form((*_IDS, "split"), plain=_IDS),
    "records": Form((*_IDS, "path"), plain=(*_IDS, "path")),
}
_PATH: Final = (
    r"^(?:files/)?p\d\d/p(?P<subject_id>1\d{7})/s(?P<study_id>5\d{7})"
    r"/(?P<dicom_id>[0-9a-f]{8}(?:-[0-9a-f]{8}){4})\.\w+$"
)
# The same as released, where each id stands at one place.
# measured: 377,110 paths are taken apart in 0.2 s, and in 1.1 s by the groups of the pattern
_RELEASED: Final = r"^files/p\d\d/p1\d{7}/s5\d{7}/[0-9a-f]{8}(?:-[0-9a-f]{8}){4}\.\w+$"
_PLACES: Final = {"subject_id": (11, 19), "study_id": (21, 29), "dicom_id": (30, 74)}
_WORDS: Final = {"postero-anterior": View.PA, "antero-posterior": View.AP, "lateral": View.LATERAL}


@dataclass(frozen=True, slots=True)
class ImageListing:
    """All images that the tables list. ``columns`` are named as in ``labels.parquet``, ``raw`` as in the tables."""

    image: pa.Array
    study: pa.Array
    patient: pa.Array
    columns: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, pa.Array] = field(default_factory=dict)
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The first row of each study."""

    @property
    def rows(self) -> int:
        """The number of images."""
        return len(self.image)


@dataclass(frozen=True, slots=True)
class _Listing:
    """One table's images: ids by row, the table itself, and a way to name a row in an error."""

    path: Path
    ids: dict[str, pa.Array]
    table: TextTable | None = None

    def wrong(self, row: int, column: str, what: str) -> TableError:
        """The error for one row."""
        if self.table is not None:
            return self.table.error(row, column, what)
        return TableError(f"{self.path}, line {row + 1}, column 1: {what}", hint="fetch the list again")

    def require_unique(self) -> None:
        """Raise ``TableError`` when an image stands in two rows."""
        if self.table is not None:
            self.table.require_unique("dicom_id")
        elif not all_distinct(self.ids["dicom_id"]):
            raise TableError(f"{self.path}, column 1: an image appears twice", hint="fetch the list again")


def list_images(tables: Tables, label_rows: LabelRows) -> ImageListing:
    """The images of all tables here; the first table's order, then those that only later ones know."""
    listings: list[tuple[str, _Listing]] = []
    for entry, path in tables.of_role("images"):
        form = entry.settings["form"]
        before = next((listing.table for _, listing in listings if listing.table is not None), None)
        if form == "filenames":
            listing = _from_names(path, label_rows)
        else:
            listing = _from_table(path, _FORMS[form], label_rows, before)
        listings.append((form, listing))
    if not listings:
        empty = pa.array([], pa.string())
        return ImageListing(empty, empty, empty)
    listings[0][1].require_unique()
    image = listings[0][1].ids["dicom_id"]
    places = [row_numbers(len(image))]
    for _, listing in listings[1:]:
        more = listing.ids["dicom_id"]
        if more.equals(image):
            places.append(places[0])
            continue
        place = positions(image, more)
        matched = len(place) - place.null_count
        if matched < len(more):
            # Some rows are about other images, or about one image twice.
            listing.require_unique()
            unknown = pc.invert(pc.is_in(more, value_set=image))
            message = (
                f"{format_count(len(more) - matched, 'image', 'stands')} here and not in {listings[0][1].path.name}"
            )
            label_rows.note(message, str(listing.path), "warning")
            image = pa.concat_arrays([image, more.filter(unknown)])
            place = positions(image, more)
        places.append(place)
    owner: dict[str, pa.Array] = {}
    columns: dict[str, Any] = {}
    raw: dict[str, pa.Array] = {}
    for (form, listing), known in zip(listings, places, strict=True):
        place = pa.concat_arrays([known, pa.nulls(len(image) - len(known), known.type)])
        # All rows in the order of the first table stay as they are.
        rows = None if known is places[0] and len(known) == len(image) else place
        for name in ("study_id", "subject_id"):
            stated = _taken(listing.ids[name], rows)
            held = owner.setdefault(name, stated)
            if not held.equals(stated):
                differs = first_true(pc.fill_null(pc.not_equal(held, stated), fill_value=False))
                if differs >= 0:
                    what = f"{listings[0][1].path.name} says {held[differs]} for image {image[differs]}"
                    raise listing.wrong(place[differs].as_py(), name, what)
                owner[name] = pc.coalesce(held, stated)
        if listing.table is not None:
            columns_of_form, cells = _columns_of(form, listing.table, label_rows)
            columns |= {name: _taken(values, rows) for name, values in columns_of_form.items()}
            raw |= {name: _taken(values, rows) for name, values in cells.items()}
    _note_without_split(columns, len(image), label_rows)
    images = _sorted(ImageListing(image, owner["study_id"], owner["subject_id"], columns, raw))
    starts = _study_starts(images, listings[0][1])
    if "study_datetime" in columns:
        images.columns.update(_order(images, starts))
    return replace(images, starts=starts)


def _taken(values: pa.Array, rows: pa.Array | None) -> pa.Array:
    return values if rows is None else values.take(rows)


def trimmed_ids(table: TextTable) -> TextTable:
    """The table with plain ids, where they were saved as numbers with decimals or written as folders are."""
    if "subject_id" in table:
        table = table.trimmed("subject_id", r"^(?:p1\d[/\\\\])?p?(1\d{7})(?:\.0)?$")
    return table.trimmed("study_id", r"^(?:p?1\d{7}[/\\\\])?s?(5\d{7})(?:\.0|\.txt)?$")


def note_absent(table: TextTable, columns: Sequence[str], label_rows: LabelRows) -> None:
    """Say which columns of the release a table lacks, where it can be read without them."""
    if gone := [name for name in columns if name not in table]:
        label_rows.note(f"columns of the release are not here: {', '.join(gone)}", str(table.path), "warning")


def _note_without_split(columns: Mapping[str, Any], rows: int, label_rows: LabelRows) -> None:
    if "split" not in columns:
        label_rows.note("no split table is here (mimic-cxr-2.0.0-split.csv.gz): the split is not stated", "", "warning")
    elif columns["split"].null_count:
        label_rows.note(
            f"{columns['split'].null_count:,} of {rows:,} images are not in the split table: their split is null",
            "",
            "warning",
        )


def _sorted(images: ImageListing) -> ImageListing:
    """The images by patient, study and id, so that every block of rows is in the order of the output already."""
    keys = pa.table({"patient": images.patient, "study": images.study, "image": images.image})
    if rises(keys, keys.column_names):
        return images
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return ImageListing(
        images.image.take(order),
        images.study.take(order),
        images.patient.take(order),
        {name: values.take(order) for name, values in images.columns.items()},
        {name: values.take(order) for name, values in images.raw.items()},
    )


def _from_table(path: Path, form: Form, label_rows: LabelRows, before: TextTable | None) -> _Listing:
    table = read_table(path, form).known_from(before)
    table = table.trimmed("dicom_id", r"^(?:.*[/\\\\])?([0-9a-f]{8}(?:-[0-9a-f]{8}){4})\.\w{3,4}$")
    table = trimmed_ids(table)
    table.require_match("dicom_id", _DICOM, "expected an image id of 40 hexadecimal digits in five groups")
    table.require_match("study_id", STUDY, "expected a study such as 50414267")
    table.require_match("subject_id", PATIENT, "expected a patient such as 10000032")
    label_rows.use(table, "images", used=table.rows)
    note_absent(table, [name for name in form.optional if name in _METADATA_RAW], label_rows)
    return _Listing(path, {name: table.text(name) for name in _IDS}, table)


def _from_names(path: Path, label_rows: LabelRows) -> _Listing:
    names, digest = read_names(path)
    label_rows.use_file(path, digest, "images", rows=len(names), used=len(names))
    if (ids := ids_of_names(names)) is not None:
        return _Listing(path, ids)
    found = pc.extract_regex(names, _PATH)
    row = first_true(pc.is_null(found))
    if row >= 0:
        raise TableError(
            f"{path}, line {row + 1}, column 1: expected a path such as files/p10/p10000032/s50414267/<image>.jpg "
            f"({names[row].as_py()[:80]!r})",
            hint="fetch the list again",
        )
    return _Listing(path, {name: pc.struct_field(found, name) for name in _IDS})


def ids_of_names(names: pa.Array) -> dict[str, pa.Array] | None:
    """Patient, study and image of paths as they are released; ``None`` where one is another."""
    if not pc.all(pc.match_substring_regex(names, _RELEASED)).as_py():
        return None
    letters = names.cast(pa.binary())
    return {name: pc.binary_slice(letters, *place).cast(pa.string()) for name, place in _PLACES.items()}


def _study_starts(images: ImageListing, listing: _Listing) -> NDArray[np.int64]:
    """The first row of each study, of images in their order. Raises ``TableError`` for a study of two patients."""
    if not images.rows:
        return np.zeros(0, np.int64)
    study, patient = images.study, images.patient
    new = pc.or_(pc.not_equal(study[1:], study[:-1]), pc.not_equal(patient[1:], patient[:-1]))
    starts = np.append([0], np.flatnonzero(new.to_numpy(zero_copy_only=False)) + 1)
    studies = study.take(pa.array(starts))
    if not all_distinct(studies):
        counts = pc.value_counts(studies)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        row = pc.index(listing.ids["study_id"], twice).as_py()
        raise listing.wrong(max(row, 0), "study_id", f"study {twice} has images of two patients")
    return starts


def _view(text: str) -> str:
    word = text.strip()
    if word.lower() in _WORDS:
        return str(_WORDS[word.lower()])
    name = word.upper().replace(" ", "_").replace("-", "_")
    return str(View(name))


def _columns_of(form: str, table: TextTable, label_rows: LabelRows) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    """What one table says of its images, and its cells."""
    if form == "split":
        table.require("split")
        # As people write them, too.
        split = table.translated(
            "split", lambda word: str(Split.parse(word)), CATEGORY, "expected train, validate or test"
        )
        return {"split": split}, {name: table.column(name) for name in ("split", *table.extra)}
    if form == "records":
        return {"path_raw": table.text("path")}, {name: table.column(name) for name in table.extra}

    def note(message: str) -> None:
        label_rows.note(message, str(table.path), "warning")

    view = table.lenient("ViewPosition", _view, CATEGORY, note)
    columns_of_form = {
        "view": view,
        "projection": projection_of(view),
        "view_raw": categories(table.column("ViewPosition")),
        "orig_height": table.lenient("Rows", whole, pa.int32(), note),
        "orig_width": table.lenient("Columns", whole, pa.int32(), note),
        "study_datetime": _datetime(table, note),
    }
    return columns_of_form, {name: table.column(name) for name in table.names if name not in _IDS}


def _day(text: str) -> int:
    """Milliseconds from 1970 to a date written as yyyymmdd."""
    text = text.removesuffix(".0")
    if len(text) != 8 or not text.isdecimal():
        raise ValueError(text)
    day = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "D")
    return int(day.astype("datetime64[ms]").astype(np.int64))


def _datetime(table: TextTable, note: Callable[[str], object]) -> pa.Array:
    """Date and time of the study. The time is hhmmss.fff, a number whose leading zeros are lost."""
    days = table.lenient("StudyDate", _day, pa.int64(), note)
    times = table.column("StudyTime")
    text = times.dictionary
    number = pc.if_else(pc.match_substring_regex(text, r"^\d{1,6}(\.\d*)?$"), text, None).cast(pa.float64())
    thousandths = pc.round(pc.multiply(number, 1000.0)).cast(pa.int64())
    whole_minutes = pc.divide(thousandths, 100_000)
    hours = pc.divide(whole_minutes, 100)
    minutes = pc.subtract(whole_minutes, pc.multiply(hours, 100))
    rest = pc.subtract(thousandths, pc.multiply(whole_minutes, 100_000))
    possible = pc.and_(pc.less(hours, 24), pc.and_(pc.less(minutes, 60), pc.less(rest, 60_000)))
    passed = pc.add(pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60_000), rest)
    passed = pc.if_else(possible, passed, pa.scalar(None, pa.int64())).take(times.indices)
    refused = pc.and_(pc.is_null(passed), pc.is_valid(times))
    row = first_true(refused)
    if row >= 0:
        where = table.error(row, "StudyTime", "no time of day").message
        note(f"{where}: null in {count_true(refused):,} rows, raw text kept")
    return pc.add(days, passed).cast(pa.timestamp("ms"))


def _order(images: ImageListing, starts: NDArray[np.int64]) -> dict[str, Any]:
    """Each image's place of its study in time, from 1, and the study before it; studies of one moment share a place.

    ``starts`` are the first rows of studies. Nothing is given where no time is known.
    """
    when = images.columns["study_datetime"].cast(pa.int64())
    known = pc.is_valid(when).to_numpy(zero_copy_only=False)
    if not known.any():
        return {}
    # A study's first moment; one that has none comes after all others, and has no place.
    none = np.iinfo(np.int64).max
    first = np.minimum.reduceat(pc.fill_null(when, none).to_numpy(), starts)
    patients = images.patient.take(pa.array(starts))
    changes = pc.not_equal(patients[1:], patients[:-1]).to_numpy(zero_copy_only=False)
    patient = np.append([0], np.cumsum(changes))
    dated = np.flatnonzero(first != none)
    dated = dated[order_by_both(patient[dated], first[dated])]  # those of one moment stay in their order
    order, prior = _places(patient[dated], first[dated])
    numbers = np.zeros(len(starts), np.int16)
    before = np.zeros(len(starts), np.int64)
    numbers[dated], before[dated] = order, dated[prior]
    of_row = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, images.rows)))
    studies = images.study.take(pa.array(starts))
    rows_before = pa.array(before[of_row], mask=~known | (numbers[of_row] < 2))
    return {"study_order": pa.array(numbers[of_row], mask=~known), "prior_study_id": studies.take(rows_before)}


def _places(patient: NDArray[Any], moment: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of studies by patient and moment: each one's place in time, from 1, and the row of the one before its moment."""
    rows = np.arange(len(moment))
    new_patient = np.append([True], patient[1:] != patient[:-1])
    later = np.append([True], moment[1:] != moment[:-1]) | new_patient
    moments = np.cumsum(later)
    first_of_patient = np.maximum.accumulate(np.where(new_patient, rows, 0))
    # The study just before the first one of this moment, unless that is another patient's.
    first_of_moment = np.maximum.accumulate(np.where(later, rows, 0))
    return moments - moments[first_of_patient] + 1, first_of_moment - 1
