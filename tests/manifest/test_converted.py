"""Converted images are a folder of their own: they carry what is known of them, and are their own source of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.api.convert import hospital
from tests.commands import cxrprep, ok
from tests.manifest.made import made

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("split", "boxes", "digest", "source_path", "source_digest", "recipe", "label_source", "patient_id")
NAMES = ("nih-chestxray14", "chexpert", "mimic-cxr-jpg")


def known(root: Path) -> dict[str, int]:
    """How many rows, and cells of each column, the manifest of ROOT has."""
    table = pq.read_table(root / "manifests/images.parquet")
    names = [*COLUMNS, *(name for name in table.column_names if name.startswith("label_"))]
    return {"rows": len(table)} | {name: len(table) - table.column(name).null_count for name in names}


@pytest.fixture(params=NAMES)
def moved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A converted folder that is away from its original, which is gone."""
    root = made(request.param, tmp_path / "raw")
    ok("convert", root, "--recipe", "square-224", "--out", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    shutil.rmtree(root)
    return tmp_path / "moved"


def test_no_verb_takes_anything_from_it(moved: Path, tmp_path: Path) -> None:
    before = known(moved)
    assert before["label_source"] > 0
    for table in ("labels", "studies"):
        assert pq.read_metadata(moved / f"manifests/{table}.parquet").num_rows > 0
    ok("manifest", moved)
    assert known(moved) == before
    ok("manifest", moved, "--split-by", "patient", "--fractions", "0.5,0.25,0.25")
    divided = known(moved)
    assert divided["split"] == before["rows"]
    assert divided | {"split": 0} == before | {"split": 0}
    ok("manifest", moved, "--uncertain", "ones")
    ok("manifest", moved)
    assert known(moved) == before
    assert cxrprep("extract-labels", moved).returncode == 2
    assert cxrprep("download", "chexpert", moved, "--source", moved).returncode == 2
    ok("report", moved)
    ok("status", moved)
    ok("export", moved, "--format", "csv", "--out", tmp_path / "csv")
    assert known(moved) == before


def test_it_is_converted_with_all_that_it_knows(moved: Path, tmp_path: Path) -> None:
    ok("convert", moved, "--recipe", "square-512", "--out", tmp_path / "second")
    assert known(tmp_path / "second") == known(moved)
    sources = pq.read_table(moved / "manifests/images.parquet", columns=["path", "digest"]).to_pylist()
    rows = pq.read_table(tmp_path / "second/manifests/images.parquet").to_pylist()
    assert {(r["source_path"], r["source_digest"]) for r in rows} == {(s["path"], s["digest"]) for s in sources}
    ok("convert", moved, "--recipe", "square-512", "--out", tmp_path / "shards", "--to", "webdataset")
    assert known(tmp_path / "shards") == known(moved)
    assert cxrprep("convert", tmp_path / "shards", "--recipe", "square-224", "--out", tmp_path / "no").returncode == 2


def test_a_split_may_be_selected_from_it(moved: Path, tmp_path: Path) -> None:
    table = pq.read_table(moved / "manifests/images.parquet", columns=["split"])
    tests = table.column("split").to_pylist().count("test")
    done = cxrprep("convert", moved, "--recipe", "square-512", "--out", tmp_path / "some", "--split", "test")
    assert done.returncode == (0 if tests else 2), done.stderr
    if tests:
        assert known(tmp_path / "some")["rows"] == tests


@pytest.mark.parametrize("words", [("--recipe", "square-512"), ("--recipe", "square-224", "--to", "webdataset")])
def test_images_of_another_make_are_not_replaced_unasked(tmp_path: Path, words: tuple[str, ...]) -> None:
    root, out = made("nih-chestxray14", tmp_path / "raw"), tmp_path / "out"
    ok("convert", root, "--recipe", "square-224", "--out", out)
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and ".cxrprep" not in path.parts}
    done = cxrprep("convert", root, *words, "--out", out)
    assert done.returncode == 2
    assert "--out" in done.stderr
    assert "--allow-loss" in done.stderr
    assert {path: path.read_bytes() for path in files} == files
    ok("convert", root, *words, "--out", out, "--allow-loss")


