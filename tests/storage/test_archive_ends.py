"""Archives are read to their end: checksum and length of each gzip member (RFC 1952), nothing behind the end mark."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from cxrprep.errors import ArchiveError, ExitCode
from cxrprep.record.record import Record
from cxrprep.storage.archives import read_members
from tests.commands import cxrprep
from tests.generators.small import chexpert, nih_chestxray14
from tests.record.entries import entries_of
from tests.servers.faults import serving
from tests.transfer.runs import download, image, noise, tree

MEMBERS = {image(n): noise(3_000, n) for n in range(1, 9)}


def tar() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in MEMBERS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


BLOCK = 512
WHOLE = tar()
# Where the fourth member's header is: each of those before takes a header and six blocks.
FOURTH = 3 * 7 * BLOCK
HOLE = WHOLE[:FOURTH] + bytes(BLOCK) + WHOLE[FOURTH + BLOCK :]
STORED = gzip.compress(WHOLE, 0)
DAMAGED = {
    "one byte of a member": flipped(STORED, 5_000),
    "one byte of the checksum": flipped(STORED, len(STORED) - 6),
    "one byte of the length": flipped(STORED, len(STORED) - 2),
    "without the last eight bytes": STORED[:-8],
    "something behind the end": STORED + b"x",
    "a hole": gzip.compress(HOLE),
    "a hole, not compressed": HOLE,
    "a hole, bzip2": bz2.compress(HOLE),
    "a hole, xz": lzma.compress(HOLE),
    "a header that was altered": gzip.compress(flipped(WHOLE, FOURTH + 3)),
    "a tar that ends after a member": gzip.compress(WHOLE[:FOURTH]),
    "a tar that ends within a member": gzip.compress(WHOLE[: FOURTH + 3 * BLOCK]),
    "a tar that ends within a header": gzip.compress(WHOLE[: FOURTH + 100]),
    "nothing": b"",
    "an empty gzip": gzip.compress(b""),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_nothing_of_an_archive_that_is_damaged_anywhere_is_taken(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "images_001.tar.gz"
    path.write_bytes(data)
    taken = []
    with pytest.raises(ArchiveError, match=r"images_001\.tar\.gz"):
        taken += [member.name for member in read_members(path)]
    assert not taken
    # The same by a mirror that states no sums: exit 4, and no image with a byte that nobody vouches for.
    with serving({path.name: data, "Data_Entry_2017_v2020.csv": b"Image Index\n"}) as server:
        assert download(tmp_path / "nih", server.url).exit_code == ExitCode.INTEGRITY
    assert not list((tmp_path / "nih").rglob("*.png"))
    assert not [path for path in entries_of(Record.open(tmp_path / "nih")) if path.endswith(".png")]


HALF = len(WHOLE) // 2
SOUND = {
    "gzip": gzip.compress(WHOLE),
    "gzip in two members": gzip.compress(WHOLE[:HALF]) + gzip.compress(WHOLE[HALF:]),
    "gzip, padded with zeros": gzip.compress(WHOLE) + bytes(700),
    "not compressed": WHOLE,
    "not compressed, with one block of end mark": WHOLE.rstrip(b"\0")
    + bytes(BLOCK * 2 - len(WHOLE.rstrip(b"\0")) % BLOCK),
    "bzip2": bz2.compress(WHOLE),
    "xz": lzma.compress(WHOLE),
}


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND.keys())
def test_what_is_whole_is_taken(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "images_001.tar.gz"
    path.write_bytes(data)
    assert {member.name: member.open().read() for member in read_members(path)} == MEMBERS
    with serving({path.name: data}) as server:
        assert download(tmp_path / "nih", server.url).exit_code == 0
    assert tree(tmp_path / "nih") == MEMBERS


def test_a_damaged_archive_that_lay_there_is_named_and_its_hint_helps(tmp_path: Path) -> None:
    root, name = tmp_path / "nih", "images_001.tar.gz"
    with serving({name: DAMAGED["one byte of a member"]}) as server:
        result = download(root, server.url)
        (failure,) = result.failures
        assert failure.error is not None
        assert (name in str(failure.error), failure.error.hint) == (True, "remove it and run the download again")
        server.files = {name: SOUND["gzip"]}
        (root / name).unlink()
        assert download(root, server.url).exit_code == 0
    assert tree(root) == MEMBERS


def test_verify_misses_a_damaged_archive_of_a_folder_until_it_comes_whole(tmp_path: Path) -> None:
    """It was recorded as used up before it was unpacked: verify was content with a folder without an image."""
    mirror, root, name = tmp_path / "mirror", tmp_path / "nih", "images_001.tar.gz"
    mirror.mkdir()
    nih_chestxray14.write(mirror, images=False)
    words = ("download", "nih-chestxray14", root, "--source", mirror)
    for data, code in ((DAMAGED["one byte of a member"], 4), (SOUND["gzip"], 0)):
        (mirror / name).write_bytes(data)
        assert cxrprep(*words).returncode == code
        done = cxrprep("verify", root)
        assert (done.returncode, "missing" in done.stdout and name in done.stdout) == (code, code == 4), done
    assert {path: data for path, data in tree(root).items() if path in MEMBERS} == MEMBERS


def zipped(folder: Path) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    return raw.getvalue()


def files_here(said: str) -> int:
    (found,) = re.findall(r"^ *files +(\d+) here,", said, re.MULTILINE)
    return int(found)


@pytest.mark.parametrize("mends", ["verify", "download"])
@pytest.mark.parametrize("published", [True, False], ids=["sums published", "no sums published"])
def test_verify_names_a_damaged_archive_that_a_mirror_sent_until_it_comes_whole(
    tmp_path: Path, published: bool, mends: str
) -> None:
    root = tmp_path / "root"
    if published:
        dataset, name, whole = "nih-chestxray14", "images_001.tar.gz", SOUND["gzip"]
        files = {name: DAMAGED["one byte of a member"], "Data_Entry_2017.csv": nih_chestxray14.table_2017().encode()}
    else:
        chexpert.write(tmp_path / "release", release="v1.0")
        dataset, name, whole = "chexpert", "CheXpert-v1.0 batch 1 (validate & csv).zip", zipped(tmp_path / "release")
        files = {name: flipped(whole, 200)}
    with serving(files) as server:
        again = ["download", dataset, root, "--source", server.url]
        assert cxrprep(*again).returncode == 4
        done = cxrprep("verify", root)
        assert (done.returncode, name in done.stdout) == (4, True), done
        again = again if mends == "download" else ["verify", root, "--repair"]
        # The mirror has not mended it: nothing is called repaired.
        assert cxrprep(*again).returncode == 4
        assert cxrprep("verify", root).returncode == 4
        server.files = files | {name: whole}
        repaired = cxrprep(*again)
        assert repaired.returncode == 0, repaired
        done = cxrprep("verify", root)
        assert done.returncode == 0, done
        # The archive was removed once it was unpacked: it is no file that is here.
        assert mends == "download" or files_here(repaired.stdout) == files_here(done.stdout)
    assert (len(list(root.rglob("*.png"))) == len(MEMBERS)) if published else list(root.rglob("*.jpg"))


@pytest.mark.parametrize("how", ["flipped", "hole"])
def test_no_label_is_made_of_reports_in_a_damaged_archive(tmp_path: Path, how: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for number in range(3):
            text = f"IMPRESSION: No pneumothorax {number}.".encode()
            entry = tarfile.TarInfo(f"s{number}.txt")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    data = raw.getvalue()
    if how == "flipped":
        packed = gzip.compress(data, 0)
        at = packed.index(b"No pneumothorax")
        packed = packed[:at] + b"  " + packed[at + 2 :]
    else:
        packed = gzip.compress(data[:1024] + bytes(512) + data[1536:])
    (tmp_path / "reports.tgz").write_bytes(packed)
    (tmp_path / "nih").mkdir()
    done = cxrprep("extract-labels", tmp_path / "nih", "--reports", tmp_path / "reports.tgz")
    assert done.returncode == 4, done.stderr
    assert "reports.tgz" in done.stderr
    assert not list((tmp_path / "nih").rglob("*.parquet"))
