"""Azurite, Microsoft's own emulator of Azure Blob Storage, with containers of blobs and signatures for them.

A service SAS is made as "Create a service SAS" of the REST interface describes it; the account is the emulator's.
"""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import hashlib
import hmac
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts import need
from tests.servers.processes import free_port, process

ACCOUNT = "devstoreaccount1"
_KEY = base64.b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
_VERSION = "2021-12-02"


@dataclass(frozen=True)
class Azurite:
    """A running emulator."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """What leads Microsoft's own library there."""
        key = base64.b64encode(_KEY).decode()
        parts = {"AccountName": ACCOUNT, "AccountKey": key, "BlobEndpoint": f"{self.address}/{ACCOUNT}"}
        text = ";".join(f"{name}={value}" for name, value in parts.items())
        return {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{text};"}

    def put(self, container: str, blobs: dict[str, bytes]) -> None:
        """Make ``container`` with these blobs; those that exist are replaced."""
        try:
            self._request("PUT", f"/{container}", {"restype": "container"})
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
        for name, data in blobs.items():
            self._request("PUT", f"/{container}/{urllib.parse.quote(name)}", {}, data)

    def sas(
        self, container: str, blob: str = "", *, permissions: str = "rl", expires: dt.timedelta = dt.timedelta(days=30),
        starts: dt.timedelta | None = None,
    ) -> str:  # fmt: skip
        """A signed URL for a container (``sr=c``) or a blob (``sr=b``)."""
        now = dt.datetime.now(dt.UTC)
        end = f"{now + expires:%Y-%m-%dT%H:%M:%SZ}"
        start = f"{now + starts:%Y-%m-%dT%H:%M:%SZ}" if starts is not None else ""
        resource = f"/blob/{ACCOUNT}/{container}" + (f"/{blob}" if blob else "")
        kind = "b" if blob else "c"
        fields = [permissions, start, end, resource, "", "", "", _VERSION, kind, "", "", "", "", "", "", ""]
        query = {"sv": _VERSION, "se": end, "sr": kind, "sp": permissions, "sig": _signed("\n".join(fields))}
        if start:
            query["st"] = start
        place = urllib.parse.quote(f"/{ACCOUNT}/{container}" + (f"/{blob}" if blob else ""))
        return f"{self.address}{place}?{urllib.parse.urlencode(query)}"

    def _request(self, method: str, path: str, query: dict[str, str], data: bytes = b"") -> None:
        headers = {
            "x-ms-date": email.utils.formatdate(usegmt=True),
            "x-ms-version": _VERSION,
            "x-ms-blob-type": "BlockBlob",
        }
        length = str(len(data)) if data else ""
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        resource = f"/{ACCOUNT}/{ACCOUNT}{path}" + "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        kind = "application/octet-stream" if data else ""
        text = f"{method}\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n{canonical}{resource}"
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{_signed(text)}"
        if kind:
            headers["Content-Type"] = kind
        url = f"{self.address}/{ACCOUNT}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, method=method, data=data or None, headers=headers)
        if not data:
            request.add_header("Content-Length", "0")
        with urllib.request.urlopen(request, timeout=10):
            pass


def forged(url: str) -> str:
    """A signed URL with a signature of the right form that nobody made."""
    # Not by cutting characters off: half of an escape in it is an error of the emulator's, not a refusal.
    return re.sub(r"(?<=[?&]sig=)[^&]*", urllib.parse.quote(base64.b64encode(bytes(32)).decode(), safe=""), url)


def _signed(text: str) -> str:
    return base64.b64encode(hmac.new(_KEY, text.encode(), hashlib.sha256).digest()).decode()


@contextmanager
def running(folder: Path) -> Iterator[Azurite]:
    """An emulator that keeps its blobs below ``folder``."""
    program = need("azurite")
    port = free_port()
    place = folder / "azurite"
    place.mkdir(parents=True, exist_ok=True)
    words = [
        program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(place), "--silent",
        "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    with process(words, port, folder / "azurite.log", seconds=60):
        yield Azurite(f"http://127.0.0.1:{port}")
