"""Table checks: images without rows, rows without images, duplicate rows, leakage (patients in two splits)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.model import ImageId
from cxrprep.storage.sorted_tables import PART_ROWS, SortedCursor, SortedTable
from cxrprep.storage.value_codes import flat, shared_patients
from cxrprep.verification.finding import Finding, Kind, make_finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.datasets.layout import Layout
    from cxrprep.storage.patient_table import ByPatient


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


def named_here(disk: SortedTable, labels: ByPatient) -> tuple[list[Finding], int, int]:
    """Images on the disk that no table names, and how many images the tables name that the folder lacks.

    Both lists are gone through side by side in order of their ids, and neither is held.

    Args:
        disk: What is on the disk, as ``NAMES``.
        labels: The rows of the tables.

    Returns:
        The findings, how many images the tables name, and how many of these are on the disk.
    """
    here, named = SortedTable(NAMES, key="image"), SortedTable(NAMES.remove(0), key="image")
    for table in disk.tables():
        here.append(table.drop_null())
    for table in labels.ranges():
        ids = pc.unique(flat(table["image_id"]).drop_null())
        named.append(pa.Table.from_arrays([ids.cast(pa.string())], schema=named.schema))
    walk, foreign, lacking, examples = SortedCursor(here.tables(), NAMES, key="image"), list[str](), 0, list[str]()

    def without_row(rows: pa.Table, known: pa.ChunkedArray) -> list[str]:
        missing: list[str] = rows["path"].filter(pc.invert(pc.is_in(rows["image"], value_set=known))).to_pylist()
        return missing

    for table in named.tables():
        rows = walk.upto(table["image"][-1].as_py())
        foreign += without_row(rows, table["image"])
        absent = table["image"].filter(pc.invert(pc.is_in(table["image"], value_set=rows["image"])))
        lacking += len(absent)
        examples += absent.slice(0, max(0, 3 - len(examples))).to_pylist()
    foreign += without_row(walk.upto(None), pa.chunked_array([[]], pa.string()))
    found = [make_finding(Kind.IMAGE_WITHOUT_ROW, path, "no table here names it") for path in sorted(foreign)]
    if lacking:
        detail = f"{lacking:,} of {named.num_rows:,} images that the tables name are not here, such as "
        found.append(
            make_finding(
                Kind.ROW_WITHOUT_IMAGE,
                "",
                detail + ", ".join(examples),
                expected=named.num_rows,
                found=named.num_rows - lacking,
            )
        )
    return found, named.num_rows, named.num_rows - lacking


def named_paths(labels: pa.Table, layout: Layout, release: str) -> pa.Array:
    """The release paths of all images that the tables name."""
    columns = labels.select(["patient_id", "study_id", "image_id"])
    columns = columns.filter(pc.is_valid(columns["image_id"]))
    paths: dict[str, None] = {}
    for batch in columns.to_batches(max_chunksize=PART_ROWS):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            paths[layout.key(ImageId(*row), release=release)] = None
    return pa.array(paths, pa.string())


def split_of(labels: ByPatient | None) -> dict[str, Any]:
    """The split of every image that the tables name."""
    parts = () if labels is None else labels.values("image_id", "split")
    columns = ((column.to_pylist() for column in part.columns) for part in parts)
    return {image: split for images, splits in columns for image, split in zip(images, splits, strict=True)}
