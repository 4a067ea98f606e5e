"""The smallest permissions that the provider pages state: they suffice, and none of them can go."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import cxrprep
from cxrprep.errors import AccessError
from cxrprep.storage import object_store
from cxrprep.storage.object_store import ObjectStore
from cxrprep.storage.working_copy import WorkingCopy
from tests.generators.small import nih_chestxray14
from tests.parts import need
from tests.servers import azurite, fake_gcs, s3, store_faults
from tests.servers.store_faults import Asked, Faults, error

DOCS = Path(__file__).parents[2] / "docs/howto"


def policy(bucket: str, without: str = "", *more: dict[str, Any]) -> str:
    """The policy of the page, for this bucket, without one of its actions, and with more statements."""
    text = re.findall(r"```json\n(.*?)```", (DOCS / "s3.md").read_text(), re.DOTALL)[0]
    stated: dict[str, Any] = json.loads(text.replace(":::lab", f":::{bucket}"))
    kept = []
    for statement in stated["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if left := [action for action in actions if action != without]:
            kept.append({**statement, "Action": left})
    return json.dumps({**stated, "Statement": [*kept, *more]})


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    """An emulator that asks who somebody is, and what that one may do."""
    need("s3")
    with s3.running(tmp_path_factory.mktemp("strict")) as service:
        yield service


@pytest.fixture
def may(strict: s3.S3, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Become somebody with the page's policy for a new bucket, without one of its actions; the folder there."""

    def become(without: str = "") -> str:
        strict.check_logins_after(1_000_000)
        bucket = strict.bucket({"nih/a.csv": b"a", "nih/old.csv": b"old"}, public=False)
        login = strict.account(policy(bucket, without))
        region = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
        for name, value in {**strict.environment, **login, **region}.items():
            monkeypatch.setenv(name, value)
        object_store._system.cache_clear()
        strict.check_logins_after(0)
        return f"s3://{bucket}/nih"

    yield become
    strict.check_logins_after(1_000_000)


def change(address: str) -> None:
    """Read a folder, change a file, add one and take one away."""
    with WorkingCopy(address, writes=True) as copy:
        assert (copy.folder / "a.csv").read_bytes() == b"a"
        (copy.folder / "a.csv").write_bytes(b"changed")
        (copy.folder / "new.csv").write_bytes(b"new")
        (copy.folder / "old.csv").unlink()
        copy.put_back()


def test_the_policy_of_the_page_suffices(may: Callable[[str], str], tmp_path: Path) -> None:
    address = may("")
    change(address)
    found = {entry.name: ObjectStore(address).read(entry.name) for entry in ObjectStore(address).list()}
    assert {name: data for name, data in found.items() if name.endswith(".csv")} == {
        "a.csv": b"changed",
        "new.csv": b"new",
    }
    nih_chestxray14.write(tmp_path / "nih")
    root = f"{address}/release"
    cxrprep.download("nih-chestxray14", root, source=str(tmp_path / "nih"))
    assert not cxrprep.verify(root).value.findings
    cxrprep.extract_labels(root)
    cxrprep.export(root, form="csv", out=f"{address}/one.csv")


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"])
def test_no_action_of_it_can_go(action: str, may: Callable[[str], str]) -> None:
    address = may(action)
    with pytest.raises(AccessError) as caught:
        change(address)
    assert caught.value.hint


RESUMING = ("s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts")


