"""Digests of many files at once are the digests of each."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrprep import digests
from cxrprep.digests import CHUNK, FileToRead, digest_files

SIZES = st.sampled_from([0, 1, 4095, 4096, 8191, 70_000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])


@given(sizes=st.lists(SIZES, max_size=9), threads=st.integers(1, 4), batch=st.integers(1, 4))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_size_gives_the_digest_of_its_bytes_in_the_order_asked(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], threads: int, batch: int
) -> None:
    root = tmp_path_factory.mktemp("files")
    for number, size in enumerate(sizes):
        (root / f"{number}").write_bytes(os.urandom(size))
    read: list[int] = []
    jobs = [FileToRead(f"{number}", size) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_BATCH_FILES", batch)
        done = [one for several in digest_files(root, jobs, workers=threads, on_bytes=read.append) for one in several]
    assert [(one.path, one.size, one.problem) for one in done] == [(job.path, job.size, "") for job in jobs]
    for one in done:
        assert one.digests == (f"sha256:{hashlib.sha256((root / one.path).read_bytes()).hexdigest()}",)
    assert sum(read) == sum(sizes)


def test_several_algorithms_take_one_reading(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK + 17)
    (tmp_path / "a").write_bytes(data)
    read: list[int] = []
    algorithms = ("md5", "sha1", "sha256", "crc32", "crc32c")
    ((one,),) = digest_files(tmp_path, [FileToRead("a", len(data), algorithms)], on_bytes=read.append)
    assert one.digests == (
        f"md5:{hashlib.md5(data).hexdigest()}",
        f"sha1:{hashlib.sha1(data).hexdigest()}",
        f"sha256:{hashlib.sha256(data).hexdigest()}",
        f"crc32:{zlib.crc32(data):08x}",
        f"crc32c:{google_crc32c.value(data):08x}",
    )
    assert sum(read) == len(data)


def test_a_file_that_cannot_be_read_says_why_and_the_others_are_done(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    jobs = [FileToRead("none", 1), FileToRead("folder", 1), FileToRead("a", 1)]
    (done,) = digest_files(tmp_path, jobs)
    assert [bool(one.problem) for one in done] == [True, True, False]
    assert done[0].problem == "No such file or directory"


def test_a_caller_that_leaves_early_stops_the_reading(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}").write_bytes(bytes(CHUNK))
    asked: list[str] = []

    def jobs() -> object:
        for number in range(40):
            asked.append(f"{number}")
            yield FileToRead(f"{number}", 64 << 20)

    batches = digest_files(tmp_path, jobs(), workers=2)  # type: ignore[arg-type]  # a generator of jobs
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(asked) < 10


def test_many_batches_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_BATCH_FILES", 3)
    files = [FileToRead(f"{number}", number) for number in range(30)]
    for file in files:
        (tmp_path / file.path).write_bytes(os.urandom(file.size))
    done = [one for several in digest_files(tmp_path, files, workers=2) for one in several]
    assert [(one.path, one.digests) for one in done] == [
        (file.path, (f"sha256:{hashlib.sha256((tmp_path / file.path).read_bytes()).hexdigest()}",)) for file in files
    ]


def test_small_files_of_the_size_that_was_listed_are_read_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"two words")
    monkeypatch.setattr(digests, "_read", lambda *_: pytest.fail("it was read block by block"))
    heard: list[int] = []
    ((found,),) = digest_files(tmp_path, [FileToRead("file", 9, ("md5", "sha256"))], on_bytes=heard.append)
    assert found.digests == tuple(f"{name}:{hashlib.new(name, b'two words').hexdigest()}" for name in ("md5", "sha256"))
    assert (found.size, sum(heard)) == (9, 9)


@pytest.mark.parametrize("listed", [0, 1, 8, 10, 5000])
def test_a_file_that_has_changed_since_it_was_listed_is_read_to_its_end(tmp_path: Path, listed: int) -> None:
    (tmp_path / "file").write_bytes(b"two words")
    ((found,),) = digest_files(tmp_path, [FileToRead("file", listed)])
    assert (found.size, found.digests) == (9, (f"sha256:{hashlib.sha256(b'two words').hexdigest()}",))
