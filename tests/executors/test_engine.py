"""The engine: the same results wherever work runs, and a worker that dies takes nothing with it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from pebble.pool.process import TaskManager

from cxrprep.errors import SourceUnreachableError, UsageError
from cxrprep.events import Event, Note
from cxrprep.executors import Engine, Lost, processes
from cxrprep.executors.processes import WorkerPool
from tests.executors import jobs
from tests.executors.cluster import cluster, joined
from tests.parts import need
from tests.sample import some

PROJECT = Path(__file__).parents[2]


def test_no_items_need_no_worker(tmp_path: Path) -> None:
    assert list(Engine(jobs=3).run(jobs.die, [])) == []


def test_inline_and_processes_give_the_same() -> None:
    wanted = [n * n for n in range(50)]
    assert sorted(Engine("inline").run(jobs.squares, range(50), batch=7)) == wanted
    assert sorted(Engine(jobs=2).run(jobs.squares, range(50), batch=7)) == wanted


def test_one_job_is_a_process_of_its_own_so_that_a_crash_does_not_end_the_run() -> None:
    pids = {pid for _, pid in Engine(jobs=1).run(jobs.where, range(4), batch=2)}
    assert len(pids) == 1
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_items_over_which_a_worker_crashes_are_named_and_the_others_are_done(workers: int) -> None:
    found = list(Engine(jobs=workers).run(jobs.squares_or_crash, range(60), batch=8))
    lost = [outcome for outcome in found if isinstance(outcome, Lost)]
    assert sorted(outcome.item for outcome in lost) == [7, 40]
    assert all("died" in outcome.cause for outcome in lost)
    assert sorted(n for n in found if not isinstance(n, Lost)) == [n * n for n in range(60) if n not in {7, 40}]


@pytest.mark.slow
def test_a_pool_that_broke_is_ended_once_and_not_the_one_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads the later one ended the pool that the other had begun: its image was waited for without an end.

    About every second time: hence in several rounds.
    """
    found: dict[str, list[int | Lost[tuple[str, int]]]] = {}
    wait = processes.cf.wait

    def late(*args: Any, **options: Any) -> Any:
        done = wait(*args, **options)
        if threading.current_thread().name == "late":
            time.sleep(0.5)
        return done

    def work(pool: WorkerPool, number: int) -> None:
        found[threading.current_thread().name] = [*pool.run(jobs.rest_or_crash, [(str(tmp_path), number)])]

    monkeypatch.setattr(processes.cf, "wait", late)
    for number in range(4):
        with WorkerPool(2) as pool:
            threads = [
                threading.Thread(target=work, args=(pool, number), name=name, daemon=True) for name in ("early", "late")
            ]
            for thread in threads:
                thread.start()
            while not (tmp_path / str(number)).exists():
                time.sleep(0.01)
            assert pool._pool is not None
            pool._pool._pool_manager.handle_broken_pool(BrokenProcessPool("as over a death at the start"))
            for thread in threads:
                thread.join(30)
            assert not any(thread.is_alive() for thread in threads)
        assert found == {"early": [number], "late": [number]}


