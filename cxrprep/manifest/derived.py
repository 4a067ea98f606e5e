"""The manifest of converted images: the dataset's own rows, with what the conversion changed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.datasets.spec import catalog
from cxrprep.errors import TableError
from cxrprep.events import Note, ignore
from cxrprep.labels.values import categories, constant, positions
from cxrprep.manifest.build import IMAGES_NAME
from cxrprep.manifest.croissant import write_croissant
from cxrprep.schemas import BOX, DERIVED, IMAGES, null_columns, read_footer, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cxrprep.events import Sink
    from cxrprep.model import Box

_CHANGED: Final = ("path", "bytes", "digest", "width", "height", "source_mode", "spacing_x_mm", "spacing_y_mm", "boxes")


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """One converted image: ``source_path`` in the dataset, ``path`` under the derived folder.

    ``boxes`` are in its own pixels, already transformed; ``None`` where nobody drew any. ``spacing_mm`` is (x, y).
    """

    source_path: str
    source_digest: str | None
    path: str
    size: int
    digest: str
    width: int
    height: int
    mode: str
    spacing_mm: tuple[float, float] | None = None
    boxes: Sequence[Box] | None = None


@dataclass(frozen=True, slots=True)
class DerivedResult:
    """What ``build_derived_manifest`` wrote; ``without_row`` images are not in the dataset's manifest."""

    path: Path
    images: int
    without_row: int


def build_derived_manifest(
    converted: Iterable[ConvertedImage],
    *,
    base: Path | None,
    out: Path,
    recipe: str,
    fingerprint: str,
    on_event: Sink = ignore,
) -> DerivedResult:
    """What was written to ``images.parquet`` in ``out`` (``derived/RECIPE/manifests``), in the order of ``base``.

    ``base`` is the dataset's ``images.parquet``; ``None`` for a plain folder of images, whose rows then say only what
    the conversion knows. Images that ``base`` does not list are written too, and counted. Raises ``TableError`` for a
    damaged base and for two outputs of one path, ``StorageError`` when the disk refuses.
    """
    rows = sorted(converted, key=lambda image: image.path)
    twice = next((a.path for a, b in itertools.pairwise(rows) if a.path == b.path), None)
    if twice is not None:
        raise TableError(f"two converted images are called {twice}", hint="convert into an empty folder")
    sources = pa.array([row.source_path for row in rows], pa.string())
    origin: dict[str, Any] = {"recipe": recipe, "fingerprint": fingerprint}
    columns: dict[str, Any] = {}
    without = len(rows)
    if base is not None:
        origin = {**_of_base(read_footer(base)), **origin}
        table = pq.read_table(base).combine_chunks()
        place = positions(sources, table.column("path"))
        without = place.null_count
        columns = {
            name: table.column(name).combine_chunks().take(place) for name in IMAGES.names if name not in _CHANGED
        }
        if without:
            first = sources.filter(pc.is_null(place))[0]
            message = f"{without:,} converted images are not in the dataset's manifest; the first: {first}"
            on_event(Note("convert", message, "warning", str(out / IMAGES_NAME)))
    columns |= _own(rows)
    columns |= {"recipe": constant(recipe, len(rows)), "recipe_fingerprint": constant(fingerprint, len(rows))}
    for name in ("image_id", "patient_id", "study_id"):
        # A file without a row has no identity but its path; a made-up patient would be worse.
        columns[name] = pc.coalesce(columns[name], sources) if name in columns else sources
    dataset = origin.get("dataset") or "folder"
    release = origin.get("release") or ""
    for name, word in (("dataset", dataset), ("release", release)):
        columns[name] = constant(word, len(rows))
    derived = null_columns(DERIVED, len(rows), columns)
    order = [(name, "ascending") for name in ("patient_id", "study_id", "image_id", "path")]
    write_table(derived.sort_by(order), out / IMAGES_NAME, name="derived", made_from=origin)
    write_croissant(out, catalog().get(dataset), (IMAGES_NAME,))
    return DerivedResult(out / IMAGES_NAME, len(rows), without)


def _of_base(footer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in footer.items() if k not in {"schema", "schema_version", "tool"}}


def _own(rows: Sequence[ConvertedImage]) -> dict[str, Any]:
    """What the conversion knows of each image."""
    boxes = [
        None if row.boxes is None else [{"label": b.label, "x": b.x, "y": b.y, "w": b.w, "h": b.h} for b in row.boxes]
        for row in rows
    ]
    return {
        "path": pa.array([row.path for row in rows], pa.string()),
        "bytes": pa.array([row.size for row in rows], pa.int64()),
        "digest": pa.array([row.digest for row in rows], pa.string()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "source_mode": categories(pa.array([row.mode for row in rows], pa.string())),
        "spacing_x_mm": pa.array([row.spacing_mm and row.spacing_mm[0] for row in rows], pa.float32()),
        "spacing_y_mm": pa.array([row.spacing_mm and row.spacing_mm[1] for row in rows], pa.float32()),
        "boxes": pa.array(boxes, pa.list_(BOX)),
        "source_path": pa.array([row.source_path for row in rows], pa.string()),
        "source_digest": pa.array([row.source_digest for row in rows], pa.string()),
    }
