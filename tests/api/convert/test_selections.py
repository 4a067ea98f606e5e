"""One folder of outputs, several selections: its manifest lists all that this recipe finished and that is there."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.collection.lineage import read_lineage
from cxrprep.errors import UsageError
from cxrprep.events import Event, Note
from cxrprep.executors import Engine
from cxrprep.images.radiograph import DEFAULT_LIMITS
from cxrprep.model import Selection, Shard
from tests.api.convert import hospital
from tests.api.convert.commands import run, times, tree
from tests.commands import start
from tests.generators.small import nih_chestxray14

INLINE = Engine("inline")


def convert(root: Path, out: Path, **more: object) -> object:
    return cxrprep.convert(root, **{"recipe": "square-224", "out": out, "engine": INLINE, **more}).value


def only(*globs: str) -> Selection:
    return Selection(include=globs)


def listed(out: Path, column: str = "source_path") -> list[str]:
    return pq.read_table(out / "manifests/images.parquet").column(column).to_pylist()


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Note) and event.level == "warning"]


def test_a_second_selection_adds_to_the_manifest_as_if_both_had_been_one(tmp_path: Path) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    first = convert(root, out, selection=only("ward 1/b/*", "z.png"))
    second = convert(root, out, selection=Selection(exclude=("ward 1/b/*", "z.png")))
    assert (first.images, first.earlier) == (2, 0)
    assert (second.images, second.converted, second.earlier) == (4, 4, 2)
    convert(root, tmp_path / "one")
    assert tree(out) == tree(tmp_path / "one")
    before = tree(out)
    again = convert(root, out, selection=only("z.png"))
    assert (again.images, again.kept, again.earlier) == (1, 1, 5)
    assert tree(out) == before


def test_the_summary_says_that_earlier_images_are_listed_too(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 12), tmp_path / "out"
    words = ("convert", root, "--recipe", "square-224", "--out", out, "--jobs", 1)
    assert run(*words, "--include", "s000/*")[1]["images"] == 10
    process = start(*words, "--include", "s001/*")
    said, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "of earlier runs" in said
    assert "10, in the manifest too" in said
    assert len(listed(out)) == 12


def test_a_known_dataset_keeps_labels_and_boxes_of_every_selection(tmp_path: Path) -> None:
    root = tmp_path / "nih"
    nih_chestxray14.write(root, size=256)
    cxrprep.extract_labels(root)
    for patient in ("1", "2", "3"):
        convert(root, tmp_path / "out", selection=Selection(patients=frozenset({patient})))
    convert(root, tmp_path / "one", selection=Selection(patients=frozenset({"1", "2", "3"})))
    assert tree(tmp_path / "out") == tree(tmp_path / "one")


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_an_image_whose_source_is_gone_stays_with_all_that_was_known(tmp_path: Path, cache: str) -> None:
    root, out = tmp_path / "nih", tmp_path / "out"
    nih_chestxray14.write(root, size=256)
    cxrprep.extract_labels(root)
    convert(root, out)
    before = {row["source_path"]: row for row in pq.read_table(out / "manifests/images.parquet").to_pylist()}
    (root / "images/00000003_001.png").unlink()
    cxrprep.verify(root)
    if cache == "lost":
        shutil.rmtree(root / ".cxrprep")
    for selection in (Selection(), Selection(patients=frozenset({"2"}))):
        convert(root, out, selection=selection)
        after = {row["source_path"]: row for row in pq.read_table(out / "manifests/images.parquet").to_pylist()}
        assert after == before
        same = tree(out)
        convert(root, out, selection=selection)
        assert tree(out) == same


def test_an_output_that_was_removed_is_no_longer_listed(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 12), tmp_path / "out"
    convert(root, out)
    (out / "s000/i00003.png").unlink()
    (root / "s000/i00004.dcm").unlink()
    (out / "s000/i00004.png").unlink()
    assert convert(root, out, selection=only("s001/*")).earlier == 8
    assert not {"s000/i00003.dcm", "s000/i00004.dcm"} & set(listed(out))


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_a_source_that_changed_is_not_listed_until_it_is_converted_again(tmp_path: Path, cache: str) -> None:
    root, out, said = hospital.many(tmp_path / "in", 12), tmp_path / "out", []
    convert(root, out)
    (root / "s000/i00003.dcm").write_bytes(hospital.dicom(hospital.body(99)))
    # The same content with another time is the same source.
    os.utime(root / "s000/i00004.dcm", ns=(1, 1))
    if cache == "lost":
        shutil.rmtree(out / ".cxrprep")
    assert convert(root, out, selection=only("s001/*"), on_event=said.append).earlier == 9
    assert "s000/i00003.dcm" not in listed(out)
    assert any("changed since they were converted" in message for message in warnings(said))
    convert(root, out)
    assert len(listed(out)) == 12


def test_an_image_that_fails_now_does_not_stand_for_what_it_was(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 12), tmp_path / "out"
    convert(root, out)
    (root / "s000/i00003.dcm").write_bytes(b"no image")
    result = convert(root, out)
    assert (result.images, result.failed, result.earlier) == (11, 1, 0)
    assert "s000/i00003.dcm" not in listed(out)


@pytest.mark.parametrize("change", ["the size", "the suffix"])
def test_outputs_of_another_recipe_are_said_and_not_listed(tmp_path: Path, change: str) -> None:
    root, out, said = hospital.many(tmp_path / "in", 12), tmp_path / "out", []
    mine = tmp_path / "mine.toml"
    mine.write_text('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 64\n')
    convert(root, out, recipe=str(mine))
    mine.write_text(
        '[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 48\n'
        + ('[output]\nformat = "jpeg"\n' if change == "the suffix" else "")
    )
    with pytest.raises(UsageError, match="another recipe"):
        convert(root, out, recipe=str(mine), selection=only("s001/*"))
    assert len(listed(out)) == 12
    result = convert(root, out, recipe=str(mine), selection=only("s001/*"), allow_loss=True, on_event=said.append)
    assert (result.images, result.earlier) == (2, 0)
    left = 10 if change == "the size" else 12
    assert f": {left}; they are not in the manifest" in next(m for m in warnings(said) if "another recipe" in m)
    assert listed(out) == ["s001/i00010.dcm", "s001/i00011.dcm"]


@pytest.mark.parametrize("failing", ["one", "all"])
@pytest.mark.parametrize("change", ["the size", "the suffix"])
def test_what_an_edited_recipe_cannot_make_anew_stays(tmp_path: Path, change: str, failing: str) -> None:
    root, out, said = hospital.many(tmp_path / "in", 12), tmp_path / "out", []
    mine = tmp_path / "mine.toml"
    mine.write_text('[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 64\n')
    convert(root, out, recipe=str(mine))
    before = {row["source_path"]: row for row in pq.read_table(out / "manifests/images.parquet").to_pylist()}
    lineage = read_lineage(out / "manifests")
    mine.write_text(
        '[[step]]\ndo = "voi"\n[[step]]\ndo = "resize"\nlongest = 48\n'
        + ('[output]\nformat = "jpeg"\n' if change == "the suffix" else "")
    )
    largest = max(path.stat().st_size for path in root.rglob("*.dcm"))
    broken = root / "s000/i00003.dcm"
    if failing == "one":
        with broken.open("ab") as file:
            file.write(b"\0" * largest)
    limits = replace(DEFAULT_LIMITS, size=largest if failing == "one" else 100)
    result = convert(root, out, recipe=str(mine), limits=limits, on_event=said.append)
    stay = ["s000/i00003.dcm"] if failing == "one" else sorted(before)
    assert (result.failed, result.converted) == (len(stay), 12 - len(stay))
    after = {row["source_path"]: row for row in pq.read_table(out / "manifests/images.parquet").to_pylist()}
    assert [after[name] for name in stay] == [before[name] for name in stay]
    assert sorted(after) == sorted(before)
    assert f": {len(stay)}; they stay" in next(m for m in warnings(said) if "make anew" in m)
    held = read_lineage(out / "manifests")
    assert held is not None
    assert (held == lineage) == (failing == "all")
    again = convert(root, out, recipe=str(mine))
    assert (again.images, again.earlier) == (12, 0)
    assert {row["recipe_fingerprint"] for row in pq.read_table(out / "manifests/images.parquet").to_pylist()} == {
        again.fingerprint
    }


def test_a_run_that_was_killed_has_its_images_in_the_manifest_of_the_next_selection(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 40, side=256), tmp_path / "out"
    words = ("convert", root, "--recipe", "shortest-512", "--out", out, "--jobs", 1)
    process = start(*words, "--exclude", "s003/*")
    while process.poll() is None and not list(out.rglob(".cxrprep/*.jsonl")):
        time.sleep(0.005)
    while process.poll() is None and sum(p.stat().st_size for p in out.rglob(".cxrprep/*.jsonl")) < 2000:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, value, said = run(*words, "--include", "s003/*")
    assert (code, value["images"]) == (0, 10), said
    assert value["earlier"] > 0
    there = {path.relative_to(out).as_posix() for path in out.rglob("s*/*.png")}
    assert set(listed(out, "path")) <= there
    code, value, said = run(*words)
    assert code == 0, said
    run("convert", root, "--recipe", "shortest-512", "--out", tmp_path / "one")
    assert tree(out) == tree(tmp_path / "one")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_in_any_order_and_selections_between_them(tmp_path: Path, order: tuple[int, ...]) -> None:
    root, out = hospital.many(tmp_path / "in", 23), tmp_path / "out"
    for index in order:
        convert(root, out, shard=Shard(index, 3), selection=only("*/*[02468].dcm"))
        convert(root, out, shard=Shard(index, 3), selection=only("*/*[13579].dcm"))
    shards = [
        pq.read_table(out / f"manifests/shards/{index}-of-3/images.parquet").column("source_path").to_pylist()
        for index in order
    ]
    assert sorted(name for shard in shards for name in shard) == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.dcm")
    )
    before = times(out)
    joined = convert(root, out, selection=only("s001/*"))
    assert (joined.images, joined.converted, joined.earlier) == (10, 0, 13)
    assert times(out) == before
    convert(root, tmp_path / "one")
    assert {name: digest for name, digest in tree(out).items() if "/shards/" not in name} == tree(tmp_path / "one")


def test_a_folder_that_is_emptied_and_filled_month_by_month(tmp_path: Path) -> None:
    root, out = hospital.write(tmp_path / "in"), tmp_path / "out"
    convert(root, out)
    before = pq.read_table(out / "manifests/headers.parquet").to_pylist()
    shutil.rmtree(root / "ward 1")
    hospital.many(root, 3)
    assert convert(root, out).earlier == 5
    assert len(listed(out)) == 9
    after = pq.read_table(out / "manifests/headers.parquet").to_pylist()
    assert [row for row in after if not row["source_path"].startswith("s000/")] == before
    patients = dict(zip(listed(out), listed(out, "patient_id"), strict=True))
    wanted = {row["source_path"]: row["patient_id"] for row in before if row["patient_id"]}
    assert wanted
    assert {name: patients[name] for name in wanted} == wanted


def test_shards_of_another_selection_are_replaced(tmp_path: Path) -> None:
    root, out = hospital.many(tmp_path / "in", 12), tmp_path / "out"
    convert(root, out, to="webdataset", selection=only("s000/*"))
    result = convert(root, out, to="webdataset", selection=only("s001/*"))
    assert (result.images, result.earlier) == (2, 0)
    assert len(listed(out)) == 2
