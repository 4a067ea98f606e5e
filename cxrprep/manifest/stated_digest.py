"""The digest of a training set by what its image table states, without opening an image: see ``set_digest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import UsageError
from cxrprep.labels.policy import KEEP
from cxrprep.labels.source_vocabulary import known_observations
from cxrprep.manifest.set_digest import Leaves
from cxrprep.storage.parquet import SET_DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
    """The same of a table that comes in parts, in any order, none of which is held; ``made_from`` is its footer.

    ``stems`` are the observations that the label sources of the whole know.
    """
    leaves = Leaves()
    for images in tables:
        pixels = _pixels(images, made_from)
        if pixels is None:
            return None
        leaves.add(images, images.select([f"label_{stem}" for stem in stems]), pixels)
    try:
        found = leaves.digest(stems, made_from, KEEP)
    except UsageError:
        return None
    return found.value if found.head["splits"] else None


def _pixels(images: pa.Table, made_from: Mapping[str, Any]) -> pa.ChunkedArray | None:
    """What each image shows: of a release's own files their SHA-256."""
    name = "pixels" if "recipe" in made_from else "digest"
    if name not in images.column_names or images.column(name).null_count:
        return None
    column = images.column(name)
    if name == "digest" and not pc.all(pc.starts_with(column, "sha256:")).as_py():
        return None
    return column
