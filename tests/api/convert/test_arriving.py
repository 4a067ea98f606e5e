"""Images converted as they arrive, with their originals dropped: nothing is fetched or made twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrprep.storage.journal import journal_name
from tests.api.convert import hospital
from tests.api.convert.commands import run, tree
from tests.api.convert.test_crash import POISON
from tests.commands import start
from tests.generators.small import nih_chestxray14


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
    # Labels that were read later come into its manifest, though no original is here any more.
    assert run("extract-labels", root)[0] == 0
    code, _, said = run("convert", root, "--recipe", "square-224")
    assert code == 0, said
    labelled = pq.read_table(out / "manifests/images.parquet")
    assert labelled.num_rows == 7
    assert labelled.column("label_source").null_count == 0
    assert {name: digest for name, digest in tree(out).items() if name.endswith(".png")} == {
        name: digest for name, digest in before.items() if name.endswith(".png")
    }
    code, _, said = run("convert", root, "--recipe", "shortest-512")
    assert code == 8
    assert "dropped" in said
    # The same as converting from a whole copy.
    code, _, said = run(
        "convert", mirror, "--recipe", "square-224", "--out", tmp_path / "whole", "--state", tmp_path / "s"
    )
    assert code == 0, said
    made = {name: digest for name, digest in before.items() if name.endswith(".png")}
    assert made == {name: digest for name, digest in tree(tmp_path / "whole").items() if name.endswith(".png")}


def poisoned(mirror: Path, word: bytes) -> str:
    """A release with one image that a decoder does not survive, or never comes to the end of; its path."""
    nih_chestxray14.write(mirror, size=256)
    path = "images/00000002_000.png"
    (mirror / path).write_bytes(hospital.png(hospital.small(1), word))
    return path


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_one_image_and_not_the_download(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    victim = poisoned(mirror, b"POISON")
    words = ("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    code, value, said = run(*words, PYTHONPATH=POISON)
    assert (code, value["failed"], value["converted"], value["not_converted"]) == (3, 0, 6, 1), said
    assert [path.name for path in (root / "images").glob("*.png")] == [Path(victim).name]
    out = root / "derived/square-224"
    assert len(list(out.rglob("*.png"))) == 6
    (row,) = pq.read_table(out / "manifests/failures.parquet").to_pylist()
    assert row["path"] == victim
    assert "worker process died over it" in row["message"]
    # With a decoder that was mended the same command finishes the job.
    code, _, said = run(*words)
    assert code == 0, said
    assert not list((root / "images").glob("*.png"))
    assert len(list(out.rglob("*.png"))) == 7


@pytest.mark.slow
def test_ctrl_c_while_a_decoder_has_no_end(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    poisoned(mirror, b"TREADMILL")
    words = ("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    process = start(*words, PYTHONPATH=POISON)
    while process.poll() is None and len(list((root / "derived").rglob("*.png"))) < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "worker process died" not in said
    code, _, said = run(*words)
    assert code == 0, said
    assert len(list((root / "derived").rglob("*.png"))) == 7


@pytest.mark.slow
def test_what_a_killed_run_was_writing_goes(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    nih_chestxray14.write(mirror, size=256)
    words = ("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    assert run(*words)[0] == 0
    before = tree(root)
    # A mark and half a copy, of a process that has ended and of one that has not.
    ended = subprocess.Popen(["true"])
    ended.wait()
    images = root / "derived/square-224/images"
    for process in (ended.pid, os.getpid()):
        name = journal_name().replace(f"-{os.getpid()}-", f"-{process}-")
        (root / ".cxrprep/arriving").mkdir(exist_ok=True)
        (root / ".cxrprep/arriving" / name).touch()
        (images / f".00000001_000.png.{name.removesuffix('.jsonl')}.tmp").write_bytes(b"half")
    assert run(*words)[0] == 0
    (left,) = tree(root).keys() - before.keys()
    assert f"-{os.getpid()}-" in left


@pytest.mark.long
def test_shards_of_a_job_array_side_by_side(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    nih_chestxray14.write(mirror, size=256)
    words = ("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    jobs = [start(*words, "--shard", f"{number}/3") for number in (1, 2, 3)]
    for job in jobs:
        _, said = job.communicate(timeout=110)
        assert job.returncode == 0, said
    assert not list((root / "images").glob("*.png"))
    code, value, said = run("convert", root, "--recipe", "square-224")
    assert (code, value["images"], value["converted"]) == (0, 7, 0), said
