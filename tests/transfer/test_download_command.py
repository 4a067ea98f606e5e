"""``cxrprep download`` as users run it: plans, shards, every way to select, adoption, conversion on arrival."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from cxrprep.record.record import Record
from cxrprep.storage.locks import FolderLock, RunId
from tests.commands import cxrprep, ok, result
from tests.generators.small import mimic_cxr_jpg, nih_chestxray14
from tests.record.entries import entries_of

ROWS = mimic_cxr_jpg.IMAGES
STUDIES = {str(row[2]): f"{mimic_cxr_jpg.stem(row)}.jpg" for row in ROWS}


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic") / "mirror"
    mimic_cxr_jpg.write(folder)
    return folder


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih") / "mirror"
    nih_chestxray14.write(folder)
    return folder


def images(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in (root / "files").rglob("*.jpg")}


def wanted(*numbers: int) -> set[str]:
    return {f"{mimic_cxr_jpg.stem(ROWS[number])}.jpg" for number in numbers}


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (("--patients", "10000032"), (0, 1, 2, 3)),
        (("--patients", "p10000764"), (4, 5)),
        (("--studies", "s50414267"), (0, 1)),
        (("--studies", "p10000032/s50414267"), (0, 1)),
        (("--split", "test"), (6,)),
        (("--split", "valid"), (4, 5)),
        (("--view", "frontal"), (0, 2, 3)),
        (("--view", "lateral"), (1, 5)),
        (("--view", "PA", "--split", "train"), (0, 2)),
        (("--label", "Cardiomegaly"), (6,)),
        (("--label", "pneumonia=-1"), (2,)),
        (("--label", "No Finding", "--label", "Edema=1"), (0, 1, 6)),
        (("--include", "files/p10/p10000032/**"), (0, 1, 2, 3)),
        (("--exclude", "files/p10/p10000032/**"), (4, 5, 6)),
        (("--view", "frontal", "--limit", "1"), (0,)),
    ],
)
def test_a_selection_brings_what_it_names_and_no_more(
    tmp_path: Path, mimic: Path, words: tuple[str, ...], numbers: tuple[int, ...]
) -> None:
    ok("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic, *words)
    assert images(tmp_path / "root") == wanted(*numbers)


@pytest.mark.parametrize(
    ("words", "unmet"),
    [
        (("--patients", "10000032,10000033"), "1 of 2 ids match no image of the mirror: 10000033"),
        (("--patients", "10000032", "--studies", "50414267,59999999"), "1 of 3 ids match no image of the mirror: 599"),
        # They have images, though none that the rest of the selection wants.
        (("--patients", "10000032,10000764", "--include", "files/p10/p10000032/**"), ""),
        (("--patients", "10000032,10000764", "--split", "train"), ""),
        (("--patients", "10000032,10000764", "--limit", "1"), ""),
    ],
)
def test_ids_that_the_mirror_does_not_have_are_said(
    tmp_path: Path, mimic: Path, words: tuple[str, ...], unmet: str
) -> None:
    done = cxrprep("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic, *words)
    assert done.returncode == 0
    assert unmet in done.stderr
    assert ("match no image" in done.stderr) == bool(unmet)


def test_images_that_the_mirror_does_not_have_are_said(tmp_path: Path, mimic: Path) -> None:
    names = [f"{mimic_cxr_jpg.stem(ROWS[0])}.jpg", "00000000-00000000-00000000-00000000-00000000"]
    (tmp_path / "cohort.csv").write_text("\n".join(["path", *names]))
    done = cxrprep("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic, "--ids", tmp_path / "cohort.csv")
    assert images(tmp_path / "root") == wanted(0)
    assert f"1 of 2 ids match no image of the mirror: {names[1]}" in done.stderr


@pytest.mark.parametrize("option", ["--patients", "--ids", "--include", "--label", "--split", "--shard", "--source"])
def test_an_empty_word_is_not_taken_for_everything(tmp_path: Path, mimic: Path, option: str) -> None:
    done = cxrprep("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic, option, "")
    assert done.returncode == 2
    assert f"{option} is empty" in done.stderr
    assert not (tmp_path / "root").exists()


def test_a_label_that_does_not_exist_is_said_before_anything_is_fetched(tmp_path: Path, mimic: Path) -> None:
    done = cxrprep("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic, "--label", "Edma")
    assert done.returncode == 2
    assert "did you mean Edema?" in done.stderr
    assert not list((tmp_path / "root").glob("*.csv*"))


def test_a_plan_knows_its_dataset(tmp_path: Path, mimic: Path) -> None:
    plan = tmp_path / "plan.json"
    ok("download", "mimic-cxr-jpg", tmp_path / "one", "--source", mimic, "--patients", "10000764", "--save-plan", plan)
    ok("download", tmp_path / "two", "--from-plan", plan)
    ok("download", "mimic-cxr-jpg", tmp_path / "three", "--from-plan", plan)
    assert images(tmp_path / "two") == images(tmp_path / "three") == wanted(4, 5)
    done = cxrprep("download", "chexpert", tmp_path / "four", "--from-plan", plan)
    assert done.returncode == 2
    assert "is a plan for mimic-cxr-jpg, not for chexpert" in done.stderr


def archived(mirror: Path, nih: Path) -> Path:
    """The mirror in NIH's own form: tables beside an archive of images."""
    shutil.copytree(nih, mirror, ignore=shutil.ignore_patterns("images"))
    with tarfile.open(mirror / "images_001.tar.gz", "w:gz") as tar:
        tar.add(nih / "images", "images")
    return mirror


