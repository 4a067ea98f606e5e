"""PhysioNet: sessions instead of passwords, lists instead of folder pages, and refusals that name the page to open."""

from __future__ import annotations

import csv
import gzip
import random
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stamina

from cxrprep.errors import AccessError, NotInSourceError, SourceUnreachableError, UsageError
from cxrprep.model import Digest, RemoteFile, Selection
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Selective, Source, SourceOptions
from tests.servers import nginx, physionet
from tests.servers.loopback import Reply, Request, running
from tests.servers.physionet import PASSWORD, USER, packed
from tests.sources.contract import content, credentials, digest_of

PATIENTS = {"10000032": ("50414267", "53189527"), "10000764": ("57375967",), "11000001": ("50000001",)}


def _release() -> dict[str, bytes]:
    records, studies = ["subject_id,study_id,dicom_id,path"], ["subject_id,study_id,path"]
    files: dict[str, bytes] = {}
    for patient, own in PATIENTS.items():
        for study in own:
            folder = f"files/p{patient[:2]}/p{patient}"
            studies.append(f"{patient},{study},{folder}/s{study}.txt")
            files[f"{folder}/s{study}.txt"] = f"report of {study}".encode()
            for view in range(2):
                image = f"{study}-{view}"
                path = f"{folder}/s{study}/{image}.dcm"
                records.append(f"{patient},{study},{image},{path}")
                files[path] = random.Random(image).randbytes(5_000)
    files["cxr-record-list.csv.gz"] = packed("\n".join(records) + "\n")
    files["cxr-study-list.csv.gz"] = packed("\n".join(studies) + "\n")
    return physionet.with_sums(files)


RELEASE = _release()
PROJECT = "mimic-cxr/2.1.0"
LOGIN = {"PHYSIONET_USERNAME": USER, "PHYSIONET_PASSWORD": PASSWORD}


def source_of(
    site: physionet.PhysioNet, home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str] | None = None,
    project: str = PROJECT, **options: Any,
) -> Source:  # fmt: skip
    monkeypatch.setenv("CXRPREP_PHYSIONET_URL", physionet.address(site))
    have = credentials(LOGIN if environment is None else environment, home)
    return open_source(f"physionet://{project}", SourceOptions(credentials=have, timeout=5, **options))


def images(source: Source) -> list[RemoteFile]:
    return [file for file in source.list() if file.key.endswith(".dcm")]


# ---- sessions ----


def test_one_password_hash_for_many_files_and_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}, hash_seconds=0.05) as site:
        source = source_of(site, tmp_path, monkeypatch)
        with closing(source), ThreadPoolExecutor(8) as pool:
            files = images(source) * 10
            for file, data in zip(files, pool.map(lambda f: content(source.open(f)), files), strict=True):
                assert data == RELEASE[file.key]
        assert site.hashes == 1


def test_threads_that_are_challenged_at_once_log_in_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}, hash_seconds=0.1) as site:
        source = source_of(site, tmp_path, monkeypatch)
        file = RemoteFile(next(key for key in RELEASE if key.endswith(".dcm")))
        with closing(source), ThreadPoolExecutor(8) as pool:
            assert len({*pool.map(lambda _: content(source.open(file)), range(16))}) == 1
        assert site.hashes == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_session_that_ran_out_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with physionet.serving({PROJECT: RELEASE}, stale=status) as site:
        source = source_of(site, tmp_path, monkeypatch)
        with closing(source):
            files = images(source)[:3]
            for file in files:
                site.expire()
                assert content(source.open(file, 100)) == RELEASE[file.key][100:]
        assert site.hashes == 1 + len(files)


def test_a_site_without_cookies_gets_the_password_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}, cookies=False) as site:
        source = source_of(site, tmp_path, monkeypatch)
        with closing(source):
            for file in images(source):
                assert content(source.open(file)) == RELEASE[file.key]


