"""The manifest of converted images: the dataset's own rows, with what the conversion changed."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.errors import TableError
from cxrprep.events import Note, Sink, ignore
from cxrprep.labels.columns import categories, constant, projection_of
from cxrprep.labels.extract import LABELS_NAME
from cxrprep.labels.joins import positions
from cxrprep.manifest.build import IMAGES_NAME, check_tables
from cxrprep.manifest.converted import carry_labels, read_labels_beside, with_choices, write_converted
from cxrprep.manifest.previous import HEADERS_NAME, Names, PreviousImages, as_schema, one_table
from cxrprep.manifest.studies import studies_of
from cxrprep.schemas import (
    DERIVED,
    DERIVED_FIELDS,
    HEADERS,
    IMAGES,
    READ_BOX,
    derived_schema,
    null_columns,
    own_columns,
    with_boxes,
)
from cxrprep.storage.parquet import SET_DIGEST, footer_of, read_footer, write_table
from cxrprep.storage.table_on_disk import TableOnDisk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cxrprep.collection import Lineage

# Images held as objects before they become columns.
_ROWS: Final = 8192
_CHANGED: Final = ("path", "bytes", "digest", "width", "height", "source_mode", "spacing_x_mm", "spacing_y_mm", "boxes")


class DerivedRows:
    """Converted images, gathered one by one and kept as columns: some hundred bytes each.

    A row has the columns that the manifest takes from a conversion, ``source_path`` in the dataset, ``path`` under the
    derived folder, boxes in its own pixels and spacing in mm among them, and as ``about`` what the header of a plain
    folder's image says: see ``cxrprep.images.conversion.Converted.as_row``.
    """

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one image in."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._tables.append(pa.Table.from_pylist(self._rows, _OWN))
            self._rows = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._rows) + sum(len(table) for table in self._tables)

    def names(self, column: str, also: Sequence[str] = ()) -> Names:
        """What stands in ``source_path`` or ``path`` of all of them, in no promised order, and ``also`` these."""
        own = [*(row[column] for row in self._rows), *also]
        chunks = [chunk for table in self._tables for chunk in table[column].chunks]
        return pa.chunked_array([*chunks, pa.array(own, pa.string())])

    def take(self) -> pa.Table:
        """All of them, sorted by path; none is left here, since two copies of 400,000 would be too many."""
        tables = [_OWN.empty_table(), *self._tables, pa.Table.from_pylist(self._rows, _OWN)]
        self._tables, self._rows = [], []
        table = pa.concat_tables(tables)
        del tables
        # The order in which images were done is another one in every run; the bytes of the manifest are not.
        return table.sort_by("path").combine_chunks()


def build_derived_manifest(
    converted: DerivedRows,
    *,
    base: Path | None,
    out: Path,
    lineage: Lineage,
    earlier: PreviousImages | None = None,
    root: Path | None = None,
    labels_in: Path | None = None,
    whole: bool = True,
    allow_loss: bool = False,
    on_event: Sink = ignore,
) -> int:
    """Write the ``images.parquet`` of converted images, in the order of the dataset's.

    Images that ``base`` does not list are written too, and said.

    Args:
        converted: What became of each image.
        base: The dataset's ``images.parquet``; ``None`` for a plain folder, whose rows then say only what the
            conversion knows.
        out: The folder of the new manifest (``derived/RECIPE/manifests``).
        lineage: What the folder is to say of itself: recipe and form among it.
        earlier: Rows of the manifest before this one that stay. What ``base`` says of their sources now replaces what
            it said then; a row whose source is gone, or that another recipe made, stays as it is.
        root: The folder of the images, where it is known.
        labels_in: Where the labels lie, by default beside ``base``.
        whole: A part of a job array is not: it has no studies.
        allow_loss: Let the table know less than the one that is there.
        on_event: Called with progress and remarks.

    Returns:
        How many images it lists.

    Raises:
        TableError: A damaged base, or two outputs of one path.
        UsageError: The table would know less than the one that is there.
        StorageError: The disk refuses.
    """
    derived, origin, headers = _derived_rows(converted, base, out, earlier, lineage, on_event=on_event)
    labels_in = (labels_in or base.parent) if base is not None and whole else None
    before = footer_of(out / IMAGES_NAME)
    choices = before.get("choices") or {}
    made_from = {**origin, **lineage.as_footer()}
    made_from["parent"] = {**lineage.parent, "sources": _digest_of_sources(derived)}
    studies: pa.Table | None = None
    if whole:
        brings = labels_in is not None and (labels_in / LABELS_NAME).is_file()
        place = labels_in if brings and labels_in is not None else out
        # Another source or policy is looked for in all of them.
        labels = read_labels_beside(place, None if choices else derived)
        if choices:
            derived = with_choices(derived, labels, origin, choices, on_event)
            made_from["choices"] = choices
        derived = derived.combine_chunks()
        studies, _ = studies_of(derived, labels)
        if not allow_loss and root is not None:
            # Which rows stay is decided before: an output whose source changed is not listed, and is said.
            judged = {**made_from, **choices}
            check_tables(out, derived, studies, root / ".none", made_from=judged, has_labels=labels is not None)
        if labels_in is not None:
            carry_labels(labels_in, out)
    if headers is not None:
        write_table(headers.sort_by("source_path"), out / HEADERS_NAME, name="headers", made_from=origin)
    write_converted(derived, studies, out, made_from)
    return int(derived.num_rows)


def _derived_rows(
    converted: DerivedRows,
    base: Path | None,
    out: Path,
    earlier: PreviousImages | None,
    lineage: Lineage,
    *,
    on_event: Sink,
) -> tuple[pa.Table, dict[str, Any], pa.Table | None]:
    """The rows, what the footer is to say, and the headers of DICOM files."""
    own = converted.take()
    gone: pa.Table | None = None
    if earlier is not None and len(earlier):
        here, gone = earlier.divided(base, lineage.fingerprint)
        if len(here):
            own = pa.concat_tables([own, _own_of(here)]).sort_by("path").combine_chunks()
    rows = own.num_rows
    if pc.count_distinct(own.column("path")).as_py() != rows:
        paths = sorted(own.column("path").to_pylist())
        twice = next(a for a, b in itertools.pairwise(paths) if a == b)
        raise TableError(f"two converted images are called {twice}", hint="convert into an empty folder")
    sources = own.column("source_path").combine_chunks()
    origin: dict[str, Any] = {"recipe": lineage.recipe, "fingerprint": lineage.fingerprint}
    columns: dict[str, Any] = {}
    headers: pa.Table | None = None
    schema = DERIVED if gone is None else derived_schema(gone.schema)
    if base is not None:
        origin = {**{k: v for k, v in read_footer(base).items() if k not in _OF_TABLE}, **origin}
        # Of a sample's base the sample's rows alone.
        table = TableOnDisk.open(base).among("path", sources).whole()
        place = positions(sources, table.column("path"))
        schema = derived_schema(table.schema)
        told = [name for name in (*IMAGES.names, *own_columns(schema)) if name not in _CHANGED]
        # A table of an earlier version lacks what came later.
        told = [name for name in told if name in table.column_names]
        columns = {name: table.column(name).combine_chunks().take(place) for name in told}
        del table
        if place.null_count:
            first = sources.filter(pc.is_null(place))[0]
            message = f"{place.null_count:,} converted images are not in the dataset's manifest; the first: {first}"
            on_event(Note("convert", message, "warning", str(out / IMAGES_NAME)))
    if pc.any(pc.not_equal(own.column("about"), "")).as_py() or (earlier is not None and len(earlier.headers)):
        of_headers, headers = columns_of_headers(own)
        columns |= {name: _filled(values, columns.get(name)) for name, values in of_headers.items()}
        if earlier is not None and len(earlier.headers):
            headers = one_table([headers, earlier.headers])
    columns |= {name: own.column(name).combine_chunks() for name in _OWN.names if name != "about"}
    columns["boxes"] = pa.array(columns["boxes"].to_pylist(), schema.field("boxes").type)
    for name in ("source_mode", "voi", "codec"):
        columns[name] = categories(own.column(name))
    columns["recipe"] = constant(lineage.recipe, rows)
    columns["recipe_fingerprint"] = constant(lineage.fingerprint, rows)
    for name in ("image_id", "patient_id", "study_id"):
        # A file without a row has no identity but its path; a made-up patient would be worse.
        columns[name] = pc.coalesce(columns[name], sources) if name in columns else sources
    dataset = origin.get("dataset") or "folder"
    release = origin.get("release") or ""
    for name, word in (("dataset", dataset), ("release", release)):
        columns[name] = constant(word, rows)
    order = [(name, "ascending") for name in ("patient_id", "study_id", "image_id", "path")]
    if gone is not None and len(gone):
        schema = derived_schema(schema, gone.schema)
        columns["boxes"] = pa.array(columns["boxes"].to_pylist(), schema.field("boxes").type)
        gone = as_schema(schema, gone)
    derived = null_columns(schema, rows, columns)
    if gone is not None and len(gone):
        derived = one_table([derived, gone])
    return derived.sort_by(order), origin, headers


def _digest_of_sources(derived: pa.Table) -> str:
    """What the images were made of, by path and digest, whatever order they came in."""
    table = derived.select(["source_path", "source_digest"]).sort_by("source_path")
    hasher = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=_ROWS):
        for path, digest in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            hasher.update(f"{path}\t{digest or ''}\n".encode())
    return f"sha256:{hasher.hexdigest()}"


DICOM_FILES: Final = "dicom_files"
"""How many of the images are DICOM files, in the footer of their table: their headers name patients."""
# What a base's footer says of itself alone: a base may have been converted too.
_OF_TABLE: Final = frozenset({
    "schema", "schema_version", "tool", "kind", "form", "recipe", "fingerprint", "parent", "pseudonyms", "shards",
    "tables_beside", "choices", SET_DIGEST, DICOM_FILES,
})  # fmt: skip


# What the conversion measured of each image.
MEASURED: Final = tuple(field.name for field in DERIVED_FIELDS if not field.name.startswith(("source_", "recipe")))


_WITH_READERS: Final = with_boxes(DERIVED, pa.list_(READ_BOX))
_OWN: Final = pa.schema(
    [
        *(_WITH_READERS.field(name) for name in (*_CHANGED, "source_path", "source_digest") if name != "source_mode"),
        *(
            pa.field(name, pa.string() if pa.types.is_dictionary(kind := DERIVED.field(name).type) else kind)
            for name in MEASURED
        ),
        pa.field("source_mode", pa.string()),
        pa.field("about", pa.string()),
    ]
)


def _own_of(rows: pa.Table) -> pa.Table:
    """What the conversion knew of rows that a manifest tells."""
    columns = {name: rows.column(name) for name in _OWN.names if name != "about"}
    columns["boxes"] = pa.array(columns["boxes"].to_pylist(), _OWN.field("boxes").type)
    for name in ("source_mode", "voi", "codec"):
        columns[name] = rows.column(name).cast(pa.string())
    columns["about"] = constant("", len(rows)).cast(pa.string())
    return pa.Table.from_arrays([columns[name] for name in _OWN.names], schema=_OWN)


def columns_of_headers(own: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    """The columns that headers give to the manifest, and ``headers.parquet``."""
    names = {"patient_id": "patient", "study_id": "study"}
    wanted = {name: names.get(name, name) for name in HEADERS.names if name not in ("source_path", "path")}
    wanted |= {"view": "view", "sex": "sex", "age_years": "age_years", "age_flag": "age_flag"}
    held: dict[str, list[Any]] = {name: [] for name in wanted}
    for text in own.column("about").to_pylist():
        about = json.loads(text) if text else {}
        for name, key in wanted.items():
            held[name].append(about.get(key))
    kinds = {field.name: field.type for field in (*HEADERS, *IMAGES)}
    columns = {name: _as(values, kinds[name]) for name, values in held.items()}
    headers = null_columns(
        HEADERS,
        own.num_rows,
        {name: columns[name] for name in HEADERS.names if name in columns}
        | {name: own.column(name).combine_chunks() for name in ("source_path", "path")},
    )
    about = {name: columns[name] for name in ("patient_id", "study_id", "view", "sex", "age_years", "age_flag")}
    about |= {
        "view_raw": categories(columns["view_raw"].cast(pa.string())),
        "projection": projection_of(columns["view"]),
        "orig_width": columns["columns"],
        "orig_height": columns["rows"],
    }
    return about, headers


def _filled(first: Any, then: Any) -> Any:
    """``first``, and where it is null what the base says."""
    if then is None or not first.null_count:
        return first
    if pa.types.is_dictionary(first.type):
        words = pc.coalesce(first.cast(pa.string()), then.cast(pa.string()))
        return words.dictionary_encode().cast(first.type)
    return pc.coalesce(first, then.cast(first.type))


def _as(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    if pa.types.is_integer(kind):
        # A header may hold anything under a name: what is no number of this kind is not known.
        top = 1 << (kind.bit_width - 1)
        numbers = (None if value is None else int(value) for value in values)
        return pa.array([one if one is not None and -top <= one < top else None for one in numbers], kind)
    return pa.array(values, kind)
