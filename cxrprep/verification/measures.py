"""Measures: what ``[[fact]]`` entries count in a release's tables, by name.

A measure is ``NAME`` or ``NAME.ARGUMENT``; ``@SPLIT`` behind it counts that split's rows only. Where numbers by value
are counted, the argument may name one value (``view.PA``, ``finding.Mass@test``)::

    rows                    rows
    images patients studies reports
                            distinct ids, or paths of reports
    splits.images           distinct images (or patients, studies) of each split
    shared_patients         patients that stand in more than one split
    view, sex, age_flag     images of each value, "blank" where there is none; the view as the release spells it
    raw.COLUMN              rows of each value of a column of the release
    finding                 images with each word of a release that lists words (NIH)
    combined.WORD           images where WORD stands beside another word
    label                   rows of each observation: [1, 0, -1, blank], from the release's own columns
    study_label             the same, counted in studies
    blank_labels            studies without a value for any observation
    blank_images            images without a value for any observation
    study_conflicts         studies whose images carry different labels
    boxes, boxed_images     rectangles, and images that have one
    box                     rectangles of each finding
    boxes_outside           rectangles that leave the image
    age_min, age_max        years
    bad_paths               rows whose path is not of the release's form
    study_gaps, view_gaps   patients whose studies (studies whose views) are not numbered 1, 2, 3 ...
    lines.FILE              lines of a file of the release, counting an unfinished last one
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.schemas import label_columns
from cxrprep.storage.value_codes import (
    ValueCodes,
    numbers,
    shared_patients,
    stated,
    take_rows,
    value_codes,
    value_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cxrprep.datasets.facts import DatasetSpec

BLANK: Final = "blank"
IDS: Final = ("image_id", "patient_id", "study_id")
# The columns that any measure may read, and those that some read, beside those of labels and the release's own.
USED: Final = (*IDS, "split", "label_source", "table_name")
READ_BY: Final = {
    "view": "view_raw", "sex": "sex", "age_flag": "age_flag", "age_min": "age_years", "age_max": "age_years",
    "finding": "labels_raw", "combined": "labels_raw", "boxes": "boxes", "boxed_images": "boxes", "box": "boxes",
    "boxes_outside": "boxes", "bad_paths": "path_raw", "reports": "report_path",
}  # fmt: skip
Counted = int | float | dict[str, Any]
_RAW: Final = "raw_"
_VALUES: Final[Mapping[str, int]] = {"1": 0, "1.0": 0, "0": 1, "0.0": 1, "-1": 2, "-1.0": 2, BLANK: 3}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: rows of ``labels.parquet`` (of one table of the release, or all), and where they come from.

    ``observations`` are the release's names of the columns that ``label`` counts.
    """

    rows: pa.Table
    spec: DatasetSpec
    release: str
    root: Path
    observations: tuple[str, ...] = ()
    _first: dict[tuple[str, ...], pa.Table] = field(default_factory=dict, repr=False, compare=False)
    _codes: dict[str, ValueCodes] = field(default_factory=dict, repr=False, compare=False)

    def of(self, rows: pa.Table) -> Subject:
        """The same with other rows."""
        return replace(self, rows=rows, _first={}, _codes={})

    def counting(self, value: Any) -> Subject:
        """The same, for the observations that a published number names."""
        return replace(self, observations=tuple(value) if isinstance(value, dict) else ())

    def column(self, name: str) -> pa.Array:
        """A column as plain text or numbers."""
        column = self.rows[name].combine_chunks()
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

    def codes(self, name: str) -> ValueCodes:
        """A column as numbers."""
        if name not in self._codes:
            self._codes[name] = value_codes(self.rows[name])
        return self._codes[name]

    def once_each(self, key: str, *names: str) -> Subject:
        """The first row of each distinct value of ``key``, with these columns; rows without a value are left out."""
        wanted = (key, *(name for name in names if name != key and name in self.rows.column_names))
        if wanted not in self._first:
            rows, chosen = self.codes(key).first_rows(), self.rows.select(wanted)
            # A copy of these columns only: all of them are some hundred megabytes.
            self._first[wanted] = take_rows(chosen, rows)
        return self.of(self._first[wanted])


