"""Parquet files: how every table is written, and the footer that says what it was made from."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import shlex
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrprep._version import __version__
from cxrprep.digests import file_digest
from cxrprep.errors import CxrprepError, TableError, UnreadableTableError
from cxrprep.schemas import ALWAYS, RAW_PREFIX, TABLES, is_own_observation
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.small_files import parse_json, regular
from cxrprep.storage.table_checksums import listed_checksums, replace_listed
from cxrprep.storage.value_codes import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SCHEMA_VERSION: Final = 1
FOOTER_KEY: Final = b"cxrprep"
_LACKS: Final = "there is no column"
_POLICY: Final = {"uncertain", "blank", "derive", "per"}
VERIFY_NAMES_IT: Final = "make it again; cxrprep verify names the command"
CONVERT_AGAIN: Final = "convert again into this folder what it was made from"
"""The hint where converted images lack their table: no other verb makes it."""
SET_DIGEST: Final = "set_digest"
"""What the footer of an image table calls the digest of its set (``cxrprep digest``)."""


_ROWS: Final = 1 << 17
_DICTIONARY: Final = 1 << 20
# Text whose first cells keep this part of their length is written as it is.
_SAMPLE: Final = 1 << 12
_HARDLY: Final = 0.85
_LINE_END: Final = "\n"


def check_as_written(path: Path, warn: Callable[[str], object] | None = None) -> str:
    """The ``sha256:...`` of a table, which has to have the bytes that its list states, if it states any.

    No checksum of a page covers the footer. For other bytes it raises ``TableError``, or calls ``warn`` with what is
    wrong; it raises ``StorageError`` where the table cannot be read.
    """
    found = file_digest(path, "sha256")
    stated = listed_checksums(path.parent).get(path.name)
    if stated and found.partition(":")[2] not in stated:
        hint = f"{VERIFY_NAMES_IT}; columns of your own belong in a table beside it, by image_id"
        message = f"{path} was altered after cxrprep wrote it"
        if warn is None:
            raise TableError(message, hint=hint)
        warn(f"{message}: {hint}")
    return found


def write_table(
    table: pa.Table, path: Path, *, name: str, made_from: Mapping[str, Any] | None = None, listed: bool = True
) -> None:
    """Write a table as Parquet, atomically: the final name is either complete or what it was before.

    Each page carries a checksum, and the list beside the manifests one of the file.

    Args:
        table: Its rows.
        path: The file.
        name: The schema's name, for the footer.
        made_from: Its provenance: JSON values without times, so that the same input gives the same bytes.
        listed: Whether its checksum is noted; not of a table of the last run, that carries times.

    Raises:
        StorageError: The disk refuses; it names the path.
    """
    schema = with_footer(table.schema, name, made_from)
    table = table.replace_schema_metadata(schema.metadata)
    replace = replace_listed if listed else replace_file
    replace(path, lambda part: pq.write_table(table, part, row_group_size=_ROWS, **_form(table)))


def write_parts(
    tables: Iterable[pa.Table], schema: pa.Schema, path: Path, *, name: str, made_from: Mapping[str, Any]
) -> None:
    """The same for a table that comes in parts, which memory need not hold together: its groups of rows are as large.

    Args:
        tables: The parts, of ``schema``.
        schema: The columns.
        path: The file.
        name: The schema's name, for the footer.
        made_from: Its provenance.

    Raises:
        StorageError: The disk refuses; it names the path.
    """
    stated = with_footer(schema, name, made_from)

    def write(part: Path) -> None:
        groups = row_groups(tables, _ROWS)
        first = next(groups, stated.empty_table())
        with pq.ParquetWriter(part, stated, **_form(first)) as writer:
            for group in itertools.chain([first] if first.num_rows else [], groups):
                writer.write_table(group.replace_schema_metadata(stated.metadata), row_group_size=_ROWS)

    replace_listed(path, write)


def words_in_order(table: pa.Table) -> pa.Table:
    """``table`` with the words of its categories numbered by their first row: the same rows give the same bytes."""
    numbering = WordOrder(table.schema)
    numbering.add(table)
    return numbering.numbered(table)


class WordOrder:
    """The words of the categories of a table that comes in parts, in the order of their first rows."""

    def __init__(self, schema: pa.Schema) -> None:
        """No word yet."""
        self._words: dict[str, list[str]] = {field.name: [] for field in schema if pa.types.is_dictionary(field.type)}

    def add(self, table: pa.Table) -> None:
        """The words of the next part."""
        for name, words in self._words.items():
            for chunk in table.column(name).chunks:
                used = chunk.indices.unique().drop_null()
                found = chunk.dictionary.take(used).to_pylist()
                known = set(words)
                words += [word for word in found if word not in known]

    def numbered(self, table: pa.Table) -> pa.Table:
        """A part of the table with its words numbered over all parts."""
        for name, words in self._words.items():
            place = table.schema.get_field_index(name)
            kind = table.schema.field(place).type
            dictionary = pa.array(words, kind.value_type)
            chunks = [
                pa.DictionaryArray.from_arrays(
                    pc.index_in(chunk.dictionary, value_set=dictionary).take(chunk.indices).cast(kind.index_type),
                    dictionary,
                )
                for chunk in table.column(name).chunks
            ]
            table = table.set_column(place, table.schema.field(place), pa.chunked_array(chunks, kind))
        return table


def row_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of ``tables``, as many at a time as make a row group."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held).unify_dictionaries()
            # Copied, so that what they came from is let go before one of them is written.
            group, rest = (part.combine_chunks() for part in (whole.slice(0, rows), whole.slice(rows)))
            held, count = [rest], count - rows
            del whole
            yield group
    if count:
        yield pa.concat_tables(held).unify_dictionaries().combine_chunks()


def with_footer(schema: pa.Schema, name: str, made_from: Mapping[str, Any] | None) -> pa.Schema:
    """The schema with the footer of a table: its name, the tool's version and what it was made from; no times."""
    footer = {"schema": name, "schema_version": SCHEMA_VERSION, "tool": f"cxrprep {__version__}", **(made_from or {})}
    text = json.dumps(footer, sort_keys=True, separators=(",", ":"))
    return schema.with_metadata({**(schema.metadata or {}), FOOTER_KEY: text.encode()})


