"""Kaggle's API through ``kagglesdk``: pages of files, the newest version, and the signed address of a file.

The SDK has no time-out and follows redirects itself, so that each file would be opened twice; both are mended in its
session. Its own search for credentials is not used: there is one place for that, ``cxrprep.credentials.lookup``.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cxrprep.credentials.files import Login, Token
from cxrprep.credentials.secret import Secret
from cxrprep.errors import CxrprepError, SourceUnreachableError
from cxrprep.model import RemoteFile
from cxrprep.sources import endpoints, sdk_errors
from cxrprep.sources.base import stated_size
from cxrprep.sources.http_client import USER_AGENT
from cxrprep.sources.http_response import HttpResponse, refusal
from cxrprep.sources.urls import without_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


T = TypeVar("T")

# What the service gives at once; its default is 20.
PAGE_SIZE: Final = 200
# For how long Kaggle's own tool asks.
_SESSION: Final = dt.timedelta(hours=12)


class KaggleApi:
    """The few calls that a source makes. ``explain`` turns a status into the error that fits, ``None`` elsewhere.

    A session of ``kaggle auth login`` that has ended is renewed, also in the middle of a download; when Kaggle does not
    renew it, ``pass_over`` is called, and ``credential`` must find another one, or none.
    """

    def __init__(
        self,
        timeout: float,
        user_agent: str | None,
        credential: Callable[[], Login | Token | None],
        explain: Callable[[int, str], CxrprepError | None],
        pass_over: Callable[[], None],
    ) -> None:
        """Nothing is imported or connected yet. Raises ``UsageError`` for a wrong ``CXRPREP_KAGGLE_URL``.

        Args:
            timeout: seconds to wait for a response.
            user_agent: the name that the service sees.
            credential: finds the login or token; ``None`` for none.
            explain: the error that a status and a subject mean, where it is known.
            pass_over: called when a session has run out and another credential is to be found.

        Raises:
            UsageError: ``CXRPREP_KAGGLE_URL`` is wrong.
        """
        self._endpoint = endpoints.named("kaggle") or endpoints.ENDPOINTS["kaggle"]
        self._timeout, self._user_agent = timeout, user_agent or USER_AGENT
        self._credential, self._explain, self._pass_over = credential, explain, pass_over
        self._lock = threading.Lock()
        self._http: Any = None
        self._datasets: Any = None
        self._have: Login | Token | None = None
        self.lapsed = ""
        """Where a session was found that Kaggle did not renew."""

    def version(self, owner: str, name: str) -> int:
        """The number of the newest version."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, name
        answer = self._call(lambda api: api.get_dataset(request), "")
        return int(answer.current_version_number)

    def files(self, owner: str, name: str, version: int, token: str) -> tuple[Sequence[RemoteFile], str]:
        """One page of the files.

        Args:
            owner: owner of the dataset.
            name: name of the dataset.
            version: its version; 0 for the newest.
            token: of the page, as the page before gives it; ``""`` for the first.

        Returns:
            the page, with the token of the next.

        Raises:
            AccessError: the login is missing or refused.
            SourceUnreachableError: there is no response.
        """
        from kagglesdk.datasets.types.dataset_api_service import ApiListDatasetFilesRequest

        request = ApiListDatasetFilesRequest()
        request.owner_slug, request.dataset_slug = owner, name
        request.page_size = PAGE_SIZE
        if version:
            request.dataset_version_number = version
        if token:
            request.page_token = token
        answer = self._call(lambda api: api.list_dataset_files(request), "the list of files")
        if answer.error_message:
            raise SourceUnreachableError(
                f"{owner}/{name}: Kaggle could not list the files",
                hint="run again later, or look at the dataset's page",
            )
        listed = answer.dataset_files
        # What has no name is no file, and one of no known size is one all the same.
        found = tuple(
            RemoteFile(f.name, stated_size(f.total_bytes) or None, modified=_utc(f.creation_date))
            for f in listed
            if f.name and isinstance(f.name, str)
        )
        if listed and not found:
            raise sdk_errors.not_understood(self._endpoint)
        return found, answer.next_page_token or ""

    def locate(self, owner: str, name: str, version: int, key: str) -> str:
        """The signed address of a file, of the archive of all files for ``""``. It is good for minutes or hours.

        Args:
            owner: owner of the dataset.
            name: name of the dataset.
            version: its version; 0 for the newest.
            key: the file; ``""`` for the archive of all.

        Returns:
            the signed address; a secret.

        Raises:
            AccessError: the login is missing or refused.
            SourceUnreachableError: there is no response.
        """
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, name
        if version:
            request.dataset_version_number = version
        if key:
            request.file_name = key
        response = self._call(lambda api: api.download_dataset(request), key or "the archive")
        address: str = response.headers.get("location", "")
        if address:
            # Read to its end, its connection serves the next request too.
            response.content  # noqa: B018  # the property reads
        response.close()
        if not address:
            raise SourceUnreachableError(
                f"{owner}/{name}: Kaggle gave no address for {key or 'the archive'} ({response.status_code})",
                hint="run again later",
            )
        return address

    def close(self) -> None:
        """Drop the SDK's connections."""
        with self._lock:
            http, self._http, self._datasets = self._http, None, None
        if http is not None:
            http.__exit__(None, None, None)

    # ---- the SDK ----

    def _call(self, ask: Callable[[Any], T], what: str) -> T:
        """What the SDK returns, its exceptions as ours. They may hold headers with credentials: none is chained."""
        import requests

        failed: CxrprepError | None = None
        for renewed in (False, True):
            api = self._api()
            try:
                return ask(api)
            except requests.exceptions.HTTPError as error:
                if _status(error.response) == 401 and not renewed and self._forget(api):
                    continue
                failed = self._refused(error.response, what)
            except sdk_errors.FAILURES as error:
                failed = sdk_errors.failure(self._endpoint, error, self._timeout)
            break
        assert failed is not None
        raise failed from None

    def _refused(self, response: Any, what: str) -> CxrprepError:
        status = _status(response)
        if status is None:
            return SourceUnreachableError("Kaggle answered with an error and no status", hint="run again later")
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = HttpResponse(status, headers, without_query(response.url or self._endpoint))
        return self._explain(status, what) or refusal(answer, what or "the dataset")

    def _api(self) -> Any:
        with self._lock:
            if self._datasets is None:
                from kagglesdk.datasets.services.dataset_api_service import DatasetApiClient

                have = self._have or self._credential()
                if isinstance(have, Token) and not have.secret and have.renewal:
                    have = self._renewed(have)
                self._have = have
                self._http = _http_client(self._endpoint, self._timeout, self._user_agent, have)
                self._http.__enter__()
                self._datasets = DatasetApiClient(self._http)
            return self._datasets

    def _forget(self, api: Any) -> bool:
        """Let go of the token that ``api`` was refused with, where another can be asked for; whether there is hope."""
        with self._lock:
            if self._datasets is not api:
                # Another thread has renewed it meanwhile.
                return True
            if not isinstance(self._have, Token) or not self._have.renewal:
                return False
            self._have = replace(self._have, secret=Secret(""))
            http, self._http, self._datasets = self._http, None, None
        http.__exit__(None, None, None)
        return True

    def _renewed(self, ended: Token) -> Login | Token | None:
        """The session with a new token, for this process alone; another credential where Kaggle gives none."""
        import requests
        from kagglesdk.users.services.account_service import AccountClient
        from kagglesdk.users.types.account_service import ApiVersion, GenerateAccessTokenRequest

        assert ended.renewal is not None
        request = GenerateAccessTokenRequest()
        request.refresh_token = ended.renewal.reveal()
        request.api_version = ApiVersion.API_VERSION_V1
        request.expiration_duration = _SESSION
        failed: CxrprepError | None = None
        try:
            with _http_client(self._endpoint, self._timeout, self._user_agent, None) as client:
                return replace(ended, secret=Secret(AccountClient(client).generate_access_token(request).token))
        except requests.exceptions.HTTPError as error:
            status = _status(error.response)
            if status is None or status == 429 or status >= 500:
                failed = self._refused(error.response, "the session")
        except sdk_errors.FAILURES as error:
            failed = sdk_errors.failure(self._endpoint, error, self._timeout)
        if failed is not None:
            raise failed from None
        self.lapsed = ended.origin
        self._pass_over()
        return self._credential()


