"""Endpoints of services: their own address, or the one that the environment names instead.

``CXRPREP_PHYSIONET_URL``, ``CXRPREP_KAGGLE_URL``, ``CXRPREP_BOX_URL`` and ``CXRPREP_HUGGINGFACE_URL`` name a server
that answers as the service does: a cache that an institution runs, or a test; ``HF_ENDPOINT``, which Hugging Face's own
tools read, names a mirror of it. The credentials of the service go there, so it is spoken to with encryption, unless it
is this machine. Google's library has ``STORAGE_EMULATOR_HOST``, the portal's URL is whole.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Final

from cxrprep.errors import UsageError
from cxrprep.sources.urls import split_url

if TYPE_CHECKING:
    from collections.abc import Mapping

# How a line that calls Hugging Face's tools names a mirror, or its own address does.
_HUB_IN_LINE: Final = re.compile(r"\bHF_ENDPOINT=[\"']?(https?://[^\s\"'/]+)|(https?://hf-mirror\.com)/datasets/")
ENDPOINTS: Final[Mapping[str, str]] = {
    "physionet": "https://physionet.org",
    "kaggle": "https://api.kaggle.com",
    "box": "https://api.box.com",
    "huggingface": "https://huggingface.co",
}


def variable(service: str) -> str:
    """The environment variable that names another address for ``service``, or may do so."""
    own = f"CXRPREP_{service.upper()}_URL"
    return "HF_ENDPOINT" if service == "huggingface" and not os.environ.get(own) else own


def named(service: str) -> str | None:
    """The address that the environment names for ``service``, without a slash at its end; ``None`` for its own.

    Raises ``UsageError`` for an address that is not one, or would send credentials over a network in the open.
    """
    address = os.environ.get(variable(service), "").strip().rstrip("/")
    if not address:
        return None
    endpoint, _ = split_url(address)
    if endpoint.scheme != "https" and not is_here(endpoint.host):
        raise UsageError(
            f"{variable(service)} names {endpoint.authority} without encryption",
            hint="write it with https://; http:// is for this machine alone",
        )
    return address


def from_hub(text: str) -> str:
    """``text``, an address or a line with one, with Hugging Face itself in place of the mirror that is named for it.

    Raises ``UsageError`` for a mirror that is not the one of the environment: its pages list no files, and a token
    goes where the environment says.
    """
    hub, found = named("huggingface"), _HUB_IN_LINE.search(text)
    meant = (found[1] or found[2]) if found else hub
    if meant not in (hub, ENDPOINTS["huggingface"]):
        raise UsageError(
            f"{meant} is a mirror of Hugging Face that the environment does not name",
            hint=f"set HF_ENDPOINT={meant}, and give the same address; your token goes there then",
        )
    return text if hub is None else text.replace(f"{hub}/datasets/", f"{ENDPOINTS['huggingface']}/datasets/")


def is_here(host: str) -> bool:
    """Whether ``host`` is this machine: ``localhost``, 127.0.0.0/8 or ::1, by its spelling alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        # Whatever another name resolves to now, it may resolve to something else when it is used.
        return host == "localhost"
