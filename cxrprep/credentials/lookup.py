"""Credentials: looked up when first needed, kept in memory only, masked wherever they could be seen.

The order is the same for every service: what an option named (a file, never the secret itself), the environment, the
system's keyring, netrc, the provider's own file, and at last a question to the person at the terminal. Kaggle's forms
follow the order of Kaggle's own tool.
"""

from __future__ import annotations

import codecs
import os
import re
import threading
from collections import ChainMap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cxrprep.credentials.secret import TOKEN_PREFIX, WITHDRAWN, Secret
from cxrprep.errors import AccessError
from cxrprep.storage.small_files import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# No credential is longer; a larger file was named by mistake.
_LIMIT: Final = 65_536
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
# The login of a netrc entry whose password is a token.
_BEARER: Final = "bearer"
_NETRC_PORT: Final = re.compile(r"(\s)port\s+\d+(?=\s|$)")
_LINK: Final = re.compile(r"""https?://[^\s"'<>]+""")

# service -> how a person gets access, in one sentence; shown as a hint and by `cxrprep doctor`.
ADVICE: Final[Mapping[str, str]] = {
    "physionet": "put your PhysioNet login into ~/.netrc (machine physionet.org login USER password PASSWORD, then "
    "chmod 600 ~/.netrc), or set PHYSIONET_USERNAME and PHYSIONET_PASSWORD",
    "kaggle": "create a token at https://www.kaggle.com/settings and save it as ~/.kaggle/access_token, "
    "or set KAGGLE_API_TOKEN",
    "google": "run: gcloud auth application-default login (or set GOOGLE_APPLICATION_CREDENTIALS to a key file)",
    "aws": "run: aws sso login, or aws configure (or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    "box": "nothing is needed for NIH's public links; for the Box API set BOX_DEVELOPER_TOKEN",
    "huggingface": "make a token at https://huggingface.co/settings/tokens, and set HF_TOKEN, or run: hf auth login",
    "chexpert": "sign the agreement at https://stanfordaimi.azurewebsites.net/, save the link that you get in a file, "
    "and name it: --url-file FILE, CHEXPERT_URL_FILE=FILE, or CHEXPERT_URL=LINK",
}


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


@dataclass(frozen=True, slots=True)
class CredentialFinding:
    """What there is for a service, safe to print: ``account`` is a user name or ``""``."""

    service: str
    origin: str
    account: str = ""


PHYSIONET_HOSTS: Final = ("physionet.org", "www.physionet.org")
KAGGLE_HOSTS: Final = ("www.kaggle.com", "api.kaggle.com")
BOX_HOSTS: Final = ("api.box.com",)
HUGGING_FACE_HOSTS: Final = ("huggingface.co",)


