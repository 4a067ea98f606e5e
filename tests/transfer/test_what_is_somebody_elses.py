"""Files that cxrprep did not fetch: never removed, never replaced behind a link, never lost where they are replaced."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrprep.record.record import Record
from cxrprep.transfer.partial_file import Partial
from tests.commands import cxrprep, ok, result
from tests.generators.small import nih_chestxray14
from tests.record.entries import entries_of
from tests.servers.loopback import Reply, Request, object_reply, page, running
from tests.transfer.runs import tar_gz

PNG = "images/00000001_000.png"
SMALL = ("--then", "square-224", "--discard-raw")


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih") / "mirror"
    nih_chestxray14.write(folder, size=256)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["linked folder", "some fetched", "adopted and topped up", "state", "linked files", "unpacked"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, nih: Path) -> tuple[Path, list[object]]:
    """A folder with a lab's images, and the words of a download into it that come after the root."""
    lab, root = tmp_path / "lab", tmp_path / "root"
    shutil.copytree(nih, lab)
    words: list[object] = ["--source", nih]
    download = ("download", "nih-chestxray14")
    if request.param == "linked folder":
        root.mkdir()
        (root / "images").symlink_to(lab / "images")
    elif request.param == "linked files":
        (root / "images").mkdir(parents=True)
        ok(*download, root, *words, "--limit", 1)
        for path in (lab / "images").iterdir():
            (root / "images" / path.name).unlink(missing_ok=True)
            (root / "images" / path.name).symlink_to(path)
    elif request.param == "some fetched":
        ok(*download, lab, *words, "--sample", 2)
    elif request.param == "adopted and topped up":
        ok(*download, lab, "--source", lab)
        (lab / PNG).unlink()
        ok(*download, lab, *words)
    elif request.param == "state":
        words += ["--state", tmp_path / "state"]
        ok(*download, lab, *words, "--limit", 2)
    else:
        # Unpacked by hand beside the archive that a run of cxrprep unpacks too.
        (tmp_path / "packed").mkdir()
        members = {f"images/{path.name}": path.read_bytes() for path in (nih / "images").iterdir()}
        (tmp_path / "packed/images_001.tar.gz").write_bytes(tar_gz(members))
        shutil.copy(nih / "Data_Entry_2017_v2020.csv", tmp_path / "packed")
        words = ["--source", tmp_path / "packed"]
        ok(*download, lab, *words)
    return root if root.exists() else lab, words


def test_discard_raw_removes_nothing_that_was_there_before(tmp_path: Path, lab: tuple[Path, list[object]]) -> None:
    root, words = lab
    before = contents(tmp_path / "lab" / "images")
    for _ in range(2):
        done = cxrprep("download", "nih-chestxray14", root, *words, *SMALL)
        assert done.returncode in (0, 2), done.stderr
        left = contents(tmp_path / "lab" / "images")
        # The one file that cxrprep itself fetched into the lab's folder may go.
        assert left == before or ("topped" in done.stderr or left.keys() | {Path(PNG).name} == before.keys())
        assert {name: data for name, data in left.items() if before[name] != data} == {}
    assert len(list((root / "derived/square-224/images").glob("*.png"))) in (0, 7)


def test_what_was_fetched_is_removed_and_what_was_copied_in_is_kept_and_said(tmp_path: Path, nih: Path) -> None:
    root = tmp_path / "root"
    words = ("download", "nih-chestxray14", root, "--source", nih)
    ok(*words, "--ids", nih_ids(tmp_path, "00000001_000.png"))
    mine = "00000002_000.png"
    shutil.copy(nih / "images" / mine, root / "images")
    done = cxrprep(*words, *SMALL)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (root / "images").iterdir()] == [mine]
    assert f"kept, since the record does not say that cxrprep fetched it: images/{mine}" in done.stderr
    record = Record.open(root)
    assert {path: entry.fetched for path, entry in entries_of(record).items() if not entry.fetched} == {
        f"images/{mine}": False
    }


