"""HTTP/2 over TLS by real servers: negotiated, ended by GOAWAY in the middle of a run, or the only protocol offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrprep.sources.base import SourceOptions
from cxrprep.sources.http_client import HttpClient
from cxrprep.transfer.options import TransferOptions
from tests.parts import need
from tests.servers import loopback, nginx
from tests.servers.processes import free_port, process
from tests.sources.contract import content
from tests.transfer.runs import QUICK, download, tree

FILES = {f"images/{number:08d}_000.png": bytes([number]) * 20_000 for number in range(1, 25)}
# Of Node's own; it answers HTTP/1.1 with a refusal.
_HTTP2_ONLY = """
const [certificate, port, root] = process.argv.slice(1), fs = require("fs"), pem = fs.readFileSync(certificate);
require("http2").createSecureServer({key: pem, cert: pem}).on("stream", (stream, headers) => {
  const path = root + headers[":path"], range = /bytes=([0-9]+)-/.exec(headers.range || "");
  const from = range ? +range[1] : 0;
  if (path.endsWith("/")) {
    const names = fs.readdirSync(path, {withFileTypes: true}).map((it) => it.name + (it.isDirectory() ? "/" : ""));
    stream.respond({":status": 200, "content-type": "text/html"});
    return stream.end("<title>Index of</title>" + names.map((name) => `<a href="${name}">${name}</a>`).join(""));
  }
  const size = fs.statSync(path).size, more = range ? {"content-range": `bytes ${from}-${size - 1}/${size}`} : {};
  if (headers[":method"] === "HEAD")
    return stream.respond({":status": 200, "content-length": size}, {endStream: true});
  stream.respondWithFile(path, {":status": range ? 206 : 200, ...more}, {offset: from});
}).listen(+port, "127.0.0.1");
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "root"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = loopback.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.mark.parametrize("requests", [1_000, 3], ids=["kept", "goaway"])
def test_http2_is_spoken_where_it_is_offered(root: Path, tmp_path: Path, certificate: Path, requests: int) -> None:
    # nginx says GOAWAY when a connection has served as many requests as it may.
    with nginx.serving(root, tmp_path / "nginx", http2=certificate, requests=requests) as server:
        options = TransferOptions(retry_policy=QUICK, connections=4)
        result = download(tmp_path / "here", server.url, options=options)
        assert (result.done, result.failed) == (len(FILES), 0)
        seen = [(words[0], words[3].split()[:2]) for words in server.seen()]
    assert tree(tmp_path / "here") == FILES
    assert {(status, protocol) for status, (protocol, _) in seen} == {("200", "HTTP/2.0")}
    connections = {number for _, (_, number) in seen}
    assert len(connections) > 6 if requests == 3 else len(connections) <= 6, "each connection serves again until told"


def test_a_server_that_speaks_nothing_else(root: Path, tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    words = [need("node"), "-e", _HTTP2_ONLY, str(certificate), str(port), str(root)]
    with process(words, port, tmp_path / "node.log"):
        result = download(tmp_path / "here", f"https://127.0.0.1:{port}/")
        assert (result.done, result.failed) == (len(FILES), 0)
        client = HttpClient(SourceOptions(timeout=5))
        name, data = next(iter(FILES.items()))
        with client.open(f"https://127.0.0.1:{port}/{name}", offset=5_000) as part:
            assert (part.offset, content(part)) == (5_000, data[5_000:])
        client.close()
    assert tree(tmp_path / "here") == FILES
