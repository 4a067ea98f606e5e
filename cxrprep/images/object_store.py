"""Object stores (s3://, gs://) as the file system of a conversion, through fsspec."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cxrprep.errors import AccessError, CxrprepError, ImageError, MissingExtraError, SourceUnreachableError, UsageError
from cxrprep.extras import install_command
from cxrprep.images.filesystem import StoredFile
from cxrprep.images.radiograph import DEFAULT_LIMITS, ImageLimits
from cxrprep.model import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# scheme -> the extra that installs its fsspec package
_EXTRAS: Final = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
_REFUSED: Final = re.compile(r"\b(401|403)\b|[Cc]redential|Forbidden|Unauthorized")


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
        raise UsageError(f"{scheme}:// is no address that fsspec knows", hint="gs://, s3:// or a path") from error


def _missing(scheme: str, what: str) -> CxrprepError:
    extra = _EXTRAS.get(scheme)
    command = install_command(extra) if extra else "install the fsspec package that serves it"
    return MissingExtraError(f"{scheme}:// needs another package: {what}", hint=command)


@contextlib.contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    """What an object store raises, in our words; ``FileNotFoundError`` is the caller's to explain."""
    try:
        yield
    except (CxrprepError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise AccessError(
            f"{address} refuses: {error}", hint="sign in to the store (gcloud auth, aws configure) and run it again"
        ) from error
    except Exception as error:
        # Each store raises the errors of its own library, of which this room knows none.
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        if _REFUSED.search(text):
            hint = "sign in to the store (gcloud auth, aws configure) and run it again"
            raise AccessError(f"{address} refuses: {text}", hint=hint) from error
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

    def read(self, name: str, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
        """The object, whole: one request."""
        url = self.full(name)
        system = self.system()
        with _storage_errors(url):
            try:
                size = system.size(url)
                if size is not None and size > limits.size:
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


def _stamp(about: dict[str, Any]) -> str:
    sign = about.get("ETag") or about.get("etag") or about.get("generation") or about.get("mtime") or ""
    return f"{about.get('size')}-{str(sign).strip(chr(34))}"


def _stated(about: dict[str, Any]) -> Digest | None:
    """The MD5 that Google states of an object; an ETag of S3 is an MD5 only sometimes, so it is none here."""
    text = about.get("md5Hash")
    if not isinstance(text, str):
        return None
    try:
        return Digest("md5", base64.b64decode(text).hex())
    except ValueError:
        return None
