"""A table that somebody emptied or cut short takes nothing with it from the tables beside it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrprep.errors import TableError
from cxrprep.storage.parquet import read_footer
from tests.commands import cxrprep, ok
from tests.manifest.made import made

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made("chexpert", tmp_path_factory.mktemp("chexpert"))
    ok("convert", root, "--recipe", "square-224", "--out", root / "out")
    return root / "out"


def emptied(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def without_second_images(table: pa.Table) -> pa.Table:
    studies = table["study_id"].to_pylist()
    return table.take([row for row, study in enumerate(studies) if study not in studies[:row]])


def without_ages(table: pa.Table) -> pa.Table:
    place = table.column_names.index("age_years")
    return table.set_column(place, table.schema.field(place), pa.nulls(len(table), pa.float32()))


@pytest.mark.parametrize("damage", [emptied, without_second_images, without_ages])
def test_an_image_table_that_was_damaged_by_hand_takes_no_study_with_it(chexpert, damage):
    path, studies = (chexpert / "manifests" / f"{name}.parquet" for name in ("images", "studies"))
    whole, known = path.read_bytes(), studies.read_bytes()
    pq.write_table(damage(pq.read_table(path)), path)
    try:
        for options in ([], ["--split-by", "patient"]):
            done = cxrprep("manifest", chexpert, *options)
            assert (done.returncode, "studies.parquet would lose" in done.stderr) == (2, True), done.stderr
            assert "convert again into this folder" in done.stderr
            assert "--allow-loss" in done.stderr
            assert studies.read_bytes() == known
    finally:
        path.write_bytes(whole)


def test_the_hint_of_a_damaged_table_of_converted_images_mends_it(tmp_path):
    root = made("chexpert", tmp_path / "root")
    out = tmp_path / "out"
    again = ("convert", root, "--recipe", "square-224", "--out", out)
    ok(*again)
    for name in ("images", "studies"):
        path = out / "manifests" / f"{name}.parquet"
        known = pq.read_table(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(TableError) as caught:
            read_footer(path)
        assert caught.value.hint == "convert again into this folder what it was made from"
        ok(*again)
        assert pq.read_table(path).equals(known)
        ok("verify", out)


@pytest.mark.parametrize("gone", [["images"], ["images", "studies"]])
def test_converted_images_without_their_table_are_not_taken_for_originals(chexpert, tmp_path, gone):
    out = tmp_path / "out"
    shutil.copytree(chexpert, out)
    for name in gone:
        (out / f"manifests/{name}.parquet").unlink()
    before = sorted(out.glob("manifests/*.parquet"))
    verbs = ("extract-labels", "manifest", "status", "verify") if len(gone) == 1 else ("extract-labels",)
    for verb in verbs:
        done = cxrprep(verb, out)
        said = " ".join(done.stderr.split())
        assert (done.returncode, "manifests/images.parquet is missing" in said) == (4, True), done
        assert "convert again into this folder what it was made from" in said
    assert sorted(out.glob("manifests/*.parquet")) == before
    ok("convert", chexpert.parent, "--recipe", "square-224", "--out", out)
    ok("verify", out)


def test_studies_go_with_their_images(chexpert, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(chexpert, out)
    table = pq.read_table(out / "manifests/images.parquet")
    study = next(s for s in table["study_id"].to_pylist() if pc.sum(pc.equal(table["study_id"], s)).as_py() > 1)
    paths = table.filter(pc.equal(table["study_id"], study))["path"].to_pylist()
    for left, path in zip(reversed(range(len(paths))), paths, strict=True):
        (out / path).unlink()
        ok("manifest", out)
        now = pq.read_table(out / "manifests/studies.parquet").to_pylist()
        assert [row["n_images"] for row in now if row["study_id"] == study] == [left] * (left > 0)
