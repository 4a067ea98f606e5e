"""Retry of small requests: listings and logins (file transfers have their own).

Files are retried by ``transfer``, which knows what of them is here already; a listing of 561 pages has nobody else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.errors import SourceUnreachableError
from cxrprep.extras import keep_log_off_terminal
from cxrprep.sources.network_errors import NotConnectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import stamina

    from cxrprep.sources.urls import Endpoint

T = TypeVar("T")

_ATTEMPTS: Final = 4
_LONG_SECONDS: Final = 5.0
# So long a wait that a server asks for is kept, without a word; a longer one is said, and ends the request.
LONGEST_WAIT: Final = 120.0
# Where no connection came about in all attempts of a request, and when: the next one within this time has one attempt.
_AWAY_SECONDS: Final = 30.0
_away: dict[Endpoint | None, float] = {}


def attempts(**options: Any) -> Iterable[stamina.Attempt]:
    """``stamina.retry_context``, loaded when something has failed: most commands need it never, and it takes long."""
    import stamina

    keep_log_off_terminal("stamina")
    return stamina.retry_context(**options)


def with_retries(call: Callable[[], T], *, optional: bool = False) -> T:
    """What ``call`` returns; it is called again while the service is unreachable or overloaded, four times in all.

    A wait that the server asked for (Retry-After) is kept, up to two minutes; of an ``optional`` question no silence is
    waited for twice. Raises what the last call raised.
    """
    began = time.monotonic()
    try:
        return call()
    except SourceUnreachableError as error:
        # No network at all is said soon: another such wait brings nothing to whoever looks on.
        long = time.monotonic() - began > _LONG_SECONDS
        if (long and (optional or isinstance(error, NotConnectedError))) or _is_away(error):
            raise
        failure = error
    try:
        return _again(call, failure)
    except NotConnectedError as error:
        _away[error.endpoint] = time.monotonic()
        raise


def _is_away(error: SourceUnreachableError) -> bool:
    away = _away.get(error.endpoint) if isinstance(error, NotConnectedError) else None
    return away is not None and time.monotonic() - away < _AWAY_SECONDS


def _again(call: Callable[[], T], failure: SourceUnreachableError) -> T:
    for attempt in attempts(on=_judge, attempts=_ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=20.0):
        with attempt:
            if attempt.num == 1:
                # The attempt that has failed already is the first one.
                raise failure
            return call()
    raise AssertionError("stamina ends with a value or an exception")


def _judge(error: Exception) -> bool | float:
    if not isinstance(error, SourceUnreachableError) or error.lasting:
        return False
    asked = error.retry_after
    return True if asked is None else asked <= LONGEST_WAIT and asked
