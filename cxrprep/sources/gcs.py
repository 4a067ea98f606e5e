"""Google Cloud Storage, requester pays included: Google's library lists, the common client fetches what was listed.

The library's own downloads write to the final name and never resume, so only its listing and its credentials are used.
NIH's bucket and PhysioNet's are requester pays: whoever downloads is billed, and has to name the project that pays.
"""

from __future__ import annotations

import threading
import urllib.parse
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError, CxrprepError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import RemoteFile
from cxrprep.sources import sdk_errors
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, pages
from cxrprep.sources.google_auth import GoogleAccess
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.http_response import HttpResponse, from_base64, seconds_to_wait
from cxrprep.sources.retry import with_retries
from cxrprep.sources.urls import folder_and_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_FIELDS: Final = "items(name,size,md5Hash,crc32c,generation,updated,contentEncoding),nextPageToken"


class _RefusedError(AccessError):
    """Raise when Google knows who asks and says no (403). Do not raise for a missing login or project."""


class GcsSource(OverHttp):
    """The objects of a bucket below a folder: ``gs://BUCKET/FOLDER``; one object, when its name is given."""

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address without a bucket."""
        bucket, _, path = url.partition("://")[2].partition("/")
        if not bucket:
            raise UsageError(f"{url} names no bucket", hint="write it as gs://BUCKET or gs://BUCKET/FOLDER")
        path = path.strip("/")
        self._base, self._single = folder_and_file(path)
        self._bucket = bucket
        self._project = options.billing_project
        self._payer = options.extra.get("access") == "payer"
        self._costs = options.extra.get("costs", "")
        self._agreement = options.extra.get("agreement", "")
        self.address = f"gs://{bucket}/{path}" if path else f"gs://{bucket}"
        self.politeness = options.politeness(16)
        self._timeout = options.timeout
        self._access = GoogleAccess(options.credentials)
        self._client = HttpClient(options, login=nobody, explain=self._explain)
        self._lock = threading.Lock()
        self._storage: Any = None

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The objects below ``prefix``, in order of name, with size, MD5 or CRC32C, and generation."""
        self._check_payer()
        if self._single and not self._single.startswith(prefix):
            return
        found = False

        def ask(token: str) -> tuple[Sequence[RemoteFile], str]:
            page, following = with_retries(partial(self._page, self._base + (self._single or prefix), token or None))
            return page, following or ""

        for page in pages(ask, self.address, ""):
            for file in page:
                if not self._single or file.key == self._single:
                    found = True
                    yield file
        if self._single and not found:
            raise NotInSourceError(f"{self.address} does not exist", hint="check the address")

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``; a generation that was listed is the one that is read."""
        self._check_payer()
        query = {"alt": "media"}
        if file.validator and file.validator.isdecimal():
            query["generation"] = file.validator
        if self._project:
            query["userProject"] = self._project
        name = urllib.parse.quote(self._base + file.key, safe="")
        url = f"{self._access.endpoint}/download/storage/v1/b/{self._bucket}/o/{name}?{urllib.parse.urlencode(query)}"
        try:
            stream = self._opened(url, file.key, offset, end)
        except NotInSourceError:
            if "generation" in query and any(o.key == file.key for o in self._page(self._base + file.key, None)[0]):
                raise NotInSourceError(
                    f"{file.key}: the object was replaced after it was listed", hint="run again; the plan is made again"
                ) from None
            raise
        return _described(stream, query.get("generation"))

    def access(self) -> Access:
        """Whether the bucket may be listed, asked for one name; and who pays."""
        account = ""
        try:
            account = self._access.account()
            self._check_payer()
            with_retries(lambda: self._page(self._base, None, 1))
        except _RefusedError as error:
            state = AccessState.UNSIGNED if self._agreement else AccessState.REJECTED
            return Access(state, account, error.hint, self._costs)
        except AccessError as error:
            state = AccessState.MISSING if self._access.is_anonymous else AccessState.REJECTED
            refused = access_refused(error, state, account)
            return replace(refused, advice=f"{error.message}: {error.hint}", costs=self._costs)
        except NotInSourceError as error:
            return Access(AccessState.UNKNOWN, account, error.message, self._costs)
        state = AccessState.OPEN if self._access.is_anonymous else AccessState.GRANTED
        return Access(state, account, costs=self._costs)

    def close(self) -> None:
        """Drop connections."""
        super().close()
        with self._lock:
            storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()
        self._access.close()

    # ---- bytes ----

    def _opened(self, url: str, key: str, offset: int, end: int | None) -> ByteStream:
        def ask(authorization: str) -> ByteStream:
            private: Mapping[str, str] = {"Authorization": authorization} if authorization else {}
            return self._client.open(url, key=key, offset=offset, end=end, private=private)

        authorization = self._access.authorization()
        try:
            return ask(authorization)
        except AccessError as error:
            # A token lives for an hour, and may be withdrawn before.
            if isinstance(error, _RefusedError) or not self._access.renew(authorization):
                raise
        return ask(self._access.authorization())

    # ---- the listing ----

    def _page(self, prefix: str, token: str | None, most: int | None = None) -> tuple[Sequence[RemoteFile], str | None]:
        """One page of objects, and the token of the next one."""
        import google.api_core.exceptions
        import google.auth.exceptions

        try:
            blobs = self._library().list_blobs(
                self._library().bucket(self._bucket, user_project=self._project),
                prefix=prefix,
                page_token=token,
                page_size=most,
                max_results=most,
                fields=_FIELDS,
                timeout=self._timeout,
                retry=None,
            )
            page = next(blobs.pages, ())
            files = [file for file in map(self._file, page) if file is not None]
        except google.api_core.exceptions.GoogleAPICallError as error:
            failed = self._failed(error)
        except (google.auth.exceptions.TransportError, OSError) as error:
            failed = sdk_errors.failure(self._access.endpoint, error, self._timeout)
        except google.auth.exceptions.GoogleAuthError:
            # What the library makes of a 401: it would renew the login, which nobody does not have.
            refused = self._refusal(401, f"gs://{self._bucket}") if self._access.is_anonymous else None
            failed = refused or self._access.not_renewed()
        except sdk_errors.FAILURES as error:
            failed = sdk_errors.failure(self._access.endpoint, error, self._timeout)
        else:
            return files, None if most else blobs.next_page_token
        raise failed

    def _library(self) -> Any:
        with self._lock:
            if self._storage is None:
                self._storage = self._access.client()
            return self._storage

    def _file(self, blob: Any) -> RemoteFile | None:
        key = blob.name[len(self._base) :] if isinstance(blob.name, str) else ""
        if not key or key.endswith("/"):
            # Consoles make objects that stand for folders.
            return None
        generation = None if blob.generation is None else str(blob.generation)
        if blob.content_encoding:
            # Google unpacks it on its way, so size and checksums are of other bytes.
            return RemoteFile(key, validator=generation, modified=blob.updated)
        digest = from_base64("md5", blob.md5_hash) or from_base64("crc32c", blob.crc32c)
        return RemoteFile(key, blob.size, digest, generation, blob.updated)

    # ---- refusals ----

    def _check_payer(self) -> None:
        if self._payer and not self._project:
            raise self._unpaid()

    def _unpaid(self) -> AccessError:
        mine = self._access.project()
        example = f"--billing-project {mine}" if mine else "--billing-project PROJECT"
        return AccessError(
            f"gs://{self._bucket} is requester pays, and no paying project is named",
            hint=f"name a Google Cloud project of yours, which is billed for what you download: {example}",
        )

    def _failed(self, error: Any) -> CxrprepError:
        status = int(error.code or 500)
        failed = self._refusal(status, f"gs://{self._bucket}", str(error.message or ""))
        if failed is not None:
            return failed
        headers = getattr(error.response, "headers", None) or {}
        asked = seconds_to_wait(str(headers.get("Retry-After", "")))
        return SourceUnreachableError(
            f"gs://{self._bucket} answered {status}", hint="run again later", retry_after=asked
        )

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        if answer.elsewhere:
            return None
        said = answer.body.decode("utf-8", "replace")
        return self._refusal(answer.status, f"gs://{self._bucket}/{self._base}{key}", said)

    def _refusal(self, status: int, subject: str, detail: str = "") -> CxrprepError | None:
        if status == 400 and not self._project and ("requester pays" in detail or not detail):
            return self._unpaid()
        if status == 401:
            if self._access.is_anonymous:
                return AccessError(f"{subject}: Google wants a login (401)", hint=ADVICE["google"])
            return AccessError(
                f"{subject}: Google rejects the login (401)", hint=f"it may have expired; {ADVICE['google']}"
            )
        if status == 403:
            return self._forbidden(subject, detail)
        if status == 404:
            return NotInSourceError(f"{subject} does not exist (404)", hint="check the name of bucket and object")
        return None

    def _forbidden(self, subject: str, detail: str) -> AccessError:
        account = self._access.account() or (
            "a request without a login" if self._access.is_anonymous else "this account"
        )
        if self._project and ("serviceusage" in detail or "billing" in detail.lower()):
            return AccessError(
                f"{subject}: {account} may not bill the project {self._project} (403)",
                hint="name a project of yours with billing switched on: --billing-project PROJECT",
            )
        if self._access.is_anonymous:
            return AccessError(f"{subject}: Google refuses access without a login (403)", hint=ADVICE["google"])
        if "physionet.org" in self._agreement:
            hint = (
                "link this Google account at https://physionet.org/settings/cloud/, and ask for access by Google Cloud "
                f"at {self._agreement}, section Files; the agreement has to be signed there first"
            )
        else:
            hint = "ask whoever owns the bucket for storage.objects.get and storage.objects.list"
            if self._project:
                hint += f"; {self._project} has to be a project that you may bill"
        return _RefusedError(f"{subject}: Google refuses access to {account} (403)", hint=hint)


def _described(stream: ByteStream, pinned: str | None) -> ByteStream:
    """The stream with the generation as its validator: an object's ETag is spelled in several ways."""
    answer: HttpResponse | None = getattr(stream, "answer", None)
    headers = answer.headers if answer is not None else {}
    stream.validator = headers.get("x-goog-generation") or pinned or stream.validator
    if headers.get("x-goog-stored-content-encoding", "identity") != "identity":
        # The checksums are those of the packed object.
        stream.digest = None
    return stream