class Credentials:
    """Finds what a service needs, once, and remembers it for the run. Safe to use from many threads.

    ``environment`` and ``home`` default to the process's own. ``files`` maps a service to a file that an option named
    (``-`` was read from standard input by the caller and comes as ``values``). ``prompt`` is asked last: it takes the
    question and whether the answer is hidden, and gives ``None`` when nobody can answer; without it nobody is asked.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        home: Path | None = None,
        files: Mapping[str, Path] | None = None,
        values: Mapping[str, Secret] | None = None,
        prompt: Callable[[str, bool], str | None] | None = None,
        keyring: bool = True,
    ) -> None:
        """Nothing is looked up yet.

        Args:
            environment: variables; by default the process's own.
            home: the home folder; by default the user's.
            files: a service's own file of credentials, by service.
            values: secrets that are given already, by name.
            prompt: asks a person for a value; its second argument says whether it is secret.
            keyring: whether the system's keyring is asked.
        """
        self._environment = ChainMap(os.environ, WITHDRAWN) if environment is None else environment
        self._home = home
        self._files = dict(files or {})
        self._values = dict(values or {})
        self._prompt = prompt
        self._keyring = keyring
        self._found: dict[str, Login | Token | None] = {}
        self._refused: set[tuple[str, str]] = set()
        self._guard = threading.RLock()

    def __repr__(self) -> str:
        """Nothing of what was found."""
        return "Credentials()"

    def __reduce__(self) -> tuple[object, ...]:
        """Another process looks up its own: nothing that was found here travels with a pickle."""
        return (_afresh, (self._home, self._files, self._keyring))

    # ---- what services ask for ----

    def physionet(self, *hosts: str) -> Login | None:
        """The PhysioNet login, by user name or e-mail; ``None`` when there is none.

        ``PHYSIONET_USERNAME`` with ``PHYSIONET_PASSWORD`` or ``PHYSIONET_PASSWORD_FILE``, keyring
        ``cxrprep:physionet``, netrc ``machine physionet.org``, a question. ``hosts`` are the hosts of a mirror that the
        user named instead of physionet.org: the login is then for those, and netrc is asked for them.
        """
        # A login is for its hosts alone, so what was found for some says nothing about others.
        name = " ".join(("physionet", *hosts))
        found = self._once(name, lambda: self._physionet(hosts or PHYSIONET_HOSTS))
        return found if isinstance(found, Login) else None

    def kaggle(self) -> Login | Token | None:
        """Kaggle's API token, or user name and key; ``None`` means anonymous.

        ``KAGGLE_API_TOKEN`` (the token, or a file that holds it), ``access_token``, ``KAGGLE_USERNAME`` with
        ``KAGGLE_KEY``, ``kaggle.json``, the session of ``kaggle auth login`` (its source renews it), keyring
        ``cxrprep:kaggle``. Raises ``AccessError`` for a ``kaggle.json`` that is not what it should be.
        """
        return self._once("kaggle", self._kaggle)

    def box(self) -> Token | None:
        """A Box developer token: ``BOX_DEVELOPER_TOKEN`` or keyring ``cxrprep:box``; ``None`` when there is none."""
        found = self._once("box", self._box)
        return found if isinstance(found, Token) else None

    def hugging_face(self) -> Token | None:
        """Hugging Face's token, where its own tools look for it; ``None`` means anonymous.

        ``HF_TOKEN``, ``HUGGING_FACE_HUB_TOKEN``, keyring ``cxrprep:huggingface``, the file of ``hf auth login``
        (``HF_TOKEN_PATH``, else ``token`` in ``HF_HOME`` or ``~/.cache/huggingface``).
        """
        found = self._once("huggingface", self._hugging_face)
        return found if isinstance(found, Token) else None

    def signed_url(self, service: str = "chexpert") -> Token | None:
        """The signed URL of a portal, white space around it removed; ``None`` when there is none.

        The file of ``--url-file`` (or standard input), ``CHEXPERT_URL``, ``CHEXPERT_URL_FILE``, keyring
        ``cxrprep:chexpert``, a question. After ``refuse`` a file that was renewed meanwhile is read again.
        """
        found = self._once(service, lambda: self._signed_url(service))
        return found if isinstance(found, Token) else None

    def host(self, host: str) -> Login | None:
        """The netrc login of any other ``host``; a ``default`` entry is not used, it would go to every stranger."""
        name = host.lower()
        found = self._once(f"host {name}", lambda: self._netrc((name,), f"host {name}"))
        return found if isinstance(found, Login) and found.user != _BEARER else None

    def bearer(self, host: str) -> Token | None:
        """The token that web servers of ``host`` take in place of a password; ``None`` when there is none.

        ``CXRPREP_TOKEN_HOST`` (the token, or a file that holds it; see ``token_variable``), or the password of a netrc
        entry of that host whose login is ``bearer``. Raises ``AccessError`` for what cannot be one.
        """
        found = self._once(f"token {host.lower()}", lambda: self._bearer(host.lower()))
        return found if isinstance(found, Token) else None

    def google_project(self) -> str | None:
        """The project that the environment names (``GOOGLE_CLOUD_PROJECT``); the Google library finds the rest."""
        return self._environment.get("GOOGLE_CLOUD_PROJECT") or None

    def google(self) -> CredentialFinding | None:
        """Where Google's library will find credentials, without reading them; ``None`` when it would find none."""
        named = self._environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            return CredentialFinding("google", f"GOOGLE_APPLICATION_CREDENTIALS ({named})")
        folder = self._environment.get("CLOUDSDK_CONFIG")
        own = (
            Path(folder) if folder else self._folder() / ".config" / "gcloud"
        ) / "application_default_credentials.json"
        return CredentialFinding("google", str(own)) if own.is_file() else None

    def aws(self) -> tuple[Secret, Secret, Secret | None] | None:
        """AWS's key, secret and session token where the environment holds them; its library finds all else."""
        key, secret, token = (
            Secret(self._environment.get(f"AWS_{name}", ""))
            for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
        )
        return (key, secret, token or None) if key and secret else None

    def refuse(self, service: str) -> None:
        """Remember that the service rejected what was found, so that the next look-up passes over it.

        A signed URL in a file or in the environment is read again instead: it may have been renewed meanwhile.
        """
        with self._guard:
            for name in [name for name in self._found if name.partition(" ")[0] == service]:
                found = self._found.pop(name)
                if found is not None:
                    self._refused.add((service, self._identity(found)))

    def found(self, service: str) -> CredentialFinding | None:
        """What there is for ``service``, safe to print."""
        if service == "google":
            return self.google()
        find = {
            "physionet": self.physionet,
            "kaggle": self.kaggle,
            "box": self.box,
            "huggingface": self.hugging_face,
            "chexpert": self.signed_url,
        }
        have = find[service]()
        if have is None:
            return None
        return CredentialFinding(service, have.origin, have.user if isinstance(have, Login) else "")

    # ---- where they are looked for ----

    def _once(self, name: str, find: Callable[[], Login | Token | None]) -> Login | Token | None:
        with self._guard:
            if name not in self._found:
                self._found[name] = find()
            return self._found[name]

    @staticmethod
    def _identity(found: Login | Token) -> str:
        import hashlib

        if isinstance(found, Login):
            text = f"{found.user}\0{found.password.reveal()}"
        else:
            # The tokens of a session come and go.
            text = (found.renewal or found.secret).reveal()
        return hashlib.sha256(text.encode()).hexdigest()

    def _usable(self, service: str, candidates: Iterator[Login | Token]) -> Login | Token | None:
        return next((c for c in candidates if (service, self._identity(c)) not in self._refused), None)

    def _physionet(self, hosts: tuple[str, ...]) -> Login | Token | None:
        def candidates() -> Iterator[Login | Token]:
            user = self._environment.get("PHYSIONET_USERNAME", "")
            password = self._environment.get("PHYSIONET_PASSWORD", "")
            file = self._environment.get("PHYSIONET_PASSWORD_FILE", "")
            if user and password:
                yield Login(user, Secret(password), "PHYSIONET_USERNAME, PHYSIONET_PASSWORD", hosts)
            if user and file:
                yield Login(user, _read(Path(file)), f"PHYSIONET_PASSWORD_FILE ({file})", hosts)
            stored = self._from_keyring("physionet", user or None, hosts)
            if stored is not None:
                yield stored
            written = self._netrc(hosts, "physionet")
            if written is not None:
                yield written
            if self._prompt is not None:
                where = "" if hosts == PHYSIONET_HOSTS else f" at {hosts[0]}"
                user = user or self._prompt(f"PhysioNet user name or e-mail{where}", False) or ""
                password = (user and self._prompt(f"PhysioNet password of {user}{where}", True)) or ""
                if user and password:
                    yield Login(user, Secret(password), "prompt", hosts)

        return self._usable("physionet", candidates())

    def _kaggle(self) -> Login | Token | None:
        def candidates() -> Iterator[Login | Token]:
            named = self._environment.get("KAGGLE_API_TOKEN", "").strip()
            if named:
                yield Token(_token(named), "KAGGLE_API_TOKEN", KAGGLE_HOSTS)
            for path in (self._folder() / ".kaggle" / name for name in ("access_token", "access_token.txt")):
                if path.is_file():
                    yield Token(_read(path), str(path), KAGGLE_HOSTS)
            user, key = self._environment.get("KAGGLE_USERNAME", ""), self._environment.get("KAGGLE_KEY", "")
            if user and key:
                yield Login(user, Secret(key), "KAGGLE_USERNAME, KAGGLE_KEY", KAGGLE_HOSTS)
            for path in self._kaggle_files():
                if path.is_file():
                    yield _kaggle_json(path)
            signed_in = _kaggle_session(self._folder() / ".kaggle" / "credentials.json")
            if signed_in is not None:
                yield signed_in
            stored = self._from_keyring("kaggle", None, KAGGLE_HOSTS)
            if stored is not None:
                yield stored

        return self._usable("kaggle", candidates())

    def _kaggle_files(self) -> Iterator[Path]:
        named = self._environment.get("KAGGLE_CONFIG_DIR")
        if named:
            yield Path(named) / "kaggle.json"
        yield self._folder() / ".kaggle" / "kaggle.json"
        base = self._environment.get("XDG_CONFIG_HOME")
        yield (Path(base) if base else self._folder() / ".config") / "kaggle" / "kaggle.json"

    def _box(self) -> Login | Token | None:
        def candidates() -> Iterator[Login | Token]:
            token = self._environment.get("BOX_DEVELOPER_TOKEN", "").strip()
            if token:
                yield Token(Secret(token), "BOX_DEVELOPER_TOKEN", BOX_HOSTS)
            stored = self._from_keyring("box", None, BOX_HOSTS)
            if stored is not None:
                yield Token(stored.password, stored.origin, BOX_HOSTS)

        return self._usable("box", candidates())

    def _hugging_face(self) -> Login | Token | None:
        def candidates() -> Iterator[Login | Token]:
            for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
                if self._environment.get(name, "").strip():
                    yield Token(Secret(self._environment[name].strip()), name, HUGGING_FACE_HOSTS)
            stored = self._from_keyring("huggingface", None, HUGGING_FACE_HOSTS)
            if stored is not None:
                yield Token(stored.password, stored.origin, HUGGING_FACE_HOSTS)
            named, home = self._environment.get("HF_TOKEN_PATH"), self._environment.get("HF_HOME")
            cache = Path(self._environment.get("XDG_CACHE_HOME") or self._folder() / ".cache")
            path = Path(named or (Path(home) if home else cache / "huggingface") / "token").expanduser()
            if path.is_file():
                yield Token(_read(path), str(path), HUGGING_FACE_HOSTS)

        found = self._usable("huggingface", candidates())
        return _sendable(found) if isinstance(found, Token) else None

    def _signed_url(self, service: str) -> Login | Token | None:
        def candidates() -> Iterator[Login | Token]:
            name = service.upper().replace("-", "_") + "_URL"
            if service in self._files:
                yield _url(_read(self._files[service]), str(self._files[service]))
            if service in self._values:
                yield _url(self._values[service], "standard input")
            if self._environment.get(name):
                yield _url(Secret(self._environment[name]), name)
            file = self._environment.get(f"{name}_FILE")
            if file:
                yield _url(_read(Path(file)), f"{name}_FILE ({file})")
            stored = self._from_keyring(service, None, ())
            if stored is not None:
                yield _url(stored.password, stored.origin)
            if self._prompt is not None:
                answer = self._prompt(f"Signed URL of the {service} download (it is not shown)", True)
                if answer:
                    yield _url(Secret(answer), "prompt")

        return self._usable(service, candidates())

    def _bearer(self, host: str) -> Token | None:
        wanted = token_variable(host)
        named = next((value.strip() for name, value in self._environment.items() if name.upper() == wanted), "")
        login = None if named else self._netrc((host,), f"token {host}")
        if named:
            token = Token(_token(named), wanted, (host,))
        elif login is not None and login.user == _BEARER:
            token = Token(login.password, login.origin, (host,))
        else:
            return None
        return _sendable(token)

    def _folder(self) -> Path:
        return self._home or Path.home()

    def _netrc(self, hosts: tuple[str, ...], service: str) -> Login | None:
        named = self._environment.get("NETRC")
        paths = [Path(named)] if named else [self._folder() / ".netrc", self._folder() / "_netrc"]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            return None
        table = _netrc_hosts(path)
        for host in hosts:
            if host in table:
                user, _, password = table[host]
                login = Login(user, Secret(password or ""), str(path), hosts)
                if (service, self._identity(login)) not in self._refused:
                    return login
        return None

    def _from_keyring(self, service: str, user: str | None, hosts: tuple[str, ...]) -> Login | None:
        if not self._keyring or self._environment.get("CXRPREP_KEYRING") == "0":
            return None
        try:
            import keyring
            import keyring.errors
        except ImportError:
            return None
        try:
            have = keyring.get_credential(f"cxrprep:{service}", user)
        except (keyring.errors.KeyringError, RuntimeError, OSError):
            # A locked or absent keyring (no desktop session, as under cron) is the same as an empty one.
            return None
        if have is None:
            return None
        return Login(have.username or "", Secret(have.password), f"keyring (cxrprep:{service})", hosts)