def _form(table: pa.Table) -> dict[str, Any]:
    """How a table is written, by its first group of rows."""
    schema = table.schema
    few = [field.name for field in schema if field.type == pa.int8() or _are_few_words(table.column(field.name))]
    # Ids hardly repeat: a dictionary of them would only cost time. Nobody filters by the range of a source's cell, and
    # that of labels is always the same.
    ranged = [
        field.name
        for field in schema
        if not field.name.startswith((RAW_PREFIX, "path_raw")) and field.type != pa.int8()
    ]
    # Every reader knows snappy. Zstandard would make half the size of it, and take a fifth longer. By default 1,024
    # values are written at once. measured: 0.79 -> 0.72 s for two label sources of 377,110 images, and the same size.
    return {
        "use_dictionary": few, "write_statistics": ranged, "compression": _compression(table),
        "write_page_checksum": True, "write_batch_size": 1 << 16,
    }  # fmt: skip


def _are_few_words(column: pa.ChunkedArray) -> bool:
    """Whether a column is of categories whose words fit the page that a group of rows has for them.

    Of more, Arrow writes all into each group, and the text of the rows behind it. measured: 0.93 -> 0.72 s of CPU, and
    72 -> 63 MB, for the labels of 377,110 images whose studies have a time of day each.
    """
    coded = pa.types.is_dictionary(column.type)
    return coded and all(chunk.dictionary.nbytes <= _DICTIONARY for chunk in column.chunks)


def _compression(table: pa.Table) -> str | dict[str, str]:
    """Snappy, but for text that it makes hardly shorter, such as ids of random signs.

    measured: 0.65 -> 0.56 s of CPU for the labels of 377,110 images of MIMIC-CXR, and 59 MB for 56.
    """
    random = set()
    for field in table.schema:
        if pa.types.is_string(field.type):
            cells = "".join(filter(None, table.column(field.name).slice(0, _SAMPLE).to_pylist())).encode()
            if cells and pa.compress(cells, codec="snappy").size > _HARDLY * len(cells):
                random.add(field.name)
    if not random:
        return "snappy"
    # The writer asks for each number of a list or an object by its own name.
    empty = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 0), empty)
    leaves = pq.read_metadata(pa.BufferReader(empty.getvalue())).schema
    paths = [leaves.column(place).path for place in range(len(leaves.names))]
    return {path: "none" if path in random else "snappy" for path in paths}


