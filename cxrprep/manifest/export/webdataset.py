"""WebDataset: tar shards by split, the members of a sample side by side.

A sample's key is its image id with ``__`` for ``/``; nothing in it has a dot, since the format ends the key there.
Members are the image file as it is, and a JSON object with ids, labels and masks.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import partial
from typing import TYPE_CHECKING, Any

from cxrprep.errors import ImageError
from cxrprep.events import Advanced
from cxrprep.manifest.export.run import STAGE, ExportResult, card_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cxrprep.datasets.catalog import DatasetSpec
    from cxrprep.events import Sink
    from cxrprep.manifest.export.run import Options
    from cxrprep.manifest.export.target import Target
    from cxrprep.manifest.load import Dataset

_ABOUT = ("image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years", "boxes")


def samples(dataset: Dataset) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each image file with its JSON object."""
    about = dataset.stated.select(list(_ABOUT)).to_pylist()
    labels, masks = dataset.labels().to_pylist(), dataset.mask().to_pylist()
    for path, row, label, mask in zip(dataset.paths(), about, labels, masks, strict=True):
        yield path, {**row, "labels": label, "mask": mask}


def by_split(dataset: Dataset) -> list[tuple[str, Dataset]]:
    """The splits with their images; those without a split are called ``unsplit``."""
    import pyarrow.compute as pc

    parts = [(name, dataset.split(name)) for name in dataset.splits]
    rest = dataset.filter(pc.is_null(dataset.stated.column("split")))
    return [*parts, *([("unsplit", rest)] if len(rest) else [])]


def read_image(path: Path) -> bytes:
    """The bytes of an image file. Raises ``ImageError`` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read {path}: {error.strerror}", hint="cxrprep verify ROOT lists what is missing"
        ) from error


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def _write(part: Path, batch: list[tuple[Path, dict[str, Any]]]) -> None:
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path, row in batch:
            key = str(row["image_id"]).replace("/", "__").replace(".", "_")
            _add(archive, f"{key}{path.suffix.lower()}", read_image(path))
            _add(archive, f"{key}.json", json.dumps(row, ensure_ascii=False, sort_keys=True).encode())


def export(
    dataset: Dataset, spec: DatasetSpec | None, target: Target, options: Options, on_event: Sink
) -> ExportResult:
    """Write ``<dataset>-<split>-000000.tar`` and so on, and ``README.md``."""
    for name, part in by_split(dataset):
        batch: list[tuple[Path, dict[str, Any]]] = []
        shards = 0
        last = len(part) - 1
        for index, sample in enumerate(samples(part)):
            batch.append(sample)
            if len(batch) == options.per_shard or index == last:
                path = target.out / f"{dataset.name or 'images'}-{name}-{shards:06d}.tar"
                target.write(path, partial(_write, batch=batch))
                on_event(Advanced(STAGE, path.name, items=len(batch)))
                shards, batch = shards + 1, []
    text = card_of(dataset, spec, options, on_event)
    target.write(target.card, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return ExportResult("webdataset", target.out, len(dataset), tuple(target.files))
