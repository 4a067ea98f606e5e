"""Rows on the disk answer as those of a table in memory do, whatever was chosen of them and wherever groups end."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.storage.table_on_disk import TableOnDisk

WORDS = ["a", "b", None, "c", "b", "b", None, "d", "e", "a"]
TABLE = pa.table(
    {
        "place": list(range(10)),
        "word": pa.array(WORDS).dictionary_encode(),
        "boxes": [None if place % 3 else [{"x": float(place)}] for place in range(10)],
    }
)


@pytest.mark.parametrize("group", [1, 3, 10])
@pytest.mark.parametrize("seed", range(4))
def test_columns_slices_and_chosen_rows_are_those_of_the_table(tmp_path, group, seed):
    pq.write_table(TABLE, tmp_path / "held.parquet", row_group_size=group)
    ours, theirs, chance = TableOnDisk.open(tmp_path / "held.parquet"), TABLE, random.Random(seed)
    for step in range(4):
        assert (ours.num_rows, ours.column_names) == (theirs.num_rows, theirs.column_names)
        for start in range(ours.num_rows + 1):
            for count in (0, 1, 4, 20):
                assert ours.slice(start, count).to_pylist() == theirs.slice(start, count).to_pylist()
        assert ours.select(["word", "place"]).to_pylist() == theirs.select(["word", "place"]).to_pylist()
        assert ours.column("boxes").to_pylist() == theirs.column("boxes").to_pylist()
        assert ours.whole().to_pylist() == theirs.to_pylist()
        mask = pa.array([chance.choice([True, True, False, None]) for _ in range(theirs.num_rows)], pa.bool_())
        if step % 2:
            wanted = pa.array(theirs.filter(mask)["place"].to_pylist(), pa.int64())
            ours = ours.where(["place"], lambda rows, wanted=wanted: pa.compute.is_in(rows["place"], value_set=wanted))
        else:
            ours = ours.filter(pa.chunked_array([mask]))
        theirs = theirs.filter(mask)


def test_a_table_without_rows_has_its_columns(tmp_path):
    pq.write_table(TABLE.slice(0, 0), tmp_path / "held.parquet")
    ours = TableOnDisk.open(tmp_path / "held.parquet")
    for found in (ours.whole(), ours.slice(0, 5), ours.filter(pa.chunked_array([], pa.bool_())).whole()):
        assert (found.num_rows, found.schema.types) == (0, TABLE.schema.types)


def test_groups_that_have_none_of_the_values_are_not_read(tmp_path):
    class Counted:
        def __init__(self, file):
            self.metadata, self._file, self.read = file.metadata, file, []

        def read_row_group(self, number, names, **words):
            self.read.append(number)
            return self._file.read_row_group(number, names, **words)

    places = [1, 2, 5, 6, 8, 9, 9, None]
    pq.write_table(pa.table({"place": places, "word": list("abcdefgh")}), tmp_path / "held.parquet", row_group_size=2)
    held = TableOnDisk.open(tmp_path / "held.parquet")
    held.file = file = Counted(held.file)
    assert held.among("place", pa.array([6, 7])).column("word").to_pylist() == ["d"]
    # Of the last group a row without a place may be looked for.
    assert set(file.read) == {1, 3}
    assert held.near("place", pa.array([3, 9])).column("word").to_pylist() == list("efgh")
