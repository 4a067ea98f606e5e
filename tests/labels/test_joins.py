"""Keys of rows: the same as Python's own sets, dictionaries and comparisons say."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from cxrprep.labels.joins import all_distinct, are_in, positions, rises

WORDS = {
    "eight characters": [f"5{number:07}" for number in range(60)],
    "image ids": ["-".join(f"{number * k:08x}" for k in (1, 3, 5, 7, 9)) for number in range(60)],
    "of any length": ["", "a", "ab", *map(str, range(57))],
    "with a null": [None, *map(str, range(59))],
}


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("seed", range(5))
def test_rows_of_keys(kind, seed):
    rng = random.Random(seed)
    keys, among = (rng.choices(WORDS[kind], k=rng.randrange(80)) for _ in range(2))
    for held in (among, keys, WORDS[kind]):
        chunks = pa.chunked_array([held[:7], held[7:]], pa.string())
        first = {key: row for row, key in reversed([*enumerate(held)])}
        assert positions(pa.array(keys, pa.string()), chunks).to_pylist() == [first.get(key) for key in keys]
        assert are_in(pa.array(keys, pa.string()), chunks).to_pylist() == [key in first for key in keys]
        assert all_distinct(chunks) == (len(first) == len(held))
        assert all_distinct(pa.array([*held, *held], pa.string())[3:]) == (len(set(held)) == len([*held, *held][3:]))


def test_rows_rise_by_several_columns():
    rows = [("a", 1), ("a", 2), ("b", 0)]
    table = pa.table({"x": pa.array([x for x, _ in rows]).dictionary_encode(), "y": [y for _, y in rows]})
    assert rises(table, ["x", "y"])
    assert not rises(table, ["y", "x"])
    assert not rises(pa.concat_tables([table, table]).unify_dictionaries(), ["x", "y"])
    assert not rises(table.slice(0, 2), ["x"])