@pytest.mark.parametrize("without", [*RESUMING, "", "both"])
def test_an_upload_in_parts_goes_on_where_the_login_may_list_them_and_begins_again_elsewhere(
    without: str, may: Callable[[str], str], strict: s3.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, part = may(""), 1 << 19
    monkeypatch.setattr(object_store, "PART_BYTES", part)
    bucket, about = address.split("/")[2], {"Bucket": address.split("/")[2], "Key": "nih/a.tar"}
    data = os.urandom(3 * part)
    (tmp_path / "a.tar").write_bytes(data)
    resources = (f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/nih/*")
    more = [
        {"Effect": "Allow", "Action": action, "Resource": resource}
        for action, resource in zip(RESUMING, resources, strict=True)
        if without not in (action, "both")
    ]
    strict.check_logins_after(1_000_000)
    # A run that was killed has left its first part.
    owner = strict.client()
    upload = owner.create_multipart_upload(**about, ChecksumAlgorithm="SHA256")["UploadId"]
    sha256 = base64.b64encode(hashlib.sha256(data[:part]).digest()).decode()
    owner.upload_part(
        **about, UploadId=upload, PartNumber=1, Body=data[:part], ChecksumAlgorithm="SHA256", ChecksumSHA256=sha256
    )
    for name, value in strict.account(policy(bucket, "", *more)).items():
        monkeypatch.setenv(name, value)
    object_store._system.cache_clear()
    strict.check_logins_after(0)
    ObjectStore(address).send("a.tar", tmp_path / "a.tar")
    assert ObjectStore(address).read("a.tar") == data
    strict.check_logins_after(1_000_000)
    left = [one["UploadId"] for one in owner.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]
    # It went on with these parts, or they stay for the bucket's lifecycle rule.
    assert left == ([upload] if without else [])


def test_two_actions_suffice_to_read(may: Callable[[str], str], strict: s3.S3, tmp_path: Path) -> None:
    address = may("")
    nih_chestxray14.write(tmp_path / "nih")
    cxrprep.download("nih-chestxray14", address, source=str(tmp_path / "nih"))
    cxrprep.extract_labels(address)
    bucket = address.split("/")[2]
    stated = json.loads(policy(bucket, ""))
    stated["Statement"][1]["Action"] = ["s3:GetObject"]
    strict.check_logins_after(1_000_000)
    login = strict.account(json.dumps(stated))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in login.items():
            patch.setenv(name, value)
        object_store._system.cache_clear()
        strict.check_logins_after(0)
        assert cxrprep.status(address).value
        assert cxrprep.digest(address).value.value
        assert len(cxrprep.load(address))
        cxrprep.build_manifest(address, state=tmp_path / "state")
        with pytest.raises(AccessError):
            cxrprep.build_manifest(address)
    object_store._system.cache_clear()


@pytest.mark.parametrize(("permissions", "writes"), [("rl", False), ("rlcwd", True), ("rlcw", False), ("r", None)])
def test_a_sas_token_needs_the_permissions_of_the_page(
    permissions: str, writes: bool | None, tmp_path: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("azure")
    with azurite.running(tmp_path) as service:
        service.put("bucket", {"nih/a.csv": b"a", "nih/old.csv": b"old"})
        token = service.sas("bucket", permissions=permissions).partition("?")[2]
        for name, value in sas_login(service, token).items():
            monkeypatch.setenv(name, value)
        address = "az://bucket/nih"
        if writes is None:
            with pytest.raises(AccessError):
                cxrprep.status(address)
            return
        with WorkingCopy(address, writes=False) as copy:
            assert (copy.folder / "a.csv").read_bytes() == b"a"
        if not writes:
            with pytest.raises(AccessError):
                change(address)
            return
        change(address)
        names = {entry.name for entry in ObjectStore(address).list() if entry.name.endswith(".csv")}
        assert names == {"a.csv", "new.csv"}


def outside(asked: Asked, policy: Sequence[dict[str, Any]], bucket: str) -> bool:
    """Whether the condition on ``s3:prefix``, which the emulator does not check, forbids a request on the bucket."""
    if asked.name.strip("/") != bucket or asked.method not in ("GET", "HEAD"):
        return False
    wanted = policy[0]["Condition"]["StringLike"]["s3:prefix"]
    # A HEAD of the bucket has no prefix, and what has none matches no pattern.
    prefix = asked.query.get("prefix")
    return prefix is None or not any(fnmatch.fnmatchcase(prefix, pattern) for pattern in wanted)


def test_the_condition_of_the_page_lets_every_listing_through(
    amazon: s3.S3, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = amazon.bucket({"nih/a.csv": b"a", "nih/old.csv": b"old", "other/b.csv": b"b"}, public=False)
    statements = json.loads(policy(bucket))["Statement"]
    faults = Faults(before=lambda asked: error(403, "AccessDenied") if outside(asked, statements, bucket) else None)
    with store_faults.before(amazon.url, faults) as url:
        env = {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**s3.NOBODY, **s3.KEYS, **env}.items():
            monkeypatch.setenv(name, value)
        change(f"s3://{bucket}/nih")
        nih_chestxray14.write(tmp_path / "nih")
        root = f"s3://{bucket}/nih/release"
        cxrprep.download("nih-chestxray14", root, source=str(tmp_path / "nih"))
        cxrprep.extract_labels(root)
        assert not cxrprep.verify(root).value.findings
        cxrprep.convert(root, recipe="square-224", out=f"s3://{bucket}/nih/small", jobs=1)
        cxrprep.export(root, form="csv", out=f"s3://{bucket}/nih/one.csv")
        assert cxrprep.status(root).value
        with pytest.raises(AccessError):
            cxrprep.status(f"s3://{bucket}/other")


def test_a_role_for_objects_is_asked_nothing_of_the_bucket(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("gcsfs")
    # ``roles/storage.objectUser`` has no ``storage.buckets.get``: what asks for it is refused.
    faults = Faults(
        before=lambda asked: error(403, "forbidden") if re.fullmatch(r"storage/v1/b/[^/]+", asked.name) else None
    )
    store = fake_gcs.serving({"nih/a.csv": b"a", "nih/old.csv": b"old"}, tmp_path / "store")
    with store as address, store_faults.before(address, faults) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        change("gs://bucket/nih")
        nih_chestxray14.write(tmp_path / "nih")
        root = "gs://bucket/nih/release"
        cxrprep.download("nih-chestxray14", root, source=str(tmp_path / "nih"))
        cxrprep.extract_labels(root)
        assert not cxrprep.verify(root).value.findings
        cxrprep.convert(root, recipe="square-224", out="gs://bucket/nih/small", jobs=1)
        cxrprep.export(root, form="csv", out="gs://bucket/nih/one.csv")
        assert cxrprep.status(root).value
    assert not [asked.path for asked in faults.seen if "/o" not in asked.path]


def sas_login(service: azurite.Azurite, token: str) -> dict[str, str]:
    """The variables of a login by token alone."""
    text = f"BlobEndpoint={service.address}/{azurite.ACCOUNT};SharedAccessSignature={token}"
    return {"AZURE_STORAGE_CONNECTION_STRING": text}
