"""A file that lies in a folder may say anything: the answer goes on without it or names it, in time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrprep.collection.lineage import read_export
from cxrprep.errors import TableError
from cxrprep.storage.parquet import read_footer
from cxrprep.storage.table_checksums import forget_checksum, note_checksum
from tests.api.convert import hospital
from tests.collection.found_files import cells, draw, prepared
from tests.commands import cxrprep, ok
from tests.generators.small import nih_chestxray14
from tests.sample import some_of_each


@pytest.mark.parametrize("size", ['"\\u0000"', "1" + "0" * 400, "1e400", "-1", "true", "null", "[]"])
def test_a_size_that_is_none_is_not_known(tmp_path: Path, size: str) -> None:
    listed = f'{{"csv": ["a.csv"], "about": {{"csv": {{"files": {{"a.csv": [{size}, "sha256:0"]}}}}}}}}'
    (tmp_path / ".cxrprep-export.json").write_text(listed)
    assert [shard.size for export in read_export(tmp_path) for shard in export.shards] == [-1]


@pytest.mark.parametrize("digest", ["../../x", "sha256:0", "shake_128:00", "md5", ":"])
def test_a_digest_that_is_none_is_not_known(tmp_path: Path, digest: str) -> None:
    listed = {"csv": ["a.csv"], "about": {"csv": {"files": {"a.csv": [1, digest]}}}}
    (tmp_path / ".cxrprep-export.json").write_text(json.dumps(listed))
    assert [(shard.size, shard.digest) for export in read_export(tmp_path) for shard in export.shards] == [(-1, "")]


@pytest.mark.parametrize(
    "words", ["pairs ROOT --reports R", "export ROOT --format csv", "report ROOT", "digest ROOT", "duplicates ROOT"]
)
def test_a_manifest_without_a_column_is_refused_by_name(everything: Path, tmp_path: Path, words: str) -> None:
    """Another program wrote it: each verb that reads it met that on its own, with exit code 1."""
    root = shutil.copytree(everything / "root", tmp_path / "root")
    (tmp_path / "r.csv").write_text("study_id,report\n1,IMPRESSION: Edema.\n")
    path = root / "manifests/images.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["study_id"]), path)
    note_checksum(path)
    put = {"ROOT": root, "R": tmp_path / "r.csv"}
    done = cxrprep(*(put.get(word, word) for word in words.split()))
    assert (done.returncode, "images.parquet cannot be read: there is no column study_id" in done.stderr) == (4, True)


def test_a_column_without_a_type_is_one_without_a_value(everything: Path, tmp_path: Path) -> None:
    root = shutil.copytree(everything / "root", tmp_path / "root")
    (tmp_path / "r.csv").write_text("study_id,report\n00000001_000,IMPRESSION: Edema.\n")
    path = root / "manifests/labels.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("report_path")
    pq.write_table(table.set_column(place, "report_path", pa.nulls(len(table))), path)
    note_checksum(path)
    ok("extract-labels", root, "--reports", tmp_path / "r.csv")
    assert "cxrprep" in pq.read_table(path)["label_source"].to_pylist()


@pytest.mark.parametrize("name", ["[[]]", "{}", "null", "3"])
def test_a_name_that_is_none_is_not_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / ".cxrprep-export.json").write_text(f'{{"csv": ["a.csv", {name}], "about": {{}}}}')
    assert [shard.name for export in read_export(tmp_path) for shard in export.shards] == ["a.csv"]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        *(({"tables": tables}, "source tables") for tables in ("x", [3], [{}], [{"name": 3, "digest": "x"}], {"a": 1})),
        *(({"dataset": dataset}, "dataset") for dataset in (3, ["x"], {"a": 1})),
        *(({"policy": policy}, "policy") for policy in ("x", [], {"uncertain": "ones"})),
    ],
)
def test_a_footer_in_no_form_of_ours_names_the_table(tmp_path: Path, said: dict[str, object], what: str) -> None:
    path = tmp_path / "images.parquet"
    footer = json.dumps({"dataset": "nih-chestxray14", **said})
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"cxrprep": footer}), path)
    with pytest.raises(TableError, match=rf"images\.parquet: its footer names its {what} in a form"):
        read_footer(path)


@pytest.mark.parametrize("where", ["../secret.png", "images/../../secret.png", "{}/secret.png"])
def test_an_image_table_names_no_file_outside_of_its_folder(everything: Path, tmp_path: Path, where: str) -> None:
    """What is made of a folder that somebody else gave away held a file of whoever made it."""
    root = shutil.copytree(everything / "root", tmp_path / "root")
    table = pq.read_table(root / "manifests/images.parquet")
    names = table["path"].to_pylist()
    shutil.copyfile(root / names[0], tmp_path / "secret.png")
    place, paths = table.column_names.index("path"), pa.array([where.format(tmp_path), *names[1:]])
    pq.write_table(table.set_column(place, table.field(place), paths), root / "manifests/images.parquet")
    note_checksum(root / "manifests/images.parquet")
    for form in ("hf", "webdataset"):
        done = cxrprep("export", root, "--format", form, "--out", tmp_path / form)
        assert (done.returncode, "is not a path inside the folder" in done.stderr) == (4, True), done
        assert not [path for path in (tmp_path / form).rglob("*train*") if path.suffix in (".parquet", ".tar")]
    report = tmp_path / "page.html"
    ok("report", root, "--out", report)
    assert "is not a path inside the folder" in report.read_text()


def test_converted_images_are_converted_by_paths_inside_alone(everything: Path, tmp_path: Path) -> None:
    out = shutil.copytree(everything / "out", tmp_path / "out")
    path = out / "manifests/images.parquet"
    table = pq.read_table(path)
    place, names = table.column_names.index("path"), table["path"].to_pylist()
    shutil.copyfile(out / names[0], tmp_path / "secret.png")
    pq.write_table(table.set_column(place, table.field(place), pa.array(["../secret.png", *names[1:]])), path)
    note_checksum(path)
    done = cxrprep("convert", out, "--recipe", "square-224", "--out", tmp_path / "new")
    assert (done.returncode, "is not a path inside the folder" in done.stderr) == (4, True), done
    assert not [*(tmp_path / "new").rglob("*.png")]


def test_an_export_removes_nothing_behind_a_link_that_leads_out(everything: Path, tmp_path: Path) -> None:
    out, theirs = tmp_path / "csv", tmp_path / "theirs"
    shutil.copytree(everything / "csv", out)
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    (out / "link").symlink_to(theirs)
    listed = json.loads((out / ".cxrprep-export.json").read_text())
    listed["csv"].append("link/notes.txt")
    (out / ".cxrprep-export.json").write_text(json.dumps(listed))
    done = cxrprep("export", everything / "root", "--format", "csv", "--out", out)
    assert (done.returncode, (theirs / "notes.txt").exists()) == (2, True), done
    (out / "link").unlink()
    ok("export", everything / "root", "--format", "csv", "--out", out)
    ok("verify", out)


@pytest.mark.parametrize("place", ["cxrprep.lock", "manifests/labels.parquet", ".cxrprep/x", "derived/x.png"])
def test_a_plan_puts_nothing_in_the_place_of_what_is_the_program_s_own(
    everything: Path, tmp_path: Path, place: str
) -> None:
    plan = json.loads((everything / "plan.json").read_text())
    plan["items"][0]["dest"] = place
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = cxrprep("download", "nih-chestxray14", tmp_path / "new", "--from-plan", tmp_path / "plan.json")
    assert (done.returncode, f"{place} is no file of a release" in done.stderr) == (2, True), done
    assert not (tmp_path / "new" / place).exists()


def test_a_pipe_is_named_where_a_row_would_go_for_it(everything: Path, tmp_path: Path) -> None:
    root = shutil.copytree(everything / "root", tmp_path / "root")
    image = next((root / "images").iterdir())
    image.unlink()
    os.mkfifo(image)
    done = cxrprep("manifest", root)
    assert (done.returncode, f"{image.name}, in whose place is no file" in done.stderr) == (2, True), done


def test_labels_that_are_none_and_a_root_that_is_a_file_are_refused(tmp_path: Path) -> None:
    nih_chestxray14.write(tmp_path / "root")
    ok("extract-labels", tmp_path / "root")
    path = tmp_path / "root/manifests/labels.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("label_edema")
    numbers = pa.array(range(table.num_rows), pa.int64())
    pq.write_table(table.set_column(place, "label_edema", numbers), path)
    forget_checksum(path.parent, path.name)
    done = cxrprep("manifest", tmp_path / "root")
    assert (done.returncode, "labels.parquet, column label_edema" in done.stderr) == (4, True), done.stderr
    (tmp_path / "a.csv").write_text("study_id,Edema\n1,1\n")
    for option in ("--import", "--reports"):
        done = cxrprep("extract-labels", tmp_path / "a.csv", option, tmp_path / "a.csv")
        assert (done.returncode, "is not a folder" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_changed_files_are_answered_and_nothing_else_is_lost(tmp_path: Path) -> None:
    """A short run of the campaign; ``python -m tests.collection.found_files SEED COUNT`` is the long one."""
    with prepared(tmp_path) as good:
        for number in range(6):
            change, why = draw(good, tmp_path / "home", random.Random(f"ci/{number}"))
            assert not why, (number, change, why)


def test_a_key_of_a_hundred_thousand_parts_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(".".join(["a"] * 100_000) + ' = "x"\n')
    begun = time.process_time()
    done = cxrprep("config", "check", tmp_path / "job.toml")
    assert (done.returncode, "job.toml" in done.stderr, len(done.stderr) < 2000) == (2, True, True)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("said", ["null", "[]", '"text"', "1"])
def test_metadata_of_a_record_that_is_no_object_is_damage(tmp_path: Path, said: str) -> None:
    nih_chestxray14.write(tmp_path / "mirror")
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", tmp_path / "mirror")
    path = root / "cxrprep.files.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(dict.fromkeys(table.schema.metadata, said)), path)
    done = cxrprep("verify", root)
    assert (done.returncode, path.name in done.stderr) == (4, True), done.stderr


def test_a_link_to_itself_among_images_is_passed_over(tmp_path: Path) -> None:
    own = hospital.write(tmp_path / "own")
    ok("manifest", own)
    for name in ("manifests/croissant.json", "ward.png", "manifests/README.md"):
        (own / name).unlink(missing_ok=True)
        (own / name).symlink_to(Path(name).name)
    done = cxrprep("convert", own, "--recipe", "square-224", "--out", tmp_path / "out")
    assert done.returncode in (0, 3), done.stderr


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("world")
    nih_chestxray14.write(home / "mirror")
    root = home / "root"
    ok("download", "nih-chestxray14", root, "--source", home / "mirror")
    ok("download", "nih-chestxray14", home / "new", "--source", home / "mirror", "--save-plan", home / "plan.json")
    for verb in ("verify", "extract-labels"):
        ok(verb, root)
    ok("convert", root, "--recipe", "square-224", "--out", home / "out")
    ok("export", root, "--format", "csv", "--out", home / "csv")
    (home / "job.toml").write_text("[convert]\nrecipe = 'square-224'\n")
    shutil.copyfile(root / "test_list.txt", home / "ids.txt")
    return home


FOUND = {
    "job.toml": ("config", "check", "job.toml"),
    "plan.json": ("download", "nih-chestxray14", "new", "--from-plan", "plan.json"),
    "mine.toml": ("verify", "root", "--dataset", "mine.toml"),
    "recipe.toml": ("convert", "root", "--recipe", "recipe.toml"),
    "ids.txt": ("export", "root", "--format", "csv", "--patients", "ids.txt", "--out", "new"),
    "reports.csv": ("extract-labels", "root", "--reports", "reports.csv"),
    "theirs.csv": ("extract-labels", "root", "--import", "theirs=theirs.csv"),
    "root/cxrprep.lock": ("verify", "root"),
    "root/cxrprep.files.parquet": ("verify", "root"),
    "root/SHA256SUMS.txt": ("verify", "root"),
    "root/Data_Entry_2017_v2020.csv": ("extract-labels", "root"),
    "root/test_list.txt": ("extract-labels", "root"),
    "root/.cxrprep/checks.parquet": ("verify", "root"),
    "root/manifests/SHA256SUMS": ("verify", "root"),
    "root/manifests/labels.parquet": ("manifest", "root"),
    "root/manifests/images.parquet": ("export", "root", "--format", "csv", "--out", "new"),
    "out/manifests/images.parquet": ("manifest", "out"),
    "out/manifests/labels.parquet": ("verify", "out"),
    "out/manifests/studies.parquet": ("manifest", "out"),
    "csv/.cxrprep-export.json": ("verify", "csv"),
    "csv/images.csv": ("verify", "csv"),
}


@pytest.mark.parametrize(("kind", "name"), some_of_each(["pipe", "folder", "device"], FOUND, one_in=5))
def test_what_is_no_file_where_one_is_expected_is_refused_at_once(
    everything: Path, tmp_path: Path, name: str, kind: str
) -> None:
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    make = {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda one: one.symlink_to("/dev/zero")}
    make[kind](path)
    known = cells(tmp_path)
    # A pipe that is opened waits for ever.
    guard = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(100)
    try:
        done = cxrprep(*FOUND[name], cwd=tmp_path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, guard)
    assert done.returncode in (0, 2, 3, 4, 7, 8), done.stderr
    shown = done.stderr + done.stdout
    assert done.returncode == 0 or path.name in shown or path.parent.name in shown, done.stderr
    now = cells(tmp_path)
    assert all(now[one][0] >= rows and now[one][1] >= held for one, (rows, held) in known.items()), (known, now)


@pytest.mark.parametrize(
    "line",
    [
        "verify root --images", "verify out --images", "convert root --recipe square-224 --out new", "report root",
        "convert out --recipe square-224 --out new", "digest root", "export root --format hf --out new",
        "export out --format webdataset --out new", "duplicates root", "manifest root", "extract-labels root",
        "download nih-chestxray14 root --source mirror", "convert root --check-phi", "status root",
        "verify own --images", "convert own --recipe square-224 --out new", "manifest own", "convert own --check-phi",
    ],
)  # fmt: skip
def test_a_pipe_in_the_place_of_an_image_holds_nobody_up(everything: Path, tmp_path: Path, line: str) -> None:
    """``report``, ``digest`` and ``prove`` waited for ever for somebody to write into it."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    hospital.write(tmp_path / "own")
    folder = tmp_path / line.split()[1 + line.startswith("download")]
    image = next(folder.glob("images/*"), folder / "ward 1/report.dcm")
    image.unlink()
    os.mkfifo(image)
    guard = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(100)
    try:
        done = cxrprep(*line.split(), cwd=tmp_path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, guard)
    assert done.returncode in (0, 2, 3, 4, 7), done
    assert done.returncode == 0 or image.name in done.stdout + done.stderr, done


