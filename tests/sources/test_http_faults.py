"""Answers of servers, balancers and proxies that HTTP clients have got wrong: the right bytes, or an error."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pycurl
import pytest
from imagecodecs import brotli_encode

from cxrprep.errors import (
    AccessError,
    CxrprepError,
    ExitCode,
    ProxyOrCertificateError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.sources import network_errors
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.http_client import HttpClient
from cxrprep.sources.http_connection import ConnectionSettings, HttpConnection
from cxrprep.sources.http_response import HttpResponse
from cxrprep.sources.network_errors import CONNECT_SECONDS, TIMED_OUT, NotConnectedError
from cxrprep.sources.urls import split_url
from tests.servers import loopback, raw_http
from tests.servers.raw_http import answer
from tests.sources.contract import content, credentials

DATA = bytes(range(256)) * 40
BODY = b"FIRST LINE\r\n\r\nSECOND LINE\r\n"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with closing(HttpClient(SourceOptions(timeout=3))) as made:
        yield made


def with_netrc(tmp_path: Path, text: str) -> HttpClient:
    path = tmp_path / ".netrc"
    path.write_text(text)
    path.chmod(0o600)
    return HttpClient(SourceOptions(credentials=credentials({"NETRC": str(path)}, tmp_path), timeout=3))


# ---- one answer ----


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.0 200 OK\nServer: old-cgi\n\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 27\n\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 200OK\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 299 Fine\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 203 Changed\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(BODY),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 27\r\n\r\nFIRST LINE\r\n\r\nSECOND LINE\r\n",
    ],
    ids=[
        "bare LF",
        "bare LF, length",
        "bare LF, chunks",
        "no reason",
        "reason at once",
        "299",
        "203",
        "interim",
        "trailers",
        "chunks and a length",
        "length twice",
        "no such length",
        "identity",
    ],
)
def test_forms_of_an_answer(client: HttpClient, sent: bytes) -> None:
    def app(connection: raw_http.Connection, *_: object) -> bool:
        connection.send(sent)
        return False

    with raw_http.serving(app) as server:
        stream = client.open(server.url + "/x.bin")
        assert stream.length in (None, len(BODY))
        assert content(stream) == b"FIRST LINE\r\n\r\nSECOND LINE\r\n"


@pytest.mark.parametrize("length", [5, 70_000])
@pytest.mark.parametrize(
    "lines",
    [
        "Transfer-Encoding: identity\r\nContent-Length: {}",
        "Transfer-Encoding:\r\nContent-Length: {}",
        "Content-Length : {}",
    ],
)
def test_a_length_that_libcurl_does_not_heed_ends_the_body(client: HttpClient, lines: str, length: int) -> None:
    data = bytes(length)

    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(f"HTTP/1.1 200 OK\r\n{lines.format(length)}\r\n\r\n".encode() + data)

    with raw_http.serving(app) as server:
        for _ in range(2):
            assert content(client.open(server.url + "/x.png")) == data
            assert client.read(server.url + "/list")[1] == data


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding  : chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 9_000) for n in range(40)) + b"\r\n",
    ],
    ids=["blank before the colon", "two blanks", "tab", "size that is none", "endless head"],
)
def test_framing_that_cannot_be_read_is_no_file(client: HttpClient, sent: bytes) -> None:
    with (
        raw_http.serving(lambda c, *_: c.send(sent) or False) as server,  # type: ignore[func-returns-value]
        pytest.raises(SourceUnreachableError, match="not valid HTTP"),
    ):
        content(client.open(server.url + "/x.bin"))


@pytest.mark.parametrize(
    "start",
    [
        b"<!-- a -->\n<!-- b -->\n<!DOCTYPE html>",
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
        b"<head><title>Sign in</title>",
        b"<TITLE>Sign in</TITLE>",
        b'<script>location = "/login"</script>',
        b'<meta http-equiv="refresh" content="0; url=/login">',
    ],
)
def test_a_page_without_its_type_is_no_file(client: HttpClient, start: bytes) -> None:
    page = answer(start + b"<form>", "Content-Type: application/octet-stream")
    with raw_http.serving(lambda c, *_: c.send(page)) as server, pytest.raises(AccessError, match="a web page"):
        content(client.open(server.url + "/x.png"))


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\0DICM", b"PK\x03\x04"])
def test_what_a_script_hands_out_as_a_page_may_be_a_file(client: HttpClient, start: bytes) -> None:
    data = start + b"\xfe" * 5000
    with raw_http.serving(lambda c, *_: c.send(answer(data, "Content-Type: text/html; charset=UTF-8"))) as server:
        assert content(client.open(server.url + "/x.png")) == data


@pytest.mark.parametrize("body", [b"Please sign in.", b"", "<html>Sign in</html>".encode("utf-16-le")])
def test_a_page_that_shows_in_its_type_alone_is_no_file(client: HttpClient, body: bytes) -> None:
    page = answer(body, "Content-Type: text/html")
    with raw_http.serving(lambda c, *_: c.send(page)) as server, pytest.raises(AccessError, match="a web page"):
        client.open(server.url + "/x.png", offset=5)


@pytest.mark.parametrize(
    "start", [b"<?xml version='1.0'?><eCitation>", b"<p align=center>README", b"<headers>", b"<!-- x"]
)
def test_what_begins_like_a_page_may_be_a_file(client: HttpClient, start: bytes) -> None:
    with raw_http.serving(lambda c, *_: c.send(answer(start))) as server:
        assert content(client.open(server.url + "/x.xml")) == start


@pytest.mark.parametrize("coding", ['"gzip"', "gzip;q=1.0", "GZIP"])
def test_a_coding_is_read_as_servers_write_it(client: HttpClient, coding: str) -> None:
    packed = answer(gzip.compress(DATA), f"Content-Encoding: {coding}")
    with raw_http.serving(lambda c, *_: c.send(packed)) as server:
        assert content(client.open(server.url + "/x.png")) == DATA


@pytest.mark.parametrize("name", ["binary", "8bit", "UTF-8", "aws-chunked", "null"])
def test_what_is_no_coding_is_none(client: HttpClient, name: str) -> None:
    with raw_http.serving(lambda c, *_: c.send(answer(DATA, f"Content-Encoding: {name}"))) as server:
        stream = client.open(server.url + "/x.png")
        assert (stream.length, content(stream)) == (len(DATA), DATA)


def _deflated(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:])),
        ("gzip", lambda data: b"".join(gzip.compress(data[at : at + 100]) for at in range(0, len(data), 100))),
        ("gzip", lambda data: gzip.compress(data) + bytes(512)),
        ("x-gzip", gzip.compress),
        ("gzip", bytes),
        ("deflate", zlib.compress),
        ("deflate", _deflated),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("identity, gzip", gzip.compress),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ],
)
@pytest.mark.parametrize("offset", [0, 1_000])
def test_a_coding_that_nobody_asked_for_is_undone(
    client: HttpClient, coding: str, encode: Callable[[bytes], bytes], offset: int
) -> None:
    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(answer(encode(DATA), f"Content-Encoding: {coding}", 'ETag: "a"'))

    with raw_http.serving(app) as server:
        stream = client.open(server.url + "/x.png", offset=offset)
        assert stream.offset == 0
        assert content(stream) == DATA


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip", "deflate, gzip", "br", "br, gzip"])
@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("change", ["cut", "cut by one", "longer"])
def test_what_is_cut_or_longer_within_its_coding_is_no_file(
    client: HttpClient, coding: str, framed: bool, change: str
) -> None:
    """All bytes that the length states came, and libcurl calls such a stream whole."""
    data = random.Random(1).randbytes(3_000)
    forms = {"gzip": gzip.compress, "deflate": zlib.compress if framed else _deflated, "br": brotli_encode}
    packed = forms[coding.partition(",")[0]](data)
    packed = {"cut": packed[:-20], "cut by one": packed[:-1], "longer": packed + b"x"}[change]
    sent = gzip.compress(packed) if coding.endswith(", gzip") else packed
    with raw_http.serving(lambda c, *_: c.send(answer(sent, f"Content-Encoding: {coding}"))) as server:
        with pytest.raises(SourceUnreachableError, match="damaged"):
            content(client.open(server.url + "/x.png"))
        with pytest.raises(SourceUnreachableError, match="damaged"):
            client.read(server.url + "/list")


@pytest.mark.parametrize("name", ["/x.png", "/x.zip"])
def test_brotli_is_undone(client: HttpClient, name: str) -> None:
    # An uncompressed block, as RFC 7932 writes it.
    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(answer(b"\x0b\x02\x80hello\x03", "Content-Encoding: br", 'ETag: "a"'))

    with raw_http.serving(app) as server:
        assert content(client.open(server.url + name)) == b"hello"
        assert client.read(server.url + name)[1] == b"hello"
        assert len(server.seen) == 2


@pytest.mark.parametrize("coding", ["zstd", "compress", "aes128gcm", "gzip, zstd"])
def test_a_coding_that_cannot_be_undone_is_no_file(client: HttpClient, coding: str) -> None:
    with (
        raw_http.serving(lambda c, *_: c.send(answer(DATA, f"Content-Encoding: {coding}"))) as server,
        pytest.raises(SourceUnreachableError, match="coding"),
    ):
        content(client.open(server.url + "/x.png"))


def test_a_transfer_coding_that_is_unknown_is_no_file(client: HttpClient) -> None:
    packed = gzip.compress(DATA)
    sent = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        + f"{len(packed):x}\r\n".encode() + packed + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    with raw_http.serving(lambda c, *_: c.send(sent)) as server, pytest.raises(SourceUnreachableError):
        content(client.open(server.url + "/x.png"))


def test_an_archives_own_compression_stays(client: HttpClient) -> None:
    packed = gzip.compress(DATA)
    with raw_http.serving(lambda c, *_: c.send(answer(packed, "Content-Encoding: x-gzip"))) as server:
        assert content(client.open(server.url + "/x.tar.gz")) == packed


@pytest.mark.parametrize("kind", ["none", "multipart"])
def test_a_part_without_its_place_is_asked_for_whole(client: HttpClient, kind: str) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if "range" not in headers:
            connection.send(answer(DATA))
        elif kind == "none":
            connection.send(answer(DATA[100:], status="206 Partial Content"))
        else:
            part = b"--b\r\nContent-Range: bytes 100-/1\r\n\r\n" + DATA[100:] + b"\r\n--b--"
            connection.send(
                answer(part, "Content-Type: multipart/byteranges; boundary=b", status="206 Partial Content")
            )

    with raw_http.serving(app) as server:
        stream = client.open(server.url + "/x.png", offset=100)
        assert stream.offset == 0
        assert content(stream) == DATA
        assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("place", "body"),
    [
        (f"bytes 100-{len(DATA) - 1}/500", DATA[100:]),
        (f"bytes 100-50/{len(DATA)}", DATA[100:]),
        (f"bytes 100-{len(DATA) - 1}/{len(DATA)}", DATA[100:] + b"more"),
        (f"bytes 100-{len(DATA) - 1}/{len(DATA)}, bytes 90-{len(DATA) - 1}/{len(DATA)}", DATA[90:]),
    ],
)
def test_a_place_that_contradicts_itself_is_none(client: HttpClient, place: str, body: bytes) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        part = answer(body, f"Content-Range: {place}", status="206 Partial Content")
        connection.send(part if "range" in headers else answer(DATA))

    with raw_http.serving(app) as server:
        stream = client.open(server.url + "/x.png", offset=100)
        assert (stream.offset, stream.length, content(stream)) == (0, len(DATA), DATA)


@pytest.mark.parametrize("form", ["bytes=100-{}/{}", "bytes: 100-{}/{}", "Bytes 100 - {} / {}"])
def test_a_place_is_read_as_servers_write_it(client: HttpClient, form: str) -> None:
    place = form.format(len(DATA) - 1, len(DATA))
    part = answer(DATA[100:], f"Content-Range: {place}", status="206 Partial Content")
    with raw_http.serving(lambda c, *_: c.send(part)) as server:
        stream = client.open(server.url + "/x.png", offset=100)
        assert (stream.offset, stream.length, content(stream)) == (100, len(DATA), DATA[100:])


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 409, 412, 413, 416, 422, 501])
def test_a_server_that_refuses_ranges_is_asked_for_all(client: HttpClient, status: int) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        connection.send(answer(b"", status=f"{status} No") if "range" in headers else answer(DATA))

    with raw_http.serving(app) as server:
        stream = client.open(server.url + "/x.png", offset=100)
        assert (stream.offset, content(stream)) == (0, DATA)


@pytest.mark.parametrize(
    ("status", "body"), [(429, b""), (403, b"rateLimitExceeded"), (407, b""), (500, b""), (503, b"")]
)
def test_what_passes_is_no_refusal_of_the_range(client: HttpClient, status: int, body: bytes) -> None:
    refused = answer(body, status=f"{status} No")
    with raw_http.serving(lambda c, *_: c.send(refused)) as server, pytest.raises(CxrprepError):
        client.open(server.url + "/x.png", offset=100)
    assert len(server.seen) == 1


def test_who_has_served_ranges_of_one_file_may_refuse_those_of_the_next(client: HttpClient) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        part = answer(DATA[100:], f"Content-Range: bytes 100-{len(DATA) - 1}/{len(DATA)}", status="206 Partial Content")
        whole = path == "/b.png" and "range" not in headers
        connection.send(part if path == "/a.png" else answer(DATA) if whole else answer(b"", status="403 No"))

    with raw_http.serving(app) as server:
        assert content(client.open(server.url + "/a.png", offset=100)) == DATA[100:]
        with client.open(server.url + "/b.png", offset=100) as stream:
            assert (stream.offset, content(stream)) == (0, DATA)
        with pytest.raises(AccessError):
            client.open(server.url + "/c.png", offset=100)
        assert [path for _, path, _ in server.seen] == ["/a.png", "/b.png", "/b.png", "/c.png", "/c.png"]


def test_nothing_is_continued_by_a_date_within_the_second_of_the_answer() -> None:
    """The file may be replaced once more in that second, under the same date (RFC 9110, 8.8.2.2)."""
    modified = "Tue, 03 Nov 2026 10:00:00 GMT"

    def validator(date: str | None) -> str | None:
        headers = {"last-modified": modified} | ({"date": date} if date else {})
        return HttpResponse(200, headers, "http://a.test/").validator(5)

    assert validator(modified) is None
    assert validator("Tue, 03 Nov 2026 10:00:01 GMT") == validator(None) == validator("soon") == f"{modified}; 5"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "form",
    [
        "{0:.0f}",
        "{0:.1f}",
        "5, {0}",
        "{0}, 5, 7",
        "{0} seconds",
        '"{0}"',
        "epoch",
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S",
    ],
)
def test_the_wait_is_read_in_each_form_and_zone(monkeypatch: pytest.MonkeyPatch, zone: str, form: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        text = form.format(30) if "{" in form else time.strftime(form, time.gmtime(time.time() + 30))
        text = f"{time.time() + 30:.0f}" if form == "epoch" else text
        wait = HttpResponse(503, {"retry-after": text}, "http://a.test/").retry_after
    finally:
        monkeypatch.undo()
        time.tzset()
    assert wait is not None
    assert 27 < wait <= 31


def test_a_wait_counts_from_the_servers_clock() -> None:
    headers = {"date": "Tue, 03 Nov 2020 10:00:00 GMT", "retry-after": "Tue, 03 Nov 2020 10:00:30 GMT"}
    assert HttpResponse(503, headers, "http://a.test/").retry_after == 30
    assert HttpResponse(503, {**headers, "date": "soon"}, "http://a.test/").retry_after == 0


def test_a_limit_of_rates_says_how_long_to_wait() -> None:
    headers = {"ratelimit": '"resolvers";r=0;t=217'}
    assert HttpResponse(429, headers, "http://a.test/").retry_after == 217
    assert HttpResponse(429, {**headers, "retry-after": "5"}, "http://a.test/").retry_after == 5
    assert HttpResponse(503, headers, "http://a.test/").retry_after is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250", "ratelimit-reset": "9"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 2),
        ({"ratelimit-reset": "40"}, 40),
        ({"x-ratelimit-reset-after": "1.470", "x-ratelimit-reset": "1604397602"}, 1.47),
        ({"x-ratelimit-reset": "1604397630", "date": "Tue, 03 Nov 2020 10:00:00 GMT"}, 30),
        ({"x-rate-limit-reset": "2020-11-03T10:00:30Z", "date": "Tue, 03 Nov 2020 10:00:00 GMT"}, 30),
        ({"retry-after-ms": "soon", "x-ratelimit-reset": "soon"}, None),
    ],
)
def test_a_wait_is_read_from_what_services_call_it(headers: dict[str, str], wait: float | None) -> None:
    assert HttpResponse(429, headers, "http://a.test/").retry_after == wait


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("202 Accepted", b"", SourceUnreachableError),
        ("429 Too Many Requests", b"", SourceUnreachableError),
        ("503 Slow Down", b"", SourceUnreachableError),
        ("507 Insufficient Storage", b"", SourceUnreachableError),
        ("530 Frozen", b"", SourceUnreachableError),
        ("451 Unavailable For Legal Reasons", b"", AccessError),
        ("511 Network Authentication Required", b"", ProxyOrCertificateError),
        ("403 Forbidden", b'{"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}', SourceUnreachableError),
        ("403 Forbidden", b'{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}', SourceUnreachableError),
        ("403 Forbidden", b'{"error": {"errors": [{"reason": "forbidden"}]}}', AccessError),
    ],
)
def test_not_now_is_told_from_not_at_all(
    client: HttpClient, status: str, body: bytes, error: type[CxrprepError]
) -> None:
    with (
        raw_http.serving(lambda c, *_: c.send(answer(body, "Retry-After: 7", status=status))) as server,
        pytest.raises(error) as caught,
    ):
        client.open(server.url + "/x.png")
    if isinstance(caught.value, SourceUnreachableError):
        assert caught.value.retry_after == 7
        assert not caught.value.lasting


# ---- connections that serve again ----


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_an_answer_that_nobody_asked_for_is_not_the_next_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: bool, gap: float
) -> None:
    certificate = loopback.certificate(tmp_path) if tls else None
    if certificate is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    twice = threading.Event()

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        # Of a busy machine: an answer that comes while the client is not at work may hide the one before it.
        connection.send(answer(path.encode()), after=0.05 if path == "/2" else 0.0)
        if path == "/1":
            connection.send(answer(path.encode()), after=gap)
            twice.set()

    with (
        raw_http.serving(app, certificate) as server,
        closing(HttpClient(SourceOptions(timeout=3))) as client,
    ):
        got = []
        for number in range(6):
            got.append(content(client.open(f"{server.url}/{number}")))
            if number == 1:
                assert twice.wait(30)
        assert got == [f"/{number}".encode() for number in range(6)]


@pytest.mark.parametrize("status", ["206 Partial Content", "200 OK", "203 Changed"])
def test_a_part_that_nobody_asked_for_is_said_at_once(client: HttpClient, status: str) -> None:
    """Retried, it would be the same for as long as the patience goes; taken, a listing would lack its beginning."""

    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(answer(DATA[40:90], f"Content-Range: bytes 40-89/{len(DATA)}", status=status))

    with raw_http.serving(app) as server:
        for ask in (client.open, client.read, lambda url: client.open(url, offset=10)):
            with pytest.raises(SourceUnreachableError, match="from byte 40 on") as found:
                ask(server.url + "/x.csv")
            assert found.value.tries == 3
        stream = client.open(server.url + "/x.csv", offset=40)
        assert (stream.offset, stream.length, content(stream)) == (40, len(DATA), DATA[40:90])


def test_a_page_that_is_a_part_only_is_not_the_page(client: HttpClient) -> None:
    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(answer(DATA[:50], f"Content-Range: bytes 0-49/{len(DATA)}", status="206 Partial Content"))

    with raw_http.serving(app) as server, pytest.raises(SourceUnreachableError, match="sent 50 of 10,240 bytes"):
        client.read(server.url + "/")


def test_a_time_out_sent_to_an_idle_connection_is_no_answer(client: HttpClient) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        connection.send(answer(path.encode()))
        connection.send(answer(b"", "Connection: close", status="408 Request Timeout"), after=0.02)
        return False

    with raw_http.serving(app) as server:
        for number in range(4):
            stream = client.open(f"{server.url}/{number}")
            assert content(stream) == f"/{number}".encode()
            time.sleep(0.05)
            assert not stream.came_over.dirty  # type: ignore[attr-defined]  # a body over a connection


def test_a_time_out_that_crosses_the_next_request_is_asked_again(client: HttpClient) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        crossed = connection.number > 1
        status = "408 Request Timeout" if crossed else "200 OK"
        connection.send(answer(path.encode(), status=status))
        return not crossed

    with raw_http.serving(app) as server:
        for number in range(4):
            assert content(client.open(f"{server.url}/{number}")) == f"/{number}".encode()
    assert len(server.seen) == 7, "each but the first was asked for over the connection of the one before, and again"


def test_late_answers_are_waited_for_from_the_last_use_on(client: HttpClient) -> None:
    """A run that took longer than that anyway ends at once."""
    with raw_http.serving(lambda connection, *_: connection.send(answer(DATA))) as server:
        for idle, least, most in ((0.0, 0.4, 3.0), (5.0, 0.0, 0.35)):
            content(client.open(server.url + "/x.png"))
            client.settings.slowest, client._released = 0.125, client._released - idle
            began = time.monotonic()
            client.settle()
            assert least <= time.monotonic() - began < most


def test_a_connection_that_was_closed_meanwhile_is_opened_again(client: HttpClient) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        connection.send(answer(path.encode()))
        return connection.number < 2

    with raw_http.serving(app) as server:
        assert [content(client.open(f"{server.url}/{n}")) for n in range(7)] == [f"/{n}".encode() for n in range(7)]


def test_a_connection_serves_again(client: HttpClient) -> None:
    numbers = []

    def app(connection: raw_http.Connection, *_: object) -> None:
        numbers.append(connection.number)
        connection.send(answer(DATA))

    with raw_http.serving(app) as server:
        for _ in range(5):
            content(client.open(server.url + "/x.png"))
    assert numbers == [1, 2, 3, 4, 5]


# ---- redirects ----


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/größe/数据.zip", "/gr%C3%B6%C3%9Fe/%E6%95%B0%E6%8D%AE.zip"),
        ("/x?cd=attachment; filename=my file.zip", "/x?cd=attachment;+filename=my+file.zip"),
        ("//{host}/there", "/there"),
        ("there?a=%2F&b=c+d", "/there?a=%2F&b=c+d"),
        ("../x/./../there#part", "/there"),
        ("http://user:s3cret@{host}/there", "/there"),
    ],
)
def test_where_a_redirect_leads(client: HttpClient, location: str, asked: str) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if path == "/first":
            where = location.format(host=headers["host"]).encode()
            connection.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n")
        else:
            connection.send(answer(path.encode()))

    with raw_http.serving(app) as server:
        got = content(client.open(server.url + "/first")).decode()
    assert got.replace("%20", "+") == asked


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ("Location: /there\r\nContent-Length : 0", b""),
        ("Location: /there", b""),
        ("Location: /there\r\nLocation: /there\r\nContent-Length: 0", b""),
        ("Location: /there\r\nContent-Length: 1000000", b"x" * 1_000_000),
        ("Location: /there\r\nContent-Length: 5", b"mov"),
    ],
    ids=["blank", "no length", "twice", "long", "cut"],
)
def test_a_redirect_leads_on_whatever_becomes_of_its_body(client: HttpClient, lines: str, body: bytes) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        head = f"HTTP/1.1 302 Found\r\n{lines}\r\n\r\n".encode()
        connection.send(answer(path.encode()) if path != "/first" else head + body)

    with raw_http.serving(app) as server:
        began = time.monotonic()
        assert content(client.open(server.url + "/first")) == b"/there"
        assert time.monotonic() - began < 2.5


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://a.test/x", "javascript:1", "http://127.0.0.1:99999/x", "http://a b.test/x"],
)
def test_a_redirect_out_of_the_web_is_refused(client: HttpClient, location: str) -> None:
    with (
        raw_http.serving(lambda c, *_: c.send(answer(b"", f"Location: {location}", status="302 Found"))) as server,
        pytest.raises(SourceUnreachableError),
    ):
        client.open(server.url + "/x.png")


@pytest.mark.parametrize(
    "sent", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", b"ICY 200 OK\r\n\r\n"]
)
def test_what_speaks_no_http_is_not_asked_for_two_minutes(client: HttpClient, sent: bytes) -> None:
    with raw_http.serving(lambda c, *_: c.send(sent)) as server, pytest.raises(SourceUnreachableError) as found:
        client.open(server.url + "/x")
    assert found.value.tries == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no colon", "Header without colon"),
        ("Content-Length: 850 bytes", "Invalid Content-Length: value"),
        ("Content-Length: -1", "Invalid Content-Length: value"),
        ("Content-Length: 5, 6", "Invalid Content-Length: value"),
        ("X: a\0b", "NUL byte in header"),
    ],
)
def test_a_line_of_a_head_that_cannot_be_read_is_said_with_the_host(client: HttpClient, line: str, said: str) -> None:
    sent = f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode() + DATA
    with raw_http.serving(lambda c, *_: c.send(sent)) as server, pytest.raises(SourceUnreachableError) as found:
        client.open(f"{server.url}/x.png?signature=secret")
    assert found.value.message == f"the connection to 127.0.0.1:{server.port} broke: not valid HTTP ({said})"
    assert found.value.hint == "it may do so each time: try another mirror, or tell those who run 127.0.0.1"
    assert (found.value.exit_code, found.value.tries) == (ExitCode.UNREACHABLE, 3)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("sent", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"])
def test_a_proxy_that_speaks_no_http_is_what_to_check(
    monkeypatch: pytest.MonkeyPatch, client: HttpClient, scheme: str, sent: bytes
) -> None:
    with raw_http.serving(lambda c, *_: c.send(sent) or False) as proxy:  # type: ignore[func-returns-value]
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        with pytest.raises(SourceUnreachableError, match="not valid HTTP") as found:
            client.open(f"{scheme}://files.example.test/x.png")
        assert f"check the proxy {proxy.url}" in found.value.hint
        assert found.value.tries == 3


def test_a_redirect_in_circles_is_not_asked_again_and_again(client: HttpClient) -> None:
    app = raw_http.serving(lambda c, *_: c.send(answer(b"", "Location: /x", status="302 Found")))
    with app as server, pytest.raises(SourceUnreachableError, match="in circles") as found:
        client.open(server.url + "/x")
    assert found.value.lasting


@pytest.mark.parametrize(
    "address", ["http://[::1/x?sig=s3cret", "https://ex℀mple.org/", "http://a:b:c/", "http://[x]y/"]
)
def test_an_address_that_is_none_is_an_error_of_usage_or_of_the_site(client: HttpClient, address: str) -> None:
    """Python's parser raises ValueError, and that only when host or port are looked at."""
    with pytest.raises(UsageError) as found:
        client.open(address)
    assert "s3cret" not in found.value.message + found.value.hint
    app = raw_http.serving(lambda c, *_: c.send(answer(b"", f"Location: {address}", status="302 Found")))
    with app as server, pytest.raises(SourceUnreachableError) as told:
        client.open(server.url + "/x")
    assert told.value.lasting


