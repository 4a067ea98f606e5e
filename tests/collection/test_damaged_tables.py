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
from cxrprep.storage.table_checksums import note_checksum
from tests.commands import cxrprep, ok
from tests.manifest.made import made

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made("chexpert", tmp_path_factory.mktemp("chexpert"))
    ok("convert", root, "--recipe", "square-224", "--out", root / "derived/out")
    return root / "derived/out"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".cxrprep" not in path.parts}


def emptied(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def without_second_images(table: pa.Table) -> pa.Table:
    studies = table["study_id"].to_pylist()
    return table.take([row for row, study in enumerate(studies) if study not in studies[:row]])


def without_ages(table: pa.Table) -> pa.Table:
    place = table.column_names.index("age_years")
    return table.set_column(place, table.schema.field(place), pa.nulls(len(table), pa.float32()))


@pytest.mark.parametrize("damage", [emptied, without_second_images, without_ages])
def test_an_image_table_that_was_damaged_by_hand_takes_no_study_with_it(chexpert, damage, tmp_path):
    folder = shutil.copytree(chexpert, tmp_path / "out")
    path, studies = (folder / "manifests" / f"{name}.parquet" for name in ("images", "studies"))
    known = studies.read_bytes()
    pq.write_table(damage(pq.read_table(path)), path)
    for options in ([], ["--split-by", "patient"]):
        done = cxrprep("manifest", folder, *options)
        assert (done.returncode, "was altered after cxrprep wrote it" in done.stderr) == (4, True), done.stderr
        assert studies.read_bytes() == known
    # One that its list calls right is held to the studies all the same.
    note_checksum(path)
    done = cxrprep("manifest", folder)
    assert (done.returncode, "studies.parquet would lose" in done.stderr) == (2, True), done.stderr
    assert "convert again into this folder" in done.stderr
    assert "--allow-loss" in done.stderr
    assert studies.read_bytes() == known


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


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_damaged_labels_do_not_pass_for_whole_after_another_verb(chexpert, tmp_path, damage):
    """A byte of the footer that no page holds: manifest read and stated it, and convert brought the table along."""
    out, small = tmp_path / "out", tmp_path / "small"
    shutil.copytree(chexpert, out)
    path = out / "manifests/labels.parquet"
    good = path.read_bytes()
    at = good.rindex(b"pandas") if b"pandas" in good[-4000:] else good.rindex(b"cxrprep ")
    path.write_bytes(good[:at] + b"C" + good[at + 1 :])
    if damage == "gone":
        path.unlink()
    for words in (("manifest", out), ("manifest", out, "--split-by", "patient")):
        done = cxrprep(*words)
        refused = "labels.parquet was altered" in done.stderr
        assert (done.returncode, refused) == ((4, True) if damage == "altered" else (0, False)), done
        done = cxrprep("verify", out)
        assert (done.returncode, "manifests/labels.parquet" in done.stdout) == (4, True), done
    if damage == "altered":
        done = cxrprep("convert", out, "--recipe", "square-224", "--out", small)
        assert (done.returncode, "labels.parquet was altered" in done.stderr) == (4, True), done
        assert not (small / "manifests/images.parquet").exists()
    # The hint of verify.
    ok("convert", chexpert.parents[1], "--recipe", "square-224", "--out", out)
    assert path.read_bytes() == good
    ok("verify", out)
    ok("convert", out, "--recipe", "square-224", "--out", small)


TABLES = ["manifests/images.parquet", "manifests/studies.parquet"]
DESCRIPTIONS = [
    "README.md", "croissant.json", "manifests/README.md", "manifests/croissant.json", "manifests/SHA256SUMS",
]  # fmt: skip


@pytest.fixture(scope="module")
def converted(chexpert: Path) -> dict[str, Path]:
    """Converted images of the release in the folder above, by their form."""
    out = chexpert.parents[1].parent / "shards"
    ok("convert", chexpert.parents[1], "--recipe", "square-224", "--out", out, "--to", "webdataset")
    return {"files": chexpert, "webdataset": out}


@pytest.mark.parametrize(
    ("form", "gone", "verbs"),
    [
        ("files", TABLES[:1], 4),
        ("files", TABLES, 99),
        ("webdataset", [*TABLES, "manifests/labels.parquet"], 4),
        ("files", [*TABLES, *DESCRIPTIONS], 4),
        ("files", ["manifests", *DESCRIPTIONS[:2]], 4),
        ("webdataset", ["manifests", *DESCRIPTIONS[:2]], 4),
    ],
    ids=["images", "studies too", "labels of shards too", "descriptions too", "all but images", "all but shards"],
)
def test_converted_images_without_their_table_are_not_taken_for_originals(converted, tmp_path, form, gone, verbs):
    root, out = converted["files"].parents[1], tmp_path / "out"
    shutil.copytree(converted[form], out)
    for name in gone:
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    (tmp_path / "theirs.csv").write_text("study_id,Edema\n1,1\n")
    before = contents(out)
    every = (
        ("status", out), ("manifest", out), ("extract-labels", out), ("export", out, "--format", "csv"),
        ("verify", out, "--quick"), ("verify", out, "--images"), ("report", out), ("digest", out),
        ("prove", "0" * 64, out), ("duplicates", out), ("extract-labels", out, "--tables", root),
        ("extract-labels", out, "--import", tmp_path / "theirs.csv"),
        ("manifest", out, "--dataset", "chexpert"), ("convert", out, "--recipe", "square-224", "--out", tmp_path),
        ("convert", out, "--check-phi"), ("report", root, "--beside", out),
        ("download", "chexpert", out, "--source", root), ("verify", out, "--repair", "--source", root),
    )  # fmt: skip
    for words in every[:verbs]:
        done = cxrprep(*words)
        said = " ".join(done.stderr.split())
        assert (done.returncode, "images.parquet" in said) == (4, True), (words, done)
        assert f"convert ORIGINALS --recipe RECIPE --out {out}" in said, words
    for other in ("square-512", "square-224"):
        to = ["--to", "parquet"] if other == "square-224" else []
        done = cxrprep("convert", root, "--recipe", other, "--out", out, *to)
        assert (done.returncode, "--allow-loss" in done.stderr) == (2, True), done
    assert contents(out) == before
    # The hint.
    ok("convert", root, "--recipe", "square-224", "--out", out, *(["--to", form] if form != "files" else []))
    ok("verify", out)


def test_images_of_another_folder_are_not_replaced_where_their_table_is_gone(chexpert, tmp_path):
    """And whoever says that converted images are to be taken as they are is believed."""
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(chexpert, out)
    shutil.rmtree(out / "manifests")
    shutil.copytree(chexpert.parents[1], other, ignore=shutil.ignore_patterns("derived", ".cxrprep"))
    for path in other.rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")
    done = cxrprep("convert", other, "--recipe", "square-224", "--out", out)
    assert (done.returncode, "another folder" in done.stderr) == (2, True), done
    for name in DESCRIPTIONS[:2]:
        (out / name).unlink()
    ok("convert", out, "--dataset", "folder", "--recipe", "square-224", "--out", tmp_path / "small")


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
