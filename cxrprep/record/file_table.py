"""``cxrprep.files.parquet``: a row per file, sorted by path, held as columns.

Four hundred thousand files take about 60 MB as columns; as Python objects they would take half a gigabyte.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import operator
from array import array
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import storage_errors
from cxrprep.model import Digest
from cxrprep.record.entry import FileEntry
from cxrprep.storage.atomic import replace_file
from cxrprep.storage.paths import UNSAFE_PATTERN, first_unsafe
from cxrprep.storage.small_files import open_file
from cxrprep.system import FILES_IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

_FEW_ROWS: Final = 50_000
ROW_GROUP: Final = 65_536
"""Rows that are written and read together."""
LARGE: Final = FILES_IN_MEMORY
"""From so many rows on they stay on the disk: a million took 300 MiB, whatever was asked."""
# Paths and digests hardly repeat: a dictionary of them would only cost time. Of pages the writer holds some for each
# column; measured: +7 -> +0 MiB at the peak of writing 20,000 rows, in the same time, with pages of 64 KiB for 1 MiB.
_FORM: Final[dict[str, Any]] = {
    "compression": "zstd",
    "data_page_size": 65_536,
    "use_dictionary": ["origin", "state", "archive"],
    "write_statistics": False,
}
STATE_KEY: Final = b"cxrprep"
"""What the metadata calls the state that ``write`` is given."""
_DESCRIPTIONS: Final = {
    "path": "release path under the root, / separated",
    "size": "size in bytes",
    "digest": "algorithm:hexadecimal; null where nothing has been read yet",
    "origin": "where the digest comes from: published, transport, first-read",
    "state": "here, or discarded on purpose after use",
    "source_key": "name at the mirror; null when it is the path",
    "validator": "the mirror's ETag, generation or modification mark at that time",
    "archive": "the archive that the file was unpacked from",
    "fetched": "whether cxrprep put the file there; one that was here already (null or false) is never removed",
    "mtime_ns": "when cxrprep wrote the file, in nanoseconds since 1970; a file with another time is never removed",
}


def schema() -> pa.Schema:
    """The columns of the file table, with a description on each."""
    import pyarrow as pa

    few = pa.dictionary(pa.int32(), pa.string())
    types = {
        "size": pa.int64(),
        "origin": few,
        "state": few,
        "archive": few,
        "fetched": pa.bool_(),
        "mtime_ns": pa.int64(),
    }
    required = {"path", "size", "origin", "state"}
    return pa.schema(
        [
            pa.field(
                name, types.get(name, pa.string()), nullable=name not in required, metadata={"description": description}
            )
            for name, description in _DESCRIPTIONS.items()
        ]
    )


def load_library() -> None:
    """Load what ``write`` needs."""
    import pyarrow.parquet  # noqa: F401


def empty() -> pa.Table:
    """A table of no files."""
    import pyarrow as pa

    return pa.Table.from_batches([], schema=schema())


def from_entries(entries: Iterable[FileEntry]) -> pa.Table:
    """The table of these entries, in their order."""
    import pyarrow as pa

    rows = list(entries)
    columns = {
        "path": texts([row.path for row in rows]),
        "size": pa.Array.from_buffers(
            pa.int64(), len(rows), [None, pa.py_buffer(array("q", [row.size for row in rows]).tobytes())]
        ),
        "digest": texts([None if row.digest is None else str(row.digest) for row in rows]),
        "origin": _few([row.origin.value for row in rows]),
        "state": _few([row.state.value for row in rows]),
        "source_key": texts([None if row.source_key == row.path else row.source_key or None for row in rows]),
        "validator": texts([row.validator for row in rows]),
        "archive": _few([row.archive for row in rows]),
        "fetched": pa.Array.from_buffers(pa.bool_(), len(rows), [None, _bits([row.fetched for row in rows])]),
        "mtime_ns": _times([row.mtime_ns for row in rows]),
    }
    wanted = schema()
    return pa.Table.from_arrays([columns[name] for name in wanted.names], schema=wanted)


def _times(values: Sequence[int | None]) -> pa.Array:
    import pyarrow as pa

    filled = array("q", [0 if value is None else value for value in values])
    return pa.Array.from_buffers(pa.int64(), len(values), [_known(values), pa.py_buffer(filled.tobytes())])


def texts(values: Sequence[str | None]) -> pa.StringArray:
    """A column of text. Made from buffers: ``pa.array`` would load pandas, which takes longer than a small download."""
    import pyarrow as pa

    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = array("i", [0, *itertools.accumulate(map(len, encoded))])
    buffers = [_known(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _few(values: Sequence[str | None]) -> pa.DictionaryArray:
    """A column of few different words. Made from buffers too: ``dictionary_encode`` would load pyarrow.compute."""
    import pyarrow as pa

    words = list(dict.fromkeys(value for value in values if value is not None))
    numbers = {word: number for number, word in enumerate(words)}
    indices = array("i", [0 if value is None else numbers[value] for value in values])
    column = pa.Array.from_buffers(pa.int32(), len(values), [_known(values), pa.py_buffer(indices.tobytes())])
    return pa.DictionaryArray.from_arrays(column, texts(words))


def _known(values: Sequence[str | int | None]) -> pa.Buffer | None:
    """Which values are known; ``None`` when all are."""
    return _bits([value is not None for value in values]) if None in values else None


def _bits(flags: Sequence[bool]) -> pa.Buffer:
    """One bit a row, the first row in the lowest one."""
    import pyarrow as pa

    digits = "".join("1" if flag else "0" for flag in reversed(flags))
    return pa.py_buffer(int(digits or "0", 2).to_bytes((len(flags) + 7) // 8, "little"))


def merge(table: pa.Table, changes: Mapping[str, FileEntry | None]) -> pa.Table:
    """``table`` with ``changes`` applied, sorted by path; ``None`` takes a file out."""
    import pyarrow as pa

    if not changes:
        return table
    if not table.num_rows:
        # Plain Python is done before pyarrow.compute is loaded.
        return from_entries(entry for _, entry in sorted(changes.items()) if entry is not None)
    import pyarrow.compute as pc

    # Rows before the first change stay where they are: a folder that is adopted comes in order of path, and would be
    # copied and sorted whole for every some thousands of files.
    first = _place_of(table, min(changes))
    later = table.slice(first)
    later = later.filter(pc.invert(pc.is_in(later["path"], value_set=texts(list(changes)))))
    added = from_entries(entry for entry in changes.values() if entry is not None)
    changed = pa.concat_tables([later, added]).unify_dictionaries().sort_by("path")
    return pa.concat_tables([table.slice(0, first), changed]).unify_dictionaries()


def size_of(table: pa.Table) -> int:
    """The bytes of all files together."""
    if table.num_rows <= _FEW_ROWS:
        return sum(table["size"].to_pylist())
    import pyarrow.compute as pc

    return int(pc.sum(table["size"]).as_py())


def rows(table: pa.Table, names: Sequence[str], size: int = 4096) -> Iterator[tuple[Any, ...]]:
    """The values of these columns, row by row, some thousands of rows in memory at a time."""
    for batch in table.select(list(names)).to_batches(max_chunksize=size):
        yield from zip(*(_values(batch.column(number)) for number in range(len(names))), strict=True)


def _values(column: pa.Array) -> list[Any]:
    """``column.to_pylist()``, which looks each row of a dictionary up by itself, at forty times the cost."""
    import pyarrow as pa

    if column.null_count == len(column):
        return [None] * len(column)
    if not isinstance(column, pa.DictionaryArray):
        return list(column.to_pylist())
    words = column.dictionary.to_pylist()
    return [None if number is None else words[number] for number in column.indices.to_pylist()]


def find_entry(table: pa.Table, path: str) -> FileEntry | None:
    """The entry of ``path`` in a sorted table, or ``None``; a binary search, so nothing is held beside the columns."""
    row = _place_of(table, path) if table.num_rows else 0
    if row == table.num_rows or table["path"][row].as_py() != path:
        return None
    return FileEntry.from_row({name: table[name][row].as_py() for name in _DESCRIPTIONS})


def _place_of(table: pa.Table, path: str) -> int:
    """The row of ``path`` in a sorted table, or the one before which it would stand."""
    return bisect.bisect_left(table["path"], path, key=operator.methodcaller("as_py"))


def write(table: pa.Table, path: Path, state: Mapping[str, Any], check: Callable[[], None] | None = None) -> Digest:
    """Write the table of a record.

    Args:
        table: Its rows.
        path: The file.
        state: Words for its metadata.
        check: Asked before the file gets its name: see ``replace_file``.

    Returns:
        The digest of the file.

    Raises:
        StorageError: The disk refuses.
    """
    import pyarrow.parquet as pq

    table = table.replace_schema_metadata({STATE_KEY: json.dumps(state).encode()})
    replace_file(path, lambda part: pq.write_table(table, part, row_group_size=ROW_GROUP, **_FORM), check)
    return digest_of(path)


def writer(path: Path, state: Mapping[str, Any]) -> Any:
    """What writes such a file row group by row group: a context."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema().with_metadata({STATE_KEY: json.dumps(state).encode()}), **_FORM)


