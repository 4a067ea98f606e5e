"""Source images of a conversion, from the rows of a manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.labels.source_vocabulary import known_observations, ordered
from cxrprep.model import Box, Digest, ImageId, Selection, View
from cxrprep.selection.filters import SelectionFilter
from cxrprep.selection.table_filters import chosen_rows, drawn_ids, matching
from cxrprep.storage.parquet import read_footer, read_groups, read_rows, read_schema
from cxrprep.storage.table_on_disk import TableOnDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path


_COLUMNS = ["image_id", "patient_id", "study_id", "view", "path", "digest", "boxes", "spacing_x_mm", "spacing_y_mm"]

_DECIDING: Final = ("path", "patient_id", "study_id", "image_id")
_ROWS: Final = 8192
_VIEWS: Final = {str(view): view for view in View}

_ABOUT = (
    "image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image that is here: ``boxes`` in its own pixels, ``None`` where nobody drew any; spacing is (row, column).

    ``row`` holds the columns that were asked for.
    """

    path: str
    image: ImageId
    digest: Digest | None
    boxes: tuple[Box, ...] | None
    spacing_mm: tuple[float, float] | None
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows of ``images.parquet`` are wanted, asked of a group of them at a time.

    ``choice`` wants their ids and paths, ``holds`` their path; of ``among`` image ids and ``at`` paths they have to be.
    """

    choice: SelectionFilter
    holds: Callable[[str], bool] | None = None
    among: pa.Array | None = None
    at: pa.Array | None = None

    @classmethod
    def of_paths(cls, paths: Collection[str], holds: Callable[[str], bool] | None) -> RowFilter:
        """All images at some paths, of those that ``holds`` wants."""
        return cls(SelectionFilter(Selection()), holds, at=pa.array(list(paths), pa.string()))

    def __call__(self, group: pa.Table) -> Any:
        """A Boolean for each row, by its path and ids."""
        mask: Any = chosen_rows(group, self.choice)
        if self.among is not None:
            mask = pc.and_(mask, pc.is_in(group["image_id"], value_set=self.among))
        if self.at is not None:
            mask = pc.and_(mask, pc.is_in(group["path"], value_set=self.at))
        if self.holds is not None:
            mask = pc.and_(mask, pa.array(map(self.holds, group["path"].to_pylist()), pa.bool_()))
        return mask

    def drawn(self, images: Path, selection: Selection) -> RowFilter:
        """What the ``sample`` and ``limit`` of a selection leave of it."""
        groups = read_groups(images, _DECIDING)
        names = (name for group in groups for name in group["image_id"].filter(self(group)).to_pylist())
        return dataclasses.replace(self, among=drawn_ids(names, selection))

    def count(self, images: Path) -> int:
        """How many rows are wanted."""
        if self.among is not None:
            # They were drawn of the wanted ones, and an image has one row.
            return len(self.among)
        return sum(int(pc.sum(self(group)).as_py() or 0) for group in read_groups(images, _DECIDING))


def source_images(images: Path, wanted: Callable[[pa.Table], Any] | None = None) -> Iterator[SourceImage]:
    """The rows of ``images.parquet`` in its order, or those where ``wanted`` says so of their path and ids.

    Raises ``TableError`` when it cannot be read.
    """
    held = TableOnDisk.open(images)
    columns = [name for name in _COLUMNS if name in held.column_names]
    # Of a few wanted ones, groups of rows without any are not read.
    for rows in (held if wanted is None else held.where(_DECIDING, wanted)).groups(columns):
        for batch in rows.to_batches(max_chunksize=_ROWS):
            for row in batch.to_pylist():
                yield _source(row)


def images_by_split(images: Path, wanted: Callable[[pa.Table], Any] | None = None) -> Iterator[SourceImage]:
    """The same rows split by split, each in its order, with what training needs of each as ``row``.

    Splits come in the order of their names, images without one at the end. The labels are those that the manifest's
    label sources know, whether any image has them or not.
    Raises ``TableError`` when it cannot be read.
    """
    footer, names = read_footer(images), read_schema(images).names
    labels = [name for name in names if name.startswith("label_") or name == "dataset"]
    known = ordered({stem for group in read_groups(images, labels) for stem in known_observations(group, footer)})
    kept = [*_ABOUT, *(f"label_{stem}" for stem in known)]
    columns = list(dict.fromkeys([*_COLUMNS, *kept]))
    held = TableOnDisk.open(images)
    table = (held if wanted is None else held.where(_DECIDING, wanted)).select(columns).combine_chunks()
    place = pa.array(range(table.num_rows), pa.int64())
    order = pc.sort_indices(
        pa.table({"split": table.column("split").cast(pa.string()), "place": place}),
        sort_keys=[("split", "ascending"), ("place", "ascending")],
    )
    for start in range(0, len(order), _ROWS):
        for row in table.take(order[start : start + _ROWS]).to_pylist():
            yield dataclasses.replace(_source(row), row={name: row[name] for name in kept})


def ids_of(images: Path, selection: Selection, dataset: str) -> frozenset[str]:
    """The images of ``images.parquet`` in the splits and views and with the labels of ``selection``.

    Raises ``TableError`` when the table cannot be read or does not say it, ``UsageError`` for words that name nothing.
    """
    table = read_rows(images)
    found = table.filter(pc.fill_null(matching(table, selection, dataset=dataset), fill_value=False))
    return frozenset(found.column("image_id").to_pylist())


def _source(row: dict[str, Any]) -> SourceImage:
    boxes, digest = row["boxes"], row["digest"]
    x, y = row["spacing_x_mm"], row["spacing_y_mm"]
    return SourceImage(
        path=str(row["path"]),
        image=ImageId(
            str(row["patient_id"]),
            str(row["study_id"]),
            str(row["image_id"]),
            _VIEWS.get(row["view"]),
        ),
        digest=Digest.parse(digest) if isinstance(digest, str) else None,
        boxes=tuple(Box(**box) for box in boxes) if isinstance(boxes, list) else None,
        spacing_mm=(y, x) if isinstance(x, float) and isinstance(y, float) else None,
    )
