"""PhysioNet: MIMIC-CXR and MIMIC-CXR-JPG, for those who have signed their agreements.

What the site wants, none of it documented in one place: a user agent that begins with ``Wget/`` or ``libwfdb/`` (any
other gets 403 with the right password), a password only in answer to a challenge, and from there on the session cookie
(a password is hashed anew for each request that carries one, half a second each). What there is stands in
``SHA256SUMS.txt``; the folder pages, some 293,000 of them, are never asked for.
"""

from __future__ import annotations

import csv
import gzip
import io
import urllib.parse
import zlib
from typing import TYPE_CHECKING, Final

from cxrprep import checksum_files
from cxrprep._version import __version__
from cxrprep.credentials.services import ADVICE
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    NotInSourceError,
    SourceNotFoundError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.model import Digest, RemoteFile, Selection
from cxrprep.sources import endpoints
from cxrprep.sources.base import Access, AccessState, ByteStream, Politeness, SourceOptions, access_refused
from cxrprep.sources.http_client import HttpClient, OverHttp
from cxrprep.sources.http_requests import HttpRequests
from cxrprep.sources.http_response import HttpResponse
from cxrprep.sources.listing_cache import CachedListing, lines
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.retry import with_retries
from cxrprep.sources.urls import parts_of, quoted
from cxrprep.storage.small_files import GZIP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.credentials.files import Login

HOST: Final = "physionet.org"
_OWN_HOSTS: Final = frozenset({HOST, f"www.{HOST}"})
USER_AGENT: Final = f"Wget/1.21 (compatible; cxrprep/{__version__})"
_KNOWN_AGENTS: Final = ("Wget/", "libwfdb/")
_SUMS: Final = "SHA256SUMS.txt"
# Tables at the top of mimic-cxr that name the path of every image and of every report.
_LISTS: Final = ("cxr-record-list.csv.gz", "cxr-study-list.csv.gz")


class _UnsignedError(AccessError):
    """Raise when the login is right and the project stays closed. Do not raise for a wrong login."""


