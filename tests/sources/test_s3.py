"""S3: who asks, in which region, who pays, which checksums are of the whole file, and what each refusal says to do."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cxrprep.errors import AccessError, CxrprepError, ExitCode, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.aws_auth import AwsAccess
from cxrprep.sources.base import AccessState, Source, SourceOptions
from cxrprep.sources.urls import behind
from cxrprep.transfer.options import TransferOptions
from tests.generators.small import nih_chestxray14
from tests.servers.loopback import Reply, Request, Server, running
from tests.servers.s3 import KEYS, NOBODY, S3, Rules
from tests.sources.contract import content, credentials, shows
from tests.transfer.runs import QUICK, download, tree

FILES = {f"png/{n:08d}_000.png": bytes([n]) * 900 for n in range(1, 8)} | {"other.txt": b"other"}
ODD = ("a b.png", "a+b.png", "100%.png", "q?x=1&y.png", "#1.png", "é.png", "a'b\"c.png", "control\x01.png", ".hidden")


@pytest.fixture
def rules() -> Rules:
    return Rules(FILES, page_size=3)


@pytest.fixture
def server(rules: Rules) -> Iterator[Server]:
    with running(rules) as server:
        yield server


@pytest.fixture
def nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": server.url, **NOBODY}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def somebody(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def source_of(home: Path, url: str = "s3://bucket/png", **options: bool) -> Source:
    return open_source(url, SourceOptions(credentials=credentials({}, home), timeout=5, **options))


@pytest.mark.usefixtures("nobody")
def test_nobody_reads_a_public_bucket_page_by_page(tmp_path: Path, server: Server) -> None:
    source = source_of(tmp_path)
    files = [*source.list()]
    assert [file.key for file in files] == [f"{n:08d}_000.png" for n in range(1, 8)]
    assert [file.size for file in files] == [900] * 7
    assert files[0].digest is None, "a listing does not say how an object was stored"
    with source.open(files[0], 100) as stream:
        assert stream.validator == files[0].validator
        assert stream.digest == Digest("md5", hashlib.md5(FILES["png/00000001_000.png"]).hexdigest())
        assert content(stream) == FILES["png/00000001_000.png"][100:]
    assert source.access().state is AccessState.OPEN
    assert not any("authorization" in request.headers for request in server.seen)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("encoded", [True, False])
def test_odd_names_come_as_they_are(tmp_path: Path, rules: Rules, *, encoded: bool) -> None:
    rules.files = {name: name.encode() for name in ODD if encoded or "\x01" not in name} | {"folder/": b""}
    rules.encoded = encoded
    source = source_of(tmp_path, "s3://bucket")
    files = {file.key: content(source.open(file)) for file in source.list()}
    assert files == {name: data for name, data in rules.files.items() if not name.endswith("/")}


@pytest.mark.usefixtures("nobody")
def test_the_address_of_one_object_is_a_source_of_that_object(tmp_path: Path, rules: Rules) -> None:
    rules.files["png/00000001_000.png.bak"] = b""
    assert [file.key for file in source_of(tmp_path, "s3://bucket/png/00000001_000.png").list()] == ["00000001_000.png"]
    with pytest.raises(NotInSourceError) as caught:
        [*source_of(tmp_path, "s3://bucket/png/none.png").list()]
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_real_emulator_checks_the_signature(tmp_path: Path, aws: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    private = aws.bucket({"a b/é+%.png": b"image", "x.png": b"1"}, public=False)
    account = aws.account()
    for name, value in {**aws.environment, **account}.items():
        monkeypatch.setenv(name, value)
    aws.check_logins_after(0)
    try:
        source = source_of(tmp_path, f"s3://{private}/a b")
        (file,) = source.list()
        assert content(source.open(file, 1)) == b"mage"
        assert source.access().state is AccessState.GRANTED
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
        refused = source_of(tmp_path, f"s3://{private}")
        with pytest.raises(AccessError, match="SignatureDoesNotMatch") as caught:
            [*refused.list()]
        assert not any(secret in shows(caught.value) for secret in (account["AWS_SECRET_ACCESS_KEY"], "wrong-secret"))
        assert refused.access().state is AccessState.REJECTED
    finally:
        aws.check_logins_after(10**9)


@pytest.mark.usefixtures("nobody")
def test_a_profile_of_awss_own_is_found(tmp_path: Path, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    rules.public = False
    lines = "\n".join(f"{name.lower()} = {value}" for name, value in KEYS.items())
    (tmp_path / "credentials").write_text(f"[hospital]\n{lines}\naws_session_token = sessiontoken\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "hospital")
    assert len([*source_of(tmp_path).list()]) == 7
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(AccessError, match="ProfileNotFound"):
        [*source_of(tmp_path).list()]


@pytest.mark.usefixtures("somebody")
def test_keys_that_are_refused_do_not_shut_a_public_bucket(tmp_path: Path, rules: Rules, server: Server) -> None:
    class Stale(Rules):
        def __call__(self, request: Request) -> Reply:
            if "authorization" in request.headers:
                return Reply(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
            return super().__call__(request)

    server.app = Stale(FILES, page_size=3)
    source = source_of(tmp_path)
    assert len([*source.list()]) == 7
    assert content(source.open(RemoteFile("00000001_000.png"))) == FILES["png/00000001_000.png"]
    assert sum("authorization" in request.headers for request in server.seen) == 1
    assert source.access().state is AccessState.OPEN


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize("status", [400, 301])
def test_a_bucket_of_another_region_is_asked_there(tmp_path: Path, rules: Rules, server: Server, status: int) -> None:
    class Far(Rules):
        def __call__(self, request: Request) -> Reply:
            answer = super().__call__(request)
            return Reply(status, answer.body, answer.headers) if answer.status == 400 else answer

    server.app = far = Far(FILES)
    far.region = "eu-west-3"
    source = source_of(tmp_path)
    assert len([*source.list()]) == 7
    assert content(source.open(RemoteFile("00000001_000.png"))) == FILES["png/00000001_000.png"]
    assert len(server.seen) == 3, "the region is learnt once"


@pytest.mark.usefixtures("somebody")
def test_who_downloads_pays_only_when_told_to(tmp_path: Path, rules: Rules) -> None:
    rules.pays = True
    with pytest.raises(AccessError) as caught:
        [*source_of(tmp_path).list()]
    assert "--requester-pays" in caught.value.hint
    source = source_of(tmp_path, requester_pays=True)
    assert len([*source.list()]) == 7
    assert content(source.open(RemoteFile("00000001_000.png"))) == FILES["png/00000001_000.png"]
    assert "bills" in source.access().costs


def b64(algorithm: str, data: bytes) -> str:
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


DATA = b"image"
MD5, SHA = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()


STORED: list[tuple[dict[str, str], str | None]] = [
    ({"ETag": f'"{MD5}"'}, f"md5:{MD5}"),
    ({"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"}, f"md5:{MD5}"),
    ({"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"}, None),
    ({"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms:dsse"}, None),
    ({"ETag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"}, None),
    ({"ETag": f'"{MD5}-3"'}, None),
    ({"ETag": f'"{MD5}-1"'}, None),
    ({"ETag": '"opaque"'}, None),
    ({"ETag": f'"{MD5}-3"', "x-amz-checksum-sha256": b64("sha256", DATA)}, f"sha256:{SHA}"),
    ({"ETag": f'"{MD5}"', "x-amz-checksum-sha256": b64("sha256", DATA)}, f"sha256:{SHA}"),
    ({"ETag": f'"{MD5}"', "x-amz-checksum-crc32": "AAAAAA=="}, f"md5:{MD5}"),
    ({"ETag": f'"{MD5}-3"', "x-amz-checksum-crc32c": "AAAAAA=="}, "crc32c:00000000"),
    ({"ETag": f'"{MD5}-3"', "x-amz-checksum-sha256": b64("sha256", DATA) + "-3"}, None),
    (
        {
            "ETag": f'"{MD5}-3"',
            "x-amz-checksum-sha256": b64("sha256", DATA),
            "x-amz-checksum-type": "COMPOSITE",
        },
        None,
    ),
    ({"ETag": f'"{MD5}-3"', "x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}, None),
]


@pytest.mark.usefixtures("nobody")
def test_a_digest_is_that_of_the_whole_file_or_none(tmp_path: Path, rules: Rules) -> None:
    rules.files = {"x.png": DATA}
    source = source_of(tmp_path, "s3://bucket")
    for headers, digest in STORED:
        rules.stored = {"x.png": headers}
        with source.open(RemoteFile("x.png")) as stream:
            assert stream.digest == (Digest.parse(digest) if digest else None), headers
        with source.open(RemoteFile("x.png"), 1) as part:
            assert part.digest is None or part.digest.algorithm == "md5", "with a range it may be that of the part"


def _brotli(data: bytes) -> bytes:
    """``data``, at most 65,536 bytes, as one block without compression (RFC 7932, 9.2)."""
    return ((len(data) - 1) << 4 | 1 << 20).to_bytes(3, "little") + data + b"\x03"


PLAIN = DATA * 4_000
PACKED = {
    "gzip": (PLAIN, gzip.compress(DATA * 2_000) + gzip.compress(DATA * 2_000), gzip.compress(b"replaced")),
    "deflate": (PLAIN, zlib.compress(PLAIN), zlib.compress(b"replaced")),
    "br": (PLAIN, _brotli(PLAIN), _brotli(b"replaced")),
}


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("split_from", [1 << 30, 1_000])
@pytest.mark.parametrize("coding", PACKED)
def test_an_object_that_is_stored_compressed_is_whole_and_stays(
    tmp_path: Path, rules: Rules, split_from: int, coding: str
) -> None:
    # The listing states the size of what is stored, and the ETag is of that too.
    name, other = "images/00000001_000.png", "images/00000002_000.png"
    plain, packed, replaced = PACKED[coding]
    rules.files = {name: packed, other: DATA}
    rules.stored = {name: {"Content-Encoding": coding}}
    options = TransferOptions(retry_policy=QUICK, split_from=split_from)
    result = download(tmp_path, "s3://bucket", options=options)
    assert (result.done, result.failed) == (2, 0)
    assert tree(tmp_path) == {name: plain, other: DATA}
    assert download(tmp_path, "s3://bucket", options=options).done == 0, "what is here is not fetched again"
    rules.files[name] = replaced
    assert download(tmp_path, "s3://bucket", options=options).done == 1
    assert tree(tmp_path)[name] == b"replaced"


@pytest.mark.usefixtures("somebody")
def test_no_other_host_gets_a_login(tmp_path: Path, rules: Rules) -> None:
    with running(lambda request: Reply(200, b"elsewhere")) as other:
        rules.redirect = {"png/00000001_000.png": f"{other.url}/x"}
        assert content(source_of(tmp_path).open(RemoteFile("00000001_000.png"))) == b"elsewhere"
        assert not any(name in ("authorization", "x-amz-security-token") for name in other.seen[0].headers)


@pytest.mark.usefixtures("nobody")
def test_each_refusal_says_what_to_do(tmp_path: Path, rules: Rules) -> None:
    source = source_of(tmp_path)
    for status, code, exit_code in (
        (404, "NoSuchBucket", ExitCode.USAGE),
        (404, "NoSuchKey", ExitCode.PARTIAL),
        (403, "AccessDenied", ExitCode.ACCESS),
        (403, "RequestTimeTooSkewed", ExitCode.ACCESS),
        (400, "ExpiredToken", ExitCode.ACCESS),
        (403, "InvalidObjectState", ExitCode.PARTIAL),
        (503, "SlowDown", ExitCode.UNREACHABLE),
    ):
        rules.refuse, rules.code = status, code
        with pytest.raises(CxrprepError) as caught:
            source.open(RemoteFile("x.png"))
        assert caught.value.exit_code is exit_code, code
        assert caught.value.hint


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>x</NextMarker></ListBucketResult>",
        b"<ListBucketResult><Contents>",
        b"",
    ],
)
def test_what_is_no_whole_listing_is_an_error(tmp_path: Path, server: Server, body: bytes) -> None:
    server.app = lambda request: Reply(200, body, {"Content-Type": "application/xml"})
    with pytest.raises(SourceUnreachableError):
        [*source_of(tmp_path).list()]


def test_addresses_of_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def base(bucket: str) -> str:
        return AwsAccess(bucket, credentials({}, tmp_path)).base

    assert base("bucket") == "https://bucket.s3.amazonaws.com/"
    assert base("with.dots") == "https://s3.amazonaws.com/with.dots/"
    point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/hospital"
    assert base(point) == "https://hospital-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/"
    assert source_of(tmp_path, f"s3://{point}/files").address == f"s3://{point}/files"
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert base("bucket") == "https://bucket.s3.eu-north-1.amazonaws.com/"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example.org:9000")
    assert base("bucket") == "https://minio.example.org:9000/bucket/"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio.example.org")
    with pytest.raises(UsageError, match="no address"):
        base("bucket")
    with pytest.raises(UsageError, match="no bucket"):
        source_of(tmp_path, "s3:///folder")


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("https://bucket.s3.amazonaws.com/a/b/", "s3://bucket/a/b"),
        ("https://my.bucket.s3.eu-west-1.amazonaws.com/", "s3://my.bucket"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/a", "s3://bucket/a"),
        ("https://s3-us-west-2.amazonaws.com/bucket", "s3://bucket"),
        ("https://us-east-1.console.aws.amazon.com/s3/buckets/bucket?region=us-east-1&prefix=a/&tab=objects", "s3://bucket/a"),
        ("https://s3.console.aws.amazon.com/s3/buckets/bucket?tab=objects", "s3://bucket"),
    ],
)  # fmt: skip
def test_pages_about_buckets_are_their_addresses(tmp_path: Path, page: str, address: str) -> None:
    assert source_of(tmp_path, behind(page)).address == address


def test_a_signed_address_stays_one() -> None:
    signed = "https://bucket.s3.amazonaws.com/x.zip?X-Amz-Signature=1"
    assert behind(signed) == signed


def cxrprep(*words: object) -> list[str]:
    return [sys.executable, "-m", "cxrprep", *map(str, words), "--json"]


def test_a_download_from_a_bucket_is_killed_goes_on_and_is_the_same(
    tmp_path: Path, aws: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    nih_chestxray14.write(tmp_path / "nih", release="2017")
    paths = [path for path in (tmp_path / "nih").rglob("*") if path.is_file()]
    files = {path.relative_to(tmp_path / "nih").as_posix(): path for path in paths}
    large = next(name for name in files if name.endswith(".png"))
    stored = {f"mirrors/nih/{name}": path.read_bytes() for name, path in files.items()}
    stored[f"mirrors/nih/{large}"] += bytes(6_000_000)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    root, bucket = tmp_path / "root", aws.bucket(stored)
    words = cxrprep("download", "nih-chestxray14", root, "--release", "2017", "--source", f"s3://{bucket}/mirrors/nih")
    with subprocess.Popen([*words, "--limit-rate", "1M"], stdout=subprocess.DEVNULL) as killed:
        # A part that was recorded goes on; what came since is asked for again.
        while not any(path.stat().st_size > 1 for path in root.glob(".cxrprep/parts/*.json")):
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    size = sum(map(len, stored.values()))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] < size
    assert {f"mirrors/nih/{name}": (root / name).read_bytes() for name in files} == stored
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (again.returncode, json.loads(again.stdout)["done"]) == (0, 0)
    # What each answer stated of its object was checked, and is kept as the file's digest.
    table = pq.read_table(root / "cxrprep.files.parquet").to_pydict()
    assert dict(zip(table["path"], table["origin"], strict=True)) == dict.fromkeys(sorted(files), "transport")
