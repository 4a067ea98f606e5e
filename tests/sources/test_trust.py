"""Which certificates are trusted: what any of the variables names, else the system's store and certifi's list."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import certifi
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cxrprep.errors import ProxyOrCertificateError, UsageError
from cxrprep.sources import trust
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.http_client import HttpClient
from cxrprep.sources.sdk_errors import failure
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


def _as_der(text: bytes) -> bytes:
    found = trust._CERTIFICATE.search(text)
    assert found is not None
    return ssl.PEM_cert_to_DER_cert(found[0].decode())


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "file": bytes,
    "folder": bytes,
    "as Notepad saves it": lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
    "as PowerShell saves it": lambda text: text.decode().encode("utf-16"),
    "as Windows exports it": _as_der,
    "folder as Windows exports it": _as_der,
    "with a margin": lambda text: b"".join(b"    " + line for line in text.splitlines(keepends=True)),
}


@pytest.mark.parametrize("variable", trust.VARIABLES)
@pytest.mark.parametrize("kind", FORMS)
def test_a_file_or_a_folder_may_be_named_by_any_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path, variable: str, kind: str
) -> None:
    place = tmp_path / "anchors"
    place.mkdir()
    (place / "site.pem").write_bytes(FORMS[kind](certificate.read_bytes()))
    monkeypatch.setenv(variable, str(place if kind.startswith("folder") else place / "site.pem"))
    with loopback.running(lambda _: loopback.Reply(200, b"trusted"), certificate) as server:
        assert prepare_session(requests.Session()).get(server.url).content == b"trusted"


def _signed(
    folder: Path, name: str, by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for 127.0.0.1 and its key, in ``folder`` too: signed ``by`` another one, without an identifier."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(by[0].subject if by else subject, subject, key.public_key(), 1 + len(name))
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name != "leaf", path_length=None), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(by[1] if by else key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made, key


@pytest.mark.parametrize("named", ["root", "middle", "leaf"])
def test_one_certificate_of_the_chain_is_enough_for_libcurl_and_for_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    """Companies hand out the authority in the middle, and people save what their browser shows: the site's own."""
    root = _signed(tmp_path, "root", None)
    middle = _signed(tmp_path, "middle", root)
    _, key = _signed(tmp_path, "leaf", middle)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = tmp_path / "chain.pem"
    chain.write_bytes(private + (tmp_path / "leaf.pem").read_bytes() + (tmp_path / "middle.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / f"{named}.pem"))
    with (
        loopback.running(lambda _: loopback.Reply(200, b"trusted"), chain) as server,
        closing(HttpClient(SourceOptions(timeout=5))) as client,
    ):
        assert client.read(server.url)[1] == b"trusted"
        assert prepare_session(requests.Session()).get(server.url).content == b"trusted"


@pytest.mark.parametrize(
    ("days", "host", "said"),
    [(-1, "127.0.0.1", "it has ended"), (1, "127.0.0.9", "another name")],
    ids=["time", "name"],
)
def test_why_a_certificate_is_refused_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, host: str, said: str
) -> None:
    refused = loopback.certificate(tmp_path, days, host)
    monkeypatch.setenv("SSL_CERT_FILE", str(refused))
    with (
        loopback.running(lambda _: loopback.Reply(200, b"x"), refused) as server,
        closing(HttpClient(SourceOptions(timeout=5))) as client,
    ):
        with pytest.raises(ProxyOrCertificateError, match=said):
            client.read(server.url)
        with pytest.raises(requests.exceptions.SSLError) as caught:
            prepare_session(requests.Session()).get(server.url)
        assert said in failure(server.url, caught.value, 5).message


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


@pytest.mark.parametrize(
    "damage", [b"AAAA", b"MIIB", b"%%%%", b"MIIBAgMEBQ=="], ids=["cut", "short", "no base64", "a key"]
)
def test_a_damaged_certificate_among_good_ones_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificate: Path, damage: bytes
) -> None:
    good = certificate.read_bytes()
    bad = b"-----BEGIN CERTIFICATE-----\n" + damage + b"\n-----END CERTIFICATE-----\n"
    (tmp_path / "company.pem").write_bytes(good + bad + good)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))
    line = len(good.splitlines()) + 1
    with pytest.raises(UsageError, match=rf"company\.pem cannot be read: the certificate in line {line} is damaged"):
        trust.ca_bundle()


def test_an_empty_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(UsageError, match="a folder without certificates"):
        trust.ca_bundle()


def test_the_bundle_is_made_once(tmp_path: Path) -> None:
    first = trust.ca_bundle()
    trust._bundle.cache_clear()
    assert trust.ca_bundle() == first
    assert len([*(tmp_path / "cache" / "cxrprep").glob("*.pem")]) <= 1
