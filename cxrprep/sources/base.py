"""Interface of a source: list files, and open one at an offset.

Resume, retry, digests, limits, progress and atomic publishing are written once, in ``transfer``; a source says only
what its service answers. All sources end in an HTTP GET with Range, or in a local file.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from cxrprep.errors import AccessError, CxrprepError, ProxyOrCertificateError, SourceUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from cxrprep.credentials.lookup import Credentials
    from cxrprep.model import Digest, RemoteFile, Selection

Page = TypeVar("Page")
Token = TypeVar("Token", bound=Hashable)


class AccessState(enum.StrEnum):
    """How far the user's access to a source goes."""

    GRANTED = "granted"
    OPEN = "open"
    MISSING = "missing"
    REJECTED = "rejected"
    UNSIGNED = "unsigned"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Access:
    """What a source says of the user's access, without any secret in it.

    ``advice`` is the next step in one sentence; ``costs`` says who pays and about how much, where someone does.
    """

    state: AccessState
    account: str = ""
    advice: str = ""
    costs: str = ""


def access_refused(error: AccessError, state: AccessState, account: str = "") -> Access:
    """What a service's refusal says of access. Raises ``error`` where it is not the service that refused."""
    if isinstance(error, ProxyOrCertificateError):
        raise error
    return Access(state, account, error.hint)


def hole(folder: str, error: CxrprepError) -> CxrprepError:
    """``error`` as the reason why ``folder`` (a slash behind it) was left out of a listing: it begins with its name."""
    if not error.message.startswith(folder):
        error.message = f"{folder}: {error.message}"
    return error


def pages(ask: Callable[[Token], tuple[Page, Token]], where: str, first: Token) -> Iterator[Page]:
    """All pages of a listing; ``ask`` gets the one of a token, beginning with ``first``, and the token of the next.

    Raises ``SourceUnreachableError`` for a listing that comes back to where it was.
    """
    token, seen = first, {first}
    while True:
        page, token = ask(token)
        yield page
        if not token:
            return
        if token in seen:
            raise no_listing(where, "that repeats itself")
        seen.add(token)


def no_listing(where: str, reason: str) -> SourceUnreachableError:
    """The error for a listing that is none, or has no end."""
    return SourceUnreachableError(
        f"{where} sent a listing {reason}", hint="run again; a proxy may have answered instead"
    )


def stated_size(value: object) -> int | None:
    """Bytes as JSON states them; ``None`` for what is no such number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


@runtime_checkable
class ByteStream(Protocol):
    """An open body. ``offset`` is where the server really began: a 200 in answer to a Range request is 0.

    ``validator`` identifies the content that is being sent; ``length`` is the number of bytes of the whole file, not of
    this body; ``digest`` is one that came with the answer (``x-goog-hash``, ``Content-MD5``), of the whole file.
    Iteration and ``readinto`` raise ``SourceUnreachableError`` when the connection breaks or stalls.
    """

    offset: int
    length: int | None
    validator: str | None
    digest: Digest | None

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from the start; the number of bytes written, 0 at the end of the body."""
        ...

    def close(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end."""
        ...

    def __enter__(self) -> Self:
        """The stream itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


@dataclass(slots=True)
class ConnectionState:
    """What turned out about one connection: ``dirty`` when bytes came over it that nobody had asked for.

    Each answer that came over it may then be the one to another request. Streams hold it as ``came_over``.
    """

    dirty: bool = False


class Body:
    """What all of ``ByteStream`` begin with: no bytes, of which nothing is known. A ``with`` closes it at its end."""

    offset: int = 0
    length: int | None = None
    validator: str | None = None
    digest: Digest | None = None
    # As ``io.BufferedReader`` asks; after ``close`` no bytes come.
    closed: Final = False

    def readable(self) -> bool:
        """``True``."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """See ``ByteStream.readinto``: the end."""
        del buffer
        return 0

    def close(self) -> None:
        """See ``ByteStream.close``: nothing is open."""

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


@dataclass(frozen=True, slots=True)
class Politeness:
    """What a service can bear: ``connections`` at once a host; ``ranges`` of one file at once (1 forbids splitting).

    ``tuned`` says that the number is found between a few and ``connections`` by what it brings.
    """

    connections: int = 8
    ranges: int = 1
    tuned: bool = True


class Source(Protocol):
    """Where bytes come from. Thread-safe: ``open`` is called from many threads at once.

    ``address`` is the mirror as the user may see it and name it again: no credential, no signed query string. It is
    what a folder remembers of where its files come from, so opening it gives the same source.
    """

    address: str
    politeness: Politeness

    def list(self, prefix: str = "") -> Iterator[RemoteFile]:
        """The files below ``prefix``, streamed.

        Raises ``AccessError``, ``SourceUnreachableError``, ``NotInSourceError``.
        """
        ...

    def open(self, file: RemoteFile, offset: int = 0, end: int | None = None) -> ByteStream:
        """The bytes of ``file`` from ``offset`` up to but without ``end``.

        When the service cannot serve a range the stream begins at 0 and says so. Raises ``AccessError`` (401, 403,
        a login page under 200, an expired URL), ``NotInSourceError`` (404), ``SourceUnreachableError`` (connection,
        time-out, 429 and 5xx; its ``retry_after`` attribute holds the seconds that the server asked for).
        """
        ...

    def access(self) -> Access:
        """What the service says of the user's access, asked as cheaply as possible.

        Raises nothing but ``SourceUnreachableError``, and ``ProxyOrCertificateError`` for what lies before the service.
        """
        ...

    def close(self) -> None:
        """Drop connections. Safe to call twice."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A source that can name the files of a selection at less cost than all that it has."""

    def list_wanted(self, selection: Selection) -> Iterator[RemoteFile]:
        """At least the files that ``selection`` may want.

        Its keys may differ from those of ``list``: members of archives instead of archives. Raises as ``list``.
        """
        ...


@runtime_checkable
class ReusesConnections(Protocol):
    """A source over connections that serve again, which a faulty server or proxy may get into disorder."""

    def settle(self) -> None:
        """Look at all of them for bytes that nobody had asked for, as ``ConnectionState.dirty`` says then."""
        ...


# What is held in memory for a connection at most; a longer file gains nothing by it, and may be worth resuming.
SMALL_FILE: Final = 1 << 19


class Received(NamedTuple):
    """What came for ``file``: all of its bytes and what identifies them at the mirror, or ``None``.

    With ``None``, ``open`` is to ask for it.
    """

    file: RemoteFile
    data: bytes | None
    validator: str | None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user chose about how to reach sources; every source takes what concerns it.

    ``timeout`` is seconds without a byte. ``known`` is what the dataset's catalog knows of the mirror's files, for
    services that have no listing (NIH's Box links). ``is_named`` says that the user named the address, so that a login
    of the service may go to the host in it. ``requester_pays`` agrees to be billed for what an S3 bucket sends.
    ``extra`` holds a mirror's own settings from the catalog.
    """

    credentials: Credentials | None = None
    timeout: float = 60.0
    user_agent: str | None = None
    cookie_file: str | None = None
    billing_project: str | None = None
    requester_pays: bool = False
    connections: int | None = None
    known: tuple[RemoteFile, ...] = ()
    is_named: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    def politeness(self, connections: int, ranges: int = 4) -> Politeness:
        """What the user named and the mirror's settings say, else these numbers."""
        return Politeness(self.connections or connections, int(self.extra.get("ranges", ranges)))
