"""Mutations for every parser, a moment each, and every input that ever broke one."""

import itertools
import time
from pathlib import Path

import pytest

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target, check, emptied, named
from tests.sample import ALL

_SECONDS = 10.0 if ALL else 0.2
_AT_MOST = 400
_FOUND = sorted((Path(__file__).parent / "regressions").glob("*/*"))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutated_input_is_answered_never_a_crash(target: Target, tmp_path: Path) -> None:
    seeds = target.seeds()
    assert check(target, seeds[0], emptied(tmp_path / "scratch")) == "ok", "the seed itself must be read"
    outcomes = set()
    begun = time.monotonic()
    for data in itertools.islice(mutated(seeds, target.words, seed=20260101), _AT_MOST):
        if outcomes and time.monotonic() - begun > _SECONDS:
            break
        try:
            outcomes.add(check(target, data, emptied(tmp_path / "scratch")))
        except Exception as error:  # noqa: BLE001  # whatever comes is a finding
            pytest.fail(f"{target.name}: {type(error).__name__}: {error}\ninput: {data[:400]!r}")
    assert outcomes


@pytest.mark.parametrize("path", _FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_input_that_once_broke_a_parser_is_answered(path: Path, tmp_path: Path) -> None:
    check(named(path.parent.name), path.read_bytes(), emptied(tmp_path / "scratch"))
