"""Mirrors with a fault in one place: the files of all other places are listed, and what is left out is said."""

from __future__ import annotations

import gzip
import threading
import urllib.parse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import stamina

import cxrprep
from cxrprep.errors import AccessError, CxrprepError, ExitCode, SourceNotFoundError, SourceUnreachableError
from cxrprep.events import Event, Note
from cxrprep.model import RemoteFile
from cxrprep.sources import open_source, retry
from cxrprep.sources.base import AccessState, SourceOptions
from cxrprep.sources.index_pages import read_page
from cxrprep.sources.urls import behind
from tests.servers import loopback, raw_http
from tests.servers.loopback import Reply, Request, object_reply
from tests.servers.raw_http import answer
from tests.sources.contract import content

IMAGE = "images/00000001_000.png"


def _listing(names: list[str]) -> Reply:
    links = "".join(f'<a href="{name}">{name}</a> 01-Jan-2026 10:00 4.9K\n' for name in names)
    body = f"<html><body><h1>Index of /</h1><pre>{links}</pre></body></html>"
    return Reply(200, body.encode(), {"Content-Type": "text/html"})


def _keys(app: Callable[[Request], Reply]) -> tuple[list[str], list[CxrprepError]]:
    with loopback.running(app) as server, closing(open_source(server.url, SourceOptions(timeout=5))) as source:
        return [file.key for file in source.list()], list(source.holes)  # type: ignore[attr-defined]  # of HttpSource


def _tree(request: Request, pages: dict[str, list[str]], **refused: int) -> Reply:
    path = request.path[1:]
    if path.rstrip("/") in refused:
        return Reply(refused[path.rstrip("/")])
    if path in pages:
        return _listing(pages[path])
    return Reply(200, b"data") if path.endswith(".png") else Reply(404)


@pytest.mark.parametrize("page", ["index.html", "index.php", "list of files.htm", "Listing.ASPX"])
def test_the_page_of_a_folder_is_that_folder(page: str) -> None:
    """Also where the folder itself shows nothing, as a store of static pages does."""

    def app(request: Request) -> Reply:
        pages = {page: ["images/"], "images/": ["00000001_000.png"]}
        return _tree(request, pages)

    with loopback.running(app) as server:
        url = f"{server.url}/{urllib.parse.quote(page)}"
        with closing(open_source(url, SourceOptions(timeout=5))) as source:
            (file,) = source.list()
            assert file.key == IMAGE
            assert content(source.open(file)) == b"data"
            assert source.access().state is AccessState.OPEN


def test_a_plan_says_what_could_not_be_listed(tmp_path: Path) -> None:
    notes: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    pages = {"": ["images/", "shut/"], "images/": ["00000001_000.png"]}
    with loopback.running(lambda request: _tree(request, pages, shut=403)) as server:
        made = cxrprep.plan("nih-chestxray14", tmp_path, source=server.url, on_event=hear)
    assert [item.dest for item in made.value if item.dest.endswith(".png")] == [IMAGE]
    assert [message for message in notes if message.startswith("shut/")]


@pytest.mark.parametrize("status", [400, 405, 406, 500, 501, 503])
def test_a_server_that_refuses_head_is_a_mirror(status: int) -> None:
    def app(request: Request) -> Reply:
        pages = {"": ["images/"], "images/": ["00000001_000.png", "00000002_000.png"]}
        return Reply(status) if request.method == "HEAD" else _tree(request, pages)

    assert _keys(app) == ([IMAGE, "images/00000002_000.png"], [])


@pytest.mark.parametrize(
    "top", [Reply(403), Reply(404), Reply(405), Reply(501), Reply(204), loopback.page("Welcome <a href=about>")]
)
def test_a_list_of_checksums_is_enough_whatever_the_first_page_is(top: Reply) -> None:
    """nginx answers 403 for a folder where autoindex is off."""
    sums = f"{'a' * 64}  {IMAGE}\n".encode()

    def app(request: Request) -> Reply:
        return {"/": top, "/SHA256SUMS.txt": Reply(200, sums), f"/{IMAGE}": Reply(200, b"data")}.get(
            request.path, Reply(404)
        )

    keys, holes = _keys(app)
    assert (keys[0], holes) == (IMAGE, [])


@pytest.mark.parametrize("status", [401, 403, 405])
def test_a_first_page_that_is_refused_is_the_reason_where_nothing_else_is_there(status: int) -> None:
    with pytest.raises(CxrprepError, match=str(status)):
        _keys(lambda request: Reply(status if request.path == "/" else 404))


