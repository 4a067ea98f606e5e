"""A download from a folder and from a server: files and archives, twice, and after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrprep.transfer.options import TransferOptions
from tests.servers import nginx
from tests.servers.faults import serving
from tests.transfer.runs import QUICK, download, expected, image, leftovers, noise, release, tar_gz, tree, with_sums

PROJECT = Path(__file__).parents[2]


def test_files_over_http_arrive_once(tmp_path: Path) -> None:
    files, root = release(), tmp_path / "nih"
    with serving(files) as server:
        first = download(root, server.url)
        assert (first.exit_code, first.done, first.failed) == (0, 7, 0)
        assert first.size == sum(map(len, expected(files).values()))
        assert tree(root) == expected(files)
        sent = server.sent
        again = download(root, server.url)
        assert (again.done, again.kept) == (0, 7)
        assert server.sent - sent == len(files["MD5SUMS"])
    assert leftovers(root) == []


def test_no_more_connections_are_used_than_allowed(tmp_path: Path) -> None:
    files, mirror = release(6, 60_000), tmp_path / "mirror"
    for name, data in files.items():
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(data)
    options = TransferOptions(connections=2, retry_policy=QUICK)
    with nginx.serving(mirror, tmp_path / "nginx", most=2) as server:
        assert download(tmp_path / "nih", server.url, options=options).done == 7
        assert {status for status, *_ in server.seen()} == {"200"}
    assert tree(tmp_path / "nih") == expected(files)


@pytest.mark.parametrize("link", ["copy", "hardlink", "reflink"])
def test_a_folder_is_copied_or_linked(tmp_path: Path, link: str) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "nih"
    for name, data in release().items():
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(data)
    assert download(root, str(mirror), options=TransferOptions(link=link)).done == 7
    assert tree(root) == expected(release())
    one = image(1)
    assert ((root / one).stat().st_ino == (mirror / one).stat().st_ino) == (link == "hardlink")
    assert download(root, mirror.as_uri(), options=TransferOptions(link=link)).kept == 7


def test_archives_are_proven_unpacked_and_dropped(tmp_path: Path) -> None:
    members = {image(n): noise(3000, n) for n in range(1, 20)}
    first, second = dict(list(members.items())[:10]), dict(list(members.items())[10:])
    files = with_sums({"images_001.tar.gz": tar_gz(first), "images_002.tar.gz": tar_gz(second), "test_list.txt": b"x"})
    root = tmp_path / "nih"
    with serving(files) as server:
        result = download(root, server.url)
        assert (result.exit_code, result.done, result.unpacked) == (0, 3, 19)
        assert tree(root) == {**members, "test_list.txt": b"x"}
        assert download(root, server.url).kept == 3
        (root / image(3)).unlink()
        mended = download(root, server.url)
        assert (mended.done, mended.kept, mended.unpacked) == (1, 2, 1)
        assert tree(root) == {**members, "test_list.txt": b"x"}


def test_archives_stay_when_asked(tmp_path: Path) -> None:
    files = with_sums({"images_001.tar.gz": tar_gz({image(1): b"one"})})
    with serving(files) as server:
        download(tmp_path, server.url, options=TransferOptions(keep_archives=True))
        assert tree(tmp_path) == {**expected(files), image(1): b"one"}
        assert download(tmp_path, server.url, options=TransferOptions(keep_archives=True)).kept == 1


_PROGRAM = """
import sys
from pathlib import Path
from tests.transfer.runs import download
from cxrprep.transfer.options import TransferOptions
options = TransferOptions(connections=3, split_from=int(sys.argv[3]))
sys.exit(download(Path(sys.argv[1]), sys.argv[2], options=options).exit_code)
"""


def start(root: Path, url: str, split_from: int = 1 << 30) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(root), url, str(split_from)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("split_from", [1 << 30, 1 << 20])
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, split_from: int) -> None:
    members = {image(n): noise(40_000, n) for n in range(100, 160)}
    files = with_sums({**release(20, 30_000), "images_001.tar.gz": tar_gz(members), "test_list.txt": noise(6_000_000)})
    wanted = {**members, **expected(files)}
    del wanted["images_001.tar.gz"]
    root = tmp_path / "nih"
    with serving(files, drip=(60_000, 0.002)) as server:
        for wait in (0.15, 0.4, 0.1, 0.3):
            process = start(root, server.url, split_from)
            deadline = time.monotonic() + 20
            while server.sent < 100_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = start(root, server.url, split_from)
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    assert tree(root) == wanted
    assert leftovers(root) == []
