"""Errors of the services' own clients (SDKs), in the words of this package."""

from __future__ import annotations

from typing import Final

from cxrprep.errors import CxrprepError, SourceUnreachableError
from cxrprep.sources.network_errors import from_exception
from cxrprep.sources.urls import split_url

# What the SDKs stumble over when an answer has another form than they expect.
_STUMBLES: Final = (ValueError, TypeError, KeyError, AttributeError)
# That, and what comes of connections; what requests raises is an ``OSError``.
FAILURES: Final = (*_STUMBLES, OSError)


def failure(address: str, error: BaseException, timeout: float) -> CxrprepError:
    """The error that says why ``address`` could not be reached, from whatever an SDK made of it.

    Nothing of the SDK's own texts is taken over: they may hold requests with their headers.
    """
    import requests

    if isinstance(error, requests.JSONDecodeError) or (isinstance(error, _STUMBLES) and not isinstance(error, OSError)):
        return not_understood(address)
    return from_exception(split_url(address)[0], _first_of(error), timeout)


def not_understood(address: str) -> SourceUnreachableError:
    """The error for an answer that is not what the service sends, as of a network's own login page."""
    return SourceUnreachableError(
        f"{split_url(address)[0].authority} did not answer as the service does",
        hint="a proxy, or the login page of this network, may have answered in its place; open a page of the service "
        "in a browser, then run again",
    )


def _first_of(error: BaseException) -> BaseException:
    """The system's own error at the bottom of what requests, urllib3 and an SDK wrap around it.

    Of a time-out urllib3's, which says whether a connection had come about.
    """
    from urllib3.exceptions import ConnectTimeoutError

    seen = {id(error)}
    # A refused connection is a time-out to it, too.
    while type(error) is not ConnectTimeoutError:
        held = getattr(error, "error", None)
        wrapped = getattr(error, "reason", None)
        inner = error.__cause__ or error.__context__ or held or wrapped
        if not isinstance(inner, BaseException) or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner
    return error