def test_ids_that_the_tables_do_not_know_fetch_no_archive(tmp_path: Path, nih: Path) -> None:
    mirror, root = archived(tmp_path / "mirror", nih), tmp_path / "root"
    done = cxrprep("download", "nih-chestxray14", root, "--source", mirror, "--patients", "99999999")
    assert done.returncode == 8
    assert "99999999" in done.stderr
    assert not list(root.glob("images*"))
    done = cxrprep("download", "nih-chestxray14", root, "--source", mirror, "--patients", "00000002,99999999")
    assert done.returncode == 0
    assert "1 of 2 ids" in done.stderr
    assert "99999999" in done.stderr
    assert [path.name for path in (root / "images").iterdir()] == ["00000002_000.png"]


def test_ids_without_tables_are_looked_for_in_the_archives(tmp_path: Path, nih: Path) -> None:
    mirror, root = archived(tmp_path / "mirror", nih), tmp_path / "root"
    for table in [*mirror.glob("*.csv"), *mirror.glob("*.txt")]:
        table.unlink()
    ok("download", "nih-chestxray14", root, "--source", mirror, "--patients", "00000002")
    assert [path.name for path in (root / "images").iterdir()] == ["00000002_000.png"]


def test_a_stray_file_is_named_and_a_list_of_checksums_is_none(tmp_path: Path, nih: Path) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(nih, mirror)
    (mirror / "MD5SUMS").write_text("")
    done = cxrprep("download", "nih-chestxray14", tmp_path / "one", "--source", mirror)
    assert "no part of the release" not in done.stderr
    (mirror / "notes.docx").write_text("")
    done = cxrprep("download", "nih-chestxray14", tmp_path / "two", "--source", mirror)
    assert "a file of the mirror is no part of the release: notes.docx" in done.stderr


def test_a_list_of_ids_as_csv_and_as_parquet(tmp_path: Path, mimic: Path) -> None:
    table = pd.DataFrame({"study_id": [50414267, 50771383], "note": ["a", "b"]})
    table.to_csv(tmp_path / "ids.csv", index=False)
    table.to_parquet(tmp_path / "ids.parquet")
    for name in ("ids.csv", "ids.parquet"):
        root = tmp_path / name.replace(".", "-")
        ok("download", "mimic-cxr-jpg", root, "--source", mimic, "--ids", tmp_path / name)
        assert images(root) == wanted(0, 1, 6)


def test_a_sample_is_the_same_for_the_same_seed(tmp_path: Path, mimic: Path) -> None:
    drawn = []
    for number, seed in enumerate(("7", "7", "8", "9", "10")):
        root = tmp_path / str(number)
        ok("download", "mimic-cxr-jpg", root, "--source", mimic, "--sample", "3", "--seed", seed)
        drawn.append(frozenset(images(root)))
    assert {len(each) for each in drawn} == {3}
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_another_selection_adds_to_what_is_here(tmp_path: Path, mimic: Path) -> None:
    root = tmp_path / "root"
    ok("download", "mimic-cxr-jpg", root, "--source", mimic, "--patients", "10000764")
    ok("download", "mimic-cxr-jpg", root, "--patients", "10000898")
    assert images(root) == wanted(4, 5, 6)
    with Record.open(root) as record:
        assert len(record.selections) == 2