@pytest.mark.slow
def test_a_worker_that_dies_over_its_second_batch_did_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, where the death was seen before the result was read, the first was taken for the culprit."""
    done = TaskManager.task_done

    def late(self: TaskManager, task: int, result: Any) -> None:
        if threading.current_thread().name.endswith("(message_manager_loop)"):
            time.sleep(0.5)
        done(self, task, result)

    monkeypatch.setattr(TaskManager, "task_done", late)
    with WorkerPool(1) as pool:
        found = [*pool.results(jobs.squares_or_crash, iter([[3], [7], [4]]))]
    assert {one for one in found if isinstance(one, int)} == {9, 16}
    assert [one.item for one in found if not isinstance(one, int)] == [7]


@pytest.mark.slow
def test_a_worker_that_dies_before_anybody_read_what_it_took_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine: the run had no end."""
    start = TaskManager.task_start

    def late(self: TaskManager, task: int, worker: int | None) -> None:
        if self.tasks[task].payload.args[1][0][1] == 7:
            time.sleep(0.5)
        start(self, task, worker)

    def batches() -> Iterator[list[tuple[str, int]]]:
        yield [(str(tmp_path), 1)]
        while not (tmp_path / "1").exists():
            time.sleep(0.01)
        yield [(str(tmp_path), 7)]

    monkeypatch.setattr(TaskManager, "task_start", late)
    found: list[int | Lost[tuple[str, int]]] = []
    with WorkerPool(2) as pool:
        thread = threading.Thread(target=lambda: found.extend(pool.results(jobs.rest_or_crash, batches())), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert [one for one in found if isinstance(one, int)] == [1]
    assert [one.item[1] for one in found if isinstance(one, Lost)] == [7]


def test_items_without_end_are_named_and_the_others_are_done() -> None:
    found = list(Engine(jobs=2).run(jobs.squares_or_hang, range(60), batch=8, seconds=1.5))
    lost = [outcome for outcome in found if isinstance(outcome, Lost)]
    assert sorted(outcome.item for outcome in lost) == [7, 40]
    assert all(outcome.late and "after 1.5 s" in outcome.cause for outcome in lost)
    assert sorted(n for n in found if not isinstance(n, Lost)) == [n * n for n in range(60) if n not in {7, 40}]


@pytest.mark.slow
def test_a_crash_and_an_item_without_end_are_told_apart() -> None:
    found = list(Engine(jobs=2).run(jobs.hang_or_crash, range(12), batch=6, seconds=1.5))
    lost = {outcome.item: outcome.late for outcome in found if isinstance(outcome, Lost)}
    assert lost == {3: True, 5: False}
    assert sorted(n for n in found if not isinstance(n, Lost)) == [n for n in range(12) if n not in {3, 5}]


@pytest.mark.slow
def test_the_limit_is_for_each_item_and_for_announced_items_only() -> None:
    assert list(Engine(jobs=1).run(jobs.long_but_in_many_steps, range(6), batch=6, seconds=1.5)) == [*range(6)]


@pytest.mark.slow
def test_a_clock_that_steps_ends_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.count(0, 86_400)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(days))
    found = list(Engine(jobs=1).run(jobs.long_but_in_many_steps, range(4), batch=2, seconds=60))
    assert found == [*range(4)]


@pytest.mark.slow
def test_without_a_limit_nobody_is_ended() -> None:
    running = Engine(jobs=1).run(jobs.long_but_in_many_steps, range(2), batch=2, seconds=0)
    assert list(running) == [0, 1]


def test_an_exception_of_the_function_ends_the_run() -> None:
    with pytest.raises(ValueError, match=r"cannot do [02468]"):
        list(Engine(jobs=2).run(jobs.fail, range(10), batch=2))


def test_items_are_taken_only_as_workers_become_free() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(10_000):
            taken.append(n)
            yield n

    running = Engine(jobs=2).run(jobs.squares, items(), batch=10)
    next(running)
    assert len(taken) <= 2 * 2 * 10 + 3 * 10
    running.close()


def test_a_script_without_a_main_guard_does_not_run_itself_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun')\nfrom cxrprep.executors import Engine\nfrom tests.executors import jobs\n"
        "print(sorted(Engine(jobs=2).run(jobs.squares, range(5), batch=2)))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=env, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["begun", "[0, 1, 4, 9, 16]"]


def test_workers_end_when_the_program_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cxrprep.executors import Engine\nfrom tests.executors import jobs\n"
        "list(Engine(jobs=2).run(jobs.slowly, [(sys.argv[1], n) for n in range(500)], batch=5))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    program = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env)

    def workers() -> set[int]:
        return {int(path.name.partition("-")[2]) for path in tmp_path.iterdir()}

    while len(workers()) < 2:
        assert program.poll() is None
        time.sleep(0.05)
    program.kill()
    program.wait()
    left = workers()
    deadline = time.monotonic() + 60
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if _lives(pid)}
        time.sleep(0.05)
    assert not left


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_dask_without_or_with_a_wrong_scheduler_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="address of a scheduler"):
        list(Engine("dask").run(jobs.squares, [1]))


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrprep.executors.dask_cluster._CONNECT_SECONDS", 1)
    with pytest.raises(SourceUnreachableError, match="no Dask scheduler answers at tcp"):
        list(Engine("dask", scheduler="tcp://127.0.0.1:9").run(jobs.squares, [1]))


@pytest.mark.slow
def test_a_cluster_gives_the_same(scheduler: str) -> None:
    found = sorted(Engine("dask", scheduler=scheduler).run(jobs.squares, range(300), batch=10))
    assert found == [n * n for n in range(300)]


@pytest.mark.slow
def test_on_a_cluster_too_only_the_item_that_kills_is_lost_and_no_worker_dies_of_it(scheduler: str) -> None:
    import distributed

    with distributed.Client(scheduler, set_as_default=False) as client:
        before = client.run(os.getpid)
        found = list(Engine("dask", scheduler=scheduler).run(jobs.squares_or_crash, range(60), batch=5))
        after = client.run(os.getpid)
        children = client.run(_children)
    assert sorted(outcome.item for outcome in found if isinstance(outcome, Lost)) == [7, 40]
    assert sorted(n for n in found if not isinstance(n, Lost)) == [n * n for n in range(60) if n not in {7, 40}]
    assert before == after
    # The processes beside the workers are gone when the run is over.
    assert all(not names for names in children.values()), children


