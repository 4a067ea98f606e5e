"""Shards partition a plan, and a saved plan is the same plan."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import ConfigError, UnsafePathError
from cxrprep.model import Digest, LabelTest, RemoteFile, Selection, Shard, Split
from cxrprep.planning.plan import Action, Item, Plan
from cxrprep.planning.plan_file import load_plan, save_plan
from cxrprep.selection.filters import draw

NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\/:"), min_size=1,
            max_size=12).filter(lambda name: name not in (".", "..")),
    min_size=1, max_size=4,
).map("/".join)  # fmt: skip
SIZES = st.none() | st.integers(0, 1 << 50)
DIGESTS = st.none() | st.binary(min_size=16, max_size=16).map(lambda data: Digest("md5", data.hex()))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def items(draw_: st.DrawFn) -> list[Item]:
    found = []
    for dest in draw_(st.lists(NAMES, unique=True, max_size=30)):
        file = RemoteFile(draw_(st.just(dest) | NAMES), draw_(SIZES), draw_(DIGESTS), draw_(st.none() | TEXTS))
        found.append(
            Item(
                file,
                dest,
                draw_(st.sampled_from(Action)),
                draw_(TEXTS),
                draw_(st.integers(0, 1 << 40)),
                draw_(st.booleans()),
                draw_(st.booleans()),
            )
        )
    return found


SELECTIONS = st.builds(
    Selection,
    include=st.lists(TEXTS, max_size=3).map(tuple),
    exclude=st.lists(TEXTS, max_size=3).map(tuple),
    patients=st.frozensets(TEXTS, max_size=3),
    studies=st.frozensets(TEXTS, max_size=3),
    images=st.frozensets(TEXTS, max_size=3),
    splits=st.frozensets(st.sampled_from(Split), max_size=3),
    views=st.frozensets(TEXTS, max_size=3),
    labels=st.lists(st.builds(LabelTest, TEXTS, st.sampled_from([1, 0, -1, None])), max_size=3).map(tuple),
    limit=st.none() | st.integers(0, 1000),
    sample=st.none() | st.integers(0, 1000),
    seed=st.integers(-5, 1 << 40),
)
PLANS = st.builds(
    Plan,
    dataset=TEXTS,
    release=TEXTS,
    mirror=TEXTS,
    items=items(),
    selection=SELECTIONS,
    images=st.none() | st.frozensets(TEXTS, max_size=5),
    passed_over=st.integers(0, 1 << 40),
    foreign=st.integers(0, 1 << 40),
    foreign_names=st.lists(TEXTS, max_size=3).map(tuple),
    in_place=st.booleans(),
)


@settings(max_examples=50, deadline=None)
@given(plan=PLANS)
def test_a_saved_plan_is_the_same_plan(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        save_plan(plan, path)
        again = load_plan(path)
        assert again == plan
        assert again.totals() == plan.totals()


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, count=st.integers(1, 9))
def test_shards_partition_a_plan(plan: Plan, count: int) -> None:
    shards = [plan.shard(Shard(index, count)) for index in range(1, count + 1)]
    assert Counter(item.dest for shard in shards for item in shard) == Counter(item.dest for item in plan)
    for shard in shards:
        order = [item.dest for item in plan if item.dest in {one.dest for one in shard}]
        assert [item.dest for item in shard] == order


@settings(max_examples=100, deadline=None)
@given(
    images=st.sets(TEXTS, max_size=50),
    sample=st.integers(0, 60),
    limit=st.none() | st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_a_draw_depends_on_nothing_but_ids_and_seed(
    images: set[str], sample: int, limit: int | None, seed: int
) -> None:
    selection = Selection(sample=sample, limit=limit, seed=seed)
    drawn = draw(images, selection)
    assert drawn == draw(sorted(images, reverse=True), selection)
    assert drawn <= images
    assert len(drawn) == min(sample, len(images), limit if limit is not None else len(images))
    # A smaller draw is part of a larger one of the same seed.
    whole = draw(images, Selection(sample=sample, seed=seed))
    assert draw(images, Selection(sample=sample // 2, seed=seed)) <= whole


def test_a_draw_from_many_is_the_draw_from_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number * 7919 % 1000:04d}" for number in range(3000)]
    whole = draw(names, Selection(sample=30, seed=3)), draw(names, Selection(limit=30))
    monkeypatch.setattr(sys.modules["cxrprep.selection.filters"], "_ROOM", 0)
    assert (draw(names, Selection(sample=30, seed=3)), draw(iter(names), Selection(limit=30))) == whole
    assert whole[1] == frozenset(sorted(set(names))[:30])


def saved(folder: Path) -> Path:
    path = folder / "plan.json"
    item = Item(RemoteFile("images/1.png", 5), "images/1.png", Action.FETCH, "not here")
    save_plan(Plan("nih-chestxray14", "v2020", "http://127.0.0.1:1/", [item]), path)
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 99'),
        ('"format": 1', '"farmat": 1'),
        ('"fetch"', '"steal"'),
        ('"size": 5', '"size": -5'),
        ('"size": 5', '"size": "5"'),
        ('"items": [', '"items": 3, "rest": ['),
        ("]}\n", ""),
    ],
)
def test_a_damaged_plan_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = saved(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=r"plan\.json") as caught:
        load_plan(path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:evil", "a\\\\b"])
def test_a_plan_cannot_write_outside(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path)
    path.write_text(path.read_text().replace("images/1.png", name))
    with pytest.raises((UnsafePathError, ConfigError)):
        load_plan(path)
