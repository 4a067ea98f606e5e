"""Workers that ask for the next file while they put the last one in place: whatever happens to either of the two."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cxrprep.datasets.nih_chestxray14 import NihLayout
from cxrprep.errors import ExitCode
from cxrprep.events import Event, ItemFinished
from cxrprep.model import RemoteFile
from cxrprep.planning import Action, Item
from cxrprep.record import Record
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.transfer.desk import Desk
from cxrprep.transfer.downloader import Transfer, TransferOptions
from tests.servers.faults import Faults, FaultServer, Seen, serving
from tests.transfer.runs import QUICK, download, expected, image, leftovers, plan_for, release, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 40


def options(connections: int) -> TransferOptions:
    return TransferOptions(patience=QUICK, connections=connections)


@pytest.mark.parametrize("connections", [1, 3])
def test_each_file_is_requested_once(tmp_path: Path, connections: int) -> None:
    files = release(COUNT)
    with serving(files) as server:
        result = download(tmp_path, server.url, options=options(connections))
        asked = [len(server.gets(name)) for name in expected(files)]
    assert (result.done, result.failed, result.left) == (COUNT + 1, 0, 0)
    assert set(asked) == {1}
    assert tree(tmp_path) == expected(files)


def _hang_up(faults: Faults) -> None:
    faults.hang_up = 1


def _busy(faults: Faults) -> None:
    faults.statuses, faults.retry_after = [503], "0"


def _cut(faults: Faults) -> None:
    faults.cut_after, faults.cuts = 700, 1


def _corrupt(faults: Faults) -> None:
    faults.corrupt = 1


def _short(faults: Faults) -> None:
    faults.short, faults.shorts = 300, 1


def _broken(faults: Faults) -> None:
    faults.statuses = [500]


@pytest.mark.parametrize(
    ("fault", "connections"),
    # A file may be wrong once; with several at once the same one could be hit twice.
    [
        (_corrupt, 1),
        (_short, 1),
        *((fault, connections) for fault in (_hang_up, _busy, _cut, _broken) for connections in (1, 3)),
    ],
)
def test_a_fault_costs_its_own_file_a_second_request(
    tmp_path: Path, fault: Callable[[Faults], None], connections: int
) -> None:
    files, seen = release(COUNT), 0

    def on_request(server: FaultServer, request: Seen) -> None:
        nonlocal seen
        seen += request.path.startswith("images/")
        if seen % 7 == 3 and request.path.startswith("images/"):
            fault(server.faults)

    with serving(files) as server:
        server.on_request = on_request
        result = download(tmp_path, server.url, options=options(connections))
    assert (result.done, result.failed, result.left) == (COUNT + 1, 0, 0)
    assert tree(tmp_path) == expected(files)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("connections", [1, 3])
def test_a_file_that_is_wrong_twice_stops_no_other(tmp_path: Path, connections: int) -> None:
    files = release(COUNT)
    wrong, gone = image(10), image(20)
    with serving({**files, wrong: b"something else"}) as server:
        server.on_request = lambda server, _: server.files.pop(gone, None)
        result = download(tmp_path, server.url, options=options(connections))
    assert (result.done, result.left) == (COUNT - 1, 0)
    assert sorted((one.item.dest, one.error.exit_code) for one in result.failures if one.error) == [
        (wrong, ExitCode.INTEGRITY),
        (gone, ExitCode.PARTIAL),
    ]
    assert tree(tmp_path) == {name: data for name, data in expected(files).items() if name not in (wrong, gone)}


@pytest.mark.parametrize("connections", [1, 4])
def test_what_was_asked_for_when_the_run_stopped_is_left_for_the_next(tmp_path: Path, connections: int) -> None:
    files = release(COUNT)
    finished = 0

    def on_event(event: Event) -> None:
        nonlocal finished
        finished += isinstance(event, ItemFinished)
        if finished == 10:
            transfer.stop()

    with serving(files) as server:
        source = open_source(server.url, SourceOptions(timeout=5))
        with (
            Record.open(tmp_path) as record,
            Transfer(record, NihLayout(), "v2020", options=options(connections), on_event=on_event) as transfer,
        ):
            result = transfer.run(plan_for(tmp_path, server.url, transfer), source)
        source.close()
        assert result.done + result.left == COUNT + 1
        assert 10 <= result.done <= 10 + connections
        assert download(tmp_path, server.url).done == result.left
    assert tree(tmp_path) == expected(files)


class _Asking:
    """A source as far as a desk looks at it."""

    def __init__(self, *, idle: bool = True) -> None:
        self.idle = idle
        self.said: list[str] = []

    def ask(self, file: RemoteFile) -> bool:
        self.said.append(f"ask {file.key}")
        return self.idle

    def withdraw(self, file: RemoteFile) -> None:
        self.said.append(f"withdraw {file.key}")


def item(name: str) -> Item:
    return Item(RemoteFile(name), name, Action.FETCH)


def free(slots: threading.Semaphore) -> int:
    count = 0
    while slots.acquire(blocking=False):
        count += 1
    for _ in range(count):
        slots.release()
    return count


def test_the_slot_goes_over_to_the_next_file() -> None:
    slots, source, waiting = threading.Semaphore(2), _Asking(), [item("b")]
    desk = Desk(slots, source, lambda: waiting.pop() if waiting else None)
    with desk.slot(item("a")) as slot:
        desk.go_on(slot)
    assert free(slots) == 1
    following = desk.take()
    assert following is not None
    assert desk.take() is None
    with desk.slot(following) as slot:
        assert free(slots) == 1
        desk.go_on(slot)
        assert free(slots) == 2
    assert (source.said, free(slots)) == (["ask b"], 2)


def test_what_is_withdrawn_frees_its_slot_and_stays_the_next() -> None:
    slots, source, following = threading.Semaphore(1), _Asking(), item("b")
    desk = Desk(slots, source, lambda: following)
    with desk.slot(item("a")) as slot:
        desk.go_on(slot)
    desk.withdraw(following)
    assert free(slots) == 0
    desk.withdraw(item("a"))
    desk.withdraw()
    assert (source.said, free(slots)) == (["ask b", "withdraw b"], 1)
    assert desk.take() is following


def test_without_a_free_connection_the_item_is_next_all_the_same() -> None:
    slots, following = threading.Semaphore(1), item("b")
    desk = Desk(slots, _Asking(idle=False), lambda: following)
    with desk.slot(item("a")) as slot:
        desk.go_on(slot)
        assert free(slots) == 1
    assert desk.take() is following


def test_a_source_that_cannot_be_asked_ahead() -> None:
    slots = threading.Semaphore(1)
    desk = Desk(slots, None, lambda: item("b"))
    with desk.slot(item("a")) as slot:
        desk.go_on(slot)
    assert desk.take() is None
    assert free(slots) == 1
