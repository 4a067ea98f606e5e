"""Google authentication: anonymous, a person, or a service account; emulators for tests."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError, SourceUnreachableError

if TYPE_CHECKING:
    from cxrprep.credentials.lookup import Credentials

_ENDPOINT: Final = "https://storage.googleapis.com"
_SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_only",)
# What the firmware of Google's machines says; elsewhere the question who the machine is would wait for a time-out.
_FIRMWARE: Final = Path("/sys/class/dmi/id/product_name")


class GoogleAccess:
    """Google's credentials, looked for once, renewed when they run out. Safe to use from many threads."""

    def __init__(self, credentials: Credentials | None) -> None:
        """Nothing is imported or looked up yet."""
        self._credentials = credentials
        self._lock = threading.RLock()
        self._found: Any = None
        self._project = ""
        self._looked = False
        self._session: Any = None
        self.endpoint = (os.environ.get("STORAGE_EMULATOR_HOST") or _ENDPOINT).rstrip("/")

    @property
    def is_anonymous(self) -> bool:
        """Whether there are no credentials. Raises ``AccessError`` for some that cannot be read."""
        return self._find() is None

    def account(self) -> str:
        """The account's e-mail address, where the credentials state it; else ``""``."""
        have = self._find()
        return str(getattr(have, "service_account_email", None) or getattr(have, "account", None) or "")

    def project(self) -> str:
        """A project of the user's that the environment or the credentials name. It is suggested, never billed."""
        named = self._credentials.google_project() if self._credentials is not None else None
        return named or self._project

    def client(self) -> Any:
        """The library's client with these credentials."""
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import storage

        from cxrprep.sources.service_session import prepare_session

        have = self._find() or AnonymousCredentials()  # type: ignore[no-untyped-call]  # the library's
        with self._lock:
            session = prepare_session(AuthorizedSession(have, auth_request=self._requester()))  # type: ignore[no-untyped-call]
        # A project is needed for making buckets only.
        client: Any = storage.Client(project=self._project or "none", credentials=have, _http=session)
        # For traces that nobody takes it would describe the bucket in a thread of its own, and let nobody pay for that.
        client._bucket_metadata_cache = None  # noqa: SLF001  # there is no other switch but a variable of the process
        return client

    def authorization(self) -> str:
        """The header's value for a request, ``""`` for nobody. Raises ``AccessError`` when it cannot be renewed."""
        have = self._find()
        if have is None:
            return ""
        with self._lock:
            if not have.valid:
                self._refresh(have)
            return f"Bearer {have.token}"

    def renew(self, refused: str) -> bool:
        """Get another token than the one that was refused; whether there is one now."""
        have = self._find()
        if have is None:
            return False
        with self._lock:
            if f"Bearer {have.token}" == refused:
                self._refresh(have)
            return f"Bearer {have.token}" != refused

    def not_renewed(self) -> AccessError:
        """The error for credentials that Google no longer renews."""
        return AccessError("Google does not renew the login found here", hint=f"sign in again; {ADVICE['google']}")

    def close(self) -> None:
        """Drop the connection that tokens come through."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    # ---- inside ----

    def _find(self) -> Any:
        with self._lock:
            if not self._looked:
                if self._is_there():
                    self._found = self._default()
                self._looked = True
            return self._found

    def _is_there(self) -> bool:
        """Whether the library would find credentials, without the seconds that it takes to find none."""
        if self._credentials is None:
            return False
        if self._has_file() or os.environ.get("GCE_METADATA_HOST"):
            return True
        try:
            return "Google" in _FIRMWARE.read_text(encoding="ascii", errors="replace")
        except OSError:
            return False

    def _has_file(self) -> bool:
        return self._credentials is not None and self._credentials.google() is not None

    def _default(self) -> Any:
        import google.auth
        import google.auth.exceptions

        try:
            with warnings.catch_warnings():
                # Of a person's login it warns that no project pays for requests; that is said here where it matters.
                warnings.simplefilter("ignore", UserWarning)
                # A machine of Google's is asked for its account without proxies, as the library does by itself.
                request = self._requester() if self._has_file() else None
                found, project = google.auth.default(scopes=_SCOPES, request=request)
        except google.auth.exceptions.GoogleAuthError:
            where = self._credentials.google() if self._credentials is not None else None
            if where is None:
                # A machine of Google's without an account of its own.
                return None
            raise AccessError(
                f"the Google credentials of {where.origin} cannot be used", hint=f"make them again; {ADVICE['google']}"
            ) from None
        self._project = project or ""
        return found

    def _requester(self) -> Any:
        """What the library renews tokens with. Hold the lock."""
        import requests
        from google.auth.transport.requests import Request

        from cxrprep.sources.service_session import prepare_session

        if self._session is None:
            self._session = prepare_session(requests.Session())
        return Request(self._session)

    def _refresh(self, have: Any) -> None:
        import google.auth.exceptions

        try:
            have.refresh(self._requester())
        except google.auth.exceptions.TransportError:
            raise SourceUnreachableError(
                "Google's server for logins cannot be reached", hint="check the network; run again"
            ) from None
        except google.auth.exceptions.GoogleAuthError:
            raise self.not_renewed() from None
