"""Counts of labels: rows, images, patients, splits and cells of each label source."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.humanize import short_repr
from cxrprep.labels.joins import differs_from_last
from cxrprep.schemas import LABELS, label_columns
from cxrprep.storage.value_codes import numbers, value_counts
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cxrprep.labels.label_rows import Labels, TableUse


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How often one observation has each value, in rows of one label source."""

    observation: str
    positive: int
    negative: int
    uncertain: int
    null: int


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What one label source says: rows, distinct images, patients and studies, images per split, labels."""

    label_source: str
    rows: int
    images: int
    patients: int
    studies: int
    splits: tuple[tuple[str, int], ...]
    labels: tuple[LabelCount, ...]


@dataclass(frozen=True, slots=True)
class LabelsResult:
    """What ``extract_labels`` did. ``boxes`` are on ``boxed_images`` images; ``tables`` account for every row read."""

    __repr__ = short_repr

    dataset: str
    release: str
    path: Path
    rows: int
    images: int
    patients: int
    studies: int
    splits: tuple[tuple[str, int], ...]
    boxes: int
    boxed_images: int
    sources: tuple[SourceCounts, ...]
    tables: tuple[TableUse, ...]

    def counts(self) -> dict[str, Any]:
        """The numbers, as JSON values for the footer of the table."""
        told = asdict(replace(self, tables=()))
        return {name: value for name, value in told.items() if name not in {"dataset", "release", "path", "tables"}}

    @classmethod
    def of_footer(cls, footer: Mapping[str, Any], path: Path, tables: tuple[TableUse, ...]) -> Self:
        """What ``counts`` told, from the footer of the table at ``path``."""
        told = footer["counts"]
        sources = []
        for one in told["sources"]:
            labels = tuple(LabelCount(**each) for each in one["labels"])
            sources.append(SourceCounts(**{**one, "splits": _pairs(one["splits"]), "labels": labels}))
        counted = {**told, "splits": _pairs(told["splits"]), "sources": tuple(sources)}
        return cls(footer["dataset"], footer["release"], path, **counted, tables=tables)


def _pairs(values: list[list[Any]]) -> tuple[Any, ...]:
    return tuple(tuple(pair) for pair in values)


def _splits(table: pa.Table) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((word or "", count) for word, count in value_counts(table.column("split")).items()))


def _distinct(table: pa.Table) -> tuple[int, int, int]:
    """How many patients, studies and images rows have; they are in their order, so equal ones are neighbours."""
    counts = []
    new = np.zeros(max(table.num_rows - 1, 0), bool)
    for name in ("patient_id", "study_id", "image_id"):
        column = table.column(name)
        if column.null_count or not table.num_rows:
            counts.append(int(pc.count_distinct(column).as_py()))
        else:
            new |= differs_from_last(column)
            counts.append(int(np.count_nonzero(new)) + 1)
    return counts[0], counts[1], counts[2]


def _label_counts(table: pa.Table) -> tuple[LabelCount, ...]:
    counts = []
    for name in label_columns(table.schema):
        column = table.column(name)
        if column.null_count == len(column):
            continue
        cells = numbers(column, 2)
        positive, negative, uncertain = (int(np.count_nonzero(cells == value)) for value in (1, 0, -1))
        counts.append(
            LabelCount(published_name(name.removeprefix("label_")), positive, negative, uncertain, column.null_count)
        )
    return tuple(counts)


def count_labels(dataset: str, labels: Labels, path: Path) -> LabelsResult:
    """The counts of a labels table: in all, and of each label source."""
    table = labels.table
    parts = rows_by_source(table)
    named, same = _named_images([rows for _, rows in parts])
    # Where all label sources are of the same rows, those of one are counted.
    distinct = [_distinct(parts[0][1])] * len(parts) if same else [_distinct(rows) for _, rows in parts]
    sources = tuple(
        SourceCounts(name, rows.num_rows, images, patients, studies, _splits(rows), _label_counts(rows))
        for (name, rows), (patients, studies, images) in zip(parts, distinct, strict=True)
        if name is not None
    )
    ids = named.column("image_id")
    first = named.filter(pc.is_valid(ids)) if ids.null_count else named
    alone = sources[0] if same and len(parts) == len(sources) > 0 else None
    boxes = table.column("boxes")
    return LabelsResult(
        dataset=dataset,
        release=labels.release,
        path=path,
        rows=table.num_rows,
        images=first.num_rows,
        patients=alone.patients if alone else int(pc.count_distinct(named.column("patient_id")).as_py()),
        studies=alone.studies if alone else int(pc.count_distinct(named.column("study_id")).as_py()),
        splits=_splits(first),
        boxes=int(pc.sum(pc.list_value_length(boxes)).as_py() or 0),
        boxed_images=len(boxes) - boxes.null_count,
        sources=sources,
        tables=labels.tables,
    )


def rows_by_source(table: pa.Table) -> list[tuple[str | None, pa.Table]]:
    """The rows of each label source: they stand together."""
    source = table.column("label_source").combine_chunks()
    codes = source.indices.fill_null(-1).to_numpy()
    starts = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist()] if len(codes) else []
    ends = [*starts[1:], len(codes)]
    return [(source[start].as_py(), table.slice(start, end - start)) for start, end in zip(starts, ends, strict=True)]


def _named_images(parts: list[pa.Table]) -> tuple[pa.Table, bool]:
    """Ids and split of the rows of all label sources, and whether they are the same rows in all.

    An image is named once, a row without image stays.
    """
    named: list[pa.Table] = []
    for part in parts:
        rows = part.select(["patient_id", "study_id", "image_id", "split"])
        if any(rows.drop_columns("split").equals(other.drop_columns("split")) for other in named):
            continue
        ids = rows.column("image_id")
        again = pa.chunked_array([_again(ids.combine_chunks())])
        for other in named:
            again = pc.or_(again, pc.and_(pc.is_valid(ids), pc.is_in(ids, value_set=other.column("image_id"))))
        named.append(rows.filter(pc.invert(again)) if pc.any(again).as_py() else rows)
    return pa.concat_tables(named) if named else LABELS.empty_table(), len(named) == 1


def _again(ids: pa.Array) -> pa.Array:
    """Which rows name the image of the row before them; rows are in their order, so equal ones are neighbours."""
    if not len(ids):
        return pa.array([], pa.bool_())
    same = pc.fill_null(pc.equal(ids[1:], ids[:-1]), fill_value=False)
    return pa.concat_arrays([pa.array([False]), same])
