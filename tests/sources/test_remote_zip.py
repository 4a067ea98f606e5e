"""Members of an archive that stays where it is: they cost their own bytes, in every form that archives have."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import ArchiveError, NotInSourceError, SourceUnreachableError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources.base import ByteStream
from cxrprep.sources.local import LocalBody
from cxrprep.sources.remote_zip import RemoteZip
from tests.sources.contract import content

_RNG = random.Random(11)
MEMBERS = {
    f"CheXpert-v1.0 batch 2 (train 1)/patient{n:05d}/study1/view1_frontal.jpg": _RNG.randbytes(20_000 + n)
    for n in range(1, 41)
}


class Wire:
    """A file read by range, which counts the bytes that cross."""

    def __init__(self, path: Path, *, ranges: bool = True) -> None:
        self.path, self.ranges = path, ranges
        self.requests = self.asked = 0

    def open_range(self, offset: int, end: int) -> ByteStream:
        self.requests += 1
        end = min(end, self.path.stat().st_size)
        self.asked += end - offset
        stream: ByteStream = LocalBody(self.path, self.path.name, offset if self.ranges else 0, end)
        stream.validator = '"v1"'
        return stream

    def archive(self, key: str = "batch 2.zip") -> RemoteZip:
        return RemoteZip(key, f"test://{self.path}", self.path.stat().st_size, '"v1"', self.open_range)


def written(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> Wire:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = comment
    return Wire(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_costs_its_own_bytes(tmp_path: Path, method: int) -> None:
    wire = written(tmp_path / "a.zip", MEMBERS, method)
    files = {file.key: file for file in wire.archive().members()}
    assert set(files) == {f"batch 2.zip!/{name}" for name in MEMBERS}
    # The archive's end, and the directory.
    assert wire.asked < 66_000 + 200 * len(MEMBERS)
    name = next(iter(MEMBERS))
    file = files[f"batch 2.zip!/{name}"]
    assert (file.size, file.digest) == (len(MEMBERS[name]), Digest("crc32", f"{zlib.crc32(MEMBERS[name]):08x}"))
    wire.requests = wire.asked = 0
    assert content(wire.archive().open(file)) == MEMBERS[name]
    assert wire.requests == 1
    assert wire.asked <= len(MEMBERS[name]) + 500


def test_the_directory_is_kept_on_disk(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {f"folder/{n:05d}": b"x" for n in range(2_000)})
    first = [*wire.archive().members()]
    wire.requests = wire.asked = 0
    assert [*wire.archive().members()] == first
    assert wire.requests == 1, "its end is read, the directory is here"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@settings(max_examples=40, deadline=None)
@given(offset=st.integers(0, 20_001), length=st.one_of(st.none(), st.integers(0, 30_000)))
def test_any_part_of_a_member(
    tmp_path_factory: pytest.TempPathFactory, method: int, offset: int, length: int | None
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"parts-{method}"
    folder.mkdir(exist_ok=True)
    path = folder / "a.zip"
    wire = Wire(path) if path.exists() else written(path, MEMBERS, method)
    name, data = next(iter(MEMBERS.items()))
    file = next(iter(wire.archive().members()))
    end = None if length is None else offset + length
    stream = wire.archive().open(file, offset, end)
    assert stream.offset == offset
    assert stream.length == len(data)
    assert content(stream) == data[offset:end]
    assert file.key.endswith(name)


# ---- zip64 ----


@pytest.mark.long
def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    wire = written(tmp_path / "many.zip", {f"{n:06d}": b"%d" % n for n in range(65_600)}, zipfile.ZIP_STORED)
    files = [*wire.archive().members()]
    assert len(files) == 65_600
    for number in (0, 65_535, 65_599):
        assert content(wire.archive().open(files[number])) == b"%d" % number


def test_a_member_beyond_four_gibibytes(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with path.open("w+b") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("near.txt", b"near")
        # The library writes where it believes that the last member ended; what lies between is a hole.
        archive.start_dir = 5 * 1024**3
        archive.writestr("far.txt", b"far away")
    wire = Wire(path)
    files = {file.key: file for file in wire.archive().members()}
    assert content(wire.archive().open(files["batch 2.zip!/far.txt"])) == b"far away"
    assert content(wire.archive().open(files["batch 2.zip!/near.txt"])) == b"near"
    assert wire.asked < 300_000


# ---- forms ----


def test_a_comment_and_a_program_before_the_archive(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"a.txt": b"hello"}, comment=b"PK\x05\x06 is no end here" * 20)
    wire.path.write_bytes(b"#!/bin/sh\nexit\n" * 10 + wire.path.read_bytes())
    (file,) = wire.archive().members()
    assert content(wire.archive().open(file)) == b"hello"


def test_folders_are_no_files_and_names_keep_their_letters(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"folder/": b"", "folder/größe.txt": b"1", "folder/empty": b""})
    files = [*wire.archive().members()]
    assert [file.key for file in files] == ["batch 2.zip!/folder/größe.txt", "batch 2.zip!/folder/empty"]
    assert [content(wire.archive().open(file)) for file in files] == [b"1", b""]


def test_a_packing_that_cannot_be_read_by_range(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"a.txt": b"hello" * 50}, zipfile.ZIP_LZMA)
    (file,) = wire.archive().members()
    with pytest.raises(ArchiveError, match=r"a\.txt is packed by method 14") as caught:
        wire.archive().open(file)
    assert "as a whole" in caught.value.hint


def test_an_encrypted_member_leaves_the_others(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"a.txt": b"hello", "b.txt": b"hello again"})
    data = bytearray(wire.path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    wire.path.write_bytes(bytes(data))
    secret, plain = wire.archive().members()
    with pytest.raises(ArchiveError, match=r"a\.txt is encrypted"):
        wire.archive().open(secret)
    assert content(wire.archive().open(plain)) == b"hello again"


def _cut(data: bytes) -> bytes:
    return data[:-30]


def _no_archive(data: bytes) -> bytes:
    return b"<html>" + bytes(len(data))


def _directory_damaged(data: bytes) -> bytes:
    at = data.index(b"PK\x01\x02")
    return data[:at] + b"XXXX" + data[at + 4 :]


@pytest.mark.parametrize("damage", [_cut, _no_archive, _directory_damaged])
def test_an_archive_that_is_none(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    wire = written(tmp_path / "a.zip", MEMBERS)
    wire.path.write_bytes(damage(wire.path.read_bytes()))
    with pytest.raises(ArchiveError) as caught:
        [*wire.archive().members()]
    assert "batch 2.zip" in str(caught.value)
    assert caught.value.hint


def test_members_whose_bytes_are_damaged(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"a.txt": b"hello " * 5_000})
    (file,) = wire.archive().members()
    data = bytearray(wire.path.read_bytes())
    data[40:60] = bytes(20)
    wire.path.write_bytes(bytes(data))
    with pytest.raises(ArchiveError):
        content(wire.archive().open(file))
    data[0:4] = b"XXXX"
    wire.path.write_bytes(bytes(data))
    with pytest.raises(ArchiveError, match="no member begins"):
        wire.archive().open(file)


def test_a_member_of_another_archive(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {"a.txt": b"hello"})
    (file,) = wire.archive().members()
    other = RemoteZip("batch 2.zip", "test://", wire.path.stat().st_size, '"v2"', wire.open_range)
    with pytest.raises(ArchiveError, match="has changed since it was listed"):
        other.open(file)
    with pytest.raises(NotInSourceError, match="no such member"):
        wire.archive().open(RemoteFile("batch 2.zip!/b.txt"))
    assert content(wire.archive().open(RemoteFile("batch 2.zip!/a.txt"))) == b"hello"


def test_a_server_without_ranges(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", {name: data * 3 for name, data in MEMBERS.items()}, zipfile.ZIP_STORED)
    wire.ranges = False
    with pytest.raises(SourceUnreachableError, match="does not serve ranges") as caught:
        [*wire.archive().members()]
    assert "as a whole" in caught.value.hint


def test_what_zipfile_reads_is_what_comes(tmp_path: Path) -> None:
    wire = written(tmp_path / "a.zip", MEMBERS)
    with zipfile.ZipFile(io.BytesIO(wire.path.read_bytes())) as archive:
        for file in wire.archive().members():
            assert content(wire.archive().open(file)) == archive.read(file.key.removeprefix("batch 2.zip!/"))