def read_rows(path: Path, columns: Sequence[str] | None = None, *, use_threads: bool = True) -> pa.Table:
    """The rows of a table, each page held to its checksum: some columns of it, or all, read side by side or not.

    Raises ``OSError`` where it is not there or may not be read, and ``UnreadableTableError`` where it is no Parquet
    file or a page is not what was written.
    """
    # Not pq.read_table: it loads pyarrow.dataset and with it pandas, and takes a folder named split=test for a column.
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        check_columns(file.schema_arrow, path, columns)
        if columns is None:
            return file.read(use_threads=use_threads)
        return file.read(list(columns), use_threads=use_threads).select(list(columns))


def read_combined(path: Path, columns: Sequence[str]) -> pa.Table:
    """The same, each column in one piece and read by itself: a whole row group and its copy are never held at once.

    measured: 420 -> 280 MB for the process that has read the labels of 377,110 images. Raises as ``read_rows``.
    """
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        check_columns(schema, path, columns)
        found = {name: flat(file.read([name], use_threads=False).column(0)) for name in columns}
        return pa.table(found, schema=pa.schema([schema.field(name) for name in columns]))


def read_groups(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of a table, a group of rows at a time; one without rows where there is none.

    Raises ``OSError``, ``UnreadableTableError``.
    """
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        stored, wanted = file.schema_arrow, set(columns)
        schema = pa.schema([field for field in stored if field.name in wanted])
        check_columns(stored, path, schema.names)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, schema.names, use_threads=False)
        if not file.num_row_groups:
            yield schema.empty_table()


def single_rows(path: Path, columns: Sequence[str], rows: Sequence[int]) -> list[dict[str, Any]]:
    """A few rows of a table, in this order, as dicts; 16,384 rows are held at a time.

    measured: 57 -> 16 MB of memory asked of the system for ids and paths of 377,110 images (benchmarks/scale.py).

    Raises ``OSError``, ``UnreadableTableError``, and ``KeyError`` for a row that is not there.
    """
    found, first = dict[int, dict[str, Any]](), 0
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(1 << 14, columns=list(columns), use_threads=False):
            here = {row for row in rows if first <= row < first + len(batch)}
            found.update((row, batch.slice(row - first, 1).to_pylist()[0]) for row in here)
            first += len(batch)
    return [found[row] for row in rows]


def read_schema(path: Path) -> pa.Schema:
    """The columns of a table, with its footer. Raises ``OSError``, ``UnreadableTableError``."""
    with readable(path):
        stat = path.stat()
        return _schema_in(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


# A verb asks for the schemas and footers of the same few tables again and again.
# measured: 55 -> 40 ms of CPU time for `manifest` and 212 -> 194 for `convert` of seven images, in a warm process.
@functools.lru_cache(maxsize=16)
def _schema_in(path: Path, *_state: int) -> pa.Schema:
    return pq.read_schema(path)


def count_rows(path: Path) -> int:
    """The number of rows of a table, by its footer. Raises ``OSError``, ``UnreadableTableError``."""
    with readable(path):
        return int(pq.read_metadata(path).num_rows)


def check_columns(schema: pa.Schema, path: Path, columns: Collection[str] | None = None) -> None:
    """Raise ``UnreadableTableError`` where another program wrote one of our tables: without a column, or other values.

    What means the same may be spelled otherwise: text by dictionary or not, numbers with other widths. ``columns`` are
    those that are wanted; all by default. One that no such table has is ``pa.ArrowInvalid``: another table was meant.
    """
    due, always = TABLES.get(path.stem), ALWAYS.get(path.stem, [])
    here = frozenset(schema.names)
    wrong = [f"{_LACKS} {name}" for name in (always if columns is None else columns) if name not in here]
    if other := [name for name in columns or () if name not in here and name not in always]:
        raise pa.ArrowInvalid(f"{_LACKS} {other[0]}")
    if due is None:
        return
    for field in schema if columns is None else [field for field in schema if field.name in columns]:
        place = due.get_field_index(field.name)
        wanted = due.field(place).type if place >= 0 else pa.int8() if is_own_observation(field.name) else field.type
        if _kind(field.type) not in (_kind(wanted), "nothing"):
            wrong.append(f"the column {field.name} holds {_kind(field.type)}, and not {_kind(wanted)}")
    if wrong:
        raise UnreadableTableError(
            f"{path} cannot be read: {wrong[0]}", hint=f"another program wrote it; {VERIFY_NAMES_IT}"
        )


def _kind(kind: pa.DataType) -> str:
    """What values of a type are called."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    known = (
        ("nothing", pa.types.is_null), ("numbers", pa.types.is_integer), ("numbers", pa.types.is_floating),
        ("text", pa.types.is_string), ("text", pa.types.is_large_string), ("yes or no", pa.types.is_boolean),
        ("times", pa.types.is_temporal),
    )  # fmt: skip
    for name, is_one in known:
        if is_one(kind):
            return name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"lists of {_kind(kind.value_type)}"
    return "records" if pa.types.is_struct(kind) else str(kind)