def token_variable(host: str) -> str:
    """The variable that holds the token for ``host``: ``CXRPREP_TOKEN_MIRROR_EXAMPLE_ORG``; a hyphen is ``__``."""
    return f"{TOKEN_PREFIX}{re.sub('[^A-Z0-9_]', '_', host.upper().replace('-', '__'))}"


def _sendable(token: Token) -> Token:
    """``token`` itself. Raises ``AccessError`` for what would end the header that it is sent in, such as a blank."""
    if not _VISIBLE.fullmatch(token.secret.reveal()):
        raise AccessError(f"{token.origin} holds no token", hint="it is one word, without blanks")
    return token


def _token(text: str) -> Secret:
    """The token that a variable holds, or the file that it names."""
    path = Path(text)
    return _read(path) if len(text) < 1024 and path.is_file() else Secret(text)


def _afresh(home: Path | None, files: dict[str, Path], keyring: bool) -> Credentials:
    return Credentials(home=home, files=files, keyring=keyring)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "no reason given" if isinstance(error, OSError) else "it is not text"


def _read(path: Path) -> Secret:
    """The secret in a file. Raises ``AccessError`` for a file that cannot be read, is empty, or is no secret."""
    text = _text_of(path, "name the file that holds the secret")
    if not text.strip():
        raise AccessError(f"{path} is empty", hint="the file should hold the secret, and nothing else")
    return Secret(text.strip())


