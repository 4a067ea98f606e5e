"""How many workers work at once: judged by what they bring, on a clock of the test's own."""

from __future__ import annotations

import pytest

from cxrprep.transfer.crew import FEW, Crew


class Machine:
    """So many items a second with all workers and with few, at so much of a processor."""

    def __init__(
        self, everybody: float, less: float, usage: float, *, count: int = 16, quickest: float = 0.0005, few: int = FEW
    ) -> None:
        self.now = self.spent = self.done = 0.0
        self.speeds, self.usage, self.quickest = (everybody, less), usage, quickest
        self.few = few
        self.crew = Crew(count, few, clock=lambda: self.now, busy=lambda: self.spent)

    def run(self, seconds: float) -> float:
        """Let time pass; the share of it with all workers."""
        steps, full = round(seconds / 0.2), 0
        for _ in range(steps):
            everybody = self.crew.limit > self.few
            full += everybody
            self.now += 0.2
            self.spent += 0.2 * self.usage
            self.done += 0.2 * self.speeds[0 if everybody else 1]
            self.crew.took(self.quickest)
            self.crew.look(int(self.done))
        return full / steps


@pytest.mark.parametrize(
    ("everybody", "few", "usage", "share"),
    [
        (2_000, 3_000, 1.3, (0.0, 0.2)),  # threads in each other's way: few bring more
        (2_000, 1_000, 1.3, (0.9, 1.0)),  # few bring less: all go on
        (500, 100, 0.3, (1.0, 1.0)),  # the network is waited for: nothing is tried
        (30, 30, 1.9, (1.0, 1.0)),  # large files: nothing is tried
    ],
)
def test_the_number_that_brings_more_stays(
    everybody: float, few: float, usage: float, share: tuple[float, float]
) -> None:
    low, high = share
    assert low <= Machine(everybody, few, usage).run(120) <= high


def test_a_choice_is_looked_at_again() -> None:
    machine = Machine(2_000, 3_000, 1.3)
    machine.run(10)
    assert machine.crew.limit == FEW
    assert machine.crew.park(FEW)
    assert not machine.crew.park(FEW - 1)
    machine.speeds = (3_000, 500)
    machine.run(60)
    assert machine.crew.limit == 16


def test_few_are_not_tried_where_each_answer_is_waited_for() -> None:
    # 30 ms a file: two workers bring 66 a second, whatever they do.
    assert Machine(1_200, 66, 1.3, count=64, quickest=0.03).run(120) == 1.0


def test_one_worker_may_be_enough() -> None:
    machine = Machine(2_000, 3_000, 1.3, few=1)
    machine.run(10)
    assert machine.crew.limit == 1
    assert [machine.crew.works(number) for number in range(3)] == [True, False, False]


def test_a_small_crew_is_left_alone() -> None:
    assert Machine(2_000, 3_000, 1.3, count=FEW).run(20) == 0.0
    assert Machine(2_000, 3_000, 1.3, count=FEW).crew.limit == FEW
