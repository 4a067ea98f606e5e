"""Archives from outside: nothing leaves the folder, nothing fills the disk, and nothing is unpacked twice."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from cxrprep.errors import ArchiveError, ExitCode, UnsafePathError
from cxrprep.storage.archives import ArchiveLimits, read_members
from cxrprep.transfer.options import TransferOptions
from tests.servers.faults import serving
from tests.transfer.runs import download, image, leftovers, noise, tar_gz, tree, with_sums

PROJECT = Path(__file__).parents[2]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return raw.getvalue()


def tarred(*entries: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for entry in entries:
            tar.addfile(entry)
    return raw.getvalue()


@pytest.mark.parametrize("pack", [tar_gz, zipped])
@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "images/../../evil.png", "C:/evil.png", "a\\..\\b.png"]
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, pack: object, name: str) -> None:
    path = tmp_path / ("images.zip" if pack is zipped else "images.tar.gz")
    path.write_bytes(pack({name: b"evil"}))  # type: ignore[operator]  # one of the two above
    with pytest.raises(UnsafePathError):
        list(read_members(path))


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("images/00000001_000.png")
    entry.type, entry.linkname = kind, target
    return entry


LINKS = {
    "symbolic link": link(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": link(tarfile.LNKTYPE, "../x"),
    "device": link(tarfile.CHRTYPE, ""),
    "pipe": link(tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("entry", LINKS.values(), ids=LINKS.keys())
def test_links_and_devices_are_refused(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    path = tmp_path / "images_001.tar.gz"
    path.write_bytes(tarred(entry))
    with pytest.raises(ArchiveError, match="link or a device"):
        list(read_members(path))


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(zipped({f"images/{n:08d}_000.png": bytes(2_000_000) for n in range(20)}))
    with pytest.raises(ArchiveError, match="far more"):
        list(read_members(path, ArchiveLimits(free=1_000_000)))
    with pytest.raises(ArchiveError, match="far more"):
        list(read_members(path, ArchiveLimits(members=5)))
    with pytest.raises(ArchiveError, match="far more"):
        list(read_members(path, ArchiveLimits(member_size=1_000_000)))


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_wrong_archive_is_exit_4_and_nothing_lies_outside(tmp_path: Path, pack: object) -> None:
    name = "archive.zip" if pack is zipped else "images_001.tar.gz"
    root = tmp_path / "nih"
    evil = pack({image(1): b"fine", "../../evil.png": b"evil"})  # type: ignore[operator]  # one of the two above
    with serving(with_sums({name: evil})) as server:
        result = download(root, server.url)
    assert result.exit_code == ExitCode.INTEGRITY
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_an_archive_cut_short_is_exit_4(tmp_path: Path, pack: object) -> None:
    name = "archive.zip" if pack is zipped else "images_001.tar.gz"
    members = {image(n): noise(20_000, n) for n in range(1, 9)}
    whole: bytes = pack(members)  # type: ignore[operator]  # one of the two above
    with serving(with_sums({name: whole[: len(whole) * 2 // 3]})) as server:
        assert download(tmp_path / "nih", server.url).exit_code == ExitCode.INTEGRITY
        server.files = with_sums({name: whole})
        assert download(tmp_path / "nih", server.url).exit_code == 0
    assert tree(tmp_path / "nih") == members


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_members_are_unpacked_once_and_the_archive_goes(tmp_path: Path, pack: object) -> None:
    name = "archive.zip" if pack is zipped else "images_001.tar.gz"
    members = {image(n): noise(20_000, n) for n in range(1, 9)}
    with serving(with_sums({name: pack(members)})) as server:  # type: ignore[operator]  # one of the two above
        first = download(tmp_path / "nih", server.url)
        assert (first.exit_code, first.unpacked) == (0, 8)
        assert tree(tmp_path / "nih") == members
        gets = len(server.gets(name))
        assert download(tmp_path / "nih", server.url).kept == 1
        assert len(server.gets(name)) == gets


def test_only_what_is_selected_is_unpacked(tmp_path: Path) -> None:
    from cxrprep.model import Selection

    members = {image(n): noise(2_000, n) for n in range(1, 9)}
    with serving(with_sums({"images_001.tar.gz": tar_gz(members)})) as server:
        few = Selection(patients=frozenset({"2", "5"}))
        assert download(tmp_path, server.url, selection=few).unpacked == 2
        assert set(tree(tmp_path)) == {image(2), image(5)}
        assert download(tmp_path, server.url).unpacked == 6
    assert tree(tmp_path) == members


_PROGRAM = """
import sys
from pathlib import Path
from tests.transfer.runs import download
sys.exit(download(Path(sys.argv[1]), sys.argv[2]).exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images_001.tar.gz", "archive.zip"])
def test_killed_while_unpacking_what_came_out_is_kept(tmp_path: Path, name: str) -> None:
    members = {image(n): noise(60_000, n) for n in range(1, 400)}
    data = zipped(members, zipfile.ZIP_STORED) if name.endswith(".zip") else tar_gz(members)
    images = tmp_path / "images"
    with serving(with_sums({name: data})) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(tmp_path), server.url],
            cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (images.exists() and len(list(images.iterdir())) > 20) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        here = {path.name: path.stat().st_ino for path in images.iterdir()}
        gets = len(server.gets(name))
        result = download(tmp_path, server.url)
        assert result.exit_code == 0
        # The archive was whole: it is not fetched again, and all but the last few files are the very same ones.
        assert len(server.gets(name)) == gets
    assert tree(tmp_path) == members
    assert leftovers(tmp_path) == []
    same = sum(1 for file, inode in here.items() if (images / file).stat().st_ino == inode)
    assert same >= len(here) - 1


