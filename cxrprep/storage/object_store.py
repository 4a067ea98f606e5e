"""Object stores (s3://, gs://, az://) as a file system, through fsspec."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from cxrprep.errors import (
    AccessError,
    CxrprepError,
    ImageError,
    IntegrityError,
    MissingExtraError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.extras import install_command, keep_log_off_terminal
from cxrprep.storage import object_checksums
from cxrprep.storage.filesystem import SizeLimit, StoredFile
from cxrprep.storage.multipart import PartsUpload
from cxrprep.storage.object_checksums import PART_BYTES
from cxrprep.storage.object_listing import ANOTHER_ANSWERS, objects_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cxrprep.model import Digest

T = TypeVar("T")
Content = TypeVar("Content", Path, bytes)

# Times that an object is fetched or sent before one that does not arrive whole is an error.
_TRIES: Final = 3
# S3 takes 10,000 parts of an object.
_MOST_PARTS: Final = 10_000
# scheme -> the extra that installs its fsspec package
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SIGN_IN: Final = {
    "s3": "sign in (aws configure, aws sso login) with the permissions of docs/howto/s3.md, and run it again",
    "gcs": "sign in (gcloud auth application-default login) with the roles of docs/howto/gcs.md, and run it again",
    "azure": "sign in (az login, AZURE_STORAGE_ACCOUNT_NAME) with the roles of docs/howto/azure.md, and run it again",
}
# A condition that does not hold: S3, Google and Azure.
_EXISTS: Final = re.compile(r"FileExists|PreconditionFailed|BlobAlreadyExists|ConditionalRequestConflict|\b(409|412)\b")
_DAMAGED: Final = re.compile(r"BadDigest|InvalidDigest|ChecksumMismatch|Md5Mismatch|contentMD5|MD5 you specified")
# The answer of S3 to HEAD has no body, so that an expired login is a bad request without a reason.
_REFUSED: Final = re.compile(
    r"\b(401|403)\b|[Cc]redential|Forbidden|Unauthorized|Expired|AuthenticationFailed|AuthorizationFailure"
    r"|Errno 22\] Bad Request$"
)
# What each library makes of an answer that it cannot read.
_NO_ANSWER: Final = re.compile(
    r"^(JSONDecodeError|DeserializationError|ResponseParserError)|Content-Range .* malformed"
)
_MAKE_IT: Final = "make it, or check its name"


@functools.lru_cache(maxsize=8)
def _system(scheme: str, process: int) -> Any:
    # By process: connections of an object store do not survive a fork.
    del process
    try:
        import fsspec
    except ImportError as error:
        raise _missing(scheme, "fsspec") from error
    keep_log_off_terminal("adlfs", "asyncio", "azure", "gcsfs", "s3fs")
    try:
        if scheme in ("gs", "gcs"):
            # The one that fsspec takes first asks another service of Google's what kind of bucket it is, which the
            # roles for objects do not allow.
            from gcsfs.core import GCSFileSystem

            return GCSFileSystem(skip_instance_cache=True)
        # Kept by us: fsspec's own cache outlives a change of the environment.
        return fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError as error:
        raise _missing(scheme, str(error)) from error
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// is not an address that fsspec knows", hint="s3://, gs://, az:// or a path"
        ) from error


def _missing(scheme: str, what: str) -> CxrprepError:
    extra = _EXTRAS.get(scheme)
    command = install_command(extra) if extra else "install the fsspec package that serves it"
    return MissingExtraError(f"{scheme}:// needs another package: {what}", hint=command)


def _sign_in(address: str) -> str:
    return _SIGN_IN.get(_EXTRAS.get(address.partition("://")[0], ""), "sign in to the store and run it again")


@contextlib.contextmanager
def _storage_errors(address: str, *, of_bucket: bool = False) -> Iterator[None]:
    """What an object store raises, in our words; ``FileNotFoundError`` is the caller's to explain.

    ``of_bucket``: it can only be the bucket that is not there, as when something is listed or written.
    """
    try:
        yield
    except CxrprepError:
        raise
    except FileNotFoundError as error:
        if not of_bucket:
            raise
        raise UsageError(f"{address}: there is no such bucket", hint=_MAKE_IT) from error
    except PermissionError as error:
        raise AccessError(f"{address} refuses: {error}", hint=_sign_in(address)) from error
    except Exception as error:
        # Each store raises the errors of its own library, of which this room knows none.
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        if getattr(error, "error_code", None) == "ContainerNotFound":
            raise UsageError(f"{address}: there is no such container", hint=_MAKE_IT) from error
        # Azure says "not authorized ... using this permission" where a token lacks one: its number tells.
        if getattr(error, "status_code", None) in (401, 403) or _REFUSED.search(text):
            raise AccessError(f"{address} refuses: {text}", hint=_sign_in(address)) from error
        if _NO_ANSWER.search(text) or getattr(error, "status_code", None) == 200:
            raise SourceUnreachableError(f"{address}: the answer is not a store's", hint=ANOTHER_ANSWERS) from error
        raise SourceUnreachableError(f"{address}: {text}", hint="run it again; what is done is kept") from error


class ObjectGoneError(ImageError):
    """Raise for an object that a listing names and that is not there; do not raise where nobody listed it."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix of an object store."""

    address: str

    def system(self) -> Any:
        """The fsspec file system, one a process. Raises ``MissingExtraError`` or ``UsageError``."""
        return _system(self.address.partition("://")[0], os.getpid())

    def full(self, name: str) -> str:
        """The URL of one object."""
        return f"{self.address}/{name}"

    def list(self) -> Iterator[StoredFile]:
        """Every object below the prefix, while the store is still telling them; one that is no bucket is refused."""
        with _storage_errors(self.address, of_bucket=True):
            for name, about in objects_below(self.system(), self.address):
                yield _stored(name, about)

    def read(self, name: str, limits: SizeLimit | None = None) -> bytes:
        """The object, whole: one request."""
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            try:
                size = system.size(url)
                if limits is not None and size is not None and size > limits.size:
                    raise ImageError(f"{url}: {size:,} bytes are more than the limit of {limits.size:,}")
                return bytes(system.cat_file(url))
            except FileNotFoundError as error:
                raise ImageError(f"{url} is gone", hint="list the prefix again") from error

    def head(self, name: str, size: int, *, start: int = 0) -> bytes | None:
        """The first bytes, or ``size`` from ``start`` on, by a range request."""
        url = self.full(name)
        with _storage_errors(url):
            try:
                return bytes(self.system().cat_file(url, start=start, end=start + size))
            except FileNotFoundError:
                return None

    def version_tag(self, name: str) -> str | None:
        """Size and ETag or generation, as they are now."""
        url = self.full(name)
        with _storage_errors(url):
            try:
                return _stamp(self._about(url))
            except FileNotFoundError:
                return None

    def write_with(self, name: str, write: Callable[[Path], object]) -> str:
        """Written here first, then sent; an object appears when it is whole."""
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            part = Path(folder, "part")
            write(part)
            return self.send(name, part)

    def write(self, name: str, data: bytes, *, durable: bool = False) -> str:
        """As ``send``, of bytes; a store answers when it has the object."""
        del durable
        return self.send(name, data)

    def fetch(self, entry: StoredFile, path: Path) -> None:
        """A listed object (one without a stamp is asked after) as a file at ``path``, whole and as the store states it.

        Raises ``ObjectGoneError`` where it is no longer there, and ``IntegrityError`` for other bytes.
        """

        def get(url: str) -> Path:
            self.system().get_file(url, str(path))
            return path

        self._whole(entry, get)

    def read_listed(self, entry: StoredFile, limits: SizeLimit | None = None) -> bytes:
        """The bytes of a listed object, whole and as the store states it; nothing of it is left on this disk.

        Raises ``ObjectGoneError`` where it is no longer there, ``ImageError`` past ``limits``, and ``IntegrityError``
        for other bytes.
        """
        url = self.full(entry.name)
        if limits is not None and entry.size > limits.size:
            raise ImageError(f"{url}: {entry.size:,} bytes are more than the limit of {limits.size:,}")
        return self._whole(entry, lambda url: bytes(self.system().cat_file(url)))

    def _whole(self, entry: StoredFile, get: Callable[[str], Content]) -> Content:
        """What ``get`` brings of a listed object, as the store states it."""
        url = self.full(entry.name)
        stated = [entry] if entry.stamp else []

        def bring() -> Content:
            try:
                content = get(url)
                # A listing may be behind what was written since: the second time the object itself is asked.
                self._check(content, stated.pop() if stated else _stored(entry.name, self._about(url)))
            except FileNotFoundError as error:
                raise ObjectGoneError(f"{url} is gone", hint="run it again") from error
            return content

        with _storage_errors(url):
            return _until_whole(bring)

    def send(self, name: str, content: Path | bytes) -> str:
        """Put the file at a path, or bytes, there, in parts where it is large; its stamp.

        Raises ``IntegrityError`` where the store then has another size or checksum: the object is removed again, so
        that nobody takes it for what was sent.
        """
        url = self.full(name)

        def put() -> str:
            self._put(content, url)
            try:
                there = _stored(name, self._about(url))
            except FileNotFoundError as error:
                # A page in the place of S3's answer says neither yes nor no, and its library takes it for a yes.
                raise SourceUnreachableError(f"{url} was sent, and is not there", hint=ANOTHER_ANSWERS) from error
            self._check(content, there, ours=True)
            return there.stamp

        with _storage_errors(url, of_bucket=True):
            try:
                return _until_whole(put)
            except IntegrityError:
                self.remove(name)
                raise

    def _about(self, url: str) -> dict[str, Any]:
        """What the store says of an object now, and not what a listing said of it."""
        system = self.system()
        system.invalidate_cache()
        about: dict[str, Any] = system.info(url)
        return about

    def _put(self, content: Path | bytes, url: str) -> None:
        """Send a file or bytes; to S3 a large file in parts, which a run that is killed leaves for the next one."""
        system, how = self.system(), {**self._in_parts(content), **self._checksums(content)}
        try:
            if isinstance(content, bytes):
                system.pipe_file(url, content, **how)
            elif self._in_parts(content) and content.stat().st_size >= 2 * PART_BYTES:
                bucket, key, _ = system.split_path(url)
                PartsUpload(system, bucket, key, content, PART_BYTES, self._takes_checksums).perform()
            else:
                system.put_file(str(content), url, **how)
        except Exception as error:
            # Each store has its own word for bytes that are not those of their checksum.
            if _DAMAGED.search(f"{type(error).__name__}: {error}"):
                raise IntegrityError(
                    f"{url}: it arrived damaged", hint="run it again; what is right is kept"
                ) from error
            raise

    def _in_parts(self, content: Path | bytes) -> dict[str, int]:
        """The size of parts, where the store's library lets us choose it: their ETag can then be computed."""
        chosen = self._is_s3 and object_checksums.size_of(content) < _MOST_PARTS * PART_BYTES
        return {"chunksize": PART_BYTES} if chosen else {}

    def _checksums(self, content: Path | bytes) -> dict[str, Any]:
        """The SHA-256 that S3 holds what comes to, and keeps: ``verify`` then need not read the object.

        Of an object that goes up in parts S3 takes that of each part; a store that knows no checksums is told none,
        where AWS's own setting says so (``AWS_REQUEST_CHECKSUM_CALCULATION=when_required``). To Azure each block brings
        an MD5, for it states none of a blob in blocks.
        """
        if hasattr(self.system(), "service_client"):
            return {"validate_content": True}
        if not self._is_s3 or object_checksums.size_of(content) >= 2 * PART_BYTES or not self._takes_checksums:
            return {}
        return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": object_checksums.sha256_header(content)}

    @property
    def _takes_checksums(self) -> bool:
        config = self.system().s3.meta.config
        return getattr(config, "request_checksum_calculation", "when_supported") != "when_required"

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object if there is none; whether there was none."""
        with _storage_errors(self.address, of_bucket=True):
            try:
                self.system().pipe_file(self.full(name), data, mode="create")
            except FileExistsError:
                return False
            except Exception as error:
                # Each store has its own word for a condition that does not hold.
                if _EXISTS.search(f"{type(error).__name__}: {error}"):
                    return False
                raise
            finally:
                self.system().invalidate_cache()
        return True

    def _check(self, content: Path | bytes, there: StoredFile, *, ours: bool = False) -> None:
        """Compare a file or bytes with what the store states of the object; ``ours``: we sent it just now."""
        size = object_checksums.size_of(content)
        sizes = f"{size:,} bytes here, {there.size:,} there"
        wrong = sizes if there.size != size else self._differs(content, there, ours)
        if wrong:
            raise IntegrityError(f"{self.full(there.name)}: {wrong}", hint="run it again; what is right is kept")

    def _differs(self, content: Path | bytes, there: StoredFile, ours: bool) -> str:
        """Why the bytes are not the object's; ``""`` where they are, and where nothing tells."""
        tag = there.stamp.partition("-")[2] if self._is_s3 else ""
        digest = there.digest or object_checksums.etag_md5(tag)
        if digest is None and not tag:
            return ""
        agrees = digest is not None and object_checksums.agrees(content, digest)
        if agrees or (digest is None and object_checksums.agrees_in_parts(content, tag)):
            return ""
        head = self._head(there.name) if self._is_s3 else {}
        keyed = object_checksums.is_keyed(head)
        digest = object_checksums.whole(head) or (None if keyed else digest)
        if digest is not None:
            right = object_checksums.agrees(content, digest)
            return "" if right else f"its {digest.algorithm} is not the one that the store states, {digest}"
        if not ours or not self._in_parts(content):
            return ""
        # The ETag of an object with a key of its own says nothing of its parts; their SHA-256 does.
        of_parts = object_checksums.of_parts(head)
        wrong = not keyed and object_checksums.is_of_parts(tag)
        wrong = wrong if of_parts is None else of_parts != object_checksums.sha256_of_parts(content, PART_BYTES)
        return "its parts are not those that were sent" if wrong else ""

    def stated_digest(self, entry: StoredFile) -> Digest | None:
        """The digest that the listing states of the whole object; ``None`` without one.

        An ETag in the form of an MD5 is one unless the object is encrypted with a key of its own: it may acquit an
        object, and accuses none.
        """
        return entry.digest or (object_checksums.etag_md5(entry.stamp.partition("-")[2]) if self._is_s3 else None)

    def held_checksum(self, name: str) -> Digest | None:
        """The checksum of the whole object that S3 holds beside its ETag; ``None`` without one, and elsewhere."""
        with _storage_errors(self.full(name)), contextlib.suppress(FileNotFoundError):
            return object_checksums.whole(self._head(name)) if self._is_s3 else None
        return None

    @property
    def _is_s3(self) -> bool:
        return hasattr(self.system(), "call_s3")

    def _head(self, name: str) -> dict[str, Any]:
        """What S3 says of an object who asks for its checksums: how it is encrypted, and what it holds of the whole."""
        bucket, key, _ = self.system().split_path(self.full(name))
        head: dict[str, Any] = self.system().call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        return head

    def open(self, name: str) -> BinaryIO:
        """The object, read in blocks as they are asked for."""
        url = self.full(name)
        with _storage_errors(url):
            try:
                opened: BinaryIO = self.system().open(url, "rb")
            except FileNotFoundError as error:
                raise ImageError(f"{url} is gone", hint="run it again") from error
        return opened

    def remove(self, name: str) -> None:
        """Take the object away."""
        url = self.full(name)
        with _storage_errors(url), contextlib.suppress(FileNotFoundError):
            self.system().rm_file(url)


def _until_whole(move: Callable[[], T]) -> T:
    """What ``move`` gives; bytes that got lost on their way are sent for again before anybody is told."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(IntegrityError):
            return move()
    return move()


def _stored(name: str, about: Mapping[str, Any]) -> StoredFile:
    size, written = int(about.get("size") or 0), about.get("written")
    return StoredFile(name, size, _stamp(about), object_checksums.stated(about), written and written.timestamp())


def _stamp(about: Mapping[str, Any]) -> str:
    sign = about.get("ETag") or about.get("etag") or about.get("generation") or about.get("mtime") or ""
    return f"{about.get('size')}-{str(sign).strip(chr(34))}"
