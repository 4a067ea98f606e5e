"""RetryPolicy is renewed by bytes that are worth it, and by no fewer."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from cxrprep.errors import SourceUnreachableError
from cxrprep.events import Event, Retrying, ignore
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.transfer.limits import Stop
from cxrprep.transfer.retry import Retrier, RetryPolicy

PATIENCE = RetryPolicy(attempts=3, first_wait=0.001, longest_wait=0.001, jitter=0.0, worth=10_000)


def asked(each: int, size: int) -> int:
    """How often a server was asked that sends ``each`` bytes at a time, until all ``size`` are here or it is enough."""
    done = attempts = 0

    def work() -> None:
        nonlocal done, attempts
        attempts += 1
        done += each
        if done < size:
            raise SourceUnreachableError("the server fell silent", hint="run again")

    Retrier(PATIENCE, Stop(), ignore).run(work, lambda: done, "one file")
    return attempts


def test_bytes_that_are_worth_it_give_new_patience() -> None:
    assert asked(10_000, 100_000) == 10
    assert asked(5_000, 100_000) == 20


def test_a_few_bytes_each_time_are_not_waited_for_without_end() -> None:
    with pytest.raises(SourceUnreachableError, match="fell silent"):
        asked(100, 100_000)


def test_what_is_no_accident_of_the_network_is_tried_a_few_times_only() -> None:
    """A server that speaks no HTTP, and one that has less of a file than the listing says, stay as they are."""
    asked = 0

    def work() -> None:
        nonlocal asked
        asked += 1
        error = SourceUnreachableError("not valid HTTP", hint="run again")
        error.tries = 3
        raise error

    with pytest.raises(SourceUnreachableError):
        Retrier(RetryPolicy(first_wait=0.001), Stop(), ignore).run(work, lambda: 0, "one file")
    assert asked == 3


@pytest.mark.parametrize(("connected", "attempts"), [(False, 1), (True, 3)])
def test_a_host_that_was_never_reached_is_given_up_soon(connected: bool, attempts: int) -> None:
    asked = 0

    def work() -> None:
        nonlocal asked
        asked += 1
        raise NotConnectedError("no connection to somewhere", hint="check the network")

    retrier = Retrier(replace(PATIENCE, unreached=0.0), Stop(), ignore)
    if connected:
        retrier.run(lambda: None, lambda: 0, "an earlier file")
    with pytest.raises(NotConnectedError):
        retrier.run(work, lambda: 0, "one file")
    assert asked == attempts
    assert retrier.is_away


def test_the_last_attempt_at_a_host_that_was_never_reached_is_made_when_patience_ends() -> None:
    waits: list[float] = []

    def work() -> None:
        raise NotConnectedError("no connection to somewhere", hint="check the network")

    def listen(event: Event) -> None:
        assert isinstance(event, Retrying)
        waits.append(event.wait)

    policy = replace(PATIENCE, first_wait=0.2, longest_wait=60.0, attempts=100, unreached=2.0)
    began = time.monotonic()
    with pytest.raises(NotConnectedError):
        Retrier(policy, Stop(), listen).run(work, lambda: 0, "one file")
    assert sum(waits) <= time.monotonic() - began
    # Doubled each time it would be more than patience has.
    assert waits[-1] < 2 * waits[-2]
