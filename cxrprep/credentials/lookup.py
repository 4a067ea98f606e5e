"""Credentials, from environment, keyring, netrc or prompt: looked up when first needed, kept in memory, masked.

The order is the same for every service: what an option named (a file, never the secret itself), the environment, the
system's keyring, netrc, the provider's own file, and at last a question to the person at the terminal. Kaggle's forms
follow the order of Kaggle's own tool.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections import ChainMap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrprep.credentials.files import (
    BEARER,
    Login,
    Token,
    kaggle_json,
    kaggle_session,
    netrc_hosts,
    secret_in,
    sendable,
    signed_url_of,
    token_of,
)
from cxrprep.credentials.secret import TOKEN_PREFIX, WITHDRAWN, Secret
from cxrprep.credentials.services import BOX_HOSTS, HUGGING_FACE_HOSTS, KAGGLE_HOSTS, PHYSIONET_HOSTS
from cxrprep.storage.paths import home_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class CredentialFinding:
    """What there is for a service, safe to print: ``account`` is a user name or ``""``."""

    origin: str
    account: str = ""


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
        link: Path | Secret | None = None,
        prompt: Callable[[str, bool], str | None] | None = None,
        keyring: bool = True,
    ) -> None:
        """Nothing is looked up yet.

        Args:
            environment: variables; by default the process's own.
            home: the home folder; by default the user's.
            link: a signed URL that the command names, or the file that holds it.
            prompt: asks a person for a value; its second argument says whether it is secret.
            keyring: whether the system's keyring is asked.
        """
        self._environment = ChainMap(os.environ, WITHDRAWN) if environment is None else environment
        self._home = home
        self._link = link
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
        return (_afresh, (self._home, self._link if isinstance(self._link, Path) else None, self._keyring))

    # ---- what services ask for ----

    def physionet(self, *hosts: str) -> Login | None:
        """The PhysioNet login, by user name or e-mail; ``None`` when there is none.

        ``PHYSIONET_USERNAME`` with ``PHYSIONET_PASSWORD`` or ``PHYSIONET_PASSWORD_FILE``, keyring
        ``cxrprep:physionet``, netrc ``machine physionet.org``, a question. ``hosts`` are the hosts of a mirror that the
        user named instead of physionet.org: the login is then for those, and netrc is asked for them.
        """
        # A login is for its hosts alone, so what was found for some says nothing about others.
        name = " ".join(("physionet", *hosts))
        found = self._first(name, lambda: self._physionet(hosts or PHYSIONET_HOSTS))
        return found if isinstance(found, Login) else None

    def kaggle(self) -> Login | Token | None:
        """Kaggle's API token, or user name and key; ``None`` means anonymous.

        ``KAGGLE_API_TOKEN`` (the token, or a file that holds it), ``access_token``, ``KAGGLE_USERNAME`` with
        ``KAGGLE_KEY``, ``kaggle.json``, the session of ``kaggle auth login`` (its source renews it), keyring
        ``cxrprep:kaggle``. Raises ``AccessError`` for a ``kaggle.json`` that is not what it should be.
        """
        return self._first("kaggle", self._kaggle)

    def box(self) -> Token | None:
        """A Box developer token: ``BOX_DEVELOPER_TOKEN`` or keyring ``cxrprep:box``; ``None`` when there is none."""
        found = self._first("box", self._box)
        return found if isinstance(found, Token) else None

    def hugging_face(self) -> Token | None:
        """Hugging Face's token, where its own tools look for it; ``None`` means anonymous.

        ``HF_TOKEN``, ``HUGGING_FACE_HUB_TOKEN``, keyring ``cxrprep:huggingface``, the file of ``hf auth login``
        (``HF_TOKEN_PATH``, else ``token`` in ``HF_HOME`` or ``~/.cache/huggingface``).
        """
        found = self._first("huggingface", self._hugging_face)
        return sendable(found) if isinstance(found, Token) else None

    def signed_url(self, service: str = "chexpert") -> Token | None:
        """The signed URL of a portal, white space around it removed; ``None`` when there is none.

        The file of ``--url-file`` (or standard input), ``CHEXPERT_URL``, ``CHEXPERT_URL_FILE``, keyring
        ``cxrprep:chexpert``, a question. After ``refuse`` a file that was renewed meanwhile is read again.
        """
        found = self._first(service, lambda: self._signed_url(service))
        return found if isinstance(found, Token) else None

    def host(self, host: str) -> Login | None:
        """The netrc login of any other ``host``; a ``default`` entry is not used, it would go to every stranger."""
        name = host.lower()
        found = self._once(f"host {name}", lambda: next((e for e in self._netrc((name,)) if e.user != BEARER), None))
        return found if isinstance(found, Login) else None

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
            return CredentialFinding(f"GOOGLE_APPLICATION_CREDENTIALS ({named})")
        folder = self._environment.get("CLOUDSDK_CONFIG")
        own = (
            Path(folder) if folder else self._folder() / ".config" / "gcloud"
        ) / "application_default_credentials.json"
        return CredentialFinding(str(own)) if own.is_file() else None

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

    def found(self, service: str, *hosts: str) -> CredentialFinding | None:
        """What there is for ``service``, safe to print; ``hosts`` as in ``physionet``."""
        if service == "google":
            return self.google()
        find = {
            "physionet": lambda: self.physionet(*hosts),
            "kaggle": self.kaggle,
            "box": self.box,
            "huggingface": self.hugging_face,
            "chexpert": self.signed_url,
        }
        have = find[service]()
        account = have.user if isinstance(have, Login) else ""
        return None if have is None else CredentialFinding(have.origin, account)

    # ---- where they are looked for ----

    def _once(self, name: str, find: Callable[[], Login | Token | None]) -> Login | Token | None:
        with self._guard:
            if name not in self._found:
                self._found[name] = find()
            return self._found[name]

    @staticmethod
    def _identity(found: Login | Token) -> str:
        if isinstance(found, Login):
            text = f"{found.user}\0{found.password.reveal()}"
        else:
            # The tokens of a session come and go.
            text = (found.renewal or found.secret).reveal()
        return hashlib.sha256(text.encode()).hexdigest()

    def _first(self, name: str, candidates: Callable[[], Iterator[Login | Token]]) -> Login | Token | None:
        """The first that its service, the first word of ``name``, has not refused."""
        service = name.partition(" ")[0]

        def find() -> Login | Token | None:
            return next((one for one in candidates() if (service, self._identity(one)) not in self._refused), None)

        return self._once(name, find)

    def _physionet(self, hosts: tuple[str, ...]) -> Iterator[Login | Token]:
        user = self._environment.get("PHYSIONET_USERNAME", "")
        password = self._environment.get("PHYSIONET_PASSWORD", "")
        file = self._environment.get("PHYSIONET_PASSWORD_FILE", "")
        if user and password:
            yield Login(user, Secret(password), "PHYSIONET_USERNAME, PHYSIONET_PASSWORD", hosts)
        if user and file:
            yield Login(user, secret_in(Path(file)), f"PHYSIONET_PASSWORD_FILE ({file})", hosts)
        yield from self._from_keyring("physionet", user or None, hosts)
        # The one of the user who is named comes first.
        yield from sorted(self._netrc(hosts), key=lambda login: bool(user) and login.user != user)
        if self._prompt is not None:
            where = "" if hosts == PHYSIONET_HOSTS else f" at {hosts[0]}"
            user = user or self._prompt(f"PhysioNet user name or e-mail{where}", False) or ""
            password = (user and self._prompt(f"PhysioNet password of {user}{where}", True)) or ""
            if user and password:
                yield Login(user, Secret(password), "prompt", hosts)

    def _kaggle(self) -> Iterator[Login | Token]:
        named = self._environment.get("KAGGLE_API_TOKEN", "").strip()
        if named:
            yield Token(token_of(named), "KAGGLE_API_TOKEN", KAGGLE_HOSTS)
        for path in (self._folder() / ".kaggle" / name for name in ("access_token", "access_token.txt")):
            if path.is_file():
                yield Token(secret_in(path), str(path), KAGGLE_HOSTS)
        user, key = self._environment.get("KAGGLE_USERNAME", ""), self._environment.get("KAGGLE_KEY", "")
        if user and key:
            yield Login(user, Secret(key), "KAGGLE_USERNAME, KAGGLE_KEY", KAGGLE_HOSTS)
        for path in self._kaggle_files():
            if path.is_file():
                yield kaggle_json(path)
        signed_in = kaggle_session(self._folder() / ".kaggle" / "credentials.json")
        if signed_in is not None:
            yield signed_in
        yield from self._from_keyring("kaggle", None, KAGGLE_HOSTS)

    def _kaggle_files(self) -> Iterator[Path]:
        named = self._environment.get("KAGGLE_CONFIG_DIR")
        if named:
            yield Path(named) / "kaggle.json"
        yield self._folder() / ".kaggle" / "kaggle.json"
        base = self._environment.get("XDG_CONFIG_HOME")
        yield (Path(base) if base else self._folder() / ".config") / "kaggle" / "kaggle.json"

    def _box(self) -> Iterator[Login | Token]:
        token = self._environment.get("BOX_DEVELOPER_TOKEN", "").strip()
        if token:
            yield Token(Secret(token), "BOX_DEVELOPER_TOKEN", BOX_HOSTS)
        for stored in self._from_keyring("box", None, BOX_HOSTS):
            yield Token(stored.password, stored.origin, BOX_HOSTS)

    def _hugging_face(self) -> Iterator[Login | Token]:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            if self._environment.get(name, "").strip():
                yield Token(Secret(self._environment[name].strip()), name, HUGGING_FACE_HOSTS)
        for stored in self._from_keyring("huggingface", None, HUGGING_FACE_HOSTS):
            yield Token(stored.password, stored.origin, HUGGING_FACE_HOSTS)
        named, home = self._environment.get("HF_TOKEN_PATH"), self._environment.get("HF_HOME")
        cache = Path(self._environment.get("XDG_CACHE_HOME") or self._folder() / ".cache")
        path = home_path(named or (Path(home) if home else cache / "huggingface") / "token")
        if path.is_file():
            yield Token(secret_in(path), str(path), HUGGING_FACE_HOSTS)

    def _signed_url(self, service: str) -> Iterator[Login | Token]:
        name = service.upper().replace("-", "_") + "_URL"
        if isinstance(self._link, Path):
            yield signed_url_of(secret_in(self._link), str(self._link))
        elif self._link is not None:
            yield signed_url_of(self._link, "standard input")
        if self._environment.get(name):
            yield signed_url_of(Secret(self._environment[name]), name)
        file = self._environment.get(f"{name}_FILE")
        if file:
            yield signed_url_of(secret_in(Path(file)), f"{name}_FILE ({file})")
        for stored in self._from_keyring(service, None, ()):
            yield signed_url_of(stored.password, stored.origin)
        if self._prompt is not None:
            answer = self._prompt(f"Signed URL of the {service} download (it is not shown)", True)
            if answer:
                yield signed_url_of(Secret(answer), "prompt")

    def _bearer(self, host: str) -> Token | None:
        wanted = token_variable(host)
        named = next((value.strip() for name, value in self._environment.items() if name.upper() == wanted), "")
        if named:
            return sendable(Token(token_of(named), wanted, (host,)))
        written = (login for login in self._netrc((host,)) if login.user == BEARER)
        return next((sendable(Token(login.password, login.origin, (host,))) for login in written), None)

    def _folder(self) -> Path:
        return self._home or Path.home()

    def _netrc(self, hosts: tuple[str, ...]) -> Iterator[Login]:
        named = self._environment.get("NETRC")
        paths = [Path(named)] if named else [self._folder() / ".netrc", self._folder() / "_netrc"]
        path = next((p for p in paths if p.is_file()), None)
        table = {} if path is None else netrc_hosts(path)
        for host in hosts:
            for user, _, password in table.get(host, ()):
                yield Login(user, Secret(password or ""), str(path), hosts)

    def _from_keyring(self, service: str, user: str | None, hosts: tuple[str, ...]) -> Iterator[Login]:
        if not self._keyring or self._environment.get("CXRPREP_KEYRING") == "0":
            return
        try:
            import keyring
            import keyring.errors
        except ImportError:
            return
        # A locked or absent keyring (no desktop session, as under cron) is the same as an empty one.
        with contextlib.suppress(keyring.errors.KeyringError, RuntimeError, OSError):
            if (have := keyring.get_credential(f"cxrprep:{service}", user)) is not None:
                yield Login(have.username or "", Secret(have.password), f"keyring (cxrprep:{service})", hosts)


def token_variable(host: str) -> str:
    """The variable that holds the token for ``host``: ``CXRPREP_TOKEN_MIRROR_EXAMPLE_ORG``; a hyphen is ``__``."""
    return f"{TOKEN_PREFIX}{re.sub('[^A-Z0-9_]', '_', host.upper().replace('-', '__'))}"


def _afresh(home: Path | None, link: Path | None, keyring: bool) -> Credentials:
    return Credentials(home=home, link=link, keyring=keyring)