def measure(name: str, subject: Subject) -> Counted | None:
    """The number (or numbers by value) that ``name`` asks for; ``None`` where the tables here cannot say.

    Raises ``KeyError`` for a name that is not in this module's list.
    """
    name, _, split = name.partition("@")
    name, _, argument = name.partition(".")
    known = MEASURES[name]
    if split:
        subject = subject.of(take_rows(subject.rows, subject.codes("split").rows_of([split])))
    return known(subject, argument)


def _histogram(column: pa.Array) -> dict[str, Any]:
    counted: dict[str, Any] = {}
    for value, count in value_counts(
        column if pa.types.is_dictionary(column.type) else column.cast(pa.string())
    ).items():
        name = BLANK if value is None else str(value)
        counted[name] = counted.get(name, 0) + count
    return counted


def _of_ids(key: str) -> Callable[[Subject, str], Counted | None]:
    return lambda subject, _: subject.codes(key).distinct()


def _of_images(key: str) -> Callable[[Subject, str], Counted | None]:
    return lambda subject, value: _one(_histogram(subject.once_each("image_id", key).rows[key]), value)


def _one(counted: dict[str, Any], value: str) -> Counted:
    return counted.get(value, 0) if value else counted


def _splits(subject: Subject, what: str) -> Counted | None:
    key = {"images": "image_id", "patients": "patient_id", "studies": "study_id"}[what]
    splits = subject.codes("split")
    if not splits.distinct():
        return None
    counted = splits.beside(subject.codes(key))[:, :-1].sum(axis=1).tolist()
    named = zip([*splits.values.to_pylist(), BLANK], splits.counts().tolist(), counted, strict=True)
    return {name: number for name, rows, number in named if rows}


def _raw(subject: Subject, name: str) -> Counted | None:
    return _histogram(subject.rows[_RAW + name]) if _RAW + name in subject.rows.column_names else None


def _words(subject: Subject) -> pa.Array:
    return subject.once_each("image_id", "labels_raw").column("labels_raw")


def _finding(subject: Subject, word: str) -> Counted | None:
    words = _words(subject)
    return None if words.null_count == len(words) else _one(_histogram(pc.list_flatten(words)), word)


def _combined(subject: Subject, word: str) -> Counted | None:
    words = _words(subject)
    several = np.flatnonzero(numbers(pc.list_value_length(words), 0) > 1)
    beside = take_rows(pa.table({"words": words}), several)["words"]
    return int(value_counts(pc.list_flatten(beside)).get(word, 0))


def _label(subject: Subject, _: str) -> Counted | None:
    counted: dict[str, Any] = {}
    for name in subject.observations:
        if _RAW + name in subject.rows.column_names:
            found = _histogram(subject.rows[_RAW + name]).items()
            counted[name] = [sum(count for value, count in found if _VALUES.get(value) == place) for place in range(4)]
    return counted or None


def _study_label(subject: Subject, argument: str) -> Counted | None:
    return _label(subject.once_each("study_id", *(_RAW + name for name in subject.observations)), argument)


def _joined_labels(subject: Subject) -> pa.Array:
    columns = label_columns(subject.rows.schema)
    stated = [subject.column(name) for name in columns if subject.rows[name].null_count < subject.rows.num_rows]
    texts = [pc.fill_null(column.cast(pa.string()), "") for column in stated]
    return pc.binary_join_element_wise(*texts, "|") if texts else pa.array([""] * subject.rows.num_rows)


def _blank(key: str) -> Callable[[Subject, str], Counted | None]:
    def counted(subject: Subject, _: str) -> Counted | None:
        labelled = np.zeros(subject.rows.num_rows, bool)
        for name in label_columns(subject.rows.schema):
            labelled |= stated(subject.rows[name])
        return int(np.count_nonzero(~labelled[subject.codes(key).first_rows()]))

    return counted