def digest_of(path: Path) -> Digest:
    """The SHA-256 of the file. Raises ``StorageError`` when it cannot be read."""
    with storage_errors(path, "read"), open_file(path) as file:
        return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())


def as_stated(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """``table`` with the columns of the schema, or some of them; earlier versions wrote fewer."""
    import pyarrow as pa

    wanted = schema()
    if columns is not None:
        wanted = pa.schema([wanted.field(name) for name in columns])
    for name in ("fetched", "mtime_ns"):
        if name in wanted.names and name not in table.column_names:
            table = table.append_column(wanted.field(name), pa.nulls(table.num_rows, wanted.field(name).type))
    table = table.select(wanted.names)
    return table.replace_schema_metadata(None) if table.schema.equals(wanted) else table.cast(wanted)


def unsafe_path(table: pa.Table) -> str | None:
    """A path in ``table`` that would leave the root, if there is one. Raises ``ValueError`` for rows that are none."""
    paths, sizes = table["path"], table["size"]
    if paths.null_count or sizes.null_count:
        raise ValueError("a row without path or size")
    if table.num_rows <= _FEW_ROWS:
        # As in ``merge``: plain Python is done before pyarrow.compute is loaded.
        texts = paths.to_pylist()
        if any(size < 0 for size in sizes.to_pylist()):
            raise ValueError("a row with a negative size")
        if not all(map(operator.lt, texts, itertools.islice(texts, 1, None))):
            raise ValueError("rows out of order")
        return first_unsafe(texts)
    import pyarrow.compute as pc

    if pc.min(sizes).as_py() < 0:
        raise ValueError("a row with a negative size")
    if not pc.all(pc.less(paths[:-1], paths[1:])).as_py():
        raise ValueError("rows out of order")
    unsafe = paths.filter(pc.match_substring_regex(paths, UNSAFE_PATTERN))
    return str(unsafe[0].as_py()) if len(unsafe) else None
