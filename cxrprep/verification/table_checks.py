"""Table checks: images without rows, rows without images, duplicate rows, leakage (patients in two splits)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.model import ImageId
from cxrprep.storage.sorted_tables import PART_ROWS
from cxrprep.verification.finding import Finding, Kind, make_finding
from cxrprep.verification.measures import shared_patients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.datasets.layout import Layout


NAMES: Final = pa.schema([("path", pa.string()), ("image", pa.string())])


def names(disk: pa.Table, layout: Layout) -> pa.Table:
    """The paths on the disk, and the image's id of each that is an image of the release, else null (``NAMES``)."""
    found = [layout.parse(path) for path in disk["path"].to_pylist()]
    images = pa.array([one and one.image for one in found], pa.string())
    return pa.Table.from_arrays([disk["path"], images], schema=NAMES)


def leakage(labels: pa.Table) -> Iterator[Finding]:
    """Patients that stand in more than one split."""
    for patient, splits in shared_patients(labels):
        yield make_finding(
            Kind.LEAKAGE,
            "",
            f"patient {patient} stands in {' and '.join(splits)}",
            expected="one split",
            found=", ".join(splits),
        )


def duplicate_rows(labels: pa.Table) -> Iterator[Finding]:
    """Images that one table names more than once, but for the readers and majorities that it gives a row each."""
    found: list[tuple[str, str, int]] = []
    tables, sources, images = labels["table_name"], labels["label_source"], labels["image_id"]
    # One table at a time: counting all of them at once takes room for the names of all.
    for name in filter(None, pc.unique(tables).to_pylist()):
        of_table = pc.fill_null(pc.equal(tables, name), fill_value=False)
        for source in pc.unique(sources.filter(of_table)).to_pylist():
            of_source = pc.is_null(sources) if source is None else pc.equal(sources, source)
            named = images.filter(pc.and_kleene(of_table, of_source)).drop_null()
            if pc.count_distinct(named).as_py() == len(named):
                continue
            counted = pc.value_counts(named)
            several = counted.filter(pc.greater(counted.field("counts"), 1))
            found += [(one["values"], name, one["counts"]) for one in several.to_pylist()]
    for image, name, count in sorted(found):
        yield make_finding(Kind.DUPLICATE_ROWS, name, f"{image} has {count} rows", expected=1, found=count)


def without_row(paths: pa.ChunkedArray, ids: pa.ChunkedArray, known: pa.Array) -> Iterator[Finding]:
    """Images on the disk that are none of ``known``, which the tables name."""
    for path in paths.filter(pc.invert(pc.is_in(ids, value_set=known))).to_pylist():
        yield make_finding(Kind.IMAGE_WITHOUT_ROW, path, "no table here names it")


def without_image(ids: pa.ChunkedArray, named: pa.Array) -> Iterator[Finding]:
    """One finding that says how many images the tables name and the folder lacks; none when it lacks none."""
    lacking = named.filter(pc.invert(pc.is_in(named, value_set=ids)))
    if len(lacking):
        examples = ", ".join(lacking.slice(0, 3).to_pylist())
        yield make_finding(
            Kind.ROW_WITHOUT_IMAGE,
            "",
            f"{len(lacking):,} of {len(named):,} images that the tables name are not here, such as {examples}",
            expected=len(named),
            found=len(named) - len(lacking),
        )


def named_paths(labels: pa.Table, layout: Layout, release: str) -> pa.Array:
    """The release paths of all images that the tables name."""
    columns = labels.select(["patient_id", "study_id", "image_id"])
    columns = columns.filter(pc.is_valid(columns["image_id"]))
    paths: dict[str, None] = {}
    for batch in columns.to_batches(max_chunksize=PART_ROWS):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            paths[layout.key(ImageId(*row), release=release)] = None
    return pa.array(paths, pa.string())


def split_of(labels: pa.Table | None) -> dict[str, Any]:
    """The split of every image that the tables name."""
    if labels is None:
        return {}
    images = labels["image_id"].to_pylist()
    return dict(zip(images, labels["split"].to_pylist(), strict=True))