def _study_conflicts(subject: Subject, _: str) -> Counted | None:
    joined = _joined_labels(subject)
    # Two labelers may differ about a study; two images of one table may not.
    pairs = pa.table({"table": subject.column("table_name"), "study": subject.column("study_id"), "labels": joined})
    counted = pairs.group_by(["table", "study"]).aggregate([("labels", "count_distinct")])
    return int(pc.sum(pc.greater(counted["labels_count_distinct"], 1)).as_py() or 0)


def _of_boxes(count: Callable[[Subject, pa.Array, str], Counted | None]) -> Callable[[Subject, str], Counted | None]:
    """What ``count`` says of the boxes of each image; ``None`` where no table has boxes."""

    def counted(subject: Subject, argument: str) -> Counted | None:
        boxes = subject.once_each("image_id", "boxes").column("boxes")
        return None if boxes.null_count == len(boxes) else count(subject, boxes, argument)

    return counted


def _outside(subject: Subject, boxes: pa.Array, _: str) -> Counted | None:
    width, height = subject.spec.images.width, subject.spec.images.height
    if width is None or height is None:
        return None
    x, y, w, h = (numbers(pc.struct_field(pc.list_flatten(boxes), name), np.nan) for name in "xywh")
    return int(np.count_nonzero((x < 0) | (y < 0) | (x + w > width) | (y + h > height)))


def _age(which: Callable[[pa.Array], pa.Scalar]) -> Callable[[Subject, str], Counted | None]:
    def extreme(subject: Subject, _: str) -> Counted | None:
        value = which(subject.column("age_years")).as_py()
        return None if value is None else float(value)

    return extreme


def _bad_paths(subject: Subject, _: str) -> Counted | None:
    layout = subject.spec.layout(subject.release)
    paths = subject.column("path_raw").drop_null().to_pylist()
    return sum(1 for path in paths if layout.parse(path) is None)


def _gaps(key: str, group: str) -> Callable[[Subject, str], Counted | None]:
    """How many groups are not numbered 1 to n by the last number in ``key``."""

    def counted(subject: Subject, _: str) -> Counted | None:
        found = pc.extract_regex(subject.column(key), r"(?P<n>\d+)(?:_[a-z]+)?$")
        pairs = pa.table({"group": subject.column(group), "number": pc.struct_field(found, "n").cast(pa.int64())})
        by_group = pairs.group_by("group").aggregate([("number", "count_distinct"), ("number", "max")])
        uneven = pc.not_equal(by_group["number_count_distinct"], by_group["number_max"])
        return int(pc.sum(uneven).as_py() or 0)

    return counted


def _lines(subject: Subject, name: str) -> Counted | None:
    path = subject.root / name
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)


MEASURES: Final[Mapping[str, Callable[[Subject, str], Counted | None]]] = {
    "rows": lambda subject, _: int(subject.rows.num_rows),
    "images": _of_ids("image_id"),
    "patients": _of_ids("patient_id"),
    "studies": _of_ids("study_id"),
    # The images' project has no list of reports: that it names none says nothing.
    "reports": lambda subject, _: subject.codes("report_path").distinct() or None,
    "splits": _splits,
    "shared_patients": lambda subject, _: (
        len(shared_patients(subject.rows)) if subject.codes("split").distinct() else None
    ),
    "view": _of_images("view_raw"),
    "sex": _of_images("sex"),
    "age_flag": _of_images("age_flag"),
    "raw": _raw,
    "finding": _finding,
    "combined": _combined,
    "label": _label,
    "study_label": _study_label,
    "blank_labels": _blank("study_id"),
    "blank_images": _blank("image_id"),
    "study_conflicts": _study_conflicts,
    "boxes": _of_boxes(lambda _, boxes, __: len(pc.list_flatten(boxes))),
    "boxed_images": _of_boxes(lambda _, boxes, __: len(boxes) - boxes.null_count),
    "box": _of_boxes(lambda _, boxes, word: _one(_histogram(pc.struct_field(pc.list_flatten(boxes), "label")), word)),
    "boxes_outside": _of_boxes(_outside),
    "age_min": _age(pc.min),
    "age_max": _age(pc.max),
    "bad_paths": _bad_paths,
    "study_gaps": _gaps("study_id", "patient_id"),
    "view_gaps": _gaps("image_id", "study_id"),
    "lines": _lines,
}
