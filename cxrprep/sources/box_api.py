"""A shared folder through the Box API: its items with SHA-1, and the address of a file's content.

``box_sdk_gen`` (the module of the package ``boxsdk``) lists; a developer token holds for 60 minutes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cxrprep.errors import AccessError, CxrprepError, NotInSourceError, SourceUnreachableError
from cxrprep.model import Digest
from cxrprep.sources import sdk_errors
from cxrprep.sources.base import pages
from cxrprep.sources.http_response import seconds_to_wait
from cxrprep.sources.retry import with_retries

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator

    from cxrprep.credentials.files import Token

_PAGE: Final = 1000
_FIELDS: Final = ["name", "size", "sha1", "type", "content_modified_at"]


@dataclass(frozen=True, slots=True)
class BoxEntry:
    """An item of a folder."""

    name: str
    number: str
    folder: bool
    size: int | None = None
    digest: Digest | None = None
    modified: dt.datetime | None = None


class BoxApi:
    """The folder behind a shared ``link``, for whoever holds ``token``."""

    def __init__(self, token: Token, link: str, endpoint: str, timeout: float) -> None:
        """Nothing is imported or connected yet.

        Args:
            token: the access token.
            link: the address of the shared folder.
            endpoint: the address of the service.
            timeout: seconds to wait for a response.
        """
        self._token, self._shared = token, f"shared_link={link}"
        self._endpoint, self._timeout = endpoint, timeout
        self._lock = threading.Lock()
        self._sdk: Any = None
        self._session: Any = None

    def entries(self, number: str) -> Iterator[BoxEntry]:
        """What is in the folder of this number, ``""`` for the one behind the link."""
        if not number:
            found = self._patient(lambda sdk: sdk.shared_links_folders.find_folder_for_shared_link(self._shared))
            number = str(found.id)

        def ask(marker: str) -> tuple[Any, str]:
            page = self._patient(partial(self._page, number, marker or None))
            return page, page.next_marker or ""

        for page in pages(ask, "the Box API", ""):
            for item in page.entries or ():
                if item.type == "folder":
                    yield BoxEntry(item.name, str(item.id), folder=True)
                elif item.type == "file":
                    digest = Digest("sha1", item.sha_1) if item.sha_1 else None
                    modified = getattr(item, "content_modified_at", None)
                    yield BoxEntry(item.name, str(item.id), False, item.size, digest, modified)

    def account(self) -> str:
        """Whose token it is."""
        return str(self._call(lambda sdk: sdk.users.get_user_me(fields=["login"])).login or "")

    def content(self, number: str) -> tuple[str, dict[str, str]]:
        """The address of a file's content, and the headers that are for that host alone."""
        private = {"Authorization": f"Bearer {self._token.secret.reveal()}", "BoxApi": self._shared}
        return f"{self._endpoint}/2.0/files/{number}/content", private

    def refused(self, status: int, what: str) -> AccessError:
        """The error for 401 and 403."""
        if status == 401:
            return AccessError(
                f"{what}: Box rejects the token found in {self._token.origin} (401)",
                hint="a developer token holds for 60 minutes: make a new one at "
                "https://app.box.com/developers/console, or take it away, since NIH's links need none",
            )
        return AccessError(
            f"{what}: Box refuses access to the owner of the token (403)",
            hint="open the shared folder in a browser with that account; or take the token away, since NIH's links "
            "need none",
        )

    def close(self) -> None:
        """Drop the SDK's connections."""
        with self._lock:
            session, self._session, self._sdk = self._session, None, None
        if session is not None:
            session.close()

    # ---- the SDK ----

    def _page(self, number: str, marker: str | None, sdk: Any) -> Any:
        return sdk.folders.get_folder_items(
            number, fields=_FIELDS, usemarker=True, marker=marker, limit=_PAGE, boxapi=self._shared
        )

    def _patient(self, ask: Callable[[Any], Any]) -> Any:
        return with_retries(lambda: self._call(ask))

    def _call(self, ask: Callable[[Any], Any]) -> Any:
        """What the SDK returns, its exceptions as ours. They hold requests with the token: none is chained."""
        from box_sdk_gen import BoxAPIError, BoxSDKError

        client = self._connected()
        try:
            return ask(client)
        except BoxAPIError as error:
            failed = self._failed(error.response_info.status_code, error.response_info.headers or {})
        except (*sdk_errors.FAILURES, BoxSDKError) as error:
            failed = sdk_errors.failure(self._endpoint, error, self._timeout)
        raise failed

    def _failed(self, status: int, headers: Any) -> CxrprepError:
        if status in (401, 403):
            return self.refused(status, "the shared folder")
        if status == 404:
            return NotInSourceError("the shared folder does not exist on Box (404)", hint="check the address")
        asked = seconds_to_wait(str(headers.get("Retry-After") or headers.get("retry-after") or ""))
        return SourceUnreachableError(f"the Box API answered {status}", hint="run again later", retry_after=asked)

    def _connected(self) -> Any:
        with self._lock:
            if self._sdk is None:
                import requests
                from box_sdk_gen import BaseUrls, BoxClient, BoxDeveloperTokenAuth, NetworkSession
                from box_sdk_gen.networking import BoxNetworkClient, BoxRetryStrategy
                from box_sdk_gen.networking.timeout_config import TimeoutConfig

                from cxrprep.sources.service_session import prepare_session

                self._session = prepare_session(requests.Session(), self._timeout)
                milliseconds = int(self._timeout * 1000)
                network = NetworkSession(
                    network_client=BoxNetworkClient(self._session),
                    # One place asks again, with the patience of all sources.
                    retry_strategy=BoxRetryStrategy(max_attempts=1, max_retries_on_exception=0),
                    base_urls=BaseUrls(base_url=self._endpoint),
                    timeout_config=TimeoutConfig(connection_timeout_ms=milliseconds, read_timeout_ms=milliseconds),
                )
                self._sdk = BoxClient(BoxDeveloperTokenAuth(self._token.secret.reveal()), network_session=network)
            return self._sdk
