"""Kaggle, through its real SDK: what it asks for, what it sends where, and what becomes of each way it can fail."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxrprep.errors import AccessError, NotInSourceError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Source, SourceOptions
from tests.servers import kaggle
from tests.servers.kaggle import KEY, TOKEN, USER
from tests.sources.contract import content, credentials, digest_of

FILES = {f"images_{n:03d}/images/{n:08d}_000.png": random.Random(n).randbytes(500) for n in range(1, 6)}
TABLE = b"Image Index,Finding Labels\n" * 5_000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def source_of(
    service: kaggle.Kaggle, home: Path, monkeypatch: pytest.MonkeyPatch, url: str = "kaggle://owner/data",
    extra: dict[str, str] | None = None, **environment: str,
) -> Source:  # fmt: skip
    assert service.api is not None
    monkeypatch.setenv("CXRPREP_KAGGLE_URL", service.api.url)
    have = credentials(environment, home)
    return open_source(url, SourceOptions(credentials=have, timeout=5, extra=extra or {}))


def asked(service: kaggle.Kaggle, method: str) -> list[dict[str, Any]]:
    assert service.api is not None
    return [request.json() for request in service.api.seen if request.path.endswith(f"/{method}")]


def test_the_listing_takes_the_largest_pages(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"images/{n:08d}_000.png": b"x" * n for n in range(1, 451)}
    with kaggle.serving(files) as service:
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        listed = [*source.list()]
        source.close()
    assert [file.key for file in listed] == sorted(files)
    assert [file.size for file in listed] == [len(files[file.key]) for file in listed]
    assert service.pages == [200, 200, 200]


def _token_file(home: Path) -> dict[str, str]:
    (home / "token").write_text(TOKEN + "\n")
    return {"KAGGLE_API_TOKEN": str(home / "token")}


def _access_token(name: str) -> Callable[[Path], dict[str, str]]:
    def write(home: Path) -> dict[str, str]:
        (home / ".kaggle").mkdir()
        (home / ".kaggle" / name).write_text(TOKEN)
        return {}

    return write


def _json(folder: str, variable: str = "") -> Callable[[Path], dict[str, str]]:
    def write(home: Path) -> dict[str, str]:
        (home / folder).mkdir(parents=True)
        (home / folder / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}))
        return {variable: str(home / folder).removesuffix("/kaggle")} if variable else {}

    return write


def _session(hours: int) -> Callable[[Path], dict[str, str]]:
    def write(home: Path) -> dict[str, str]:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
        about = {"refresh_token": "r", "access_token": TOKEN, "access_token_expiration": end.isoformat()}
        (home / ".kaggle").mkdir(exist_ok=True)
        (home / ".kaggle" / "credentials.json").write_text(json.dumps(about))
        return {}

    return write


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda home: {"KAGGLE_API_TOKEN": TOKEN}, id="KAGGLE_API_TOKEN"),
        pytest.param(_token_file, id="KAGGLE_API_TOKEN names a file"),
        pytest.param(_access_token("access_token"), id="access_token"),
        pytest.param(_access_token("access_token.txt"), id="access_token.txt"),
        pytest.param(lambda home: {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY}, id="KAGGLE_USERNAME, KAGGLE_KEY"),
        pytest.param(_json("elsewhere", "KAGGLE_CONFIG_DIR"), id="KAGGLE_CONFIG_DIR"),
        pytest.param(_json(".kaggle"), id="~/.kaggle/kaggle.json"),
        pytest.param(_json("xdg/kaggle", "XDG_CONFIG_HOME"), id="XDG_CONFIG_HOME"),
        pytest.param(_session(1), id="kaggle auth login"),
    ],
)
def test_every_form_of_credential_opens_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], dict[str, str]]
) -> None:
    with kaggle.serving(FILES) as service:
        source = source_of(service, home, monkeypatch, **write(home))
        assert source.access().state is AccessState.GRANTED
        files = [*source.list()]
        assert content(source.open(files[0])) == FILES[files[0].key]
        source.close()
        assert service.storage is not None
        assert not any("authorization" in request.headers for request in service.storage.seen)


def test_a_session_that_has_ended_is_renewed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _session(-1)(home)
    before = (home / ".kaggle" / "credentials.json").read_text()
    with kaggle.serving(FILES, refresh_token="r") as service:
        source = source_of(service, home, monkeypatch)
        assert source.access().state is AccessState.GRANTED
        files = [*source.list()]
        # And again when it ends on the way.
        service.token = "another"
        assert content(source.open(files[0])) == FILES[files[0].key]
        assert service.renewed == 2
        source.close()
    assert (home / ".kaggle" / "credentials.json").read_text() == before


def test_a_session_that_is_not_renewed_is_passed_over_and_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _session(-1)(home)
    with kaggle.serving(FILES) as service:
        source = source_of(service, home, monkeypatch)
        access = source.access()
        assert access.state is AccessState.MISSING
        assert "kaggle auth login" in access.advice
        with pytest.raises(AccessError, match=r"credentials\.json"):
            [*source.list()]
        service.public = True
        assert {file.key for file in source.list()} == set(FILES)
        source.close()


def test_a_session_cannot_be_renewed_while_kaggle_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _session(-1)(home)
    with kaggle.serving(FILES, refresh_token="r", statuses=[503]) as service:
        source = source_of(service, home, monkeypatch)
        assert source.access().state is AccessState.GRANTED
        source.close()


def test_a_public_dataset_needs_no_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES, public=True) as service:
        source = source_of(service, home, monkeypatch)
        assert source.access().state is AccessState.OPEN
        file = next(iter(source.list()))
        assert content(source.open(file)) == FILES[file.key]
        source.close()


def test_without_an_account_the_advice_says_how_to_get_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES) as service:
        source = source_of(service, home, monkeypatch)
        with pytest.raises(AccessError, match="wants a login") as caught:
            [*source.list()]
        assert "kaggle.com/settings" in caught.value.hint
        assert source.access().state is AccessState.MISSING
        source.close()


def test_a_rejected_key_is_named_by_its_place_and_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES) as service:
        source = source_of(service, home, monkeypatch, KAGGLE_USERNAME=USER, KAGGLE_KEY="wrong-but-secret")
        with pytest.raises(AccessError, match="KAGGLE_USERNAME, KAGGLE_KEY") as caught:
            [*source.list()]
        assert "wrong-but-secret" not in f"{caught.value!r} {caught.value.hint}"
        assert source.access().state is AccessState.REJECTED
        source.close()


def test_a_dataset_that_is_not_there_and_one_that_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES) as service:
        source = source_of(service, home, monkeypatch, "kaggle://owner/other", KAGGLE_API_TOKEN=TOKEN)
        with pytest.raises(NotInSourceError, match="owner/other"):
            [*source.list()]
        assert source.access().state is AccessState.UNKNOWN
        source.close()
        service.refuse = 403
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        with pytest.raises(AccessError) as caught:
            [*source.list()]
        assert "https://www.kaggle.com/datasets/owner/data" in caught.value.hint
        source.close()


def test_a_listing_goes_on_after_the_service_asked_to_wait(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES, statuses=[429, 0, 503], retry_after="0") as service:
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        assert len([*source.list()]) == len(FILES)
        source.close()


def test_the_storage_states_the_digest_and_each_attempt_has_an_address_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kaggle.serving(FILES, uses=1) as service:
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        file = next(iter(source.list()))
        data = FILES[file.key]
        for offset in (0, 100, 499):
            stream = source.open(file, offset)
            assert (stream.offset, stream.length) == (offset, 500)
            assert stream.digest == Digest("md5", digest_of(data, "md5"))
            assert content(stream) == data[offset:]
        source.close()
    assert len(service.signatures) == 3


def test_a_file_that_arrives_zipped_is_read_out_of_its_archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**FILES, "Data_Entry_2017.csv": TABLE}
    with kaggle.serving(files, zipped=frozenset({"Data_Entry_2017.csv"})) as service:
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        for offset in (0, 77_000):
            stream = source.open(RemoteFile("Data_Entry_2017.csv"), offset)
            assert stream.digest == Digest("crc32", digest_of(TABLE, "crc32"))
            assert stream.length == len(TABLE)
            assert stream.offset == offset
            assert content(stream) == TABLE[offset:]
        source.close()


def test_the_archive_of_all_is_one_file_under_the_name_that_the_address_gives(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kaggle.serving(FILES, uses=2) as service:
        url = "kaggle://owner/data/CheXpert-v1.0-small.zip"
        source = source_of(service, home, monkeypatch, url, KAGGLE_API_TOKEN=TOKEN)
        whole = service.dataset.whole()
        (file,) = source.list()
        assert (file.key, file.size) == ("CheXpert-v1.0-small.zip", len(whole))
        assert file.digest == Digest("md5", digest_of(whole, "md5"))
        assert source.politeness.ranges > 1
        assert content(source.open(file, 100, 900)) == whole[100:900]
        assert content(source.open(file)) == whole
        source.close()
    assert len(service.signatures) == 2, "one address serves until it has run out"


def test_members_cost_no_request_to_the_api_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle.serving(FILES, uses=4) as service:
        source = source_of(service, home, monkeypatch, extra={"members": "yes"}, KAGGLE_API_TOKEN=TOKEN)
        files = [*source.list()]
        assert [file.key for file in files] == [f"archive.zip!/{key}" for key in sorted(FILES)]
        for file in files:
            assert content(source.open(file)) == FILES[file.key.removeprefix("archive.zip!/")]
        source.close()
    assert asked(service, "ListDatasetFiles") == []
    assert len(asked(service, "DownloadDataset")) == len(service.signatures) == 2, "renewed where it had run out"


@pytest.mark.parametrize("options", [{"archive": False}, {"ranges": False}])
def test_where_the_archive_cannot_be_read_by_range_the_files_are_listed(
    home: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    with kaggle.serving(FILES, **options) as service:
        source = source_of(service, home, monkeypatch, extra={"members": "yes"}, KAGGLE_API_TOKEN=TOKEN)
        files = [*source.list()]
        assert [file.key for file in files] == sorted(FILES)
        assert content(source.open(files[0])) == FILES[files[0].key]
        source.close()


def test_all_files_come_from_the_version_that_was_newest_at_the_beginning(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kaggle.serving(FILES, version=3) as service:
        source = source_of(service, home, monkeypatch, KAGGLE_API_TOKEN=TOKEN)
        files = [*source.list()]
        service.dataset.version = 4
        assert {request["datasetVersionNumber"] for request in asked(service, "ListDatasetFiles")} == {3}
        source.open(files[0]).close()
        assert asked(service, "DownloadDataset")[-1]["datasetVersionNumber"] == 3
        source.close()
        older = source_of(service, home, monkeypatch, "kaggle://owner/data/versions/2", KAGGLE_API_TOKEN=TOKEN)
        assert len([*older.list()]) == len(FILES)
        assert asked(service, "ListDatasetFiles")[-1]["datasetVersionNumber"] == 2
        older.close()


@pytest.mark.parametrize("url", ["kaggle://", "kaggle://owner", "kaggle://owner/data/file.csv", "kaggle://a/b/c/d"])
def test_an_address_that_names_no_dataset(url: str) -> None:
    with pytest.raises(UsageError, match="names no dataset"):
        open_source(url, SourceOptions())


def test_credentials_go_to_no_other_host_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXRPREP_KAGGLE_URL", "http://kaggle.example.org")
    with pytest.raises(UsageError, match="without encryption"):
        open_source("kaggle://owner/data", SourceOptions())


def test_the_kaggle_package_itself_stays_unimported(home: Path) -> None:
    with kaggle.serving(FILES, public=True) as service:
        assert service.api is not None
        program = (
            "import sys\n"
            "from cxrprep.sources import open_source\n"
            "from cxrprep.sources.base import SourceOptions\n"
            "source = open_source('kaggle://owner/data', SourceOptions())\n"
            "assert len([*source.list()]) == 5\n"
            "assert 'kagglesdk' in sys.modules and 'kaggle' not in sys.modules\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "CXRPREP_KAGGLE_URL": service.api.url, "HOME": str(home)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not (home / ".kaggle").exists()