def test_a_browsers_session_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        site.sessions["fromthebrowser"] = float("inf")
        cookies = tmp_path / "cookies.txt"
        cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsessionid\tfromthebrowser\n")
        source = source_of(site, tmp_path, monkeypatch, {}, cookie_file=str(cookies))
        with closing(source):
            file = images(source)[0]
            assert content(source.open(file)) == RELEASE[file.key]
            assert source.access().state is AccessState.GRANTED
            site.expire()
            with pytest.raises(AccessError, match="does not know the session") as caught:
                source.open(file)
            assert "export its cookies again" in caught.value.hint
        assert site.hashes == 0


# ---- refusals ----


def test_a_password_that_was_changed_meanwhile_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site, closing(source_of(site, tmp_path, monkeypatch)) as source:
        file, other = images(source)[:2]
        assert content(source.open(file)) == RELEASE[file.key]
        site.password = "another"
        site.expire()
        for _ in range(3):
            with pytest.raises(AccessError, match="rejects the login found in") as caught:
                source.open(other)
            assert "check user name and password there" in caught.value.hint


def test_a_wrong_password_and_an_unsigned_agreement_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        wrong = source_of(site, tmp_path, monkeypatch, {**LOGIN, "PHYSIONET_PASSWORD": "wrong secret"})
        with closing(wrong):
            with pytest.raises(AccessError, match="PHYSIONET_USERNAME, PHYSIONET_PASSWORD") as caught:
                [*wrong.list()]
            assert "wrong secret" not in f"{caught.value!r} {caught.value.hint}"
            assert wrong.access().state is AccessState.REJECTED
        site.unsigned.add(PROJECT)
        unsigned = source_of(site, tmp_path, monkeypatch)
        with closing(unsigned):
            with pytest.raises(AccessError, match="refuses mimic-cxr") as caught:
                [*unsigned.list()]
            assert f"{physionet.address(site)}/content/mimic-cxr/2.1.0/#files" in caught.value.hint
            assert "agreement" in caught.value.hint
            access = unsigned.access()
            assert (access.state, access.account) == (AccessState.UNSIGNED, USER)


@pytest.mark.parametrize("status", [401, 403])
def test_a_host_that_a_redirect_leads_to_refuses_in_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def refuse(request: Request) -> Reply:
        assert "authorization" not in request.headers
        return Reply(status, b"", {"WWW-Authenticate": "Basic"})

    with running(refuse) as other:
        there = f"http://127.0.0.1:{urllib.parse.urlsplit(other.url).port}/login"
        with running(lambda _: Reply(302, b"", {"Location": there})) as site:
            monkeypatch.setenv("CXRPREP_PHYSIONET_URL", f"http://localhost:{urllib.parse.urlsplit(site.url).port}")
            options = SourceOptions(credentials=credentials(LOGIN, tmp_path), timeout=5)
            with (
                closing(open_source(f"physionet://{PROJECT}", options)) as source,
                pytest.raises(AccessError, match=r"127\.0\.0\.1") as found,
            ):
                source.open(RemoteFile("x.dcm"))
    assert "PhysioNet" not in found.value.message


def test_without_a_login_the_advice_says_where_to_put_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        source = source_of(site, tmp_path, monkeypatch, {})
        with closing(source):
            with pytest.raises(AccessError, match="wants a login") as caught:
                [*source.list()]
            assert ".netrc" in caught.value.hint
            assert source.access().state is AccessState.MISSING


def test_an_agent_that_the_site_does_not_serve_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        source = source_of(site, tmp_path, monkeypatch, user_agent="curl/8.0")
        with closing(source), pytest.raises(AccessError, match=r"user agent 'curl/8\.0'") as caught:
            [*source.list()]
        assert "--user-agent" in caught.value.hint
        mine = source_of(site, tmp_path, monkeypatch, user_agent="Wget/1.24.5")
        with closing(mine):
            assert images(mine)