def _http_client(endpoint: str, timeout: float, user_agent: str, have: Login | Token | None) -> Any:
    import requests
    from kagglesdk.kaggle_env import KaggleEnv
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    from cxrprep.sources.service_session import prepare_session

    class Session(requests.Session):
        """A session that hands redirects over: what they lead to is fetched by the common client, once."""

        def get_redirect_target(self, resp: requests.Response) -> str | None:
            del resp
            return None

    class Client(KaggleHttpClient):  # type: ignore[misc]  # the SDK has no types
        """The SDK's client with another address and session, and the credentials that were found here."""

        _session: Any

        def _init_session(self) -> Any:
            if self._session is None:
                # The SDK passes no time-out.
                self._session = prepare_session(Session(), timeout)
                self._session.headers.update({"User-Agent": user_agent, "Content-Type": "application/json"})
                self._try_fill_auth()
            return self._session

        def _try_fill_auth(self) -> None:
            if isinstance(have, Login):
                self._session.auth = (have.user, have.password.reveal())
            elif have is not None:
                self._session.auth = self.BearerAuth(have.secret.reveal())
            self._signed_in = have is not None

        def _get_request_url(self, service_name: str, request_name: str) -> str:
            return f"{endpoint}/v1/{service_name}/{request_name}"

    return Client(env=KaggleEnv.PROD, user_agent=user_agent)


def _status(response: Any) -> int | None:
    if response is None:
        return None
    status: int = response.status_code
    # The SDK takes the code within the answer for the status.
    return status if status >= 400 else _code_within(response)


def _code_within(response: Any) -> int:
    try:
        code = response.json().get("code")
    except (ValueError, AttributeError):
        return 500
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _utc(when: dt.datetime | None) -> dt.datetime | None:
    if when is None or when.year < 1970:
        return None
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)
