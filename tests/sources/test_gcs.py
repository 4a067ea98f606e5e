"""Google Cloud Storage: who asks, who pays, which generation is read, and what each refusal says to do."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import cxrprep
from cxrprep.errors import AccessError, CxrprepError, ExitCode, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Source, SourceOptions
from tests.servers import google
from tests.sources.contract import content, credentials, digest_of

FILES = {f"png/{n:08d}_000.png": random.Random(n).randbytes(900) for n in range(1, 8)}
PAYER = {"access": "payer", "costs": "requester pays"}
PHYSIONET = {"agreement": "https://physionet.org/content/mimic-cxr-jpg/2.1.0/"}


@pytest.fixture(scope="module")
def key_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return google.key_file(tmp_path_factory.mktemp("key"), "TOKEN_URL").read_text()


def source_of(
    bucket: google.Bucket, home: Path, monkeypatch: pytest.MonkeyPatch, url: str = "gs://bucket/png", *,
    project: str | None = None, extra: dict[str, str] | None = None, key: str = "",
) -> Source:  # fmt: skip
    """A source against the loopback service; ``key`` is a service account's, made for tests."""
    environment = {"STORAGE_EMULATOR_HOST": google.address(bucket)}
    if key:
        path = home / "key.json"
        path.write_text(key.replace("TOKEN_URL", f"{google.address(bucket)}/token"))
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    have = credentials(environment, home)
    return open_source(url, SourceOptions(credentials=have, timeout=5, billing_project=project, extra=extra or {}))


def test_nobody_reads_a_public_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES, page_size=3) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch)
        files = [*source.list()]
        assert [file.key for file in files] == [name.removeprefix("png/") for name in sorted(FILES)]
        assert files[0].digest == Digest("md5", digest_of(FILES["png/00000001_000.png"], "md5"))
        assert content(source.open(files[0])) == FILES["png/00000001_000.png"]
        assert source.access().state is AccessState.OPEN
        source.close()
        assert bucket.server is not None
        assert not any("authorization" in request.headers for request in bucket.server.seen)


def test_a_service_account_asks_with_a_token_that_stays_on_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, login=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, key=key_text)
        file = next(iter(source.list()))
        assert content(source.open(file, 100)) == FILES["png/00000001_000.png"][100:]
        access = source.access()
        assert (access.state, access.account) == (AccessState.GRANTED, google.ACCOUNT)
        source.close()


def test_a_machine_of_googles_asks_with_its_own_account(tmp_path: Path) -> None:
    with google.serving(FILES, login=True) as bucket:
        host = google.address(bucket).removeprefix("http://")
        program = (
            "from cxrprep.credentials.lookup import Credentials\n"
            "from cxrprep.sources import open_source\n"
            "from cxrprep.sources.base import SourceOptions\n"
            "source = open_source('gs://bucket/png', SourceOptions(credentials=Credentials(keyring=False)))\n"
            "print(len([*source.list()]), source.access())\n"
        )
        # The library reads these when it is imported.
        variables = {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables, "STORAGE_EMULATOR_HOST": google.address(bucket)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(FILES)} ")
    assert google.ACCOUNT in done.stdout
    assert "granted" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_person_asks_with_the_login_that_gcloud_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.oauth2.credentials as library

    folder = tmp_path / ".config" / "gcloud"
    folder.mkdir(parents=True)
    about = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "secret-refresh"}
    (folder / "application_default_credentials.json").write_text(json.dumps(about))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(folder))
    with google.serving(FILES, login=True) as bucket:
        monkeypatch.setattr(library, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{google.address(bucket)}/token")
        source = source_of(bucket, tmp_path, monkeypatch)
        assert content(source.open(next(iter(source.list())))) == FILES["png/00000001_000.png"]
        assert source.access().state is AccessState.GRANTED
        source.close()


def test_a_token_that_was_withdrawn_is_renewed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, login=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, key=key_text)
        files = [*source.list()]
        bucket.tokens.clear()
        bucket.tokens.add("another")
        assert content(source.open(files[1])) == FILES[f"png/{files[1].key}"]
        source.close()


# ---- who pays ----


def test_a_missing_project_is_said_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES, requester_pays=True) as bucket:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
        source = source_of(bucket, tmp_path, monkeypatch, extra=PAYER)
        with pytest.raises(AccessError, match="requester pays") as caught:
            [*source.list()]
        assert "--billing-project" in caught.value.hint
        with pytest.raises(AccessError, match="requester pays"):
            source.open(RemoteFile("00000001_000.png"))
        access = source.access()
        assert (access.state, access.costs) == (AccessState.MISSING, "requester pays")
        source.close()
        assert bucket.server is not None
        assert bucket.server.seen == [], "nothing was asked, and nothing was billed"


def test_a_bucket_nobody_knows_of_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES, requester_pays=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch)
        with pytest.raises(AccessError, match="requester pays") as caught:
            [*source.list()]
        assert caught.value.exit_code is ExitCode.ACCESS
        with pytest.raises(AccessError, match="requester pays"):
            source.open(RemoteFile("00000001_000.png"))
        source.close()


