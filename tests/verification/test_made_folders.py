"""Verify of what cxrprep made: converted images, shards, exports; and each hint, which mends what it is for."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import cxrprep, ok
from tests.generators.small import nih_chestxray14

IMAGE = "images/00000001_000.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror, a folder with labels and converted images, shards of both forms, and exports."""
    folder = tmp_path_factory.mktemp("made")
    nih_chestxray14.write(folder / "mirror", size=256)
    root = folder / "root"
    ok("download", "nih-chestxray14", root, "--source", folder / "mirror")
    ok("extract-labels", root)
    ok("convert", root, "--recipe", "square-224")
    for form in ("webdataset", "parquet"):
        ok("convert", root, "--recipe", "square-224", "--to", form, "--out", folder / form)
    for form in ("csv", "coco", "webdataset", "hf", "original"):
        ok("export", root / "derived/square-224", "--format", form, "--out", folder / f"export-{form}")
    return folder


@pytest.fixture
def copy(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def verified(root: Path, *words: object) -> tuple[int, dict[str, Any]]:
    done = cxrprep("verify", root, *words, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {"stderr": done.stderr}


def found(report: dict[str, Any], kind: str) -> list[str]:
    return [one["path"] for one in report["findings"] if one["finding"] == kind]


def flip(path: Path) -> None:
    """Another byte in the middle; size and name stay."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def hint_of(report: dict[str, Any], kind: str) -> str:
    return next(one["hint"] for one in report["findings"] if one["finding"] == kind)


def follow(hint: str, root: Path, path: str, original: Path) -> None:
    """Do what a hint says: remove the file where it asks for that, and run its command."""
    if hint.startswith("remove it, then: "):
        (root / path).unlink()
    words = shlex.split(hint[hint.index("cxrprep ") :])[1:]
    ok(*(str(original) if word == "ORIGINAL" else word for word in words))


PRODUCTS = {
    "converted": ("root/derived/square-224", IMAGE),
    "webdataset": ("webdataset", "nih-chestxray14-test-000000.tar"),
    "parquet": ("parquet", "data/test-00000-of-00001.parquet"),
}


@pytest.mark.parametrize(("place", "path"), PRODUCTS.values(), ids=PRODUCTS.keys())
@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "removed"])
def test_a_converted_folder_is_held_to_its_digests_and_the_hint_mends_it(
    copy: Path, place: str, path: str, how: str
) -> None:
    root = copy / place
    code, report = verified(root)
    assert (code, report["files"]["proven"]["first-read"]) == (0, report["files"]["here"]), report
    assert report["verdict"].startswith("all ")
    target = root / path
    if how == "removed":
        target.unlink()
    elif how == "flipped":
        flip(target)
    else:
        target.write_bytes(target.read_bytes()[: 100 if how == "truncated" else 0])
    code, report = verified(root)
    kind = {"flipped": "altered", "truncated": "truncated", "emptied": "zero-byte", "removed": "missing"}[how]
    assert (code, found(report, kind)) == (4, [path]), report
    follow(hint_of(report, kind), root, path, copy / "root")
    code, report = verified(root)
    assert (code, report["counts"]) == (0, {}), report


def test_convert_makes_an_altered_image_again_and_never_calls_it_done(copy: Path) -> None:
    root = copy / "root"
    derived = root / "derived/square-224"
    before = (derived / IMAGE).read_bytes()
    for cache in (True, False):
        flip(derived / IMAGE)
        if not cache:
            shutil.rmtree(root / ".cxrprep")
        ok("convert", root, "--recipe", "square-224")
        assert (derived / IMAGE).read_bytes() == before
    assert verified(derived)[0] == 0


def test_a_moved_folder_is_proven_as_where_it_was_made(copy: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(copy / "root/derived/square-224", moved)
    shutil.rmtree(copy / "root")
    code, report = verified(moved, "--images")
    assert (code, report["images"]["decoded"], report["counts"]) == (0, 7, {}), report
    assert any("originals" in sentence for sentence in report["not_checked"])
    flip(moved / IMAGE)
    assert found(verified(moved)[1], "altered") == [IMAGE]


def test_images_of_ones_own_that_no_record_names_are_said_to_have_no_checksum(made: Path, tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    shutil.copy(made / "mirror" / IMAGE, tmp_path / "ward/a.png")
    _, report = verified(tmp_path / "ward")
    said = {(one["finding"], one["detail"]) for one in report["findings"]}
    assert said == {("unproven", "no checksum of it was recorded")}


def test_tables_and_descriptions_without_their_checksums_are_said_to_be_unproven(copy: Path) -> None:
    derived = copy / "root/derived/square-224"
    assert not any("SHA256SUMS" in sentence for sentence in verified(derived)[1]["not_checked"])
    (derived / "manifests/SHA256SUMS").unlink()
    code, report = verified(derived)
    [sentence] = [sentence for sentence in report["not_checked"] if "SHA256SUMS" in sentence]
    for name in (" images.parquet,", " studies.parquet,", " croissant.json,", " ../croissant.json:"):
        assert name in sentence, report
    assert code == 0


def test_a_read_only_copy_is_proven_beside_a_state_folder(copy: Path, tmp_path: Path) -> None:
    root, state = copy / "root/derived/square-224", tmp_path / "state"
    before = sorted(root.rglob("*"))
    code, report = verified(root, "--state", state)
    assert (code, report["files"]["proven"]["first-read"]) == (0, 7), report
    flip(root / IMAGE)
    code, report = verified(root, "--state", state)
    assert (code, found(report, "altered")) == (4, [IMAGE]), report
    assert sorted(root.rglob("*")) == before


def test_a_stranger_and_a_left_over_part_are_named(copy: Path) -> None:
    root = copy / "root/derived/square-224"
    (root / "images/extra.png").write_bytes(b"x")
    (root / "images/a.png.part").write_bytes(b"x")
    code, report = verified(root)
    assert (code, found(report, "extra"), found(report, "unfinished")) == (
        0,
        ["images/extra.png"],
        ["images/a.png.part"],
    )
    assert verified(root, "--strict")[0] == 4


def test_quick_never_says_that_all_is_right(copy: Path) -> None:
    import os

    for root, path in ((copy / "root/derived/square-224", IMAGE), (copy / "root", IMAGE)):
        assert verified(root)[0] == 0
        status = (root / path).stat()
        flip(root / path)
        os.utime(root / path, ns=(status.st_atime_ns, status.st_mtime_ns))
        code, report = verified(root, "--quick")
        assert (code, report["verdict"][:4]) == (0, "noth"), report["verdict"]
        assert "size and time of the last check" in report["verdict"]
        assert found(verified(root)[1], "altered") == [path]


EXPORTS = {
    "csv": "images.csv",
    "coco": "annotations.json",
    "webdataset": "nih-chestxray14-test-000000.tar",
    "hf": "data/test-00000-of-00001.parquet",
    "original": "Data_Entry_2017_v2020.csv",
}


@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_is_held_to_its_digests_and_the_hint_mends_it(copy: Path, form: str) -> None:
    root, original = copy / f"export-{form}", copy / "root/derived/square-224"
    path = EXPORTS[form]
    before = sorted(root.rglob("*"))
    code, report = verified(root, "--images")
    assert (code, report["files"]["here"]) == (0, report["files"]["proven"]["first-read"]), report
    assert report["verdict"].startswith("all ")
    for how, kind in (("flip", "altered"), ("cut", "truncated"), ("remove", "missing")):
        target = root / path
        if how == "flip":
            flip(target)
        elif how == "cut":
            target.write_bytes(target.read_bytes()[:100])
        else:
            target.unlink()
        code, report = verified(root)
        assert (code, found(report, kind)) == (4, [path]), report
        follow(hint_of(report, kind), root, path, original)
        assert verified(root)[:1] == (0,)
    # It is handed to other tools: nothing of ours is put in by looking at it.
    assert sorted(root.rglob("*")) == before


def test_two_exports_in_one_folder_are_both_held_to_their_digests(copy: Path, tmp_path: Path) -> None:
    for form in ("csv", "hf", "csv"):
        ok("export", copy / "root/derived/square-224", "--format", form, "--out", tmp_path / "both")
    code, report = verified(tmp_path / "both")
    assert (code, report["files"]["here"], report["counts"]) == (0, 5, {}), report
    for name in ("images.csv", EXPORTS["hf"], "README.md"):
        flip(tmp_path / "both" / name)
    code, report = verified(tmp_path / "both")
    assert (code, sorted(found(report, "altered"))) == (4, sorted(["images.csv", EXPORTS["hf"], "README.md"]))


def test_an_exported_file_that_was_named_is_proven_where_nothing_else_is(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/letter.txt").write_text("x")
    for folder in ("new", "desk"):
        for name in ("a.csv", "b.csv", "a.csv"):
            ok("export", copy / "root/derived/square-224", "--format", "csv", "--out", tmp_path / folder / name)
    assert not (tmp_path / "desk/.cxrprep-export.json").exists()
    code, report = verified(tmp_path / "new")
    assert (code, report["files"]["here"], report["counts"]) == (0, 4, {}), report
    flip(tmp_path / "new/b.csv")
    code, report = verified(tmp_path / "new")
    assert (code, found(report, "altered")) == (4, ["b.csv"])
    follow(hint_of(report, "altered"), tmp_path / "new", "b.csv", copy / "root/derived/square-224")
    assert verified(tmp_path / "new")[0] == 0


def test_an_export_that_was_cut_short_is_not_called_right(copy: Path) -> None:
    """The list as it stands while files are being written."""
    from cxrprep.manifest.export.target import Target

    root = copy / "export-csv"
    Target(root, "csv", ".csv", carded=True, about={}).write(root / "images.csv", lambda part: part.write_text("half"))
    code, report = verified(root, "--strict")
    assert (code, report["files"]["unproven"]) == (4, 2), report


def test_an_export_beside_originals_leaves_them_what_they_are(copy: Path) -> None:
    root = copy / "root"
    (root / "cxrprep.lock").unlink()
    (root / "cxrprep.files.parquet").unlink()
    ok("export", root, "--format", "csv")
    shutil.copytree(root / "export/csv", root, dirs_exist_ok=True)
    code, report = verified(root)
    assert (code, report["dataset"]) == (0, "nih-chestxray14"), report
    ok("extract-labels", root)


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_an_altered_shard_is_made_again_though_the_cache_is_gone(copy: Path, form: str) -> None:
    root, path = copy / form, PRODUCTS[form][1]
    before = (root / path).read_bytes()
    for cache in (True, False):
        flip(root / path)
        if not cache:
            shutil.rmtree(copy / "root/.cxrprep")
        ok("convert", copy / "root", "--recipe", "square-224", "--to", form, "--out", root)
        assert (root / path).read_bytes() == before
        assert verified(root)[0] == 0


def test_the_shards_of_a_job_array_are_proven_before_and_after_they_are_joined(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "array"
    words = ("convert", copy / "root", "--recipe", "square-224", "--to", "webdataset", "--out", out)
    for part in ("1/2", "2/2"):
        ok(*words, "--shard", part)
    for join in (False, True):
        if join:
            ok(*words)
        code, report = verified(out)
        shards = len(list(out.glob("*.tar")))
        assert (code, shards, report["files"]["proven"]["first-read"]) == (0, shards, shards), report
    flip(out / PRODUCTS["webdataset"][1])
    assert verified(out)[0] == 4


@pytest.mark.parametrize("words", [("--repair",), ("--complete",)])
def test_options_for_releases_are_refused_with_the_command_that_can(copy: Path, words: tuple[str, ...]) -> None:
    done = cxrprep("verify", copy / "root/derived/square-224", *words)
    assert done.returncode == 2
    assert f"cxrprep convert {copy / 'root'} --recipe square-224" in done.stderr.replace("\n", " ")


def test_an_image_that_was_made_from_other_bytes_is_told_and_made_again(copy: Path) -> None:
    mirror, root = copy / "mirror", copy / "again"
    good = (mirror / IMAGE).read_bytes()
    (mirror / IMAGE).write_bytes((mirror / "images/00000002_000.png").read_bytes())
    ok("download", "nih-chestxray14", root, "--source", mirror)
    ok("convert", root, "--recipe", "square-224")
    assert verified(root)[0] == 0
    (mirror / IMAGE).write_bytes(good)
    ok("download", "nih-chestxray14", root, "--source", mirror)
    code, report = verified(root)
    assert (code, found(report, "outdated")) == (4, [f"derived/square-224/{IMAGE}"]), report
    derived = root / "derived/square-224"
    code, report = verified(derived)
    assert (code, found(report, "outdated")) == (4, [IMAGE]), report
    follow(hint_of(report, "outdated"), derived, IMAGE, root)
    assert (verified(root)[0], verified(derived)[0]) == (0, 0)


def test_a_damaged_small_copy_has_its_original_fetched_again(copy: Path) -> None:
    root = copy / "small"
    words = ("download", "nih-chestxray14", root, "--source", copy / "mirror", "--then", "square-224", "--discard-raw")
    ok(*words)
    derived = root / "derived/square-224"
    before = (derived / IMAGE).read_bytes()
    for data in (before[: len(before) // 2], b""):
        (derived / IMAGE).write_bytes(data)
        ok(*words)
        assert (derived / IMAGE).read_bytes() == before
    flip(derived / IMAGE)
    assert verified(derived)[0] == 4
    ok(*words)
    assert (derived / IMAGE).read_bytes() == before
    assert (verified(derived)[0], verified(root)[0]) == (0, 0)


def test_labels_of_a_table_that_has_other_bytes_now_are_told(copy: Path) -> None:
    root, table = copy / "root", "Data_Entry_2017_v2020.csv"
    good = (root / table).read_bytes()
    (root / table).write_bytes(good.replace(b"Cardiomegaly", b"Hernia", 1))
    ok("extract-labels", root)
    (root / table).write_bytes(good)
    code, report = verified(root)
    assert (code, found(report, "outdated")) == (4, ["manifests/labels.parquet"]), report
    follow(hint_of(report, "outdated"), root, table, root)
    assert verified(root)[0] == 0


def test_labels_stand_for_the_tables_that_they_were_made_of(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, asked = copy / "root", list[object]()
    monkeypatch.setattr("cxrprep.labels.declared.read", lambda *_: asked.append(1))
    code, by_labels = verified(root)
    assert (code, asked) == (0, [])
    monkeypatch.undo()
    (root / "manifests/labels.parquet").rename(copy / "labels.parquet")
    by_tables = verified(root)[1]
    assert by_labels["facts"] == by_tables["facts"] != []


@pytest.mark.parametrize("listed", ["recorded", "unrecorded"])
def test_a_list_of_sums_that_was_edited_proves_nothing(tmp_path: Path, listed: str) -> None:
    """A list beside the images, changed to match an altered image: the record and the mirror know better."""
    from tests.generators.small import mimic_cxr_jpg

    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mimic_cxr_jpg.write(mirror)
    files = sorted(path for path in mirror.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()} {f.relative_to(mirror).as_posix()}\n" for f in files]
    ok("download", "mimic-cxr-jpg", root, "--source", mirror)
    list_of_sums = root / "SHA256SUMS.txt"
    list_of_sums.write_text("".join(lines))
    if listed == "recorded":
        shutil.copy(list_of_sums, mirror)
        ok("download", "mimic-cxr-jpg", root, "--source", root)
    path = next(iter(sorted((root / "files").rglob("*.jpg")))).relative_to(root).as_posix()
    good = (root / path).read_bytes()
    assert verified(root)[0] == 0
    flip(root / path)
    sums = [hashlib.sha256(data).hexdigest() for data in (good, (root / path).read_bytes())]
    list_of_sums.write_text(list_of_sums.read_text().replace(*sums))
    code, report = verified(root)
    assert (code, path in found(report, "altered")) == (4, True), report
    code, report = verified(root, "--repair", "--source", mirror)
    assert (root / path).read_bytes() == good
    if listed == "recorded":
        assert (code, "SHA256SUMS.txt" in found(report, "repaired")) == (0, True), report
        assert verified(root)[0] == 0
        return
    # The list that nobody vouches for accuses still; it goes, and all is as it was.
    assert (code, found(report, "altered")) == (4, [path]), report
    list_of_sums.unlink()
    assert verified(root)[0] == 0


def test_download_mends_what_verify_found(copy: Path) -> None:
    root, table = copy / "root", "Data_Entry_2017_v2020.csv"
    words = ("download", "nih-chestxray14", root, "--source", copy / "mirror")
    for path in (IMAGE, table):
        flip(root / path)
        assert found(verified(root)[1], "altered") == [path]
        planned = cxrprep(*words, "--dry-run")
        assert "to fetch again" in planned.stdout
        ok(*words)
        assert (root / path).read_bytes() == (copy / "mirror" / path).read_bytes()
        # Said once: the next download has nothing to do.
        assert "to fetch again" not in cxrprep(*words, "--dry-run").stdout
        assert verified(root)[0] == 0


def test_each_of_several_exports_in_one_folder_has_a_command_of_its_own(copy: Path) -> None:
    root, out = copy / "root", copy / "both"
    ok("export", root, "--format", "csv", "--out", out / "labels.csv")
    ok("export", root, "--format", "hf", "--out", out)
    done = cxrprep("verify", out, "--complete")
    assert done.returncode == 2
    hint = " ".join(done.stderr.split())
    commands = hint.partition("made again: ")[2].split("; ")
    assert [shlex.split(command)[3:6] for command in commands] == [
        ["--format", "csv", "--out"],
        ["--format", "hf", "--out"],
    ]
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "cxrprep"
        ok(*[str(root) if word == "ORIGINAL" else word for word in words])