def _size(path: Path) -> int:
    """Bytes of a file that may be renamed away at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_archives_one_after_the_other_need_no_room_for_all(tmp_path: Path) -> None:
    """Never are more than two archives on the disk at a time, whatever the number of connections."""
    files = {
        f"images_{k:03d}.tar.gz": tar_gz({image(100 * k + n): noise(30_000, n) for n in range(1, 8)})
        for k in range(1, 8)
    }
    most = 0
    with serving(with_sums(files)) as server:

        def look(path: str, place: Path) -> None:
            nonlocal most
            # One that gets its final name during this look is counted once: whole ones are those that stay throughout.
            before = set(tmp_path.glob("*.tar.gz"))
            parts = [_size(path) for path in (tmp_path / ".cxrprep" / "parts").glob("*.part")]
            whole = before & set(tmp_path.glob("*.tar.gz"))
            most = max(most, len(whole) + sum(size > 100_000 for size in parts))

        result = download(tmp_path, server.url, options=TransferOptions(connections=8), on_complete=look)
    assert result.exit_code == 0
    assert result.unpacked == 49
    assert 1 <= most <= 2


@pytest.mark.parametrize(
    "moment", ["transfer.worker.settle", "storage.archives.write_index", "transfer.worker._discard"]
)
def test_stopped_between_unpacking_and_dropping_the_archive_still_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The run dies with everything unpacked and the archive still there; the next one finishes, and fetches nothing."""

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    name = "images_001.tar.gz"
    members = {image(n): noise(20_000, n) for n in range(1, 9)}
    with serving(with_sums({name: tar_gz(members)})) as server:
        with monkeypatch.context() as patch:
            patch.setattr(f"cxrprep.{moment}", die)
            with pytest.raises(Killed):
                download(tmp_path, server.url)
        assert set(tree(tmp_path)) == {*members, name}
        gets = len(server.gets(name))
        assert download(tmp_path, server.url).exit_code == 0
        assert tree(tmp_path) == members
        assert len(server.gets(name)) == gets
        assert download(tmp_path, server.url).kept == 1
