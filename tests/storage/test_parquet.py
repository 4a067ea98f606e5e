"""Groups of rows made of parts: the same rows, and no part held beside the group that it went into."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from cxrprep.storage.parquet import row_groups


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
