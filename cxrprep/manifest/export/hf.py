"""A folder that ``datasets.load_dataset`` opens: Parquet with the image bytes inside, and a card with its head."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.images.shard_files import IMAGE, IMAGE_METADATA, ROWS_A_GROUP
from cxrprep.manifest.export.csv import plain
from cxrprep.manifest.export.run import (
    ExportFile,
    ExportResult,
    ExportTask,
    images_of,
    made_of,
    write_cards,
    write_shards,
)
from cxrprep.manifest.export.webdataset import PICTURES, by_split, member_suffix
from cxrprep.manifest.hugging_face_card import FILE, TASKS, Config, front_matter, split_name
from cxrprep.manifest.image_reader import ImageReader
from cxrprep.manifest.region_masks import region_lists
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cxrprep.manifest.load import Dataset

_ABOUT: Final = (
    "image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years", "width", "height", "boxes",
)  # fmt: skip


def _table(part: Dataset) -> pa.Table:
    """Labels under their unified names and masks beside them, without the images."""
    labels = (f"label_{stem}" for stem in part.observations)
    table = plain(part.to_arrow().select([*_ABOUT, *part.split_columns, *labels]))
    if part.masks:
        table = table.append_column("regions", region_lists(part.masks, part.stated))
    mask = part.mask()
    for stem in part.observations:
        table = table.append_column(f"mask_{stem}", mask.column(published_name(stem)))
    sections = part.report_sections()
    for name in part.texts:
        table = table.append_column(name, sections.column(name))
    return table


def _write(
    temporary: Path, table: pa.Table, images: list[tuple[str, str | None]], reader: ImageReader, kind: pa.DataType
) -> None:
    about = {b"huggingface": IMAGE_METADATA} if kind == IMAGE else None
    schema = pa.schema([pa.field("image", kind), *table.schema], metadata=about)
    with pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(images), ROWS_A_GROUP):
            chosen = images[start : start + ROWS_A_GROUP]
            read = [{"bytes": reader.read_recorded(*image), "path": PurePosixPath(image[0]).name} for image in chosen]
            rows = table.slice(start, len(chosen)).combine_chunks()
            writer.write_table(pa.Table.from_arrays([pa.array(read, kind), *rows.columns], schema=schema))


def _shards(task: ExportTask, parts: list[tuple[str, Dataset]], write: Callable[..., object]) -> Iterator[ExportFile]:
    each = task.options.per_shard
    for name, part in parts:
        count = -(-len(part) // each)
        for number in range(count):
            some = part.rows(number * each, each)
            chosen = list(zip(*(some.stated.column(one).to_pylist() for one in ("path", "digest")), strict=True))
            # Taken and not sliced: what goes to a worker is these rows alone.
            rows = _table(some).take(pa.array(range(len(chosen)), pa.int64()))
            path = task.target.out / "data" / f"{split_name(name)}-{number:05d}-of-{count:05d}.parquet"
            of = made_of(rows.to_pylist(), task.dataset.root, (path for path, _ in chosen))
            yield ExportFile(path, partial(write, table=rows, images=chosen), of, len(chosen))


def export(task: ExportTask) -> ExportResult:
    """Write ``data/<split>-00000-of-00003.parquet`` and so on, and a ``README.md`` whose head names the splits.

    Raises ``ImageError``: an image is gone; ``StorageError``: the disk refuses.
    """
    # DICOM files are no images to the package: their bytes come as they are.
    kind = IMAGE if member_suffix(task) in PICTURES else FILE
    features = pa.schema([("image", kind), *_table(task.dataset.rows(0, 0)).schema])
    parts = by_split(task.dataset)
    with ImageReader(images_of(task)) as reader:
        write_shards(task, _shards(task, parts, partial(_write, reader=reader, kind=kind)))
    files = [(split_name(name), f"data/{split_name(name)}-*") for name, _ in parts]
    front = front_matter([Config(files, features)], task.spec, tasks=TASKS)
    write_cards(task, front, ["data/*.parquet"], features)
    return ExportResult("hf", task.target.out, len(task.dataset), tuple(task.target.files))
