"""Bearer token of a web server (RFC 6750): it goes to the one host that it is for, and never in the open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrprep.credentials.lookup import Credentials, token_variable
from cxrprep.errors import LoginError, LoginRejectedError
from cxrprep.sources.endpoints import is_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cxrprep.credentials.files import Login
    from cxrprep.sources.http_response import HttpResponse
    from cxrprep.sources.urls import Endpoint


class HostToken:
    """The token for ``endpoint``, where the user has one for its host."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        """Raises ``AccessError`` for a token that cannot be read, or cannot be one."""
        self._endpoint = endpoint
        self._credentials = credentials
        self._found = credentials.bearer(endpoint.host) if credentials is not None else None
        self._may_go = endpoint.scheme == "https" or is_here(endpoint.host)

    def headers(self) -> Mapping[str, str]:
        """What to send to the endpoint, and to nobody whom it redirects to."""
        if self._found is None or not self._may_go:
            return {}
        return {"Authorization": f"Bearer {self._found.secret.reveal()}"}

    def login(self, host: str) -> Login | None:
        """The user name and password for ``host``: none for the one that gets a token."""
        if self._credentials is None or (self._found is not None and host == self._endpoint.host):
            return None
        return self._credentials.host(host)

    def refusal(self, answer: HttpResponse, key: str) -> LoginError | None:
        """The error for an answer that is about the token; ``None`` for all others."""
        if answer.status != 401:
            return None
        host = self._endpoint.host
        if answer.elsewhere or self._found is None:
            if "bearer" not in answer.headers.get("www-authenticate", "").lower():
                return None
            # A redirect took no token along.
            way = f", to which {host} redirects," if answer.elsewhere else ""
            name = f"if {answer.host} has the files, name its address in the command, and " if way else ""
            return LoginError(
                f"{key}: {answer.url}{way} wants a token (401)",
                hint=f"{name}set {token_variable(answer.host)} to it, or to the name of a file that holds it",
            )
        if not self._may_go:
            return LoginError(
                f"{key}: {answer.url} wants a login (401); the token of {self._found.origin} is not sent without TLS",
                hint="write the address with https://",
            )
        return LoginRejectedError(
            f"{key}: {host} rejects the token found in {self._found.origin} (401)",
            hint="it may have ended: get a new one, and put it there",
        )
