"""Scores of orientation and polarity at conversion; negatives are made positive only when somebody asks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.executors import Engine
from tests.parts import shared_data

SCORES = ["inverted_score", "turned_score", "turned_degrees", "mirrored_score", "structure"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A radiograph, its negative, and one on its head, a little higher than wide."""
    root = tmp_path / "in"
    root.mkdir()
    grey = cv2.imread(str(sorted(shared_data().rglob("*.png"))[5]), cv2.IMREAD_GRAYSCALE)[:, 20:-20]
    for name, pixels in (("right", grey), ("inverted", 255 - grey), ("turned", np.rot90(grey, 2))):
        cv2.imwrite(str(root / f"{name}.png"), pixels)
    return root


def _convert(root: Path, out: Path, **options: object) -> cxrprep.ConvertResult:
    return cxrprep.convert(root, recipe="square-224", out=out, engine=Engine("inline"), **options).value


def _rows(out: Path) -> dict[str, dict]:
    rows = pq.read_table(out / "manifests/images.parquet", columns=["source_path", "notes", *SCORES]).to_pylist()
    return {row.pop("source_path").partition(".")[0]: row for row in rows}


def test_scores_are_columns_when_asked_and_stay(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _convert(folder, out)
    assert {row[name] for row in _rows(out).values() for name in SCORES} == {None}
    plain = {path.name: path.read_bytes() for path in out.glob("*.png")}
    # Asked of images that are done: they are looked at, and show what they showed.
    assert _convert(folder, out, scores=True).converted == 3
    rows = _rows(out)
    assert rows["inverted"]["inverted_score"] > 0.5 > rows["right"]["inverted_score"]
    assert rows["turned"]["turned_score"] > 0.5 > rows["right"]["turned_score"]
    assert rows["turned"]["turned_degrees"] == 180
    assert rows["right"]["notes"] == []
    assert rows["inverted"]["notes"] == ["inverted? bones look dark"]
    for name, data in plain.items():
        assert np.array_equal(
            *(cv2.imdecode(np.frombuffer(d, np.uint8), -1) for d in (data, (out / name).read_bytes()))
        )
    # What was asked once is known afterwards, by the cache and without it.
    for asked in ({"scores": True}, {}):
        assert _convert(folder, out, **asked).kept == 3
        assert _rows(out) == rows
    for cache in out.rglob("finished.parquet"):
        cache.unlink()
    assert _convert(folder, out).kept == 3
    assert _rows(out) == rows


def test_a_negative_is_made_positive_only_when_asked(folder: Path, tmp_path: Path) -> None:
    plain, fixed = tmp_path / "plain", tmp_path / "fixed"
    first, second = _convert(folder, plain), _convert(folder, fixed, fix=["inverted"])
    assert first.fingerprint != second.fingerprint
    right, wrong, mended = (
        cv2.imread(str(path), -1) for path in (plain / "right.png", plain / "inverted.png", fixed / "inverted.png")
    )
    assert np.abs(mended.astype(int) - right).max() <= 1 < np.abs(wrong.astype(int) - right).max()
    assert (fixed / "right.png").read_bytes() != b""
    assert np.array_equal(cv2.imread(str(fixed / "right.png"), -1), right)
    rows = _rows(fixed)
    assert rows["inverted"]["notes"] == ["inverted, and made its negative as asked"]
    assert rows["inverted"]["inverted_score"] > 0.5
    assert rows["turned"]["notes"] == ["turned by 180 degrees?"]
    with pytest.raises(UsageError, match="'mirrored' is nothing that can be fixed"):
        _convert(folder, tmp_path / "no", fix=["mirrored"])


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
def test_samples_of_shards_say_how_images_came_out(folder: Path, tmp_path: Path, to: str) -> None:
    import json
    import tarfile

    out = tmp_path / "out"
    _convert(folder, out, to=to, scores=True)
    shard = next(path for path in out.rglob("*.tar" if to == "webdataset" else "data/*.parquet"))
    if to == "parquet":
        samples = pq.read_table(shard).drop(["image"]).to_pylist()
    else:
        with tarfile.open(shard) as archive:
            samples = [json.load(archive.extractfile(one)) for one in archive if one.name.endswith(".json")]
    rows = _rows(out)
    for sample in samples:
        row = rows[sample["source_path"].partition(".")[0]]
        assert sample["notes"] == row["notes"]
        assert sample["inverted_score"] == pytest.approx(row["inverted_score"])
        assert sample["contrast"] > 0
        assert sample["codec"] == "PNG"
