"""The YAML head of a dataset card: splits, files and feature types, as ``datasets.load_dataset`` reads them.

Without it the package guesses: a file called ``train_val`` becomes train and validation, one called ``validate`` is not
found, and a column that is null in the first samples has no type afterwards
(https://huggingface.co/docs/hub/datasets-file-names-and-splits, https://github.com/huggingface/datasets/issues/7549).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from cxrprep.images.shard_files import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cxrprep.datasets.facts import DatasetSpec

# The package has a name of its own for one split; a release's other names stay as they are.
_SPLITS: Final = {"validate": "validation", "": "unsplit"}
EVERY_SPLIT: Final = "all_splits"
"""What a file is called that holds the rows of all splits: to call it train would mix test images in."""
FILE: Final = pa.struct([pa.field("bytes", pa.large_binary()), pa.field("path", pa.string())])
"""As ``IMAGE``, of a file that the package cannot open as an image."""
TASKS: Final = ("image-classification",)


def split_name(split: str | None) -> str:
    """What Hugging Face calls a split; images without one are ``unsplit``."""
    return _SPLITS.get(split or "", split or "")


@dataclass(frozen=True, slots=True)
class Config:
    """One table or set of shards that can be loaded.

    ``files`` are pairs of split and glob; ``features`` its columns with their Arrow types, an image being ``IMAGE``.
    ``options`` are those of the reader, such as the member of a JSON file that holds the records.
    """

    files: Sequence[tuple[str, str]]
    features: pa.Schema
    name: str = "default"
    options: Mapping[str, str] = field(default_factory=dict)


def front_matter(configs: Sequence[Config], spec: DatasetSpec | None, *, tasks: Iterable[str] = ()) -> str:
    """The head of a card, without its dashes: the first of ``configs`` is loaded when none is named."""
    lines = ["configs:"]
    for config in configs:
        lines += [f"- config_name: {config.name}", "  data_files:"]
        for split, path in config.files:
            lines += [f"  - split: {split}", f"    path: {json.dumps(path)}"]
        lines += [f"  {name}: {value}" for name, value in config.options.items()]
        if config is configs[0]:
            lines.append("  default: true")
    lines.append("dataset_info:")
    for config in configs:
        lines += [f"- config_name: {config.name}", "  features:"]
        lines += [f"  {line}" for each in config.features for line in _feature(each.name, each.type)]
    named = [*tasks]
    if named:
        lines += ["task_categories:", *(f"- {task}" for task in named)]
    lines += ["tags:", "- chest-x-ray", "- radiology", *_terms(spec)]
    return "\n".join(lines) + "\n"


def _terms(spec: DatasetSpec | None) -> list[str]:
    if spec is None:
        return []
    lines = [
        f"pretty_name: {json.dumps(spec.title)}",
        "license: other",
        f"license_name: {json.dumps(spec.licence.name.lower())}",
    ]
    return [*lines, f"license_link: {spec.licence.url}"] if spec.licence.url else lines


def _feature(name: str, kind: pa.DataType) -> list[str]:
    """One feature, in the form of the package's own ``Features._to_yaml_list``."""
    return [f"- name: {json.dumps(name)}", *(f"  {line}" for line in _type(kind))]


def _type(kind: pa.DataType) -> list[str]:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind == IMAGE:
        return ["dtype: image"]
    if pa.types.is_list(kind):
        inner = _type(kind.value_type)
        plain = inner[0].partition("dtype: ")[2]
        if plain:
            return [f"list: {plain}"]
        return ["list:", *(f"  {line}" for line in inner)] if inner[0].startswith("list:") else ["list:", *inner[1:]]
    if pa.types.is_struct(kind):
        return ["struct:", *(line for member in kind for line in _feature(member.name, member.type))]
    # float and double are what Arrow calls float32 and float64.
    return [f"dtype: {re.sub('^float$', 'float32', re.sub('^double$', 'float64', str(kind)))}"]


def webdataset_features(suffix: str, row: pa.Schema) -> pa.Schema:
    """The columns that the package makes of tar shards: the image, the JSON object, key and shard of a sample."""
    ending = suffix.removeprefix(".")
    image = IMAGE if ending in ("png", "jpg", "jpeg") else pa.binary()
    members = pa.struct(list(row))
    return pa.schema([(ending, image), ("json", members), ("__key__", pa.string()), ("__url__", pa.string())])
