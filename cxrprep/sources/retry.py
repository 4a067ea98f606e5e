"""Retry of small requests: listings and logins (file transfers have their own).

Files are retried by ``transfer``, which knows what of them is here already; a listing of 561 pages has nobody else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.errors import SourceUnreachableError
from cxrprep.sources.network_errors import NotConnectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import stamina

T = TypeVar("T")

_ATTEMPTS: Final = 4
_LONG_SECONDS: Final = 5.0


def attempts(**options: Any) -> Iterable[stamina.Attempt]:
    """``stamina.retry_context``, loaded when something has failed: most commands need it never, and it takes long."""
    import logging

    import stamina

    log = logging.getLogger("stamina")
    if not log.handlers:
        # Without a handler the library's own log lines would land on the terminal.
        log.addHandler(logging.NullHandler())
    return stamina.retry_context(**options)


def with_retries(call: Callable[[], T], *, optional: bool = False) -> T:
    """What ``call`` returns; it is called again while the service is unreachable or overloaded, four times in all.

    A wait that the server asked for (Retry-After) is kept; of an ``optional`` question no silence is waited for twice.
    Raises what the last call raised.
    """
    began = time.monotonic()
    try:
        return call()
    except SourceUnreachableError as error:
        # No network at all is said soon: another such wait brings nothing to whoever looks on.
        long = time.monotonic() - began > _LONG_SECONDS
        if error.lasting or (long and (optional or isinstance(error, NotConnectedError))):
            raise
        failure = error
    for attempt in attempts(on=_again, attempts=_ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=20.0):
        with attempt:
            if attempt.num == 1:
                # The attempt that has failed already is the first one.
                raise failure
            return call()
    raise AssertionError("stamina ends with a value or an exception")


def _again(error: Exception) -> bool | float:
    if not isinstance(error, SourceUnreachableError) or error.lasting:
        return False
    return error.retry_after if error.retry_after is not None else True
