"""The short form of the campaigns of ``make soak``: one or two of each kind of fault, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import disks, hostile, kills, secrets, servers

SERVERS = (
    "cut once",
    "503 twice",
    "changed midway",
    "login page under 200",
    "redirect to another host",
    "one wrong byte",
)
HOSTILE = ("tar: upwards", "tar: a link, then a file through it", "tar: bomb by ratio", "listing: terminal colours",
           "listing: look-alike digits", "plan: a path upwards", "record: a path upwards")  # fmt: skip
DISKS = tuple(case for case in disks.CASES if case.quick)


@pytest.mark.long
def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    found = kills.campaign(tmp_path, kills=3, seed=20, images=100, brief=True)
    assert found.problems == []
    assert sum(found.kills.values()) == 3


@pytest.mark.slow
def test_faults_of_servers_end_as_they_must(tmp_path: Path) -> None:
    outcomes = list(servers.play_all(tmp_path, lambda case: case.name in SERVERS))
    assert {outcome.case.name for outcome in outcomes} == set(SERVERS)
    assert [(outcome.case.name, outcome.wrong) for outcome in outcomes if outcome.wrong] == []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[disks.Bench]:
    with disks.bench(tmp_path_factory.mktemp("disks") / "w", images=40) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("case", DISKS, ids=lambda case: case.name)
def test_faults_of_disks_end_as_they_must(case: disks.Case, bench: disks.Bench) -> None:
    outcome = disks.play(case, bench)
    if outcome.skipped:
        pytest.skip(f"needs {outcome.skipped}")
    assert outcome.wrong == []


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_answered(name: str, tmp_path: Path) -> None:
    case = next(case for case in hostile.CASES if case.name == name)
    assert hostile.play(case, tmp_path / "case").wrong == []


@pytest.mark.slow
def test_marked_secrets_texts_and_names_are_nowhere(tmp_path: Path) -> None:
    outcomes = list(secrets.play_all(tmp_path / "w", images=20, brief=True))
    assert [(outcome.name, outcome.wrong) for outcome in outcomes if outcome.wrong] == []
    assert len(outcomes) == 3


def test_a_mark_is_found_where_one_is(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [f"a {secrets.PASSWORD} b"]}), tmp_path / "a.parquet")
    marks = {"password": secrets.spellings(secrets.PASSWORD)}
    found = [mark for data in secrets.contents(tmp_path / "a.parquet") for mark in secrets.marks_in(data, marks)]
    assert set(found) == {"password"}
    header = b"Authorization: Basic cmVhZGVyOm1hcmstcGFzc3dvcmQtN1F4"
    assert list(secrets.marks_in(header, marks)) == ["password"]