def _text_of(path: Path, hint: str) -> str:
    """The text of a small file, in UTF-8 or as Windows writes it. Raises ``AccessError``.

    Notepad and PowerShell begin a file with a byte order mark, and Windows PowerShell 5 writes UTF-16: a mark that was
    taken for the first character of a secret would make a good one wrong.
    """
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise AccessError(f"{path} is too long for a secret", hint=hint)
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{path}: cannot be read: {_reason(error)}", hint=hint) from None


def _netrc_hosts(path: Path) -> Mapping[str, tuple[str, str | None, str | None]]:
    """Host -> user, account and password of a netrc file. Raises ``AccessError``."""
    import io
    import netrc

    text = _text_of(path, ADVICE["physionet"])
    # ``port``, which curl and wget know, is a word that Python's parser refuses.
    text = _NETRC_PORT.sub(r"\1", text)
    table = netrc.netrc.__new__(netrc.netrc)
    table.hosts, table.macros = {}, {}
    try:
        # The constructor opens the file by itself, and would take a byte order mark for part of the first word.
        table._parse(str(path), io.StringIO(text), False)  # type: ignore[attr-defined]  # noqa: SLF001  # the library's
    except netrc.NetrcParseError as error:
        # The parser quotes the token it stumbled over, which may be the password: say only where it is.
        raise AccessError(
            f"{path}, line {error.lineno}: not a netrc file",
            hint="write one line a host: machine physionet.org login USER password PASSWORD",
        ) from None
    return table.hosts


