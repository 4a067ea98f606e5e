"""Hard links and clones (reflinks) of files that are on this machine already, or adoption in place."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from cxrprep.errors import storage_error

if TYPE_CHECKING:
    from pathlib import Path

    from cxrprep.model import RemoteFile

# _IOW(0x94, 9, int) on Linux: share the blocks of another file until one of the two is written to.
_FICLONE: Final = 0x40049409
_CANNOT: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EACCES}
)


@runtime_checkable
class OnThisMachine(Protocol):
    """A source whose files have paths here."""

    def path_of(self, file: RemoteFile) -> Path:
        """Where ``file`` lies."""
        ...


def take_over(origin: Path, target: Path, how: str) -> bool:
    """Make ``target`` a clone or a link of ``origin``; ``False`` when the file systems cannot, so it must be copied.

    Raises ``StorageError``.
    """
    if how == "copy":
        return False
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "hardlink":
            # A link to a link would tie us to whatever that points to later.
            os.link(os.path.realpath(origin), target)
            return True
        return _clone(origin, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in _CANNOT:
            return False
        raise storage_error(target, "write", error) from error


def _clone(origin: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with origin.open("rb") as source, target.open("xb") as made:
        fcntl.ioctl(made.fileno(), _FICLONE, source.fileno())
    return True