def test_a_project_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        source = source_of(site, tmp_path, monkeypatch, project="mimic-cxr/9.9.9")
        with closing(source):
            with pytest.raises(NotInSourceError):
                [*source.list()]
            assert source.access().state is AccessState.UNKNOWN
    with pytest.raises(UsageError, match="names no project"):
        open_source("physionet://mimic-cxr", SourceOptions())


# ---- listings ----


def test_the_sums_are_the_listing_and_are_kept_while_they_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        for _ in range(2):
            source = source_of(site, tmp_path, monkeypatch)
            with closing(source):
                files = {file.key: file for file in source.list()}
            assert set(files) == set(RELEASE)
            for key, data in RELEASE.items():
                if key != "SHA256SUMS.txt":
                    assert files[key].digest == Digest("sha256", digest_of(data, "sha256"))
        assert site.server is not None
        gets = [r for r in site.server.seen if r.method == "GET" and r.path.endswith("SHA256SUMS.txt")]
        assert len(gets) == 1, "read once, kept for as long as its ETag is the same"
        assert not any(request.path.endswith("/") for request in site.server.seen), "no folder page is ever asked for"


def test_the_list_goes_on_where_it_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: RELEASE}, statuses=[503, 0, 0, 503]) as site:
        source = source_of(site, tmp_path, monkeypatch)
        with closing(source):
            assert {file.key for file in source.list()} == set(RELEASE)


def test_a_list_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with physionet.serving({PROJECT: {**RELEASE, "SHA256SUMS.txt": b"files moved\n"}}) as site:
        source = source_of(site, tmp_path, monkeypatch)
        with closing(source), pytest.raises(SourceUnreachableError, match=r"line 1 of .* is not a checksum"):
            [*source.list()]


@pytest.mark.parametrize(
    ("selection", "studies"),
    [
        (Selection(patients=frozenset({"p10000032"})), ("50414267", "53189527")),
        (Selection(patients=frozenset({"10000764"})), ("57375967",)),
        (Selection(studies=frozenset({"s53189527"})), ("53189527",)),
        (Selection(studies=frozenset({"p10000764/s57375967"})), ("57375967",)),
        (Selection(images=frozenset({"50000001-1"})), ("50000001",)),
    ],
)
def test_a_selection_by_id_asks_the_record_list_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: Selection, studies: tuple[str, ...]
) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site:
        known = (RemoteFile("cxr-record-list.csv.gz"), RemoteFile("cxr-study-list.csv.gz"))
        source = source_of(site, tmp_path, monkeypatch, known=known)
        with closing(source):
            assert isinstance(source, Selective)
            keys = {file.key for file in source.list_wanted(selection)}
        assert site.server is not None
        gets = [r for r in site.server.seen if r.method == "GET" and r.path.endswith("SHA256SUMS.txt")]
        assert gets == [], "77 MB for a few files"
    paths = {key for key in RELEASE if any(f"/s{study}" in key for study in studies)}
    if selection.images:
        paths = {key for key in paths if key.endswith((".txt", "-1.dcm"))}
    assert keys == paths | {file.key for file in known}


def test_a_project_without_a_record_list_is_listed_by_its_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = physionet.with_sums({"files/p10/p10000032/s50414267/a.jpg": b"x"})
    with physionet.serving({"mimic-cxr-jpg/2.1.0": release}) as site:
        source = source_of(site, tmp_path, monkeypatch, project="mimic-cxr-jpg/2.1.0")
        with closing(source):
            assert isinstance(source, Selective)
            keys = {file.key for file in source.list_wanted(Selection(patients=frozenset({"10000032"})))}
    assert keys == set(release)


