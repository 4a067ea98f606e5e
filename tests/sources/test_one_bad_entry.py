"""Listings of services with a fault in one place: the other files are listed, and a listing without an end is none."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cxrprep.checksum_files import parse_line
from cxrprep.errors import SourceUnreachableError
from cxrprep.sources import open_source
from cxrprep.sources.azure_blob import read_listing
from cxrprep.sources.base import Source, SourceOptions, pages
from tests.servers import box, google, hugging_face, kaggle, physionet
from tests.servers.loopback import Reply, Request, Server
from tests.sources.contract import content, credentials

FILES = {name: name.encode() * 9 for name in ("a.csv", "b.csv", "c.csv", "d.csv")}


def _spoil(server: Server | None, where: str, change: Callable[[Any], Any]) -> None:
    """From now on the answers to what has ``where`` in its path are changed."""
    assert server is not None
    own = server.app

    def app(request: Request) -> Reply:
        answer = own(request)
        if where not in request.path or answer.status != 200:
            return answer
        return dataclasses.replace(answer, body=json.dumps(change(json.loads(answer.body))).encode())

    server.app = app


def _source(url: str, home: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Source:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_source(url, SourceOptions(credentials=credentials(environment, home), timeout=5))


def _without(entries: list[dict[str, Any]], name: str, size: str) -> list[Any]:
    """The second entry without its name, the third without its size, and something that is none."""
    return [entries[0], {**entries[1], name: ""}, {k: v for k, v in entries[2].items() if k != size}, *entries[3:]]


def test_of_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES, public=True) as service:
        assert service.api is not None
        with closing(
            _source("kaggle://owner/data", tmp_path, {"CXRPREP_KAGGLE_URL": service.api.url}, monkeypatch)
        ) as source:
            _spoil(
                service.api,
                "ListDatasetFiles",
                lambda page: page | {"datasetFiles": _without(page["datasetFiles"], "name", "totalBytes")},
            )
            assert [(file.key, file.size) for file in source.list()] == [("a.csv", 45), ("c.csv", None), ("d.csv", 45)]
            _spoil(service.api, "ListDatasetFiles", lambda page: page | {"nextPageToken": "0"})
            with pytest.raises(SourceUnreachableError, match="repeats itself"):
                list(source.list())


def test_of_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES) as bucket:
        environment = {"STORAGE_EMULATOR_HOST": google.address(bucket)}
        with closing(_source("gs://bucket", tmp_path, environment, monkeypatch)) as source:
            _spoil(bucket.server, "/o", lambda page: page | {"items": _without(page["items"], "name", "size")})
            assert [(file.key, file.size) for file in source.list()] == [("a.csv", 45), ("c.csv", None), ("d.csv", 45)]
            _spoil(bucket.server, "/o", lambda page: page | {"nextPageToken": "again"})
            with pytest.raises(SourceUnreachableError, match="repeats itself"):
                list(source.list())


def test_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hugging_face.serving(FILES) as hub:
        environment = {"CXRPREP_HUGGINGFACE_URL": hub.url, "HF_TOKEN": hugging_face.TOKEN}
        with closing(_source(f"hf://datasets/{hugging_face.NAME}", tmp_path, environment, monkeypatch)) as source:
            listed = {file.key: file.size for file in source.list()}
            assert hub.server is not None
            own = hub.server.app
            _spoil(hub.server, "/tree/", lambda page: [*_without(page, "path", "size"), None, {"type": "symlink"}])
            found = {file.key: file.size for file in source.list()}
            assert len(found) == len(listed) - (1 if "" not in found else 0)
            assert None in found.values()
            tree: list[str] = []

            def loop(request: Request) -> Reply:
                answer = own(dataclasses.replace(request, query={}))
                if "/tree/" not in request.path:
                    return answer
                tree.append(request.path)
                link = f'<{hub.url}{request.path}?cursor=again>; rel="next"'
                return dataclasses.replace(answer, headers={**answer.headers, "Link": link})

            hub.server.app = loop
            with pytest.raises(SourceUnreachableError, match="repeats itself"):
                list(source.list())
            assert len(tree) < 5


def test_of_azure() -> None:
    body = b"""<?xml version="1.0"?><EnumerationResults><Blobs><Blob><Name>a.csv</Name><Properties><Content-Length>9
