"""Columns as numbers: what is read from their memory is what pyarrow says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.storage.parquet import single_rows
from cxrprep.storage.value_codes import numbers, stated, take_rows, value_codes, with_codes

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = [
    pa.array([1, None, -1, 0, None, 7, 8, 9, None, 3], pa.int8()),
    pa.array([1.5, None, float("nan")] * 4, pa.float32()),
    pa.array([None] * 9, pa.int32()),
    pa.array([], pa.int64()),
    pa.nulls(4),
    pa.array(range(20), pa.int32()),
    pa.array(["b", None, "a", "b"] * 3),
    pa.array(["b", None, "a", "b"] * 3).dictionary_encode(),
]


def test_first_rows_are_in_order_and_values_that_no_row_has_have_none() -> None:
    places = pa.array([3, None, 1, 3, 1, 0], pa.int32())
    column = pa.DictionaryArray.from_arrays(places, pa.array(["a", "b", "of no row", "d"]))
    assert value_codes(column).first_rows().tolist() == [0, 2, 5]
    assert value_codes(pa.array([], pa.string())).first_rows().tolist() == []


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_part_of_a_column_is_read_from_where_it_starts(column: pa.Array, start: int) -> None:
    part = column[start:]
    chunked = pa.chunked_array([part[:2], part[2:]])
    assert stated(part).tolist() == stated(chunked).tolist() == [value is not None for value in part.to_pylist()]
    if not pa.types.is_string(column.type) and not pa.types.is_dictionary(column.type):
        due = [-5.0 if value is None else value for value in part.to_pylist()]
        assert repr(numbers(chunked, -5).astype(float).tolist()) == repr([float(value) for value in due])
    codes = value_codes(part)
    words = [*codes.values.to_pylist(), None]
    assert repr([words[at] for at in codes.at.tolist()]) == repr(part.to_pylist())


def test_rows_that_follow_each_other_and_others() -> None:
    table = pa.table({"n": pa.array(range(10))})
    assert take_rows(table, [3, 4, 5])["n"].to_pylist() == [3, 4, 5]
    assert take_rows(table, [5, 3, 5])["n"].to_pylist() == [5, 3, 5]
    assert take_rows(table, [])["n"].to_pylist() == []
    blank = pa.table({"n": pa.nulls(4, pa.int8()), "text": pa.array(["a", "b", None, "d"])})
    assert take_rows(blank, [3, 0]).equals(blank.take([3, 0]))
    assert take_rows(blank, [3, 0, 2, 2, 3, 1]).equals(blank.take([3, 0, 2, 2, 3, 1]))


@pytest.mark.parametrize(
    "ids",
    [
        *([[f"p{n // 3:08d}" for n in range(30)], [f"image-{n:06d}.png" for n in range(8)]]),
        *([[f"s{n % 5:08d}" for n in range(20)], [f"p{n:08d}" for n in (3, 3, 4, 3)], ["12345678é"] * 3]),
        *([["ab", "cd"], ["p1234567", "p12345678"], ["b", None, "a", "b", None], [None] * 5, []]),
    ],
    ids=["runs", "each-another", "again", "returns", "letters", "short", "widths", "blank", "nothing", "empty"],
)
@pytest.mark.parametrize("mixing", [True, False], ids=["mixed", "all-mixed-alike"])
def test_ids_are_coded_as_arrow_codes_them(
    ids: list[str | None], mixing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not mixing:
        monkeypatch.setattr("cxrprep.storage.value_codes._ODD", np.uint64(0))
    column = pa.array([None, *ids, None], pa.string()).slice(1, len(ids))
    codes, due = value_codes(column), column.dictionary_encode()
    assert codes.values.to_pylist() == due.dictionary.to_pylist()
    assert codes.at.tolist() == due.indices.fill_null(-1).to_pylist()


_IDS: Final = [f"s{n // 2:07d}" for n in range(10)]


@pytest.mark.parametrize(
    ("sources", "ids"),
    [
        ("aaabbb", ["x", "y", "x"] * 2),
        ("a" * 10 + "b" * 10 + "c" * 10, _IDS * 3),
        ("a" * 10 + "b" * 10 + "c" * 4, [*_IDS * 2, "s0000009", "s0000003", None, "s0000009"]),
        ("a" * 10 + "b" * 10 + "c" * 2, [*_IDS * 2, "s0000001", "s0000000"]),
        ("a" * 10 + "b" * 10, [*_IDS, *_IDS[:9], "s0000008"]),
        ("aabb", [None, "x", None, "x"]),
        ("a" + "b" * 40, ["x"] * 41),
        ("ababab", ["x", "y", "x", None, "z", "x"]),
        ("", []),
    ],
    ids=["twice", "thrice", "more-behind", "a-part-behind", "nearly-again", "blank", "one-id", "in-turn", "empty"],
)
def test_ids_of_sources_that_name_the_same_images_are_the_same_ids(sources: str, ids: list[str | None]) -> None:
    table = pa.table({"label_source": pa.array([*sources], pa.string()), "id": pa.array(ids, pa.string())})
    coded = with_codes(table, ["id"])["id"]
    assert coded.to_pylist() == ids
    values = coded.chunk(0).dictionary.to_pylist() if len(ids) else []
    assert values == list(dict.fromkeys(value for value in ids if value is not None))


def test_single_rows_come_in_the_order_that_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(10), "other": range(10)}), path, row_group_size=4)
    assert single_rows(path, ["n"], [9, 0, 4, 0]) == [{"n": n} for n in (9, 0, 4, 0)]
    assert single_rows(path, ["n"], []) == []


def test_counts_beside_are_those_of_the_rows() -> None:
    splits, sexes = pa.array(["a", "b", "a", None, None]), pa.array(["F", None, "F", "M", None])
    counts = value_codes(splits).counts_beside(value_codes(sexes))
    assert counts.tolist() == [[2, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert value_codes(splits).rows_of(["a", "c"]).tolist() == [0, 2]
