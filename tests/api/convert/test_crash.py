"""Workers that crash, here and on a Dask cluster: one row of failures, everything else done, the same bytes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.executors import Engine
from tests.api.convert import hospital
from tests.api.convert.commands import run, tree
from tests.commands import start
from tests.executors.cluster import cluster
from tests.parts import need

POISON = str(Path(__file__).with_name("poison"))


def folder(root: Path, count: int = 30) -> Path:
    for index in range(count):
        path = root / f"i{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hospital.png(hospital.small(index)))
    return root


def the_one_that_failed(root: Path, words: tuple[object, ...], out: Path) -> dict[str, str]:
    """Converts with a decoder that poison gets the better of; the failure's row, after all others were done."""
    code, value, said = run("convert", root, *words, "--out", out, PYTHONPATH=POISON)
    assert code == 3, said
    assert (value["images"], value["failed"]) == (30, 1)
    row: dict[str, str] = pq.read_table(out / "manifests/failures.parquet").to_pylist()[0]
    assert row["path"] == "i0155.png"
    return row


@pytest.mark.slow
@pytest.mark.parametrize(("to", "jobs"), [("files", 1), ("webdataset", 2)])
def test_a_segfault_in_a_decoder_costs_one_image(tmp_path: Path, to: str, jobs: int) -> None:
    root = folder(tmp_path / "in")
    words = ("--recipe", "square-224", "--to", to, "--per-shard", 10, "--jobs", jobs)
    code, _, said = run("convert", root, *words, "--out", tmp_path / "without")
    assert code == 0, said
    (root / "i0155.png").write_bytes(hospital.png(hospital.small(1), b"POISON"))
    row = the_one_that_failed(root, words, tmp_path / "out")
    assert "worker process died over it" in row["message"]
    if to == "files":
        made, wanted = tree(tmp_path / "out"), tree(tmp_path / "without")
        assert {name: made[name] for name in wanted} == wanted


@pytest.mark.slow
def test_a_decoder_without_end_costs_one_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "i0155.png").write_bytes(hospital.png(hospital.small(1), b"TREADMILL"))
    words = ("--recipe", "square-224", "--jobs", 2, "--max-seconds", 4)
    row = the_one_that_failed(root, words, tmp_path / "out")
    assert "not finished after 4 s; its process was stopped" in row["message"]
    assert "--max-seconds" in row["hint"]


def test_ctrl_c_ends_a_run_whose_decoder_has_no_end(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 3)
    (root / "i0025.png").write_bytes(hospital.png(hospital.small(1), b"TREADMILL"))
    out = tmp_path / "out"
    process = start("convert", root, "--recipe", "square-224", "--out", out, "--jobs", 1, PYTHONPATH=POISON)
    while process.poll() is None and len([*out.rglob("i*.png")]) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    need("dask")
    with cluster(3) as address:
        yield address


@pytest.mark.long
@pytest.mark.parametrize("to", ["files", "parquet"])
def test_a_cluster_makes_the_same_bytes_as_this_process(tmp_path: Path, scheduler: str, to: str) -> None:
    root = hospital.many(tmp_path / "in", 40)
    for place, engine in (("here", Engine("inline")), ("there", Engine("dask", scheduler=scheduler))):
        value = cxrprep.convert(
            root, recipe="mimic-cxr-jpg", to=to, per_shard=15, out=tmp_path / place, engine=engine
        ).value  # fmt: skip
        assert (value.converted, value.failed) == (40, 0)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.long
def test_a_worker_of_the_cluster_killed_midway_loses_nothing(tmp_path: Path, scheduler: str) -> None:
    import distributed

    root, out = hospital.many(tmp_path / "in", 60, side=400), tmp_path / "out"
    process = start(
        "convert", root, "--recipe", "shortest-512", "--out", out, "--engine", "dask", "--scheduler", scheduler
    )  # fmt: skip
    with distributed.Client(scheduler, set_as_default=False) as client:
        pids = sorted(client.run(os.getpid).values())
    while process.poll() is None and not any(out.rglob("*.png")):
        time.sleep(0.01)
    assert process.poll() is None
    os.kill(pids[0], signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    value = cxrprep.convert(root, recipe="shortest-512", out=tmp_path / "here", engine=Engine("inline")).value
    assert value.images == 60
    assert tree(out) == tree(tmp_path / "here")


def test_the_dask_engine_needs_an_address(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", 2)
    words = ("convert", root, "--recipe", "square-224", "--out", tmp_path / "out", "--engine", "dask")
    code, _, said = run(*words)
    assert code == 2
    assert "--scheduler tcp://host:8786" in said


@pytest.mark.slow
def test_ctrl_c_says_so_and_the_next_run_goes_on(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 72, side=300), tmp_path / "out"
    words = ("convert", root, "--recipe", "shortest-512", "--out", out, "--jobs", 2)
    process = start(*words)
    while process.poll() is None and not any(out.rglob("*.png")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    code, value, said = run(*words)
    assert (code, value["images"]) == (0, 72), said
    assert value["kept"] > 0