def _url(secret: Secret, origin: str) -> Token:
    """A signed URL as a token, out of what people paste. Raises ``AccessError`` for text without one.

    Quotes from a shell or a mail are taken off, ``&amp;`` of a page is ``&``, lines of notes (``#``) are passed over,
    and of a whole ``azcopy copy "LINK" FOLDER --recursive`` the link counts.
    """
    from urllib.parse import urlsplit

    text = "\n".join(line for line in secret.reveal().splitlines() if not line.lstrip().startswith("#")).strip()
    if text.lower().startswith(("azcopy", "./azcopy", ".\\azcopy")):
        links = _LINK.findall(text)
        text = links[0] if len(links) == 1 else ""
    text = text.strip("\"'<>").strip().replace("&amp;", "&")
    try:
        scheme, host = urlsplit(text).scheme, urlsplit(text).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host or any(c.isspace() for c in text):
        raise AccessError(
            f"{origin} does not hold a URL", hint="paste the whole link that the portal gave you, in one line"
        )
    return Token(Secret(text), origin, (host,))


def _kaggle_json(path: Path) -> Login:
    try:
        data = parse_json(_read(path).reveal())
        user, key = data["username"], data["key"]
    except (ValueError, KeyError, TypeError):
        # The parser's own message would quote the key.
        raise AccessError(f"{path} is not a Kaggle API file", hint=ADVICE["kaggle"]) from None
    return Login(str(user), Secret(str(key)), str(path), KAGGLE_HOSTS)


def _kaggle_session(path: Path) -> Token | None:
    """The session that ``kaggle auth login`` wrote: a token for 12 hours, and what renews it; ``None`` without one."""
    import datetime as dt

    if not path.is_file():
        return None
    try:
        data = parse_json(_read(path).reveal())
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
