"""How tables are written: groups of rows made of parts, and columns of many words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.storage.parquet import row_groups, write_table


@pytest.mark.parametrize("size", [300, 1000, 2500])
def test_parts_are_let_go_before_their_group_is_written(size: int) -> None:
    """What is in memory is a group, what is left over of the last part, and the group before."""

    def tables() -> Iterator[pa.Table]:
        for start in range(0, 6000, size):
            rows = range(start, min(start + size, 6000))
            yield pa.table({"path": [f"{row:06d}" * 100 for row in rows]})

    before, found = pa.total_allocated_bytes(), list[str]()
    for group in row_groups(tables(), 1000):
        assert pa.total_allocated_bytes() - before < 2.1 * group.nbytes + size * 600
        assert (group.num_rows, group["path"].num_chunks) == (1000, 1)
        found += group["path"].to_pylist()
    assert found == [f"{row:06d}" * 100 for row in range(6000)]


@pytest.mark.parametrize(("length", "coded"), [(4, True), (400, False)])
def test_words_that_fill_a_page_of_their_own_are_not_written_into_each_group(
    tmp_path: Path, length: int, *, coded: bool
) -> None:
    """Of a column of many long words each group of rows held all: labels of MIMIC-CXR-JPG were a seventh larger."""
    words = pa.array([f"{row:04d}".ljust(length, "x") for row in range(4000)])
    column = pa.DictionaryArray.from_arrays(pa.array(range(4000), pa.int32()), words)
    path = tmp_path / "labels.parquet"
    write_table(pa.table({"raw_time": column}), path, name="labels")
    read = pq.ParquetFile(path)
    assert ("RLE_DICTIONARY" in read.metadata.row_group(0).column(0).encodings) is coded
    assert read.read().column(0).to_pylist() == words.to_pylist()
    assert pa.types.is_dictionary(read.schema_arrow.field(0).type)
