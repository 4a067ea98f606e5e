"""Disks: too small, full midway, read-only, shared by runs that no lock keeps apart; and the bounds on a transfer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxrprep.errors import ExitCode, StorageError
from cxrprep.events import Advanced
from cxrprep.transfer.limits import Rate, Stop, Stopped
from cxrprep.transfer.options import TransferOptions
from tests.servers.faults import serving
from tests.transfer.runs import download, expected, image, leftovers, noise, release, tar_gz, tree, with_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.events import Event

PROJECT = Path(__file__).parents[2]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size`` at ``folder``; skips where this user may not mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this user may not mount a small disk; to run this test: be root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_room_is_looked_for_before_the_first_byte(tmp_path: Path) -> None:
    files = with_sums({image(n): noise(1_000_000, n) for n in range(1, 9)})
    with small_disk(tmp_path / "disk", "4m") as disk, serving(files) as server:
        with pytest.raises(StorageError, match=r"8\.0 MB are needed"):
            download(disk / "nih", server.url)
        assert server.sent == len(files["MD5SUMS"])
        assert tree(disk) == {}


def test_a_disk_that_fills_midway_loses_nothing(tmp_path: Path) -> None:
    """Without stated sizes nobody can know before; afterwards the same command goes on where there is room."""
    files = with_sums({image(n): noise(700_000, n) for n in range(1, 9)})
    with small_disk(tmp_path / "disk", "4m") as disk, serving(files, unsized=True, chunked=True) as server:
        root = disk / "nih"
        result = download(root, server.url, options=TransferOptions(connections=2))
        assert result.exit_code == ExitCode.STORAGE
        whole = tree(root)
        assert 0 < len(whole) < 8
        assert all(data == files[name] for name, data in whole.items())
        assert {name.count(".part") for name in leftovers(root)} <= {1}
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert download(root, server.url).exit_code == 0
        assert tree(root) == expected(files)
        assert leftovers(root) == []


def test_a_full_disk_ends_the_run_at_once(tmp_path: Path) -> None:
    files = with_sums({f"images_{k:03d}.tar.gz": tar_gz({image(k): bytes(9_000_000)}) for k in range(1, 5)})
    with small_disk(tmp_path / "disk", "8m") as disk, serving(files) as server:
        result = download(disk / "nih", server.url)
        assert result.exit_code == ExitCode.STORAGE
        assert str(disk) in str(result.failures[0].error)
        subprocess.run(["mount", "-o", "remount,size=80m", str(disk)], check=True)
        assert download(disk / "nih", server.url).exit_code == 0
        assert set(tree(disk / "nih")) == {image(k) for k in range(1, 5)}


_PROGRAM = """
import fcntl, sys
from pathlib import Path
fcntl.flock = fcntl.lockf = lambda *_: None
from tests.transfer.runs import download
from cxrprep.transfer.options import TransferOptions
options = TransferOptions(connections=4, split_from=1 << 20, folder_lock=False)
result = download(Path(sys.argv[1]), sys.argv[2], options=options)
print(*(f"{failure.item.dest}: {failure.error!r}" for failure in result.failures), sep="\\n", file=sys.stderr)
sys.exit(result.exit_code)
"""


def test_two_runs_that_no_lock_keeps_apart(tmp_path: Path) -> None:
    """Locks that lock nothing, and no message that another run is at work: both end well, on the same bytes."""
    members = {image(n): noise(30_000, n) for n in range(500, 540)}
    files = with_sums(
        {**release(30, 40_000), "images_001.tar.gz": tar_gz(members), "test_list.txt": noise(5_000_000, 4)}
    )
    with serving(files, drip=(50_000, 0.002)) as server:
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(tmp_path), server.url],
                cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]  # fmt: skip
        said = [run.communicate()[1].decode() for run in runs]
        assert [run.returncode for run in runs] == [0, 0], said
        wanted = {**expected(files), **members}
        del wanted["images_001.tar.gz"]
        assert tree(tmp_path) == wanted
        assert leftovers(tmp_path) == []
        again = download(tmp_path, server.url)
    assert (again.done, again.failed) == (0, 0)


def test_a_second_run_is_told_who_is_at_work(tmp_path: Path) -> None:
    from cxrprep.errors import BusyError

    with serving(release()) as server:
        caught: list[BusyError] = []

        def meanwhile(path: str, place: Path) -> None:
            if not caught:
                with pytest.raises(BusyError, match=str(os.getpid())) as found:
                    download(tmp_path, server.url)
                caught.append(found.value)

        assert download(tmp_path, server.url, on_complete=meanwhile).exit_code == 0
    assert caught[0].exit_code == ExitCode.BUSY


def test_the_rate_is_an_average_without_bursts() -> None:
    now = [100.0]
    waits: list[float] = []

    class Patient(Stop):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)
            now[0] += seconds

    rate = Rate(1_000_000, Patient(), clock=lambda: now[0])
    for _ in range(50):
        rate.take(100_000)
    assert now[0] - 100.0 == pytest.approx(5.0, abs=0.3)
    # A pause earns a fifth of a second at most.
    now[0] += 60
    began = now[0]
    for _ in range(50):
        rate.take(100_000)
    assert now[0] - began == pytest.approx(5.0, abs=0.3)
    assert max(waits) <= 0.3


def test_a_limited_run_reads_in_small_pieces(tmp_path: Path) -> None:
    files = with_sums({image(1): noise(400_000)})
    with serving(files) as server:
        assert download(tmp_path, server.url, options=TransferOptions(limit_rate=2_000_000)).exit_code == 0
    assert tree(tmp_path) == expected(files)


def test_an_archive_of_a_mounted_folder_is_read_at_the_rate_and_its_bytes_are_told(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    packed = tar_gz({f"images/{Path(image(n)).name}": noise(25_000, n) for n in (1, 2)})
    for name, data in with_sums({"images_001.tar.gz": packed}).items():
        (mirror / name).write_bytes(data)
    told: list[Event] = []
    began = time.monotonic()
    options = TransferOptions(limit_rate=100_000)
    result = download(tmp_path / "nih", str(mirror), options=options, on_event=told.append)
    assert (result.exit_code, result.unpacked) == (0, 2)
    # A fifth of a second's bytes come at once.
    assert time.monotonic() - began >= len(packed) / 100_000 - 0.2
    pieces = [one.size for one in told if isinstance(one, Advanced) and one.key == "images_001.tar.gz"]
    assert len(pieces) > 1
    assert sum(pieces) == len(packed)


def test_a_run_that_is_asked_to_stop_keeps_what_it_has() -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        Rate(1, stop).take(10)
