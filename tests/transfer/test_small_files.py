"""Small files come through one thread; what is not as simple goes on in the others, with the same answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cxrprep.errors import ExitCode
from cxrprep.events import ItemFinished
from cxrprep.transfer.downloader import TransferOptions
from cxrprep.transfer.retry import RetryPolicy
from tests.servers.faults import serving
from tests.transfer.runs import download, expected, image, leftovers, noise, release, tree, with_sums

EIGHT = TransferOptions(connections=8, retry_policy=RetryPolicy(attempts=4, first_wait=0.01, longest_wait=0.02))


def test_one_thread_fetches_them_all(tmp_path: Path) -> None:
    files = release(60)
    threads: set[str] = set()

    def on_event(event: object) -> None:
        if isinstance(event, ItemFinished):
            threads.add(threading.current_thread().name)

    with serving(files) as server:
        server.faults.delay = 0.005
        result = download(tmp_path, server.url, options=EIGHT, on_event=on_event)
        asked = {path: len(server.gets(path)) for path in expected(files)}
    assert result.exit_code == ExitCode.DONE
    assert tree(tmp_path) == expected(files)
    assert set(asked.values()) == {1}
    assert len(threads) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fault", [{"chunked": True}, {"compress": True}, {"validators": False}, {"long": True}])
def test_an_answer_that_is_not_simple_is_not_asked_for_again(tmp_path: Path, fault: dict[str, Any]) -> None:
    files = release(30)
    if fault.pop("long", False):
        files = with_sums({image(number): noise(700_000, number) for number in range(1, 25)})
    with serving(files) as server:
        for name, value in fault.items():
            setattr(server.faults, name, value)
        assert download(tmp_path, server.url, options=EIGHT).exit_code == ExitCode.DONE
        asked = {path: len(server.gets(path)) for path in expected(files)}
    assert tree(tmp_path) == expected(files)
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("fault", [{"corrupt": 1}, {"hang_up": 1}, {"statuses": [503]}])
def test_a_fault_costs_one_more_request(tmp_path: Path, fault: dict[str, Any]) -> None:
    files = release(12)

    def spoil(server: Any, seen: Any) -> None:
        if seen.method == "GET" and seen.path == image(1):
            server.on_request = None
            for name, value in fault.items():
                setattr(server.faults, name, value)

    with serving(files) as server:
        server.on_request = spoil
        assert download(tmp_path, server.url, options=EIGHT).exit_code == ExitCode.DONE
        asked = [len(server.gets(path)) for path in expected(files)]
    assert tree(tmp_path) == expected(files)
    assert sorted(asked)[-2:] == [1, 2]


def test_what_was_under_way_is_left_to_the_next_run(tmp_path: Path) -> None:
    files = release(40)
    with serving(files) as server:
        server.on_request = lambda server, seen: server.faults.statuses.extend([401] * 5) if "12" in seen.path else None
        first = download(tmp_path, server.url, options=EIGHT)
        server.on_request = None
        server.faults.statuses.clear()
        assert first.exit_code != ExitCode.DONE
        assert first.done + first.failed + first.left == len(expected(files))
        assert download(tmp_path, server.url, options=EIGHT).done == len(expected(files)) - first.done
    assert tree(tmp_path) == expected(files)
