"""Credentials in files: netrc, kaggle.json, Kaggle's session, a file with a token or a signed URL."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from cxrprep.credentials.secret import Secret
from cxrprep.credentials.services import ADVICE, KAGGLE_HOSTS
from cxrprep.errors import AccessError, UsageError
from cxrprep.humanize import INVISIBLE
from cxrprep.storage.paths import home_path
from cxrprep.storage.small_files import encoding_of, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# No credential is longer; a larger file was named by mistake.
_LIMIT: Final = 65_536
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
# The login of a netrc entry whose password is a token.
BEARER: Final = "bearer"
_NETRC_PORT: Final = re.compile(r"(\s)port\s+\d+(?=\s|$)")
# What mails and shells put around a link.
_QUOTES: Final = "\"'<>\u201c\u201d\u2018\u2019\ufeff \t\r\n"
# Not without the semicolon: ``&reg`` begins a parameter as well.
_ENTITY: Final = re.compile(r"&(?:#\d+|#x[0-9a-f]+|\w+);", re.IGNORECASE)
_BEFORE_TOKEN: Final = re.compile(r"(?:Authorization:\s*)?Bearer\s+", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\([?&=])")
_REWRITTEN: Final = re.compile(r"https://[\w.-]+\.safelinks\.protection\.outlook\.com/[^\s?]*\?url=([^\s&]+)\S*")
_LINK: Final = re.compile(rf"https?://[^\s{_QUOTES}]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Login:
    """A user name with its password, and the hosts that may see them. ``origin`` says where they were found."""

    user: str
    password: Secret
    origin: str
    hosts: tuple[str, ...] = ()

    def permits(self, host: str) -> bool:
        """Whether this login may be sent to ``host``: exactly the hosts it is for, in any case, no others."""
        return host.lower().rstrip(".") in self.hosts


@dataclass(frozen=True, slots=True)
class Token:
    """A secret without a user name: an API token or a signed URL. ``origin`` says where it was found.

    ``renewal`` is what the service gives a new one for, once this one has ended; ``secret`` is empty when it has.
    """

    secret: Secret
    origin: str
    hosts: tuple[str, ...] = ()
    renewal: Secret | None = None


def sendable(token: Token) -> Token:
    """``token``, without quotes or a ``Bearer`` before it. Raises ``AccessError`` for what no header holds: a blank."""
    seen = INVISIBLE.sub("", token.secret.reveal())
    text = _BEFORE_TOKEN.sub("", seen.strip(_QUOTES)).strip(_QUOTES)
    if not _VISIBLE.fullmatch(text):
        raise AccessError(f"{token.origin} holds no token", hint="it is one word, without blanks")
    return replace(token, secret=Secret(text))


def token_of(text: str) -> Secret:
    """The token that a variable holds, or the file that it names."""
    path = Path(text)
    return secret_in(path) if len(text) < 1024 and path.is_file() else Secret(text)


def secret_in(path: Path) -> Secret:
    """The secret in a file. Raises ``AccessError`` for a file that cannot be read, is empty, or is no secret."""
    text = _text_of(path, "name the file that holds the secret")
    if not text.strip():
        raise AccessError(f"{path} is empty", hint="the file should hold the secret, and nothing else")
    return Secret(text.strip())


def link_file(path: Path) -> Path:
    """``path``, which an option named as the file with a signed URL. Raises ``UsageError`` where nothing is there."""
    if not home_path(path).exists():
        raise UsageError(f"--url-file: {path} does not exist", hint="save the link in a file, and name that")
    return path


def _text_of(path: Path, hint: str) -> str:
    """The text of a small file, in UTF-8 or as Windows writes it. Raises ``AccessError``.

    Notepad and PowerShell begin a file with a byte order mark, and Windows PowerShell 5 writes UTF-16: a mark that was
    taken for the first character of a secret would make a good one wrong.
    """
    try:
        with home_path(path).open("rb") as file:
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise AccessError(f"{path} is too long for a secret", hint=hint)
        return data.decode(encoding_of(data))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or "no reason given" if isinstance(error, OSError) else "it is not text"
        raise AccessError(f"{path}: cannot be read: {why}", hint=hint) from None


class _Entries(dict[str, Any]):
    """All entries of each host, in their order: the library keeps the last of a host, curl and wget take the first."""

    def __setitem__(self, host: str, entry: object) -> None:
        # What it puts in first is empty, and stands for what it is about to read.
        super().__setitem__(host, [*self.get(host, ()), *([entry] if entry else [])])


def netrc_hosts(path: Path) -> Mapping[str, Sequence[tuple[str, str, str]]]:
    """Host in lower case -> user, account and password of its entries in a netrc file. Raises ``AccessError``."""
    import io
    import netrc

    text = _text_of(path, ADVICE["physionet"])
    # ``port``, which curl and wget know, is a word that Python's parser refuses.
    text = _NETRC_PORT.sub(r"\1", text)
    table = netrc.netrc.__new__(netrc.netrc)
    table.hosts, table.macros = _Entries(), {}
    try:
        # The constructor opens the file by itself, and would take a byte order mark for part of the first word.
        table._parse(str(path), io.StringIO(text), False)  # type: ignore[attr-defined]  # noqa: SLF001  # the library's
    except netrc.NetrcParseError as error:
        # The parser quotes the token it stumbled over, which may be the password: say only where it is.
        raise AccessError(
            f"{path}, line {error.lineno}: not a netrc file",
            hint="write one line per host: machine physionet.org login USER password PASSWORD",
        ) from None
    found: dict[str, list[tuple[str, str, str]]] = {}
    for host, entries in table.hosts.items():
        found.setdefault(host.lower(), []).extend(entries)
    return found


def signed_url_of(secret: Secret, origin: str) -> Token:
    """A signed URL as a token, out of what people paste. Raises ``AccessError`` for text without one.

    Quotes from a shell or a mail are taken off, ``&amp;`` of a page and an ``&`` that a shell's line escapes are ``&``,
    ``%%`` of a batch file is ``%``, lines of notes (``#``) are passed over, and of ``azcopy copy "LINK" FOLDER
    --recursive`` or ``Link: LINK`` the link counts; Outlook's own address around it is taken off.
    """
    import html

    seen = INVISIBLE.sub("", secret.reveal())
    text = "\n".join(line for line in seen.splitlines() if not line.lstrip().startswith("#")).strip()
    text = _ENTITY.sub(lambda found: html.unescape(found[0]), text).replace("^&", "&").replace("%%", "%")
    text = _REWRITTEN.sub(lambda found: unquote(found[1]), _ESCAPED.sub(r"\1", text)).strip(_QUOTES)
    if not text.lower().startswith("http"):
        # Words stand before it. Behind one that comes first there may be the rest of it, in another line.
        links = _LINK.findall(text)
        text = links[0] if len(links) == 1 else ""
    # What ends a sentence, or Markdown's link, ends no signature.
    text = text.rstrip(_QUOTES + ".,;)]}")
    try:
        scheme, host = urlsplit(text).scheme, urlsplit(text).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host or any(c.isspace() for c in text):
        raise AccessError(
            f"{origin} does not hold a URL", hint="paste the whole link that the portal gave you, in one line"
        )
    return Token(Secret(text), origin, (host,))


def kaggle_json(path: Path) -> Login:
    """The login in a Kaggle API file. Raises ``AccessError`` for what is none."""
    try:
        data = parse_json(secret_in(path).reveal())
        user, key = data["username"], data["key"]
    except (ValueError, KeyError, TypeError):
        # The parser's own message would quote the key.
        raise AccessError(f"{path} is not a Kaggle API file", hint=ADVICE["kaggle"]) from None
    return Login(str(user), Secret(str(key)), str(path), KAGGLE_HOSTS)


def kaggle_session(path: Path) -> Token | None:
    """The session that ``kaggle auth login`` wrote: a token for 12 hours, and what renews it; ``None`` without one."""
    if not path.is_file():
        return None
    try:
        data = parse_json(secret_in(path).reveal())
        token, renewal = str(data.get("access_token") or ""), str(data.get("refresh_token") or "")
        # Empty, as Kaggle's own tool writes it, where no token was given yet.
        end = dt.datetime.fromisoformat(data.get("access_token_expiration") or "1970-01-01")
    except (AccessError, ValueError, AttributeError, TypeError):
        return None
    end = end if end.tzinfo else end.replace(tzinfo=dt.UTC)
    if end <= dt.datetime.now(dt.UTC):
        token = ""
    if not token and not renewal:
        return None
    return Token(Secret(token), str(path), KAGGLE_HOSTS, Secret(renewal) if renewal else None)
