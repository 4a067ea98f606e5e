"""Sorted tables: what was written in any order comes back in order, from memory or from the disk."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from cxrprep.errors import StorageError
from cxrprep.storage import sorted_tables
from cxrprep.storage.sorted_tables import SortedTable


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_tables, "_RUN_ROWS", 50)
    monkeypatch.setattr(sorted_tables, "_BLOCK_ROWS", 7)


def written(rows: list[tuple[str, int | None]], many: int = 13) -> SortedTable:
    table = SortedTable.of({"path": "string", "number": "int64"}, "path")
    for start in range(0, len(rows), many):
        table.add_rows(rows[start : start + many])
    return table


@pytest.mark.parametrize("order", ["sorted", "reversed", "mixed"])
@pytest.mark.parametrize("count", [0, 1, 49, 50, 1000])
def test_rows_come_back_in_order_and_those_of_one_key_as_they_came(order: str, count: int) -> None:
    rows: list[tuple[str, int | None]] = [(f"p{number // 3:05}/é.jpg", number) for number in range(count)]
    if order == "reversed":
        rows.reverse()
    elif order == "mixed":
        random.Random(3).shuffle(rows)
    table = written(rows)
    due = sorted(rows, key=lambda row: row[0])
    assert list(table.rows()) == due == list(table.rows())
    assert table.num_rows == count


def test_two_readers_side_by_side_do_not_disturb_each_other() -> None:
    table = written([(f"{number:05}", number) for number in range(500)])
    assert [one == other for one, other in zip(table.rows(), table.rows(), strict=True)] == [True] * 500


def test_rows_of_runs_that_overlap_are_merged_a_block_at_a_time() -> None:
    table = written([(f"{number % 100:03}", number) for number in range(1000)])
    sizes = [part.num_rows for part in table.tables(["path"])]
    assert sum(sizes) == 1000
    assert max(sizes) < 400
    paths = [path for path, _ in table.rows()]
    assert all(one <= other for one, other in pairwise(paths))


def test_a_full_disk_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match="No space left"):
        written([(str(number), number) for number in range(60)])
