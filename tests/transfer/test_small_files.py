"""Small files come through one thread; what is more than a file of known digest is asked for again by the others."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cxrprep.errors import ExitCode
from cxrprep.events import ItemFinished
from cxrprep.transfer.options import TransferOptions
from cxrprep.transfer.retry import RetryPolicy
from tests.servers import raw_http
from tests.servers.faults import serving
from tests.servers.raw_http import answer
from tests.transfer.runs import download, expected, image, leftovers, noise, release, tree, with_sums

EIGHT = TransferOptions(connections=8, retry_policy=RetryPolicy(attempts=4, first_wait=0.01, longest_wait=0.02))


def test_one_thread_fetches_all_but_the_first(tmp_path: Path) -> None:
    files = release(60)
    threads: Counter[str] = Counter()

    def on_event(event: object) -> None:
        if isinstance(event, ItemFinished):
            threads[threading.current_thread().name] += 1

    with serving(files) as server:
        server.faults.delay = 0.005
        result = download(tmp_path, server.url, options=EIGHT, on_event=on_event)
        asked = {path: len(server.gets(path)) for path in expected(files)}
    assert result.exit_code == ExitCode.DONE
    assert tree(tmp_path) == expected(files)
    assert set(asked.values()) == {1}
    assert sorted(threads.values()) == [1, len(expected(files)) - 1]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fault", [{"chunked": True}, {"compress": True}, {"validators": False}, {"long": True}])
def test_few_answers_that_are_not_simple_are_asked_for_again(tmp_path: Path, fault: dict[str, Any]) -> None:
    files = release(60)
    if fault.pop("long", False):
        files = with_sums({image(number): noise(700_000, number) for number in range(1, 25)})
    with serving(files) as server:
        for name, value in fault.items():
            setattr(server.faults, name, value)
        assert download(tmp_path, server.url, options=EIGHT).exit_code == ExitCode.DONE
        asked = {path: len(server.gets(path)) for path in expected(files)}
    assert tree(tmp_path) == expected(files)
    # Eight are enough to see that this is no way; as many as there are connections come at once, others are under way.
    assert sum(asked.values()) <= len(asked) + 3 * 8


def test_a_length_that_libcurl_does_not_heed_costs_no_time_out(tmp_path: Path) -> None:
    files = release(30)

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        found = answer(files[path[1:]]) if path[1:] in files else answer(b"", status="404 Not Found")
        connection.send(found.replace(b"Length:", b"Length :", 1))

    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url, options=EIGHT)
        images = [path for method, path, _ in server.seen if method == "GET" and path.endswith(".png")]
    assert len(images) == 30
    assert result.exit_code == ExitCode.DONE
    assert tree(tmp_path) == expected(files)


@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_answers_that_nobody_asked_for_are_no_file(tmp_path: Path, gap: float) -> None:
    files = release(12)

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        found = answer(files[path[1:]]) if path[1:] in files else answer(b"", status="404 Not Found")
        connection.send(found)
        if path[1:] == image(5):
            connection.send(found, after=gap)

    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url, options=dataclasses.replace(EIGHT, connections=1))
    assert result.exit_code == ExitCode.DONE
    assert tree(tmp_path) == expected(files)


@pytest.mark.parametrize("fault", [{"corrupt": 1}, {"hang_up": 1}, {"statuses": [503]}])
def test_a_fault_costs_one_more_request(tmp_path: Path, fault: dict[str, Any]) -> None:
    # So many that some are asked for after the first image, however busy the machine is.
    files = release(30)

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


def test_who_is_told_to_wait_goes_on_the_same_way(tmp_path: Path) -> None:
    files = release(60)
    threads: Counter[str] = Counter()

    def on_event(event: object) -> None:
        if isinstance(event, ItemFinished):
            threads[threading.current_thread().name] += 1
            if sum(threads.values()) in (5, 15, 25, 35):
                server.faults.statuses += [503, 429, 503]

    # Twelve refusals in all: whoever meets every one of them still has a try left.
    patient = dataclasses.replace(EIGHT, retry_policy=dataclasses.replace(EIGHT.retry_policy, attempts=13))
    with serving(files) as server:
        assert download(tmp_path, server.url, options=patient, on_event=on_event).exit_code == ExitCode.DONE
    assert tree(tmp_path) == expected(files)
    assert max(threads.values()) > len(expected(files)) - 20


def test_what_was_under_way_is_left_to_the_next_run(tmp_path: Path) -> None:
    files = release(40)
    with serving(files) as server:
        refused = {image(number) for number in range(20, 40)}
        server.on_request = lambda server, seen: server.faults.statuses.append(401) if seen.path in refused else None
        first = download(tmp_path, server.url, options=EIGHT)
        server.on_request = None
        server.faults.statuses.clear()
        assert first.exit_code != ExitCode.DONE
        assert first.done + first.failed + first.left == len(expected(files))
        assert download(tmp_path, server.url, options=EIGHT).done == len(expected(files)) - first.done
    assert tree(tmp_path) == expected(files)
