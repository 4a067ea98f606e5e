"""The dataset card: what it is, under which terms, how many of what, and how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.collection.lineage import CARD_NAME
from cxrprep.datasets.catalog import catalog
from cxrprep.images.shard_files import IMAGE, plain_schema, row_schema
from cxrprep.labels.source_vocabulary import known_observations
from cxrprep.manifest.hugging_face_card import EVERY_SPLIT, TASKS, Config, front_matter, split_name, webdataset_features
from cxrprep.manifest.label_statistics import Prevalence, SplitRow, labels_by_split
from cxrprep.manifest.load import Dataset
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.parquet import SET_DIGEST, read_combined, read_footer, read_rows, read_schema
from cxrprep.vocabulary import VOCABULARIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_COUNTED: Final = ("split", "study_id", "patient_id")
_TABLES: Final = ("images", "studies", "labels", "report_labels", "mentions", "pairs")
_DIGEST: Final = (
    "images by their pixels, labels after the policy, splits and boxes, whatever paths and files they lie in. "
    "`cxrprep prove DIGEST FOLDER` checks a copy."
)
_FILES: Final = """
## How to open it

`cxrprep.load(FOLDER)` gives the images with their labels in Python; `load_dataset(FOLDER)` the table of them;
`path` is relative to this folder. For a folder that holds the images as columns: `cxrprep export FOLDER --format hf`.
"""
# Mean, standard deviation, and the number of images that they are of.
Moments = tuple[float, float, int]


def write_card(
    dataset: Dataset, *, moments: dict[str, Moments] | None = None, front: str = "", digest: str = ""
) -> str:
    """The card of a data set in Markdown. No times: the same manifest, the same card.

    Args:
        dataset: The images.
        moments: Mean and standard deviation of the pixels by split.
        front: YAML for its head (``load_dataset`` reads some there).
        digest: Names the set (``cxrprep digest``).

    Returns:
        The text.
    """
    parts, spec = [f"---\n{front}---\n"] if front else [], catalog().get(dataset.name)
    title = spec.title if spec is not None else "Images without a catalog entry"
    parts.append(f"# {title}\n")
    if spec is not None:
        parts.append(f"{spec.summary}\n")
        parts.append(
            f"Release {dataset.made_from.get('release', '')}, {len(dataset):,} images here. <{spec.homepage}>\n"
        )
    stated = dataset.stated
    counted = [name for name in stated.column_names if name.startswith("label_") or name in ("dataset", *_COUNTED)]
    splits = labels_by_split(dataset.policy.apply(stated.select(counted)), dataset.observations)
    parts.append(_counts([row for row, _ in splits], moments or {}))
    parts += [_labels(row[0], labels) for row, labels in splits if labels]
    if spec is not None and spec.vocabulary in VOCABULARIES:
        parts.append(f"**No Finding** in this release: {VOCABULARIES[spec.vocabulary].no_finding}\n")
    if digest:
        parts.append(f"## Digest\n\n`{digest}` names this training set: {_DIGEST}\n")
    if dataset.texts:
        parts.append(
            f"## Report text\n\nSections: {', '.join(dataset.texts)}. They are under the terms of the images, below.\n"
        )
    parts.append(_making(dataset))
    if spec is not None:
        terms = f"{spec.licence.name}" + (f", <{spec.licence.url}>" if spec.licence.url else "")
        parts.append(f"## Licence\n\n{terms}\n\n{spec.licence.agreement}\n")
        parts.append(f"## Citation\n\n{spec.citation}\n\n```bibtex\n{spec.bibtex.strip()}\n```\n")
    return "\n".join(parts)


def write_card_beside(path: Path) -> None:
    """Write the card of the manifest at ``path`` as ``README.md`` beside it; the pixels are not looked at.

    Its head names each table that lies there, so that ``load_dataset`` opens the folder: images by default, the others
    by name. Raises ``StorageError`` when the disk refuses.
    """
    tables = [path.with_name(f"{name}.parquet") for name in _TABLES]
    configs = [
        Config([(EVERY_SPLIT, table.name)], read_schema(table), table.stem) for table in tables if table.is_file()
    ]
    dataset = _counted(path)
    front, digest = front_matter(configs, catalog().get(dataset.name)), dataset.made_from.get(SET_DIGEST, "")
    text = write_card(dataset, front=front, digest=digest)
    replace_file(path.parent / CARD_NAME, lambda part: part.write_text(text, encoding="utf-8"))


def _counted(path: Path) -> Dataset:
    """The manifest at ``path`` with the columns that a card counts."""
    table = read_combined(path, [*_COUNTED, *(n for n in read_schema(path).names if n.startswith("label_"))])
    made_from = read_footer(path)
    known = known_observations(table, made_from)
    return Dataset(path.parent.parent, table, observations=known, made_from=made_from)


def card_of_outputs(path: Path, form: str, stated: Sequence[str], suffix: str) -> str:
    """The card of a folder of converted images, for the folder itself.

    Args:
        path: Its manifest.
        form: ``files``, ``webdataset`` or ``parquet``.
        stated: The columns that shards take from the manifest.
        suffix: Of the images.

    Returns:
        The text.
    """
    dataset = _counted(path)
    spec = catalog().get(dataset.name)
    digest = dataset.made_from.get(SET_DIGEST, "")
    if form == "files":
        config = Config([(EVERY_SPLIT, f"manifests/{path.name}")], read_schema(path))
        return write_card(dataset, front=front_matter([config], spec, tasks=TASKS), digest=digest) + _FILES
    row = row_schema(stated)
    if form == "webdataset":
        features = webdataset_features(suffix, plain_schema(row))
    else:
        features = pa.schema([("image", IMAGE), *row])
    shards = _shards(read_rows(path, columns=["path", "split"]), known=spec is not None)
    return write_card(dataset, front=front_matter([Config(shards, features)], spec, tasks=TASKS), digest=digest)


def _shards(table: pa.Table, *, known: bool) -> list[tuple[str, str]]:
    """The splits of shards with the globs of their files; a plain folder has one, which is all for training."""
    shards = pc.replace_substring_regex(table.column("path"), r"-\d+(-of-\d+)?\.(tar|parquet)/[^/]*$", r"-*.\2")
    pairs = pa.table({"shards": shards, "split": table.column("split").cast(pa.string())})
    rows = pairs.group_by(["shards", "split"]).aggregate([]).to_pylist()
    named = [(split_name(row["split"]) if known or row["split"] else "train", row["shards"]) for row in rows]
    return sorted(named)


def _counts(splits: list[SplitRow], moments: dict[str, Moments]) -> str:
    header, rule = "| split | images | studies | patients |", "|---|---|---|---|"
    if moments:
        header, rule = f"{header} mean | standard deviation |", f"{rule}---|---|"
    lines = ["## Splits\n", header, rule]
    for split, images, studies, patients in splits:
        line = f"| {split or 'none'} | {images:,} | {studies:,} | {patients:,} |"
        if moments:
            found = moments.get(split or "")
            line += f" {found[0]:.4f} | {found[1]:.4f} |" if found else " - | - |"
        lines.append(line)
    if moments:
        read = ", ".join(f"{name or 'none'} {found[2]:,}" for name, found in sorted(moments.items()))
        lines.append(f"\nMean and standard deviation of pixel values from 0 to 1, over images drawn by a hash: {read}.")
    else:
        lines.append("\nMean and standard deviation of the pixels stand in the card of an export.")
    return "\n".join(lines) + "\n"


def _labels(split: str | None, labels: list[Prevalence]) -> str:
    lines = [
        f"### Labels of {split or 'images without a split'}\n",
        "| observation | positive (1) | negative (0) | uncertain (-1) | null | positive weight |",
        "|---|---|---|---|---|---|",
    ]
    for label in labels:
        weight = "-" if label.positive_weight is None else f"{label.positive_weight:.3f}"
        counts = f"{label.positive:,} | {label.negative:,} | {label.uncertain:,} | {label.blank:,}"
        lines.append(f"| {label.name} | {counts} | {weight} |")
    lines.append("\nPositive weight: negatives over positives.")
    return "\n".join(lines) + "\n"


def _making(dataset: Dataset) -> str:
    made: dict[str, Any] = dataset.made_from
    lines = ["## How it was made\n", f"- tool: {made.get('tool', '')}"]
    if made.get("label_source"):
        lines.append(f"- label source: {made['label_source']}")
    lines += [f"- table: {table['name']}, {table['digest']}" for table in made.get("tables") or []]
    if made.get("files"):
        lines.append(f"- files: {made['files']}")
    if made.get("recipe"):
        lines.append(f"- recipe: {made['recipe']}, fingerprint {made['fingerprint']}")
    if made.get("split"):
        lines.append(f"- split: {made['split']}")
    policy = made.get("policy") or dataset.policy.describe()
    lines.append(f"- uncertain labels: {policy['uncertain']}; blanks: {policy['blank']}; derived: {policy['derive']}")
    lines += [f"- {name}: uncertain {p['uncertain']}, blanks {p['blank']}" for name, p in policy["per"].items()]
    return "\n".join(lines) + "\n"
