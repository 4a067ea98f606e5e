"""Folder pages with odd names, of the servers themselves where they are here, and in the forms that they write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxrprep.errors import SourceNotFoundError
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.index_pages import read_page
from tests.servers import nginx, web_servers
from tests.servers.loopback import Reply, Request, object_reply, running
from tests.sources.contract import content

# A name that is no UTF-8 has its other bytes as %E9 in the listing, and keeps its own address.
ODD = {
    name.encode(): name
    for name in (
        "a b.png", "a%b.png", "a%20b.png", "a#b.png", "a?b.png", "a&b.png", "a&amp;b.png", 'a"b.png', "a'b.png",
        "a<b>.png", "é.png", "数据.png", "a;b.png", "a+b.png", "a=b.png", "http:x.png", "C=N;O=D", "?C=N;O=D.png",
        "view1_frontal_with_a_name_that_is_cut.jpg", "a\\b.png", "..dots.png", ".hidden.png",
        "a:b.png", "[br]{br}^`|.png",
        '<a href="x">.png', "mailto:a@b.png", "Parent Directory", "index of.png",
    )
} | {b"caf\xe9.json": "caf%E9.json"}  # fmt: skip
FOLDERS = {name.encode(): name for name in ("d ir", "d%dir", "d#ir", "d?ir", "é", "d&ir", "C=S;O=A")} | {
    b"d\xe9p": "d%E9p"
}
WANTED = {text: name for name, text in ODD.items()} | {
    f"{folder}/{text}": name for name, text in list(ODD.items())[:4] for folder in FOLDERS.values()
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd") / "root"
    for folder in (b"", *FOLDERS):
        place = root / os.fsdecode(folder)
        place.mkdir(parents=True)
        for name in list(ODD)[:4] if folder else ODD:
            (place / os.fsdecode(name)).write_bytes(name)
    (root / "d ir/up").symlink_to("..")
    (root / "d ir/self").symlink_to(".")
    return root


@contextmanager
def served(name: str, root: Path, work: Path) -> Iterator[str]:
    if not name.startswith("nginx"):
        with web_servers.serving(name, root, work) as url:
            yield url
        return
    more = {"nginx-rounded": "autoindex_exact_size off;", "nginx-json": "autoindex_format json;"}
    more["nginx-xml"] = "autoindex_format xml;"
    with nginx.serving(root, work, start="/mirror/", more=more.get(name, "")) as server:
        yield server.url


@pytest.mark.parametrize("name", ["nginx", "nginx-rounded", "nginx-json", "nginx-xml", *web_servers.SERVERS])
def test_a_server_shows_every_file_and_gives_it(name: str, root: Path, tmp_path: Path) -> None:
    hidden = name.startswith("nginx")
    wanted = {text: data for text, data in WANTED.items() if not (hidden and text.startswith("."))}
    with served(name, root, tmp_path / "work") as url:
        source = open_source(url, SourceOptions(timeout=10))
        files = {file.key: file for file in source.list()}
        assert {key: content(source.open(file)) for key, file in files.items()} == wanted
        assert all(file.size in (None, len(wanted[key])) for key, file in files.items())
        assert source.holes == []  # type: ignore[attr-defined]  # an HttpSource has them
        source.close()


def names(page: str | bytes, base: str = "http://host/m/") -> list[tuple[str, bool]] | None:
    body = page if isinstance(page, bytes) else page.encode()
    entries = read_page(body, "text/html", base)
    return None if entries is None else [(entry.name, entry.folder) for entry in entries]


def test_only_what_lies_directly_below_is_an_entry() -> None:
    page = """<html><title>Index of /m/</title>
    <a href="?C=N;O=D">Name</a> <a href="?C=M&amp;O=A">Last</a> <a href="/m/?sort=size">Size</a> <a href="#top">Top</a>
    <a href="../">Parent Directory</a> <a href="/">Home</a> <a href="..">up</a> <a href="./">here</a> <a href="">-</a>
    <a href="http://host/m/absolute.png">absolute</a> <a href="//host/m/without-scheme.png">x</a>
    <a href="/m/from-root.png">cut_na..&gt;</a> <a href="./dot.png">x</a> <A HREF='sub'>sub</A>
    <a href=bare.png>bare</a> <a href="sub2/">sub2/</a> <a href="sub/deep.png">deep</a> <a href="/other/x.png">x</a>
    <a href="../m/back.png">back</a> <a href="http://elsewhere/m/x.png">elsewhere</a> <a href="mailto:a@b">mail</a>
    <a href="javascript:x()">js</a> <a href="%2e%2e/">up</a> <a href="%2E%2E%2Fetc">out</a>
    <a href="a%2Fb.png">slash</a> <a href="twice.png">1</a> <a href="twice.png">2</a></html>"""
    found = names(page)
    assert found is not None
    assert found == [
        ("absolute.png", False), ("without-scheme.png", False), ("from-root.png", False), ("dot.png", False),
        ("sub", False), ("bare.png", False), ("sub2", True), ("back.png", False), ("twice.png", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "base"),
    [
        ("<base href='/'><a href='m/a.png'>a</a><a href='b.png'>b</a>", "http://host/m/"),
        ("<base href='http://host/other/'><a href='../m/a.png'>a</a>", "http://host/m/"),
        ("<a data-href='/x' href='a.png'>a</a>", "http://host/m/"),
        ("<a title='a > b' href='a.png'>a</a>", "http://host/m/"),
        ("<!-- <a href='old.png'>old</a> --><a href='a.png'>a</a>", "http://host/m/"),
        ("<li><a href='a.png'>a<li><a href='../'>up", "http://host/m/"),
        ("<a href='HTTP://HOST:80/m/a.png'>a</a>", "http://host/m/"),
        ("<a href=' a.png '>a</a>", "http://host/m/"),
        ("<a href='http://host/m/a.png'>a</a><a href='http://host:8080/m/b.png'>b</a>", "https://host/m/"),
        ("<a href='a.png'>a</a>", "http://host/m/index.html"),
        ("<a href='/m//a.png'>a</a>", "http://host/m/"),
        ("<a href='/m/a.png'>a</a>", "http://host//m//"),
        ('[{"name": "a.png", "is_dir": false}]', "http://host/m/"),
    ],
)
def test_links_are_read_as_browsers_do(page: str, base: str) -> None:
    kind = "application/json" if page.startswith("[") else "text/html"
    found = read_page(page.encode(), kind, base)
    assert [(entry.name, entry.folder) for entry in found or ()] == [("a.png", False)]


def test_a_folder_of_caddys_json_needs_no_slash() -> None:
    page = b'[{"name": "train", "size": 4096, "is_dir": true}]'
    assert [(e.name, e.folder, e.size) for e in read_page(page, "application/json", "http://h/") or ()] == [
        ("train", True, None)
    ]


def test_the_size_is_behind_the_last_link_to_a_file() -> None:
    page = b'<a href="a.png"><img src="i.gif"></a> <a href="a.png">a.png</a> 2026-01-02 03:04   12\n'
    assert [(e.name, e.size) for e in read_page(page, "text/html", "http://h/") or ()] == [("a.png", 12)]


def test_a_link_that_is_no_address_does_not_hide_the_others() -> None:
    page = b'<pre><a href="http://[x/">x</a>\n<a href="//a:b:c">y</a>\n<a href="a.png">a.png</a>\n'
    assert [entry.name for entry in read_page(page, "text/html", "http://host.test/") or ()] == ["a.png"]


def test_an_empty_folder_is_one_and_a_home_page_is_none() -> None:
    assert names("<html><title>Index of /m/</title><a href='../'>../</a></html>") == []
    assert names("<html><h1>Welcome</h1><a href='https://example.org/'>us</a></html>") is None
    assert names(b"<?xml version='1.0'?>\r\n<list>\r\n</list>\r\n") == []
    go = '<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n</pre>\n'
    assert names(go) == []
    iis = "<title>host - /m/</title><pre><A HREF='/'>[To Parent Directory]</A><br><br></pre>"
    assert names(iis) == []


def test_sizes_are_taken_where_they_are_exact() -> None:
    page = b"""<pre><a href="a.png">a.png</a>      02-Jan-2026 03:04      1234
