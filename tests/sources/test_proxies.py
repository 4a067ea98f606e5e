"""Which proxy is on the way to a host, and that its login is never shown."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import requests

from cxrprep.credentials.secret import mask_urls
from cxrprep.errors import AccessError, CxrprepError, ProxyOrCertificateError, SourceUnreachableError, UsageError
from cxrprep.sources import service_session
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.http_client import HttpClient
from cxrprep.sources.network_errors import NotConnectedError
from cxrprep.sources.proxies import proxy_for
from cxrprep.sources.sdk_errors import failure
from cxrprep.sources.service_session import prepare_session
from cxrprep.sources.urls import Endpoint
from tests.servers import loopback, raw_http

HTTP = Endpoint("http", "files.example.test", 80)
HTTPS = Endpoint("https", "files.example.test", 443)
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("proxy.test", "http://proxy.test:80"),
        ("http://proxy.test:3128/", "http://proxy.test:3128"),
        ("https://proxy.test", "https://proxy.test:443"),
        ("socks5h://127.0.0.1", "socks5h://127.0.0.1:1080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://user:s3cret#x@proxy.test:8080", "http://user:s3cret%23x@proxy.test:8080"),
        ("http://user:a/b?c@d@proxy.test:8080", "http://user:a%2Fb%3Fc%40d@proxy.test:8080"),
        ("http://user:a%23b@proxy.test:8080", "http://user:a%23b@proxy.test:8080"),
        (" http://bücher.test:\n", "http://xn--bcher-kva.test:80"),
    ],
)
def test_an_address_is_read_as_it_was_meant(monkeypatch: pytest.MonkeyPatch, value: str, url: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    found = proxy_for(HTTPS)
    assert found is not None
    assert found.url == url
    assert "user" not in found.shown
    assert "user" not in repr(found)
    assert proxy_for(HTTP) is None


@pytest.mark.parametrize(
    "value", ["http://user:s3cret@", "ftp://proxy.test", "http://user:s3cret@host:99999", "http://host:0", "http://a b"]
)
def test_what_is_no_address_is_said_without_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageError, match="all_proxy") as caught:
        proxy_for(HTTPS)
    assert "s3cret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("files.example.test", True),
        (".example.test", True),
        ("*.example.test", True),
        ("other.test, example.test", True),
        ("EXAMPLE.test.", True),
        ("other.test;files.example.test:443", True),
        ("*", True),
        ("other.test", False),
        ("ample.test", False),
        ("files.example.test:80", False),
        ("https://files.example.test", False),
        ("10.0.0.0/8", False),
    ],
)
def test_exceptions_by_name(monkeypatch: pytest.MonkeyPatch, exceptions: str, direct: bool) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert (proxy_for(HTTPS) is None) is direct


def test_exceptions_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv(
        "no_proxy", "10.0.0.0/8,[::1],fd00::/8,192.168.*,172.16.0.1:8080,[fe80::1]:81,bücher.test,0/99,!"
    )
    for host, port in (
        ("10.1.2.3", 80), ("::1", 80), ("fd00::7", 80), ("192.168.3.4", 80), ("172.16.0.1", 8080), ("fe80::1%eth0", 81),
        ("xn--bcher-kva.test", 80),
    ):  # fmt: skip
        assert proxy_for(Endpoint("http", host, port)) is None
    for host, port in (("11.1.2.3", 80), ("::2", 80), ("192.169.3.4", 80), ("172.16.0.1", 80), ("fe80::1", 80)):
        assert proxy_for(Endpoint("http", host, port)) is not None


def test_a_service_session_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback.running(lambda request: loopback.Reply(200, request.headers["host"].encode())) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:pass#word@"))
        assert prepare_session(requests.Session()).get("http://files.example.test/x").content == b"files.example.test"
        assert loopback.basic(proxy.seen[0]) is None
        assert "proxy-authorization" in proxy.seen[0].headers


def _refusing(status: str) -> Callable[..., bool]:
    def app(connection: raw_http.Connection, *_: object) -> bool:
        connection.send(raw_http.answer(b"", status=status))
        return False

    return app


def _by_libcurl(url: str, timeout: float = 5) -> None:
    with closing(HttpClient(SourceOptions(timeout=timeout))) as client:
        client.read(url)


def _by_session(url: str, timeout: float = 5) -> None:
    try:
        prepare_session(requests.Session(), timeout).get(url)
    except requests.RequestException as error:
        raise failure(url, error, timeout) from None


@pytest.mark.parametrize("ask", [_by_libcurl, _by_session])
@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("407 Proxy Authentication Required", ProxyOrCertificateError, "the proxy {} rejects the login"),
        ("403 Forbidden", ProxyOrCertificateError, "the proxy {} refuses the way to files.example.test (403)"),
        ("405 Method Not Allowed", ProxyOrCertificateError, "the proxy {} refuses the way to files.example.test (405)"),
        ("429 Too Many Requests", NotConnectedError, "through the proxy {}: the proxy answered 429"),
        ("503 Overloaded", NotConnectedError, "through the proxy {}: the proxy answered 503"),
        ("", NotConnectedError, "through the proxy {}: it is refused or cannot be reached"),
    ],
)
def test_a_proxy_that_lets_nobody_through_is_named_to_every_client(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None], status: str, kind: type[CxrprepError], said: str
) -> None:
    """By libcurl as by the sessions of the services' own clients, with the same exit code, and never its password."""
    with raw_http.serving(_refusing(status)) as proxy:
        address = proxy.url if status else "http://127.0.0.1:9"
        monkeypatch.setenv("https_proxy", address.replace("://", "://user:s3cr#t@"))
        with pytest.raises(kind) as found:
            ask("https://files.example.test/x")
    assert said.format(address) in found.value.message
    assert "s3cr" not in found.value.message + found.value.hint
    assert mask_urls(found.value.hint) == found.value.hint


