"""The digest of a training set by what its image table states, without opening an image: see ``set_digest``.

Leaves are spelled and hashed column by column: 1.6 s for 377,110 images on one core.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.labels.policy import KEEP
from cxrprep.labels.source_vocabulary import known_observations
from cxrprep.manifest.set_digest import LEAVES, canonical, digest_of_head, head_of, roots_of, spelled_boxes
from cxrprep.storage.parquet import SET_DIGEST
from cxrprep.storage.sorted_tables import SortedTable
from cxrprep.vocabulary import published_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_ROWS: Final = 8192
_ESCAPED: Final = r"[\x00-\x1f\"\\]"


def with_digest(images: pa.Table, made_from: Mapping[str, Any]) -> dict[str, Any]:
    """``made_from`` for the footer of ``images``, with the digest of the set where the table states all of it."""
    plain = {name: value for name, value in made_from.items() if name != SET_DIGEST}
    digest = stated_digest(images, plain)
    return {**plain, SET_DIGEST: digest} if digest else plain


def stated_digest(images: pa.Table, made_from: Mapping[str, Any]) -> str | None:
    """The 64 digits of a table's images as ``set_digest`` gives them without an option.

    ``None`` where the table has none, does not state what each of them shows, or names two of one split alike.
    """
    return digest_of_parts([images], known_observations(images, dict(made_from)), made_from)


def digest_of_parts(tables: Iterable[pa.Table], stems: Sequence[str], made_from: Mapping[str, Any]) -> str | None:
    """The same of a table that comes in parts, none of which is held.

    Args:
        tables: The parts, in any order.
        stems: The observations that the label sources of the whole know.
        made_from: The footer.

    Returns:
        The digits, or ``None`` as above.
    """
    leaves = SortedTable.of(LEAVES, "key")
    for images in tables:
        pixels = _pixels(images, made_from)
        if pixels is None:
            return None
        split = pc.fill_null(images.column("split").cast(pa.string()), "")
        key = pc.binary_join_element_wise(split, images.column("dataset").cast(pa.string()), images["image_id"], "\0")
        leaves.append(pa.table({"key": key, "leaf": pa.array(_leaves(images, stems, pixels), pa.binary())}))
    try:
        roots = roots_of(leaves.rows())
    except UsageError:
        return None
    described = made_from.get("policy") or KEEP.describe()
    source = str(made_from.get("label_source") or "")
    head = head_of([published_name(stem) for stem in stems], described, source, roots)
    return digest_of_head(head) if roots else None


def _leaves(images: pa.Table, stems: Sequence[str], pixels: pa.ChunkedArray) -> Iterator[bytes]:
    """The hash of each image, in order."""
    labels = [images.column(f"label_{stem}") for stem in stems]
    boxes = images.column("boxes") if "boxes" in images.column_names else pa.nulls(images.num_rows)
    dataset = images.column("dataset").cast(pa.string())
    names = ["dataset", "id", "boxes", "pixels", *(f"label {number}" for number in range(len(labels)))]
    held = pa.table([dataset, images.column("image_id"), boxes, pixels, *labels], names)
    return (digest for start in range(0, len(held), _ROWS) for digest in _hashes(held.slice(start, _ROWS)))


def _pixels(images: pa.Table, made_from: Mapping[str, Any]) -> pa.ChunkedArray | None:
    """What each image shows: of a release's own files their SHA-256."""
    name = "pixels" if "recipe" in made_from else "digest"
    if name not in images.column_names or images.column(name).null_count:
        return None
    column = images.column(name)
    if name == "digest" and not pc.all(pc.starts_with(column, "sha256:")).as_py():
        return None
    return column


def _hashes(rows: pa.Table) -> Iterator[bytes]:
    """The hashes of the leaves of some rows."""
    cells = [column.cast(pa.string()) for column in rows.columns[4:]]
    labels: Any = pa.array([""]).take(pa.array([0] * len(rows)))
    if cells:
        labels = pc.binary_join_element_wise(*cells, ",", null_handling="replace", null_replacement="null")
    boxes = rows.column("boxes")
    drawn = (
        pa.array(["null"]).take(pa.array([0] * len(rows)))
        if boxes.null_count == len(rows)
        else pa.array([canonical(spelled_boxes(each)).decode() for each in boxes.to_pylist()], pa.string())
    )
    texts = pc.binary_join_element_wise(
        '\0{"boxes":', drawn, ',"dataset":', _quoted(rows.column("dataset")), ',"id":', _quoted(rows.column("id")),
        ',"labels":[', labels, '],"pixels":', _quoted(rows.column("pixels")), "}", "",
    )  # fmt: skip
    return (hashlib.sha256(text).digest() for text in texts.cast(pa.binary()).to_pylist())


def _quoted(words: pa.ChunkedArray) -> Any:
    """Words as JSON has them."""
    if pc.any(pc.match_substring_regex(words, _ESCAPED)).as_py():
        return pa.array([canonical(word).decode() for word in words.to_pylist()], pa.string())
    return pc.binary_join_element_wise('"', words, '"', "")
