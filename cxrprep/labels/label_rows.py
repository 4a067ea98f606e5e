"""Rows of ``labels.parquet`` in the making: blocks of one label source each, joined into one table at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.events import Note, Sink, ignore
from cxrprep.labels.columns import constant
from cxrprep.labels.joins import rises, sortable
from cxrprep.labels.locate_tables import STAGE
from cxrprep.schemas import BOX, LABELS, RAW_PREFIX, as_rows_of, labels_schema, null_columns, with_boxes
from cxrprep.storage.value_codes import flat

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.labels.text_table import TextTable
    from cxrprep.model import Digest

# The order of rows. Reruns agree on it, and a reader of one label source skips the row groups of the others.
ORDER: Final = ("label_source", "patient_id", "study_id", "image_id", "table_name")
MASK_ORDER: Final = ("label_source", "image_id", "label", "reader", "counts", "path")


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What ``extract-labels`` may be told; ``None`` leaves a choice as it was made last.

    ``strict_source`` keeps what the table says where it is known to be wrong (CheXpert's 17 laterals in frontal rows).
    ``demographics`` joins ``CHEXPERT DEMO.xlsx``; ``patients`` names a MIMIC-IV ``patients.csv.gz`` for age and sex;
    ``report_text`` carries report texts as a column.
    """

    strict_source: bool | None = None
    demographics: bool | None = None
    patients: Path | None = None
    report_text: bool | None = None


@dataclass(frozen=True, slots=True)
class TableUse:
    """What became of one table: ``rows`` read from it are ``used``, and the others are counted by reason.

    ``rows == used + sum(apart.values())``: nothing is dropped without being counted. ``labeler`` says, of an added
    label source, who labelled: name, version, digest of the rules.
    """

    name: str
    path: str
    role: str
    digest: Digest
    rows: int
    used: int
    label_source: str = ""
    apart: tuple[tuple[str, int], ...] = ()
    labeler: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Labels:
    """All that a release's tables say, in memory: an Arrow table of the ``labels`` schema, and the tables used.

    ``added`` are columns that only the sources have which were added to the folder.
    """

    release: str
    table: pa.Table
    tables: tuple[TableUse, ...]
    added: tuple[str, ...] = ()
    masks: pa.Table | None = None
    """Regions that the release draws, ``None`` where it draws none."""
    inputs: str = ""
    """The digest of all that the labels were made from; empty where it is not known before reading."""
    notes: tuple[tuple[str, str, str], ...] = ()
    """What was said while the tables were read: message, file, level."""
    unchanged: bool = False
    """Whether they are those of the table that is there, which was made from the same."""


