"""The previous manifest of the same outputs, and which of its rows still hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep.errors import CxrprepError
from cxrprep.manifest.build import IMAGES_NAME
from cxrprep.schemas import DERIVED, HEADERS, derived_schema, null_columns
from cxrprep.storage.parquet import read_rows
from cxrprep.storage.table_on_disk import TableOnDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cxrprep.storage.filesystem import ImageStore

HEADERS_NAME: Final = "headers.parquet"
# Names of many files; half a million of them as objects would be too many.
Names: TypeAlias = pa.ChunkedArray
_ASKED: Final = ["path", "source_path", "recipe_fingerprint"]


@dataclass(frozen=True, slots=True)
class PreviousImages:
    """Rows of an earlier manifest, and of the headers beside it.

    ``foreign`` are the paths of outputs that another recipe made, by the recipe's name and fingerprint, and that are no
    rows any more; ``other_recipe`` are those that still are.
    """

    rows: pa.Table = field(default_factory=DERIVED.empty_table)
    headers: pa.Table = field(default_factory=HEADERS.empty_table)
    foreign: tuple[tuple[str, str, str], ...] = ()

    def other_recipe(self, fingerprint: str) -> pa.Table:
        """The rows that were made by another recipe than that with this fingerprint."""
        return self.rows.filter(pc.invert(_made_by(self.rows, fingerprint)))

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self.rows.num_rows)

    def only(self, holds: Callable[[str, str, str], bool]) -> PreviousImages:
        """The rows for which ``holds(source_path, source_digest, path)`` is true."""
        columns = (self.rows.column(n).to_pylist() for n in ("source_path", "source_digest", "path"))
        kept = self.rows.filter(pa.array([holds(*row) for row in zip(*columns, strict=True)], pa.bool_()))
        headers = self.headers.filter(
            pc.is_in(self.headers.column("source_path"), value_set=kept.column("source_path").combine_chunks())
        )
        return PreviousImages(kept, headers, self.foreign)

    def divided(self, base: Path | None, fingerprint: str) -> tuple[pa.Table, pa.Table]:
        """The rows of a recipe whose source the manifest ``base`` names, and all others."""
        if base is None:
            return self.rows.slice(0, 0), self.rows
        sources = self.rows.column("source_path").combine_chunks()
        found = TableOnDisk.open(base).among("path", sources)
        named = pc.is_in(self.rows.column("source_path"), value_set=found.column("path").combine_chunks())
        named = pc.and_(named, _made_by(self.rows, fingerprint))
        return self.rows.filter(named), self.rows.filter(pc.invert(named))


def has_scores(out: ImageStore, below: str) -> bool:
    """Whether the manifest of outputs that is there states scores of any image."""
    try:
        with out.open(f"{below}/{IMAGES_NAME}") as held:
            scores = pq.ParquetFile(held).read(["inverted_score"])["inverted_score"]
    except (CxrprepError, OSError, ValueError, KeyError, pa.ArrowException):
        return False
    return bool(scores.null_count < len(scores))


def read_previous(
    open_file: Callable[[str], BinaryIO],
    fingerprint: str,
    *,
    tried: Names,
    made: Names,
    done: Names | None,
    others: Iterable[str] = (),
) -> PreviousImages:
    """The rows of the manifest that is there, without those that this run makes anew.

    Of this recipe's images those that were not tried; of another recipe's, which was edited since, those that could not
    be made anew.

    Args:
        open_file: Opens a file of the manifest's folder by its name.
        fingerprint: Of the recipe.
        tried: Sources of this run.
        made: Outputs of this run.
        done: Sources of the outputs of this run; ``None`` leaves out whatever another recipe made.
        others: Image tables beside the folder's own: those of a job array's shards.

    Returns:
        The rows; none where nothing is there or can be read.
    """
    foreign: list[tuple[str, str, str]] = []
    parts: list[pa.Table] = [DERIVED.empty_table()]
    for name in (IMAGES_NAME, *others):
        read: tuple[list[pa.Table], list[tuple[str, str, str]]] = ([], [])
        try:
            with open_file(name) as held:
                for table, rest in _groups(
                    pq.ParquetFile(held, page_checksum_verification=True), fingerprint, tried, made, done
                ):
                    read[0].extend(table)
                    read[1].extend(rest)
        except (CxrprepError, OSError, ValueError, KeyError, pa.ArrowException):
            continue
        # What an earlier table says of an output, a later one need not say again.
        known = pa.chunked_array([part.column("path").combine_chunks() for part in parts], pa.string())
        parts += [part.filter(pc.invert(pc.is_in(part.column("path"), value_set=known))) for part in read[0]]
        foreign += [row for row in read[1] if row not in foreign] if foreign else read[1]
    schema = derived_schema(*(part.schema for part in parts))
    rows = one_table([as_schema(schema, part) for part in parts])
    return PreviousImages(rows, _headers(open_file, rows) if len(rows) else HEADERS.empty_table(), tuple(foreign))


def _groups(
    file: pq.ParquetFile, fingerprint: str, tried: Names, made: Names, done: Names | None
) -> Iterator[tuple[list[pa.Table], list[tuple[str, str, str]]]]:
    """The rows that are wanted of each group of an image table, and the outputs of other recipes."""
    for group in range(file.num_row_groups):
        # Mostly nothing is wanted of it: three columns tell.
        asked = file.read_row_group(group, columns=_ASKED)
        left = pc.invert(pc.is_in(asked.column("path"), value_set=made))
        same = _made_by(asked, fingerprint)
        of_others = pc.and_(left, pc.invert(same))
        wanted = pc.and_(pc.and_(left, same), pc.invert(pc.is_in(asked.column("source_path"), value_set=tried)))
        if done is not None:
            not_anew = pc.invert(pc.is_in(asked.column("source_path"), value_set=done))
            wanted = pc.or_(wanted, pc.and_(of_others, not_anew))
        rows = (
            [as_schema(derived_schema(file.schema_arrow), file.read_row_group(group).filter(wanted))]
            if pc.any(wanted).as_py()
            else []
        )
        others = pc.and_(of_others, pc.invert(wanted))
        foreign: list[tuple[str, str, str]] = []
        if pc.any(others).as_py():
            table = file.read_row_group(group, columns=["path", "recipe", "recipe_fingerprint"]).filter(others)
            foreign = list(zip(*(table.column(name).to_pylist() for name in table.schema.names), strict=True))
        yield rows, foreign


def _made_by(rows: pa.Table, fingerprint: str) -> pa.ChunkedArray:
    return pc.equal(rows.column("recipe_fingerprint").cast(pa.string()), fingerprint)


def _headers(open_file: Callable[[str], BinaryIO], rows: pa.Table) -> pa.Table:
    try:
        with open_file(HEADERS_NAME) as held:
            table = pq.read_table(held, page_checksum_verification=True)
        wanted = pc.is_in(table.column("source_path"), value_set=rows.column("source_path"))
        return as_schema(HEADERS, table.filter(wanted))
    except (CxrprepError, OSError, ValueError, KeyError, pa.ArrowException):
        return HEADERS.empty_table()


def as_schema(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """``table`` with the columns of ``schema``, which an older version, or another collection, may have fewer of."""
    there = {name: table.column(name).combine_chunks() for name in schema.names if name in table.schema.names}
    if "boxes" in there and there["boxes"].type != schema.field("boxes").type:
        there["boxes"] = pa.array(there["boxes"].to_pylist(), schema.field("boxes").type)
    return null_columns(schema, len(table), there)


def one_table(tables: Iterable[pa.Table]) -> pa.Table:
    """Tables of one schema as one. Words are numbered by their order, so that the same rows give the same bytes."""
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()

    def column(name: str, kind: pa.DataType) -> Any:
        held = table.column(name)
        return held.cast(kind.value_type).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else held

    schema = table.schema
    return pa.Table.from_arrays([column(f.name, f.type) for f in schema], schema=schema)


def stated_outputs(out: Path) -> dict[str, tuple[int, str]]:
    """Bytes and digest of each converted image below ``out``, by its manifest; empty where there is none."""
    try:
        rows = read_rows(out / "manifests" / IMAGES_NAME, columns=["path", "bytes", "digest"])
    except (OSError, pa.ArrowException):
        return {}
    stated = zip(rows["bytes"].to_pylist(), rows["digest"].to_pylist(), strict=True)
    return dict(zip(rows["path"].to_pylist(), stated, strict=True))
