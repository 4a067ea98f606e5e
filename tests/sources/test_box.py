"""Box without an account and with one: which link is asked, and what proves that the file is the right one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from cxrprep.errors import AccessError, IntegrityError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Source, SourceOptions
from tests.servers import box
from tests.servers.loopback import Reply, Request, page, running
from tests.sources.contract import content, credentials, digest_of

ARCHIVES = {f"images/images_{n:03d}.tar.gz": bytes([n]) * (1_000 + n) for n in (1, 2)}
FILES = {
    **ARCHIVES,
    "BBox_List_2017.csv": b"Image Index,Finding Label\n",
    "Data_Entry_2017_v2020.csv": b"Image Index,Finding Labels\n" * 3,
    "README_CHESTXRAY.pdf": b"%PDF-1.4 text",
}
LINKS = {"aaaa.gz": "images/images_001.tar.gz", "bbbb.gz": "images/images_002.tar.gz"}
URL = f"box://nihcc/{box.VANITY}"


def known(service: box.Box) -> tuple[RemoteFile, ...]:
    """What the catalog says: links and MD5 of the archives, numbers of two files, and of BBox_List its name alone."""
    archives = []
    for link, path in LINKS.items():
        digest = Digest("md5", digest_of(FILES[path], "md5"))
        archives.append(RemoteFile(path.rpartition("/")[2], len(FILES[path]), digest, f"static:{link}"))
    return (
        *archives,
        RemoteFile("Data_Entry_2017_v2020.csv", 9_003_496, None, f"file:{service.number('Data_Entry_2017_v2020.csv')}"),
        RemoteFile("BBox_List_2017.csv"),
    )


def source_of(
    service: box.Box, home: Path, monkeypatch: pytest.MonkeyPatch, *, catalog: bool = True, **environment: str
) -> Source:
    monkeypatch.setenv("CXRPREP_BOX_URL", box.address(service))
    have = credentials(environment, home)
    return open_source(URL, SourceOptions(credentials=have, timeout=5, known=known(service) if catalog else ()))


def test_links_need_no_account_and_are_never_asked_by_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS) as service:
        source = source_of(service, tmp_path, monkeypatch)
        files = {file.key: file for file in source.list()}
        assert set(files) == {path.rpartition("/")[2] for path in FILES}
        archive = files["images_001.tar.gz"]
        assert archive.digest == Digest("md5", digest_of(FILES["images/images_001.tar.gz"], "md5"))
        for key, file in files.items():
            assert content(source.open(file)) == next(d for path, d in FILES.items() if path.endswith(key))
        assert source.access().state is AccessState.OPEN
        source.close()
        assert service.app is not None
        assert {request.method for request in service.app.seen} == {"GET"}


def test_the_page_says_what_the_catalog_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS) as service:
        source = source_of(service, tmp_path, monkeypatch)
        files = {file.key: file for file in source.list()}
        assert files["BBox_List_2017.csv"].validator == f"file:{service.number('BBox_List_2017.csv')}"
        assert files["BBox_List_2017.csv"].size == len(FILES["BBox_List_2017.csv"])
        assert files["Data_Entry_2017_v2020.csv"].size == len(FILES["Data_Entry_2017_v2020.csv"]), "a new edition"
        assert files["images_001.tar.gz"].size == len(FILES["images/images_001.tar.gz"])
        assert content(source.open(RemoteFile("BBox_List_2017.csv"))) == FILES["BBox_List_2017.csv"]
        source.close()


def test_without_the_page_the_links_still_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS, script=False) as service:
        source = source_of(service, tmp_path, monkeypatch)
        files = {file.key: file for file in source.list()}
        assert set(files) == {file.key for file in known(service)}
        assert content(source.open(files["images_002.tar.gz"])) == FILES["images/images_002.tar.gz"]
        with pytest.raises(NotInSourceError, match="no longer says what is in the folder") as caught:
            source.open(files["BBox_List_2017.csv"])
        assert "BOX_DEVELOPER_TOKEN" in caught.value.hint
        source.close()


def test_each_attempt_begins_at_the_link_and_has_the_same_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FILES["images/images_001.tar.gz"]
    with box.serving(FILES, LINKS, uses=1) as service:
        source = source_of(service, tmp_path, monkeypatch)
        file = next(file for file in source.list() if file.key == "images_001.tar.gz")
        seen = set()
        for offset in (0, 7, 900):
            stream = source.open(file, offset)
            assert (stream.offset, stream.length) == (offset, len(data))
            seen.add(stream.validator)
            assert content(stream) == data[offset:]
        assert seen == {file.validator}
        assert len(service.signed) == 3
        source.close()


def test_a_file_of_another_size_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(dict(FILES), LINKS) as service:
        source = source_of(service, tmp_path, monkeypatch)
        file = next(file for file in source.list() if file.key == "BBox_List_2017.csv")
        service.files["BBox_List_2017.csv"] = b"a new edition"
        with source.open(file) as stream:
            assert stream.validator != file.validator
        source.close()


def test_a_link_that_leads_to_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS, swapped={"images/images_001.tar.gz": "images/images_002.tar.gz"}) as service:
        source = source_of(service, tmp_path, monkeypatch)
        file = next(file for file in source.list() if file.key == "images_001.tar.gz")
        with pytest.raises(IntegrityError, match=r"images_001\.tar\.gz: Box sent 'images_002\.tar\.gz'"):
            source.open(file)
        source.close()


def test_a_page_in_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS, login_page=True) as service:
        source = source_of(service, tmp_path, monkeypatch)
        with pytest.raises(AccessError, match="sent a web page instead of the file"):
            source.open(next(iter(source.list())))
        source.close()


def test_a_token_lists_with_sha1_and_keeps_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS, page_size=2) as service:
        source = source_of(service, tmp_path, monkeypatch, BOX_DEVELOPER_TOKEN=box.TOKEN)
        files = {file.key: file for file in source.list()}
        assert set(files) == set(FILES)
        assert files["BBox_List_2017.csv"].digest == Digest("sha1", digest_of(FILES["BBox_List_2017.csv"], "sha1"))
        stated = files["images/images_001.tar.gz"].digest
        assert stated is not None
        assert stated.algorithm == "md5"
        for key, file in files.items():
            assert content(source.open(file, 5)) == FILES[key][5:]
        access = source.access()
        assert (access.state, access.account) == (AccessState.GRANTED, "reader@example.org")
        source.close()
        assert service.cloud is not None
        assert not any("authorization" in request.headers for request in service.cloud.seen)


@pytest.mark.parametrize("token", ["", box.TOKEN])
def test_a_folder_that_is_refused_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with box.serving(FILES, LINKS) as service:
        assert service.app is not None
        own, shut = service.app.app, service.folders()["images"]

        def refuse(request: Request) -> Reply:
            return Reply(403) if f"/{shut}" in request.path else own(request)

        service.app.app = refuse
        more = {"BOX_DEVELOPER_TOKEN": token} if token else {}
        source = source_of(service, tmp_path, monkeypatch, catalog=False, **more)
        assert {file.key for file in source.list()} == {name for name in FILES if not name.startswith("images/")}
        assert [hole.message.partition(":")[0] for hole in source.holes] == ["images/"]  # type: ignore[attr-defined]  # of BoxSource
        source.close()


def test_an_item_of_a_page_that_is_none_leaves_the_others() -> None:
    items = [None, "x", {"id": 1}, {"name": "a.csv", "id": 7, "type": "file", "itemSize": 5}]
    data = {"/app-api/enduserapp/shared-folder": {"items": items, "pageCount": "many"}}
    service = running(lambda _: page(f"<script>Box.postStreamData = {json.dumps(data)};</script>"))
    with service as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRPREP_BOX_URL", server.url)
        with closing(open_source("box://nihcc/name", SourceOptions(timeout=5))) as source:
            assert [(file.key, file.size) for file in source.list()] == [("a.csv", 5)]


def test_a_token_that_has_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS) as service:
        source = source_of(service, tmp_path, monkeypatch, BOX_DEVELOPER_TOKEN="an-old-token")
        for call in (lambda: [*source.list()], lambda: source.open(RemoteFile("x.csv", validator="file:1"))):
            with pytest.raises(AccessError, match="BOX_DEVELOPER_TOKEN") as caught:
                call()
            assert "60 minutes" in caught.value.hint
            assert "an-old-token" not in f"{caught.value!r} {caught.value.hint}"
        assert source.access().state is AccessState.REJECTED
        source.close()


def test_a_wait_until_a_date_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS) as service:
        source = source_of(service, tmp_path, monkeypatch, catalog=False, BOX_DEVELOPER_TOKEN=box.TOKEN)
        service.refuse, service.retry_after = 503, "Fri, 31 Dec 9999 23:59:59 GMT"
        with pytest.raises(SourceUnreachableError) as caught:
            [*source.list()]
        assert caught.value.retry_after == 3600
        source.close()


def test_a_folder_that_nobody_knows_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box.serving(FILES, LINKS) as service:
        monkeypatch.setenv("CXRPREP_BOX_URL", box.address(service))
        source = open_source("box://nihcc/Other", SourceOptions(timeout=5))
        with pytest.raises(NotInSourceError):
            [*source.list()]
        assert source.access().state is AccessState.UNKNOWN
        source.close()
    with pytest.raises(UsageError, match="names no shared folder"):
        open_source("box://nihcc", SourceOptions())
