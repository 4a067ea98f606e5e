"""Release paths: relative, ``/`` separated, and never leading out of the folder that they are joined to."""

from __future__ import annotations

import os
import pathlib
import re
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UnsafePathError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Absolute, a drive, a backslash, control characters, or an empty, "." or ".." component. Python and RE2 read it alike.
UNSAFE_PATTERN: Final = r"^[A-Za-z]:|\\|[\x00-\x1f\x7f]|(^|/)\.{0,2}(/|$)"
_UNSAFE: Final = re.compile(UNSAFE_PATTERN + "|[\ud800-\udfff]")
# What nearly every path looks like, and nothing that the other pattern finds: read in an eighth of its time.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")

MEMBER: Final = re.compile(r"(.+\.(tar|parquet))/(.+)")
"""A manifest's path of an image in a shard: the shard, how it ends, and the image's name there."""
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".zip")

LOCK_NAME: Final = "cxrprep.lock"
FILES_NAME: Final = "cxrprep.files.parquet"
CACHE_NAME: Final = ".cxrprep"
OWN_FOLDERS: Final = frozenset({CACHE_NAME, "manifests", "derived", "export"})
"""The folders that the program itself puts below a ROOT, beside what was released."""
OWN_NAMES: Final = OWN_FOLDERS | {LOCK_NAME, FILES_NAME}
"""These, and its files there."""


def is_safe(path: str) -> bool:
    """Whether ``path`` is relative, ``/``-separated and stays below its root."""
    return _PLAIN.fullmatch(path) is not None or _UNSAFE.search(path) is None


def first_unsafe(paths: Sequence[str]) -> str | None:
    """The first of ``paths`` that is not safe; ``None`` when all are."""
    if all(map(_PLAIN.fullmatch, paths)):
        return None
    return next((path for path in paths if not is_safe(path)), None)


def safe_path(path: str) -> str:
    """``path`` itself when it is relative, ``/``-separated and stays below its root. Raises ``UnsafePathError``."""
    if _PLAIN.fullmatch(path) is None and _UNSAFE.search(path):
        raise UnsafePathError(
            f"{path!r} is not a path inside the folder",
            hint="whatever named it (a listing, an archive, a plan, a record, a table) is damaged or not to be trusted",
        )
    return path


def inside(path: str) -> str:
    """The path of an image in a table that was found, itself; people give files of their own any name.

    Raises ``UnsafePathError`` where it leads out of the folder: what is made of the images would hold another file.
    """
    return safe_path(path) if path.startswith("/") or ".." in path.split("/") else path


def is_in_shard(path: str) -> bool:
    """Whether a manifest's path names a member of a shard, and not a file."""
    return MEMBER.fullmatch(path) is not None


def leads_out(root: Path, path: str) -> bool:
    """Whether the release path leads out of ``root`` by a link, its own or that of a folder on the way.

    What lies there is somebody else's, whatever a record says: it may be read, and is never replaced or removed.
    """
    inside, place = os.path.realpath(root), os.path.realpath(root / path)
    return os.path.commonpath((inside, place)) != inside


def home_path(text: Path | str) -> Path:
    """``text`` as a path, with a home folder for ``~`` and ``~NAME``. Raises ``UsageError`` where there is none."""
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError:
        user = os.fspath(text).partition("/")[0]
        hint = f"write the path in full; a folder of that name is ./{user}"
        raise UsageError(f"{text}: no home folder is known for {user}", hint=hint) from None


# An address, also after a path object has taken one of its slashes away. A drive's letter is one letter.
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


# A slip in one: as a path it would be a folder ``./s3``, or ``./s3:``.
_SLIP: Final = re.compile(r"(?P<scheme>s3a?|gs|gcs|az|abfss?|https?|file)(?P<mark>//|:(?!/))", re.IGNORECASE)


def _refuse_slip(text: str, what: str) -> None:
    found = _SLIP.match(text)
    if found is None or pathlib.Path(found["scheme"] if found["mark"] == "//" else text).exists():
        return
    raise UsageError(
        f"{what}: {text} looks like an address, which begins with {found['scheme'].lower()}://",
        hint=f"write it so; for a path of this machine: ./{text}",
    )


def _without_login(text: str) -> str:
    return re.sub(r"//?[^/@]*:[^/@]*@", "//", text)


