"""What goes wrong at object stores: storms, late listings, damage on the way, tokens that expire, other hosts."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gc
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import cxrprep
from cxrprep.errors import AccessError, CxrprepError, IntegrityError
from cxrprep.model import Digest
from cxrprep.storage import object_checksums, object_store
from cxrprep.storage.bucket_lock import NAME as LOCK
from cxrprep.storage.object_store import ObjectStore
from cxrprep.storage.working_copy import WorkingCopy
from tests.parts import need
from tests.servers import azurite, fake_gcs, google, s3, store_faults
from tests.servers.loopback import Reply, Request, as_json, running
from tests.servers.store_faults import Answer, Asked, Faults, error

MIB = 1 << 20


@pytest.fixture
def faulty(amazon: s3.S3, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Faults]]:
    """The address of a folder in a new bucket, and what goes wrong on the way there."""
    faults = Faults()
    with store_faults.before(amazon.url, faults) as url:
        env = {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "4", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**s3.NOBODY, **s3.KEYS, **env}.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{amazon.bucket({}, public=False)}/nih", faults


def objects(address: str) -> dict[str, bytes]:
    store = ObjectStore(address)
    store.system().invalidate_cache()
    return {entry.name: store.read(entry.name) for entry in store.list() if entry.name != LOCK}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def is_upload(asked: Asked, name: str = "") -> bool:
    return asked.method == "PUT" and asked.name.endswith(name) and not asked.name.endswith(LOCK)


FILES = {"images/a.png": b"a" * 300, "images/b.png": b"b" * 200, "manifests/images.parquet": b"table"}


def test_a_storm_of_refusals_is_waited_out(faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    words = ((503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError"))
    faults.before = lambda asked: error(*words[asked.number // 4 % 3]) if asked.number % 4 == 0 else None
    with WorkingCopy(address, writes=True) as copy:
        write(copy.folder, FILES)
        assert copy.put_back() == 3
    assert objects(address) == FILES


def test_a_token_that_expires_midway_loses_nothing(faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    expired = {"now": False}

    def before(asked: Asked) -> Answer | None:
        expired["now"] |= is_upload(asked, "images.parquet")
        return error(400, "ExpiredToken") if expired["now"] else None

    faults.before = before
    with WorkingCopy(address, writes=True) as copy:
        write(copy.folder, FILES)
        with pytest.raises(AccessError, match=r"s3://.*refuses") as caught:
            copy.put_back()
    assert "docs/howto/s3.md" in caught.value.hint
    faults.before = lambda _: None
    assert objects(address) == {name: FILES[name] for name in FILES if name.startswith("images/")}
    with WorkingCopy(address, writes=True) as copy:
        assert copy.put_back() == 1
    assert objects(address) == FILES


def test_a_listing_that_is_late_makes_nobody_forget_a_file(faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    with WorkingCopy(address, writes=True) as copy:
        write(copy.folder, FILES)
        copy.put_back()

    def forget(asked: Asked, answer: Answer) -> None:
        if asked.method == "GET" and "list-type" in asked.query:
            answer.body = store_faults.without(answer.body, "nih/images/a.png")

    faults.after = forget
    for _ in range(2):
        with WorkingCopy(address, writes=True) as copy:
            assert (copy.folder / "images/a.png").read_bytes() == FILES["images/a.png"]
            assert copy.put_back() == 0
    faults.after = lambda _asked, _answer: None
    ObjectStore(address).remove("images/a.png")
    with WorkingCopy(address, writes=True) as copy:
        assert not (copy.folder / "images/a.png").exists()


def test_a_listing_that_still_names_what_is_gone_is_no_error(faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    faults.after = lambda asked, answer: None
    store = ObjectStore(address)
    store.write("images/a.png", b"a")
    store.write("images/b.png", b"b")
    listed: list[bytes] = []

    def stale(asked: Asked, answer: Answer) -> None:
        if asked.method == "GET" and "list-type" in asked.query:
            listed.append(answer.body)
            answer.body = listed[0]

    faults.after = stale
    with WorkingCopy(address, writes=False) as copy:
        pass
    store.remove("images/a.png")
    (copy.folder / "images/a.png").unlink()
    with WorkingCopy(address, writes=False) as copy:
        assert [path.name for path in (copy.folder / "images").iterdir()] == ["b.png"]


@pytest.mark.parametrize("times", [1, 99])
def test_an_object_that_arrives_damaged_is_sent_again_or_taken_away(times: int, faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    damaged = []

    def damage(asked: Asked) -> None:
        if is_upload(asked, "a.png") and len(damaged) < times:
            damaged.append(asked)
            # Amazon itself would refuse it: what it is told of the checksum goes too.
            asked.headers = {n: v for n, v in asked.headers.items() if not re.match("(?i)content-md5|x-amz-.*check", n)}
            asked.body = asked.body.replace(b"a", b"x", 1)

    faults.before = damage  # type: ignore[assignment]
    with WorkingCopy(address, writes=True) as copy:
        write(copy.folder, FILES)
        if times == 1:
            copy.put_back()
        else:
            with pytest.raises(IntegrityError, match="nih/images/a"):
                copy.put_back()
            # The table is not shown before its images, and nobody takes the damaged one for right.
            assert set(objects(address)) <= {"images/b.png"}
    faults.before = lambda _: None
    with WorkingCopy(address, writes=True) as copy:
        copy.put_back()
    assert objects(address) == FILES


@pytest.mark.parametrize("times", [1, 99])
def test_an_object_that_comes_damaged_is_fetched_again_or_refused(times: int, faulty: tuple[str, Faults]) -> None:
    address, faults = faulty
    ObjectStore(address).write("images/a.png", b"a" * 300)
    spoilt = []

    def damage(asked: Asked, answer: Answer) -> None:
        if asked.method == "GET" and asked.name.endswith("a.png") and len(spoilt) < times:
            spoilt.append(asked)
            answer.headers = {n: v for n, v in answer.headers.items() if "checksum" not in n.lower()}
            answer.body = answer.body.replace(b"a", b"x", 1)

    faults.after = damage
    copy = WorkingCopy(address, writes=False)
    if times == 1:
        with copy:
            assert (copy.folder / "images/a.png").read_bytes() == b"a" * 300
    else:
        with pytest.raises(IntegrityError, match="not the one that the store states"):
            copy.__enter__()
        assert not [path for path in copy._home.rglob("*") if path.suffix in (".png", ".tmp") and path.is_file()]


@pytest.mark.parametrize("setting", ["when_supported", "when_required"])
def test_what_goes_up_brings_its_sha256(
    setting: str, faulty: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, faults = faulty
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    object_store._system.cache_clear()
    sent: dict[str, str | None] = {}

    def note(asked: Asked) -> None:
        if is_upload(asked):
            headers = {name.lower(): value for name, value in asked.headers.items()}
            sent[asked.name.rpartition("/")[2]] = headers.get("x-amz-checksum-sha256")

    faults.before = note  # type: ignore[assignment]
    store = ObjectStore(address)
    (tmp_path / "b.png").write_bytes(b"b")
    store.write("a.png", b"a")
    store.send("b.png", tmp_path / "b.png")
    store.write_with("c.png", lambda part: part.write_bytes(b"c"))
    digests = {f"{name}.png": hashlib.sha256(name.encode()) for name in "abc"}
    told = setting == "when_supported"
    assert sent == {name: base64.b64encode(one.digest()).decode() if told else None for name, one in digests.items()}
    held = {name: store.held_checksum(name) for name in digests}
    assert held == {name: Digest("sha256", one.hexdigest()) if told else None for name, one in digests.items()}
    object_store._system.cache_clear()


def test_a_part_that_is_lost_is_no_object(faulty: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> None:
    address, faults = faulty
    monkeypatch.setattr(object_store, "PART_BYTES", MIB // 2)
    data = os.urandom(MIB + MIB // 4)
    lost = {"part": b"<Part>(?:(?!</Part>).)*<PartNumber>2</PartNumber>.*?</Part>", "times": 99}

    def lose(asked: Asked) -> None:
        if asked.method == "POST" and "uploadId" in asked.query and lost["times"]:
            lost["times"] -= 1  # type: ignore[operator]
            asked.body = re.sub(lost["part"], b"", asked.body, flags=re.DOTALL)  # type: ignore[arg-type]

    faults.before = lose  # type: ignore[assignment]
    with WorkingCopy(address, writes=True) as copy:
        write(copy.folder, {"images/a.tar": data})
        with pytest.raises(CxrprepError):
            copy.put_back()
    assert objects(address) == {}
    lost["times"] = 0
    with WorkingCopy(address, writes=True) as copy:
        assert copy.put_back() == 1
    store = ObjectStore(address)
    assert store.version_tag("images/a.tar") == f"{len(data)}-{_etag(data, MIB // 2)}"
    # Bytes that are others under such an ETag are told too, where they came from us.
    changed = copy.folder / "images/a.tar"
    (there,) = store.list()
    store._check(changed, there, ours=True)
    changed.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(IntegrityError, match="parts"):
        store._check(changed, there, ours=True)


def uploads(faults: Faults) -> list[int]:
    """The numbers of the parts that went up, in the order in which they were asked for."""
    return [
        int(asked.query["partNumber"]) for asked in faults.seen if asked.method == "PUT" and "partNumber" in asked.query
    ]


def test_a_large_file_goes_on_with_the_parts_that_are_there_after_kill_9(
    faulty: tuple[str, Faults], tmp_path: Path, amazon: s3.S3
) -> None:
    address, faults = faulty
    data = os.urandom(3 * MIB)
    file = tmp_path / "a.tar"
    file.write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from cxrprep.storage import multipart, object_store;"
        f"object_store.PART_BYTES = {MIB // 2}; multipart._AT_ONCE = 1;"
        "object_store.ObjectStore(sys.argv[1]).send('a.tar', Path(sys.argv[2]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, address, str(file)])

    def kill(asked: Asked) -> None:
        if asked.query.get("partNumber") == "4":
            child.send_signal(signal.SIGKILL)
            child.wait()

    faults.before = kill  # type: ignore[assignment]
    assert child.wait() == -signal.SIGKILL
    assert objects(address) == {}
    faults.before = lambda _: None
    before = set(uploads(faults))
    assert {1, 2, 3} <= before
    faults.seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "PART_BYTES", MIB // 2)
        ObjectStore(address).send("a.tar", file)
    assert set(uploads(faults)) <= {4, 5, 6}
    assert objects(address) == {"a.tar": data}
    bucket = address.split("/")[2]
    assert not amazon.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_parts_of_another_file_are_given_up(
    faulty: tuple[str, Faults], tmp_path: Path, amazon: s3.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, faults = faulty
    monkeypatch.setattr(object_store, "PART_BYTES", MIB // 2)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    about = {"Bucket": bucket, "Key": f"{key}/a.tar"}
    upload = amazon.client().create_multipart_upload(**about)["UploadId"]
    amazon.client().upload_part(**about, UploadId=upload, PartNumber=1, Body=b"other" * MIB)
    data = os.urandom(2 * MIB)
    (tmp_path / "a.tar").write_bytes(data)
    ObjectStore(address).send("a.tar", tmp_path / "a.tar")
    assert sorted(uploads(faults)) == [1, 2, 3, 4]
    assert objects(address) == {"a.tar": data}
    assert not amazon.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("fault", ["SlowDown", "ExpiredToken", "BadDigest"])
def test_what_goes_wrong_with_a_part_is_sent_again_or_left_for_the_next_run(
    fault: str, faulty: tuple[str, Faults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, faults = faulty
    monkeypatch.setattr(object_store, "PART_BYTES", MIB // 2)
    data = os.urandom(2 * MIB)
    file = tmp_path / "a.tar"
    file.write_bytes(data)
    left = {"SlowDown": 2, "ExpiredToken": 99, "BadDigest": 1}

    def fail(asked: Asked) -> Answer | None:
        if asked.query.get("partNumber") == "3" and left[fault]:
            left[fault] -= 1
            return error({"SlowDown": 503}.get(fault, 400), fault)
        return None

    faults.before = fail
    store = ObjectStore(address)
    if fault == "ExpiredToken":
        with pytest.raises(AccessError):
            store.send("a.tar", file)
        left[fault] = 0
        faults.seen.clear()
        store.send("a.tar", file)
        assert uploads(faults) == [3]
    else:
        store.send("a.tar", file)
        # None but the one that failed went up twice.
        assert sorted(set(uploads(faults))) == [1, 2, 3, 4]
        assert uploads(faults).count(1) == 1
    assert objects(address) == {"a.tar": data}


def test_each_part_brings_its_sha256_and_the_whole_is_held_to_them(
    faulty: tuple[str, Faults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, faults = faulty
    monkeypatch.setattr(object_store, "PART_BYTES", MIB // 2)
    data = os.urandom(MIB + 5)
    file = tmp_path / "a.tar"
    file.write_bytes(data)
    store = ObjectStore(address)
    store.send("a.tar", file)
    blocks = [data[at : at + MIB // 2] for at in range(0, len(data), MIB // 2)]
    sent = {
        int(asked.query["partNumber"]): {name.lower(): value for name, value in asked.headers.items()}
        for asked in faults.seen
        if asked.method == "PUT" and "partNumber" in asked.query
    }
    for number, block in enumerate(blocks, 1):
        expected = base64.b64encode(hashlib.sha256(block).digest()).decode()
        assert sent[number]["x-amz-checksum-sha256"] == expected
    # The ETag of an encrypted object says nothing: the checksum of the parts tells.
    head = {**store._head("a.tar"), "ServerSideEncryption": "aws:kms"}
    monkeypatch.setattr(ObjectStore, "_head", lambda _self, _name: head)
    (there,) = store.list()
    there = dataclasses.replace(there, stamp=f"{len(data)}-{'0' * 32}-3")
    store._check(file, there, ours=True)
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(IntegrityError, match="parts"):
        store._check(file, there, ours=True)
    # And no verdict of verify rests on it as if it were that of the whole.
    assert store.held_checksum("a.tar") is None


def _etag(data: bytes, part: int) -> str:
    sums = [hashlib.md5(data[at : at + part]).digest() for at in range(0, len(data), part)]
    return f"{hashlib.md5(b''.join(sums)).hexdigest()}-{len(sums)}"


@pytest.mark.parametrize(("part", "known"), [(5 * MIB, True), (8 * MIB, True), (6 * MIB, False)])
def test_the_etag_of_parts_is_computed_where_their_size_is_a_usual_one(part: int, known: bool, tmp_path: Path) -> None:
    data = os.urandom(2 * part + 1)
    (tmp_path / "a").write_bytes(data)
    assert object_checksums.agrees_in_parts(tmp_path / "a", _etag(data, part)) is known
    assert not object_checksums.agrees_in_parts(tmp_path / "a", "0123456789abcdef0123456789abcdef-3")


def test_a_checksum_of_the_whole_that_the_store_holds_counts(
    faulty: tuple[str, Faults], amazon: s3.S3, tmp_path: Path
) -> None:
    address, faults = faulty
    bucket = address.split("/")[2]
    # Encrypted with a key of its own: its ETag is no MD5.
    words = {"ChecksumAlgorithm": "SHA256", "ServerSideEncryption": "aws:kms"}
    amazon.client().put_object(Bucket=bucket, Key="nih/a.csv", Body=b"data", **words)

    def keyed(asked: Asked, answer: Answer) -> None:
        answer.body = re.sub(rb"[0-9a-f]{32}", b"0123456789abcdef0123456789abcdef", answer.body)

    faults.after = keyed
    store = ObjectStore(address)
    (entry,) = store.list()
    store.fetch(entry, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"data"
    faults.after = lambda asked, answer: (keyed(asked, answer), _spoil(asked, answer))[0]
    with pytest.raises(IntegrityError, match="sha256"):
        store.fetch(entry, tmp_path / "a")


def _spoil(asked: Asked, answer: Answer) -> None:
    if asked.method == "GET" and asked.name.endswith("a.csv"):
        answer.headers = {n: v for n, v in answer.headers.items() if "checksum" not in n.lower()}
        answer.body = b"dbta"


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_store_that_sends_us_elsewhere_tells_nobody_our_login(
    scheme: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need({"s3": "s3", "gs": "gcsfs", "az": "azure"}[scheme])
    with running(lambda _: Reply(200, b"{}")) as other:

        def away(request: Request) -> Reply:
            if request.path == "/token":
                return as_json({"access_token": "secret", "expires_in": 3600, "token_type": "Bearer"})
            return Reply(307, b"", {"Location": f"{other.url}{request.path}"})

        with running(away) as store:
            key = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
            account = f"AccountName=lab;AccountKey={key};BlobEndpoint={store.url}/lab;"
            token = google.key_file(tmp_path, f"{store.url}/token")
            env = {
                "s3": {**s3.NOBODY, **s3.KEYS, "AWS_ENDPOINT_URL": store.url, "AWS_MAX_ATTEMPTS": "1"},
                "gs": {"STORAGE_EMULATOR_HOST": store.url, "GOOGLE_APPLICATION_CREDENTIALS": str(token)},
                "az": {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account}"},
            }[scheme]
            for name, value in {**env, "AWS_DEFAULT_REGION": "us-east-1"}.items():
                monkeypatch.setenv(name, value)
            # Whether it goes there without a login is each library's own business.
            with contextlib.suppress(CxrprepError):
                WorkingCopy(f"{scheme}://bucket/nih", writes=False).__enter__()
            assert [request for request in store.seen if "authorization" in request.headers]
    assert not [request for request in other.seen if "authorization" in request.headers]


@contextlib.contextmanager
def emulated(kind: str, folder: Path, faults: Faults) -> Iterator[dict[str, str]]:
    """What leads a store's own library to its emulator, which has ``bucket``, by way of ``faults``."""
    need("gcsfs" if kind == "gs" else "azure")
    if kind == "gs":
        with fake_gcs.serving({"x/y": b"z"}, folder) as address, store_faults.before(address, faults) as url:
            yield {"STORAGE_EMULATOR_HOST": url}
        return
    with azurite.running(folder) as service, store_faults.before(service.address, faults) as url:
        service.put("bucket", {})
        yield {name: value.replace(service.address, url) for name, value in service.environment.items()}


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_other_stores_are_waited_for_and_held_to_their_checksums(
    kind: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, address = Faults(), f"{kind}://bucket/nih"
    files = {"images/a.png": b"a" * 300, "manifests/images.parquet": b"table"}
    with emulated(kind, tmp_path, faults) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        if kind == "gs":
            # Azure's own library waits 15 seconds before it asks again.
            faults.before = lambda asked: error(503, "ServerBusy") if asked.number % 8 == 2 else None
        with WorkingCopy(address, writes=True) as copy:
            write(copy.folder, files)
            assert copy.put_back() == 2
        assert objects(address) == files

        def spoil(asked: Asked, answer: Answer) -> None:
            if asked.method == "GET" and "a.png" in asked.name and answer.body.startswith(b"a"):
                answer.headers = {n: v for n, v in answer.headers.items() if "md5" not in n.lower()}
                answer.body = b"x" + answer.body[1:]

        faults.before, faults.after = lambda _: None, spoil
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
        with pytest.raises(IntegrityError, match="not the one that the store states"):
            WorkingCopy(address, writes=False).__enter__()


@pytest.mark.parametrize("times", [1, 99])
def test_a_block_that_arrives_damaged_at_azure_is_sent_again_or_is_no_object(
    times: int, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what comes in blocks Azure states no checksum: each block brings its own."""
    faults, damaged, data = Faults(), list[Asked](), os.urandom(MIB)
    (tmp_path / "a.tar").write_bytes(data)

    def damage(asked: Asked) -> None:
        if asked.query.get("comp") == "block" and len(damaged) < times:
            damaged.append(asked)
            asked.body = bytes([asked.body[0] ^ 1]) + asked.body[1:]

    with emulated("az", tmp_path, faults) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        object_store._system.cache_clear()
        store = ObjectStore("az://bucket/nih")
        config = store.system().service_client._config
        config.max_single_put_size = config.max_block_size = MIB // 4
        faults.before = damage  # type: ignore[assignment]
        for content in (data, tmp_path / "a.tar"):
            damaged.clear()
            if times == 1:
                store.send("a.tar", content)
                assert objects("az://bucket/nih")["a.tar"] == data, "a damaged block was kept"
            else:
                with pytest.raises(IntegrityError, match="arrived damaged"):
                    store.send("a.tar", content)
                assert objects("az://bucket/nih") == {}
    object_store._system.cache_clear()
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("times", [1, 99])
@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
def test_an_image_that_arrives_damaged_is_sent_again_or_is_no_image_of_the_folder(
    kind: str,
    times: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults, address, left = Faults(), f"{kind}://bucket/small", {"times": times}
    root = tmp_path / "in"
    root.mkdir()
    cv2.imwrite(str(root / "a.png"), np.full((300, 300), 90, np.uint8))

    def damage(asked: Asked) -> None:
        place = asked.body.find(b"\x89PNG")
        if asked.method in ("PUT", "POST") and place >= 0 and left["times"]:
            left["times"] -= 1
            if kind != "az":  # whose checksum is signed
                # What is told of its checksum goes: a store would refuse it.
                asked.headers = {n: v for n, v in asked.headers.items() if not re.search("(?i)md5|check|crc", n)}
            asked.body = asked.body[:-20] + bytes([asked.body[-20] ^ 1]) + asked.body[-19:]

    with contextlib.ExitStack() as stack:
        if kind == "s3":
            address, faults = request.getfixturevalue("faulty")
            monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        else:
            for name, value in stack.enter_context(emulated(kind, tmp_path / "store", faults)).items():
                monkeypatch.setenv(name, value)
        object_store._system.cache_clear()
        faults.before = damage  # type: ignore[assignment]
        words = {"recipe": "square-224", "out": address, "jobs": 1, "engine": "inline"}
        if times == 1:
            assert cxrprep.convert(root, **words).value.failed == 0
            ((name, data),) = [pair for pair in objects(address).items() if pair[0].endswith(".png")]
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (224, 224)
            assert left["times"] == 0
        else:
            with contextlib.suppress(CxrprepError):
                assert cxrprep.convert(root, **words).value.failed == 1
            assert not [name for name in objects(address) if name.endswith(".png")]
