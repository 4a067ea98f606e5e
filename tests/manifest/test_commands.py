"""The commands that hand the manifest over, from the command line to the files."""

from __future__ import annotations

import csv
import json

import pyarrow.parquet as pq
import pytest

from cxrprep.errors import UsageError
from cxrprep.manifest.load import load
from tests.commands import cxrprep
from tests.manifest.made import made


@pytest.fixture(scope="module")
def cx(tmp_path_factory):
    return made("chexpert", tmp_path_factory.mktemp("cx"))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_export_says_what_it_wrote(cx, tmp_path):
    words = ("--format", "csv", "--out", tmp_path, "--uncertain", "ones", "--observations", "chexpert-competition")
    done = cxrprep("export", cx, *words, "--split", "train", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["form"], told["images"], told["left_out"]) == ("csv", 8, [])
    rows = rows_of(tmp_path / "images.csv")
    assert list(rows[0])[9:] == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    assert {row["split"] for row in rows} == {"train"}
    assert not any("-1" in (row["Edema"], row["Atelectasis"]) for row in rows)


def test_a_job_file_names_policies_of_single_observations(cx, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(
        f'root = "{cx}"\n[labels]\nuncertain = "zeros"\n[labels.uncertain_by]\nEdema = "ones"\n'
        '[labels.blank_by]\nFracture = "zeros"\n'
    )
    done = cxrprep("export", "--config", job, "--format", "csv", "--out", tmp_path / "out", "-q")
    assert done.returncode == 0, done.stderr
    rows = {row["image_id"]: row for row in rows_of(tmp_path / "out" / "images.csv")}
    assert rows["patient00002/study1/view1_frontal"]["Edema"] == "1"
    assert rows["patient07958/study5/view2_frontal"]["Atelectasis"] == "0"
    assert rows["patient00001/study1/view1_frontal"]["Fracture"] == "0"
    assert rows["patient00001/study1/view1_frontal"]["Edema"] == ""


def test_one_seed_divides_the_patients_alike_in_manifest_and_export(tmp_path):
    root = made("nih-chestxray14", tmp_path / "nih")
    rule = ("--split-by", "patient", "--fractions", "0.5,0.25,0.25", "--seed", "3")
    assert cxrprep("export", root, "--format", "csv", "--out", tmp_path / "e", "-q", *rule).returncode == 0
    exported = {row["image_id"]: row["split"] for row in rows_of(tmp_path / "e" / "images.csv")}
    manifest = cxrprep("manifest", root, *rule)
    assert "by patient: train 0.5, validate 0.25, test 0.25; seed 3" in manifest.stdout
    table = pq.read_table(root / "manifests" / "images.parquet").to_pylist()
    assert {row["image_id"]: row["split"] for row in table} == exported
    by_patient: dict[str, set[str]] = {}
    for row in table:
        by_patient.setdefault(row["patient_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_patient.values())


def test_nih_gets_a_validation_part_and_its_test_images_stay(tmp_path):
    root = made("nih-chestxray14", tmp_path / "nih")
    before = {r["image_id"]: r["split"] for r in pq.read_table(root / "manifests" / "images.parquet").to_pylist()}
    done = cxrprep("manifest", root, "--split-within", "train_val", "--fractions", "0.5,0.5", "--seed", "2", "-q")
    assert done.returncode == 0, done.stderr
    after = {r["image_id"]: r["split"] for r in pq.read_table(root / "manifests" / "images.parquet").to_pylist()}
    assert {k for k, v in after.items() if v == "test"} == {k for k, v in before.items() if v == "test"}
    assert set(after.values()) == {"train", "validate", "test"}
    footer = json.loads(pq.read_schema(root / "manifests" / "images.parquet").metadata[b"cxrprep"])
    assert footer["split"]["within"] == "train_val"


def test_tables_that_a_manifest_would_not_read_are_refused_with_the_command_that_does(cx):
    done = cxrprep("manifest", cx, "--tables", cx)
    assert done.returncode == 2
    words = done.stderr.partition("cxrprep ")[2].replace("DIR", str(cx)).split()
    assert words[0] == "extract-labels"
    assert cxrprep(*words, "-q").returncode == 0


def test_nothing_selected_is_exit_code_8(cx, tmp_path):
    done = cxrprep("export", cx, "--format", "coco", "--out", tmp_path)
    assert done.returncode == 8
    assert "none of these images has a box" in done.stderr


def test_manifests_beside_a_read_only_root(tmp_path):
    root = made("nih-chestxray14", tmp_path / "nih")
    (root / "manifests").rename(tmp_path / "gone")
    state = tmp_path / "state"
    assert cxrprep("extract-labels", root, "--state", state, "-q").returncode == 0
    assert cxrprep("export", root, "--state", state, "--format", "csv", "-q").returncode == 0
    assert len(rows_of(state / "export" / "csv" / "images.csv")) == 7
    assert not (root / "export").exists()


def test_folds_are_kept_handed_over_and_taken_away_only_when_asked(tmp_path):
    root = made("nih-chestxray14", tmp_path / "nih")
    manifest = root / "manifests" / "images.parquet"
    split = pq.read_table(manifest).column("split").to_pylist()
    assert cxrprep("manifest", root, "-q", "--folds", "3", "--stratify", "all").returncode == 0
    table = pq.read_table(manifest)
    folds = table.column("fold").to_pylist()
    assert table.column("split").to_pylist() == split
    assert {fold for fold, part in zip(folds, split, strict=True) if part == "test"} <= {None}
    assert set(folds) - {None} <= {0, 1, 2}
    assert cxrprep("extract-labels", root, "-q").returncode == 0
    assert pq.read_table(manifest).column("fold").to_pylist() == folds
    assert cxrprep("export", root, "--format", "csv", "--out", tmp_path / "e", "-q").returncode == 0
    handed = [row["fold"] for row in rows_of(tmp_path / "e" / "images.csv")]
    assert handed == ["" if fold is None else str(fold) for fold in folds]
    assert cxrprep("convert", root, "--recipe", "square-224", "-q").returncode == 0
    derived = root / "derived" / "square-224"
    assert [row["fold"] for row in pq.read_table(derived / "manifests" / "images.parquet").to_pylist()] == folds
    rest, held_out = load(derived).fold(1)
    assert (len(rest), len(held_out)) == (folds.count(0) + folds.count(2), folds.count(1))
    with pytest.raises(UsageError, match="no fold 3"):
        load(derived).fold(3)
    refused = cxrprep("manifest", root, "-q")
    assert (refused.returncode, "--allow-loss" in refused.stderr) == (2, True)
    assert cxrprep("manifest", root, "-q", "--allow-loss").returncode == 0
    assert load(root).folds == 0
