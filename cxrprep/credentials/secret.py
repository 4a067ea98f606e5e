"""Secrets: what is one, and how it stays unseen in messages, copies, and the environment of children."""

from __future__ import annotations

import os
import re
from typing import Final, NoReturn, Self

MASK: Final = "********"

# A query string may be a signature, and what stands before the @ of an address is a login.
_QUERY: Final = re.compile(r"(\bhttps?://[^\s?\"'<>]*)\?[^\s\"'<>)]*", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE)


def mask_urls(text: str) -> str:
    """``text`` without the query strings and logins of the addresses in it; for logs and messages of others."""
    return _USERINFO.sub(rf"\1{MASK}@", _QUERY.sub(rf"\1?{MASK}", text))


# What is secret in itself; the variables that name files may be inherited.
_SECRET_VARIABLES: Final = (
    "PHYSIONET_PASSWORD",
    "KAGGLE_API_TOKEN",
    "KAGGLE_KEY",
    "BOX_DEVELOPER_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "CHEXPERT_URL",
)
# The same for object stores, which the libraries of a conversion's workers look for in their own environment.
_STORE_SECRETS: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
)
# With the name of a host behind it: the token for that host.
TOKEN_PREFIX: Final = "CXRPREP_TOKEN_"  # noqa: S105  # the name of a variable
# What ``withdraw`` took out of the environment, for whoever looks for a credential.
WITHDRAWN: Final[dict[str, str]] = {}


def withdraw() -> None:
    """Take the secrets out of this process's environment, so that no child inherits them; here they are still found."""
    for name in [*os.environ]:
        if name in (*_SECRET_VARIABLES, *_STORE_SECRETS) or name.upper().startswith(TOKEN_PREFIX):
            WITHDRAWN[name] = os.environ.pop(name)


def return_store_secrets() -> None:
    """Put the secrets of object stores back, for a run that reads or writes one: its workers inherit them."""
    for name in _STORE_SECRETS:
        if name in WITHDRAWN:
            os.environ[name] = WITHDRAWN.pop(name)


class Secret:
    """A string that shows itself only when asked by name: ``reveal()``.

    ``repr``, ``str`` and ``format`` give asterisks, copies are the same object, pickling is refused, so that neither a
    log line, a traceback with locals, nor a message to a worker process can carry it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; call it at the border where it is sent, and keep the result in no variable."""
        return self._value

    def __repr__(self) -> str:
        """Asterisks."""
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        """Asterisks."""
        return MASK

    def __format__(self, spec: str) -> str:
        """Asterisks, as wide as asked."""
        return format(MASK, spec)

    def __bool__(self) -> bool:
        """Whether there is anything to keep secret."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Whether both hide the same text, compared in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac

        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        """The same for the same text within one process."""
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        """The same object."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """The same object: ``dataclasses.asdict`` keeps it masked."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle is a file or a message that others may read."""
        raise TypeError("a Secret does not leave its process; look it up again where it is needed")
