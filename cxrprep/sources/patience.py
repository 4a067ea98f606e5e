"""Asking again: for the small requests of listings and logins, whose answers a whole plan waits for.

Files are retried by ``transfer``, which knows what of them is here already; a listing of 561 pages has nobody else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from cxrprep.errors import SourceUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_ATTEMPTS: Final = 4

# Without a handler the library's own log lines would land on the terminal.
logging.getLogger("stamina").addHandler(logging.NullHandler())


def patiently(call: Callable[[], T]) -> T:
    """What ``call`` returns; it is called again while the service is unreachable or overloaded, four times in all.

    A wait that the server asked for (Retry-After) is kept. Raises what the last call raised.
    """
    # Most listings need no other attempt, and most commands no stamina, which takes long to load.
    try:
        return call()
    except SourceUnreachableError as error:
        failure = error
    import stamina

    for attempt in stamina.retry_context(on=_again, attempts=_ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=20.0):
        with attempt:
            if attempt.num == 1:
                # The attempt that has failed already is the first one.
                raise failure
            return call()
    raise AssertionError("stamina ends with a value or an exception")


def _again(error: Exception) -> bool | float:
    if not isinstance(error, SourceUnreachableError):
        return False
    return error.retry_after if error.retry_after is not None else True
