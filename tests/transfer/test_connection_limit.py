"""How many connections are used: more while that brings more, fewer after a refusal, never more than is polite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cxrprep.transfer.connection_limit import ConnectionLimit, ConnectionTuner
from cxrprep.transfer.limits import Stop


def _settle(bears: Callable[[int], float], most: int, seconds: int = 240, refuses_above: int = 10_000) -> list[int]:
    """The number in use at each second, for a server that brings ``bears(number)`` bytes a second."""
    now = [0.0]
    limit = ConnectionLimit(ConnectionTuner.start(most), Stop())
    tuner = ConnectionTuner(limit, most, clock=lambda: now[0])
    moved = 0.0
    used = []
    for step in range(seconds * 5):
        now[0] += 0.2
        moved += 0.2 * bears(min(limit.limit, refuses_above))
        if limit.limit > refuses_above:
            tuner.refused()
        tuner.look(int(moved))
        if step % 5 == 0:
            used.append(limit.limit)
    return used


@pytest.mark.parametrize("most", [16, 64])
def test_where_each_connection_is_throttled_the_cap_is_reached(most: int) -> None:
    used = _settle(lambda number: 45_000 * number, most)
    assert used[14] == most
    assert max(used) == most


def test_where_the_server_is_the_limit_few_are_enough() -> None:
    used = _settle(lambda number: 12e6 * min(number, 4) / 4, 64)
    assert sorted(used)[len(used) // 2] == 4
    assert max(used) <= 8


def test_a_limit_of_the_server_is_kept_to() -> None:
    used = _settle(lambda number: 3e6 * number, 64, refuses_above=8)
    assert used[-1] == 8
    assert sum(number > 8 for number in used) < 20


def test_one_connection_is_one() -> None:
    assert set(_settle(lambda number: 1e6 * number, 1)) == {1}
