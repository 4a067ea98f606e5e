"""Digests of many files at once are the digests of each."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrprep.verification import digest_worker, hashing
from cxrprep.verification.digest_worker import CHUNK
from cxrprep.verification.hashing import Job, hash_files

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
    jobs = [Job(f"{number}", size) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_BATCH_FILES", batch)
        done = [one for several in hash_files(root, jobs, workers=threads, on_bytes=read.append) for one in several]
    assert [(one.path, one.size, one.problem) for one in done] == [(job.path, job.size, "") for job in jobs]
    for one in done:
        assert one.digests == (f"sha256:{hashlib.sha256((root / one.path).read_bytes()).hexdigest()}",)
    assert sum(read) == sum(sizes)


def test_several_algorithms_take_one_reading(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK + 17)
    (tmp_path / "a").write_bytes(data)
    read: list[int] = []
    algorithms = ("md5", "sha1", "sha256", "crc32", "crc32c")
    ((one,),) = hash_files(tmp_path, [Job("a", len(data), algorithms)], on_bytes=read.append)
    assert one.digests == (
        f"md5:{hashlib.md5(data).hexdigest()}",
        f"sha1:{hashlib.sha1(data).hexdigest()}",
        f"sha256:{hashlib.sha256(data).hexdigest()}",
        f"crc32:{zlib.crc32(data):08x}",
        f"crc32c:{google_crc32c.value(data):08x}",
    )
    assert sum(read) == len(data)


def test_a_file_system_that_reads_in_pieces_gives_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    read: list[int] = []
    whole = os.readv

    def in_pieces(handle: int, buffers: list[memoryview]) -> int:
        return whole(handle, [buffers[0][:70_000]])

    monkeypatch.setattr(os, "readv", in_pieces)
    ((one,),) = hash_files(tmp_path, [Job("a", len(data))], on_bytes=read.append)
    assert one.digests == (f"sha256:{hashlib.sha256(data).hexdigest()}",)
    assert (one.size, sum(read)) == (len(data), len(data))


def test_a_file_that_cannot_be_read_says_why_and_the_others_are_done(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    jobs = [Job("none", 1), Job("folder", 1), Job("a", 1)]
    (done,) = hash_files(tmp_path, jobs)
    assert [bool(one.problem) for one in done] == [True, True, False]
    assert done[0].problem == "No such file or directory"


def test_a_caller_that_leaves_early_stops_the_reading(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}").write_bytes(bytes(CHUNK))
    asked: list[str] = []

    def jobs() -> object:
        for number in range(40):
            asked.append(f"{number}")
            yield Job(f"{number}", 64 << 20)

    batches = hash_files(tmp_path, jobs(), workers=2)  # type: ignore[arg-type]  # a generator of jobs
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(asked) < 10


ENDS: dict[str, str] = {
    "at once": "pass",
    "in the middle of an answer": "import sys; sys.stdin.buffer.read(9); sys.stdout.buffer.write(b'\\x40\\0\\0\\0abc')",
    "after its first batch": "import runpy, sys\n"
    "digests = runpy.run_path(sys.argv[1])\n"
    "prefix, files = digests['receive'](sys.stdin.buffer)\n"
    "digests['send'](sys.stdout.buffer, digests['digest_files'](prefix, files, lambda _: None))",
}


@pytest.mark.parametrize("when", ENDS)
def test_what_a_process_leaves_undone_is_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    script = tmp_path / "ends.py"
    script.write_text(f"import sys; sys.argv.append({digest_worker.__file__!r})\n" + ENDS[when])
    monkeypatch.setattr(digest_worker, "__file__", str(script))
    read_by_many(tmp_path, monkeypatch)


def test_where_no_process_can_be_started_threads_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    read_by_many(tmp_path, monkeypatch)


def read_by_many(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_BATCH_FILES", 3)
    jobs = [Job(f"{number}", number) for number in range(30)]
    for job in jobs:
        (root / job.path).write_bytes(os.urandom(job.size))
    done = [one for several in hash_files(root, jobs, workers=2) for one in several]
    assert [(one.path, one.digests) for one in done] == [
        (job.path, (f"sha256:{hashlib.sha256((root / job.path).read_bytes()).hexdigest()}",)) for job in jobs
    ]
