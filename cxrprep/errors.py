"""Errors of cxrprep, each with its exit code and a hint that says what to do next.

Exit codes (documented for cron jobs): 0 done, 1 a bug, 2 usage, 3 some items failed, 4 integrity, 5 access,
6 source unreachable, 7 local storage, 8 the selection matched nothing, 75 another run holds the folder,
130 and 143 interrupted.
"""

from __future__ import annotations

import enum
import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path


class ExitCode(enum.IntEnum):
    """What a finished process says to the shell, and what a cron job should do about it."""

    DONE = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    INTEGRITY = 4
    ACCESS = 5
    UNREACHABLE = 6
    STORAGE = 7
    NOTHING_SELECTED = 8
    BUSY = 75
    INTERRUPTED = 130
    TERMINATED = 143


# A person must act on the first of these; the rest mend themselves when the command is run again.
_PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.ACCESS,
    ExitCode.STORAGE,
    ExitCode.INTEGRITY,
    ExitCode.UNREACHABLE,
    ExitCode.PARTIAL,
)


def most_pressing(codes: Iterable[ExitCode]) -> ExitCode:
    """The one exit code that stands for several: the one that a person must act on. ``DONE`` for none."""
    present = set(codes)
    for code in _PRECEDENCE:
        if code in present:
            return code
    present.discard(ExitCode.DONE)
    return min(present, default=ExitCode.DONE)


# What other programs call one of ours.
_ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("workers", "num-workers", "n-jobs", "threads", "processes", "cores", "cpus", "parallel"), "jobs"),
    **dict.fromkeys(("output", "output-dir", "outdir", "dest", "destination"), "out"),
}
# Words of which fewer letters are alike are other words: "workers" is not "scores" (0.62), "fmt" is "format" (0.67).
_ALIKE: Final = 0.65


def did_you_mean(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """``"did you mean NAME? "``, or ``""`` when nothing of ``known`` is near ``word``.

    Neither case nor the dashes of an option count. A word that is a part of names, as ``224`` is of ``square-224``,
    means any of them: they are all said. ``shown`` makes the name of what is known by several spellings.
    """
    import difflib

    spelled = {name.lower().lstrip("-"): name for name in known}
    typed = word.lower().lstrip("-")
    usual = typed if typed in spelled else _ELSEWHERE.get(typed.replace("_", "-"))
    parts = [name for name in spelled if typed and f"-{typed}-" in f"-{name.replace('_', '-')}-"]
    near = [usual] if usual in spelled else parts or difflib.get_close_matches(typed, spelled, 1, _ALIKE)
    names = list(dict.fromkeys(shown(spelled[name]) for name in near))
    return f"did you mean {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}? " if names else ""


class CxrprepError(Exception):
    """Base of all errors that cxrprep raises on purpose. Do not raise it itself; choose the class that fits.

    ``message`` names the file or option, ``hint`` the next step. Neither ever holds a credential, a signed query
    string or report text.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Remember what happened and what to do about it."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """What happened; the hint is shown apart."""
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint when the error crosses a process boundary."""
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[CxrprepError], message: str, hint: str) -> CxrprepError:
    return kind(message, hint=hint)