def test_a_dry_run_says_all_and_fetches_nothing(tmp_path: Path, mimic: Path) -> None:
    root = tmp_path / "root"
    said = result("download", "mimic-cxr-jpg", root, "--source", mimic, "--patients", "10000032", "--dry-run")
    actions = said["actions"]
    assert actions["fetch"]["files"] >= 4
    assert actions["fetch"]["bytes"] == said["disk_need"]
    assert said["disk_free"] > said["disk_need"]
    assert {"keep", "resume", "refetch", "impossible"} <= set(actions)
    assert {"seconds_at_best", "seconds_at_worst"} <= set(said)
    assert not root.exists()
    ok("download", "mimic-cxr-jpg", root, "--source", mimic, "--patients", "10000032")
    (root / next(iter(wanted(0)))).unlink()
    (root / next(iter(wanted(1)))).write_bytes(b"short")
    after = result("download", "mimic-cxr-jpg", root, "--dry-run")["actions"]
    assert (after["refetch"]["files"], after["fetch"]["files"]) == (1, 4)
    assert after["keep"]["files"] == actions["fetch"]["files"] - 2


def test_a_plan_is_made_beside_a_run_that_is_at_work(tmp_path: Path, mimic: Path) -> None:
    words = ("download", "mimic-cxr-jpg", tmp_path / "root", "--source", mimic)
    with FolderLock(tmp_path / "root" / ".cxrprep", RunId.new()):
        assert cxrprep(*words, "--dry-run").returncode == 0
        # Label tables have to be fetched for this one.
        assert cxrprep(*words, "--dry-run", "--split", "test").returncode == 75
        assert cxrprep(*words).returncode == 75
    assert cxrprep(*words, "--dry-run", "--split", "test").returncode == 0


def test_a_plan_is_kept_and_applied_elsewhere_in_shards(tmp_path: Path, mimic: Path) -> None:
    plan = tmp_path / "plan.json"
    ok("download", "mimic-cxr-jpg", tmp_path / "one", "--source", mimic, "--split", "train", "--save-plan", plan)
    assert not images(tmp_path / "one")
    assert json.loads(plan.read_text())["dataset"] == "mimic-cxr-jpg"
    root = tmp_path / "other"
    seen: set[str] = set()
    for index in (1, 2, 3):
        before = images(root)
        ok("download", "mimic-cxr-jpg", root, "--from-plan", plan, "--shard", f"{index}/3")
        new = images(root) - before
        assert not new & seen
        seen |= new
    assert seen == wanted(0, 1, 2, 3)
    # The shards have left one record, and the whole plan has nothing more to do.
    assert result("download", "mimic-cxr-jpg", root, "--from-plan", plan)["done"] == 0


def test_a_plan_of_another_dataset_is_a_usage_error(tmp_path: Path, mimic: Path) -> None:
    plan = tmp_path / "plan.json"
    ok("download", "mimic-cxr-jpg", tmp_path / "one", "--source", mimic, "--save-plan", plan)
    done = cxrprep("download", "chexpert", tmp_path / "two", "--from-plan", plan)
    assert done.returncode == 2
    assert "mimic-cxr-jpg" in done.stderr


def test_a_read_only_folder_is_adopted_where_it_lies(tmp_path: Path, mimic: Path) -> None:
    lab, state = tmp_path / "lab", tmp_path / "state"
    shutil.copytree(mimic, lab)
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", str(lab), str(lab)], capture_output=True, check=False)
    if mounted.returncode:
        for path in [*lab.rglob("*"), lab]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = {path: path.stat().st_mtime_ns for path in lab.rglob("*")}
        said = result("download", "mimic-cxr-jpg", lab, "--source", lab, "--state", state)
        assert said["failed"] == 0
        assert said["bytes"] == 0
        with Record.open(lab, state) as record:
            assert wanted(*range(7)) <= set(entries_of(record))
            assert all(entry.digest is not None for entry in entries_of(record).values())
        assert result("download", "mimic-cxr-jpg", lab, "--source", lab, "--state", state)["done"] == 0
        ok("verify", lab, "--state", state)
        assert {path: path.stat().st_mtime_ns for path in lab.rglob("*")} == before
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(lab)], check=True)
        else:
            for path in [lab, *lab.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_saved_plan_of_a_folder_that_is_adopted_sees_what_went_since(tmp_path: Path, mimic: Path) -> None:
    lab, plan = tmp_path / "lab", tmp_path / "plan.json"
    shutil.copytree(mimic, lab)
    adopt = ("download", "mimic-cxr-jpg", lab, "--source", lab)
    ok(*adopt)
    ok(*adopt, "--save-plan", plan)
    gone = next(lab.rglob("*.jpg"))
    gone.unlink()
    done = cxrprep(*adopt, "--from-plan", plan)
    assert done.returncode != 0
    assert gone.name in done.stdout + done.stderr


def test_archives_that_are_adopted_stay_packed_and_untouched(tmp_path: Path, nih: Path) -> None:
    lab = archived(tmp_path / "my lab", nih)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in lab.iterdir()}
    done = cxrprep("download", "nih-chestxray14", lab, "--source", lab)
    assert done.returncode == 0
    assert "images_001.tar.gz stays packed here" in done.stderr
    assert f"cxrprep download nih-chestxray14 FOLDER --source '{lab}'" in done.stderr
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    with Record.open(lab) as record:
        assert entries_of(record)["images_001.tar.gz"].digest is not None
    ok("download", "nih-chestxray14", tmp_path / "root", "--source", lab)
    assert len(list((tmp_path / "root" / "images").iterdir())) == len(list((nih / "images").iterdir()))
    # Where somebody unpacked them there is nothing to say.
    shutil.copytree(nih / "images", lab / "images")
    done = cxrprep("download", "nih-chestxray14", lab, "--source", lab)
    assert done.returncode == 0
    assert "packed" not in done.stderr


