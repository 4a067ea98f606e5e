"""Images converted as they arrive, with their originals dropped: nothing is fetched or made twice."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.convert.commands import run, tree
from tests.datasets import nih_chestxray14


@pytest.mark.slow
def test_a_small_copy_without_room_for_the_large_one(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    nih_chestxray14.write(mirror, size=256)
    words = ("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    code, _, said = run(*words)
    assert code == 0, said
    assert not list((root / "images").glob("*.png"))
    out = root / "derived/square-224"
    rows = pq.read_table(out / "manifests/images.parquet").to_pylist()
    assert len(rows) == 7
    assert all((out / row["path"]).is_file() and row["source_digest"] for row in rows)
    before = tree(out)
    code, _, said = run(*words)
    assert code == 0, said
    assert tree(out) == before
    # The same as converting from a whole copy.
    code, _, said = run(
        "convert", mirror, "--recipe", "square-224", "--out", tmp_path / "whole", "--state", tmp_path / "s"
    )
    assert code == 0, said
    made = {name: digest for name, digest in before.items() if name.endswith(".png")}
    assert made == {name: digest for name, digest in tree(tmp_path / "whole").items() if name.endswith(".png")}
