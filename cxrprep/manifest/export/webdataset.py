"""WebDataset: tar shards by split, the members of a sample side by side.

A sample's key is its image id with ``__`` for ``/``; nothing in it has a dot, since the format ends the key there.
Members are the image file as it is, and a JSON object with ids, labels and masks; nothing in it is null.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.images.shard_files import add_member, plain_row, plain_schema
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
from cxrprep.manifest.hugging_face_card import TASKS, Config, front_matter, split_name, webdataset_features
from cxrprep.manifest.image_reader import ImageReader
from cxrprep.manifest.region_masks import REGION, region_lists
from cxrprep.storage.parquet import read_groups
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cxrprep.manifest.load import Dataset

_BLANK: Final[dict[str, Any]] = {"score": -1.0, "height": -1, "width": -1, "polygons": []}
_ABOUT = ("image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years", "boxes")


def samples(dataset: Dataset) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Each image's path, digest and JSON object: no nulls, but numbers and the masks that say which of them count."""
    return itertools.chain.from_iterable(map(_samples, dataset.parts()))


def _samples(dataset: Dataset) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    about = plain(dataset.stated.select([*_ABOUT, *dataset.split_columns])).to_pylist()
    if dataset.texts:
        sections = dataset.report_sections().to_pylist()
        about = [row | {n: text or "" for n, text in said.items()} for row, said in zip(about, sections, strict=True)]
    if dataset.masks:
        drawn = region_lists(dataset.masks, dataset.stated).to_pylist()
        about = [
            row | {"regions": [_plain(one) for one in on_it or ()]} for row, on_it in zip(about, drawn, strict=True)
        ]
    labels, masks = dataset.labels().to_pylist(), dataset.mask().to_pylist()
    paths, digests = (dataset.stated.column(name).to_pylist() for name in ("path", "digest"))
    for path, digest, row, label, mask in zip(paths, digests, about, labels, masks, strict=True):
        numbers = {name: 0 if value is None else value for name, value in label.items()}
        yield path, digest, {**plain_row(row), "labels": numbers, "mask": mask}


def _plain(region: dict[str, Any]) -> dict[str, Any]:
    """What is known of a region without nulls: empty for text and rings, -1 for a number that nobody states."""
    return {name: _BLANK.get(name, "") if value is None else value for name, value in region.items()}


def _features(dataset: Dataset) -> pa.Schema:
    """The types of a sample's JSON object."""
    about = plain_schema(plain(dataset.rows(0, 0).stated.select([*_ABOUT, *dataset.split_columns])).schema)
    names = [published_name(stem) for stem in dataset.observations]
    numbers = pa.struct([(name, pa.int8()) for name in names])
    texts = [(name, pa.large_string()) for name in dataset.texts]
    drawn = [("regions", pa.list_(REGION))] if dataset.masks else []
    return pa.schema([*about, *texts, *drawn, *([("labels", numbers), ("mask", numbers)] if names else [])])


def by_split(dataset: Dataset) -> list[tuple[str, Dataset]]:
    """The splits with their images; those without a split are called ``unsplit``."""
    parts = [(name, dataset.split(name)) for name in dataset.splits]
    rest = dataset.filter(pc.is_null(dataset.stated.column("split")))
    return [*parts, *([("unsplit", rest)] if len(rest) else [])]


def member_suffix(task: ExportTask) -> str:
    """How image members end: readers take it for the name of a column, which has to be one for all samples.

    Of several formats, here or among the images that were left out, it is ``.jpg`` where readers go by the bytes
    anyway, and else ``.bin``.
    """
    whole, found = task.options.manifest, set[str]()
    for rows in (task.dataset.stated,) if whole is None else read_groups(whole, ["path"]):
        endings = pc.struct_field(pc.extract_regex(rows.column("path"), r"(?P<s>\.[^./]*)$"), "s")
        found |= {(ending or ".dcm").lower() for ending in pc.unique(endings).to_pylist()}
    if len(found) == 1:
        return found.pop()
    if found <= _DICOM:
        return ".dcm"
    return ".jpg" if found <= PICTURES else ".bin"


_DICOM: Final = frozenset({".dcm", ".dicom"})
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})


def _write(part: Path, batch: list[tuple[str, str | None, dict[str, Any]]], reader: ImageReader, suffix: str) -> None:
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path, digest, row in batch:
            key = str(row["image_id"]).replace("/", "__").replace(".", "_")
            add_member(archive, f"{key}{suffix}", reader.read_recorded(path, digest))
            add_member(archive, f"{key}.json", json.dumps(row, ensure_ascii=False, sort_keys=True).encode())


def _shards(
    task: ExportTask, parts: list[tuple[str, Dataset]], prefix: str, write: Callable[..., object], suffix: str
) -> Iterator[ExportFile]:
    for name, part in parts:
        rest = samples(part)
        for number in itertools.count():
            batch = list(itertools.islice(rest, task.options.per_shard))
            if not batch:
                break
            path = task.target.out / f"{prefix}-{name}-{number:06d}.tar"
            of = made_of([suffix, batch], task.dataset.root, (image for image, *_ in batch))
            yield ExportFile(path, partial(write, batch=batch), of, len(batch))


def export(task: ExportTask) -> ExportResult:
    """Write ``<dataset>-<split>-000000.tar`` and so on, and a ``README.md`` whose head names splits and types.

    Raises ``ImageError``: an image is gone; ``StorageError``: the disk refuses.
    """
    prefix = task.dataset.name or "images"
    suffix = member_suffix(task)
    parts = by_split(task.dataset)
    with ImageReader(images_of(task)) as reader:
        write_shards(task, _shards(task, parts, prefix, partial(_write, reader=reader, suffix=suffix), suffix))
    files = [(split_name(name), f"{prefix}-{name}-*.tar") for name, _ in parts]
    config = Config(files, webdataset_features(suffix, _features(task.dataset)))
    write_cards(task, front_matter([config], task.spec, tasks=TASKS), [f"{prefix}-*.tar"], config.features)
    return ExportResult("webdataset", task.target.out, len(task.dataset), tuple(task.target.files))
