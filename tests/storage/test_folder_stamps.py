"""A second run looks at folders instead of listing them, and misses nothing that came, went or changed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.storage import folder_stamps
from tests.generators.small import mimic_cxr_jpg
from tests.sample import some

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATHS = [f"{mimic_cxr_jpg.stem(image)}.jpg" for image in mimic_cxr_jpg.IMAGES]
FOLDERS = 1 + 1 + 1 + 3 + 5
"""ROOT, files, p10, the patients and their studies."""


def study(root: Path, number: int = 0) -> Path:
    return (root / PATHS[number]).parent


def named(root: Path) -> set[str]:
    return set(pq.read_table(root / "manifests/images.parquet", columns=["path"])["path"].to_pylist())


def state(root: Path) -> tuple[bytes, int]:
    table = root / "manifests/images.parquet"
    return table.read_bytes(), table.stat().st_ino


def note_lists(root: Path, patch: pytest.MonkeyPatch) -> set[str]:
    """The folders that are listed from now on, as they come, other than to recognise the release."""
    found: set[str] = set()
    scandir = os.scandir

    def noted(path: Any = ".") -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("cxrprep.storage.folder_"):
            found.add(os.path.relpath(os.fspath(path), root))
        return scandir(path)

    patch.setattr(os, "scandir", noted)
    return found


def listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders of the release that a run lists, other than to recognise it."""
    with monkeypatch.context() as patch:
        found = note_lists(root, patch)
        cxrprep.extract_labels(root)
    return {path for path in found if path == "." or path.startswith("files")}


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the folders be as old as they would be two seconds from now."""
    monkeypatch.setattr(folder_stamps, "_TICK", 0)
    time.sleep(0.03)


def away(root: Path, name: str) -> Path:
    """Part of the release taken out, to come later."""
    apart = root.parent / "apart" / name
    apart.parent.mkdir(parents=True, exist_ok=True)
    (root / name).rename(apart)
    return apart


def put_back_times(folder: Path, before: os.stat_result) -> None:
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(params=["recorded", "without a record"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with its manifest."""
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    if request.param == "recorded":
        cxrprep.download("mimic-cxr-jpg", root, source=str(root))
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    return root


def is_built_anew(root: Path) -> set[str]:
    """What a run leaves that lists every folder; it must be what the run before has left."""
    found = state(root)[0]
    (root / "manifests/images.parquet").unlink()
    cxrprep.build_manifest(root)
    assert state(root)[0] == found
    return named(root)


def test_nothing_new_lists_root_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(root)
    # ROOT has its own tables, which were written after it was listed.
    assert listed(root, monkeypatch) <= {"."}
    assert state(root) == before
    (root / ".cxrprep" / folder_stamps.NAME).unlink()
    assert len(listed(root, monkeypatch)) == FOLDERS
    assert listed(root, monkeypatch) <= {"."}
    assert state(root) == before


def removed(root: Path) -> None:
    (root / PATHS[0]).unlink()


def renamed(root: Path) -> None:
    (root / PATHS[0]).rename(
        root / PATHS[0].replace("files/p10/p10000032/s50414267/02", "files/p10/p10000032/s50414267/x")
    )


def a_folder_now(root: Path) -> None:
    removed(root)
    (root / PATHS[0]).mkdir()


def longer(root: Path) -> None:
    with (root / PATHS[0]).open("ab") as file:
        file.write(b"\0")


def a_link_to_nothing(root: Path) -> None:
    removed(root)
    (root / PATHS[0]).symlink_to("nowhere")


def removed_with_old_times(root: Path) -> None:
    before = study(root).stat()
    removed(root)
    put_back_times(study(root), before)


def study_removed(root: Path) -> None:
    shutil.rmtree(study(root, 2))


def older_tree(root: Path) -> None:
    """What ``cp -a``, ``rsync -a`` and ``tar`` leave of an older copy, which had other names: its times."""
    older, place = root.parent / "older", study(root)
    shutil.copytree(place, older)
    (older / PATHS[0].rpartition("/")[2]).unlink()
    put_back_times(older, place.stat())
    shutil.rmtree(place)
    shutil.copytree(older, place)
    assert place.stat().st_mtime_ns == older.stat().st_mtime_ns


GONE: dict[str, tuple[Any, set[int]]] = {
    "removed": (removed, {0}),
    "renamed": (renamed, {0}),
    "a folder now": (a_folder_now, {0}),
    "longer": (longer, set()),
    "a link to nothing": (a_link_to_nothing, {0}),
    "removed, and the time put back": (removed_with_old_times, {0}),
    "a study removed": (study_removed, {2}),
    "an older tree": (older_tree, {0}),
}


