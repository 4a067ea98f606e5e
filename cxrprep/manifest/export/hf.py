"""A folder that ``datasets.load_dataset`` opens: Parquet with the image bytes inside, and a card with its head."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.events import Advanced
from cxrprep.manifest.export.csv import plain
from cxrprep.manifest.export.run import STAGE, ExportResult, card_of
from cxrprep.manifest.export.webdataset import by_split, read_image
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.datasets.catalog import DatasetSpec
    from cxrprep.events import Sink
    from cxrprep.manifest.export.run import Options
    from cxrprep.manifest.export.target import Target
    from cxrprep.manifest.load import Dataset

_ABOUT: Final = (
    "image_id", "patient_id", "study_id", "split", "view", "projection", "sex", "age_years", "width", "height", "boxes",
)  # fmt: skip
# The struct and the metadata by which the package knows an image column.
_IMAGE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_FEATURES: Final = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()
_GROUP: Final = 100
# The package has names of its own for splits; a release's other names stay as they are.
_SPLITS: Final = {"validate": "validation"}


def _table(part: Dataset) -> pa.Table:
    """Labels under their unified names and masks beside them, without the images."""
    table = plain(part.to_arrow().select([*_ABOUT, *(f"label_{stem}" for stem in part.observations)]))
    mask = part.mask()
    for stem in part.observations:
        table = table.append_column(f"mask_{stem}", mask.column(published_name(stem)))
    return table


def _write(temporary: Path, table: pa.Table, paths: list[Path]) -> None:
    schema = pa.schema([pa.field("image", _IMAGE), *table.schema], metadata={b"huggingface": _FEATURES})
    # Image files are compressed already: groups are small, so that a reader holds few of them.
    with pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(paths), _GROUP):
            chosen = paths[start : start + _GROUP]
            images = pa.array([{"bytes": read_image(path), "path": path.name} for path in chosen], _IMAGE)
            rows = table.slice(start, len(chosen)).combine_chunks()
            writer.write_table(pa.Table.from_arrays([images, *rows.columns], schema=schema))


def export(
    dataset: Dataset, spec: DatasetSpec | None, target: Target, options: Options, on_event: Sink
) -> ExportResult:
    """Write ``data/<split>-00000-of-00003.parquet`` and so on, and a ``README.md`` whose head names the splits."""
    head: list[dict[str, Any]] = []
    for name, part in by_split(dataset):
        table, paths = _table(part), list(part.paths())
        shards = -(-len(paths) // options.per_shard)
        shown = _SPLITS.get(name, name)
        for shard in range(shards):
            start = shard * options.per_shard
            end = min(start + options.per_shard, len(paths))
            path = target.out / "data" / f"{shown}-{shard:05d}-of-{shards:05d}.parquet"
            rows, chosen = table.slice(start, end - start), paths[start:end]
            target.write(path, partial(_write, table=rows, paths=chosen))
            on_event(Advanced(STAGE, path.name, items=len(chosen)))
        head.append({"split": shown, "path": f"data/{shown}-*"})
    text = card_of(dataset, spec, options, on_event, front=_front(spec, head))
    target.write(target.card, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return ExportResult("hf", target.out, len(dataset), tuple(target.files))


def _front(spec: DatasetSpec | None, splits: list[dict[str, Any]]) -> str:
    lines = ["configs:", "- config_name: default", "  data_files:"]
    for entry in splits:
        lines += [f"  - split: {entry['split']}", f"    path: {entry['path']}"]
    lines += ["task_categories:", "- image-classification", "tags:", "- chest-x-ray", "- radiology"]
    if spec is not None:
        lines += [
            f"pretty_name: {json.dumps(spec.title)}",
            "license: other",
            f"license_name: {spec.licence.name.lower()}",
        ]
        if spec.licence.url:
            lines.append(f"license_link: {spec.licence.url}")
    return "\n".join(lines) + "\n"