@pytest.mark.parametrize("ask", [_by_libcurl, _by_session])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_says_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[str, float], None], scheme: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv(f"{scheme}_proxy", address)
        with pytest.raises(SourceUnreachableError) as found:
            ask(f"{scheme}://files.example.test/x", 0.5)
    assert f"files.example.test through the proxy {address}" in found.value.message
    if ask is _by_libcurl and scheme == "https":
        assert found.value.message.endswith(": the proxy does not answer within 0.5 s")


@pytest.mark.parametrize("status", ["401 Unauthorized", "500 Unable to connect"])
def test_a_proxy_that_may_have_answered_in_a_hosts_place_is_named(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    """As tinyproxy 1.11 does to a wrong login, and to a host that it cannot reach."""
    with raw_http.serving(_refusing(status)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:s3cr#t@"))
        with pytest.raises(CxrprepError) as found:
            _by_libcurl("http://files.example.test/x")
    assert f"the proxy {proxy.url} may have said so" in found.value.hint
    assert "s3cr" not in found.value.message + found.value.hint


@pytest.mark.parametrize("proxied", [False, True])
def test_a_service_session_waits_no_time_out_for_a_silent_address(
    monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    """And says that no connection came about, which is not tried for long."""
    monkeypatch.setattr(service_session, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        # Once its queue is full, what else knocks there hears nothing.
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if proxied:
            monkeypatch.setenv("https_proxy", address)
        began = time.monotonic()
        with pytest.raises(NotConnectedError, match="the proxy does not" if proxied else "its address does not"):
            _by_session("https://files.example.test/" if proxied else address, 20)
        assert time.monotonic() - began < 10
        for one in waiting:
            one.close()


def test_a_service_session_reads_no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login anonymous password secretpw\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))

    def answer(request: loopback.Request) -> loopback.Reply:
        if request.path == "/first":
            return loopback.Reply(302, b"", {"Location": other.url + "/second"})
        return loopback.Reply(200, request.headers.get("authorization", "nothing").encode())

    with loopback.running(answer) as server, loopback.running(answer) as other:
        session = prepare_session(requests.Session())
        session.headers["Authorization"] = "Bearer token"
        assert session.get(f"{server.url}/second").content == b"Bearer token"
        assert b"Basic" not in session.get(f"{server.url}/first").content


def test_a_proxy_may_speak_tls_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = loopback.certificate(tmp_path)

    def answer(request: loopback.Request) -> loopback.Reply:
        if "proxy-authorization" in request.headers:
            return loopback.Reply(200, b"through it")
        return loopback.Reply(407, b"", {"Proxy-Authenticate": 'Basic realm="here"'})

    with loopback.running(answer, certificate) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:pass@"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = HttpClient(SourceOptions(timeout=5))
        assert client.read("http://files.example.test/x")[1] == b"through it"
        assert [loopback.basic(request) for request in proxy.seen] == [None, None]
        client.close()
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(AccessError, match="not trusted"):
            HttpClient(SourceOptions(timeout=5)).read("http://files.example.test/x")