def test_an_entry_of_a_page_that_is_none_leaves_the_others() -> None:
    body = b'[{"type": "file"}, null, {"name": 3}, {"name": "a.png", "type": "file", "size": 5}]'
    entries = read_page(body, "application/json", "http://a.test/")
    assert entries is not None
    assert [(entry.name, entry.size) for entry in entries] == [("a.png", 5)]
    assert read_page(b'[{"id": 1}]', "application/json", "http://a.test/") is None
    assert read_page(b"[]", "application/json", "http://a.test/") == []


@pytest.mark.parametrize("status", [400, 405, 406, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_refuses_head_is_asked_for_a_byte(status: int, ranges: bool) -> None:
    """Of a mirror without pages the catalog's files are asked for: a refusal of the method says nothing of them."""

    def app(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(status)
        if request.path not in ("/a.csv", "/empty.csv"):
            return Reply(404)
        whole = Reply(200, b"" if "empty" in request.path else bytes(90_000))
        return loopback.object_reply(request, whole.body, {"Content-MD5": "AA=="}) if ranges else whole

    known = tuple(RemoteFile(name) for name in ("a.csv", "empty.csv", "gone.csv"))
    with (
        loopback.running(app) as server,
        closing(open_source(server.url, SourceOptions(timeout=5, known=known))) as source,
    ):
        assert source.access().state is AccessState.UNKNOWN
        listed = [*source.list()]
        assert [(file.key, file.size, file.digest) for file in listed] == [
            ("a.csv", 90_000, None),
            ("empty.csv", 0, None),
        ]
        assert sum(request.method == "HEAD" for request in server.seen) == 1


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_of_head_is_asked_again_by_get_once(status: int) -> None:
    """Box's links say 404 to HEAD, and filters before a server 403."""
    seen: list[tuple[str, str]] = []

    def app(request: Request) -> Reply:
        seen.append((request.method, request.path))
        there = request.path in ("/a.zip", "/b.zip") and request.method == "GET"
        return object_reply(request, b"data") if there else Reply(status)

    known = tuple(RemoteFile(name) for name in ("a.zip", "b.zip", "c.zip", "d.zip"))
    with loopback.running(app) as server:
        with closing(open_source(server.url, SourceOptions(timeout=5, known=known))) as source:
            assert [(file.key, file.size) for file in source.list()] == [("a.zip", 4), ("b.zip", 4)]
        with closing(open_source(f"{server.url}/a.zip", SourceOptions(timeout=5))) as source:
            assert source.access().state is AccessState.OPEN
    assert [method for method, path in seen if path == "/b.zip"] == ["GET"]


def test_a_length_of_nothing_in_answer_to_head_is_none() -> None:
    def app(request: Request) -> Reply:
        return Reply(200, b"data" if request.method == "GET" else b"")

    with (
        loopback.running(app) as server,
        closing(open_source(f"{server.url}/a.zip", SourceOptions(timeout=5))) as source,
    ):
        assert [(file.key, file.size) for file in source.list()] == [("a.zip", None)]


@pytest.mark.parametrize("stated", [{"ETag": '"a"'}, {"Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}, {}])
def test_a_length_in_answer_to_head_is_that_of_a_file_where_the_answer_identifies_one(stated: dict[str, str]) -> None:
    """Some servers answer all such questions alike, with the length of a page that nobody sees."""
    with (
        loopback.running(lambda request: Reply(200, b"x" * 4_321, stated)) as server,
        closing(open_source(f"{server.url}/a.zip", SourceOptions(timeout=5))) as source,
    ):
        assert [(file.key, file.size) for file in source.list()] == [("a.zip", 4_321 if stated else None)]


def test_a_mirror_that_says_nothing_of_its_files_may_have_all_of_them() -> None:
    known = (RemoteFile("a.csv"), RemoteFile("b.csv"))
    app = loopback.running(lambda request: Reply(500 if request.method == "HEAD" else 404))
    options = SourceOptions(timeout=5, known=known)
    with app as server, closing(open_source(server.url, options)) as source, stamina.set_testing(True, attempts=2):
        assert [*source.list()] == [*known]


def test_no_silence_is_waited_for_twice_where_an_answer_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_LONG_SECONDS", 0.5)

    def app(request: Request) -> Reply:
        if request.method == "HEAD":
            over.wait(10)
        return _tree(request, {"": ["images/"], "images/": [IMAGE[7:]]})

    over = threading.Event()
    with loopback.running(app) as server, closing(open_source(server.url, SourceOptions(timeout=1))) as source:
        assert [file.key for file in source.list()] == [IMAGE]
        over.set()
        assert sum(request.method == "HEAD" for request in server.seen) == 1


@pytest.mark.parametrize(
    "refused",
    [
        Reply(403),
        Reply(404),
        Reply(418),
        Reply(500),
        Reply(204),
        Reply(302),
        Reply(302, b"", {"Location": "ftp://127.0.0.1/"}),
        Reply(200, b"a", {"Content-Encoding": "zstd"}),
        Reply(200, b"<html>sign in", {"Content-Type": "text/html"}),
        Reply(200, b"<html>sign in", {"Content-Type": "text/plain"}),
    ],
)
def test_a_list_of_checksums_that_is_shown_and_refused_is_a_hole(refused: Reply) -> None:
    """Without a word, files that could have been proven would come unproven."""

    def app(request: Request) -> Reply:
        if request.path == "/SHA256SUMS.txt":
            return refused
        return _tree(request, {"": ["SHA256SUMS.txt", "images/"], "images/": [IMAGE[7:]]})

    keys, [hole] = _keys(app)
    assert set(keys) == {"SHA256SUMS.txt", IMAGE}
    assert hole.message.startswith("SHA256SUMS.txt: ")


@pytest.mark.parametrize(("end", "cut"), [("00" * 20, True), ("00" * 32, True), ("-- end of list", False), ("", False)])
def test_a_list_of_checksums_that_ends_within_a_line_is_no_list(end: str, cut: bool) -> None:
    """A whole digest without a name behind it, or a part of one: what the list would have named next is not known."""
    sums = Reply(200, f"{'ab' * 32}  {IMAGE}\n{end}".encode(), {"Content-Type": "text/plain"})
    pages = {"": ["SHA256SUMS.txt", "images/"], "images/": [IMAGE[7:]]}

    def app(request: Request) -> Reply:
        return sums if request.path == "/SHA256SUMS.txt" else _tree(request, pages)

    if cut:
        with pytest.raises(SourceUnreachableError, match="ends within a line"):
            _keys(app)
    else:
        assert set(_keys(app)[0]) == {"SHA256SUMS.txt", IMAGE}


def test_a_list_of_checksums_that_a_page_does_not_show_is_no_hole() -> None:
    """A page without sizes and folders, as Python's own server makes, is asked for every name that such a list has."""
    pages = {"": ["MD5SUMS", "a.png"]}
    sums = Reply(200, f"{'0' * 32}  a.png\n".encode())
    keys, holes = _keys(lambda request: sums if request.path == "/MD5SUMS" else _tree(request, pages))
    assert (sorted(keys), holes) == (["MD5SUMS", "a.png"], [])


def test_a_size_that_no_file_has_is_unknown() -> None:
    page = f'<pre><a href="a.png">a.png</a> 01-Jan-2026 10:00 {"9" * 30}\n'.encode()
    assert [entry.size for entry in read_page(page, "text/html", "http://host.test/") or ()] == [None]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le"])
def test_pages_and_lists_in_other_encodings_are_read(encoding: str) -> None:
    """PowerShell's > writes lists of checksums in UTF-16, IIS and old tools write pages in it."""
    name, digest, charset = "größe 数据.png", "ab" * 32, encoding.removesuffix("-sig")

    def app(request: Request) -> Reply:
        if request.path.endswith(".txt"):
            text = f"{digest} {IMAGE}\n".encode("utf-16" if "16" in encoding else encoding)
            return Reply(200, text, {"Content-Type": "text/plain"})
        links = {"/": ["SHA256SUMS.txt", "images/", "more/"], "/images/": [IMAGE[7:]], "/more/": [name]}[request.path]
        page = "<html><pre>" + "".join(f'<a href="{link}">{link}</a>\n' for link in links)
        return Reply(200, page.encode(encoding), {"Content-Type": f"text/html; charset={charset}"})

    with loopback.running(app) as server, closing(open_source(server.url, SourceOptions(timeout=5))) as source:
        files = {file.key: str(file.digest) for file in source.list()}
    assert files == {"SHA256SUMS.txt": "None", IMAGE: f"sha256:{digest}", f"more/{name}": "None"}


def test_a_name_in_a_list_that_is_no_utf8_is_asked_for_as_it_stands_there() -> None:
    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if path == "/SHA256SUMS.txt":
            connection.send(answer(f"{'ab' * 32}  größe.png\n".encode("latin-1")))
        else:
            connection.send(
                answer(b"data" if path == "/gr%F6%DFe.png" else b"", status="404 X" if path == "/" else "200 OK")
            )

    with raw_http.serving(app) as server, closing(open_source(server.url, SourceOptions(timeout=5))) as source:
        files = list(source.list())
        assert [file.key for file in files] == ["gr%F6%DFe.png"]
        assert content(source.open(files[0])) == b"data"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 500])
def test_one_folder_that_is_shut_does_not_end_the_listing(status: int) -> None:
    pages = {"": ["images/", "private/"], "images/": ["00000001_000.png"]}
    keys, holes = _keys(lambda request: _tree(request, pages, private=status))
    assert keys == [IMAGE]
    assert ["private" in hole.message for hole in holes] == [True]


@pytest.mark.parametrize(
    "page",
    [
        Reply(200, b"", {"Content-Type": "text/html"}),
        Reply(200, b'<form action="/login"><input name="password"></form>', {"Content-Type": "text/html"}),
        Reply(200, b'{"error": "not now"}', {"Content-Type": "application/json"}),
        Reply(200, gzip.compress(b"<pre>")[:-9], {"Content-Type": "text/html", "Content-Encoding": "gzip"}),
        Reply(302, b"", {"Location": "http://127.0.0.1:99999/"}),
    ],
    ids=["empty", "login form", "JSON", "damaged", "redirect"],
)
def test_a_folder_that_shows_no_list_is_said_by_name(page: Reply) -> None:
    """By its name at the beginning, since it counts where files of the release lie below the same name."""
    pages = {"": ["images/", "images2/"], "images/": ["00000001_000.png"]}
    keys, holes = _keys(lambda request: page if request.path == "/images2/" else _tree(request, pages))
    assert keys == [IMAGE]
    assert [hole.message.partition("/")[0] for hole in holes] == ["images2"]


def test_links_of_a_folder_that_moved_are_those_of_its_new_place() -> None:
    def app(request: Request) -> Reply:
        if request.path.startswith("/images/"):
            return Reply(301, b"", {"Location": request.path.replace("/images/", "/v2/images/")})
        pages = {"": ["images/"], "v2/images/": ["/v2/images/00000001_000.png"]}
        return _tree(request, pages)

    assert _keys(app) == ([IMAGE], [])


@pytest.mark.parametrize("place", ["http://localhost:1/", "http://127.0.0.1:1/"], ids=["host", "port"])
def test_a_folder_that_redirects_to_a_host_that_is_gone_does_not_end_the_listing(place: str) -> None:
    def app(request: Request) -> Reply:
        if request.path == "/":
            return _listing(["gone/", "a.png"])
        gone = Reply(302, b"", {"Location": place})
        return gone if request.path == "/gone/" else Reply(200, b"data")

    keys, holes = _keys(app)
    assert keys == ["a.png"]
    assert [hole.message.partition(":")[0] for hole in holes] == ["gone/"]


def test_where_all_is_shut_the_reason_is_the_error() -> None:
    with pytest.raises(AccessError, match="403"):
        _keys(lambda request: _tree(request, {"": ["images/"]}, images=403))


def test_a_link_to_a_folder_above_is_not_walked() -> None:
    def app(request: Request) -> Reply:
        path = request.path.replace("/images/again", "")
        return _tree(
            Request(request.method, path, {}, {}), {"": ["images/"], "images/": ["00000001_000.png", "again/"]}
        )

    assert _keys(app)[0] == [IMAGE]


def test_folders_without_a_slash_are_folders() -> None:
    def app(request: Request) -> Reply:
        if request.path == "/images":
            return Reply(302, b"", {"Location": "/images/"})
        return _tree(request, {"": ["images"], "images/": ["00000001_000.png"]})

    assert _keys(app)[0] == [IMAGE]


def test_a_mirror_that_does_not_exist_is_an_error_of_usage() -> None:
    with pytest.raises(SourceNotFoundError) as caught:
        _keys(lambda _: Reply(404))
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("https://physionet.org/files/mimic-cxr-jpg/2.1.0/files/p10/", "physionet://mimic-cxr-jpg/2.1.0/files/p10/"),
        ("https://physionet.org/files/mimic-cxr-jpg/2.1.0/SHA256SUMS.txt", "physionet://mimic-cxr-jpg/2.1.0"),
        ("http://physionet.org/files/mimic-cxr/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("https://PhysioNet.org/content/mimic-cxr/2.1.0/", "physionet://mimic-cxr/2.1.0"),
        ("https://physionet.org/content/mimic-cxr-jpg/2.1.0/?x=1", "physionet://mimic-cxr-jpg/2.1.0"),
        ("https://nihcc.box.com/v/ChestXray-NIHCC", "box://nihcc/ChestXray-NIHCC"),
        ("https://www.kaggle.com/datasets/o/n/data", "kaggle://o/n"),
        ("https://www.kaggle.com/datasets/o/n/versions/3/data?x=y", "kaggle://o/n/versions/3"),
        ("https://example.org/files/a/1.0/", "https://example.org/files/a/1.0/"),
    ],
)
def test_addresses_as_people_paste_them(address: str, source: str) -> None:
    assert behind(address) == source
