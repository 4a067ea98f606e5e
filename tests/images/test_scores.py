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
from cxrprep.images.decode import decode
from tests.parts import shared_data

SCORES = [
    "inverted_score", "turned_score", "turned_degrees", "mirrored_score", "structure",
    "not_frontal_score",
]  # fmt: skip


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
    asked = _convert(folder, out, scores=True)
    assert (asked.converted, asked.scores.inverted, asked.scores.turned) == (3, 1, 1)
    rows = _rows(out)
    assert rows["inverted"]["inverted_score"] > 0.5 > rows["right"]["inverted_score"]
    assert rows["turned"]["turned_score"] > 0.5 > rows["right"]["turned_score"]
    assert rows["turned"]["turned_degrees"] == 180
    assert rows["right"]["notes"] == []
    assert rows["inverted"]["notes"] == ["inverted? bones look dark"]
    made = cxrprep.report(out).value
    assert made.scores.words() == "of 3 images, 1 look inverted, 1 turned, 0 blank; 0% look mirrored"
    worst = made.worst["inverted_score"]
    assert (worst[0]["path"], worst[0]["value"]) == ("inverted.png", pytest.approx(rows["inverted"]["inverted_score"]))
    assert "Most like a negative" in made.path.read_text()
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


def test_verify_tells_the_scores_of_what_it_decodes(folder: Path) -> None:
    cxrprep.build_manifest(folder)
    report = cxrprep.verify(folder, images=True, engine=Engine("inline")).value
    found = report.as_dict()["images"]["scores"]
    assert {name: found[name] for name in ("scored", "inverted", "turned", "blank", "is_mirrored_batch")} == {
        "scored": 3, "inverted": 1, "turned": 1, "blank": 0, "is_mirrored_batch": False
    }  # fmt: skip
    assert found["worst"]["inverted_score"][0]["path"] == "inverted.png"
    assert found["worst"]["turned_score"][0]["value"] > 0.6
    assert any("of 3 images, 1 look inverted" in text for _, text in report.rows())


def test_images_are_left_out_by_their_measures(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _convert(folder, out, scores=True)
    good = ["inverted_score<0.5", "turned_score<=0.6", "contrast>=0.05"]
    assert cxrprep.load(out, where=good).to_arrow()["source_path"].to_pylist() == ["right.png"]
    exported = cxrprep.export(out, form="csv", out=tmp_path / "csv", where="inverted_score<0.5").value
    assert exported.images == 2
    again = cxrprep.convert(out, recipe="square-224", out=tmp_path / "again", engine=Engine("inline"), where=good)
    assert again.value.images == 1


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
    with pytest.raises(UsageError, match="'flipped' is not something that can be fixed"):
        _convert(folder, tmp_path / "no", fix=["flipped"])


def test_a_turned_image_is_turned_back_only_when_asked(folder: Path, tmp_path: Path) -> None:
    _convert(folder, tmp_path / "plain")
    right = cv2.imread(str(tmp_path / "plain" / "right.png"), -1)
    for quarters in (1, 2, 3):
        grey = cv2.imread(str(folder / "right.png"), -1)
        cv2.imwrite(str(folder / "turned.png"), np.rot90(grey, quarters))
        out = tmp_path / f"out{quarters}"
        _convert(folder, out, fix=["turned"])
        assert np.array_equal(cv2.imread(str(out / "turned.png"), -1), right)
        assert np.array_equal(cv2.imread(str(out / "right.png"), -1), right)
        rows = _rows(out)
        assert rows["turned"]["notes"] == [f"turned by {360 - 90 * quarters} degrees, and turned back as asked"]
        assert rows["turned"]["turned_score"] > 0.6
        # What was turned is known to a second run, by the cache and without it.
        assert _convert(folder, out, fix=["rotated"]).kept == 3
        for cache in out.rglob("finished.parquet"):
            cache.unlink()
        assert _convert(folder, out, fix=["rotated"]).kept == 3
        assert _rows(out) == rows


def test_a_mirrored_image_is_mirrored_back_only_by_name(folder: Path, tmp_path: Path) -> None:
    grey = cv2.imread(str(folder / "right.png"), -1)
    cv2.imwrite(str(folder / "mirrored.png"), np.rot90(grey[:, ::-1]))
    for fix, as_it_was in ((["rotated", "inverted"], False), (["rotated", "mirrored"], True)):
        out = tmp_path / fix[1]
        _convert(folder, out, fix=fix)
        right, made = (cv2.imread(str(out / f"{name}.png"), -1).astype(int) for name in ("right", "mirrored"))
        assert np.array_equal(made, right) == as_it_was
        if not as_it_was:
            assert np.abs(made[:, ::-1] - right).mean() < np.abs(made - right).mean() / 2
        assert any("mirrored back" in note for note in _rows(out)["mirrored"]["notes"]) == as_it_was
    assert _rows(out)["right"]["notes"] == []


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_and_spacing_follow_an_image_that_is_turned_back(quarters: int, mirrored: bool) -> None:
    from cxrprep.images.radiograph import CoordinateMap
    from cxrprep.images.recipe import load_recipe
    from cxrprep.model import Box

    pixels = np.zeros((200, 320), np.uint8)
    pixels[40:90, 210:290] = 255
    source = decode(cv2.imencode(".png", pixels)[1].tobytes(), "x.png")
    source.spaced((0.5, 0.25))
    righted = source.righted(quarters, mirrored=mirrored)
    assert righted.spacing_mm == ((0.25, 0.5) if quarters % 2 else (0.5, 0.25))
    made = load_recipe("square-224")(righted)
    (box,) = made.frame.boxes([Box("x", 210, 40, 80, 50)])
    rows, columns = (np.flatnonzero(made.pixels.max(axis=axis) > 127) for axis in (1, 0))
    found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert np.allclose(found, (box.x, box.y, box.x + box.w, box.y + box.h), atol=1)
    assert CoordinateMap.of_numbers(made.frame.numbers()) == made.frame


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