@dataclass(slots=True)
class LabelRows:
    """What a dataset's tables gave so far: blocks of rows, tables used, and where to send notes."""

    dataset: str
    release: str
    release_stated: bool = True
    on_event: Sink = ignore
    options: LabelOptions = field(default_factory=LabelOptions)
    blocks: list[pa.Table] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    plain: set[str] = field(default_factory=set)
    uses: list[TableUse] = field(default_factory=list)
    masks: list[pa.Table] = field(default_factory=list)
    own: dict[str, str] = field(default_factory=dict)
    """The columns of the dataset's own observations, ``label_<namespace>__<name>``, and what a 1 in each says."""

    def note(self, message: str, subject: str = "", level: str = "info") -> None:
        """Say something that a person should read once."""
        self.on_event(Note(STAGE, message, level, subject))

    def use(self, table: TextTable, role: str, *, used: int, source: str = "", **apart: int) -> None:
        """Remember what became of a table.

        Args:
            table: Which was read.
            role: What the dataset takes it for.
            used: How many of its rows.
            source: The label source that its rows are of.
            **apart: Why rows were not used, with ``_`` for spaces, and how many.
        """
        self.use_file(table.path, table.digest, role, rows=table.rows, used=used, source=source, **apart)
        for note in table.notes:
            self.note(note, str(table.path), "warning")

    def use_file(
        self, path: Path, digest: Digest, role: str, *, rows: int, used: int, source: str = "", **apart: int
    ) -> None:
        """Remember what became of a table that is no ``TextTable``.

        Args:
            path: Its file.
            digest: Of its bytes.
            role: What the dataset takes it for.
            rows: How many it has.
            used: How many of them.
            source: The label source that its rows are of.
            **apart: Why rows were not used, with ``_`` for spaces, and how many.
        """
        reasons = tuple((why.replace("_", " "), count) for why, count in apart.items() if count)
        self.uses.append(TableUse(path.name, str(path), role, digest, rows, used, source, reasons))
        for why, count in reasons:
            self.note(f"{count:,} of {rows:,} rows {why}", str(path), "warning")

    def add(
        self,
        rows: int,
        columns: dict[str, pa.Array],
        raw: dict[str, pa.Array],
        *,
        plain: tuple[str, ...] = (),
        own: dict[str, tuple[pa.Array, str]] | None = None,
    ) -> None:
        """Add a block of labels.

        Args:
            rows: how many there are.
            columns: by name as in ``labels.parquet``.
            raw: the source table's cells, by its own names.
            plain: those of ``raw`` whose values mostly differ.
            own: the dataset's own observations: column, values, and what a 1 says.
        """
        columns = {"dataset": constant(self.dataset, rows), "release": constant(self.release, rows), **columns}
        self.raw += [name for name in raw if name not in self.raw]
        self.plain |= set(plain)
        boxes = columns.get("boxes")
        block = null_columns(LABELS if boxes is None else with_boxes(LABELS, boxes.type), rows, columns)
        for name, values in raw.items():
            block = block.append_column(RAW_PREFIX + name, values)
        for name, (values, meaning) in (own or {}).items():
            self.own.setdefault(name, meaning)
            block = block.append_column(name, values)
        self.blocks.append(block)

    def table(self) -> pa.Table:
        """All blocks as one table of the ``labels`` schema, in its fixed order."""
        own = dict(sorted(self.own.items()))
        box = next((k for k in (b.schema.field("boxes").type.value_type for b in self.blocks) if k != BOX), BOX)
        text = bool(self.options.report_text)
        schema = labels_schema(self.raw, plain=self.plain, report_text=text, own=own, box=box)
        blocks = sorted(self.blocks, key=_source_of)
        table = pa.concat_tables(as_rows_of(schema, block) for block in blocks)
        for place, column in enumerate(table.columns):
            words = column.chunk(0).dictionary if pa.types.is_dictionary(column.type) else None
            # Blocks of the same rows have the same words. measured: 0.08 -> 0.01 s for MIMIC-CXR-JPG's times of day.
            if words is not None and not all(chunk.dictionary.equals(words) for chunk in column.chunks):
                table = table.set_column(place, table.field(place), column.unify_dictionaries())
        return table if _are_in_order(blocks) else in_order(table)


def _source_of(block: pa.Table) -> str:
    return str(block.column("label_source")[0]) if block.num_rows else ""


def _are_in_order(blocks: list[pa.Table]) -> bool:
    """Whether blocks of a source each stand in order, which several that are of the same rows show at once."""
    sources = [_source_of(block) for block in blocks]
    if sorted(set(sources)) != sources:
        return False
    before: list[pa.ChunkedArray] = []
    for block in blocks:
        source = flat(block.column("label_source"))
        if source.null_count or len(source.dictionary) != 1:
            return False
        ids = [block.column(name) for name in ORDER[1:-1]]
        same = before and all(one.equals(other) for one, other in zip(before, ids, strict=True))
        if not same and not rises(block, ORDER[1:-1]):
            return False
        before = ids
    return True


def in_order(table: pa.Table, order: tuple[str, ...] = ORDER) -> pa.Table:
    """The rows of ``labels.parquet``, or of another table, in their fixed order."""
    if order is ORDER and _in_order(table):
        return table
    keys = pa.table({name: sortable(table.column(name)) for name in order})
    return table.take(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in order]))


def _in_order(table: pa.Table) -> bool:
    """Whether the rows stand in their order already, as the tables of most releases do."""
    if table.num_rows < 2 or table.column("image_id").null_count:
        return int(table.num_rows) < 2
    # The last column decides between two tables of one source that name one image: rare, so left to the sort.
    return rises(table, ORDER[:-1])


def provenance(dataset: str, labels: Labels) -> dict[str, Any]:
    """What the footer says: dataset, release, and every table with its digest and what became of its rows."""
    return {"dataset": dataset, "release": labels.release, "tables": [described_table(use) for use in labels.tables]}


def described_table(use: TableUse) -> dict[str, Any]:
    """A table that was read, as footers say it."""
    return {
        "name": use.name,
        "role": use.role,
        "digest": str(use.digest),
        "rows": use.rows,
        "used": use.used,
        "label_source": use.label_source or None,
        **({"labeler": dict(use.labeler)} if use.labeler else {}),
        **({"apart": dict(use.apart)} if use.apart else {}),
    }
