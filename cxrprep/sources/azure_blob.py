"""Azure Blob Storage: what a shared access signature (SAS) allows, and the listing of a container.

The rules are those of the service's REST interface: "Create a service SAS", "List Blobs".
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cxrprep.credentials.secret import Secret
from cxrprep.model import RemoteFile
from cxrprep.sources.base import no_listing
from cxrprep.sources.http_response import date_of, from_base64
from cxrprep.sources.urls import parts_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element


# A host that names the account, so that the first component of the path is the container.
_ACCOUNT: Final = re.compile(r"[a-z0-9-]+\.(?:blob|dfs)\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SharedAccess:
    """A signed URL taken apart. ``base`` is the container's (or the folder's) address with a slash at its end.

    ``folder`` is the part of ``base`` that lies within the container, with a slash at its end, ``""`` for all of it.
    ``blob`` is the one blob that it is for, ``""`` for a container's. ``permissions`` and ``expires`` are ``None``
    where the URL does not state them (a stored policy, or another service's signature). The query stays secret.
    """

    base: str
    blob: str
    query: Secret
    folder: str = ""
    permissions: str | None = None
    expires: dt.datetime | None = None
    starts: dt.datetime | None = None
    is_azure: bool = field(default=True)

    @classmethod
    def parse(cls, url: Secret) -> SharedAccess:
        """The parts of ``url``, which is an http or https address."""
        parts = parts_of(url.reveal())
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(parts.query).items()}
        is_azure = "sig" in query and ("sr" in query or "ss" in query or "si" in query)
        # Who tried the link in a browser has asked it for a listing.
        words = [word for word in parts.query.split("&") if not word.startswith(("restype=", "comp="))]
        # azcopy writes all that is in a container as /container/*
        path = parts.path.strip("/").removesuffix("/*").strip("/")
        folder, _, blob = path.rpartition("/")
        # A container has one component (two on an emulator, whose first names the account).
        if is_azure and (query.get("sr") == "c" or "srt" in query or "sr" not in query) and "." not in blob:
            folder, blob = path, ""
        inside = folder.split("/")[1 if _ACCOUNT.match(parts.hostname or "") else 2 :] if is_azure else []
        base = urllib.parse.urlunsplit((parts.scheme, parts.netloc, f"/{folder}/" if folder else "/", "", ""))
        return cls(
            base=base,
            blob=urllib.parse.unquote(blob),
            query=Secret("&".join(words) if is_azure else parts.query),
            folder=urllib.parse.unquote("".join(f"{part}/" for part in inside)),
            permissions=query.get("sp") if is_azure else None,
            expires=date_of(query.get("se")) if is_azure else None,
            starts=date_of(query.get("st")) if is_azure else None,
            is_azure=is_azure,
        )

    @property
    def address(self) -> str:
        """The address as it may be shown."""
        return self.base + urllib.parse.quote(self.blob) if self.blob else self.base.rstrip("/")

    @property
    def may_list(self) -> bool:
        """Whether the container's blobs may be listed."""
        return self.is_azure and not self.blob and (self.permissions is None or "l" in self.permissions)

    def refusal(self, now: dt.datetime) -> str:
        """Why the service will refuse it, in a few words; ``""`` when nothing speaks against it."""
        if self.expires is not None and now >= self.expires:
            return f"expired on {self.expires:%Y-%m-%d %H:%M} UTC"
        if self.starts is not None and now < self.starts:
            return f"is valid from {self.starts:%Y-%m-%d %H:%M} UTC on only; is the clock here right?"
        if self.permissions is not None and "r" not in self.permissions:
            return f"does not allow reading (sp={self.permissions})"
        return ""

    def url(self, name: str) -> str:
        """The signed address of the blob ``name``. Give it to the client and to nobody else."""
        address = self.base + urllib.parse.quote(name)
        query = self.query.reveal()
        return f"{address}?{query}" if query else address

    def list_url(self, prefix: str, marker: str, most: int = 5000) -> str:
        """The signed address of one page of the container's listing; its names begin with ``folder``."""
        asked = {"restype": "container", "comp": "list", "maxresults": str(most)}
        asked |= {name: value for name, value in (("prefix", self.folder + prefix), ("marker", marker)) if value}
        query = urllib.parse.urlencode(asked, quote_via=urllib.parse.quote)
        container = self.base.removesuffix(urllib.parse.quote(self.folder))
        return f"{container.rstrip('/')}?{query}&{self.query.reveal()}"


def read_listing(body: bytes, where: str, folder: str = "") -> tuple[list[RemoteFile], str]:
    """The blobs of one page, named from ``folder`` on, and the marker of the next (``""`` at the end).

    Raises ``SourceUnreachableError`` for what is no listing.
    """
    root = read_xml(body, where)
    return list(_blobs(root, folder)), (root.findtext("NextMarker") or "").strip()


def read_xml(body: bytes, where: str) -> Element:
    """The root of a listing. Raises ``SourceUnreachableError`` for what is no XML."""
    # A listing alone needs it.
    import xml.etree.ElementTree as ET

    try:
        return ET.fromstring(body)  # noqa: S314  # it comes from the server that the user named; expat bounds its entities
    except ET.ParseError as error:
        raise no_listing(where, f"that is not XML: {error}") from None


def quoted(tag: str | None) -> str | None:
    """An ETag as the headers spell it: listings leave the quotes out."""
    if not tag or tag.startswith(('"', "W/")):
        return tag or None
    return f'"{tag}"'


def _blobs(root: Element, folder: str) -> Iterator[RemoteFile]:
    for blob in root.iter("Blob"):
        name = (blob.findtext("Name") or "").removeprefix(folder)
        about = blob.find("Properties")
        # Accounts with a hierarchy list their folders as blobs.
        if not name or (about is not None and about.findtext("ResourceType") == "directory"):
            continue
        if about is None:
            yield RemoteFile(name)
            continue
        size = about.findtext("Content-Length") or ""
        yield RemoteFile(
            name,
            int(size) if size.isdecimal() else None,
            from_base64("md5", about.findtext("Content-MD5")),
            quoted(about.findtext("Etag")),
            date_of(about.findtext("Last-Modified")),
        )
