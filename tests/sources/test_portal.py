"""Signed URLs on Azure's own emulator: expiry seen early, renewal midway, changed blobs; and what never shows."""

from __future__ import annotations

import datetime as dt
import random
import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cxrprep.credentials.lookup import Credentials
from cxrprep.credentials.secret import Secret
from cxrprep.errors import AccessError, CxrprepError, ExitCode, NotInSourceError
from cxrprep.model import Digest, RemoteFile, Selection
from cxrprep.sources import open_source, signed_url
from cxrprep.sources.azure_blob import SharedAccess
from cxrprep.sources.base import AccessState, Selective, Source, SourceOptions
from cxrprep.sources.signed_url import SignedUrlSource
from tests.servers import loopback
from tests.servers.azurite import Azurite, forged
from tests.servers.kaggle import archive_of
from tests.servers.processes import closed_port
from tests.sources.contract import content, credentials, digest_of

BATCH = "CheXpert-v1.0 batch 1 (validate & csv).zip"
IMAGE = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
MEMBERS = {IMAGE: random.Random(1).randbytes(9_000), "CheXpert-v1.0/train.csv": b"Path,Sex\n" * 200}
BLOBS = {BATCH: archive_of(MEMBERS), "README.md": b"# CheXpert", "train_cheXbert.csv": b"Path\n" * 30}
DAY = dt.timedelta(days=1)


@pytest.fixture
def container(azure: Azurite) -> str:
    name = f"c{secrets.token_hex(6)}"
    azure.put(name, BLOBS)
    return name


def source_of(signed: str, home: Path, **options: Any) -> Source:
    have = credentials({"CHEXPERT_URL": signed}, home)
    return open_source("url://chexpert", SourceOptions(**{"credentials": have, "timeout": 5, **options}))


def from_file(path: Path) -> Source:
    have = Credentials(environment={"CXRPREP_KEYRING": "0"}, home=path.parent, link=path)
    return open_source("url://chexpert", SourceOptions(credentials=have, timeout=5))


def test_a_link_in_a_file_is_for_whichever_portal_is_named(azure: Azurite, container: str, tmp_path: Path) -> None:
    path = tmp_path / "link.txt"
    path.write_text(azure.sas(container))
    have = Credentials(environment={"CXRPREP_KEYRING": "0"}, home=tmp_path, link=path)
    with closing(open_source("url://ward", SourceOptions(credentials=have, timeout=5))) as source:
        assert {file.key for file in source.list()} == set(BLOBS)


def test_a_link_that_lost_its_signature_says_so(azure: Azurite, container: str, tmp_path: Path) -> None:
    signed = azure.sas(container)
    for cut in (signed.partition("?")[0], signed.partition("&")[0]):
        with closing(source_of(cut, tmp_path)) as source:
            with pytest.raises(AccessError, match="has no signature"):
                [*source.list()]
            assert source.access().state is AccessState.REJECTED


# ---- what a signature says of itself ----