def test_a_file_of_the_same_size_that_somebody_put_in_the_place_of_a_fetched_one_stays(
    tmp_path: Path, nih: Path
) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    shutil.copytree(nih, mirror)
    grey = np.arange(256 * 256, dtype=np.uint8).reshape(256, 256)
    # Not compressed, so that every picture has the same size.
    theirs, mine = (cv2.imencode(".png", one, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes() for one in (grey, ~grey))
    assert len(theirs) == len(mine)
    (mirror / PNG).write_bytes(theirs)
    words = ("download", "nih-chestxray14", root, "--source", mirror)
    ok(*words)
    (root / PNG).write_bytes(mine)
    done = cxrprep(*words, *SMALL)
    assert contents(root / "images") == {Path(PNG).name: mine}, done.stderr
    assert f"kept, since the record does not say that cxrprep fetched it: {PNG}" in done.stderr


@pytest.mark.parametrize("how", ["beside", "state"])
def test_a_record_beside_another_copy_of_the_release_makes_nothing_of_it_removable(
    tmp_path: Path, nih: Path, how: str
) -> None:
    """It names the very files with their digests; but the files here are not those that were written."""
    root, lab = tmp_path / "root", tmp_path / "lab"
    words = ("--source", nih)
    ok("download", "nih-chestxray14", root, *words)
    shutil.copytree(nih, lab)
    if how == "beside":
        shutil.copytree(root / ".cxrprep", lab / ".cxrprep")
        for name in ("cxrprep.lock", "cxrprep.files.parquet"):
            shutil.copy2(root / name, lab / name)
    else:
        words = (*words, "--state", root)
    before = contents(lab / "images")
    for _ in range(2):
        done = cxrprep("download", "nih-chestxray14", lab, *words, *SMALL)
        assert done.returncode == 0, done
        assert "kept, since the record does not say that cxrprep fetched it: 7 files" in done.stderr
        assert contents(lab / "images") == before
    # What is not the mirror's is replaced, and stays under another name.
    (lab / PNG).write_bytes(b"a lab's own file")
    ok("download", "nih-chestxray14", lab, *words)
    assert b"a lab's own file" in contents(tmp_path).values()


def test_a_record_beside_another_copy_removes_no_archive_of_it(tmp_path: Path, nih: Path) -> None:
    mirror, root, lab = (tmp_path / name for name in ("mirror", "root", "lab"))
    mirror.mkdir()
    members = {f"images/{path.name}": path.read_bytes() for path in (nih / "images").iterdir()}
    (mirror / "images_001.tar.gz").write_bytes(tar_gz(members))
    shutil.copy(nih / "Data_Entry_2017_v2020.csv", mirror)
    ok("download", "nih-chestxray14", root, "--source", mirror, "--keep-archives")
    assert (root / "images_001.tar.gz").exists()
    shutil.copytree(mirror, lab)
    for name in ("cxrprep.lock", "cxrprep.files.parquet"):
        shutil.copy2(root / name, lab / name)

    def site(request: Request) -> Reply:
        path = mirror / request.path.lstrip("/")
        links = "".join(f'<a href="{one.name}">{one.name}</a>' for one in mirror.iterdir())
        return object_reply(request, path.read_bytes()) if path.is_file() else page(links)

    with running(site) as server:
        ok("download", "nih-chestxray14", lab, "--source", server.url, *SMALL)
        assert (lab / "images_001.tar.gz").exists()
        # It is dropped where it is the one that was fetched; with its list of members it would not be opened.
        shutil.rmtree(root / ".cxrprep")
        ok("download", "nih-chestxray14", root, "--source", server.url, *SMALL)
        assert not (root / "images_001.tar.gz").exists()


@pytest.mark.parametrize("how", ["moved", "copied with its times", "copied with its seconds"])
def test_what_was_fetched_is_known_in_a_folder_that_was_moved(tmp_path: Path, nih: Path, how: str) -> None:
    root, there = tmp_path / "root", tmp_path / "there"
    words = ("--source", nih)
    ok("download", "nih-chestxray14", root, *words)
    if how == "moved":
        root.rename(there)
    else:
        shutil.copytree(root, there)
    if how == "copied with its seconds":
        for path in there.rglob("*.png"):
            seconds = path.stat().st_mtime_ns // 1_000_000_000
            os.utime(path, (seconds, seconds))
    ok("download", "nih-chestxray14", there, *words, *SMALL)
    assert not contents(there / "images")


def nih_ids(folder: Path, *names: str) -> Path:
    path = folder / "ids.txt"
    path.write_text("\n".join(names) + "\n")
    return path


def test_a_file_of_another_size_behind_a_link_stays_as_it_is(tmp_path: Path, nih: Path) -> None:
    lab, root = tmp_path / "lab", tmp_path / "root"
    shutil.copytree(nih / "images", lab)
    (lab / Path(PNG).name).write_bytes(b"a lab's own file")
    root.mkdir()
    (root / "images").symlink_to(lab)
    words = ("download", "nih-chestxray14", root, "--source", nih)
    done = cxrprep(*words)
    assert done.returncode == 4
    assert f"{PNG} is not what the mirror has, and stays as it is" in done.stderr
    assert (lab / Path(PNG).name).read_bytes() == b"a lab's own file"
    # The hint: without the link the file comes, and the lab's is as it was.
    (root / "images").unlink()
    ok(*words)
    assert (lab / Path(PNG).name).read_bytes() == b"a lab's own file"
    assert (root / PNG).read_bytes() == (nih / PNG).read_bytes()


@pytest.mark.parametrize("again", [False, True])
def test_a_file_of_somebody_elses_that_is_replaced_is_kept_aside(tmp_path: Path, nih: Path, *, again: bool) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (root / PNG).write_bytes(b"half")
    if again:
        ok("download", "nih-chestxray14", root, "--source", root)
    done = cxrprep("download", "nih-chestxray14", root, "--source", nih)
    assert done.returncode == 0, done.stderr
    assert "the file that was here is now" in done.stderr
    (kept,) = (root / ".cxrprep/replaced" / PNG).iterdir()
    assert kept.read_bytes() == b"half"
    assert (root / PNG).read_bytes() == (nih / PNG).read_bytes()
    ok("verify", root)


def test_an_archive_that_somebody_put_there_is_unpacked_and_stays(tmp_path: Path, nih: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mirror.mkdir()
    members = {f"images/{path.name}": path.read_bytes() for path in (nih / "images").iterdir()}
    packed = tar_gz(members)
    (mirror / "images_001.tar.gz").write_bytes(packed)
    shutil.copy(nih / "Data_Entry_2017_v2020.csv", mirror)
    root.mkdir()
    (root / "images_001.tar.gz").write_bytes(packed)
    from tests.servers.faults import serving

    with serving(contents(mirror)) as server:
        assert result("download", "nih-chestxray14", root, "--source", server.url)["unpacked"] == 7
        assert (root / "images_001.tar.gz").read_bytes() == packed
        again = result("download", "nih-chestxray14", root, "--source", server.url)
    assert again["unpacked"] == 0
    assert (root / "images_001.tar.gz").read_bytes() == packed
    assert {path.name for path in (root / "images").iterdir()} == {Path(name).name for name in members}


def test_a_member_does_not_go_over_what_the_mirror_has_by_itself(tmp_path: Path, nih: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    shutil.copytree(nih, mirror)
    table = "Data_Entry_2017_v2020.csv"
    (mirror / "images_001.tar.gz").write_bytes(tar_gz({table: b"an older table\n"}))
    for _ in range(2):
        ok("download", "nih-chestxray14", root, "--source", mirror)
        assert (root / table).read_bytes() == (nih / table).read_bytes()
    ok("verify", root)


@pytest.mark.parametrize("mirror", ["files", "archives"])
def test_what_a_killed_run_put_there_is_ours_and_is_dropped_by_the_next(
    tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    """Killed right after each file got its name: every original is dropped in the end, and none is called unknown."""
    if mirror == "archives":
        members = {f"images/{path.name}": path.read_bytes() for path in (nih / "images").iterdir()}
        nih = Path(shutil.copytree(nih, tmp_path / "packed", ignore=shutil.ignore_patterns("images")))
        (nih / "images_001.tar.gz").write_bytes(tar_gz(members))
    root = tmp_path / "root"
    publish, killed = Partial.publish, []

    def killing(partial: Partial, final: str) -> None:
        publish(partial, final)
        if final.endswith(".png") and final not in killed:
            killed.append(final)
            raise KeyboardInterrupt

    monkeypatch.setattr(Partial, "publish", killing)
    for _ in range(20):
        with contextlib.suppress(KeyboardInterrupt):
            done = cxrprep("download", "nih-chestxray14", root, "--source", nih, *SMALL)
            if done.returncode == 0:
                break
    assert killed
    assert done.returncode == 0, done.stderr
    assert "kept, since" not in done.stderr
    assert not list(root.glob("images/*.png"))


def test_a_converted_image_that_was_damaged_comes_again_though_its_original_was_dropped(
    tmp_path: Path, nih: Path
) -> None:
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", nih, *SMALL)
    made = root / "derived/square-224"
    before = contents(made / "images")
    cut, zeros, turned, *_ = sorted((made / "images").iterdir())
    cut.write_bytes(cut.read_bytes()[:50])
    ok("download", "nih-chestxray14", root, "--source", nih, *SMALL)
    assert contents(made / "images") == before
    # One of the right size is found to be none by its run, and the next brings its original again.
    zeros.write_bytes(b"\0" * zeros.stat().st_size)
    assert cxrprep("download", "nih-chestxray14", root, "--source", nih, *SMALL).returncode == 3
    ok("download", "nih-chestxray14", root, "--source", nih, *SMALL)
    assert contents(made / "images") == before
    turned.write_bytes(turned.read_bytes()[:-30] + b"x" + turned.read_bytes()[-29:])
    (found,) = result("verify", made, code=4)["findings"]
    turned.unlink()
    ok(*shlex.split(found["hint"].partition("then: cxrprep ")[2]), "--source", nih)
    assert contents(made / "images") == before
    assert result("verify", made)["findings"] == []


def test_nothing_that_a_command_did_not_write_is_written_over(tmp_path: Path, nih: Path) -> None:
    root = tmp_path / "root"
    ok("download", "nih-chestxray14", root, "--source", nih)
    ok("extract-labels", root)
    reports = tmp_path / "reports.csv"
    reports.write_text('study_id,report\n00000001_000,"FINDINGS: Clear."\n')
    named = ("prove", ok("digest", root).strip(), root, "--image", "00000001_000")
    for table in (root / PNG, root / "Data_Entry_2017_v2020.csv", root / "manifests/labels.parquet"):
        kept = table.read_bytes()
        for words in (
            ("report", root, "--out", table),
            ("download", "nih-chestxray14", root, "--source", nih, "--save-plan", table),
            (*named, "--out", table),
            ("pairs", root, "--reports", reports, "--format", "csv", "--out", table),
        ):
            done = cxrprep(*words)
            assert (done.returncode, table.name in done.stderr) == (2, True), (words, done.stderr)
            assert table.read_bytes() == kept
    # What it wrote itself is replaced.
    for _ in range(2):
        ok("report", root, "--out", tmp_path / "page.html")
        ok("download", "nih-chestxray14", root, "--source", nih, "--save-plan", tmp_path / "plan.json")
        ok(*named, "--out", tmp_path / "proof.json")
        ok("pairs", root, "--reports", reports, "--format", "csv", "--out", tmp_path / "pairs.csv")


def test_zeros_of_the_right_size_are_not_the_file_where_no_checksum_is_stated(tmp_path: Path, nih: Path) -> None:
    root = tmp_path / "root"
    words = ("download", "nih-chestxray14", root, "--source", nih)
    ok(*words)
    healthy = (nih / PNG).read_bytes()
    # As after a power cut: the place of the file is there, its bytes and the record are not.
    shutil.rmtree(root / ".cxrprep")
    for name in ("cxrprep.lock", "cxrprep.files.parquet"):
        (root / name).unlink()
    (root / PNG).unlink()
    (root / PNG).write_bytes(bytes(len(healthy)))
    ok(*words)
    assert (root / PNG).read_bytes() == healthy
