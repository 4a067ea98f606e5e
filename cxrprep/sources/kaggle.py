"""Kaggle: its own client asks the API, the common client fetches the bytes behind the signed address it gives.

``kagglesdk`` is what the ``kaggle`` command uses; ``import kaggle`` itself would print, write a folder and ask the
network. A file costs one request to the API and one to the storage behind it, with a new signed address each time. The
archive of all files is one object of that storage: its members are read by range, all of them with one address, so that
hundreds of thousands of images need no request to the API each, and have sizes and checksums before they come.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import urllib.parse
from functools import partial
from typing import TYPE_CHECKING, Final

from cxrprep.credentials.files import Login, Token
from cxrprep.credentials.secret import Secret
from cxrprep.credentials.services import ADVICE
from cxrprep.errors import AccessError, ArchiveError, CxrprepError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import RemoteFile
from cxrprep.sources.base import Access, AccessState, ByteStream, SourceOptions, access_refused, pages
from cxrprep.sources.http_client import HttpClient, OverHttp, nobody
from cxrprep.sources.kaggle_api import KaggleApi
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.remote_zip import SEPARATOR, RemoteZip
from cxrprep.sources.retry import with_retries
from cxrprep.sources.urls import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cxrprep.sources.http_response import HttpResponse

_PAGE: Final = "https://www.kaggle.com/datasets"
_WHOLE: Final = "archive.zip"
_VERSION: Final = re.compile(r"/versions/(\d+)(?=/|$)")


class _StaleError(SourceUnreachableError):
    """Raise when the storage no longer takes a signed address. Do not raise for a refusal of the API."""


class KaggleSource(OverHttp):
    """The files of a dataset: ``kaggle://OWNER/NAME``, with ``/versions/N`` behind it for another than the newest.

    With a file name ending in ``.zip`` at its end the address means the archive of all files, under that name. With the
    mirror's setting ``members = "yes"`` the files are read out of that archive by range, where the storage allows it.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address that names no dataset."""
        self._owner, self._slug, self._version, self._archive_name = _parts(url)
        self._name = f"{self._owner}/{self._slug}"
        self.address = url.rstrip("/")
        self._options = options
        self._members = options.extra.get("members") == "yes" and not self._archive_name
        polite = options.politeness(8)
        self.politeness = polite if self._archive_name else dataclasses.replace(polite, ranges=1)
        self._client = HttpClient(options, login=nobody, explain=_explain)
        self._api = KaggleApi(
            options.timeout, options.user_agent, self._credential, self._refusal, pass_over=self._pass_over
        )
        self._lock = threading.RLock()
        self._signed: Secret | None = None
        self._zips: dict[str, tuple[RemoteZip, RemoteFile]] = {}
        self._whole: RemoteZip | None = None

    # ---- listing ----

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files whose names begin with ``prefix``, 200 a request; or the archive, or its members.

        The API states sizes and no digests; the archive states CRC-32 of each member.
        """
        if self._archive_name:
            if self._archive_name.startswith(prefix):
                yield self._described()
            return
        if prefix.startswith(_WHOLE + SEPARATOR):
            yield from (file for file in self._zip().members() if file.key.startswith(prefix))
            return
        if self._members:
            members = self._few_members()
            if members is not None:
                inside = _WHOLE + SEPARATOR
                yield from (file for file in members if file.key.removeprefix(inside).startswith(prefix))
                return
        yield from self._files(prefix)

    def _few_members(self) -> Iterator[RemoteFile] | None:
        """The members of the archive; ``None`` where it is not to be had, or cannot be read by range."""
        try:
            members = self._zip().members()
            first = next(members, None)
        except NotConnectedError:
            # Who is asked for the files instead is the same host.
            raise
        except (NotInSourceError, ArchiveError, SourceUnreachableError):
            return None
        return None if first is None else itertools.chain([first], members)

    def _files(self, prefix: str) -> Iterator[RemoteFile]:
        def ask(token: str) -> tuple[Sequence[RemoteFile], str]:
            return with_retries(partial(self._api.files, self._owner, self._slug, self._pinned(), token))

        for page in pages(ask, self.address, ""):
            yield from (file for file in page if file.key.startswith(prefix))

    # ---- bytes ----

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``. What Kaggle sends zipped is unzipped on its way."""
        if file.key.startswith(_WHOLE + SEPARATOR):
            return self._zip().open(file, offset, end)
        if self._archive_name:
            return self._open_whole(offset, end)
        zipped = self._zips.get(file.key)
        if zipped is None:
            url = self._locate(file.key)
            if not _is_zipped(url, file.key):
                return self._client.open(url, key=file.key, offset=offset, end=end)
            zipped = self._zipped(file.key)
        archive, member = zipped
        return archive.open(member, offset, end)

    def access(self) -> Access:
        """Whether the dataset is there for this account, asked by one request for its description."""
        try:
            have = self._credential()
        except AccessError as error:
            return Access(AccessState.REJECTED, advice=f"{error.message}; {error.hint}")
        account = have.user if isinstance(have, Login) else ""
        try:
            with_retries(lambda: self._api.version(self._owner, self._slug))
        except AccessError as error:
            state = AccessState.MISSING if self._credential() is None else AccessState.REJECTED
            return access_refused(error, state, account)
        except NotInSourceError as error:
            return Access(AccessState.UNKNOWN, account, error.message)
        return Access(AccessState.GRANTED if self._credential() is not None else AccessState.OPEN, account)

    def close(self) -> None:
        """Drop connections."""
        super().close()
        self._api.close()

    # ---- signed addresses ----

    def _pinned(self) -> int:
        """The version that this run is about: the newest when it began, so that no file comes from a later one."""
        if self._version is None:
            version = with_retries(lambda: self._api.version(self._owner, self._slug))
            with self._lock:
                if self._version is None:
                    self._version = version
        return self._version

    def _locate(self, key: str) -> str:
        return self._api.locate(self._owner, self._slug, self._pinned(), key)

    def _open_whole(self, offset: int, end: int | None) -> ByteStream:
        """The archive, through one signed address for as long as the storage takes it."""
        signed, key = self._signed, self._archive_name or _WHOLE
        if signed is not None:
            try:
                return self._client.open(signed.reveal(), key=key, offset=offset, end=end)
            except _StaleError:
                pass
        with self._lock:
            if self._signed is None or self._signed is signed:
                self._signed = Secret(self._locate(""))
            renewed = self._signed
        return self._client.open(renewed.reveal(), key=key, offset=offset, end=end)

    # ---- archives ----

    def _described(self) -> RemoteFile:
        with with_retries(lambda: self._open_whole(0, 1)) as stream:
            stream.readinto(memoryview(bytearray(1)))
            return RemoteFile(self._archive_name, stream.length, stream.digest, stream.validator)

    def _zip(self) -> RemoteZip:
        if self._whole is None:
            self._whole = self._remote(_WHOLE, self._open_whole)
        return self._whole

    def _zipped(self, key: str) -> tuple[RemoteZip, RemoteFile]:
        """The archive in which Kaggle wraps a single large file, and its only member."""

        def opened(offset: int, end: int | None) -> ByteStream:
            return self._client.open(self._locate(key), key=f"{key}.zip", offset=offset, end=end)

        archive = self._remote(f"{key}.zip", opened)
        members = [*archive.members()]
        if len(members) != 1:
            raise ArchiveError(
                f"{key}: Kaggle sent an archive of {len(members)} files for it", hint="download the archive of all"
            )
        self._zips[key] = archive, members[0]
        return archive, members[0]

    def _remote(self, key: str, opened: Callable[[int, int | None], ByteStream]) -> RemoteZip:
        with with_retries(lambda: opened(1, 2)) as stream:
            if stream.offset != 1:
                raise SourceUnreachableError(f"{key}: Kaggle's storage serves no ranges", hint="run again later")
            stream.readinto(memoryview(bytearray(1)))
            size, validator = stream.length, stream.validator
        if size is None or validator is None:
            raise SourceUnreachableError(
                f"{key}: Kaggle's storage states no size or no ETag, without which no member can be read",
                hint="run again later",
            )
        return RemoteZip(key, f"kaggle://{self._name}/{key}", size, validator, opened)

    # ---- access ----

    def _credential(self) -> Login | Token | None:
        credentials = self._options.credentials
        return credentials.kaggle() if credentials is not None else None

    def _pass_over(self) -> None:
        if self._options.credentials is not None:
            self._options.credentials.refuse("kaggle")

    def _refusal(self, status: int, what: str) -> CxrprepError | None:
        """The error that an answer of the API means; ``None`` leaves it to the general rule."""
        subject = f"{self._name}: {what}" if what else self._name
        if status == 401:
            have = self._credential()
            if have is None and self._api.lapsed:
                return AccessError(
                    f"{subject}: Kaggle does not renew the session in {self._api.lapsed}, and wants a login (401)",
                    hint=f"run: kaggle auth login; or {ADVICE['kaggle']}",
                )
            if have is None:
                return AccessError(f"{subject}: Kaggle wants a login (401)", hint=ADVICE["kaggle"])
            return AccessError(
                f"{subject}: Kaggle rejects the login found in {have.origin} (401)",
                hint=f"it may have expired or been revoked: {ADVICE['kaggle']}",
            )
        if status == 403:
            return AccessError(
                f"{subject}: Kaggle refuses access (403)",
                hint=f"open {_PAGE}/{self._name} in a browser, signed in to the same account: accept what it asks for "
                f"there, or verify the account. Without an account: {ADVICE['kaggle']}",
            )
        if status == 404:
            return NotInSourceError(
                f"{subject}: Kaggle does not have it (404)",
                hint=f"look at {_PAGE}/{self._name}; a private dataset looks like none without the right login",
            )
        return None


def _explain(answer: HttpResponse, key: str) -> CxrprepError | None:
    """Refusals of the storage: it knows no accounts, only addresses that are good for a while."""
    if answer.status in (400, 401, 403):
        return _StaleError(f"{key}: Kaggle's storage no longer takes its address ({answer.status})", hint="run again")
    return None


def _is_zipped(url: str, key: str) -> bool:
    """Whether the address leads to ``key`` wrapped in an archive of its own."""
    name = urllib.parse.unquote(parts_of(url).path).lower()
    return name.endswith(".zip") and not key.lower().endswith(".zip")


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Owner, name, version and archive name of an address. Raises ``UsageError``."""
    place = url.partition("://")[2].strip("/")
    version = _VERSION.search(place)
    words = [urllib.parse.unquote(word) for word in _VERSION.sub("", place).split("/") if word]
    archive = words.pop() if len(words) == 3 and words[2].lower().endswith(".zip") else ""
    if len(words) != 2:
        raise UsageError(f"{url} names no dataset of Kaggle", hint="write it as kaggle://OWNER/NAME")
    return words[0], words[1], int(version[1]) if version else None, archive
