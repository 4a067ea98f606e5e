"""Bearer tokens of web servers: where they are found, the one host that gets them, and what a refusal says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrprep.config.settings import load_settings
from cxrprep.credentials.lookup import Credentials, token_variable
from cxrprep.errors import AccessError
from cxrprep.model import RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Source, SourceOptions
from tests.servers.loopback import Reply, Request, Server, object_reply, page, running
from tests.sources.contract import content, shows

TOKEN = "hf_hunter2secret"
VARIABLE = "CXRPREP_TOKEN_127_0_0_1"


def mirror(request: Request) -> Reply:
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return Reply(401, b"", {"WWW-Authenticate": 'Bearer realm="mirror"'})
    if request.path == "/":
        return page('<a href="x.png">x.png</a>')
    return object_reply(request, b"image") if request.path == "/x.png" else Reply(404)


@pytest.fixture
def server() -> Iterator[Server]:
    with running(mirror) as server:
        yield server


def source_of(url: str, home: Path, **environment: str) -> Source:
    have = Credentials(environment={"CXRPREP_KEYRING": "0", **environment}, home=home)
    return open_source(f"{url}/", SourceOptions(credentials=have, timeout=5))


def test_a_variable_a_file_and_netrc_hold_a_token(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    for environment in ({VARIABLE: TOKEN}, {VARIABLE: str(tmp_path / "token")}, {VARIABLE.lower(): TOKEN}, {}):
        if not environment:
            (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login bearer password {TOKEN}\n")
        source = source_of(server.url, tmp_path, **environment)
        (file,) = source.list()
        assert (file.key, file.size) == ("x.png", 5)
        assert content(source.open(file, 1)) == b"mage"
        assert source.access().state is AccessState.OPEN
        assert TOKEN not in f"{source!r} {vars(source)!r}"
        source.close()
    # The file's own 404s aside, nobody was asked in vain.
    assert not any("authorization" not in request.headers for request in server.seen)


@pytest.mark.parametrize(
    "pasted", [f'"{TOKEN}"', f"Bearer {TOKEN}", f"authorization: bearer  {TOKEN}\n", f"\ufeff{TOKEN}"]
)
def test_a_token_is_found_in_what_people_paste(tmp_path: Path, pasted: str) -> None:
    have = Credentials(environment={"CXRPREP_KEYRING": "0", VARIABLE: pasted, "HF_TOKEN": pasted}, home=tmp_path)
    for token in (have.bearer("127.0.0.1"), have.hugging_face()):
        assert token is not None
        assert token.secret.reveal() == TOKEN


def test_each_host_has_a_variable_of_its_own() -> None:
    assert token_variable("mirror.example.org") == "CXRPREP_TOKEN_MIRROR_EXAMPLE_ORG"
    assert token_variable("x-ray.example.org") == "CXRPREP_TOKEN_X__RAY_EXAMPLE_ORG"
    assert token_variable("x.ray.example.org") != token_variable("x-ray.example.org")


def test_no_other_host_gets_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login bearer password {TOKEN}\n")
    with running(lambda request: Reply(200, b"elsewhere")) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        server.app = lambda request: Reply(302, b"", {"Location": f"{there}/x"})
        assert content(source_of(server.url, tmp_path).open(RemoteFile("x.png"))) == b"elsewhere"
        # Another port of the same host is another server.
        server.app = lambda request: Reply(302, b"", {"Location": f"{other.url}/x"})
        assert content(source_of(server.url, tmp_path).open(RemoteFile("x.png"))) == b"elsewhere"
        assert not any("authorization" in request.headers for request in other.seen)


def test_a_token_is_no_password(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login bearer password {TOKEN}\n")
    server.app = lambda request: Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
    with pytest.raises(AccessError, match="rejects the token") as caught:
        source_of(server.url, tmp_path).open(RemoteFile("x.png"))
    assert TOKEN not in shows(caught.value)
    assert {request.headers["authorization"] for request in server.seen} == {f"Bearer {TOKEN}"}


def test_without_one_the_challenge_says_how_to_give_it(server: Server, tmp_path: Path) -> None:
    with pytest.raises(AccessError) as caught:
        [*source_of(server.url, tmp_path).list()]
    assert f"set {VARIABLE}" in caught.value.hint
    # A user name and a password are not for such a server.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password hunter2\n")
    with pytest.raises(AccessError, match="Bearer") as caught:
        [*source_of(server.url, tmp_path).list()]
    assert "CXRPREP_TOKEN_" in caught.value.hint
    assert not any("authorization" in request.headers for request in server.seen)


def test_it_is_not_sent_in_the_open(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    source = source_of("http://mirror.example.org", tmp_path, CXRPREP_TOKEN_MIRROR_EXAMPLE_ORG=TOKEN)
    with pytest.raises(AccessError) as caught:
        [*source.list()]
    assert "https://" in caught.value.hint
    assert [request.headers["host"] for request in server.seen] == ["mirror.example.org"]
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize("bad", ["two words", "line\nX-Evil: 1", "naïve"])
def test_what_is_no_token_is_said_and_not_shown(tmp_path: Path, bad: str) -> None:
    with pytest.raises(AccessError, match=VARIABLE) as caught:
        source_of("http://127.0.0.1:9", tmp_path, **{VARIABLE: bad})
    assert bad not in shows(caught.value)


def test_no_child_inherits_a_stores_secrets_unless_the_run_is_about_stores() -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "HF_TOKEN")
    program = (
        "import os, sys\nfrom cxrprep.credentials.secret import return_store_secrets, withdraw\n"
        "from cxrprep.credentials.lookup import Credentials\nnames = sys.argv[1:]\nwithdraw()\n"
        "print([name for name in names if name in os.environ], Credentials(keyring=False).aws())\n"
        "return_store_secrets()\nprint([name for name in names if name in os.environ])"
    )
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "AKIA", **dict.fromkeys(names, "hunter2secret")}
    words = [sys.executable, "-c", program, *names]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("[] (Secret(")
    assert "hunter2secret" not in first
    assert second == str([*names[:3]])


def test_no_child_inherits_it_and_no_setting_is_meant(tmp_path: Path) -> None:
    program = (
        "import os\nfrom cxrprep.credentials.secret import withdraw\n"
        "from cxrprep.credentials.lookup import Credentials\n"
        "withdraw(); print(os.environ.get('CXRPREP_TOKEN_A_B'), Credentials(keyring=False).bearer('a.b').origin)"
    )
    env = {**os.environ, "CXRPREP_TOKEN_A_B": TOKEN}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "None CXRPREP_TOKEN_A_B\n"
    loaded = load_settings(folder=tmp_path, environment={"CXRPREP_TOKEN_A_B": TOKEN})
    assert not any("TOKEN" in note for note in loaded.notes)