@pytest.mark.parametrize("change", some(GONE, one_in=3))
def test_what_went_or_changed_is_seen(change: str, root: Path) -> None:
    before = state(root)
    perform, gone = GONE[change]
    perform(root)
    # What has become a folder is there still, and its row is to go.
    cxrprep.extract_labels(root, allow_loss=True)
    assert state(root)[0] != before[0]
    assert is_built_anew(root) == {path for number, path in enumerate(PATHS) if number not in gone}


CAME = {
    "an image": PATHS[0],
    "a study": PATHS[2].rpartition("/")[0],
    "a patient": PATHS[6].rpartition("/")[0].rpartition("/")[0],
}


@pytest.mark.parametrize("times", ["as they are", "put back"])
@pytest.mark.parametrize("what", CAME)
def test_what_came_is_seen(what: str, times: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    apart = away(root, CAME[what])
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    assert listed(root, monkeypatch) <= {"."}
    assert named(root) == {path for path in PATHS if not path.startswith(CAME[what])}
    into = (root / CAME[what]).parent
    before = into.stat()
    apart.rename(root / CAME[what])
    if times == "put back":
        put_back_times(into, before)
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS)


def test_a_further_image_that_is_none_of_the_release_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(root / PATHS[0], study(root) / "x.jpg")
    events: list[Any] = []
    cxrprep.extract_labels(root, on_event=events.append)
    assert any("1 image files are not images of the release" in str(event) for event in events)
    # It is said each time, so that the folders are listed each time.
    assert len(listed(root, monkeypatch)) == FOLDERS


def test_a_folder_that_was_changed_is_the_only_one_that_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(root)
    (study(root, 2) / "Thumbs.db").write_bytes(b"")
    assert listed(root, monkeypatch) == {".", os.path.relpath(study(root, 2), root)}
    (root / "files/new/empty").mkdir(parents=True)
    changed = {".", os.path.relpath(study(root, 2), root), "files", "files/new", "files/new/empty"}
    assert listed(root, monkeypatch) == changed
    assert state(root) == before


def linked(root: Path, number: int) -> Path:
    """The image outside of ROOT, and a link in its place, as git-annex and DataLad keep them."""
    target = root.parent / "annex" / f"{number}.jpg"
    target.parent.mkdir(exist_ok=True)
    (root / PATHS[number]).rename(target)
    (root / PATHS[number]).symlink_to(target)
    return target


def test_the_target_of_a_link_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    targets = [linked(root, number) for number in range(len(PATHS))]
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    before = state(root)
    assert listed(root, monkeypatch) <= {"."}
    # Dropped, without the folder of the link changing; and there again.
    targets[2].rename(tmp_path / "dropped")
    cxrprep.extract_labels(root)
    assert named(root) == {path for number, path in enumerate(PATHS) if number != 2}
    assert listed(root, monkeypatch) <= {".", os.path.relpath(study(root, 2), root)}
    (tmp_path / "dropped").rename(targets[2])
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS)
    assert state(root)[0] == before[0]
    targets[0].write_bytes(targets[0].read_bytes() + b"\0")
    cxrprep.extract_labels(root)
    assert state(root)[0] != before[0]
    assert is_built_anew(root) == set(PATHS)


def test_the_target_of_a_link_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    place, target, other = study(root), tmp_path / "study", tmp_path / "other"
    place.rename(target)
    place.symlink_to(target)
    shutil.copytree(target, other)
    (target / PATHS[0].rpartition("/")[2]).unlink()
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS[1:])
    before = state(root)
    # The folder that holds the link is looked through each time.
    assert listed(root, monkeypatch) <= {".", os.path.relpath(place.parent, root)}
    assert state(root) == before
    # Another folder in the place of the target, which nothing in ROOT shows.
    shutil.rmtree(target)
    other.rename(target)
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS)


def test_a_folder_that_changed_while_it_was_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    # All were made just now: another name could have come in the same tick of the clock.
    cxrprep.extract_labels(root)
    assert len(listed(root, monkeypatch)) == FOLDERS
    (root / PATHS[0]).unlink()
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS[1:])


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumped(hours: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumped = time.time_ns() + hours * 3600 * 10**9
    (root / ".cxrprep" / folder_stamps.NAME).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: jumped)
        cxrprep.extract_labels(root)
    # By a clock that is behind, every folder was changed just now.
    assert len(listed(root, monkeypatch)) in ({FOLDERS} if hours < 0 else {0, 1})
    (root / PATHS[0]).unlink()
    cxrprep.extract_labels(root)
    assert named(root) == set(PATHS[1:])


