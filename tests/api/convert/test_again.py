"""Run again: nothing to do is nothing done, what changed is made anew, and a kill at any moment leaves no trace."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cxrprep
from cxrprep.executors import Engine
from cxrprep.model import Selection, Shard
from cxrprep.storage.atomic import temporary_for
from tests.api.convert import hospital
from tests.api.convert.commands import run, times, tree
from tests.commands import PROGRAM, ok, start
from tests.commands import cxrprep as command
from tests.generators.small import nih_chestxray14
from tests.sample import some, some_of_each

INLINE = Engine("inline")
FORMS = ("files", "webdataset", "parquet")


def convert(root: Path, out: Path, **more: object) -> object:
    return cxrprep.convert(root, **{"recipe": "square-224", "out": out, "engine": INLINE, "per_shard": 3, **more}).value


@pytest.mark.parametrize("to", FORMS)
def test_a_second_run_writes_no_image(tmp_path: Path, to: str) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    first = convert(root, out, to=to)
    before, when = tree(out), times(out)
    second = convert(root, out, to=to)
    assert (first.converted, first.kept) == (6, 0)
    assert (second.converted, second.kept) == (0, 6)
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before
    assert times(out) == when


@pytest.mark.parametrize("to", FORMS)
def test_without_the_cache_outputs_are_known_by_what_they_say_of_themselves(tmp_path: Path, to: str) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    convert(root, out, to=to)
    before = tree(out)
    shutil.rmtree(out / ".cxrprep")
    second = convert(root, out, to=to)
    assert (second.converted, second.kept) == (0, 6)
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before


@pytest.mark.parametrize("damage", ["torn", "zeros", "not a table"])
def test_a_damaged_cache_is_passed_over(tmp_path: Path, damage: str) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    convert(root, out)
    before, cache = tree(out), out / ".cxrprep" / "finished.parquet"
    data = cache.read_bytes()
    broken = {"torn": data[: len(data) // 2], "zeros": bytes(len(data)), "not a table": b"{}"}
    cache.write_bytes(broken[damage])
    assert convert(root, out).kept == 6
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before


@pytest.mark.parametrize("to", FORMS)
def test_another_recipe_makes_everything_anew(tmp_path: Path, to: str) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    mine = tmp_path / "mine.toml"
    mine.write_text('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 64\n')
    convert(root, out, to=to, recipe=str(mine))
    mine.write_text('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 48\n')
    assert convert(root, out, to=to, recipe=str(mine)).converted == 6
    assert set(pq.read_table(out / "manifests/images.parquet").column("height").to_pylist()) == {48}


@pytest.mark.parametrize("to", FORMS)
def test_a_changed_source_is_made_anew_even_with_its_old_size_and_time(tmp_path: Path, to: str) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    convert(root, out, to=to)
    path = root / "ward 1/x.dcm"
    was, data = path.stat(), bytearray(path.read_bytes())
    data[-200:] = bytes(200)
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    second = convert(root, out, to=to)
    assert (second.converted, second.kept) == (1, 5)
    fresh = convert(root, tmp_path / "fresh", to=to)
    assert fresh.converted == 6
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("form", "harm"), some_of_each(["png", "jpeg", "webp", "jxl"], ["gone", "cut", "emptied", "zeros"], one_in=4)
)
def test_an_output_that_is_gone_or_damaged_is_made_again(tmp_path: Path, form: str, harm: str) -> None:
    root, out = hospital.many(tmp_path / "in", 3), tmp_path / "out"
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[[step]]\ndo = "voi"\n[output]\nformat = "{form}"\n')
    convert(root, out, recipe=str(mine))
    before = tree(out)
    path = min(path for path in out.rglob("i00001.*") if path.is_file())
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.write_bytes(b"" if harm == "emptied" else bytes(20_000))
    second = convert(root, out, recipe=str(mine))
    assert (second.converted, second.kept) == (1, 2)
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before
    shutil.rmtree(out / ".cxrprep")
    assert convert(root, out, recipe=str(mine)).kept == 3


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "jxl"])
def test_a_file_that_no_conversion_wrote_is_never_replaced(tmp_path: Path, form: str) -> None:
    root, out = hospital.many(tmp_path / "in", 3), tmp_path / "out"
    mine = tmp_path / "mine.toml"
    mine.write_text(f'[[step]]\ndo = "voi"\n[output]\nformat = "{form}"\n')
    convert(root, out, recipe=str(mine))
    path = min(path for path in out.rglob("i00001.*") if path.is_file())
    # Somebody's only copy, in the same format.
    Image.new("L", (64, 64)).save(path, {"jxl": "png"}.get(form, form))
    held = path.read_bytes()
    shutil.rmtree(out / ".cxrprep")
    second = convert(root, out, recipe=str(mine))
    assert (second.converted, second.kept, second.failed) == (0, 2, 1)
    assert path.read_bytes() == held
    failure = pq.read_table(out / "manifests" / "failures.parquet").to_pylist()[0]
    assert failure["message"].endswith(f"{path.name} is here already, and no conversion wrote it")
    path.unlink()
    assert convert(root, out, recipe=str(mine)).converted == 1


@pytest.mark.parametrize(
    ("harm", "cache"),
    some_of_each(["the mark", "the mark and the length", "another selection's length"], ["kept", "lost"], one_in=2),
)
def test_a_damaged_output_that_cannot_be_told_from_anothers_file_stays_listed(
    tmp_path: Path, harm: str, cache: str
) -> None:
    root, out = hospital.many(tmp_path / "in", 3), tmp_path / "out"
    words = ("convert", root, "--recipe", "square-224", "--out", out)
    ok(*words)
    before = tree(out)
    path = min(out.rglob("i00001.png"))
    whole = path.read_bytes()
    data = whole if harm.startswith("another") else whole.replace(b'{"recipe"', b'{"recip_"')
    path.write_bytes(data if harm == "the mark" else data + b"more")
    if cache == "lost":
        shutil.rmtree(out / ".cxrprep")
    if harm.startswith("another"):
        ok(*words, "--include", "*i00002*")
    else:
        code, value, said = run(*words)
        assert (code, value["failed"], value["earlier"]) == (3, 1, 1), said
        failure = pq.read_table(out / "manifests/failures.parquet").to_pylist()[0]
        assert "no conversion wrote it" in failure["message"]
    assert len(pq.read_table(out / "manifests/images.parquet")) == 3
    found = json.loads(command("verify", out, "--json").stdout)["findings"]
    altered = [one["path"] for one in found if one["finding"] == "altered"]
    assert altered == [path.relative_to(out).as_posix()]
    path.unlink()
    ok(*words)
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before


@pytest.mark.parametrize("first", [("--scores",), ("--fix", "inverted")])
def test_what_has_scores_keeps_them_when_it_is_made_anew(tmp_path: Path, first: tuple[str, ...]) -> None:
    """Without, the images were replaced, their table was not, and no digest in it was theirs."""
    root, out = hospital.many(tmp_path / "in", 3), tmp_path / "out"
    words = ("convert", root, "--recipe", "square-224", "--out", out)
    ok(*words, *first)
    min(out.rglob("i00001.png")).unlink()
    ok(*words)
    table = pq.read_table(out / "manifests/images.parquet", columns=["inverted_score"])
    assert (len(table), table["inverted_score"].null_count) == (3, 0)
    ok("verify", out)


def test_a_failure_is_one_row_and_is_tried_again(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 12), tmp_path / "out"
    broken = root / "s000/i00004.dcm"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    code, value, said = run("convert", root, "--recipe", "square-224", "--out", out)
    assert code == 3, said
    assert (value["images"], value["failed"]) == (11, 1)
    row = pq.read_table(out / "manifests/failures.parquet").to_pylist()[0]
    assert (row["path"], row["stage"], row["error"]) == ("s000/i00004.dcm", "convert", "ImageError")
    assert str(broken) in row["message"]
    assert row["hint"]
    broken.write_bytes(whole)
    code, value, said = run("convert", root, "--recipe", "square-224", "--out", out)
    assert code == 0, said
    assert (value["images"], value["converted"], value["kept"]) == (12, 1, 11)
    assert not (out / "manifests/failures.parquet").exists()


@pytest.mark.parametrize("to", FORMS)
def test_shards_of_a_job_array_and_one_run_that_joins_them_are_as_one_run(tmp_path: Path, to: str) -> None:
    root = hospital.many(tmp_path / "in", 23)
    convert(root, tmp_path / "one", to=to)
    parts = [convert(root, tmp_path / "array", to=to, shard=Shard(index, 3)) for index in (2, 3, 1)]
    assert sum(part.images for part in parts) == 23
    assert all(part.images for part in parts)
    joined = convert(root, tmp_path / "array", to=to)
    assert (joined.converted, joined.kept) == (0, 23)
    found = tree(tmp_path / "array")
    shards = {name for name in found if name.startswith("manifests/shards/")}
    assert {name.split("/")[2] for name in shards} == {"1-of-3", "2-of-3", "3-of-3"}
    assert {name: found[name] for name in found if name not in shards} == tree(tmp_path / "one")


def test_shards_of_an_earlier_selection_do_not_stay_behind(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 20), tmp_path / "out"
    (out / "data").mkdir(parents=True)
    foreign = out / "data" / "mine-00000-of-00001.parquet"
    foreign.write_bytes(b"not ours")
    convert(root, out, to="parquet")
    convert(root, out, to="parquet", per_shard=10)
    found = sorted(path.name for path in (out / "data").iterdir())
    assert found == [foreign.name, "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


def test_a_known_dataset_does_not_lose_its_boxes_or_its_record_to_a_second_run(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root, size=1024)
    cxrprep.extract_labels(root)
    out = root / "derived" / "square-224"
    first = cxrprep.convert(root, recipe="square-224", engine=INLINE).value
    before = tree(out)
    second = cxrprep.convert(root, recipe="square-224", engine=INLINE).value
    assert (first.converted, second.converted, second.kept) == (7, 0, 7)
    assert {name: digest for name, digest in tree(out).items() if name != "manifests/verify.parquet"} == before
    # What is remembered lies beside the record of the dataset, so that the images can be handed on as they are.
    assert not list(out.rglob(".*"))
    boxes = dict(
        zip(
            *(pq.read_table(out / "manifests/images.parquet").column(n).to_pylist() for n in ("image_id", "boxes")),
            strict=True,
        )
    )
    box = boxes["00000003_001"][0]
    assert (box["x"], box["y"], box["w"], box["h"]) == pytest.approx(
        (100.5 * 224 / 1024, 200.25 * 224 / 1024, 300 * 224 / 1024, 80.5 * 224 / 1024)
    )


def test_a_source_of_a_known_dataset_that_changed_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    cxrprep.convert(root, recipe="square-224", engine=INLINE)
    path = root / "images/00000002_000.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), 255 - pixels)
    second = cxrprep.convert(root, recipe="square-224", engine=INLINE).value
    assert (second.converted, second.kept) == (1, 6)
    third = cxrprep.convert(root, recipe="square-224", engine=INLINE, selection=Selection(limit=3)).value
    assert (third.images, third.converted) == (3, 0)


@pytest.mark.slow
@pytest.mark.parametrize("to", some(["files", "parquet"], one_in=2))
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(tmp_path: Path, to: str) -> None:
    root = hospital.many(tmp_path / "in", 36, side=192)
    words = ("convert", root, "--recipe", "shortest-512", "--to", to, "--per-shard", 6, "--jobs", 2)
    code, value, said = run(*words, "--out", tmp_path / "whole")
    assert (code, value["images"]) == (0, 36), said
    out, draw, killed = tmp_path / "out", random.Random(5), 0
    most = 30 if to == "files" else 5
    for _ in range(2):
        process = start(*words, "--out", out)
        there, more = _written(out), draw.randint(1, most // 3)
        while process.poll() is None and _written(out) < there + more:
            time.sleep(0.005)
        if process.poll() is None:
            # Alternately the whole group as a batch system does, and the parent alone as the kernel does.
            if killed % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            killed += 1
        process.communicate()
        for path in out.rglob("*.png"):
            assert path.name.startswith(".") or path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
    assert killed
    code, value, said = run(*words, "--out", out)
    assert (code, value["images"]) == (0, 36), said
    assert tree(out) == tree(tmp_path / "whole")
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".jsonl"))]


def _written(out: Path) -> int:
    """Outputs and halves of outputs."""
    return sum(1 for path in out.rglob("*") if path.is_file() and ".cxrprep" not in path.parts)


@pytest.mark.parametrize("to", some(["files", "webdataset"], one_in=2))
def test_a_disk_that_refuses_ends_the_run_with_7_and_the_next_one_goes_on(tmp_path: Path, to: str) -> None:
    root, out = hospital.many(tmp_path / "in", 30), tmp_path / "out"
    words = [PROGRAM, "convert", str(root), "--recipe", "square-224", "--out", str(out), "--to", to, "--jobs", "1"]
    # The kernel refuses every byte past this size, as a full disk does; Python 3.11 would cut compiled modules, too.
    limited = ["env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", "--fsize=9000", *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 7, done.stderr
    assert str(out) in done.stderr
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    code, value, said = run(*words[1:])
    assert (code, value["images"]) == (0, 30), said


def test_only_our_own_temporary_files_are_swept_away(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 2), tmp_path / "out"
    convert(root, out)
    ours = [out / "s000" / ".1f-0-3a2b.tmp", temporary_for(out / "data" / "x.tar")]
    theirs = [out / ".notes.tmp", out / "s000" / "report.tmp", out / ".x.tmp"]
    for path in (*ours, *theirs):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    # The journal of a run whose process is gone.
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    (out / ".cxrprep" / f"finished-1-{socket.gethostname()}-{gone}-abcd.jsonl").write_text('{"begun":true}\n')
    convert(root, out)
    assert not [path for path in ours if path.exists()]
    assert all(path.exists() for path in theirs)
    assert {path.name for path in (out / ".cxrprep").iterdir()} == {"finished.parquet", "source"}


@pytest.mark.long
def test_a_job_array_at_work_at_the_same_time(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    words = ("convert", root, "--recipe", "square-224", "--jobs", 1)
    running = [start(*words, "--out", tmp_path / "array", "--shard", f"{index}/3") for index in (1, 2, 3)]
    for process in running:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    code, value, said = run(*words, "--out", tmp_path / "array")
    assert code == 0, said
    assert (value["converted"], value["kept"]) == (0, 7)
    code, _, said = run(*words, "--out", tmp_path / "one")
    assert code == 0, said
    found, wanted = tree(tmp_path / "array"), tree(tmp_path / "one")
    assert {name: found[name] for name in found if "/shards/" not in name} == wanted


def test_the_order_in_which_images_are_done_is_in_no_byte_of_the_manifest(tmp_path: Path) -> None:
    root = hospital.write(tmp_path / "in")
    (root / "cut.dcm").write_bytes(hospital.dicom(hospital.body(1))[:900])
    (root / "cut2.png").write_bytes(hospital.png(hospital.small(1))[:90])

    class Backwards(Engine):
        def run(self, function, items, *, batch, seconds, on_event):
            for item in reversed(list(items)):
                yield from function([item])

    convert(root, tmp_path / "a")
    convert(root, tmp_path / "b", engine=Backwards("inline"))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_parts_that_ran_again_say_how_what_came_since_is_listed(tmp_path: Path) -> None:
    """``verify`` advised to move away what a part of the array had converted after the parts were joined."""
    root, out = tmp_path / "in", tmp_path / "out"
    nih_chestxray14.write(root)
    late = sorted((root / "images").iterdir())[:3]
    for path in late:
        path.rename(tmp_path / path.name)
    words = ("convert", root, "--recipe", "square-224", "--out", out)
    for more in (["--shard", "1/2"], ["--shard", "2/2"], []):
        ok(*words, *more)
    for path in late:
        (tmp_path / path.name).rename(path)
    said = [command(*words, "--shard", f"{part}/2") for part in (1, 2)]
    assert all("the same once without --shard" in one.stdout + one.stderr for one in said), said
    done = command("verify", out)
    assert "the same convert once without --shard" in done.stdout, done
    joined = command(*words)
    assert (joined.returncode, "--shard" in joined.stdout + joined.stderr) == (0, False), joined
    assert "no table" not in ok("verify", out)
    assert pq.read_table(out / "manifests/images.parquet").num_rows == 7


@pytest.mark.parametrize("to", some(["files", "webdataset"], one_in=2))
def test_a_part_of_an_array_to_which_no_image_falls_is_done(tmp_path: Path, to: str) -> None:
    """Whoever waits for all parts (``afterok``) waited in vain: it ended with 8, as a selection without an image."""
    root = tmp_path / "in"
    nih_chestxray14.write(root)
    words = ("convert", root, "--recipe", "square-224", "--to", to)
    for part in range(1, 17):
        assert command(*words, "--out", tmp_path / "array", "--shard", f"{part}/16").returncode == 0
    ok(*words, "--out", tmp_path / "array")
    ok(*words, "--out", tmp_path / "one")
    found, wanted = tree(tmp_path / "array"), tree(tmp_path / "one")
    assert {name: found[name] for name in found if "/shards/" not in name} == wanted
    nothing = command(*words, "--out", tmp_path / "none", "--shard", "1/2", "--include", "nowhere*")
    assert (nothing.returncode, "no image" in nothing.stderr) == (8, True), nothing


def test_parts_that_were_not_joined_say_how_they_are(tmp_path: Path) -> None:
    """They led to ``manifest``, which is refused there, and ``verify`` to a report that is."""
    root, out = tmp_path / "in", tmp_path / "out"
    nih_chestxray14.write(root)
    words = ("convert", root, "--recipe", "square-224", "--out", out)
    reading = [("export", out, "--format", "csv"), ("digest", out), ("report", out), ("duplicates", out)]
    for part in ("1/2", "2/2"):
        ok(*words, "--shard", part)
        for verb in reading:
            done = command(*verb)
            said = ("parts of a job array" in done.stderr, "once without --shard" in done.stderr)
            assert (done.returncode, *said) == (2, True, True), done
        assert f"cxrprep status {out}" in ok("verify", out)
    ok(*words)
    for verb in reading:
        ok(*verb)
    assert f"cxrprep report {out}" in ok("verify", out)
