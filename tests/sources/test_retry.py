"""Retry of small requests: a host that just now was not there is not waited for again by the next request."""

from __future__ import annotations

import pytest

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources import retry
from cxrprep.sources.http_response import HttpResponse, refusal
from cxrprep.sources.network_errors import NotConnectedError, no_connection
from cxrprep.sources.urls import Endpoint


def _attempts(host: str, error: type[SourceUnreachableError]) -> int:
    made = 0

    def call() -> None:
        nonlocal made
        made += 1
        if error is NotConnectedError:
            raise no_connection(Endpoint("https", host, 443), None, "nobody answers")
        raise error("the server fell silent", hint="run again")

    with pytest.raises(error):
        retry.with_retries(call)
    return made


def test_a_host_that_was_not_there_a_moment_ago_has_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_away", {})
    assert _attempts("one.example", NotConnectedError) == 3
    assert _attempts("one.example", NotConnectedError) == 1
    assert _attempts("two.example", NotConnectedError) == 3
    assert _attempts("one.example", SourceUnreachableError) == 3
    monkeypatch.setattr(retry, "_AWAY_SECONDS", 0.0)
    assert _attempts("one.example", NotConnectedError) == 3


@pytest.mark.parametrize(("asked", "made"), [(30.0, 3), (1_200.0, 1)])
def test_a_listing_that_is_to_wait_for_long_says_so_at_once(asked: float, made: int) -> None:
    """Nobody sees that it waits: an hour, three times, looked like a program that hangs."""
    response = HttpResponse(503, {"retry-after": f"{asked:.0f}"}, "https://mirror.example/m/")
    calls = []

    def call() -> None:
        calls.append(asked)
        raise refusal(response, "the listing")

    with pytest.raises(SourceUnreachableError, match="answered 503") as caught:
        retry.with_retries(call)
    assert len(calls) == made
    assert f"wait {asked:,.0f} s" in caught.value.hint
