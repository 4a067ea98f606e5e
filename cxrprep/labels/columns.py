"""Column values: label, age, sex, view and date cells, vectorised; errors name file, line and column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cxrprep.model import View
from cxrprep.schemas import CATEGORY
from cxrprep.storage.value_codes import as_dictionary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cxrprep.labels.declared_columns import TableRead
    from cxrprep.labels.text_table import TextTable

_LABEL_NUMBERS: Final = {1.0: 1, 0.0: 0, -1.0: -1}
_LABEL_WORDS: Final[Mapping[str, int | None]] = {
    "true": 1, "false": 0, "yes": 1, "no": 0, "t": 1, "f": 0, "y": 1, "n": 0, "_": None,
}  # fmt: skip
_SEXES: Final[Mapping[str, str | None]] = {"m": "M", "f": "F", "male": "M", "female": "F", "unknown": None, "": None}
_THOUSANDS: Final = re.compile(r"[1-9]\d{0,2}(,\d{3})+$", re.ASCII)
PROJECTIONS: Final[Mapping[str, str]] = {str(view): str(view.projection) for view in View}


def whole(text: str) -> int:
    """The whole number that ``text`` is, also with ``.0`` behind it or commas between thousands, as programs write."""
    text = text.removesuffix(".0")
    return int(text.replace(",", "") if is_grouped(text) else text)


def is_grouped(text: Any) -> bool:
    """Whether a text is a whole number with commas between thousands, as in 3,056."""
    return isinstance(text, str) and _THOUSANDS.match(text) is not None


def label_of(text: str) -> int | None:
    """The label that a cell says, as any program writes the number: 1., +1, -1.000e+00; yes and no as true and false.

    Raises ``KeyError`` or ``ValueError`` for what is none.
    """
    word = text.strip().lower().replace("\N{MINUS SIGN}", "-")
    return _LABEL_WORDS[word] if word in _LABEL_WORDS else _LABEL_NUMBERS[float(word)]


def labels(table: TextTable, column: str) -> pa.Array:
    """An int8 column of 1, 0, -1 and null (blank)."""
    return table.translated(column, label_of, pa.int8(), "expected 1, 0, -1 or a blank")


def filled_with_zeros(table: TextTable, columns: Sequence[str]) -> str:
    """What to say of a labeler's table without one blank label, as no release has it; empty where all is well."""
    if any(table.column(name).null_count for name in columns if name in table):
        return ""
    return "no label is blank, and most are in the release: its blanks were filled, and cannot be told from a negative"


def sex(table: TextTable, column: str) -> pa.Array:
    """M, F, or null where the table says Unknown or nothing."""
    return table.translated(
        column, lambda text: _SEXES[text.strip().lower()], CATEGORY, "expected M, F, Male, Female or Unknown"
    )


def projection_of(views: pa.Array) -> pa.Array:
    """frontal, lateral or other for each normalised view; null stays null."""
    views = as_dictionary(views)
    words = [None if view is None else PROJECTIONS[view] for view in views.dictionary.to_pylist()]
    return pa.array(words, CATEGORY).take(views.indices)


def constant(value: str | None, rows: int) -> pa.Array:
    """``rows`` times one category, or as many nulls."""
    if value is None:
        return pa.nulls(rows, CATEGORY)
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), rows), pa.array([value], pa.string()))


def source_columns(source: str, table: TextTable | TableRead, rows: int) -> dict[str, pa.Array]:
    """Whose labels ``rows`` rows are, and of which table: its name and digest."""
    words = {"label_source": source, "table_name": table.path.name, "table_digest": str(table.digest)}
    return {name: constant(word, rows) for name, word in words.items()}


def constant_where(value: str, mask: pa.Array) -> pa.Array:
    """One category where ``mask`` is true, null elsewhere."""
    return pa.DictionaryArray.from_arrays(
        pc.if_else(mask, pa.scalar(0, pa.int8()), pa.scalar(None, pa.int8())), pa.array([value], pa.string())
    )


def coded(codes: Any, words: Sequence[str]) -> pa.Array:
    """Categories from the numbers of their words; null where the number is null."""
    return pa.DictionaryArray.from_arrays(codes.cast(pa.int8()), pa.array(words, pa.string()))


def categories(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Text as categories; for columns of a handful of distinct values."""
    return as_dictionary(values).cast(CATEGORY)


def first_of_each(columns: Mapping[str, Any]) -> pa.Array:
    """Whether a row is the first to say what it says: a table that was joined, or put together twice, repeats rows."""
    rows = pa.table({**columns, "row": pa.array(range(len(next(iter(columns.values())))))})
    first = rows.group_by([*columns]).aggregate([("row", "min")]).column("row_min")
    return pc.is_in(rows.column("row"), value_set=first).combine_chunks()


def count_true(mask: Any) -> int:
    """How many elements are true; null is not."""
    return int(pc.sum(mask).as_py() or 0)
