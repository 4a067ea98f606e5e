"""Buckets that a web server shows as XML (ListBucketResult): whole, below a folder, in pages, and refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.model import Digest
from cxrprep.sources import open_source
from cxrprep.sources.base import Source, SourceOptions
from tests.servers import fake_gcs
from tests.servers.loopback import Reply, Request, Server, running
from tests.servers.s3 import S3, Rules
from tests.sources.contract import content

FILES = {f"nih/images/{n:04d}.png": bytes([n]) * 90 for n in range(7)} | {
    "nih/a b & ü%#?+.png": b"odd",
    "other/x.csv": b"a,b\n",
}
BELOW = {key.removeprefix("nih/"): data for key, data in FILES.items() if key.startswith("nih/")}


@pytest.fixture
def rules() -> Rules:
    return Rules(FILES, page_size=2)


@pytest.fixture
def server(rules: Rules) -> Iterator[Server]:
    with running(rules) as server:
        yield server


def source_of(url: str) -> Source:
    return open_source(url, SourceOptions(timeout=5))


def contents(source: Source) -> dict[str, bytes]:
    return {file.key: content(source.open(file)) for file in source.list()}


@pytest.mark.parametrize("version", [1, 2])
def test_all_pages_of_a_bucket_are_read(rules: Rules, server: Server, version: int) -> None:
    if version == 1:
        plain, server.app = rules, lambda request: plain(_version_1(request))
    assert contents(source_of(f"{server.url}/bucket/")) == FILES
    assert contents(source_of(f"{server.url}/bucket")) == FILES


def test_names_of_xml_may_have_a_prefix(rules: Rules, server: Server) -> None:
    def app(request: Request) -> Reply:
        answer = rules(request)
        body = answer.body
        if b"<ListBucketResult" in body:
            head, _, rest = body.partition(b"<ListBucketResult")
            rest = rest.replace(b"</", b"<%").replace(b"<", b"<s3:").replace(b"<s3:%", b"</s3:")
            body = head + b"<s3:ListBucketResult" + rest.replace(b"xmlns=", b"xmlns:s3=")
        return dataclasses.replace(answer, body=body)

    server.app = app
    assert {file.key for file in source_of(f"{server.url}/bucket/").list()} == set(FILES)


def _version_1(request: Request) -> Request:
    query = {name: value for name, value in request.query.items() if name not in ("list-type", "encoding-type")}
    return Request(request.method, request.path, query, request.headers)


@pytest.mark.parametrize(
    "below", ["/bucket/nih/", "/bucket/nih", "/bucket?prefix=nih/", "/bucket/?list-type=2&delimiter=/&prefix=nih%2F"]
)
def test_a_folder_of_a_bucket_is_a_mirror(server: Server, below: str) -> None:
    source = source_of(server.url + below)
    assert contents(source) == BELOW
    (size,) = {file.size for file in source.list("images/")}
    assert size == 90, "sizes stand in the listing, and are not asked for"
    assert not any(request.method == "HEAD" for request in server.seen)
    # What a folder remembers leads to the same files.
    assert contents(source_of(source.address)) == BELOW


def test_a_host_of_a_buckets_own(rules: Rules, server: Server) -> None:
    rules.files = {f"bucket/{key}": data for key, data in FILES.items()}
    server.app = lambda request: rules(Request("GET", f"/bucket{request.path}", request.query, request.headers))
    assert contents(source_of(f"{server.url}/bucket/nih/")) == BELOW


def test_what_the_answer_states_of_an_object_is_its_digest(rules: Rules, server: Server) -> None:
    source = source_of(f"{server.url}/bucket/nih/")
    file = next(iter(source.list("images/")))
    with source.open(file) as stream:
        assert stream.validator == file.validator
        assert stream.digest == Digest("md5", hashlib.md5(BELOW[file.key]).hexdigest())
    rules.stored = {f"nih/{file.key}": {"ETag": '"' + "0" * 32 + '-2"'}}
    with source.open(file) as stream:
        assert stream.digest is None


def test_a_real_emulator_is_read_over_plain_http(aws: S3) -> None:
    bucket = aws.bucket(FILES)
    assert contents(source_of(f"{aws.url}/{bucket}/nih/")) == BELOW


def test_a_store_that_says_not_found_in_words_of_its_own(rules: Rules, server: Server, tmp_path: Path) -> None:
    def app(request: Request) -> Reply:
        found = rules(request)
        return Reply(404, b"Not Found", {"Content-Type": "text/plain"}) if found.status == 404 else found

    server.app = app
    assert contents(source_of(f"{server.url}/bucket/nih/")) == BELOW
    with fake_gcs.serving(FILES, tmp_path) as address:
        images = {key.removeprefix("images/"): data for key, data in BELOW.items() if key.startswith("images/")}
        assert contents(source_of(f"{address}/bucket/nih/images")) == images


def test_a_folder_that_is_not_there_and_a_bucket_that_is_shut(rules: Rules, server: Server) -> None:
    with pytest.raises(CxrprepError) as caught:
        [*source_of(f"{server.url}/bucket/none/").list()]
    assert caught.value.exit_code is ExitCode.USAGE
    rules.public = False
    with pytest.raises(CxrprepError) as caught:
        [*source_of(f"{server.url}/bucket/").list()]
    assert caught.value.exit_code is ExitCode.ACCESS


def test_a_bucket_whose_second_page_fails_is_no_shorter_bucket(rules: Rules, server: Server) -> None:
    def app(request: Request) -> Reply:
        return (
            Reply(403, b"<Error><Code>AccessDenied</Code></Error>")
            if "marker" in request.query or ("continuation-token" in request.query)
            else rules(request)
        )

    server.app = app
    with pytest.raises(CxrprepError):
        [*source_of(f"{server.url}/bucket/").list()]


def test_release_files_in_a_bucket_are_downloaded(tmp_path: Path, server: Server, rules: Rules) -> None:
    import cxrprep
    from tests.generators.small import nih_chestxray14

    nih_chestxray14.write(tmp_path / "nih", release="2017")
    paths = [path for path in (tmp_path / "nih").rglob("*") if path.is_file()]
    rules.files = {f"m/{path.relative_to(tmp_path / 'nih').as_posix()}": path.read_bytes() for path in paths}
    done = cxrprep.download("nih-chestxray14", tmp_path / "root", source=f"{server.url}/bucket/m/", release="2017")
    assert done.exit_code == 0
    assert done.value.done == len(paths)