class PhysioNetSource(OverHttp):
    """One version of one project: ``physionet://mimic-cxr/2.1.0``.

    ``physionet://HOST[:PORT]/mimic-cxr/2.1.0`` is the same project on a server of one's own that follows the site's
    rules; it is spoken to without encryption when it is this machine.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        """Nothing is requested yet. Raises ``UsageError`` for an address that names no project and version."""
        host, slug, version, self._below = _parts(url)
        self.address = url if self._below else url.rstrip("/")
        self._base = f"{host}/files/{slug}/{version}/"
        self._page = f"{host}/content/{slug}/{version}/"
        self._project = f"{slug} {version}"
        self._options = options
        self._host = parts_of(host).hostname or HOST
        self.politeness = Politeness(connections=options.connections or 32, ranges=1)
        self._client = HttpClient(options, login=self._login, explain=self._explain, user_agent=USER_AGENT)

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files below ``prefix`` with their SHA-256, in the order of ``SHA256SUMS.txt``, which comes first itself.

        The list, 77 MB for MIMIC-CXR, is kept on disk for as long as its ETag stays the same. Sizes are not stated.
        """
        prefix = max(prefix, self._below, key=len)
        try:
            answer = self._head(_SUMS)
        except NotInSourceError:
            raise SourceNotFoundError(
                f"{self._page} does not exist", hint="check project and version on https://physionet.org"
            ) from None
        size = answer.content_length
        if _SUMS.startswith(prefix):
            yield RemoteFile(_SUMS, size, validator=answer.validator(size))
        listing = self._cached_listing(answer)
        blocks = self._blocks() if listing is None else listing.blocks()
        for number, line in enumerate(lines(blocks), 1):
            file = checksum_files.parse_line(line)
            if file is not None and file.key.startswith(prefix):
                yield file
            elif file is None and line.strip() and not line.startswith("#"):
                if listing is not None:
                    listing.forget()
                raise SourceUnreachableError(
                    f"line {number} of {self._base}{_SUMS} is not a checksum with a name",
                    hint="run again; if that does not help, the site has changed its format",
                )

    def list_wanted(self, selection: Selection) -> Iterator[RemoteFile]:
        """For patients, studies and images by id: their files from ``cxr-record-list`` and its sibling, and the tables.

        For the projects that have those lists (MIMIC-CXR), a quarter of ``SHA256SUMS.txt``. Digests are stated when
        that one is on disk already. Everything else is listed as ``list`` does, and so is what globs may name.
        """
        if selection.names_ids and not selection.include:
            try:
                paths = self._paths_of(selection)
            except NotConnectedError:
                raise
            except (CxrprepError, ValueError, EOFError, OSError, zlib.error, csv.Error):
                # Another project, without those lists, or they cannot be had or read: the long one says the same.
                paths = {}
            if paths:
                return self._described(paths)
        return self.list()

    def _paths_of(self, selection: Selection) -> dict[str, Digest | None]:
        patients = {_number(patient, "p") for patient in selection.patients}
        studies = {_number(study, "s") for study in selection.studies}
        paths: dict[str, Digest | None] = {}
        for name in _LISTS:
            with self._table(name) as rows:
                table = csv.DictReader(rows)
                if not {"subject_id", "study_id", "path"} <= set(table.fieldnames or ()):
                    raise ValueError(f"{name} is no list of files")
                for row in table:
                    # The list of images comes first: of an image that is named, the report is wanted as well.
                    named = row.get("dicom_id") in selection.images
                    if named or row.get("subject_id") in patients or row.get("study_id") in studies:
                        paths[row["path"]] = None
                        studies.update({row["study_id"]} if named else ())
                    if row["path"] is None:
                        raise ValueError(f"{name} is cut")
        return paths

    def _described(self, paths: dict[str, Digest | None]) -> Iterator[RemoteFile]:
        listing = self._cached_listing(self._head(_SUMS))
        if listing is not None and listing.is_here:
            for line in lines(listing.blocks()):
                file = checksum_files.parse_line(line)
                if file is not None and file.key in paths:
                    paths[file.key] = file.digest
        yield from (file for file in self._options.known if file.key not in paths)
        yield from (RemoteFile(path, digest=digest) for path, digest in paths.items() if path.startswith(self._below))

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """See ``Source.open``."""
        return self._client.open(self._url(file.key), key=file.key, offset=offset, end=end)

    def requests(self) -> HttpRequests:
        """Requests of one thread for small files; what is not simple goes through ``open``."""
        return HttpRequests(self._client, lambda file: (self._url(file.key), {}))

    def access(self) -> Access:
        """Whether the agreement is signed, asked by one HEAD of the list of checksums."""
        login = self._login(self._host)
        account = login.user if login else ""
        try:
            self._client.head(self._url(_SUMS), key=_SUMS)
        except _UnsignedError as error:
            return Access(AccessState.UNSIGNED, account, error.hint)
        except AccessError as error:
            missing = login is None and not self._options.cookie_file
            return access_refused(error, AccessState.MISSING if missing else AccessState.REJECTED, account)
        except NotInSourceError:
            return Access(AccessState.UNKNOWN, account, f"{self._page} does not exist; check project and version")
        return Access(AccessState.GRANTED, account)

    # ---- inside ----

    def _url(self, key: str) -> str:
        return self._base + quoted(key)

    def _head(self, key: str) -> HttpResponse:
        """What is said of a file without sending it; nothing where that question alone is refused, and GET decides."""
        try:
            return with_retries(lambda: self._client.head(self._url(key), key=key, doubted=True), optional=True)
        except NotConnectedError:
            raise
        except SourceUnreachableError:
            return HttpResponse(200, {}, self._url(key))

    def _blocks(self) -> Iterator[bytes]:
        """The list, kept nowhere."""
        with with_retries(lambda: self._client.open(self._url(_SUMS), key=_SUMS)) as stream:
            buffer = memoryview(bytearray(1 << 20))
            while count := stream.readinto(buffer):
                yield bytes(buffer[:count])

    def _cached_listing(self, answer: HttpResponse) -> CachedListing | None:
        """What is kept of the list; ``None`` where the server does not say which one it is, as when it compresses."""
        size = answer.content_length
        validator = answer.validator(size)
        if size is None or validator is None or answer.codings:
            return None

        def open_at(offset: int) -> ByteStream:
            return self._client.open(self._url(_SUMS), key=_SUMS, offset=offset)

        name = f"physionet-{self._project.replace(' ', '-')}-{_SUMS}"
        identity = f"{self._base} {validator}"
        return CachedListing(name, identity, start=0, end=size, open_at=open_at, validator=validator)

    def _table(self, name: str) -> io.TextIOBase:
        answer, body = with_retries(lambda: self._client.read(self._url(name), key=name))
        if answer.is_page or not body.startswith(GZIP):
            raise AccessError(
                f"{name}: {answer.url} sent something other than the table", hint=f"open {self._page} in a browser"
            )
        return io.TextIOWrapper(gzip.GzipFile(fileobj=io.BytesIO(body)), "utf-8", newline="")

    def _login(self, host: str) -> Login | None:
        credentials = self._options.credentials
        if credentials is None:
            return None
        if host != self._host or not self._may_log_in:
            return credentials.host(host)
        return credentials.physionet() if self._host == HOST else credentials.physionet(host)

    @property
    def _may_log_in(self) -> bool:
        """Whether the PhysioNet login may go to this host: the site's own, or one that the user named."""
        named = parts_of(endpoints.named("physionet") or "").hostname
        return self._options.is_named or self._host in (*_OWN_HOSTS, named)

    def _explain(self, answer: HttpResponse, key: str) -> CxrprepError | None:
        if answer.elsewhere and not {answer.host, self._host} <= _OWN_HOSTS:
            # A redirect led to somebody else, who knows nothing of PhysioNet's logins.
            return None
        if answer.status == 401:
            if self._options.cookie_file and self._login(self._host) is None:
                return AccessError(
                    f"{key}: PhysioNet does not know the session in {self._options.cookie_file} (401)",
                    hint=f"sign in at {self._page} with the browser and export its cookies again",
                )
            login = self._login(self._host)
            if login is not None:
                return AccessError(
                    f"{key}: PhysioNet rejects the login found in {login.origin} (401)",
                    hint="check user name and password there; one of them may have changed meanwhile",
                )
            if not self._may_log_in:
                return AccessError(
                    f"{key}: {self._host} wants a login (401); none is sent to a host that only a record, a saved plan "
                    "or a configuration file that was found names",
                    hint=f"if it is your mirror, name it in the command: --source {self.address}",
                )
            return AccessError(f"{key}: PhysioNet wants a login for {self._project} (401)", hint=ADVICE["physionet"])
        if answer.status != 403:
            return None
        agent = self._options.user_agent
        if agent and not agent.startswith(_KNOWN_AGENTS):
            return AccessError(
                f"{key}: PhysioNet refuses the user agent {agent!r} (403)",
                hint="leave --user-agent out; an agent of one's own has to begin with Wget/ or libwfdb/",
            )
        return _UnsignedError(
            f"{key}: PhysioNet knows the login and refuses {self._project} (403)",
            hint=f"open {self._page}#files, sign in, and do what it asks for there: become credentialed, renew the "
            "training, sign the data use agreement (each project and version has its own)",
        )


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme and host, slug, version, and the path below which files are wanted. Raises ``UsageError``."""
    words = [urllib.parse.unquote(word) for word in url.partition("://")[2].split("/") if word]
    if len(words) > 2 and (words[0] == "localhost" or not words[0].isascii() or set(words[0]) & set(".:")):
        host = words.pop(0)
        here = endpoints.is_here(parts_of(f"//{host}").hostname or "")
        base = f"{'http' if here else 'https'}://{host}"
    else:
        base = endpoints.named("physionet") or f"https://{HOST}"
    if len(words) < 2:
        raise UsageError(f"{url} names no project with its version", hint="write it as physionet://mimic-cxr/2.1.0")
    below = "/".join(words[2:])
    return base, words[0], words[1], f"{below}/" if below and url.endswith("/") else below


def _number(identifier: str, letter: str) -> str:
    """The bare number in ``p10000032`` or ``p10000032/s50414267``."""
    return identifier.strip().rpartition("/")[2].lower().removeprefix(letter)
