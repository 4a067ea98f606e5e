"""Reads the tables of MIMIC-CXR and MIMIC-CXR-JPG: labels by study, carried to the images that the other tables list.

The labelers' tables have no row for studies without usable text, so their images get a row of nulls; the radiologist's
table is about a part of the test studies, and only their images get a row of that source. Columns that repeat an id
word for word are not kept a second time as ``raw_``.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.humanize import format_count
from cxrprep.labels.columns import constant, constant_where, count_true, filled_with_zeros, labels, whole
from cxrprep.labels.csv_table import Form, read_table
from cxrprep.labels.csv_text import digest_of
from cxrprep.labels.joins import are_in, positions, row_numbers
from cxrprep.labels.mimic_annotations import ROLE, read_annotations
from cxrprep.labels.mimic_images import PATIENT, STUDY, ImageListing, list_images, note_absent, trimmed_ids
from cxrprep.schemas import CATEGORY
from cxrprep.storage.archives import NOT_READABLE
from cxrprep.storage.value_codes import numbers, stated
from cxrprep.vocabulary import CHEXPERT, slug

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.label_rows import LabelRows
    from cxrprep.labels.locate_tables import Tables
    from cxrprep.labels.text_table import TextTable

_NAMES: Final = CHEXPERT.names
_LABELERS: Final = Form(("subject_id", "study_id", *_NAMES), plain=("subject_id", "study_id"))
_PROVIDER_IDS: Final = ("ordering_provider_id", "attending_provider_id", "resident_provider_id")
_CAPPED: Final = 91  # MIMIC-IV writes 91 for the age of everyone over 89


def _radiologist_header(names: list[str]) -> list[str]:
    """The released table may say Airspace Opacity where all others say Lung Opacity."""
    return ["Lung Opacity" if slug(name).replace("_", "") == "airspaceopacity" else name for name in names]


_RADIOLOGIST: Final = Form(("study_id", *_NAMES), optional=("subject_id",), header=_radiologist_header)
_PROVIDERS: Final = Form(("study_id",), optional=("subject_id", *_PROVIDER_IDS), plain=("study_id",), open=True)
_PATIENTS: Final = Form(("subject_id", "gender", "anchor_age", "anchor_year"), plain=("subject_id",), open=True)


def read(tables: Tables, label_rows: LabelRows) -> None:
    """Add the rows that these tables give: one per image and label source, or per study where no table lists images."""
    images = list_images(tables, label_rows)
    paths = report_paths(tables, label_rows)
    by_study = _providers(tables, label_rows)
    if paths is not None:
        by_study.append((paths[0], {"report_path": paths[1]}))
    texts = report_texts(tables, label_rows) if label_rows.options.report_text else None
    people = _People.read(label_rows.options.patients, label_rows) if label_rows.options.patients is not None else None
    read_tables: list[_Labelled] = []
    for entry, path in tables.of_role("labels"):
        form = _RADIOLOGIST if entry.label_source == "radiologist" else _LABELERS
        read_tables.append(_Labelled.read(entry.label_source, read_table(path, form), images, read_tables))
    study_patients = _study_patients(images, [one for one in read_tables if "subject_id" in one.table])
    context = _Context(by_study, texts, people)
    everything = _Rows.all_images(images)
    for labelled in read_tables:
        source, table = labelled.source, labelled.table
        table.require_match("study_id", STUDY, "expected a study such as 50414267")
        table.require_unique("study_id")
        rows = _Rows.of(everything, labelled, study_patients, whole=source != "radiologist")
        columns, raw = rows.labels(labelled)
        label_rows.use(table, "labels", used=table.rows, source=source)
        if source != "radiologist" and (filled := filled_with_zeros(table, _NAMES)):
            label_rows.note(filled, str(table.path), "warning")
        if rows.without_images:
            label_rows.note(
                f"{format_count(rows.without_images, 'study', 'has')} no image in the tables here",
                str(table.path),
                "warning",
            )
        context.add(rows, columns, raw, label_rows)
    if not read_tables and images.rows:
        context.add(everything, {}, {}, label_rows)
    if images.rows and tables.of_role(ROLE):
        read_annotations(tables, images, context.about(everything), label_rows)
    if not label_rows.blocks:
        raise TableError(
            "no table here lists images or labels of MIMIC-CXR",
            hint="download mimic-cxr-2.0.0-*.csv.gz of MIMIC-CXR-JPG, or name their folder with --tables DIR",
        )


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A table of labels, and the first row of ``images`` of each of its studies; null for a study without one."""

    source: str
    table: TextTable
    images: pa.Array

    @classmethod
    def read(cls, source: str, table: TextTable, images: ImageListing, before: list[_Labelled]) -> _Labelled:
        """Of a table as it was read; the labelers' tables are about the same studies, which are looked up once."""
        table = trimmed_ids(table.known_from(before[0].table if before else None))
        study = table.text("study_id")
        known = next((one.images for one in before if one.table.text("study_id").equals(study)), None)
        if known is None:
            starts = pa.array(images.starts.astype(np.int32))
            known = starts.take(positions(study, images.study.take(starts)))
        return cls(source, table, known)

    def of_each_image(self, listing: ImageListing) -> pa.Array:
        """The table's row of each image's study, the other way round."""
        row = np.full(listing.rows, -1, np.int32)
        labelled = stated(self.images)
        row[numbers(self.images, 0)[labelled]] = np.flatnonzero(labelled)
        of_image = np.repeat(row[listing.starts], np.diff(np.append(listing.starts, listing.rows)))
        return pa.array(of_image, mask=of_image < 0)


