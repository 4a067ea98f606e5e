"""What pixels of files show is known as long as the files stay as they are, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrprep.manifest import pixel_cache
from cxrprep.manifest.pixel_cache import PixelCache


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "_ROWS", 3)


def signs(*numbers: int, sign: str = "a") -> dict[str, str]:
    return {f"{number:02}.png": f"{sign}{number}" for number in numbers}


def shown(*numbers: int, sign: str = "a") -> dict[str, str]:
    return {path: f"sha256:{each}" for path, each in signs(*numbers, sign=sign).items()}


def test_what_was_saved_is_known_of_files_with_the_same_sign(tmp_path: Path) -> None:
    path = tmp_path / "pixels.parquet"
    # Not in order of path, in several calls, and one file again with another sign.
    for numbers, sign in (((9, 2, 7, 4), "a"), ((1, 8, 3), "a"), ((7, 5), "b")):
        cache = PixelCache(path)
        cache.add(signs(*numbers, sign=sign), shown(*numbers, sign=sign))
        cache.save()
    cache = PixelCache(path)
    assert cache.known(signs(*range(12))) == shown(1, 2, 3, 4, 8, 9)
    assert cache.known(signs(7, 5, 4, sign="b")) == shown(5, 7, sign="b")
    assert cache.known({}) == {}
    # Saved without news it stays as it is.
    before = path.stat().st_mtime_ns
    cache.save()
    assert path.stat().st_mtime_ns == before


def test_it_is_saved_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pixels.parquet"
    cache = PixelCache(path)
    cache.add(signs(1), shown(1))
    assert not path.exists()
    monkeypatch.setattr(cache, "_pause", 0.0)
    cache.add(signs(2), shown(2))
    # The process is killed here.
    assert PixelCache(path).known(signs(1, 2)) == shown(1, 2)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 1000, "cut", "another table"], ids=str)
def test_a_damaged_one_is_empty_and_is_written_again(tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "pixels.parquet"
    cache = PixelCache(path)
    cache.add(signs(*range(40)), shown(*range(40)))
    cache.save()
    if damage == "another table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"path": ["00.png"], "sign": [1]}), path)
    else:
        path.write_bytes(path.read_bytes()[:-9] if isinstance(damage, str) else damage)
    cache = PixelCache(path)
    assert cache.known(signs(0, 39)) == {}
    cache.add(signs(5), shown(5))
    cache.save()
    assert PixelCache(path).known(signs(4, 5)) == shown(5)


def test_without_a_place_nothing_is_kept(tmp_path: Path) -> None:
    cache = PixelCache(None)
    cache.add(signs(1), shown(1))
    cache.save()
    assert (cache.known(signs(1)), [*tmp_path.iterdir()]) == ({}, [])