def test_a_login_without_a_project_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, requester_pays=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, key=key_text)
        access = source.access()
        assert access.state is AccessState.REJECTED
        assert "--billing-project" in access.advice
        source.close()


def test_the_project_pays_for_the_listing_and_for_each_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, requester_pays=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, project="mine", extra=PAYER, key=key_text)
        for file in source.list():
            assert content(source.open(file)) == FILES[f"png/{file.key}"]
        assert source.access().costs == "requester pays"
        source.close()
        billed = google.asked_for(bucket, "/storage/") + google.asked_for(bucket, "/download/")
        assert len(billed) > len(FILES)
        assert {query.get("userProject") for query in billed} == {"mine"}


def test_nobody_cannot_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES, requester_pays=True) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, project="mine", extra=PAYER)
        with pytest.raises(AccessError, match="wants a login") as caught:
            [*source.list()]
        assert "gcloud auth application-default login" in caught.value.hint
        source.close()


def test_without_a_login_no_project_is_billed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES, requester_pays=True, billable=False, anonymous=403) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, project="theirs", extra=PAYER)
        with pytest.raises(AccessError, match="a request without a login may not bill the project theirs"):
            [*source.list()]
        source.close()


def test_a_project_that_the_account_may_not_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, requester_pays=True, billable=False) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, project="theirs", extra=PAYER, key=key_text)
        with pytest.raises(AccessError, match="may not bill the project theirs"):
            [*source.list()]
        source.close()


def test_an_account_that_physionet_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key_text: str
) -> None:
    with google.serving(FILES, requester_pays=True, linked=False) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, project="mine", extra=PAYER | PHYSIONET, key=key_text)
        for call in (lambda: [*source.list()], lambda: source.open(RemoteFile("00000001_000.png"))):
            with pytest.raises(AccessError, match=google.ACCOUNT) as caught:
                call()
            assert "https://physionet.org/settings/cloud/" in caught.value.hint
            assert PHYSIONET["agreement"] in caught.value.hint
        assert source.access().state is AccessState.UNSIGNED
        source.close()


# ---- which bytes ----


def test_the_generation_that_was_listed_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with google.serving(FILES) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch)
        file = next(iter(source.list()))
        with source.open(file) as stream:
            assert stream.validator == file.validator == "1000"
        assert google.asked_for(bucket, "/download/")[-1]["generation"] == "1000"
        bucket.replace("png/00000001_000.png", b"another")
        with pytest.raises(NotInSourceError, match="replaced after it was listed"):
            source.open(file)
        assert content(source.open(RemoteFile(file.key))) == b"another"
        bucket.files.pop("png/00000001_000.png")
        with pytest.raises(NotInSourceError, match="does not exist"):
            source.open(file)
        source.close()


def test_an_object_that_is_stored_packed_promises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"png/table.csv": gzip.compress(b"a,b\n" * 100)}
    with google.serving(files, encoded=frozenset(files)) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch)
        (file,) = source.list()
        assert (file.size, file.digest) == (None, None)
        stream = source.open(file)
        assert stream.digest is None
        assert content(stream) == b"a,b\n" * 100
        source.close()


def test_the_address_of_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving({**FILES, "png/00000001_000.png.csv": b"x"}) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, "gs://bucket/png/00000001_000.png")
        (file,) = source.list()
        assert file.key == "00000001_000.png"
        assert content(source.open(file)) == FILES["png/00000001_000.png"]
        source.close()
        gone = source_of(bucket, tmp_path, monkeypatch, "gs://bucket/png/nothing.csv")
        with pytest.raises(NotInSourceError, match=r"nothing\.csv"):
            [*gone.list()]
        gone.close()


def test_a_bucket_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, "gs://other")
        with pytest.raises(NotInSourceError, match="gs://other"):
            [*source.list()]
        assert source.access().state is AccessState.UNKNOWN
        source.close()
    with pytest.raises(UsageError, match="names no bucket"):
        open_source("gs://", SourceOptions())


@pytest.mark.parametrize("address", ["gs://other", "gs://bucket/png/nothing.csv"])
def test_what_is_not_there_as_a_whole_is_no_file_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with google.serving(FILES) as bucket:
        source_of(bucket, tmp_path, monkeypatch).close()
        with pytest.raises(CxrprepError, match="does not exist") as caught:
            cxrprep.download("nih-chestxray14", tmp_path / "out", source=address)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_wait_until_a_date_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch)
        bucket.refuse, bucket.retry_after = 503, "Fri, 31 Dec 9999 23:59:59 GMT"
        with pytest.raises(SourceUnreachableError) as caught:
            [*source.list()]
        assert caught.value.retry_after == 3600
        source.close()


def test_a_key_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with google.serving(FILES) as bucket:
        source = source_of(bucket, tmp_path, monkeypatch, key='{"type": "service_account", "private_key": "hunter2"}')
        with pytest.raises(AccessError, match="cannot be used") as caught:
            [*source.list()]
        assert "hunter2" not in f"{caught.value!r} {caught.value.hint}"
        source.close()
