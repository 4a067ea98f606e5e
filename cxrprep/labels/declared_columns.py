"""Columns of a declared dataset's tables: those that its blocks name, and the tables that have them.

See ``cxrprep.datasets.declaration`` for the form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cxrprep.datasets.declaration import MANY_FILES, Declaration, tables_of
from cxrprep.errors import TableError
from cxrprep.labels.csv_table import line_of_name
from cxrprep.labels.csv_text import AS_IT_STANDS, Written, line_of, read_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from cxrprep.model import Digest

# Every table has these beside its own columns: its name in the declaration, and its file's.
TABLE: Final = "table"
_OF_A_FILE: Final = ("name", "path")
# The keys of blocks that are values, whose columns an XML document is asked for.
_VALUES: Final = (
    "id", "patient", "study", "image", "file", "view", "split", "sex", "age", "birth_year", "date", "width", "height",
    "spacing", "follow_up", "names", "name", "reader", "score", "label", "text",
)  # fmt: skip
CORRECT: Final = "correct that cell, or the dataset's file"


@dataclass(frozen=True, slots=True)
class TableRead:
    """A table that is here: its cells (null where blank), where it lies, and its digest.

    ``path`` of a table of many files is the first of them. Rows keep their number, from 0, as their index. ``spelled``
    names columns as the file does, where the dataset's file calls them otherwise.
    """

    cells: pd.DataFrame
    path: Path
    digest: Digest
    form: str = "csv"
    spelled: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[int] | None = None
    """The number of each row, where they were numbered anew."""
    ids: dict[str, pd.Series] = field(default_factory=dict)
    """The images that all rows speak of, by the value that says so: two blocks of a table mostly ask for the same."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of its cells."""
    written: Written = AS_IT_STANDS
    plain: Mapping[str, pa.Array] = field(default_factory=dict)
    """Columns whose cells mostly differ, as they were read: a pattern is asked of them at once."""

    def error(self, row: Any, column: str, what: str, hint: str = CORRECT) -> TableError:
        """The error for a cell: it names the file, the line (of JSON the row, of many files the file) and the column.

        Args:
            row: Data row, from 0.
            column: Its name as the dataset's file has it; empty for a value that takes its cells from none.
            what: What is wrong.
            hint: The next step.

        Returns:
            The error, not raised.
        """
        named = f", column {self.spelled.get(column, column)!r}" if column and self.form != "names" else ""
        place = self.place_of(row)
        where = place if self.form in MANY_FILES else f"{self.path}, {place}"
        return TableError(f"{where}{named}: {what}", hint=hint)

    def place_of(self, row: Any) -> str:
        """Where a data row (from 0) stands in the file: its line, or its number; of many files, which one it is."""
        number = int(str(row)) if self.rows is None else int(self.rows[int(str(row))])
        if self.form in MANY_FILES:
            return str(self.cells["path"].iloc[number])
        if self.form == "csv":
            return f"line {line_of(read_content(self.path, self.written), number)}"
        if self.form == "names":
            return f"line {line_of_name(self.path, number)}"
        return f"row {number + 1}"


def named_columns(value: Any) -> Iterator[str]:
    """The columns that a value, or a list or table of values, takes its cells from."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from named_columns(one)
    elif isinstance(value, dict):
        for key in ("column", "columns", "first_of"):
            yield from named_columns(value.get(key, ()))


def has_columns(frame: pd.DataFrame, value: Any) -> bool:
    """Whether a table has what a value takes its cells from; of ``first_of``, any of them."""
    if isinstance(value, dict) and "first_of" in value:
        return any(has_columns(frame, one) for one in value["first_of"])
    return set(named_columns(value)) <= set(frame.columns)


def columns_of_blocks(declared: Declaration, table: str) -> list[str]:
    """The columns that blocks about a table read, those of boxes and conditions among them."""
    blocks: tuple[Any, ...] = (*declared.labels, *declared.boxes, *declared.masks)
    names = [*columns_of(declared, table)]
    for block in blocks:
        if table in tables_of(block.table):
            for key in ("corners", "corner_size", "centre_size", "where", "raw", "runs", "points"):
                value = getattr(block, key, ()) or ()
                value = () if value == "all" else value
                names += [value] if isinstance(value, str) else [*value]
    return [*dict.fromkeys(names)]


def columns_as_they_stand(declared: Declaration, table: str) -> set[str]:
    """The columns of a table whose cells go into labels.parquet as the release has them: raw ones, and reports."""
    reports = [value for rule in declared.reports for value in (rule.text, *rule.sections.values())]
    return {*named_columns(reports), *(n for rule in declared.labels if rule.raw != "all" for n in rule.raw)} - {
        *columns_of(declared, table, reports=False)
    }


def columns_of(declared: Declaration, table: str, *, reports: bool = True) -> Iterator[str]:
    """The columns that the blocks about a table name."""
    blocks: tuple[Any, ...] = (
        declared.image,
        *declared.labels,
        *declared.boxes,
        *declared.masks,
        *(declared.reports if reports else ()),
        *declared.link,
        *declared.splits,
    )
    about = [block for block in blocks if table in tables_of(block.table)]
    values = [getattr(block, name) for block in about for name in _VALUES if hasattr(block, name)]
    mapped = [one for block in about for one in getattr(block, "sections", {}).values()]
    keyed = [one for block in about if isinstance(one := getattr(block, "columns", None), dict)]
    named = {name for value in (*values, *mapped, *map(list, keyed)) for name in named_columns(value)}
    yield from sorted(named - {*_OF_A_FILE, TABLE, "image", "unknown", ""})
