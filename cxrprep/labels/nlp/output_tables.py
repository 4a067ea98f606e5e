"""Output tables of the report labeler, and how they are written: same input, same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from cxrprep.errors import TableError
from cxrprep.schemas import CATEGORY, describe
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.parquet import read_footer, read_rows
from cxrprep.storage.table_checksums import replace_listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

LABELS_NAME: Final = "report_labels"
MENTIONS_NAME: Final = "mentions"
_WORDS: Final = {"positive": 1, "negative": 0, "uncertain": -1, "null": None}
GROUP: Final = 4096
"""Reports whose rows make a row group."""

_WHICH: Final = (
    describe(
        "row", pa.int64(), "place of the report in its collection, from 0; the order of this table", required=True
    ),
    describe(
        "report_id", pa.string(), "name of the report: member or file name, id column, or row number", required=True
    ),
    describe("patient_id", pa.string(), "patient, from a MIMIC-CXR member name or a patient column"),
    describe("study_id", pa.string(), "study, from a MIMIC-CXR member name or a study column"),
)


def column_of(observation: str) -> str:
    """The column of an observation: ``label_pleural_effusion`` for "Pleural Effusion"."""
    return "label_" + "_".join("".join(c if c.isalnum() else " " for c in observation.lower()).split())


def labels_schema(observations: Iterable[str]) -> pa.Schema:
    """The schema of ``report_labels.parquet``, a row per report, for these observations."""
    return pa.schema(
        [
            *_WHICH,
            describe("status", CATEGORY, "labeled, empty, no-section, unreadable or refused", required=True),
            describe("section", CATEGORY, "section that was read; null: none"),
            describe(
                "text_sha256", pa.string(), "sha256 of the report's bytes as stored; of its UTF-8 where a cell held it"
            ),
            *(
                describe(
                    column_of(name), pa.int8(), f"{name}: 1 positive, 0 negative, -1 uncertain, null not mentioned"
                )
                for name in observations
            ),
        ]
    )


MENTIONS: Final = pa.schema(
    [
        *_WHICH,
        describe("observation", CATEGORY, "published name of the observation", required=True),
        describe("status", pa.int8(), "1 positive, 0 negative, -1 uncertain", required=True),
        describe("section", CATEGORY, "section that the mention stands in", required=True),
        describe("sentence", pa.int32(), "number of the sentence in its section, from 0", required=True),
        describe("start", pa.int64(), "first character of the mention in the report's text", required=True),
        describe("end", pa.int64(), "character after the mention", required=True),
        describe("phrase", pa.string(), "the words that mention the observation", required=True),
        describe("rule", CATEGORY, "rule that decided the status", required=True),
        describe("cue", pa.string(), "the words that decided; null where the mention stands alone"),
        describe("cue_start", pa.int64(), "first character of the cue in the report's text"),
        describe("cue_end", pa.int64(), "character after the cue"),
    ]
)
"""The schema of ``mentions.parquet``, a row per mention. The one output that holds words of reports."""


def making(path: Path) -> dict[str, Any] | None:
    """What a table was made from, as its footer says; ``None`` for one that is not there or not ours."""
    try:
        return {key: value for key, value in read_footer(path).items() if key != "schema"}
    except TableError:
        return None


def count_labels(path: Path, observations: Iterable[str]) -> dict[str, dict[str, int]]:
    """How often each observation is positive, negative, uncertain and null in a label table."""
    counts: dict[str, dict[str, int]] = {}
    for name in observations:
        column = read_rows(path, [column_of(name)]).column(0)
        found = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
        counts[name] = {word: found.get(value, 0) for word, value in _WORDS.items()}
    return counts


def write_part(rows: Sequence[tuple[Any, ...]], schema: pa.Schema, path: Path) -> None:
    """Write some rows, tuples in the order of the schema, as Parquet, atomically. Raises ``StorageError``."""
    columns = zip(*rows, strict=True) if rows else (() for _ in schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    replace_file(path, lambda part: pq.write_table(table, part, compression="zstd", compression_level=1))


def join_parts(parts: Sequence[Path], schema: pa.Schema, path: Path) -> None:
    """Write the parts one after another as one table, atomically.

    They have the rows of ``schema``, in order; one of them is in memory at a time. Raises ``StorageError``, and
    ``FileNotFoundError`` for a part that has vanished.
    """
    missing = next((part for part in parts if not part.exists()), None)
    if missing is not None:
        raise FileNotFoundError(missing)
    write_stream((pq.read_table(part, schema=schema) for part in parts), schema, path)


def write_stream(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write tables in the order of their ``row`` column as one, atomically.

    A row group holds what ``GROUP`` reports gave, however the tables were cut; ``schema`` has the footer too. Raises
    ``StorageError``.
    """

    def write(part: Path) -> None:
        form = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}
        with pq.ParquetWriter(part, schema, **form) as writer:
            for group in _groups(tables):
                writer.write_table(_fresh(group, schema))

    replace_listed(path, write)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    number = -1
    for table in tables:
        places = table["row"].to_numpy()
        begin = 0
        while begin < len(places):
            following = int(places[begin]) // GROUP
            if held and following != number:
                yield pa.concat_tables(held)
                held = []
            number = following
            end = int(places.searchsorted((number + 1) * GROUP))
            held.append(table.slice(begin, end - begin))
            begin = end
    if held:
        yield pa.concat_tables(held)


def _fresh(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in one chunk, its categories numbered as they appear: the bytes then depend on the rows alone."""
    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        values = column.combine_chunks()
        if pa.types.is_dictionary(field.type):
            values = values.cast(field.type.value_type).dictionary_encode().cast(field.type)
        columns.append(values)
    return pa.Table.from_arrays(columns, schema=schema)