<a href="b.png">b.png</a>      2026-01-02 03:04  1.2K
<a href="d/">d/</a>      02-Jan-2026 03:04      4096</pre>"""
    entries = read_page(page, "text/html", "http://host/")
    assert entries is not None
    assert [(entry.name, entry.size) for entry in entries] == [("a.png", 1234), ("b.png", None), ("d", None)]


def test_folders_in_folders_without_an_end_are_refused() -> None:
    def app(request: Request) -> Reply:
        text = f"<html>Index of <a href='a{len(request.path)}/'>a</a>"
        return Reply(200, text.encode(), {"Content-Type": "text/html"}) if request.path.endswith("/") else Reply(404)

    with running(app) as server, pytest.raises(SourceNotFoundError, match="without an end"):
        list(open_source(server.url, SourceOptions(timeout=5)).list())


def test_folders_without_an_end_beside_the_release_are_a_hole() -> None:
    def app(request: Request) -> Reply:
        names = ["a.png"] if request.path == "/images/" else [f"a{len(request.path)}/"]
        names += ["images/"] if request.path == "/" else []
        text = "".join(f"<a href='{name}'>{name}</a>" for name in names)
        body = f"<html>Index of {text}</html>".encode()
        return Reply(200, body, {"Content-Type": "text/html"}) if request.path.endswith("/") else Reply(200, b"x")

    with running(app) as server:
        source = open_source(server.url, SourceOptions(timeout=5))
        assert [file.key for file in source.list()] == ["images/a.png"]
        assert [error.message[:7] for error in source.holes] == ["a1/a4/a"]  # type: ignore[attr-defined]  # of HttpSource


def test_folder_links_without_a_slash_are_asked_what_they_are() -> None:
    files = {"/release v1/train/x.png": b"x", "/LICENSE": b"terms"}

    def app(request: Request) -> Reply:
        pages = {"/": ["release v1", "LICENSE"], "/release v1/": ["train"], "/release v1/train/": ["x.png"]}
        if request.path + "/" in pages:
            return Reply(301, b"", {"Location": request.path.replace(" ", "%20") + "/"})
        if request.path in pages:
            text = "".join(f"<a href='{name.replace(' ', '%20')}'>{name}</a>" for name in pages[request.path])
            return Reply(200, f"<html>Index of {text}</html>".encode(), {"Content-Type": "text/html"})
        data = files.get(request.path)
        return Reply(404) if data is None else object_reply(request, data)

    with running(app) as server:
        source = open_source(server.url, SourceOptions(timeout=5))
        found = {file.key: content(source.open(file)) for file in source.list()}
    assert found == {path[1:]: data for path, data in files.items()}