@dataclass(slots=True, eq=False)
class _Rows:
    """Which image and study each row of a block is about; ``whole`` when it is every image in order."""

    images: ImageListing
    image: pa.Array  # row of ``images``; null for a study without one
    study: pa.Array
    patient: pa.Array
    without_images: int = 0
    whole: bool = False
    _looked_up: tuple[pa.Array, pa.Array] | None = None

    @classmethod
    def all_images(cls, images: ImageListing) -> _Rows:
        """A row for each image."""
        return cls(images, row_numbers(images.rows), images.study, images.patient, whole=True)

    @classmethod
    def of(cls, everything: _Rows, of: _Labelled, study_patients: tuple[pa.Array, pa.Array], *, whole: bool) -> _Rows:
        """A row for each image (``whole``) or each image of a labelled study, and one for each study without image."""
        images, table = everything.images, of.table
        labelled = table.text("study_id")
        alone = labelled.filter(pc.is_null(of.images))
        if whole and not len(alone):
            return everything
        patient = study_patients[1].take(positions(alone, study_patients[0]))
        if patient.null_count:
            study = alone.filter(pc.is_null(patient))[0].as_py()
            row = pc.index(labelled, study).as_py()
            raise table.error(
                row, "study_id", "no table here says whose study this is", "add the split, metadata or study list"
            )
        kept = everything.image
        if not whole:
            kept = kept.filter(are_in(images.study, labelled))
        study = pa.concat_arrays([images.study.take(kept), alone])
        owner = pa.concat_arrays([images.patient.take(kept), patient])
        image = pa.concat_arrays([kept, pa.nulls(len(alone), kept.type)])
        return cls(images, image, study, owner, without_images=len(alone))

    def of_images(self, values: pa.Array) -> pa.Array:
        """A column of the images as a column of these rows."""
        return values if self.whole else values.take(self.image)

    def __len__(self) -> int:
        return len(self.study)

    def labels(self, labelled: _Labelled) -> tuple[dict[str, Any], dict[str, pa.Array]]:
        """The label columns and source cells of each row, by its study; null where the table has no row for it."""
        table, source = labelled.table, labelled.source
        place = self._places_in(labelled)
        columns: dict[str, Any] = {term.column: labels(table, term.name).take(place) for term in CHEXPERT.terms}
        # A study that the table lacks was not labelled: to say that it was would let its blanks become negatives.
        stated = pc.is_valid(place)
        columns |= {
            "label_source": constant(source, len(self)),
            "table_name": constant_where(table.path.name, stated),
            "table_digest": constant_where(str(table.digest), stated),
        }
        return columns, {name: table.column(name).take(place) for name in (*_NAMES, *table.extra)}

    def _places_in(self, labelled: _Labelled) -> pa.Array:
        """The row of each row's study in a table, which is looked up once where two tables have the same studies."""
        studies = labelled.table.text("study_id")
        if self._looked_up is None or not self._looked_up[0].equals(studies):
            self._looked_up = (
                studies,
                labelled.of_each_image(self.images) if self.whole else positions(self.study, studies),
            )
        return self._looked_up[1]