</Content-Length></Properties></Blob><Blob><Name>b.csv</Name></Blob><Blob></Blob></Blobs><NextMarker/>
</EnumerationResults>""".replace(b"9\n", b"9")
    assert [(file.key, file.size) for file in read_listing(body, "x")[0]] == [("a.csv", 9), ("b.csv", None)]


def test_a_folder_of_box_that_shows_one_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving({"top.csv": b"x", "more/inner.csv": b"y"}) as service:
        assert service.app is not None
        own, number = service.app.app, service.folders()["more"]

        def app(request: Request) -> Reply:
            answer = own(request)
            if "/folder/" not in request.path:
                return answer
            item = b'{"name": "up", "id": ' + number.encode() + b', "type": "folder"}, '
            return dataclasses.replace(answer, body=answer.body.replace(b'"items": [', b'"items": [' + item))

        service.app.app = app
        with closing(
            _source(f"box://nihcc/{box.VANITY}", tmp_path, {"CXRPREP_BOX_URL": box.address(service)}, monkeypatch)
        ) as source:
            assert sorted(file.key.rpartition("/")[2] for file in source.list()) == ["inner.csv", "top.csv"]


def test_physionets_list_comes_without_size_and_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache before it that compresses leaves both out."""
    release = physionet.with_sums(FILES)
    with physionet.serving({"open/1.0": release}) as site:
        assert site.server is not None
        own = site.server.app

        def app(request: Request) -> Reply:
            answer = own(request)
            if not request.path.endswith("SHA256SUMS.txt") or answer.status != 200:
                return answer
            headers = {name: value for name, value in answer.headers.items() if name.lower() != "etag"}
            body = gzip.compress(b"# by file\n" + release["SHA256SUMS.txt"])
            return Reply(200, body, headers | {"Content-Encoding": "gzip"})

        site.server.app = app
        environment = {
            "CXRPREP_PHYSIONET_URL": physionet.address(site),
            "PHYSIONET_USERNAME": physionet.USER,
            "PHYSIONET_PASSWORD": physionet.PASSWORD,
        }
        with closing(_source("physionet://open/1.0", tmp_path, environment, monkeypatch)) as source:
            files = {file.key: file for file in source.list()}
            assert set(files) == {*FILES, "SHA256SUMS.txt"}
            assert content(source.open(files["a.csv"])) == FILES["a.csv"]


def test_pages_end_or_are_an_error() -> None:
    assert list(pages(lambda token: (token, {"": "1", "1": "2"}.get(token, "")), "x", "")) == ["", "1", "2"]
    with pytest.raises(SourceUnreachableError, match="x sent a listing that repeats itself"):
        list(pages(lambda token: (token, {"": "1", "1": "2"}.get(token, "1")), "x", ""))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (rf"\{'a' * 64}  two\nlines\\and.png", "two\nlines\\and.png"),
        (rf"{'a' * 64}  as\nit is.png", r"as\nit is.png"),
        (f"{'a' * 64} *./binary.png", "binary.png"),
        (f"SHA256 (bsd (1).png) = {'A' * 64}", "bsd (1).png"),
    ],
)
def test_names_in_lists_of_checksums(line: str, name: str) -> None:
    """As coreutils escapes them: https://www.gnu.org/software/coreutils/manual/html_node/md5sum-invocation.html."""
    file = parse_line(line)
    assert file is not None
    assert (file.key, str(file.digest)) == (name, f"sha256:{'a' * 64}")