def test_a_container_is_listed_page_by_page(
    azure: Azurite, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    whole = SharedAccess.list_url

    def two_at_a_time(self: SharedAccess, prefix: str, marker: str, most: int = 5000) -> str:
        asked.append(marker)
        return whole(self, prefix, marker, 2)

    monkeypatch.setattr(SharedAccess, "list_url", two_at_a_time)
    with closing(source_of(azure.sas(container), tmp_path)) as source:
        files = {file.key: file for file in source.list()}
    assert set(files) == set(BLOBS)
    assert len(asked) == 2
    assert asked[0] == ""
    assert asked[1]
    for key, data in BLOBS.items():
        assert (files[key].size, files[key].digest) == (len(data), Digest("md5", digest_of(data, "md5")))


def test_a_signature_for_one_blob_lists_that_blob(azure: Azurite, container: str, tmp_path: Path) -> None:
    with closing(source_of(azure.sas(container, BATCH, permissions="r"), tmp_path)) as source:
        (file,) = source.list()
        assert (file.key, file.size) == (BATCH, len(BLOBS[BATCH]))
        assert content(source.open(file, 10)) == BLOBS[BATCH][10:]
        assert source.access().state is AccessState.GRANTED


def test_without_the_right_to_list_the_catalogs_files_are_asked_for(
    azure: Azurite, container: str, tmp_path: Path
) -> None:
    known = tuple(RemoteFile(name) for name in (*BLOBS, "CHEXPERT DEMO.xlsx"))
    signed = azure.sas(container, permissions="r")
    with closing(source_of(signed, tmp_path, known=known)) as source:
        assert {file.key: file.size for file in source.list()} == {name: len(data) for name, data in BLOBS.items()}
    with closing(source_of(signed, tmp_path)) as source, pytest.raises(AccessError, match="does not allow listing"):
        [*source.list()]


@pytest.mark.parametrize("end", ["/*", "/", "/*/"])
def test_a_container_as_azcopy_writes_it(azure: Azurite, container: str, tmp_path: Path, end: str) -> None:
    signed = azure.sas(container).replace("?", f"{end}?", 1)
    with closing(source_of(signed, tmp_path)) as source:
        files = {file.key: file for file in source.list()}
        assert set(files) == set(BLOBS)
        assert content(source.open(files["README.md"])) == BLOBS["README.md"]


@pytest.mark.parametrize("end", ["", "/", "/*"])
def test_a_folder_of_a_container_is_a_mirror_of_what_is_below_it(azure: Azurite, tmp_path: Path, end: str) -> None:
    name = f"c{secrets.token_hex(6)}"
    azure.put(name, {"other.csv": b"x", "my set/a.csv": b"a", "my set/sub/b.csv": b"bb"})
    signed = azure.sas(name).replace("?", f"/my%20set{end}?", 1)
    with closing(source_of(signed, tmp_path)) as source:
        files = {file.key: file for file in source.list()}
        assert {key: file.size for key, file in files.items()} == {"a.csv": 1, "sub/b.csv": 2}
        assert content(source.open(files["sub/b.csv"])) == b"bb"
        assert [file.key for file in source.list("sub/")] == ["sub/b.csv"]


def test_a_real_account_names_itself_in_the_host() -> None:
    share = SharedAccess.parse(Secret("https://acc.blob.core.windows.net/set/a%20b/*?sr=c&sp=rl&sig=x"))
    assert (share.base, share.folder) == ("https://acc.blob.core.windows.net/set/a%20b/", "a b/")
    assert share.list_url("p", "").startswith("https://acc.blob.core.windows.net/set?restype=container")
    assert "prefix=a%20b%2Fp" in share.list_url("p", "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"expires": -DAY}, "expired on"),
        ({"starts": DAY, "expires": 2 * DAY}, "is valid from"),
        ({"permissions": "l"}, "does not allow reading"),
    ],
)
def test_what_the_service_would_refuse_is_said_before_it_is_asked(
    azure: Azurite, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    signed = azure.sas("nothing", **options)
    with (
        closed_port() as port,
        closing(source_of(signed.replace(azure.address, f"http://127.0.0.1:{port}"), tmp_path)) as source,
    ):
        for call in (lambda: [*source.list()], lambda: source.open(RemoteFile("README.md"))):
            with pytest.raises(AccessError, match=reason) as caught:
                call()
            assert "--url-file" in caught.value.hint
            assert "what is here is kept" in caught.value.hint
        state = source.access().state
        assert state is (AccessState.EXPIRED if "expired" in reason else AccessState.REJECTED)


def test_the_end_of_the_thirty_days_is_told_while_it_is_good(azure: Azurite, container: str, tmp_path: Path) -> None:
    with closing(source_of(azure.sas(container, expires=dt.timedelta(hours=2)), tmp_path)) as source:
        access = source.access()
    assert access.state is AccessState.GRANTED
    assert "get a new one soon" in access.advice


def test_without_a_url_the_advice_says_where_to_get_one(tmp_path: Path) -> None:
    have = credentials({}, tmp_path)
    with closing(open_source("url://chexpert", SourceOptions(credentials=have))) as source:
        with pytest.raises(AccessError) as caught:
            [*source.list()]
        assert "CHEXPERT_URL" in caught.value.hint
        assert source.access().state is AccessState.MISSING


# ---- renewal ----


def test_a_url_that_ran_out_midway_is_read_again_from_its_file(
    azure: Azurite, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "url"
    file.write_text(azure.sas(container, expires=DAY))
    with closing(from_file(file)) as source:
        listed = [*source.list()]
        later = dt.datetime.now(dt.UTC) + 2 * DAY
        monkeypatch.setattr(signed_url, "_now", lambda: later)
        with pytest.raises(AccessError, match="expired on"):
            source.open(listed[0])
        file.write_text(azure.sas(container, expires=5 * DAY) + "\n")
        assert content(source.open(listed[0], 5)) == BLOBS[listed[0].key][5:]


def test_a_signature_that_is_refused_is_looked_for_again(azure: Azurite, container: str, tmp_path: Path) -> None:
    good = azure.sas(container)
    file = tmp_path / "url"
    file.write_text(forged(good))
    with closing(from_file(file)) as source:
        with pytest.raises(AccessError, match="refused") as caught:
            [*source.list()]
        assert "AuthenticationFailed" in str(caught.value) or "403" in str(caught.value)
        assert "sig=" not in f"{caught.value!r} {caught.value.hint}"
        file.write_text(good)
        assert {listed.key for listed in source.list()} == set(BLOBS)


# ---- content ----


def test_a_blob_that_was_replaced_is_sent_from_its_beginning(azure: Azurite, container: str, tmp_path: Path) -> None:
    with closing(source_of(azure.sas(container), tmp_path)) as source:
        file = next(file for file in source.list() if file.key == "README.md")
        azure.put(container, {"README.md": b"# CheXpert, second edition"})
        stream = source.open(file, 4)
        assert stream.offset == 0
        assert stream.validator != file.validator
        assert content(stream) == b"# CheXpert, second edition"


def test_members_are_listed_and_read_inside_the_archive(azure: Azurite, container: str, tmp_path: Path) -> None:
    with closing(source_of(azure.sas(container), tmp_path)) as source:
        assert isinstance(source, Selective)
        everything = {file.key for file in source.list_wanted(Selection())}
        assert everything == set(BLOBS)
        named = {file.key for file in source.list_wanted(Selection(include=("*.zip",)))}
        assert named == set(BLOBS), "whoever names archives wants archives"
        some = {file.key: file for file in source.list_wanted(Selection(patients=frozenset({"patient64541"})))}
        assert set(some) == {f"{BATCH}!/{name}" for name in MEMBERS} | set(BLOBS) - {BATCH}
        for unwanted in (BATCH, "*.zip", "*batch*"):
            left = {file.key for file in source.list_wanted(Selection(exclude=(unwanted,)))}
            assert left == set(BLOBS) - {BATCH}, "an archive that is left out is not opened either"
        member = some[f"{BATCH}!/{IMAGE}"]
        assert member.digest == Digest("crc32", digest_of(MEMBERS[IMAGE], "crc32"))
        assert content(source.open(member, 1_000)) == MEMBERS[IMAGE][1_000:]
        with pytest.raises(NotInSourceError, match="no such member"):
            source.open(RemoteFile(f"{BATCH}!/CheXpert-v1.0/nothing.jpg"))


@pytest.mark.parametrize(
    ("fault", "code"),
    [("its end", ExitCode.INTEGRITY), ("its directory", ExitCode.INTEGRITY), ("no archive", ExitCode.ACCESS)],
)
def test_a_damaged_archive_leaves_the_others_in_the_listing(
    azure: Azurite, container: str, tmp_path: Path, fault: str, code: ExitCode
) -> None:
    whole = archive_of({"CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg": b"x" * 9_000})
    at = whole.rindex(b"PK\x01\x02")
    damaged = {
        "its end": whole[:-30],
        "its directory": whole[:at] + b"PK\x09\x09" + whole[at + 4 :],
        "no archive": b"<html>a page that was saved in its place",
    }[fault]
    azure.put(container, {"CheXpert-v1.0 batch 0.zip": damaged})
    with closing(source_of(azure.sas(container), tmp_path)) as source:
        assert isinstance(source, SignedUrlSource)
        found = {file.key for file in source.list_wanted(Selection(patients=frozenset({"patient64541"})))}
        assert found == {f"{BATCH}!/{name}" for name in MEMBERS} | set(BLOBS) - {BATCH}
        (left_out,) = source.holes
        assert left_out.message.startswith("CheXpert-v1.0 batch 0.zip")
        assert left_out.exit_code is code
    with closing(source_of(azure.sas(container, "CheXpert-v1.0 batch 0.zip", permissions="r"), tmp_path)) as alone:
        assert isinstance(alone, SignedUrlSource)
        with pytest.raises(CxrprepError, match="batch 0"):
            list(alone.list_wanted(Selection(patients=frozenset({"patient64541"}))))


def test_a_member_of_an_archive_that_was_replaced(azure: Azurite, container: str, tmp_path: Path) -> None:
    with closing(source_of(azure.sas(container), tmp_path)) as source:
        member = next(iter(source.list(f"{BATCH}!/")))
        azure.put(container, {BATCH: archive_of({**MEMBERS, "another.txt": b"x"})})
        with pytest.raises(Exception, match="has changed since it was listed") as caught:
            content(source.open(member))
        assert "run again" in caught.value.hint  # type: ignore[attr-defined]  # ours


# ---- any other service that signs ----


def test_a_signed_file_of_another_service(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3_000)

    def app(request: loopback.Request) -> loopback.Reply:
        if request.query.get("X-Amz-Signature") != "s3cret":
            return loopback.Reply(403, b"<Error/>")
        return loopback.object_reply(request, data)

    with loopback.running(app) as server:
        signed = f"{server.url}/share/CheXpert-v1.0-small.zip?X-Amz-Signature=s3cret"
        with closing(source_of(signed, tmp_path)) as source:
            (file,) = source.list()
            assert (file.key, file.size) == ("CheXpert-v1.0-small.zip", 3_000)
            assert content(source.open(file)) == data
        with closing(source_of(signed + "x", tmp_path)) as source:
            with pytest.raises(AccessError) as caught:
                [*source.list()]
            assert "s3cret" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize(
    ("rest", "blob"),
    [
        ("?sv=1&se=2030-01-01&sr=c&sp=rl&sig=x", ""),
        ("/?sr=c&sp=rl&sig=x", ""),
        ("?restype=container&comp=list&sr=c&sp=rl&sig=x", ""),
        ("?sr=c&sp=rl&sig=x&restype=container&comp=list", ""),
        ("/batch%202%20(train%201).zip?sr=b&sp=r&sig=x", "batch 2 (train 1).zip"),
    ],
)
def test_the_parts_of_a_signed_url(rest: str, blob: str) -> None:
    container = "https://account.blob.core.windows.net/container"
    share = SharedAccess.parse(Secret(container + rest))
    assert (share.base, share.blob) == (container + "/", blob)
    assert not {"restype", "comp"} & set(share.url("a.csv").partition("?")[2].replace("=", "&").split("&"))
    assert "sig" not in share.address
    assert "sig=x" not in repr(share)
