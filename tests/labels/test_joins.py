"""Keys of rows: the same as Python's own sets, dictionaries and comparisons say."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from cxrprep.labels.joins import (
    all_distinct,
    are_eight_digits,
    are_in,
    differs_from_last,
    order_by_both,
    positions,
    rises,
)

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


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("seed", range(5))
def test_rows_in_order_and_steps_between_them(kind, seed):
    rng = random.Random(seed)
    words = sorted(word for word in WORDS[kind] if word is not None)
    rows = [(x, y, z) for x in "ab" for y in sorted(rng.sample(words, 4)) for z in sorted(rng.sample(words, 3))]
    for changed in (None, rng.randrange(len(rows) - 1)):
        if changed is not None:
            rows[changed], rows[changed + 1] = rows[changed + 1], rows[changed]
        columns = [pa.chunked_array([column[:5], column[5:]], pa.string()) for column in zip(*rows, strict=True)]
        table = pa.table([columns[0].dictionary_encode(), *columns[1:]], names="xyz")
        assert rises(table, "xyz") == (changed is None)
        assert not rises(table, "xy")
        for column in (*columns, table.column("x")):
            values = column.to_pylist()
            steps = [one != other for one, other in itertools.pairwise(values)]
            assert differs_from_last(column).tolist() == steps
    assert not rises(pa.table({"x": pa.chunked_array([[*words[:3], None]], pa.string())}), ["x"])


@pytest.mark.parametrize("letter", range(128))
def test_eight_digits(letter):
    """Each letter at each place of a study; the ones that hexadecimal numbers, signs and blanks have among them."""
    for place in range(8):
        study = "50414267"[:place] + chr(letter) + "50414267"[place + 1 :]
        column = pa.array(["50000000", study, "59999999"])
        assert are_eight_digits(column, "5") is (study[0] == "5" and study.isdecimal() and study.isascii()), study
    assert not are_eight_digits(pa.array(["5041426\u00e9", "50414267"]), "5")
    assert not are_eight_digits(pa.array(["50414267", None]), "5")
    assert not are_eight_digits(pa.array(["504142678", "504142678"]), "5")
    assert are_eight_digits(pa.array(["60000000", "50414267"]).slice(1), "5")


@pytest.mark.parametrize("span", [1, 5, 1 << 40, 1 << 62])
def test_order_by_owner_and_moment(span):
    """Also where both together are no number of 64 bits."""
    rng = random.Random(span)
    owner = [rng.randrange(9) for _ in range(200)]
    moment = [rng.randrange(-span, span) for _ in range(200)]
    found = order_by_both(np.array(owner), np.array(moment))
    assert found.tolist() == sorted(range(200), key=lambda row: (owner[row], moment[row]))