def test_each_host_gets_its_own_login_and_no_other(tmp_path: Path) -> None:
    """Here the port tells the hosts apart, and netrc knows hosts: the name and the address are two of them."""

    def guarded(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if "authorization" not in headers:
            connection.send(answer(b"", "WWW-Authenticate: Basic", status="401 Unauthorized"))
        else:
            connection.send(answer(base64.b64decode(headers["authorization"][6:])))

    with raw_http.serving(guarded) as there:
        target = f"http://127.0.0.1:{there.port}/x"
        with (
            raw_http.serving(lambda c, *_: c.send(answer(b"", f"Location: {target}", status="301 Moved"))) as here,
            closing(
                with_netrc(
                    tmp_path,
                    "machine localhost login first password one\nmachine 127.0.0.1 login second password two\n",
                )
            ) as client,
        ):
            assert content(client.open(f"http://localhost:{here.port}/x")) == b"second:two"
            assert all("authorization" not in headers for _, _, headers in here.seen)


# ---- logins ----


@pytest.mark.parametrize("realm", ["a, Digest b", "a, Digest realm=b", "Bearer", r"a \", Digest nonce=b"])
def test_what_a_realm_is_called_is_no_scheme(tmp_path: Path, realm: str) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        asked = answer(b"", f'WWW-Authenticate: Basic realm="{realm}"', status="401 No")
        connection.send(answer(DATA) if headers.get("authorization", "").startswith("Basic ") else asked)

    with (
        raw_http.serving(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
    ):
        assert content(client.open(server.url + "/x.png")) == DATA


@pytest.mark.parametrize("challenge", [(), ("WWW-Authenticate:",)])
def test_who_wants_a_login_and_names_no_scheme_gets_it(tmp_path: Path, challenge: tuple[str, ...]) -> None:
    """Servers leave the challenge out so that no browser asks; the first request goes without the password."""

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        connection.send(answer(DATA) if "authorization" in headers else answer(b"", *challenge, status="401 No"))

    with (
        raw_http.serving(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
    ):
        assert content(client.open(server.url + "/x.png")) == DATA
        assert [headers.get("authorization", "")[:6] for _, _, headers in server.seen] == ["", "Basic "]


@pytest.mark.parametrize(
    "parameters",
    [
        'realm="nonce=1"',
        'realm="x", nonce="n", algorithm=SHA-512, qop="auth"',
        'realm="x", nonce="n", qop="auth-int"',
        'realm="x", nonce=""',
    ],
)
def test_a_digest_challenge_that_cannot_be_answered_leaves_the_other(tmp_path: Path, parameters: str) -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        lines = [f"WWW-Authenticate: Digest {parameters}", 'WWW-Authenticate: Basic realm="x"']
        sent = headers.get("authorization", "").startswith("Basic ")
        connection.send(answer(b"data") if sent else answer(b"", *lines, status="401 No"))

    with (
        raw_http.serving(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
    ):
        assert content(client.open(server.url + "/x.png")) == b"data"


@pytest.mark.parametrize(
    "challenge",
    ["Bearer realm=x", "Negotiate", 'Bearer realm="Basic, x"', "NTLM", 'Digest realm="x", qop="auth"'],
)
def test_a_password_does_not_answer_another_challenge(tmp_path: Path, challenge: str) -> None:
    with (
        raw_http.serving(
            lambda c, *_: c.send(answer(b"", f"WWW-Authenticate: {challenge}", status="401 No"))
        ) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
        pytest.raises(AccessError, match=challenge.split(maxsplit=1)[0].capitalize()) as caught,
    ):
        client.open(server.url + "/x.png")
    assert all("authorization" not in headers for _, _, headers in server.seen)
    assert "secretpw" not in caught.value.message


def is_digest(sent: str, method: str, made: Callable[[bytes], hashlib._Hash] = hashlib.md5) -> bool:
    """Whether a header proves that its sender knows the password."""
    fields = {name.strip(): value.strip('" ') for name, _, value in (p.partition("=") for p in sent[7:].split(","))}
    one = made(b"user:r:secretpw").hexdigest()
    two = made(f"{method}:{fields['uri']}".encode()).hexdigest()
    right = made(f"{one}:n:{fields['nc']}:{fields['cnonce']}:auth:{two}".encode()).hexdigest()
    return fields["response"] == right


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("also", ["", 'Basic realm="x"'])
def test_digest_is_answered_by_digest(tmp_path: Path, algorithm: str, also: str) -> None:
    made = hashlib.md5 if algorithm == "MD5" else hashlib.sha256

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        sent = headers.get("authorization", "")
        if not sent.startswith("Digest "):
            challenge = f'Digest realm="r", nonce="n", qop="auth", algorithm={algorithm}'
            lines = [f"WWW-Authenticate: {text}" for text in (also, challenge) if text]
            connection.send(answer(b"", *lines, status="401 Unauthorized"))
            return
        right = is_digest(sent, method, made)
        connection.send(answer(path.encode(), status="200 OK" if right else "403 Forbidden"))

    with (
        raw_http.serving(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
    ):
        assert [content(client.open(f"{server.url}/{n}")) for n in range(3)] == [b"/0", b"/1", b"/2"]
        assert not any(headers.get("authorization", "").startswith("Basic") for _, _, headers in server.seen)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("closes", [True, False])
def test_a_nonce_that_ended_without_a_word_is_asked_for_anew(tmp_path: Path, times: int, closes: bool) -> None:
    """Each nonce serves so many requests, and no ``stale`` says so: so do nodes that do not know each other's."""
    served: dict[str, int] = {}

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        said = dict(re.findall(r'(\w+)="?([^",]*)"?', headers.get("authorization", "")))
        nonce = said.get("nonce", "")
        if nonce in served and served[nonce] < times:
            served[nonce] += 1
            connection.send(answer(DATA))
        else:
            served[f"n{len(served)}"] = 0
            challenge = f'WWW-Authenticate: Digest realm="r", nonce="n{len(served) - 1}", qop="auth"'
            connection.send(answer(b"", challenge, status="401 Unauthorized"))
        return not closes

    with (
        raw_http.serving(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login u password p")) as client,
    ):
        for number in range(7):
            assert content(client.open(f"{server.url}/{number}.png")) == DATA
        assert not any("basic" in headers.get("authorization", "").lower() for _, _, headers in server.seen)


def test_a_balancers_cookie_is_no_session(tmp_path: Path) -> None:
    def app(request: loopback.Request) -> loopback.Reply:
        sticky = {"Set-Cookie": "AWSALB=abc; Path=/"}
        if loopback.basic(request) != ("user", "secretpw"):
            return loopback.Reply(401, b"", {"WWW-Authenticate": "Basic", **sticky})
        return loopback.Reply(200, request.path.encode(), sticky)

    import concurrent.futures

    with (
        loopback.running(app) as server,
        closing(with_netrc(tmp_path, "machine 127.0.0.1 login user password secretpw\n")) as client,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        wanted = [f"/{number}" for number in range(120)]
        got = [*pool.map(lambda path: content(client.open(server.url + path)), wanted)]
        assert got == [path.encode() for path in wanted]
        assert len(server.seen) < 2 * len(wanted), "most requests carried the login at once"


# ---- proxies ----


def test_a_proxy_that_wants_a_login_for_its_tunnel_says_so(monkeypatch: pytest.MonkeyPatch, client: HttpClient) -> None:
    def app(connection: raw_http.Connection, *_: object) -> None:
        connection.send(answer(b"", "Proxy-Authenticate: Basic", status="407 Proxy Authentication Required"))

    with raw_http.serving(app) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(AccessError, match="407") as caught:
            client.open("https://files.example.test/x.png")
    assert str(proxy.port) in caught.value.message


_BASIC = f"Basic {base64.b64encode(b'user:secretpw').decode()}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("challenges", ["Digest", "Basic", "Digest, Basic", "Negotiate, Basic"])
@pytest.mark.parametrize("password", ["secretpw", "another"])
def test_a_proxys_login_is_sent_as_it_asks(
    monkeypatch: pytest.MonkeyPatch, client: HttpClient, scheme: str, challenges: str, password: str
) -> None:
    asked = {"Digest": 'Digest realm="r", nonce="n", qop="auth"', "Basic": 'Basic realm="r"', "Negotiate": "Negotiate"}

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        sent = headers.get("proxy-authorization", "")
        if is_digest(sent, method) if sent.startswith("Digest ") else "Basic" in challenges and sent == _BASIC:
            connection.send(answer(path.encode(), status="200 OK" if method == "GET" else "502 Bad Gateway"))
            return
        if "Basic" not in challenges:
            assert not sent.startswith("Basic "), "no password goes in the open where that is not asked for"
        lines = [f"Proxy-Authenticate: {asked[name]}" for name in challenges.split(", ")]
        connection.send(answer(b"a page of the proxy", *lines, status="407 Proxy Authentication Required"))

    with raw_http.serving(app) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", f"//user:{password}@"))
        url = f"{scheme}://files.example.test/x.png"
        if password != "secretpw":
            with pytest.raises(AccessError, match=r"rejects the login that the environment names for it \(407\)"):
                client.open(url)
        elif scheme == "https":
            with pytest.raises(NotConnectedError, match="the proxy answered 502"):
                client.open(url)
        else:
            assert [content(client.open(url)) for _ in range(3)] == [url.encode()] * 3
            assert len(proxy.seen) <= 5, "the login is asked for once"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, client: HttpClient, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", "http://user:s3cret#x@127.0.0.1:9")
    with pytest.raises(SourceUnreachableError, match=r"127\.0\.0\.1:9") as caught:
        client.open(f"{scheme}://files.example.test/x.png")
    assert "s3cret" not in caught.value.message + caught.value.hint


def test_a_socks_proxy_is_spoken_to_as_one(monkeypatch: pytest.MonkeyPatch, client: HttpClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(64)
            peer.sendall(b"\x05\x00")
            heard.append(peer.recv(256))
            peer.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
            peer.recv(4096)
            peer.sendall(answer(DATA))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{listener.getsockname()[1]}")
    assert content(client.open("http://files.example.test/x.png")) == DATA
    assert b"files.example.test" in heard[0]
    listener.close()


@pytest.mark.parametrize(
    ("replies", "kind", "said"),
    [
        ([b"\x05\xff"], ProxyOrCertificateError, r"rejects the login .* \(SOCKS\)"),
        ([b"\x05\x02", b"\x01\x01"], ProxyOrCertificateError, r"rejects the login .* \(SOCKS\)"),
        (
            [b"\x05\x00", b"\x05\x02\x00\x01" + bytes(6)],
            ProxyOrCertificateError,
            "refuses the way to files.example.test",
        ),
        ([b"\x05\x00", b"\x05\x04\x00\x01" + bytes(6)], NotConnectedError, "the SOCKS proxy cannot reach it"),
    ],
)
def test_a_socks_proxy_that_refuses_is_what_to_check(
    monkeypatch: pytest.MonkeyPatch, client: HttpClient, replies: list[bytes], kind: type[CxrprepError], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            peer, _ = listener.accept()
            with peer:
                for reply in replies:
                    peer.recv(256)
                    peer.sendall(reply)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"socks5h://user:s3cr#t@{address}")
        with pytest.raises(kind, match=said) as caught:
            client.open("http://files.example.test/x.png")
        thread.join(5)
    assert f"socks5h://{address}" in caught.value.message
    assert "s3cr" not in caught.value.message + caught.value.hint


# ---- the network ----


def test_a_name_that_is_not_ascii_is_asked_for_as_dns_writes_it(
    monkeypatch: pytest.MonkeyPatch, client: HttpClient
) -> None:
    with raw_http.serving(lambda c, m, p, headers: c.send(answer(headers["host"].encode()))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert content(client.open("http://bücher.example.test/x")) == b"xn--bcher-kva.example.test"


def test_an_address_that_is_silent_costs_no_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose connections nobody takes up, as IPv6 is in many networks: the other one is tried meanwhile."""
    with raw_http.serving(lambda c, *_: c.send(answer(DATA))) as server:
        try:
            silent = socket.create_server(("::1", server.port), family=socket.AF_INET6, backlog=0)
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        set_up = HttpConnection.__init__

        def named(connection: HttpConnection, *given: object) -> None:
            set_up(connection, *given)  # type: ignore[arg-type]  # what it was given
            connection._curl.setopt(pycurl.RESOLVE, [f"both.test:{server.port}:[::1],127.0.0.1"])

        monkeypatch.setattr(HttpConnection, "__init__", named)
        # Once its queue is full, what else knocks there hears nothing.
        waiting = [socket.socket(socket.AF_INET6) for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("::1", server.port))
        with silent, closing(HttpClient(SourceOptions(timeout=20))) as client:
            began = time.monotonic()
            for _ in range(3):
                assert content(client.open(f"http://both.test:{server.port}/x.png")) == DATA
            assert time.monotonic() - began < CONNECT_SECONDS
        for one in waiting:
            one.close()


@pytest.mark.parametrize("host", ["[::1%25lo]", "[::1%lo]"])
def test_an_address_may_name_its_interface(client: HttpClient, host: str) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(answer(DATA))

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        assert content(client.open(f"http://{host}:{listener.getsockname()[1]}/x.png")) == DATA


def test_who_gives_up_on_a_name_server_does_not_wait_for_it_once_more() -> None:
    settings = ConnectionSettings(3, "x")
    connection = HttpConnection(split_url("http://files.example.test/")[0], settings)
    answers, asked = threading.Event(), threading.Event()

    class Waiting:
        def close(self) -> None:
            asked.set()
            assert answers.wait(60)

    connection._multi.close()
    connection._multi, connection._code = Waiting(), TIMED_OUT
    connection.close()
    assert asked.wait(60)
    assert not answers.is_set()
    answers.set()


def test_no_network_is_said_soon_with_what_was_tried(monkeypatch: pytest.MonkeyPatch, client: HttpClient) -> None:
    monkeypatch.setattr(network_errors, "CONNECT_SECONDS", 0.3)
    began = time.monotonic()
    # 192.0.2.0/24 is for documentation (RFC 5737): nobody answers there, or the system says at once that no way leads.
    with pytest.raises(SourceUnreachableError, match=r"192\.0\.2\.1"):
        client.open("http://192.0.2.1/x.png")
    assert time.monotonic() - began < 3
    with pytest.raises(SourceUnreachableError, match="DNS"):
        client.open("http://nobody.invalid/x.png")