def count_nulls(path: Path, column: str) -> int:
    """The nulls of a column, by its footer; of one that this says nothing of, all rows. Raises as ``count_rows``."""
    with readable(path):
        metadata, count = pq.read_metadata(path), 0
        place = metadata.schema.names.index(column)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            stated = group.column(place).statistics
            count += stated.null_count if stated is not None and stated.has_null_count else group.num_rows
        return count


def stated_range(metadata: pq.FileMetaData, group: int, column: str) -> tuple[Any, Any] | None:
    """The least and greatest value of a column in a group of rows; ``None`` where none is stated, or a row has none."""
    names = metadata.schema.names
    stated = metadata.row_group(group).column(names.index(column)).statistics if column in names else None
    if stated is None or not stated.has_min_max or stated.null_count != 0:
        return None
    return stated.min, stated.max


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong with the table at ``path`` inside of the ``with`` is said as ``read_rows`` says it."""
    try:
        regular(path)
        yield
    except (OSError, pa.ArrowException) as error:
        # A table without a column that was asked for is another table, and not a damaged one.
        of_system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if of_system or isinstance(error, UnreadableTableError) or str(error).startswith(_LACKS):
            raise
        raise UnreadableTableError(
            f"{path} cannot be read: {str(error).strip().partition(_LINE_END)[0]}", hint=VERIFY_NAMES_IT
        ) from error


def read_footer(path: Path) -> dict[str, Any]:
    """The ``cxrprep`` object of a Parquet footer. Raises ``TableError`` for a file that cxrprep did not write."""
    try:
        metadata = read_schema(path).metadata or {}
        footer = parse_json(metadata[FOOTER_KEY])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        why = "its footer says nothing of cxrprep; pandas keeps none" if isinstance(error, KeyError) else str(error)
        raise TableError(f"{path} is not a table that cxrprep wrote: {why}", hint=_again(path)) from error
    if not isinstance(footer, dict):
        raise TableError(f"{path}: its footer is not an object", hint=_again(path))
    tables, policy = footer.get("tables") or [], footer.get("policy")
    right = {
        "source tables": isinstance(tables, list) and all(map(_is_described, tables)),
        "dataset": all(isinstance(footer.get(name) or "", str) for name in ("dataset", "release")),
        # That of report labels is another one.
        "policy": path.stem != "images" or policy is None or (isinstance(policy, dict) and set(policy) >= _POLICY),
    }
    if wrong := next((name for name, is_right in right.items() if not is_right), ""):
        raise TableError(
            f"{path}: its footer names its {wrong} in a form that cxrprep does not know", hint=_again(path)
        )
    return footer


def footer_in(file: BinaryIO) -> dict[str, Any]:
    """The same of an open file; empty for one of another make."""
    with contextlib.suppress(CxrprepError, OSError, KeyError, ValueError, pa.ArrowException):
        footer = parse_json((pq.read_schema(file).metadata or {})[FOOTER_KEY])
        return footer if isinstance(footer, dict) else {}
    return {}


def _is_described(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(table.get(name), str) for name in ("name", "digest"))


def _again(path: Path) -> str:
    """The command that makes a table again, where its name tells it."""
    verb = {"images": "manifest", "studies": "manifest", "labels": "extract-labels"}.get(path.stem)
    if verb is None or path.parent.name != "manifests":
        return "run the command that makes it again"
    if verb == "manifest" and _is_converted(path.parent):
        return CONVERT_AGAIN
    return f"make it again: cxrprep {verb} {shlex.quote(str(path.parent.parent))}"


def _is_converted(manifests: Path) -> bool:
    """Whether a table there that can be read says that its images were converted: no other verb makes these again."""
    for name in ("images.parquet", "studies.parquet"):
        with contextlib.suppress(OSError, KeyError, ValueError, pa.ArrowException, TableError):
            footer = parse_json((read_schema(manifests / name).metadata or {})[FOOTER_KEY])
            if isinstance(footer, dict) and footer.get("recipe"):
                return True
    return False


def footer_of(path: Path) -> dict[str, Any]:
    """The same; empty where there is no such file, or one of another make."""
    try:
        return read_footer(path) if path.is_file() else {}
    except TableError:
        return {}