def test_verify_says_how_a_copy_is_recorded_and_then_knows_what_changed(tmp_path: Path, nih: Path) -> None:
    lab = tmp_path / "lab"
    shutil.copytree(nih, lab)
    done = cxrprep("verify", lab)
    assert done.returncode == 0
    assert f"cxrprep download nih-chestxray14 {lab} --source {lab})" in " ".join(done.stdout.split())
    ok("download", "nih-chestxray14", lab, "--source", lab)
    table = lab / "test_list.txt"
    table.write_bytes(table.read_bytes()[::-1])
    (lab / "BBox_List_2017.csv").unlink()
    (lab / "train_val_list.txt").write_bytes(b"another size")
    before = table.read_bytes()
    again = cxrprep("download", "nih-chestxray14", lab, "--source", lab)
    assert again.returncode == 0
    assert "not as recorded: 2 files, such as test_list.txt" in again.stderr
    assert not list((lab / ".cxrprep" / "parts").glob("*"))
    assert table.read_bytes() == before
    found = cxrprep("verify", lab)
    assert found.returncode == 4
    assert "train_val_list.txt" in found.stdout
    assert "test_list.txt: its bytes are not those that were recorded" in found.stdout
    assert "BBox_List_2017.csv" in found.stdout


def test_the_next_commands_can_be_pasted(tmp_path: Path, nih: Path) -> None:
    lab, root, state = tmp_path / "lab", tmp_path / "my nih", tmp_path / "my state"
    shutil.copytree(nih, lab)
    done = cxrprep("download", "nih-chestxray14", root, "--source", lab)
    assert f"cxrprep extract-labels '{root}'\n" in done.stdout
    done = cxrprep("extract-labels", lab, "--state", state)
    assert f"cxrprep convert {lab} --state '{state}' --recipe square-224\n" in done.stdout


def test_converted_on_arrival_and_only_the_small_ones_stay(tmp_path: Path, nih: Path) -> None:
    root = tmp_path / "nih"
    words = ("download", "nih-chestxray14", root, "--source", nih, "--then", "square-224", "--discard-raw")
    ok(*words)
    derived = root / "derived" / "square-224"
    made = pd.read_parquet(derived / "manifests" / "images.parquet")
    assert len(made) == len(nih_chestxray14.ROWS)
    assert all((derived / path).is_file() for path in made.path)
    assert not list((root / "images").glob("*.png")) if (root / "images").exists() else True
    assert (root / "Data_Entry_2017_v2020.csv").is_file()
    kept = {path: path.stat().st_mtime_ns for path in derived.rglob("*.png")}
    said = result(*words)
    assert (said["done"], said["failed"]) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in derived.rglob("*.png")} == kept
    ok("verify", root)


