"""JSON over HTTP to a service that a person named: no netrc, no redirects, the proxies and certificates of all sources.

What is sent may be under an agreement: neither it nor an answer is ever part of a message, and nothing is sent on to
another host than the one that was named.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import AccessError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.sources.endpoints import is_here
from cxrprep.sources.http_response import seconds_to_wait
from cxrprep.sources.retry import LONGEST_WAIT, with_retries
from cxrprep.sources.urls import split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from cxrprep.credentials.secret import Secret

_OVERLOADED: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine: ``localhost``, 127.0.0.0/8 or ::1. Raises ``UsageError`` for no address."""
    return is_here(split_url(url)[0].host)


class JsonService:
    """One service at ``base``; several threads may use it. ``token`` goes there as a bearer's and nowhere else."""

    def __init__(self, base: str, *, token: Secret | None = None, timeout: float = 300.0) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address that is none."""
        self.base = base.rstrip("/")
        self.host = split_url(self.base)[0].authority
        self._token = token
        self._timeout = timeout
        self._local = threading.local()
        self._reached = False

    def get(self, path: str) -> Any:
        """The JSON at ``path`` below the base.

        Raises ``SourceUnreachableError``, ``AccessError``, ``NotInSourceError`` or ``UsageError``.
        """
        return with_retries(lambda: self._asked("GET", path, None))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers ``body``; raises as ``get`` does."""
        return with_retries(lambda: self._asked("POST", path, body))

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            import requests

            from cxrprep.sources.service_session import prepare_session

            # What is for this machine goes through no proxy, which would be another one.
            session = self._local.session = prepare_session(
                requests.Session(), self._timeout, direct=is_loopback(self.base)
            )
        return session

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        import requests

        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal()}"}
        try:
            answer = self._session().request(
                method, f"{self.base}{path}", json=body, headers=headers, allow_redirects=False
            )
        except requests.RequestException as error:
            raise SourceUnreachableError(
                f"{self.host} cannot be reached: {type(error).__name__}",
                hint="start the server, or name another: --endpoint http://127.0.0.1:PORT/v1",
                # Where nothing has answered yet, nothing listens.
                lasting=not self._reached,
            ) from None
        self._reached = True
        self._check(answer)
        try:
            return answer.json()
        except requests.JSONDecodeError:
            raise SourceUnreachableError(
                f"{self.host} answers {path} with something other than JSON",
                hint="--endpoint is the address that ends in /v1",
            ) from None

    def _check(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status < 300:
            return
        if status < 400:
            raise UsageError(
                f"{self.host} sends requests on to another address", hint="name the last one yourself: --endpoint URL"
            )
        if status in (401, 403, 407):
            raise AccessError(
                f"{self.host} refuses the request ({status})", hint="set LABELER_API_KEY to a key that it accepts"
            )
        if status in _OVERLOADED:
            asked = seconds_to_wait(answer.headers.get("Retry-After", ""))
            raise SourceUnreachableError(
                f"{self.host} is overloaded or broken ({status})",
                hint="run it again: what was answered is kept",
                retry_after=None if asked is None else min(asked, LONGEST_WAIT),
            )
        raise NotInSourceError(
            f"{self.host} refuses the request ({status})", hint="look at the address, and at the name of the model"
        )