def test_where_times_of_folders_prove_nothing_all_are_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_stamps, "_LOCAL", frozenset())
    before = state(root)
    assert len(listed(root, monkeypatch)) == FOLDERS
    assert len(listed(root, monkeypatch)) == FOLDERS
    assert state(root) == before


def test_stamps_of_another_manifest_say_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = root / ".cxrprep" / folder_stamps.NAME
    older = kept.read_bytes()
    removed(root)
    cxrprep.extract_labels(root)
    kept.write_bytes(older)
    assert len(listed(root, monkeypatch)) == FOLDERS
    kept.write_bytes(b"PAR1")
    assert len(listed(root, monkeypatch)) == FOLDERS
    assert named(root) == set(PATHS[1:])


def test_images_that_nobody_knows_a_digest_of_are_held_to_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    before = state(root)
    assert listed(root, monkeypatch) <= {"."}
    # Other pixels of the same size in bytes.
    with (root / PATHS[0]).open("r+b") as file:
        file.write(file.read(1))
    cxrprep.extract_labels(root)
    assert state(root)[1] != before[1]


def test_names_that_are_no_utf_8(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(root)
    (root / os.fsdecode(b"files/\xff/in")).mkdir(parents=True)
    for _ in range(2):
        assert len(listed(root, monkeypatch)) == FOLDERS + 2
    assert state(root) == before


def status_lists(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders that status lists where stamps are left; it must say the same as one that lists them all."""
    with monkeypatch.context() as patch:
        found = note_lists(root, patch)
        # Whether an image is here at all is asked until one is found.
        patch.setattr("cxrprep.api.status.has_images", lambda _: True)
        patch.setattr("cxrprep.api.status.images_or_archives", lambda _: "images")
        patch.setattr("cxrprep.collection.file_counts._FEW", 0)
        parts = cxrprep.status(root).value.parts
        first = set(found)
        patch.setattr(folder_stamps.FolderStamps, "files", lambda *_: None)
        assert cxrprep.status(root).value.parts == parts
    return first


STATUS_CHANGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda root: (root / PATHS[0]).unlink(),
    "a-study-gone": lambda root: shutil.rmtree(study(root)),
    "another-size": lambda root: (root / PATHS[0]).write_bytes(b"more"),
    "emptied": lambda root: (root / PATHS[0]).write_bytes(b""),
    "a-report-more": lambda root: study(root).with_suffix(".txt").write_text("x"),
    "a-copy-more": lambda root: (study(root) / "copy of it.jpg").write_bytes(b"x"),
    "a-study-more": lambda root: shutil.copytree(study(root), study(root).with_name("s59999999")),
    "moved": lambda root: study(root).rename(study(root).with_name("s59999999")),
    "a-folder-in-its-place": lambda root: [(root / PATHS[0]).unlink(), (root / PATHS[0]).mkdir()],
    "a-link-to-nothing": lambda root: [(root / PATHS[0]).unlink(), (root / PATHS[0]).symlink_to("nothing")],
    "a-table-more": lambda root: (root / "mimic-cxr-2.0.0-negbio.csv").write_text("x"),
}


@pytest.mark.parametrize("change", STATUS_CHANGES)
def test_status_counts_what_is_here_now(change: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    STATUS_CHANGES[change](root)
    status_lists(root, monkeypatch)


@pytest.mark.parametrize("change", some(STATUS_CHANGES, one_in=5))
def test_status_counts_what_changed_before_the_folders_were_listed(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    cxrprep.download("mimic-cxr-jpg", root, source=str(root))
    STATUS_CHANGES[change](root)
    settle(monkeypatch)
    cxrprep.extract_labels(root, allow_loss=True)
    status_lists(root, monkeypatch)


def test_status_lists_no_folder_in_which_all_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "mimic"
    mimic_cxr_jpg.write(root)
    cxrprep.download("mimic-cxr-jpg", root, source=str(root))
    settle(monkeypatch)
    cxrprep.extract_labels(root)
    # ROOT has its own tables, which were written after it was listed.
    assert status_lists(root, monkeypatch) <= {"."}
    (root / ".cxrprep" / folder_stamps.NAME).unlink()
    assert len(status_lists(root, monkeypatch)) == FOLDERS
