"""Retry of small requests: a host that just now was not there is not waited for again by the next request."""

from __future__ import annotations

import pytest

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources import retry
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