def _study_patients(images: ImageListing, labelled: list[_Labelled]) -> tuple[pa.Array, pa.Array]:
    """The studies without an image here, with their patients; ``TableError`` where two tables disagree on any study."""
    studies, patients = [pa.array([], pa.string())], [pa.array([], pa.string())]
    for one in labelled:
        table, place = one.table, one.images
        table.require_match("subject_id", PATIENT, "expected a patient such as 10000032")
        known = images.patient.take(place)
        wrong = pc.fill_null(pc.not_equal(known, table.text("subject_id")), fill_value=False)
        if count_true(wrong):
            row = pc.index(wrong, pa.scalar(value=True)).as_py()
            raise table.error(row, "subject_id", f"other tables say that this study is of patient {known[row]}")
        alone = pc.is_null(place)
        studies.append(table.text("study_id").filter(alone))
        patients.append(table.text("subject_id").filter(alone))
    whole = pa.table({"study": pa.concat_arrays(studies), "patient": pa.concat_arrays(patients)})
    if not whole.num_rows:
        return studies[0], patients[0]
    one = whole.group_by("study", use_threads=False).aggregate([("patient", "min")])
    return one.column("study").combine_chunks(), one.column("patient_min").combine_chunks()


@dataclass(slots=True)
class _Context:
    """What is known of studies and patients beside their labels; ``by_study`` are studies with their columns."""

    by_study: list[tuple[pa.Array, dict[str, pa.Array]]]
    texts: tuple[pa.Array, pa.Array] | None
    people: _People | None
    # What was last made, and for which rows: the labelers' tables are about the same ones.
    made: tuple[_Rows, dict[str, Any]] | None = None

    def add(self, rows: _Rows, columns: dict[str, Any], raw: dict[str, pa.Array], label_rows: LabelRows) -> None:
        """Add a block of these rows with their labels."""
        if self.made is None or self.made[0] is not rows:
            self.made = (rows, self.about(rows))
        cells = {name: rows.of_images(values) for name, values in rows.images.raw.items()}
        label_rows.add(len(rows), {**self.made[1], **columns}, {**cells, **raw})
        if self.texts is not None:
            study, text = self.texts
            column = pa.DictionaryArray.from_arrays(positions(rows.study, study), text)
            label_rows.blocks[-1] = label_rows.blocks[-1].append_column("report_text", column)

    def about(self, rows: _Rows) -> dict[str, Any]:
        """What is known of the rows beside their labels."""
        about = {name: rows.of_images(values) for name, values in rows.images.columns.items()}
        about |= {"image_id": rows.of_images(rows.images.image), "study_id": rows.study, "patient_id": rows.patient}
        for study, columns in self.by_study:
            place = positions(rows.study, study)
            about |= {name: values.take(place) for name, values in columns.items()}
        if self.people is not None:
            about |= self.people.of(rows.patient, about.get("study_datetime"))
        return about


def _providers(tables: Tables, label_rows: LabelRows) -> list[tuple[pa.Array, dict[str, pa.Array]]]:
    found = tables.of_role("providers")
    if not found:
        return []
    table = trimmed_ids(read_table(found[0][1], _PROVIDERS))
    table.require_match("study_id", STUDY, "expected a study such as 50414267")
    study = table.text("study_id")
    # Whether a study can have two rows is not documented: the first one is taken.
    first = positions(pc.unique(study), study)
    again = table.rows - len(first)
    label_rows.use(table, "providers", used=len(first), are_about_a_study_that_an_earlier_row_is_about=again)
    note_absent(table, _PROVIDER_IDS, label_rows)
    return [(study.take(first), {name: table.text(name).take(first) for name in _PROVIDER_IDS if name in table})]


