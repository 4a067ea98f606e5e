"""Sessions of the services' own clients (SDKs): none reads netrc, and no token follows a redirect to another host."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import stamina

from cxrprep.errors import CxrprepError
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from tests.servers import box, google, kaggle
from tests.servers.loopback import Reply, Request, Server, as_json, running
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


def sign_in(service: str, variables: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a service's login into the environment, and that of Google's account into ``variables`` too."""
    if service == "google-account":
        key = google.key_file(folder, f"{variables['STORAGE_EMULATOR_HOST']}/token")
        variables["GOOGLE_APPLICATION_CREDENTIALS"] = str(key)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


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
        sign_in(service, variables, tmp_path, monkeypatch)
        have = credentials({**variables, "NETRC": str(netrc)}, tmp_path)
        with contextlib.closing(open_source(url, SourceOptions(credentials=have, timeout=5))) as source:
            (file,) = source.list()
            assert content(source.open(file)) == FILES[file.key]
        sent = [request.headers for server in servers for request in server.seen]
        assert sent
        said = json.dumps(sent)
        assert PASSWORD not in said
        assert base64.b64encode(f"anonymous:{PASSWORD}".encode()).decode() not in said


@pytest.mark.parametrize("moves", ["listing", "file"])
@pytest.mark.parametrize("service", ["kaggle-token", "box-token", "google-account"])
def test_a_services_token_follows_no_redirect_to_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, moves: str
) -> None:
    with SERVICES[service]() as (url, variables, servers), running(lambda _: as_json({})) as other:
        sign_in(service, variables, tmp_path, monkeypatch)
        have = credentials(variables, tmp_path)
        own = servers[0].app
        with contextlib.closing(open_source(url, SourceOptions(credentials=have, timeout=5))) as source:
            files = [] if moves == "listing" else [*source.list()]

            def moved(request: Request) -> Reply:
                there = other.url.replace("127.0.0.1", "localhost")
                return own(request) if "token" in request.path else Reply(302, b"", {"Location": f"{there}/x"})

            servers[0].app = moved
            with contextlib.suppress(CxrprepError), stamina.set_testing(True, attempts=1):
                _ = [content(source.open(file)) for file in files] or [*source.list()]
        assert any("authorization" in request.headers for request in servers[0].seen)
        assert not any("authorization" in request.headers for request in other.seen)
        # What Kaggle is asked by POST is not asked again elsewhere.
        assert other.seen or (service, moves) == ("kaggle-token", "listing")