def test_a_job_array_without_its_cache_keeps_the_rows_of_every_shard(tmp_path: Path) -> None:
    root, out = made("nih-chestxray14", tmp_path / "raw"), tmp_path / "out"
    ok("convert", root, "--recipe", "square-224", "--out", out, "--shard", "2/2")
    rows = pq.read_metadata(out / "manifests/shards/2-of-2/images.parquet").num_rows
    shutil.rmtree(root / ".cxrprep")
    ok("convert", root, "--recipe", "square-224", "--out", out, "--limit", "1")
    assert known(out)["rows"] >= rows


@pytest.mark.parametrize("form", ["files", "parquet"])
def test_parts_of_a_job_array_are_not_listed_as_the_whole(tmp_path: Path, form: str) -> None:
    """What came after such a manifest was in none: 5 of 7 images were exported, with exit code 0."""
    root, out = made("nih-chestxray14", tmp_path / "raw"), tmp_path / "out"
    convert = ("convert", root, "--recipe", "square-224", "--out", out, "--to", form)
    ok(*convert, "--shard", "1/2")
    done = cxrprep("manifest", out)
    assert (done.returncode, "holds 1 of the 2 parts of a job array" in done.stderr) == (2, True), done
    ok(*convert, "--shard", "2/2")
    ok("manifest", out)
    assert known(out)["rows"] == 7
    for path in (out / "manifests").glob("*.parquet"):
        path.unlink()
    shutil.rmtree(out / "manifests/shards/2-of-2")
    ok("manifest", out, "--allow-loss")
    assert 0 < known(out)["rows"] < 7


def test_pseudonyms_of_another_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    ok("convert", root, "--recipe", "square-224", "--out", out)
    patients = pq.read_table(out / "manifests/images.parquet").column("patient_id").to_pylist()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    done = cxrprep("convert", root, "--recipe", "square-224", "--out", out)
    assert done.returncode == 2
    assert "key" in done.stderr
    assert pq.read_table(out / "manifests/images.parquet").column("patient_id").to_pylist() == patients


def test_a_split_of_an_own_folder_stays_through_every_verb(tmp_path: Path) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    ok("convert", root, "--recipe", "square-224", "--out", out)
    ok("manifest", out, "--split-by", "patient", "--fractions", "0.5,0.5")
    table = pq.read_table(out / "manifests/images.parquet")
    split = dict(zip(table.column("path").to_pylist(), table.column("split").to_pylist(), strict=True))
    assert None not in split.values()
    ok("convert", root, "--recipe", "square-224", "--out", out)
    table = pq.read_table(out / "manifests/images.parquet")
    assert dict(zip(table.column("path").to_pylist(), table.column("split").to_pylist(), strict=True)) == split
    ok("convert", out, "--recipe", "square-512", "--out", tmp_path / "second")
    assert known(tmp_path / "second")["split"] == len(split)
    assert cxrprep("manifest", out).returncode == 2
    for verb in ("status", "report"):
        ok(verb, out)
    ok("export", out, "--format", "csv", "--out", tmp_path / "csv")


def boxes_of(root: Path) -> dict[str, object]:
    table = pq.read_table(root / "manifests/images.parquet", columns=["image_id", "boxes"]).to_pylist()
    return {row["image_id"]: row["boxes"] for row in table if row["boxes"] is not None}


def test_boxes_of_a_small_copy_are_the_same_whichever_way_it_was_converted(tmp_path: Path) -> None:
    import cv2

    mirror = made("nih-chestxray14", tmp_path / "mirror")
    shutil.rmtree(mirror / "manifests")
    for path in mirror.rglob("*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(image, (512, 512)))
    kept, dropped = tmp_path / "kept", tmp_path / "dropped"
    ok("download", "nih-chestxray14", kept, "--source", mirror)
    ok("extract-labels", kept)
    ok("convert", kept, "--recipe", "square-224")
    ok("download", "nih-chestxray14", dropped, "--source", mirror, "--then", "square-224", "--discard-raw")
    ok("extract-labels", dropped)
    ok("convert", dropped, "--recipe", "square-224")
    boxes = boxes_of(kept / "derived/square-224")
    assert boxes
    assert boxes_of(dropped / "derived/square-224") == boxes
