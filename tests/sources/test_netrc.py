"""netrc belongs to plain web servers: no session of a service's own client (SDK) reads it, whatever it says."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from tests.servers import box, google, kaggle
from tests.servers.loopback import Server
from tests.sources.contract import content, credentials

FILES = {"00000001_000.png": b"bytes of an image" * 100}
PASSWORD = "netrc-secret-pw"
Service = tuple[str, dict[str, str], list[Server]]


@contextlib.contextmanager
def _kaggle(*, public: bool) -> Iterator[Service]:
    with kaggle.serving(FILES, public=public) as service:
        assert service.api is not None
        assert service.storage is not None
        token = {} if public else {"KAGGLE_API_TOKEN": kaggle.TOKEN}
        yield "kaggle://owner/data", {"CXRPREP_KAGGLE_URL": service.api.url, **token}, [service.api, service.storage]


@contextlib.contextmanager
def _box() -> Iterator[Service]:
    with box.serving(FILES) as service:
        assert service.app is not None
        variables = {"CXRPREP_BOX_URL": box.address(service), "BOX_DEVELOPER_TOKEN": box.TOKEN}
        yield f"box://nihcc/{box.VANITY}", variables, [service.app]


@contextlib.contextmanager
def _google(*, login: bool) -> Iterator[Service]:
    with google.serving(FILES, login=login) as bucket:
        assert bucket.server is not None
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": google.address(bucket)}, [bucket.server]


SERVICES: dict[str, Callable[[], contextlib.AbstractContextManager[Service]]] = {
    "kaggle-token": partial(_kaggle, public=False),
    "kaggle-anonymous": partial(_kaggle, public=True),
    "box-token": _box,
    "google-account": partial(_google, login=True),
    "google-anonymous": partial(_google, login=False),
}


@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1", "machine localhost"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_services_client_reads_no_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, entry: str
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"{entry} login anonymous password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with SERVICES[service]() as (url, variables, servers):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        if service == "google-account":
            key = google.key_file(tmp_path, f"{variables['STORAGE_EMULATOR_HOST']}/token")
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
            variables["GOOGLE_APPLICATION_CREDENTIALS"] = str(key)
        have = credentials({**variables, "NETRC": str(netrc)}, tmp_path)
        with contextlib.closing(open_source(url, SourceOptions(credentials=have, timeout=5))) as source:
            (file,) = source.list()
            assert content(source.open(file)) == FILES[file.key]
        sent = [request.headers for server in servers for request in server.seen]
        assert sent
        said = json.dumps(sent)
        assert PASSWORD not in said
        assert base64.b64encode(f"anonymous:{PASSWORD}".encode()).decode() not in said
