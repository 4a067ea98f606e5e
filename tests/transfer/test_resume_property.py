"""For any cut points, resumed equals uninterrupted; for any order of ranges, the whole has its digest."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.transfer import range_fetch
from cxrprep.transfer.options import TransferOptions
from cxrprep.transfer.range_fetch import cut
from cxrprep.transfer.retry import RetryPolicy
from tests.servers.faults import FaultServer, Seen, serving
from tests.transfer.runs import download, image, leftovers, noise, tree, with_sums

OBJECT = image(7)
SIZE = 5_000_000
BODY, OTHER = noise(SIZE), noise(SIZE, 2)
ONCE = RetryPolicy(attempts=1)
QUICK = RetryPolicy(attempts=3, first_wait=0.001, longest_wait=0.001, jitter=0.0)


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=5),
    split=st.booleans(),
    sums=st.booleans(),
    changes=st.lists(st.booleans(), min_size=5, max_size=5),
    retry_policy=st.sampled_from([ONCE, QUICK]),
)
def test_resumed_equals_uninterrupted(
    cuts: list[int], split: bool, sums: bool, changes: list[bool], retry_policy: RetryPolicy
) -> None:
    """Each run ends after so many bytes; in between the mirror may get another version. The last one must be whole.

    Lists of checksums come over the same line, and are read on where it broke.
    """
    options = TransferOptions(retry_policy=retry_policy, split_from=1 << 20 if split else 1 << 40)
    versions = [with_sums({OBJECT: data}) if sums else {OBJECT: data} for data in (BODY, OTHER)]
    number = 0
    with tempfile.TemporaryDirectory() as folder, serving(dict(versions[0])) as server:
        root = Path(folder)
        for at, changed in zip(cuts, changes, strict=False):
            # What is complete is compared with its listing, which tells sizes only: that is another question.
            number ^= changed and not tree(root)
            server.files = versions[number]
            server.faults.cut_after, server.faults.cuts = at, 2
            download(root, server.url, options=options)
            assert tree(root) in ({}, {OBJECT: BODY}, {OBJECT: OTHER})
        server.faults.cut_after = None
        assert download(root, server.url, options=options).exit_code == 0
        assert tree(root) == {OBJECT: versions[number][OBJECT]}
        assert leftovers(root) == []


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 1 << 36), ranges=st.integers(1, 32), start=st.integers(0, 1 << 20))
def test_ranges_cover_a_file_once(size: int, ranges: int, start: int) -> None:
    start = min(start, size - 1)
    segments = cut(size, ranges, start)
    position = 0
    for segment in segments:
        assert segment.start == position
        assert segment.end is not None
        assert segment.end > segment.start
        position = segment.end
    assert position == size
    assert sum(s.done for s in segments) == start


def test_a_large_file_comes_in_several_ranges_at_once(tmp_path: Path) -> None:
    body = noise(70_000_000)
    with serving(with_sums({OBJECT: body}), drip=(4_000_000, 0.01)) as server:
        result = download(tmp_path, server.url)
        asked = {seen.headers.get("range") for seen in server.gets(OBJECT)}
    assert result.exit_code == 0
    assert len(asked) > 3
    assert hashlib.md5((tmp_path / OBJECT).read_bytes()).digest() == hashlib.md5(body).digest()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("fast", "most"), [(range_fetch._FAST, 4), (20_000_000, 1)])
def test_ranges_come_side_by_side_where_one_connection_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: int, most: int
) -> None:
    monkeypatch.setattr(range_fetch, "_FAST", fast)
    body = noise(70_000_000)
    with serving(with_sums({OBJECT: body}), drip=(1_000_000, 0.02)) as server:
        threads: set[int] = set()
        # A thread of the server for each connection.
        server.on_request = lambda _, seen: threads.add(threading.get_ident()) if seen.path == OBJECT else None
        assert download(tmp_path, server.url).exit_code == 0
    assert len(threads) == most
    assert (tmp_path / OBJECT).read_bytes() == body


def test_each_range_goes_on_where_it_was(tmp_path: Path) -> None:
    """Every connection breaks once; no byte comes twice."""
    body = noise(70_000_000)
    with serving(with_sums({OBJECT: body})) as server:
        broken: set[str] = set()

        def cut_each_once(server: FaultServer, seen: Seen) -> None:
            asked = seen.headers.get("range", "")
            with server.guard:
                if seen.method == "GET" and seen.path == OBJECT and asked not in broken and len(broken) < 4:
                    broken.add(asked)
                    server.faults.cuts = 1
                    server.faults.cut_after = 5_000_000

        server.on_request = cut_each_once
        options = TransferOptions(retry_policy=QUICK)
        assert download(tmp_path, server.url, options=options).exit_code == 0
        assert len(server.gets(OBJECT)) > 4
        assert server.sent <= len(body) + 100_000
    assert (tmp_path / OBJECT).read_bytes() == body


def test_a_server_without_ranges_sends_a_large_file_whole(tmp_path: Path) -> None:
    body = noise(70_000_000)
    with serving({OBJECT: body}, ignore_range=True) as server:
        assert download(tmp_path, server.url).exit_code == 0
    assert (tmp_path / OBJECT).read_bytes() == body
