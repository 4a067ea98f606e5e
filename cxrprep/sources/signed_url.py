"""A signed URL: CheXpert's portal hands out an Azure container for 30 days; a single signed file works as well.

The URL is a password. It comes from a file, the environment, standard input or a prompt, never from the command line,
and only its part before the query is ever shown. When it expires during a run, and whoever gave it has put a new one
into the same place, the run goes on with that.
"""

from __future__ import annotations

import datetime as dt
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import pathspec

from cxrprep.credentials.services import ADVICE
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    NotInSourceError,
    ProxyOrCertificateError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from cxrprep.model import RemoteFile, Selection
from cxrprep.sources.azure_blob import SharedAccess, quoted, read_listing
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, hole, pages
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.remote_zip import SEPARATOR, RemoteZip
from cxrprep.sources.retry import with_retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.sources.http_response import HttpResponse

T = TypeVar("T")

_SOON: Final = dt.timedelta(hours=24)


class _RefusedError(AccessError):
    """Raise when the service refuses the signature. Do not raise when there is none."""


class _ChangedError(SourceUnreachableError):
    """Raise when a blob is no longer the one that was listed (412)."""


class SignedUrlSource(OverHttp):
    """The files behind the signed URL of a service: ``url://chexpert``.

    A key such as ``batch 2.zip!/patient00001/study1/view1_frontal.jpg`` is a member of an archive that stays where it
    is; ``list("batch 2.zip!/")`` names them, and with the mirror's setting ``members = "yes"`` so does ``list()``.
    ``holes`` are the archives whose members the last listing had to leave out, each with the reason.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is looked up yet."""
        self._service = url.partition("://")[2].strip("/") or "chexpert"
        self.address = f"url://{self._service}"
        self._options = options
        self._lock = threading.Lock()
        self._share: SharedAccess | None = None
        self._archives: dict[str, RemoteFile] = {}
        self.holes: list[CxrprepError] = []
        self._members = options.extra.get("members") == "yes"
        self.politeness = options.politeness(16, ranges=8)
        self._client = HttpClient(options, login=nobody, explain=self._explain)

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The blobs below ``prefix``; the members of an archive when ``prefix`` leads into one.

        Where the signature does not allow listing, the files that the catalog knows are asked for one by one.
        """
        archive, inside, _ = prefix.partition(SEPARATOR)
        if inside:
            file = self._archive(archive)
            yield from (member for member in self._zip(file).members() if member.key.startswith(prefix))
            return
        blobs = self._blobs(prefix)
        yield from self._opened_up(blobs) if self._members else blobs

    def list_wanted(self, selection: Selection) -> Iterator[RemoteFile]:
        """The members of the archives, where only some are wanted: they cost their own bytes alone."""
        named = any(pattern.lower().rstrip("/").endswith(".zip") for pattern in selection.include)
        if selection.is_everything or named:
            return self.list()
        # The release's paths no longer hold the archive's name, so who names one means it here.
        unwanted = pathspec.GitIgnoreSpec.from_lines(selection.exclude)
        return self._opened_up(file for file in self._blobs("") if not unwanted.match_file(file.key))

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``; a member of an archive is read by range."""
        archive, inside, _ = file.key.partition(SEPARATOR)
        if not inside:
            return self._open(file, offset, end)
        return self._zip(self._archive(archive)).open(file, offset, end)

    def access(self) -> Access:
        """Whether the URL is there, in time, and accepted."""
        try:
            share = self._current()
            if share.may_list:
                self._client.read(share.list_url("", "", 1), key=f"the listing of {share.address}")
            elif share.blob:
                self._client.open(share.url(share.blob), key=share.blob, end=1).close()
        except _RefusedError as error:
            expired = self._share is not None and self._share.expires is not None and _now() >= self._share.expires
            return Access(AccessState.EXPIRED if expired else AccessState.REJECTED, advice=error.hint)
        except AccessError as error:
            return access_refused(error, AccessState.MISSING)
        except NotInSourceError as error:
            return Access(AccessState.UNKNOWN, advice=error.message)
        if share.expires is None:
            return Access(AccessState.GRANTED)
        left = share.expires - _now()
        soon = "; get a new one soon" if left < _SOON else ""
        return Access(AccessState.GRANTED, advice=f"the link is good until {share.expires:%Y-%m-%d %H:%M} UTC{soon}")

    # ---- the signature ----

    def _current(self) -> SharedAccess:
        """The signature to use now. Raises ``AccessError`` without one, and before the service could refuse it."""
        with self._lock:
            share = self._share or self._find_share()
            if share is None:
                raise AccessError(f"there is no signed URL for {self._service}", hint=self._advice())
            self._share = share
        reason = share.refusal(_now())
        if not reason:
            return share
        renewed = self._renewed(share)
        if renewed is None:
            raise self._refused(f"the signed URL of {self._service} {reason}")
        return renewed

    def _find_share(self) -> SharedAccess | None:
        credentials = self._options.credentials
        token = credentials.signed_url(self._service) if credentials is not None else None
        return SharedAccess.parse(token.secret) if token is not None else None

    def _renewed(self, failed: SharedAccess) -> SharedAccess | None:
        """Another signature than ``failed``, when its owner has put one into its place or is there to be asked."""
        with self._lock:
            if self._share is not None and self._share is not failed:
                return self._share
            if self._options.credentials is None:
                return None
            self._options.credentials.refuse(self._service)
            share = self._find_share()
            if share is None or share.refusal(_now()) or share.query == failed.query:
                return None
            self._share = share
            return share

    def _refused(self, message: str) -> _RefusedError:
        return _RefusedError(
            message,
            hint=f"{self._advice()}; then run the same command again: what is here is kept, and partial files go on",
        )

    def _advice(self) -> str:
        variable = self._service.upper().replace("-", "_")
        return ADVICE.get(self._service, f"save the link in a file: --url-file FILE, or set {variable}_URL")

    def _signed(self, request: Callable[[SharedAccess], T]) -> T:
        """What ``request`` returns; asked once more with a renewed signature when the first was refused."""
        share = self._current()
        try:
            return request(share)
        except _RefusedError:
            renewed = self._renewed(share)
            if renewed is None:
                raise
            return request(renewed)

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        code = answer.headers.get("x-ms-error-code", "")
        reason = f"{answer.status} {code}".strip()
        share = self._share
        if answer.elsewhere:
            return None
        if share is not None and not share.is_azure and "blob" in answer.headers.get("server", "").lower():
            return self._refused(f"{key}: the link has no signature, as when a shell cut it at its first & ({reason})")
        if answer.status in (401, 403):
            expired = share is not None and share.expires is not None and _now() >= share.expires
            until = f"; it expired on {share.expires:%Y-%m-%d %H:%M} UTC" if share and expired else ""
            return self._refused(f"{key}: the signed URL is refused ({reason}){until}")
        if answer.status == 412:
            return _ChangedError(f"{key}: it has changed since it was listed ({reason})", hint="run again")
        return None

    # ---- blobs ----

    def _blobs(self, prefix: str) -> Iterator[RemoteFile]:
        share = self._current()
        if share.may_list:
            for page in pages(partial(self._page, prefix), share.address, ""):
                yield from page
            return
        names = [share.blob] if share.blob else [file.key for file in self._options.known]
        if not names:
            raise AccessError(
                f"the signed URL of {self._service} does not allow listing (sp={share.permissions or '-'})",
                hint="ask for one with read and list permission (sp=rl)",
            )
        for name in names:
            if name.startswith(prefix):
                file = self._described(name, required=bool(share.blob))
                if file is not None:
                    yield file

    def _opened_up(self, files: Iterator[RemoteFile]) -> Iterator[RemoteFile]:
        self.holes, found = [], False
        for file in files:
            if not file.key.lower().endswith(".zip"):
                found = True
                yield file
                continue
            try:
                for member in self._zip(file).members():
                    found = True
                    yield member
            except (_RefusedError, ProxyOrCertificateError, NotConnectedError):
                # It would be so for the next one, too.
                raise
            except CxrprepError as error:
                self.holes.append(hole(file.key, error))
        if self.holes and not found:
            raise self.holes[0]

    def _page(self, prefix: str, marker: str, most: int = 5000) -> tuple[Sequence[RemoteFile], str]:
        def request(share: SharedAccess) -> tuple[Sequence[RemoteFile], str]:
            key = f"the listing of {share.address}"
            try:
                _, body = self._client.read(share.list_url(prefix, marker, most), key=key)
            except NotInSourceError:
                raise SourceNotFoundError(f"{share.address} does not exist", hint="check the signed URL") from None
            return read_listing(body, share.address, share.folder)

        return with_retries(lambda: self._signed(request))

    def _described(self, name: str, *, required: bool) -> RemoteFile | None:
        """The file as an answer to its first byte describes it; a HEAD is signed apart by some services."""
        try:
            with with_retries(lambda: self._open(RemoteFile(name), 0, 1)) as stream:
                stream.readinto(memoryview(bytearray(1)))
        except NotInSourceError:
            if required:
                raise
            return None
        return RemoteFile(name, stream.length, stream.digest, stream.validator)

    def _open(self, file: RemoteFile, offset: int, end: int | None) -> ByteStream:
        def request(share: SharedAccess) -> ByteStream:
            # Azure leaves If-Range unheeded; If-Match it heeds.
            pinned = {"If-Match": file.validator} if file.validator and share.is_azure else {}
            url = share.url(file.key)
            try:
                return self._client.open(url, key=file.key, offset=offset, end=end, private=pinned)
            except _ChangedError:
                # The stream says what it is now, and whoever reads it starts again.
                return self._client.open(url, key=file.key)

        stream = self._signed(request)
        stream.validator = quoted(stream.validator)
        return stream

    # ---- archives ----

    def _archive(self, key: str) -> RemoteFile:
        if key not in self._archives:
            described = self._described(key, required=True)
            assert described is not None
            self._archives[key] = described
        return self._archives[key]

    def _zip(self, file: RemoteFile) -> RemoteZip:
        if file.size is None or file.validator is None:
            raise SourceUnreachableError(
                f"{file.key}: the server states no size or no ETag, without which its members cannot be read",
                hint="download the archive as a whole",
            )
        address = self._current().base + file.key
        return RemoteZip(file.key, address, file.size, file.validator, partial(self._open, file))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