@pytest.mark.parametrize("packed", [False, True])
def test_dropped_originals_come_again_where_their_copy_will_not_do(tmp_path: Path, nih: Path, packed: bool) -> None:
    mirror = nih
    if packed:
        mirror = tmp_path / "mirror"
        shutil.copytree(nih, mirror)
        with tarfile.open(mirror / "images_001.tar.gz", "w:gz") as archive:
            archive.add(mirror / "images", "images")
        shutil.rmtree(mirror / "images")
    root, count = tmp_path / "nih", len(nih_chestxray14.ROWS)
    words = ("download", "nih-chestxray14", root, "--source", mirror)
    small = (*words, "--then", "square-224", "--discard-raw")
    assert result(*small)["converted"] == count
    # A copy that was lost is made again, and it alone.
    copies = sorted((root / "derived/square-224/images").glob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in copies}
    copies[1].unlink()
    assert result(*small)["converted"] == count
    assert [path for path in copies if path.stat().st_mtime_ns != before[path]] == [copies[1]]
    # Another recipe needs all of them.
    assert result(*words, "--then", "shortest-512", "--discard-raw")["converted"] == count
    assert not (root / "images").exists() or not list((root / "images").iterdir())
    # And without a recipe the originals themselves are wanted.
    ok(*words)
    assert len(list((root / "images").glob("*.png"))) == count


@pytest.mark.parametrize("how", ["in place", "in place, recorded", "beside its record", "of another origin"])
def test_originals_that_were_never_fetched_are_not_dropped(tmp_path: Path, nih: Path, how: str) -> None:
    lab = tmp_path / "lab"
    shutil.copytree(nih, lab)
    before = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    source = nih if how == "of another origin" else lab
    words = ["download", "nih-chestxray14", lab, "--source", source, "--then", "square-224"]
    words += ["--state", tmp_path / "state"] if how == "beside its record" else []
    if how == "in place, recorded":
        ok(*words)
        words[4] = nih
    for more in ((), ("--dry-run",)):
        done = cxrprep(*words, "--discard-raw", *more)
        assert done.returncode == 2
        assert "--discard-raw would delete" in done.stderr
    assert {path: data for path, data in before.items() if not path.exists() or path.read_bytes() != data} == {}


def test_originals_that_are_dropped_need_room_for_those_on_their_way_alone(tmp_path: Path, nih: Path) -> None:
    words = ("download", "nih-chestxray14", tmp_path / "nih", "--source", nih, "--connections", 2, "--dry-run")
    sizes = sorted(path.stat().st_size for path in (nih / "images").glob("*.png"))
    all_of_them = result(*words)["disk_need"]
    assert result(*words, "--then", "square-224")["disk_need"] == all_of_them
    few = result(*words, "--then", "square-224", "--discard-raw")["disk_need"]
    assert few == all_of_them - sum(sizes[:-2])


def test_converted_on_arrival_equals_converted_later(tmp_path: Path, nih: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    ok("download", "nih-chestxray14", early, "--source", nih, "--then", "square-224", "--discard-raw")
    ok("download", "nih-chestxray14", late, "--source", nih)
    ok("convert", late, "--recipe", "square-224")
    pictures = [
        {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in (root / "derived" / "square-224").rglob("*.png")
        }
        for root in (early, late)
    ]
    assert pictures[0]
    assert pictures[0] == pictures[1]


def test_an_image_that_cannot_be_converted_stays(tmp_path: Path, nih: Path) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(nih, mirror)
    victim = mirror / "images" / "00000002_000.png"
    victim.write_bytes(victim.read_bytes()[:300])
    root = tmp_path / "nih"
    done = cxrprep("download", "nih-chestxray14", root, "--source", mirror, "--then", "square-224", "--discard-raw")
    assert "00000002_000.png" in done.stderr
    assert (root / "images" / "00000002_000.png").is_file()
    assert len(list((root / "derived" / "square-224" / "images").glob("*.png"))) == len(nih_chestxray14.ROWS) - 1


@pytest.mark.parametrize("how", ["copy", "hardlink", "reflink"])
def test_a_labs_copy_is_linked_or_copied_by_choice(tmp_path: Path, mimic: Path, how: str) -> None:
    root = tmp_path / "root"
    said = ok("download", "mimic-cxr-jpg", root, "--source", mimic, "--link", how)
    fetched = re.search(r"fetched +(\d+) files, (?:(\d+) of them as hard links to the source's, )?(.*)", said)
    assert fetched is not None or how == "reflink"
    assert fetched is None or how != "hardlink" or (fetched[1] == fetched[2] and fetched[3].startswith("0 B copied in"))
    assert "clones of the source's" in said or how != "reflink"
    for path in wanted(*range(7)):
        assert (root / path).read_bytes() == (mimic / path).read_bytes()
        assert (root / path).samefile(mimic / path) == (how == "hardlink")
