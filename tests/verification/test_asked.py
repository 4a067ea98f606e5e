"""What a download asked for must be here, also when it never came: the folder remembers it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.events import Event, StageFinished
from cxrprep.model import Selection, Shard
from cxrprep.record.record import Record
from cxrprep.record.requested import asked, remember
from tests.generators.small import mimic_cxr_jpg
from tests.verification.trees import check, found, nih, write_sums

IMAGE = "images/00000002_000.png"


def paths_asked_for(cache: Path) -> list[str]:
    found = asked(cache)
    assert found is not None
    return list(dict.fromkeys(path for (path,) in found.rows()))


def test_what_was_asked_for_is_kept_by_selection_and_shard(tmp_path: Path) -> None:
    assert asked(tmp_path) is None
    remember(tmp_path, Selection(), ["b", "a"])
    remember(tmp_path, Selection(limit=3), ["c"], Shard(1, 2))
    remember(tmp_path, Selection(limit=3), ["d", "a"], Shard(2, 2))
    assert paths_asked_for(tmp_path) == ["a", "b", "c", "d"]
    remember(tmp_path, Selection(), ["z"])
    assert paths_asked_for(tmp_path) == ["a", "c", "d", "z"]


def test_a_damaged_list_is_no_list(tmp_path: Path) -> None:
    remember(tmp_path, Selection(), ["a"])
    (path,) = (tmp_path / "asked").iterdir()
    path.write_bytes(b"PAR1")
    assert asked(tmp_path) is None


def test_a_list_with_another_byte_is_no_list(tmp_path: Path) -> None:
    """The name that it made was missing for ever: no download and no repair could bring it."""
    remember(tmp_path, Selection(), ["images/1.png", "images/2.png"])
    (path,) = (tmp_path / "asked").iterdir()
    path.write_bytes(path.read_bytes().replace(b"2.png", b"3.png"))
    assert asked(tmp_path) is None
    # The next download writes it anew; a list of an earlier version has no checksum.
    remember(tmp_path, Selection(), ["images/1.png", "images/2.png"])
    assert paths_asked_for(tmp_path) == ["images/1.png", "images/2.png"]
    path.write_text("images/1.png\n")
    assert paths_asked_for(tmp_path) == ["images/1.png"]


def test_a_lost_list_is_said_to_be_lost(tmp_path: Path) -> None:
    with Record.open(nih(tmp_path)) as record:
        record.select(Selection())
    report = check(tmp_path)
    assert any("was selected and never fetched" in sentence for sentence in report.not_checked)
    assert not any("never fetched" in sentence for sentence in check(tmp_path, selected=[IMAGE]).not_checked)


def test_a_download_that_was_cut_off_leaves_files_missing_and_repair_brings_them(tmp_path: Path) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mimic_cxr_jpg.write(mirror)
    write_sums(mirror)
    listed = sorted(path.relative_to(mirror).as_posix() for path in mirror.rglob("*.jpg"))
    cxrprep.download("mimic-cxr-jpg", root, source=str(mirror))
    with Record.open(root) as record:
        for path in listed[:2]:
            (root / path).unlink()
            record.forget(path)
    report = cxrprep.verify(root).value
    assert found(report) == [("missing", path) for path in listed[:2]] + [("row-without-image", "")]
    assert {one.detail for one in report.findings if one.kind == "missing"} == {"it was selected and never fetched"}
    assert report.exit_code == 4
    seen: list[Event] = []
    mended = cxrprep.verify(root, repair=True, on_event=seen.append).value
    assert found(mended) == [("repaired", path) for path in listed[:2]]
    ended = [(one.stage, one.done, one.failed) for one in seen if isinstance(one, StageFinished)]
    read = len([path for path in mirror.rglob("*") if path.is_file()]) - 2
    # What was checked is said before anything is fetched, and then what was fetched is checked.
    assert ended[:1] + ended[-1:] == [("verify", read, 2), ("verify", 2, 0)]
    assert ended[1][0] == "download"
    assert (mended.exit_code, cxrprep.verify(root).value.counts) == (0, {})


@pytest.mark.parametrize("itself", [False, True])
def test_a_repair_that_brings_nothing_takes_no_knowledge_away(tmp_path: Path, itself: bool) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    nih(mirror)
    if itself:
        mirror.rename(root)
    cxrprep.download("nih-chestxray14", root, source=str(root if itself else mirror))
    if not itself:
        shutil.rmtree(mirror)
        mirror.mkdir()
    table = root / "test_list.txt"
    table.write_bytes(table.read_bytes()[::-1])
    (root / "BBox_List_2017.csv").unlink()
    wrong = [("altered", "test_list.txt"), ("missing", "BBox_List_2017.csv")]
    for repair in (False, True, True, False):
        report = cxrprep.verify(root, repair=repair).value
        assert sorted(found(report)) == wrong
        assert report.exit_code == 4
    if itself:
        report = cxrprep.verify(root, repair=True).value
        assert {one.detail.rpartition("; ")[2] for one in report.findings} == {
            "it could not be fetched: the folder is the mirror itself: name another one with --source"
        }
    assert table.exists()


@pytest.mark.parametrize("take", [slice(0, 3)])
def test_a_part_that_was_asked_for_is_whole(tmp_path: Path, take: slice) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mimic_cxr_jpg.write(mirror)
    write_sums(mirror)
    patients = sorted({path.parts[-3] for path in mirror.rglob("*.jpg")})[take]
    cxrprep.download("mimic-cxr-jpg", root, source=str(mirror), selection=Selection(patients=frozenset(patients[:1])))
    report = cxrprep.verify(root).value
    assert "missing" not in report.counts
    assert report.images_here < report.images_named
    assert report.exit_code == 0


def test_a_source_that_nobody_understands_is_refused_before_anything_is_checked(tmp_path: Path) -> None:
    root = nih(tmp_path)
    with pytest.raises(UsageError, match="neither a mirror of nih-chestxray14 nor a folder"):
        cxrprep.verify(root, repair=True, source="nonsense")
    assert not (root / "manifests").exists()
    assert cxrprep.verify(root, repair=True, source="box").value.repaired == 0