TABLES = ("images.parquet", "labels.parquet", "studies.parquet", "croissant.json")
OF_ONE_VERB = {
    "report": ("report.html",), "pairs": ("pairs.parquet",), "duplicates": ("near_duplicates.parquet",),
}  # fmt: skip
WRITERS = (
    "manifest root", "extract-labels root", "extract-labels root --reports reports.csv",
    "extract-labels root --import theirs=theirs.csv", "convert root --recipe square-224", "report root",
    "pairs root --reports reports.csv", "duplicates root",
)  # fmt: skip


@pytest.mark.parametrize("line", WRITERS)
def test_a_folder_in_the_place_of_a_file_is_to_be_moved_away(everything: Path, tmp_path: Path, line: str) -> None:
    """``--import`` and ``--reports`` ended with 1, and the hint was to free space."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    for name, head in (("reports", "report"), ("theirs", "Edema")):
        (tmp_path / f"{name}.csv").write_text(f"study_id,{head}\n00000001_000,1\n")
    for name in OF_ONE_VERB.get(line.split(maxsplit=1)[0], TABLES):
        kept, path = tmp_path / "kept", tmp_path / "root/manifests" / name
        if path.is_file():
            path.rename(kept)
        path.mkdir()
        done = cxrprep(*line.split(), cwd=tmp_path)
        assert (done.returncode, str(path.relative_to(tmp_path)) in done.stderr) in ((7, True), (4, True)), done.stderr
        assert done.returncode == 4 or "move it away, or name another file" in done.stderr
        path.rmdir()
        if kept.is_file():
            kept.rename(path)
    ok(*line.split(), cwd=tmp_path)