class UsageError(CxrprepError):
    """Raise when an option, a job file, a recipe or a name is wrong. Do not raise for bad data in a dataset."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """Raise when a TOML file is invalid; the message gives file and line. Do not raise for command-line options."""


class FolderKindError(UsageError):
    """Raise when a verb is for other kinds of folder. Do not raise for a folder that lacks something."""


class SomeFailedError(CxrprepError):
    """Raise when some items failed and the others are done. Do not raise when nothing could be tried."""

    exit_code = ExitCode.PARTIAL


class IntegrityError(CxrprepError):
    """Raise when bytes, sizes or published facts do not hold. Do not raise for a file that is not there yet."""

    exit_code = ExitCode.INTEGRITY


class TableError(IntegrityError):
    """Raise when a label table cannot be read as what it claims to be; name file, line and column."""


class UnreadableTableError(TableError, OSError):
    """Raise when a table of our own is damaged; whoever goes on without one catches it as what a disk says."""

    def __format__(self, _: str) -> str:
        """The reason alone: a message that quotes it has named the table."""
        return self.message.partition(" cannot be read: ")[2] or self.message


class ArchiveError(IntegrityError):
    """Raise when an archive is damaged, a bomb, or has a member that would leave the root."""


class UnsafePathError(IntegrityError):
    """Raise when a name from outside (listing, archive, plan, lock) would leave the root."""


class ImageError(IntegrityError):
    """Raise when an image cannot be decoded as what it claims to be, or goes past a limit; name the file."""


IMAGE_AGAIN: Final = "cxrprep verify ROOT says how to get it again"
"""The hint where an image is damaged: a release is fetched again, and what was made is made again."""


class AlteredImageError(ImageError):
    """Raise when an image has other bytes than were recorded of it. Do not raise where none were recorded."""

    @classmethod
    def of(cls, name: str) -> AlteredImageError:
        """The error about the image that is called ``name``."""
        return cls(f"{name}: its bytes are not those that were recorded", hint=IMAGE_AGAIN)


class SeveralFramesError(ImageError):
    """Raise for a file of several frames or pages of which none was named; ``frames`` of them can be read."""

    def __init__(self, message: str, *, hint: str = "", frames: int = 0) -> None:
        """Remember how many can be read."""
        super().__init__(message, hint=hint)
        self.frames = frames


class AccessError(CxrprepError):
    """Raise when credentials are missing or rejected, an agreement is unsigned, a URL expired, a project unbilled.

    Do not raise for a server that is down (``SourceUnreachableError``).
    """

    exit_code = ExitCode.ACCESS


class LoginError(AccessError):
    """Raise when a service does not know who asks (401): no login was found. Do not raise for a missing right (403)."""


class LoginRejectedError(LoginError):
    """Raise when a service rejects the login or token that it was sent (401). Do not raise when none was sent."""


class ProxyOrCertificateError(AccessError):
    """Raise when what lies before a service refuses: its certificate is not trusted, a proxy wants a login.

    Do not raise for what the service itself says of a login: this says nothing about that.
    """


class SourceUnreachableError(CxrprepError):
    """Raise when a server cannot be reached, is overloaded after retries, or stalls. Do not raise for 401, 403, 404."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retry_after: float | None = None,
        lasting: bool = False,
        tries: int | None = None,
        overloaded: bool = False,
    ) -> None:
        """Remember what happened, what to do about it, and whether another try is worth it.

        Args:
            message: What happened.
            hint: The next step.
            retry_after: Seconds that the server asked for; ``None`` when it asked for nothing.
            lasting: To ask again would bring the same answer.
            tries: How often at most it is asked for what is hardly an accident of the network.
            overloaded: The server has too much to do (429, 503).
        """
        super().__init__(message, hint=hint)
        # 0, or a time that has passed, leaves it to whoever asks: at once, all tries would go within a second.
        self.retry_after = retry_after or None
        self.lasting, self.tries, self.overloaded = lasting, tries, overloaded


class NotInSourceError(CxrprepError):
    """Raise when a source answers that a file does not exist (404, missing object, missing path)."""

    exit_code = ExitCode.PARTIAL


class SourceNotFoundError(NotInSourceError):
    """Raise when a mirror, project, bucket or container as a whole does not exist. Do not raise for one file of it."""

    exit_code = ExitCode.USAGE


class StorageError(CxrprepError):
    """Raise when the local disk is full, read-only, vanished or not writable; name the path."""

    exit_code = ExitCode.STORAGE


class NothingSelectedError(CxrprepError):
    """Raise when a selection matches no file. Do not raise when everything selected is already here."""

    exit_code = ExitCode.NOTHING_SELECTED


class BusyError(CxrprepError):
    """Raise when another run holds the folder; say which host and process."""

    exit_code = ExitCode.BUSY


class MissingExtraError(UsageError):
    """Raise when an optional package is needed; the hint is the command that installs it."""


FAILING: Final = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV})
"""What the system says where a disk, or a share, fails: more room, or other permissions, would not help."""
FAILING_HINT: Final = "its disk or share fails: look at it, or mount it again; then run the same again"


def storage_error(path: Path | str, doing: str, error: OSError) -> StorageError:
    """The error for a disk that refused: names the path, the reason, and what to do about it."""
    hint = "free space or make the folder writable; for a read-only ROOT keep the record beside it with --state DIR"
    if doing in ("list", "read"):
        hint = f"make {'the folder' if doing == 'list' else 'it'} readable"
    if error.errno in FAILING:
        hint = FAILING_HINT
    if error.errno == errno.ENOTDIR:
        hint = "a part of this path is a file: name another folder"
    if error.errno == errno.EISDIR:
        hint = "a folder lies where this file belongs: move it away, or name another file"
    return StorageError(f"cannot {doing} {path}: {error.strerror or error}", hint=hint)


@contextmanager
def storage_errors(path: Path | str, doing: str) -> Iterator[None]:
    """What the disk refuses within the block raises ``storage_error``."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, doing, error) from error
