"""The whole job on NIH ChestX-ray14: real images from local mirrors, phantom archives over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.commands import cxrprep, ok, result, start
from tests.integration.mirrors import nih_mirror, phantom, served, tree
from tests.parts import shared_data
from tests.sample import some

VERBS = (("verify",), ("extract-labels",), ("convert", "--recipe", "square-224"), ("manifest",))


def whole_job(root: Path, source: str | Path) -> None:
    ok("download", "nih-chestxray14", root, "--source", source)
    for verb, *options in VERBS:
        ok(verb, root, *options)


@pytest.mark.slow
def test_real_images_from_a_folder_end_in_a_manifest(tmp_path: Path) -> None:
    real = shared_data("nih-chestxray14")
    root = tmp_path / "nih"
    whole_job(root, nih_mirror(real, tmp_path / "mirror", "box"))

    images = pd.read_parquet(root / "manifests" / "images.parquet")
    assert len(images) == 114
    assert set(images.path) == {f"images/{p.name}" for p in (real / "images").iterdir()}
    assert (images.label_source == "nih-textmined").all()
    assert images.width.eq(1024).all()
    assert images.source_mode.eq("RGBA").sum() == 2

    labels = pq.read_table(root / "manifests" / "labels.parquet")
    assert labels.num_rows == 112_120
    assert len(set(labels["patient_id"].to_pylist())) == 30_805
    splits = labels["split"].to_pylist()
    assert (splits.count("train_val"), splits.count("test")) == (86_524, 25_596)
    assert len(set(labels["table_digest"].to_pylist())) == 1

    derived = root / "derived" / "square-224"
    made = pd.read_parquet(derived / "manifests" / "images.parquet")
    assert len(made) == 114
    assert made.width.eq(224).all()
    assert all((derived / path).is_file() for path in made.path)

    # Another mirror's layout ends in the same files.
    ok("download", "nih-chestxray14", tmp_path / "kaggle", "--source", nih_mirror(real, tmp_path / "other", "kaggle"))
    there = tree(tmp_path / "kaggle")
    assert there == {name: digest for name, digest in tree(root).items() if name in there}
    assert {f"images/{p.name}" for p in (real / "images").iterdir()} < set(there)


def test_the_older_table_gives_the_same_schema(tmp_path: Path) -> None:
    real = shared_data("nih-chestxray14")
    schemas = []
    for table in ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv"):
        root = tmp_path / table
        ok("download", "nih-chestxray14", root, "--source", nih_mirror(real, tmp_path / f"m-{table}", "box", table, 3))
        answer = result("extract-labels", root)
        assert answer["rows"] == 112_120
        schemas.append(pq.read_schema(root / "manifests" / "labels.parquet"))
    assert schemas[0].names == schemas[1].names
    assert schemas[0].types == schemas[1].types


@pytest.mark.slow
def test_archives_over_http_end_in_the_same_bytes_on_every_run(tmp_path: Path) -> None:
    mirror = phantom(tmp_path / "mirror")
    with served(mirror) as address:
        whole_job(tmp_path / "one", address)
        first = tree(tmp_path / "one")
        whole_job(tmp_path / "one", address)
        assert tree(tmp_path / "one") == first
        whole_job(tmp_path / "two", address)
    assert tree(tmp_path / "two") == first
    assert not [name for name in first if name.endswith((".tar.gz", ".part"))]


def test_the_manifest_opens_in_duckdb(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    ok("download", "nih-chestxray14", root, "--source", phantom(tmp_path / "mirror", patients=5, size=64))
    ok("extract-labels", root)
    query = f"select split, count(*) from '{root}/manifests/images.parquet' group by split order by split"
    counted = duckdb.sql(query).fetchall()
    assert [split for split, _ in counted] == ["test", "train_val"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", some(["download", "convert"], one_in=2))
def test_kill_9_and_the_same_command_again_end_in_the_same_bytes(tmp_path: Path, verb: str) -> None:
    mirror = phantom(tmp_path / "mirror", patients=10, size=512)
    with served(mirror) as address:
        steps = [("download", "nih-chestxray14", "ROOT", "--source", address), ("extract-labels", "ROOT")]
        steps += [("convert", "ROOT", "--recipe", "square-224", "--jobs", "1")]
        calm, killed = tmp_path / "calm", tmp_path / "killed"
        for words in steps:
            ok(*at(calm, words))
        if verb == "convert":
            shutil.copytree(calm, killed, ignore=shutil.ignore_patterns("derived"))
            steps = steps[2:]
        made = {"download": "images/*.png", "convert": "derived/square-224/images/*.png"}[verb]
        # Before the first image, and after some.
        for count in (0, 3):
            process = start(*at(killed, steps[0]))
            while process.poll() is None and (not killed.is_dir() or len([*killed.glob(made)]) < count):
                time.sleep(0.002)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for words in steps:
            ok(*at(killed, words))
        assert tree(killed) == tree(calm)


def at(root: Path, words: tuple[str, ...]) -> list[str]:
    return [str(root) if word == "ROOT" else word for word in words]


def test_an_unknown_dataset_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    done = cxrprep("download", "nih-chestxray41", tmp_path / "x")
    assert done.returncode == 2
    assert "nih-chestxray14" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    done = cxrprep("download", "nih-chestxray14", tmp_path / "x", "--source", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    done = cxrprep("verify", tmp_path / "gone")
    assert done.returncode == 2
    assert "gone" in done.stderr


def test_an_unreadable_table_is_named_with_its_line(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    ok("download", "nih-chestxray14", root, "--source", phantom(tmp_path / "mirror", patients=3, size=64))
    table = root / "Data_Entry_2017_v2020.csv"
    lines = table.read_text().splitlines()
    lines[2] = "00090001_001.png,No Such Finding,1,90001,64,M,AP,2500,2048,0.143,0.143"
    table.write_text("\n".join(lines) + "\n")
    done = cxrprep("extract-labels", root)
    assert done.returncode == 4
    assert "Data_Entry_2017_v2020.csv" in done.stderr
    assert "3" in done.stderr
    assert "No Such Finding" in done.stderr


def test_a_png_cut_short_is_one_failure_and_not_the_end(tmp_path: Path) -> None:
    mirror, root = phantom(tmp_path / "mirror", patients=4, size=64), tmp_path / "nih"
    ok("download", "nih-chestxray14", root, "--source", mirror)
    ok("extract-labels", root)
    victim = min((root / "images").iterdir())
    victim.write_bytes(victim.read_bytes()[:200])
    done = cxrprep("convert", root, "--recipe", "square-224")
    assert done.returncode == 3
    assert victim.name in done.stderr + done.stdout
    failures = pd.read_parquet(root / "derived" / "square-224" / "manifests" / "failures.parquet")
    assert list(failures.image_id) == [victim.stem]
    assert (
        len(list((root / "derived" / "square-224" / "images").iterdir())) == len(list((root / "images").iterdir())) - 1
    )
    done = cxrprep("verify", root, "--images")
    assert done.returncode == 4
    assert victim.name in done.stdout + done.stderr


def test_a_row_without_its_image_and_an_image_without_its_row_are_said_and_kept(tmp_path: Path) -> None:
    mirror, root = phantom(tmp_path / "mirror", patients=4, size=64), tmp_path / "nih"
    ok("download", "nih-chestxray14", root, "--source", mirror)
    images = sorted((root / "images").iterdir())
    images[0].unlink()
    shutil.copyfile(images[1], root / "images" / "00099999_000.png")
    ok("extract-labels", root)
    labels = pd.read_parquet(root / "manifests" / "labels.parquet")
    manifest = pd.read_parquet(root / "manifests" / "images.parquet").set_index("image_id")
    assert images[0].stem in set(labels.image_id)
    assert images[0].stem not in manifest.index
    assert "00099999_000" in manifest.index
    assert pd.isna(manifest.loc["00099999_000", "label_cardiomegaly"])
    assert result("verify", root, code=4)["exit_code"] == 4
