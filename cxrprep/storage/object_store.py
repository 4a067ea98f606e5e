"""Object stores (s3://, gs://, az://) as a file system, through fsspec."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cxrprep.errors import (
    AccessError,
    CxrprepError,
    ImageError,
    IntegrityError,
    MissingExtraError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.extras import install_command
from cxrprep.model import Digest
from cxrprep.storage.filesystem import StoredFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cxrprep.storage.filesystem import SizeLimit

# scheme -> the extra that installs its fsspec package
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SIGN_IN: Final = {
    "s3": "sign in (aws configure, aws sso login) with the permissions of docs/howto/s3.md, and run it again",
    "gcs": "sign in (gcloud auth application-default login) with the roles of docs/howto/gcs.md, and run it again",
    "azure": "sign in (az login, AZURE_STORAGE_ACCOUNT_NAME) with the roles of docs/howto/azure.md, and run it again",
}
# A condition that does not hold: S3, Google and Azure.
_EXISTS: Final = re.compile(r"FileExists|PreconditionFailed|BlobAlreadyExists|ConditionalRequestConflict|\b(409|412)\b")
_REFUSED: Final = re.compile(
    r"\b(401|403)\b|[Cc]redential|Forbidden|Unauthorized|Expired|AuthenticationFailed|AuthorizationFailure"
)


@functools.lru_cache(maxsize=8)
def _system(scheme: str, process: int) -> Any:
    # By process: connections of an object store do not survive a fork.
    del process
    try:
        import fsspec
    except ImportError as error:
        raise _missing(scheme, "fsspec") from error
    try:
        # Kept by us: fsspec's own cache outlives a change of the environment.
        return fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError as error:
        raise _missing(scheme, str(error)) from error
    except ValueError as error:
        raise UsageError(
            f"{scheme}:// is no address that fsspec knows", hint="s3://, gs://, az:// or a path"
        ) from error


def _missing(scheme: str, what: str) -> CxrprepError:
    extra = _EXTRAS.get(scheme)
    command = install_command(extra) if extra else "install the fsspec package that serves it"
    return MissingExtraError(f"{scheme}:// needs another package: {what}", hint=command)


def _sign_in(address: str) -> str:
    return _SIGN_IN.get(_EXTRAS.get(address.partition("://")[0], ""), "sign in to the store and run it again")


@contextlib.contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    """What an object store raises, in our words; ``FileNotFoundError`` is the caller's to explain."""
    try:
        yield
    except (CxrprepError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise AccessError(f"{address} refuses: {error}", hint=_sign_in(address)) from error
    except Exception as error:
        # Each store raises the errors of its own library, of which this room knows none.
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        if _REFUSED.search(text):
            raise AccessError(f"{address} refuses: {text}", hint=_sign_in(address)) from error
        raise SourceUnreachableError(f"{address}: {text}", hint="run it again; what is done is kept") from error


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
        """Every object below the prefix."""
        system = self.system()
        with _storage_errors(self.address):
            inside = system._strip_protocol(self.address)  # noqa: SLF001  # fsspec's own way from URL to path
            try:
                found = system.find(self.address, detail=True)
            except FileNotFoundError:
                return
        for path, about in found.items():
            yield StoredFile(
                path[len(inside) :].lstrip("/"), int(about.get("size") or 0), _stamp(about), _stated(about)
            )

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

    def head(self, name: str, size: int) -> bytes | None:
        """The first bytes, by a range request."""
        url = self.full(name)
        with _storage_errors(url):
            try:
                return bytes(self.system().cat_file(url, start=0, end=size))
            except FileNotFoundError:
                return None

    def version_tag(self, name: str) -> str | None:
        """Size and ETag or generation."""
        url = self.full(name)
        with _storage_errors(url):
            try:
                return _stamp(self.system().info(url))
            except FileNotFoundError:
                return None

    def write_with(self, name: str, write: Callable[[Path], object]) -> str:
        """Written here first, then sent; an object appears when it is whole."""
        import tempfile

        url = self.full(name)
        system = self.system()
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            part = Path(folder, "part")
            write(part)
            with _storage_errors(url):
                system.put_file(str(part), url)
                system.invalidate_cache()
                return _stamp(system.info(url))

    def write(self, name: str, data: bytes, *, durable: bool = False) -> str:
        """One request; a store answers when it has the object."""
        del durable
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            system.pipe_file(url, data)
            system.invalidate_cache()
            return _stamp(system.info(url))

    def fetch(self, name: str, path: Path) -> None:
        """The object as a file at ``path``, whole and as the store states it. Raises ``IntegrityError`` otherwise."""
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            try:
                system.get_file(url, str(path))
                self._check(name, path, system.info(url))
            except FileNotFoundError as error:
                raise ImageError(f"{url} is gone", hint="run it again") from error

    def send(self, name: str, path: Path) -> str:
        """Put the file at ``path`` there, in parts where it is large; its stamp.

        Raises ``IntegrityError`` where the store then has another size or checksum than the file.
        """
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            system.put_file(str(path), url)
            system.invalidate_cache()
            about = system.info(url)
            self._check(name, path, about)
            return _stamp(about)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object if there is none; whether there was none."""
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            try:
                system.pipe_file(url, data, mode="create")
            except FileExistsError:
                return False
            except FileNotFoundError as error:
                raise UsageError(
                    f"{self.address}: there is no such bucket", hint="make it, or check its name"
                ) from error
            except Exception as error:
                # Each store has its own word for a condition that does not hold.
                if _EXISTS.search(f"{type(error).__name__}: {error}"):
                    return False
                raise
            finally:
                system.invalidate_cache()
        return True

    def _check(self, name: str, path: Path, about: dict[str, Any]) -> None:
        """Compare a file with what the store states of the object: size, and MD5 where there is one of the whole."""
        size = path.stat().st_size
        stated = _stated(about) or _etag_md5(about)
        wrong = f"{size:,} bytes here, {about.get('size')} there" if about.get("size") != size else ""
        if not wrong and stated is not None and _md5(path) != stated.value and not self._is_keyed(name):
            wrong = f"its MD5 is not the one that the store states, {stated.value}"
        if wrong:
            raise IntegrityError(f"{self.full(name)}: {wrong}", hint="run it again; what is right is kept")

    def _is_keyed(self, name: str) -> bool:
        """Whether an object of S3 is encrypted with a key of its own: its ETag then is no MD5."""
        system = self.system()
        if not hasattr(system, "call_s3"):
            return False
        bucket, key, _ = system.split_path(self.full(name))
        about = system.call_s3("head_object", Bucket=bucket, Key=key)
        return about.get("ServerSideEncryption") in ("aws:kms", "aws:kms:dsse") or bool(
            about.get("SSECustomerAlgorithm")
        )

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


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _etag_md5(about: dict[str, Any]) -> Digest | None:
    """The ETag of S3 where it has the form of an MD5; one of parts has a dash in it."""
    tag = str(about.get("ETag") or "").strip('"')
    return Digest("md5", tag) if re.fullmatch(r"[0-9a-f]{32}", tag) else None


def _stamp(about: dict[str, Any]) -> str:
    sign = about.get("ETag") or about.get("etag") or about.get("generation") or about.get("mtime") or ""
    return f"{about.get('size')}-{str(sign).strip(chr(34))}"


def _stated(about: dict[str, Any]) -> Digest | None:
    """The MD5 that Google and Azure state of an object; an ETag of S3 is one only sometimes, so it is none here."""
    settings = about.get("content_settings")
    if settings is not None and settings.get("content_md5"):
        return Digest("md5", bytes(settings["content_md5"]).hex())
    text = about.get("md5Hash")
    if not isinstance(text, str):
        return None
    try:
        return Digest("md5", base64.b64decode(text).hex())
    except ValueError:
        return None