def _children() -> list[str]:
    """The command lines of this process's children that do our work."""
    found = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "spawn_main" in command:
                found.append(command)
    return found


@pytest.mark.slow
def test_on_a_cluster_too_an_item_without_end_is_named(scheduler: str) -> None:
    engine = Engine("dask", scheduler=scheduler)
    found = list(engine.run(jobs.squares_or_hang, range(60), batch=5, seconds=1.5))
    assert sorted(outcome.item for outcome in found if isinstance(outcome, Lost)) == [7, 40]
    assert sorted(n for n in found if not isinstance(n, Lost)) == [n * n for n in range(60) if n not in {7, 40}]


@pytest.mark.slow
def test_a_cluster_without_workers_is_said_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    need("dask")
    monkeypatch.setattr("cxrprep.executors.dask_cluster.LONELY", 0.1)
    told: list[Event] = []
    with cluster(0) as address:
        running = Engine("dask", scheduler=address).run(jobs.squares, range(4), batch=2, on_event=told.append)
        with ThreadPoolExecutor(1) as alone:
            results = alone.submit(list, running)
            while not told:
                assert not results.done()
                time.sleep(0.05)
            with joined(address):
                assert sorted(results.result()) == [0, 1, 4, 9]
    assert len(told) == 1
    assert isinstance(told[0], Note)
    assert f"the Dask scheduler at {address} has no worker" in told[0].message


@pytest.mark.slow
def test_a_worker_of_the_cluster_killed_midway_loses_nothing(scheduler: str, tmp_path: Path) -> None:
    items = [(str(tmp_path), n) for n in range(16)]
    found: list[int] = []
    for outcome in Engine("dask", scheduler=scheduler).run(jobs.slowly, items, batch=2):
        assert not isinstance(outcome, Lost)
        if not found:
            at_work = {int(path.name.partition("-")[2]) for path in tmp_path.iterdir()}
            os.kill(min(at_work), signal.SIGKILL)
        found.append(outcome)
    assert sorted(found) == list(range(16))


@pytest.mark.slow
def test_workers_that_do_not_see_our_folders_are_named(scheduler: str, tmp_path: Path) -> None:
    engine = Engine("dask", scheduler=scheduler)
    assert engine.needing([str(tmp_path)]).folders == (str(tmp_path),)
    with pytest.raises(UsageError, match="does not see /nowhere"):
        engine.needing([str(tmp_path), "/nowhere"])


# What a worker is that joins late: of another version, or on a machine without our folder.
LATE = {
    "has cxrprep 0.0.9": "import cxrprep._version; cxrprep._version.__version__ = '0.0.9'",
    "does not see": "import os.path; there = os.path.isdir; os.path.isdir = lambda p: p != {folder!r} and there(p)",
}


@pytest.mark.slow
@pytest.mark.parametrize("why", some(LATE, one_in=2))
def test_a_worker_that_joins_late_gets_no_work_it_cannot_do(why: str, tmp_path: Path) -> None:
    need("dask")
    at_work, its = tmp_path / "at-work", tmp_path / "its"
    at_work.mkdir()
    its.mkdir()
    (its / "sitecustomize.py").write_text(LATE[why].format(folder=str(at_work)))
    told: list[Event] = []
    with cluster(1) as address:
        engine = Engine("dask", scheduler=address).needing([str(at_work)])
        items = ((str(at_work), n) for n in endless(told))
        running = engine.run(jobs.slowly, items, batch=1, on_event=told.append)
        found = [next(running)]
        with joined(address, its):
            found += running
    assert sorted(found) == list(range(len(found)))
    (note,) = told
    assert isinstance(note, Note)
    assert why in note.message
    assert "it gets no work" in note.message


def endless(told: list[Event]) -> Iterator[int]:
    """Numbers until the late worker was refused, and some more for those that stay."""
    for number in itertools.count():
        yield number
        if told:
            break
    yield from range(number + 1, number + 9)


@pytest.mark.slow
def test_workers_of_another_version_alone_are_an_error(tmp_path: Path) -> None:
    need("dask")
    (tmp_path / "sitecustomize.py").write_text(LATE["has cxrprep 0.0.9"])
    with cluster(1, tmp_path) as address, pytest.raises(UsageError, match=r"no worker is left: .* has cxrprep 0\.0\.9"):
        list(Engine("dask", scheduler=address).run(jobs.squares, range(4)))
