"""A certificate of the site's own: what ``SSL_CERT_FILE`` names is trusted by the SDKs as by the common client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cxrprep.errors import AccessError
from cxrprep.sources import open_source
from cxrprep.sources.base import Source, SourceOptions
from cxrprep.sources.trust import VARIABLES
from tests.servers import box, google, kaggle, loopback
from tests.sources.contract import content, credentials

FILES = {"00000001_000.png": b"bytes under TLS" * 100}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loopback.certificate(tmp_path_factory.mktemp("certificate"))


@contextlib.contextmanager
def _kaggle(certificate: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with kaggle.serving(FILES, tls=certificate) as service:
        assert service.api is not None
        yield "kaggle://owner/data", {"CXRPREP_KAGGLE_URL": service.api.url, "KAGGLE_API_TOKEN": kaggle.TOKEN}


@contextlib.contextmanager
def _box(certificate: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with box.serving(FILES, tls=certificate) as service:
        variables = {"CXRPREP_BOX_URL": box.address(service), "BOX_DEVELOPER_TOKEN": box.TOKEN}
        yield f"box://nihcc/{box.VANITY}", variables


@contextlib.contextmanager
def _google(certificate: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with google.serving(FILES, tls=certificate) as bucket:
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": google.address(bucket)}


Serve = Callable[[Path], contextlib.AbstractContextManager[tuple[str, dict[str, str]]]]


def _source(url: str, variables: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return open_source(url, SourceOptions(credentials=credentials(variables, home), timeout=5))


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("serve", [_kaggle, _box, _google], ids=["kaggle", "box", "google"])
def test_what_the_site_trusts_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: Path, serve: Serve, variable: str
) -> None:
    for name in VARIABLES:
        # Set here too, so that it is taken away again: the SDKs read it from the process's environment.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    anchors = tmp_path / "anchors"
    anchors.mkdir()
    (anchors / "site.pem").write_bytes(certificate.read_bytes())
    monkeypatch.setenv(variable, str(certificate if variable.endswith("FILE") else anchors))
    with (
        serve(certificate) as (url, variables),
        contextlib.closing(_source(url, variables, tmp_path, monkeypatch)) as source,
    ):
        (file,) = source.list()
        assert content(source.open(file)) == FILES[file.key]


@pytest.mark.parametrize("serve", [_kaggle, _box, _google], ids=["kaggle", "box", "google"])
def test_what_nobody_has_signed_is_refused_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: Path, serve: Serve
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with (
        serve(certificate) as (url, variables),
        contextlib.closing(_source(url, variables, tmp_path, monkeypatch)) as source,
    ):
        with pytest.raises(AccessError, match="is not trusted") as caught:
            [*source.list()]
        assert "SSL_CERT_FILE" in caught.value.hint
