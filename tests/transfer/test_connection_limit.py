"""How many connections are used: more while that brings more, fewer after a refusal, never more than is polite."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from cxrprep.errors import SourceUnreachableError
from cxrprep.events import ignore
from cxrprep.transfer.connection_limit import ConnectionLimit, ConnectionTuner
from cxrprep.transfer.limits import Stop
from cxrprep.transfer.retry import Retrier, RetryPolicy


def _settle(
    bears: Callable[[int], float],
    most: int,
    seconds: int = 240,
    refuses_above: int = 10_000,
    noise: Random | None = None,
) -> list[int]:
    """The number in use at each second, for a server that brings ``bears(number)`` bytes a second.

    With ``noise`` it brings a fifth more or less, another number each second.
    """
    now = [0.0]
    limit = ConnectionLimit(ConnectionTuner.start(most), Stop())
    tuner = ConnectionTuner(limit, most, clock=lambda: now[0])
    moved, level = 0.0, 1.0
    used = []
    for step in range(seconds * 5):
        now[0] += 0.2
        if noise is not None and step % 5 == 0:
            level = max(noise.gauss(1, 0.2), 0.1)
        moved += 0.2 * level * bears(min(limit.limit, refuses_above))
        if limit.limit > refuses_above:
            tuner.refused()
        tuner.adjust(int(moved))
        if step % 5 == 0:
            used.append(limit.limit)
    return used


@pytest.mark.parametrize("most", [16, 64])
def test_where_each_connection_is_throttled_the_cap_is_reached(most: int) -> None:
    used = _settle(lambda number: 45_000 * number, most)
    assert used[14] == most
    assert max(used) == most


@pytest.mark.parametrize("bears", [3, 20, 64])
def test_a_number_that_was_named_goes_down_to_what_a_server_bears(bears: int) -> None:
    now = [0.0]
    limit = ConnectionLimit(64, Stop())
    tuner = ConnectionTuner(limit, 64, clock=lambda: now[0])
    used = []
    for step in range(1, 60 * 5):
        now[0] += 0.2
        if limit.limit > bears:
            tuner.refused()
        tuner.refused(overloaded=False)
        tuner.adjust(int(1e6 * step))
        used.append(limit.limit)
    assert used[-1] <= bears
    assert used[-1] > bears / 2
    assert max(used) <= 64


@pytest.mark.parametrize("refuses_above", [64, 20, 8])
def test_a_rate_that_goes_up_and_down_hides_no_gain(refuses_above: int) -> None:
    """Within ten percent of the best number in the last third of 33 seconds: on most days, and on average."""
    found = []
    for day in range(30):
        used = _settle(lambda number: 3e6 * number, 64, 33, refuses_above, Random(day))
        found.append(sum(min(number, refuses_above) for number in used[22:]) / 11 / refuses_above)
    assert sum(found) / len(found) > 0.93
    assert sorted(found)[6] > 0.9


def test_where_the_server_is_the_limit_few_are_enough() -> None:
    used = _settle(lambda number: 12e6 * min(number, 4) / 4, 64)
    assert sorted(used)[len(used) // 2] == 4
    assert max(used) <= 8


def test_where_fewer_bring_more_there_are_fewer_and_never_one() -> None:
    """As where server and client share two cores, and wait for each other."""
    used = _settle(lambda number: 150e6 if number <= 2 else 75e6, 64)
    assert min(used) == 2
    assert sum(number > 2 for number in used[20:]) < 0.2 * len(used)


@pytest.mark.parametrize("bears", [8, 20, 50])
def test_a_limit_of_the_server_is_found_and_kept_to(bears: int) -> None:
    used = _settle(lambda number: 3e6 * number, 64, refuses_above=bears)
    assert used[-1] > 0.9 * bears
    assert sum(number > bears for number in used) < 10


@pytest.mark.parametrize(("retry_after", "wait"), [(3.0, 3.0), (None, 7.0), (0.0, 7.0)])
def test_who_is_turned_away_makes_the_next_one_wait(retry_after: float | None, wait: float) -> None:
    waits = []

    class Waiting(Stop):
        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    def turned_away() -> None:
        raise SourceUnreachableError("503", retry_after=retry_after, overloaded=True)

    retrier = Retrier(RetryPolicy(first_wait=7.0), Waiting(), ignore)
    with pytest.raises(SourceUnreachableError):
        retrier.ask(turned_away)
    assert not waits
    assert retrier.ask(lambda: "answer") == "answer"
    assert wait - 1 < waits[0] <= wait


def test_one_connection_is_one() -> None:
    assert set(_settle(lambda number: 1e6 * number, 1)) == {1}
