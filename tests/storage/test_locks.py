"""Locks: made in one step, given up by the dead, and noticed by a run that slept while another one took them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrprep.errors import BusyError, ExitCode, StorageError
from cxrprep.record.entry import FileEntry
from cxrprep.record.lockfile import load_header
from cxrprep.record.record import Record
from cxrprep.storage import locks
from cxrprep.storage.locks import FolderLock, LockLost, RunId, SaveLock
from tests.record.entries import entries_of

LOCKS = {
    "record": SaveLock,
    "folder": lambda cache: FolderLock(cache, RunId.new()),
}


def names(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()] if cache.exists() else []


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, links: bool) -> None:
    cache = tmp_path / ".cxrprep"
    (cache / "leases").mkdir(parents=True)

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        if links:
            disk.setattr("pathlib.Path.open", full)
        else:
            disk.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
            disk.setattr(os, "write", full)
        with pytest.raises(StorageError), LOCKS[kind](cache):
            raise AssertionError("there is no room for a lock")
    assert not names(cache)
    began = time.monotonic()
    with LOCKS[kind](cache):
        assert len(names(cache)) == 1
    assert time.monotonic() - began < 10
    assert not names(cache)


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("links", [True, False])
def test_one_holds_it_and_the_next_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no links")))
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.2)
    cache = tmp_path / ".cxrprep"
    with LOCKS[kind](cache):
        with pytest.raises(BusyError), LOCKS[kind](cache):
            raise AssertionError("two hold it")
        assert len(names(cache)) == 1
    with LOCKS[kind](cache):
        pass
    assert not names(cache)


def test_who_worked_for_long_waits_as_long_again_for_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.0)
    with FolderLock(tmp_path / ".cxrprep", RunId.new(), place="writing"):
        began = time.monotonic()
        with pytest.raises(BusyError), locks.writing_tables(tmp_path / ".cxrprep", since=began - 0.2):
            raise AssertionError("two hold it")
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(("kind", "name"), [("record", "saving"), ("folder", "leases/whole")])
def test_an_empty_lock_of_an_earlier_version_holds_nobody_up_for_long(tmp_path: Path, kind: str, name: str) -> None:
    cache = tmp_path / ".cxrprep"
    (cache / name).parent.mkdir(parents=True)
    (cache / name).touch()
    past = time.time() - 10
    os.utime(cache / name, (past, past))
    began = time.monotonic()
    with LOCKS[kind](cache):
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", ["saving", "whole"])
def test_what_a_killed_run_left_of_a_lock_that_it_did_not_take_goes(tmp_path: Path, kind: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path if kind == "saving" else tmp_path / "leases"
    folder.mkdir(exist_ok=True)
    parts = locks.writer_name().split("-")
    of_dead, of_living = (
        folder / f".{kind}.{'-'.join([*parts[:2], str(process), parts[3]])}.tmp" for process in (ended.pid, os.getpid())
    )
    for path in (of_dead, of_living):
        path.touch()
    with SaveLock(tmp_path) if kind == "saving" else FolderLock(tmp_path, RunId.new()):
        assert (of_dead.exists(), of_living.exists()) == (False, True)


def test_whoever_lost_the_place_in_line_hears_it_and_leaves_the_others_lock(tmp_path: Path) -> None:
    with SaveLock(tmp_path) as mine:
        mine.check()
        (tmp_path / "saving").write_text("another")
        with pytest.raises(LockLost):
            mine.check()
    assert (tmp_path / "saving").read_text() == "another"


def test_a_run_that_slept_hears_that_the_folder_is_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = FolderLock(tmp_path, RunId.new())
    with mine:
        mine.check()
        # Another run finds no sign of life for two minutes, and takes it.
        past = time.time() - 200
        os.utime(tmp_path / "leases/whole", (past, past))
        other = FolderLock(tmp_path, RunId.new())
        with other:
            mine.check()  # no reason to look yet
            monkeypatch.setattr(locks, "_ASLEEP_SECONDS", -1.0)
            with pytest.raises(LockLost):
                mine.check()
            other.check()
            held = (tmp_path / "leases/whole").read_text()
            mine.__exit__()
            assert (tmp_path / "leases/whole").read_text() == held


SAVER = """
import sys, time
from pathlib import Path
from cxrprep.record import file_table
from cxrprep.record.entry import FileEntry
from cxrprep.record.record import Record

root, marks = Path(sys.argv[1]), Path(sys.argv[2])
write = file_table.write
def slow(*args):
    # Everything has been read under the lock, and nothing is written yet.
    if not (marks / "ready").exists():
        (marks / "ready").touch()
        while not (marks / "go").exists():
            time.sleep(0.01)
    return write(*args)
file_table.write = slow
record = Record.open(root)
for n in range(100):
    record.add(FileEntry(f"images/a{n:03d}.png", 1, fetched=True))
record.close()
"""


@pytest.mark.parametrize("changed", ["files", "selections"])
def test_a_writer_that_was_frozen_while_it_saved_takes_nothing_away(tmp_path: Path, changed: str) -> None:
    """Stopped under its lock for longer than a lock is honoured; another one saves; then it wakes."""
    root, marks = tmp_path / "root", tmp_path / "marks"
    root.mkdir()
    marks.mkdir()
    writer = subprocess.Popen([sys.executable, "-c", SAVER, str(root), str(marks)])
    while not (marks / "ready").exists():
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGSTOP)
    try:
        past = time.time() - 200
        os.utime(root / ".cxrprep/saving", (past, past))
        with Record.open(root) as record:
            if changed == "selections":
                record.describe(dataset="nih-chestxray14", release="v2020", mirror="m")
            for n in range(100):
                record.add(FileEntry(f"images/b{n:03d}.png", 1))
        (marks / "go").touch()
    finally:
        writer.send_signal(signal.SIGCONT)
    assert writer.wait(60) == 0
    record = Record.open(root)
    assert len(entries_of(record)) == 200
    assert sum(entry.fetched for entry in entries_of(record).values()) == 100
    if changed == "selections":
        assert load_header(root / "cxrprep.lock").dataset == "nih-chestxray14"
    assert not (root / ".cxrprep/saving").exists()


def test_a_download_that_slept_ends_with_75_and_leaves_the_folder_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.faults import serving
    from tests.transfer.runs import download, release, tree

    root = tmp_path / "nih"
    files = release(6)
    monkeypatch.setattr(locks, "_ASLEEP_SECONDS", -1.0)
    taken = RunId.new()

    def on_event(event: object) -> None:
        path = root / ".cxrprep/leases/whole"
        if type(event).__name__ == "ItemFinished" and str(taken) not in path.read_text():
            path.write_text(f'{{"owner": "{taken}"}}')

    with serving(files) as server:
        with pytest.raises(BusyError) as caught:
            download(root, server.url, on_event=on_event)
        assert caught.value.exit_code == ExitCode.BUSY
        assert str(taken) in (root / ".cxrprep/leases/whole").read_text()
        # Nothing is lost: when the other one is done, the same command goes on.
        (root / ".cxrprep/leases/whole").unlink()
        monkeypatch.undo()
        assert download(root, server.url).exit_code == 0
    assert tree(root) == {name: data for name, data in files.items() if name != "MD5SUMS"}