def refuse_address(text: str, what: str) -> None:
    """Raise ``UsageError`` for an address where only a path of this machine is served: ``what`` names the option."""
    _refuse_slip(text, what)
    if _ADDRESS.match(text):
        raise UsageError(
            f"{what}: {_without_login(text)} is an address, and has to be a path of this machine here",
            hint="s3://, gs:// and az:// serve ROOT, --out, --state and tables; name a path of this machine here",
        )


# A host, and what lies there: a name with a dot, or an address, before a port or a slash.
_HOST_AND_PATH: Final = re.compile(
    r"(?:(?:[\w-]+\.)+(?:[^\W\d_]{2,}|\d{1,3})|localhost)(?::\d+(?:/.*)?|/.*)", re.DOTALL
)


def perhaps_address(text: str) -> bool:
    """Whether only its scheme keeps ``text`` from being an address."""
    return _HOST_AND_PATH.fullmatch(text) is not None


# The addresses that a verb takes wherever it takes a folder.
SCHEMES: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def is_served(text: str) -> bool:
    """Whether ``text`` is the address of a folder or file in a store, also after a path object took a slash away."""
    scheme, colon, rest = text.partition(":")
    return bool(colon) and rest.startswith("/") and scheme in SCHEMES


_SHORTENED: Final = re.compile(rf"\b({'|'.join(SCHEMES)}):/(?=[^/\s])")


def whole_addresses(text: str) -> str:
    """``text``, with both slashes in the addresses of stores: a path object takes one away."""
    return _SHORTENED.sub(r"\1://", text)


# What Amazon's library and Google take, old names and access points among it; of Azure a container.
_BUCKET: Final = re.compile(r"arn:aws[a-z-]*:s3[A-Za-z0-9:._-]*|(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_CONTAINER: Final = re.compile(r"\$(root|web|logs)|(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def refuse_unserved(text: str, what: str) -> None:
    """Raise ``UsageError`` for an address that no store understands: ``what`` names the option."""
    _refuse_slip(text, what)
    if not _ADDRESS.match(text):
        return
    shown = _without_login(text)
    if not is_served(text):
        raise UsageError(
            f"{what}: {shown} is an address that no store understands", hint="s3://, gs://, az:// or a path"
        )
    place = text.partition(":/")[2].removeprefix("/")
    bucket, _, inside = place.partition("/")
    if not bucket:
        raise UsageError(f"{what}: {shown} names no bucket", hint="for example: s3://bucket/folder")
    of_azure = text.startswith("a")
    if not (_CONTAINER if of_azure else _BUCKET).fullmatch(bucket):
        raise UsageError(
            f"{what}: {shown} is an address with a name that no bucket can have",
            hint="az://CONTAINER/FOLDER, and AZURE_STORAGE_ACCOUNT_NAME names the account"
            if of_azure
            else f"{text.partition(':')[0]}://BUCKET/FOLDER: letters, digits, '.', '_' and '-'",
        )
    if inside.rstrip("/") and not is_safe(inside.rstrip("/")):
        raise UsageError(
            f"{what}: {shown} is an address that leads out of its bucket, or has a part that no folder can be called",
            hint="write it without '.', '..', '//' and control characters",
        )


def local_path(path: Path | str, what: str) -> Path:
    """``path`` as a path of this machine. Raises ``UsageError`` for an address."""
    refuse_address(os.fspath(path), what)
    return pathlib.Path(path)


def is_archive(name: str) -> bool:
    """Whether a file of this name holds other files (``table.csv.gz`` does not)."""
    return name.lower().endswith(_ARCHIVES)


def holds_images(name: str) -> bool:
    """Whether a file of this name is an archive of images; an archive of reports is used as it is."""
    return is_archive(name) and "report" not in name


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder, or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a file, or a link to one; a link in a circle is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def nearest_folder(path: Path) -> Path:
    """A path, or the nearest folder above it that is there: that of the disk on which it would lie."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def enclosing(folder: Path, name: str) -> Path | None:
    """The nearest folder above ``folder`` that holds a file ``name``, as near to how it was written as possible."""
    for above in folder.absolute().parents:
        if (above / name).is_file():
            steps = len(folder.absolute().parts) - len(above.parts)
            return folder.parents[steps - 1] if len(folder.parts) >= steps else above
    return None