@dataclass(frozen=True, slots=True)
class _People:
    """Sex, and age by year, of the patients that MIMIC-IV knows."""

    subject: pa.Array
    sex: pa.Array
    age: pa.Array
    year: pa.Array

    @classmethod
    def read(cls, path: Path, label_rows: LabelRows) -> _People:
        """From MIMIC-IV's ``patients.csv.gz``. Raises ``TableError``."""
        table = read_table(path, _PATIENTS).trimmed("subject_id", r"^p?(\d{8})(?:\.0)?$")
        table.require_match("subject_id", r"^\d{8}$", "expected a patient such as 10000032")
        table.require_unique("subject_id")
        sex = table.translated("gender", {"M": "M", "F": "F"}.__getitem__, CATEGORY, "expected M or F")
        age = table.translated("anchor_age", whole, pa.int32(), "expected an age in years")
        year = table.translated("anchor_year", whole, pa.int32(), "expected a year")
        label_rows.use(table, "patients", used=table.rows)
        return cls(table.text("subject_id"), sex, age, year)

    def of(self, patient: pa.Array, when: pa.Array | None) -> dict[str, Any]:
        """Sex and age at the study: the anchor age and the years since the anchor year, which are shifted alike."""
        place = positions(patient, self.subject)
        columns: dict[str, Any] = {"sex": self.sex.take(place)}
        if when is not None:
            anchor = self.age.take(place)
            years = pc.subtract(pc.year(when).cast(pa.int32()), self.year.take(place))
            columns["age_years"] = pc.add(anchor, years).cast(pa.float32())
            columns["age_flag"] = pc.if_else(pc.greater_equal(anchor, _CAPPED), "capped", None)
        return columns


_STUDIES: Final = Form(("subject_id", "study_id", "path"), plain=("subject_id", "study_id", "path"))
_MEMBER: Final = re.compile(r"(?:^|/)p1\d{7}/s(5\d{7})\.txt$", re.ASCII)
_LARGEST: Final = 1 << 20  # the longest report has some ten thousand characters


def report_paths(tables: Tables, label_rows: LabelRows) -> tuple[pa.Array, pa.Array] | None:
    """Studies and the release paths of their reports, as the study list states them; ``None`` without that list."""
    found = tables.of_role("studies")
    if not found:
        return None
    table = trimmed_ids(read_table(found[0][1], _STUDIES)).with_slashes("path")
    table = table.trimmed("path", r"^.*/(files/p\d\d/p1\d{7}/s5\d{7}\.txt)$")
    table.require_match("study_id", STUDY, "expected a study such as 50414267")
    table.require_unique("study_id")
    table.require_match("path", r"^files/p\d\d/p1\d{7}/s5\d{7}\.txt$", "expected files/p10/p10000032/s50414267.txt")
    label_rows.use(table, "studies", used=table.rows)
    return table.text("study_id"), table.text("path")


def report_texts(tables: Tables, label_rows: LabelRows) -> tuple[pa.Array, pa.Array]:
    """Studies and their reports' texts, from the archive of all reports.

    Bytes that are no UTF-8 are read as Latin-1. Raises ``TableError`` when the archive is absent or damaged.
    """
    found = tables.of_role("reports")
    if not found:
        raise TableError(
            "report texts were asked for, and mimic-cxr-reports.zip is not here",
            hint="download it from MIMIC-CXR, name its folder with --tables DIR, or do not ask for report texts",
        )
    path = found[0][1]
    studies, texts = [], []
    others = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                named = _MEMBER.search(member.filename)
                if member.is_dir():
                    continue
                if named is None:
                    others += 1
                    continue
                if member.file_size > _LARGEST:
                    raise TableError(
                        f"{path}: {member.filename} is {member.file_size:,} bytes long",
                        hint="no report is that large: fetch it again",
                    )
                studies.append(named.group(1))
                texts.append(_text(archive.read(member)))
    except (OSError, *NOT_READABLE) as error:
        raise TableError(f"{path} cannot be read: {error}", hint="the file is cut short: fetch it again") from error
    label_rows.use_file(
        path, digest_of(path), "reports", rows=len(studies) + others, used=len(studies), are_no_reports=others
    )
    return pa.array(studies, pa.string()), pa.array(texts, pa.large_string())


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
