"""A hospital's own images: every verb works on them as they lie there, before and after they are converted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from cxrprep.storage.parquet import read_footer
from tests.api.convert import hospital
from tests.commands import PROGRAM, cxrprep, ok
from tests.generators.small import nih_chestxray14

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    root = hospital.write(tmp_path / "own")
    for path in root.rglob("._*"):
        path.unlink()
    return root


def verified(root: Path, *words: object) -> tuple[int, dict[str, Any]]:
    done = cxrprep("verify", root, *words, "--json")
    return done.returncode, json.loads(done.stdout)


def follow(hint: str) -> None:
    ok(*shlex.split(hint[hint.index("cxrprep ") :])[1:])


def follow_all(said: str) -> None:
    """Run what a result names as next, word for word."""
    found = [
        line.partition("cxrprep ")[2] for line in said.splitlines() if line.lstrip().startswith(("→ ", "-> ", "next: "))
    ]
    assert found
    for command in found:
        ok(*shlex.split(command))


def rows(folder: Path, table: str = "images") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"manifests/{table}.parquet").to_pylist()


def test_no_images_of_another_dataset_come_into_a_converted_folder(own: Path, tmp_path: Path) -> None:
    raw, files, shards = tmp_path / "raw", tmp_path / "files", tmp_path / "shards"
    nih_chestxray14.write(raw)
    to_shards = ("--to", "webdataset")
    ok("convert", raw, "--recipe", "square-224", "--out", files)
    ok("convert", raw, "--recipe", "square-224", "--out", shards, *to_shards)
    # Nor the other way: the key of the pseudonyms went with the table's footer.
    ours = tmp_path / "ours"
    ok("convert", own, "--recipe", "square-224", "--out", ours)
    nih, folder = "nih-chestxray14", "folder"
    for root, out, form, held in ((own, files, (), nih), (own, shards, to_shards, nih), (raw, ours, (), folder)):
        before = (out / "manifests/images.parquet").read_bytes()
        done = cxrprep("convert", root, "--recipe", "square-224", "--out", out, *form)
        assert (done.returncode, f"holds images of {held}, not of" in done.stderr) == (2, True)
        assert (out / "manifests/images.parquet").read_bytes() == before


def test_every_verb_works_before_and_after_it_is_converted(own: Path, tmp_path: Path) -> None:
    refused = cxrprep("report", own)
    assert refused.returncode == 2
    # Nothing was made from others here.
    assert "originals" not in ok("verify", own)
    follow(refused.stderr.splitlines()[-1])
    ok("manifest", own, "--split-by", "patient", "--fractions", "0.5,0.3,0.2")
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "out")
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "shards", "--to", "webdataset")
    for number, folder in enumerate((own, tmp_path / "out", tmp_path / "shards")):
        for verb in ("status", "verify", "manifest"):
            follow_all(ok(verb, folder))
        ok("digest", folder)
        ok("export", folder, "--format", "csv", "--out", tmp_path / f"csv{number}")
    splits = {row["path"]: row["split"] for row in rows(own)}
    assert set(splits.values()) > {None} or None not in splits.values()
    for folder in ("out", "shards"):
        assert {row["source_path"]: row["split"] for row in rows(tmp_path / folder)} == splits
        assert rows(tmp_path / folder, "headers")
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "shards").glob("*.tar")}
    assert names == {f"images-{split}" for split in splits.values()}
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "test", "--split", "test")
    assert {row["split"] for row in rows(tmp_path / "test")} == {"test"}


def test_it_names_no_patient_and_keeps_what_no_image_is_out(own: Path) -> None:
    ok("manifest", own)
    found = rows(own)
    assert {row["path"] for row in found} == {row["path"] for row in found if not row["path"].endswith("report.dcm")}
    for table in (own / "manifests").glob("*"):
        data = table.read_bytes()
        assert not [secret for secret in hospital.SECRETS if secret in data], table
    assert {row["patient_id"] for row in found if row["path"].endswith(".dcm")} & {
        row["patient_id"] for row in rows(own, "headers")
    }


def test_dicom_files_are_not_handed_on_with_their_headers(own: Path, tmp_path: Path) -> None:
    ok("manifest", own)
    for form in ("hf", "webdataset"):
        done = cxrprep("export", own, "--format", form, "--out", tmp_path / form)
        assert (done.returncode, (tmp_path / form).exists()) == (2, False)
        assert f"cxrprep convert {own}" in done.stderr.replace("\n", " ")
    # What the hint says: no header goes along, and the count of DICOM files, which went with the table, is not theirs.
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "ours")
    ok("manifest", tmp_path / "ours")
    for form in ("hf", "webdataset"):
        ok("export", tmp_path / "ours", "--format", form, "--out", tmp_path / form)


@pytest.mark.parametrize(("how", "kind"), [("flip", "altered"), ("cut", "truncated"), ("remove", "missing")])
def test_originals_are_held_to_what_they_were_and_the_hint_takes_them_as_they_are(
    own: Path, how: str, kind: str
) -> None:
    ok("manifest", own)
    assert verified(own)[1]["verdict"].startswith("all ")
    path = next(row["path"] for row in rows(own) if row["bytes"] > 500)
    data = (own / path).read_bytes()
    if how == "remove":
        (own / path).unlink()
    else:
        (own / path).write_bytes(bytes([*data[:-1], data[-1] ^ 1]) if how == "flip" else data[:400])
    code, report = verified(own)
    assert (code, [one["finding"] for one in report["findings"]]) == (4, [kind]), report
    if how == "flip":
        # Looking again is no consent: the digest of the first reading stays.
        ok("manifest", own)
        assert verified(own)[0] == 4
    follow(report["findings"][0]["hint"])
    assert verified(own)[:1] == (0,)


def test_new_images_are_unproven_until_they_are_listed(own: Path) -> None:
    code, report = verified(own)
    assert (code, report["files"]["unproven"] > 2) == (0, True)
    follow(next(one["hint"] for one in report["findings"]))
    assert verified(own)[1]["counts"] == {}
    shutil.copy(own / rows(own)[0]["path"], own / "new.dcm")
    (own / "notes.txt").write_text("not an image, and no finding")
    code, report = verified(own)
    assert [(one["finding"], one["path"]) for one in report["findings"]] == [("unproven", "new.dcm")]
    follow(report["findings"][0]["hint"])
    assert verified(own)[1]["counts"] == {}


@pytest.mark.parametrize("table", ["studies", "headers"])
def test_a_table_with_another_byte_is_found(own: Path, table: str) -> None:
    ok("manifest", own)
    path = own / f"manifests/{table}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    code, report = verified(own)
    assert (code, [one["path"] for one in report["findings"]]) == (4, [f"manifests/{table}.parquet"])
    follow(report["findings"][0]["hint"])
    assert verified(own)[0] == 0


def test_another_key_is_refused_wherever_its_fingerprint_is(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "first"))
    ok("manifest", own)
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "out")
    ok("export", tmp_path / "out", "--format", "csv", "--out", tmp_path / "csv")
    key = read_footer(own / "manifests/images.parquet")["pseudonyms"]
    assert read_footer(tmp_path / "out/manifests/images.parquet")["pseudonyms"] == key
    assert key in (tmp_path / "csv/.cxrprep-export.json").read_text()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "second"))
    before = rows(own)
    for words in (
        ("manifest", own),
        ("convert", own, "--recipe", "square-224", "--out", tmp_path / "out"),
        ("convert", own, "--recipe", "square-224", "--out", tmp_path / "new"),
    ):
        done = cxrprep(*words)
        assert (done.returncode, key in done.stderr) == (2, True), (words, done.stderr)
    assert rows(own) == before
    ok("verify", own)


def test_status_calls_done_what_is_done_and_its_next_commands_work(own: Path, tmp_path: Path) -> None:
    from cxrprep.api.status import status

    def states(folder: Path) -> dict[str, str]:
        return {stage.name: stage.state for stage in status(folder).value.stages}

    assert states(own) == {"manifest": "not done", "verify": "not done"}
    ok("convert", own, "--recipe", "square-224", "--out", tmp_path / "out")
    ok("export", tmp_path / "out", "--format", "csv", "--out", tmp_path / "csv")
    assert states(tmp_path / "out") == {"convert square-224": "done", "verify": "not done"}
    for folder in (own, tmp_path / "out", tmp_path / "csv"):
        for command in status(folder).value.following:
            ok(*shlex.split(command)[1:])
    assert set(states(own).values()) == set(states(tmp_path / "out").values()) == {"done"}
    image = next((tmp_path / "out").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    assert cxrprep("verify", tmp_path / "out").returncode == 4
    assert states(tmp_path / "out")["verify"] == "failed"


def test_labels_of_reports_are_in_the_manifest_at_once(own: Path, tmp_path: Path) -> None:
    ok("manifest", own)
    studies = sorted({row["study_id"] for row in rows(own)})
    reports = tmp_path / "reports.csv"
    reports.write_text("study_id,report\n" + "".join(f'{one},"FINDINGS: Edema."\n' for one in studies))
    ok("extract-labels", own, "--reports", reports)
    labelled = [row for row in rows(own) if row["label_edema"] == 1]
    assert len(labelled) == len(rows(own))
    assert {row["label_source"] for row in labelled} == {"cxrprep"}
    assert verified(own)[0] == 0


def test_reports_with_the_hospital_s_own_ids_label_nothing_and_that_is_said(own: Path, tmp_path: Path) -> None:
    ok("manifest", own)
    reports = tmp_path / "reports.csv"
    reports.write_text("study_id,report\nA1,FINDINGS: Edema.\n")
    done = cxrprep("extract-labels", own, "--reports", reports)
    assert done.returncode == 0
    assert "no label is of a study here: study_id has to be as in" in done.stderr


@pytest.mark.parametrize("column", ["uid", "study_id"])
def test_reports_find_their_study_by_its_uid_which_goes_nowhere_else(column: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "ours", tmp_path / "out"
    folder.mkdir()
    uids = ["1.2.826.0.1.3680043.77.1", "1.2.826.0.1.3680043.77.2"]
    for number, uid in enumerate(uids):
        image = hospital.dicom(hospital.body(number, 96, 96), StudyInstanceUID=uid, PatientID=f"P{number}")
        (folder / f"{number}.dcm").write_bytes(image)
    reports = tmp_path / "reports.csv"
    reports.write_text(f"accession,{column},report\nA1,{uids[0]},FINDINGS: Edema.\nA2,{uids[1]},FINDINGS: No edema.\n")
    ok("manifest", folder)
    ok("extract-labels", folder, "--reports", reports)
    assert {row["path"]: row["label_edema"] for row in rows(folder)} == {"0.dcm": 1, "1.dcm": 0}
    # A table of another labeler too.
    table = tmp_path / "theirs.csv"
    table.write_text(f"study_id,Edema\n{uids[0]},1\n{uids[1]},0\n")
    ok("extract-labels", folder, "--import", f"theirs={table}")
    labels = pq.read_table(folder / "manifests/labels.parquet", columns=["label_source", "study_id"]).to_pylist()
    studies = {row["study_id"] for row in rows(folder)}
    assert {(row["label_source"], row["study_id"]) for row in labels} == {
        (source, study) for source in ("cxrprep", "theirs") for study in studies
    }
    ok("convert", folder, "--recipe", "square-224", "--out", out)
    tables = [pq.read_table(path) for path in out.rglob("*.parquet")]
    assert not [table for table in tables if any(uid in str(table.to_pydict()) for uid in uids)]


def test_what_a_preview_and_a_look_at_tags_name_as_next_runs(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "a place"
    said = ok("convert", own, "--recipe", "square-224", "--out", out, "--preview", "2")
    follow_all(said)
    # The page stays, and is no stranger among the images.
    code, value = verified(out)
    assert (code, (out / "preview.html").is_file()) == (0, True)
    assert "extra" not in json.dumps(value["counts"])
    for words in (("--check-phi",), ("--recipe", "square-224", "--preview", "1")):
        done = subprocess.run(
            [PROGRAM, "convert", str(own), *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert f"cxrprep convert {own} --recipe square-224 --out DIR" in done.stdout
    # A file counts whatever its name.
    plain = hospital.many(tmp_path / "plain", 2)
    next(plain.rglob("*.dcm")).rename(plain / "IM0001")
    assert re.search(r"^files +2 ", ok("status", plain, "--dataset", "folder"), re.MULTILINE)


def test_a_job_takes_labels_over_for_a_folder_that_has_no_tables(own: Path, tmp_path: Path) -> None:
    ok("manifest", own)
    studies = sorted({row["study_id"] for row in rows(own)})
    (tmp_path / "theirs.csv").write_text("study_id,Edema\n" + "".join(f"{one},1\n" for one in studies))
    job = tmp_path / "job.toml"
    text = f'root = "{own}"\nsteps = ["extract-labels"]\n[labels]\nimports = ["theirs={tmp_path / "theirs.csv"}"]\n'
    # What is said of tables that the folder cannot have is refused, as on the command line.
    job.write_text(text + "demographics = true\n")
    done = cxrprep("run", job)
    assert (done.returncode, "labels.demographics goes with the label tables" in " ".join(done.stdout.split())) == (
        2,
        True,
    )
    job.write_text(text)
    ok("run", job)
    ok("manifest", own, "--label-source", "theirs")
    assert {row["label_edema"] for row in rows(own)} == {1}
    # A job that gives no labels in another way says what does.
    job.write_text(f'root = "{own}"\nsteps = ["extract-labels"]\n')
    done = cxrprep("run", job)
    assert (done.returncode, "--import NAME=FILE" in " ".join(done.stdout.split())) == (2, True)
