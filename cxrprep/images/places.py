"""Where images are read from and written to: a folder here, or an object store through fsspec.

Names are relative and ``/``-separated. A *stamp* changes with the content (size and times of a file here; ETag or
generation in a store), so that what was seen once need not be read again.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from cxrprep.durable import replace_file
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    ImageError,
    MissingExtraError,
    SourceUnreachableError,
    StorageError,
    UsageError,
)
from cxrprep.images.picture import DEFAULT_LIMITS, Limits
from cxrprep.images.reading import read_bytes
from cxrprep.model import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# scheme -> the extra that installs its fsspec package
_EXTRAS: Final = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
_LINKS: Final = 8
_TEMPORARY: Final = ".tmp"
_REFUSED: Final = re.compile(r"\b(401|403)\b|[Cc]redential|Forbidden|Unauthorized")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing shows it: ``digest`` is what the store itself states of the content."""

    name: str
    size: int
    stamp: str
    digest: Digest | None = None


class Place(Protocol):
    """A folder, wherever it is. Small to pickle: worker processes get it with their work."""

    @property
    def address(self) -> str:
        """The folder as a path or a URL."""
        ...

    def full(self, name: str) -> str:
        """The path or URL of one file."""
        ...

    def list(self) -> Iterator[Entry]:
        """Every file below, in no promised order. Raises ``StorageError`` or the store's errors."""
        ...

    def read(self, name: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The bytes of a file. Raises ``ImageError`` for one that is gone or past ``limits``."""
        ...

    def head(self, name: str, size: int) -> bytes | None:
        """The first ``size`` bytes of a file; ``None`` when there is none."""
        ...

    def stamp(self, name: str) -> str | None:
        """What changes with the file's content; ``None`` when there is none."""
        ...

    def fill(self, name: str, write: Callable[[Path], object]) -> str:
        """Let ``write`` fill a temporary file here, then put it in place in one step; its stamp."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The file, to be read at any offset. Raises ``ImageError`` when it is gone."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away; nothing happens when there is none."""
        ...


def is_url(text: str | Path) -> bool:
    """Whether ``text`` names a place that fsspec opens, and not a path here."""
    return isinstance(text, str) and "://" in text and not text.startswith("file://")


def place_of(where: str | Path) -> Place:
    """The folder at a path or URL. Raises ``UsageError`` for a scheme that fsspec does not know."""
    if isinstance(where, str) and is_url(where):
        place = UrlPlace(where.rstrip("/"))
        place.system()
        return place
    return Folder(str(where).removeprefix("file://"))


def read_source(source: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of one source image, a path or a URL. Raises ``ImageError``, ``StorageError`` or the store's errors."""
    if is_url(source):
        folder, _, name = source.rpartition("/")
        return UrlPlace(folder).read(name, limits)
    return read_bytes(Path(source), limits)


def stamp_of(source: str) -> str | None:
    """The stamp of one source image; ``None`` when it is gone."""
    if is_url(source):
        folder, _, name = source.rpartition("/")
        return UrlPlace(folder).stamp(name)
    return _stat_stamp(source)


def _stat_stamp(path: str) -> str | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # asked of every image in every run: a Path costs as much again
    except OSError:
        return None
    # The time of change cannot be set by a program, as the time of modification can.
    return f"{found.st_size}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on a file system that is mounted here."""

    address: str

    def full(self, name: str) -> str:
        """The path of one file."""
        return f"{self.address}/{name}"

    def list(self) -> Iterator[Entry]:
        """Every file below, folder by folder in order of name; links are followed, up to eight deep."""
        queue = [("", 0)]
        while queue:
            folder, links = queue.pop()
            below: list[tuple[str, int]] = []
            try:
                entries = sorted(os.scandir(self.full(folder)), key=lambda entry: entry.name)
            except OSError as error:
                raise StorageError(
                    f"cannot list {error.filename}: {error.strerror}", hint="make the folder readable"
                ) from error
            for entry in entries:
                if entry.is_dir():
                    deeper = links + entry.is_symlink()
                    if deeper <= _LINKS:
                        below.append((f"{folder}{entry.name}/", deeper))
                elif entry.is_file():
                    found = entry.stat()
                    stamp = f"{found.st_size}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}"
                    yield Entry(folder + entry.name, found.st_size, stamp)
            queue += reversed(below)

    def read(self, name: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The bytes of a file."""
        return read_bytes(Path(self.full(name)), limits)

    def head(self, name: str, size: int) -> bytes | None:
        """The first bytes of a file."""
        try:
            with Path(self.full(name)).open("rb") as file:
                return file.read(size)
        except OSError:
            return None

    def stamp(self, name: str) -> str | None:
        """Size, time of modification and time of change."""
        return _stat_stamp(self.full(name))

    def fill(self, name: str, write: Callable[[Path], object]) -> str:
        """Write beside it, make the disk keep it, rename. Raises ``StorageError``."""
        path = Path(self.full(name))
        replace_file(path, write)
        return _stat_stamp(str(path)) or ""

    def open(self, name: str) -> BinaryIO:
        """The file itself."""
        path = Path(self.full(name))
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise ImageError(f"{path} is gone", hint="run it again") from error
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error

    def remove(self, name: str) -> None:
        """Take the file away."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.full(name)).unlink()

    def sweep(self, *, before: float) -> int:
        """Remove temporary files of runs that were killed, last written ``before`` (Unix time); how many they were."""
        removed = 0
        for folder, _, names in os.walk(self.address):
            for name in names:
                if name.startswith(".") and name.endswith(_TEMPORARY):
                    path = Path(folder, name)
                    with contextlib.suppress(OSError):
                        if path.stat().st_mtime < before:
                            path.unlink()
                            removed += 1
        return removed


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
            f"{scheme}:// is no address that fsspec knows", hint="gs://, s3:// or a path"
        ) from error


def _missing(scheme: str, what: str) -> CxrprepError:
    extra = _EXTRAS.get(scheme)
    command = f"pip install 'cxrprep[{extra}]'" if extra else "install the fsspec package that serves it"
    return MissingExtraError(f"{scheme}:// needs another package: {what}", hint=command)


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
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
class UrlPlace:
    """A prefix of an object store."""

    address: str

    def system(self) -> Any:
        """The fsspec file system, one a process. Raises ``MissingExtraError`` or ``UsageError``."""
        return _system(self.address.partition("://")[0], os.getpid())

    def full(self, name: str) -> str:
        """The URL of one object."""
        return f"{self.address}/{name}"

    def list(self) -> Iterator[Entry]:
        """Every object below the prefix."""
        system = self.system()
        with _told(self.address):
            inside = system._strip_protocol(self.address)  # noqa: SLF001  # fsspec's own way from URL to path
            try:
                found = system.find(self.address, detail=True)
            except FileNotFoundError:
                return
        for path, about in found.items():
            yield Entry(path[len(inside) :].lstrip("/"), int(about.get("size") or 0), _stamp(about), _stated(about))

    def read(self, name: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The object, whole: one request."""
        url = self.full(name)
        system = self.system()
        with _told(url):
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
        with _told(url):
            try:
                return bytes(self.system().cat_file(url, start=0, end=size))
            except FileNotFoundError:
                return None

    def stamp(self, name: str) -> str | None:
        """Size and ETag or generation."""
        url = self.full(name)
        with _told(url):
            try:
                return _stamp(self.system().info(url))
            except FileNotFoundError:
                return None

    def fill(self, name: str, write: Callable[[Path], object]) -> str:
        """Written here first, then sent; an object appears when it is whole."""
        import tempfile

        url = self.full(name)
        system = self.system()
        with tempfile.TemporaryDirectory(prefix="cxrprep-") as folder:
            part = Path(folder, "part")
            write(part)
            with _told(url):
                system.put_file(str(part), url)
                system.invalidate_cache()
                return _stamp(system.info(url))

    def open(self, name: str) -> BinaryIO:
        """The object, read in blocks as they are asked for."""
        url = self.full(name)
        with _told(url):
            try:
                opened: BinaryIO = self.system().open(url, "rb")
            except FileNotFoundError as error:
                raise ImageError(f"{url} is gone", hint="run it again") from error
        return opened

    def remove(self, name: str) -> None:
        """Take the object away."""
        url = self.full(name)
        with _told(url), contextlib.suppress(FileNotFoundError):
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
