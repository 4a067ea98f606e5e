"""Large plans: of more items than are held in memory the same plan is made, saved, cut into shards and carried out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.errors import CxrprepError, StorageError
from cxrprep.model import Digest, RemoteFile, Selection, Shard
from cxrprep.planning import plan_file, plan_items
from cxrprep.planning.build import RecordedFile, make_plan
from cxrprep.planning.plan import CHANGED, Action, Plan
from cxrprep.planning.plan_file import load_plan, save_plan

SPEC = find_dataset("mimic-cxr-jpg")


def listing() -> list[RemoteFile]:
    files = [RemoteFile(f"mimic-cxr-2.0.0-{name}.csv.gz", 100) for name in ("split", "metadata")]
    for number in range(90):
        place = f"files/p1{number % 10}/p1{number % 10}{number:06}/s5{number:07}"
        digest = Digest("sha256", hashlib.sha256(str(number).encode()).hexdigest())
        image = "-".join(digest.value[at : at + 8] for at in range(0, 40, 8))
        files.append(RemoteFile(f"{place}/{image}.jpg", None if number % 7 == 0 else number + 1, digest, f"v{number}"))
    files.append(RemoteFile(files[-1].key, 5))
    random.Random(1).shuffle(files)
    return files


class State:
    """A folder that holds every third file."""

    same_mirror = True
    wrong: frozenset[str] = frozenset()

    def __init__(self, files: list[RemoteFile]) -> None:
        keys = sorted({file.key for file in files})
        self.here = {key: number for number, key in enumerate(keys) if number % 3 == 0}

    def rows(self):  # type: ignore[no-untyped-def]  # a part of LocalState
        return iter(RecordedFile(key, size, None, None, False, None) for key, size in self.here.items() if size % 2)

    def size_of(self, path: str) -> int | None:
        return self.here.get(path)

    def partial(self, path: str) -> int | None:
        return 1 if path.endswith("7.jpg") and path not in self.here else None

    def members(self, archive: str) -> None:
        del archive


def planned(**more: object) -> Plan:
    files = listing()
    return make_plan(
        files, SPEC.layout("2.1.0"), dataset=SPEC.name, release="2.1.0", local_state=State(files), **more  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_items, "_HELD", 8)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("selection", [Selection(), Selection(limit=20), Selection(sample=30, seed=4)])
def test_a_large_plan_is_the_plan_that_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_place: bool, selection: Selection
) -> None:
    small = planned(in_place=in_place, selection=selection)
    monkeypatch.setattr(plan_items, "_HELD", 8)
    monkeypatch.setattr("cxrprep.storage.sorted_tables._RUN_ROWS", 24)
    large = planned(in_place=in_place, selection=selection)
    assert isinstance(small.items, list)
    assert isinstance(large.items, plan_items.PlanItems)
    assert list(large) == list(small)
    assert list(large.paths()) == list(small.paths()) == [item.dest for item in small]
    assert large == small
    assert large.totals() == small.totals()
    assert large.moving() == small.moving()
    assert large.passed_over == small.passed_over > 0
    for passing in (None, lambda path: path.endswith("jpg")):
        assert large.disk_need(passing=passing, passing_at_once=3) == small.disk_need(
            passing=passing, passing_at_once=3
        )
    assert [list(large.shard(Shard(n, 3))) for n in (1, 2, 3)] == [list(small.shard(Shard(n, 3))) for n in (1, 2, 3)]
    assert [item.dest for item in large.with_reason(CHANGED)] == [item.dest for item in small.with_reason(CHANGED)]
    assert (large.items[-1], large.items[2:5]) == (small.items[-1], small.items[2:5])
    for plan, name in ((small, "small"), (large, "large")):
        save_plan(plan, tmp_path / name)
    assert (tmp_path / "small").read_bytes() == (tmp_path / "large").read_bytes()
    assert load_plan(tmp_path / "large") == large


def test_a_folder_that_was_just_listed_is_not_asked_after_each_file_again() -> None:
    files = listing()
    local_state, asked = State(files), list[str]()
    local_state.size_of = lambda path: asked.append(path) or local_state.here.get(path)  # type: ignore[method-assign]
    sized = {file.key for file in files if file.size is not None}
    about = {"dataset": SPEC.name, "release": "2.1.0", "local_state": local_state, "in_place": True}
    known = make_plan(files, SPEC.layout("2.1.0"), just_listed=True, **about)  # type: ignore[arg-type]
    assert not sized.intersection(asked)
    assert {item.action for item in known if item.dest in sized} == {Action.KEEP}
    make_plan(files, SPEC.layout("2.1.0"), **about)  # type: ignore[arg-type]
    assert sized <= set(asked), "the listing of a saved plan is of another day"


@pytest.mark.usefixtures("few_in_memory")
def test_two_files_of_one_place_are_told_in_a_large_plan() -> None:
    spec = find_dataset("nih-chestxray14")
    files = [RemoteFile(f"images/0000000{n}_000.png", n) for n in range(1, 10)]
    twin = RemoteFile(f"images_001/{files[3].key}", 77)
    made = make_plan(
        [*files, twin], spec.layout("v2020"), dataset=spec.name, release="v2020", local_state=State([])
    )  # fmt: skip
    assert [item.file for item in made if item.action is Action.IMPOSSIBLE] == [twin]
    assert [item.dest for item in made if item.action is Action.FETCH] == [file.key for file in files]


@pytest.mark.usefixtures("few_in_memory")
def test_a_disk_that_is_full_of_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    monkeypatch.setattr("cxrprep.storage.sorted_tables._RUN_ROWS", 8)
    with pytest.raises(StorageError, match="No space left"):
        planned()


def test_a_large_plan_is_read_line_by_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_in_memory: None
) -> None:
    monkeypatch.setattr(plan_file, "FILES_IN_MEMORY", 8)
    plan, path = planned(), tmp_path / "plan.json"
    save_plan(plan, path)
    read = load_plan(path)
    assert isinstance(read.items, plan_items.PlanItems)
    assert read == plan
    assert read.first == plan.first
    save_plan(read, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    # In another form it is the same plan, held in memory.
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert isinstance(load_plan(path).items, list)
    assert load_plan(path) == plan


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[-2].replace('"key"', '"kez"', 1),
        lambda lines: lines[3].rstrip(","),
        lambda lines: lines[-2].replace('"size": ', '"size": -', 1),
        lambda lines: lines[-2].replace("files/", "../files/"),
        lambda lines: "}",
    ],
)
def test_a_large_plan_that_is_damaged_is_refused_as_a_small_one(
    change: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_in_memory: None
) -> None:
    path = tmp_path / "plan.json"
    save_plan(planned(), path)
    lines = path.read_text().splitlines()
    lines[-2] = change(lines)
    path.write_text("\n".join(lines) + "\n")
    said = []
    for _ in range(2):
        with pytest.raises(CxrprepError) as caught:
            load_plan(path)
        said.append((type(caught.value), caught.value.message))
        monkeypatch.setattr(plan_file, "FILES_IN_MEMORY", 8)
    assert said[0] == said[1]
