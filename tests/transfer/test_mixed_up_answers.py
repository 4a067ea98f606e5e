"""A server that sends an answer twice, and mirrors with faults below the top: no file gets another's bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cxrprep.errors import ExitCode
from cxrprep.transfer.options import TransferOptions
from tests.servers import raw_http
from tests.servers.raw_http import answer
from tests.transfer.runs import QUICK, download, image, noise, tree

FILES = {image(n): noise(5_000, n) for n in range(1, 7)}


def _page(names: list[str]) -> bytes:
    links = "".join(f'<a href="{name}">{name}</a> 01-Jan-2026 10:00 4.9K\n' for name in names)
    return answer(
        f"<html><body><h1>Index of /</h1><pre>{links}</pre></body></html>".encode(), "Content-Type: text/html"
    )


@pytest.mark.parametrize("twice", range(1, 7))
@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_an_answer_sent_twice_costs_no_file_its_bytes(tmp_path: Path, twice: int, gap: float) -> None:
    """Of these files nothing is known but the name: no size, no validator, no digest."""
    sent = []

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if path == "/":
            connection.send(_page(["images/"]))
        elif path == "/images/":
            connection.send(_page([name.partition("/")[2] for name in FILES]))
        elif path[1:] not in FILES:
            connection.send(answer(b"", status="404 Not Found"))
        elif method == "HEAD":
            connection.send(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        else:
            sent.append(path)
            connection.send(answer(FILES[path[1:]]))
            if len(sent) == twice:
                connection.send(answer(FILES[path[1:]]), after=gap)

    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url, options=TransferOptions(connections=1, retry_policy=QUICK))
    assert result.exit_code is ExitCode.DONE
    assert result.done == len(FILES)
    assert tree(tmp_path) == FILES


def test_a_published_digest_judges_what_two_nodes_call_differently(tmp_path: Path) -> None:
    """Each request goes to the other node, whose ETag differs, and each connection breaks after 1.2 MB of 3."""
    data = noise(3_000_000, 3)
    name = image(1)
    sums = f"{hashlib.md5(data).hexdigest()}  {name}\n".encode()
    sent = 0

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        nonlocal sent
        if path == "/MD5SUMS":
            connection.send(answer(sums))
            return True
        if path[1:] != name:
            connection.send(answer(b"", status="404 Not Found"))
            return True
        tag = f'ETag: "node{len(server.seen) % 2}"'
        asked = headers.get("range", "bytes=0-")
        first = int(asked.removeprefix("bytes=").partition("-")[0])
        place = f"Content-Range: bytes {first}-{len(data) - 1}/{len(data)}"
        body = data[first:] if method == "GET" else b""
        head = answer(b"", tag, place, status="206 Partial Content") if "range" in headers else answer(b"", tag)
        connection.send(head.replace(b"Content-Length: 0", f"Content-Length: {len(data) - first}".encode()))
        connection.send(body[:1_200_000])
        sent += len(body[:1_200_000])
        return method == "HEAD" or len(body) <= 1_200_000

    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url)
    assert result.exit_code is ExitCode.DONE
    assert tree(tmp_path) == {name: data}
    assert sent < 1.1 * len(data)


@pytest.mark.parametrize(
    ("sent", "code"),
    [(answer(b""), ExitCode.INTEGRITY), (answer(b"", status="204 No Content"), ExitCode.UNREACHABLE)],
)
def test_an_answer_without_bytes_is_no_image(tmp_path: Path, sent: bytes, code: ExitCode) -> None:
    """Nothing is known of these files but their names. Who has nothing to send has nothing the next time either."""

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if path == "/":
            connection.send(_page(["images/"]))
        elif path == "/images/":
            connection.send(_page([name.partition("/")[2] for name in FILES]))
        elif path[1:] == image(3) and method == "GET":
            connection.send(sent)
        else:
            found = path[1:] in FILES and method == "GET"
            connection.send(answer(FILES[path[1:]]) if found else answer(b"", status="404 Not Found"))

    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url)
        asked = sum(path[1:] == image(3) for method, path, _ in server.seen if method == "GET")
    assert result.exit_code is code
    # A HEAD that was refused may be asked again as a GET, of this file or of another.
    assert asked <= 3
    assert tree(tmp_path) == {name: data for name, data in FILES.items() if name != image(3)}
