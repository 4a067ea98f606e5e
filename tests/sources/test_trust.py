"""Which certificates are trusted: what any of the variables names, else the system's store and certifi's list."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
import requests

from cxrprep.errors import UsageError
from cxrprep.sources import trust
from cxrprep.sources.service_session import prepare_session
from tests.servers import loopback


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in trust.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trust._bundle.cache_clear()
    yield
    trust._bundle.cache_clear()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loopback.certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("variable", trust.VARIABLES)
@pytest.mark.parametrize("kind", ["file", "folder", "as Notepad saves it"])
def test_a_file_or_a_folder_may_be_named_by_any_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path, variable: str, kind: str
) -> None:
    place = tmp_path / "anchors"
    place.mkdir()
    text = certificate.read_bytes()
    (place / "site.pem").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") if kind[0] == "a" else text)
    monkeypatch.setenv(variable, str(place if kind == "folder" else place / "site.pem"))
    with loopback.running(lambda _: loopback.Reply(200, b"trusted"), certificate) as server:
        assert prepare_session(requests.Session()).get(server.url).content == b"trusted"


def test_what_two_variables_name_is_trusted_together(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    # Many environments set the first one to the system's store, whatever the user sets.
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with loopback.running(lambda _: loopback.Reply(200, b"trusted"), certificate) as server:
        assert prepare_session(requests.Session()).get(server.url).content == b"trusted"


def test_without_a_name_the_system_and_certifi_are_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path
) -> None:
    store = tmp_path / "store.crt"
    store.write_bytes(certificate.read_bytes())
    monkeypatch.setattr(trust, "_SYSTEM_FILES", (str(store),))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: _NoPaths)
    bundle = Path(trust.ca_bundle()).read_bytes()
    assert len(trust._CERTIFICATE.findall(bundle)) > 50
    with loopback.running(lambda _: loopback.Reply(200, b"trusted"), certificate) as server:
        assert prepare_session(requests.Session()).get(server.url).content == b"trusted"


class _NoPaths:
    cafile = None


@pytest.mark.parametrize("content", [None, b"", b"no certificate at all"], ids=["absent", "empty", "text"])
def test_what_is_no_certificate_is_refused_by_the_name_of_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("CURL_CA_BUNDLE", str(path))
    with pytest.raises(UsageError, match=r"wrong\.pem") as caught:
        trust.ca_bundle()
    assert all(name in caught.value.hint for name in trust.VARIABLES)


def test_an_empty_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(UsageError, match="empty"):
        trust.ca_bundle()


def test_the_bundle_is_made_once(tmp_path: Path) -> None:
    first = trust.ca_bundle()
    trust._bundle.cache_clear()
    assert trust.ca_bundle() == first
    assert len([*(tmp_path / "cache" / "cxrprep").glob("*.pem")]) <= 1