_ROWS = b"subject_id,study_id,dicom_id,path\n"
BROKEN_LISTS = {
    "refused": Reply(403),
    "not allowed": Reply(405),
    "a page": Reply(200, b"<html>sign in", {"Content-Type": "text/html"}),
    "not compressed": Reply(200, _ROWS),
    "cut": Reply(200, packed("\n".join(str(n) for n in range(2_000)))[:900]),
    "damaged": Reply(200, gzip.compress(_ROWS)[:-8] + bytes(8)),
    "no text": Reply(200, gzip.compress(b"\xff\xfe\xfa" * 99)),
    "other columns": Reply(200, packed("patient,file\n10000032,x\n")),
    "nothing": Reply(200, packed("")),
    "a line that is cut": Reply(200, gzip.compress(_ROWS + b"10000032,50414267\n")),
    "an endless field": Reply(200, gzip.compress(_ROWS + b'"' + b"x" * 200_000 + b'",1,2,3\n')),
}


@pytest.mark.parametrize("kind", BROKEN_LISTS)
def test_a_record_list_that_cannot_be_had_or_read_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It only saves a longer list: without it that is asked, and no file of the selection is left out."""
    # As a program of its own has it: readers of tables raise it.
    csv.field_size_limit(131_072)
    with physionet.serving({PROJECT: RELEASE}) as site:
        assert site.server is not None
        app = site.server.app
        site.server.app = lambda r: BROKEN_LISTS[kind] if r.path.endswith("cxr-record-list.csv.gz") else app(r)
        with closing(source_of(site, tmp_path, monkeypatch)) as source:
            assert isinstance(source, Selective)
            keys = {file.key for file in source.list_wanted(Selection(patients=frozenset({"10000032"})))}
    assert keys == set(RELEASE)


@pytest.mark.parametrize("status", [403, 404, 405, 418, 500, 503])
def test_a_mirror_that_refuses_head_alone_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with physionet.serving({PROJECT: RELEASE}) as site, stamina.set_testing(True, attempts=2):
        assert site.server is not None
        app = site.server.app
        site.server.app = lambda request: Reply(status) if request.method == "HEAD" else app(request)
        with closing(source_of(site, tmp_path, monkeypatch)) as source:
            assert {file.key for file in source.list()} == set(RELEASE)


# ---- the real server in front of the site ----


def test_against_nginx_with_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "files"
    for key, data in RELEASE.items():
        path = root / "mimic-cxr/2.1.0" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with nginx.serving(root, tmp_path / "nginx", start="/files/", login=True) as server:
        netrc = tmp_path / ".netrc"
        netrc.write_text(f'machine 127.0.0.1 login {nginx.USER} password "{nginx.PASSWORD}"\n')
        netrc.chmod(0o600)
        monkeypatch.setenv("CXRPREP_PHYSIONET_URL", server.address)
        options = SourceOptions(credentials=credentials({}, tmp_path), timeout=5)
        with closing(open_source("physionet://mimic-cxr/2.1.0", options)) as source:
            assert source.access().state is AccessState.GRANTED
            for file in images(source):
                data = RELEASE[file.key]
                assert content(source.open(file)) == data
                stream = source.open(file, 1_234)
                assert (stream.offset, stream.length) == (1_234, len(data))
                assert content(stream) == data[1_234:]
            with pytest.raises(NotInSourceError):
                source.open(RemoteFile("files/p10/nothing.dcm"))
        # The same folder as any mirror with folder pages, which asks for the agent that the rule knows.
        options = SourceOptions(credentials=credentials({}, tmp_path), timeout=5, user_agent="Wget/1.21")
        with closing(open_source(f"{server.address}/files/mimic-cxr/2.1.0/", options)) as mirror:
            assert {file.key for file in mirror.list("files/p10")} == {k for k in RELEASE if k.startswith("files/p10")}
        seen = server.seen()
    asked = [(words[0], words[2]) for words in seen if words[1] == "GET" and "mimic-cxr" in words[2]]
    assert ("206", f"/files/mimic-cxr/2.1.0/{next(k for k in RELEASE if k.endswith('.dcm'))}") in asked
