"""How peers fail, row by row: an 8 MB object, of which some of an old or of the same version is on disk already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxrprep.credentials.files import Login
from cxrprep.credentials.secret import Secret
from cxrprep.errors import ExitCode
from cxrprep.events import Note, Retrying
from cxrprep.transfer import partial_file
from cxrprep.transfer.options import TransferOptions
from cxrprep.transfer.retry import RetryPolicy
from tests.servers import raw_http
from tests.servers.faults import LOGIN_PAGE, FaultServer, Seen, serving
from tests.servers.raw_http import answer
from tests.transfer.runs import QUICK, download, image, leftovers, noise, tree, with_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from cxrprep.events import Event
    from cxrprep.transfer.result import TransferResult

PROJECT = Path(__file__).parents[2]
OBJECT = image(1)
BODY = noise(8_000_000)
OTHER = noise(8_000_000, 1)
HAVE = 3_000_000
# One attempt: whatever breaks ends the run, and leaves what came.
ONCE = TransferOptions(retry_policy=RetryPolicy(attempts=1))


def partly(root: Path, server: FaultServer, have: int = HAVE) -> None:
    """A first run that breaks off when ``have`` bytes are there."""
    server.faults.cut_after, server.faults.cuts = have, 1
    assert download(root, server.url, options=ONCE).exit_code == ExitCode.UNREACHABLE
    server.faults.cut_after = None
    assert tree(root) == {}
    assert len(leftovers(root)) == 2


def code(result: TransferResult) -> ExitCode:
    return result.exit_code


@pytest.mark.parametrize("sums", [False, True])
def test_remote_changed_meanwhile(tmp_path: Path, sums: bool) -> None:
    with serving(with_sums({OBJECT: BODY}) if sums else {OBJECT: BODY}) as server:
        partly(tmp_path, server)
        server.files = with_sums({OBJECT: OTHER}) if sums else {OBJECT: OTHER}
        assert code(download(tmp_path, server.url)) == 0
    assert tree(tmp_path) == {OBJECT: OTHER}
    assert leftovers(tmp_path) == []


def test_what_did_not_change_is_continued(tmp_path: Path) -> None:
    with serving({OBJECT: BODY}) as server:
        partly(tmp_path, server)
        before = server.sent
        assert download(tmp_path, server.url).size == len(BODY) - HAVE
        assert server.sent - before == len(BODY) - HAVE
        assert server.gets(OBJECT)[-1].headers["range"] == f"bytes={HAVE}-"
    assert tree(tmp_path) == {OBJECT: BODY}


def test_server_ignores_range(tmp_path: Path) -> None:
    with serving({OBJECT: BODY}) as server:
        partly(tmp_path, server)
        server.faults.ignore_range = True
        assert code(download(tmp_path, server.url)) == 0
    assert tree(tmp_path) == {OBJECT: BODY}


def _part(data: bytes, asked: str, most: int) -> bytes:
    first = int(asked.removeprefix("bytes=").partition("-")[0])
    end = min(first + most, len(data))
    place = f"Content-Range: bytes {first}-{end - 1}/{len(data)}"
    return answer(data[first:end], place, 'ETag: "a"', status="206 Partial Content")


# What a server sends to a request for the rest of a file of 400 kB, of which a third is here; "" closes the connection.
RESTS: dict[str, Callable[[bytes, str], bytes]] = {
    "a part of it": lambda data, asked: _part(data, asked, 70_000),
    "the rest, as if it were all": lambda data, asked: answer(data[int(asked[6:-1]) :], 'ETag: "a"'),
    "nothing": lambda data, asked: b"",
    "an error": lambda data, asked: answer(b"", status="500 Internal Server Error"),
    "a refusal": lambda data, asked: answer(b"", status="403 Forbidden"),
    "no HTTP": lambda data, asked: b"HTTP/1.1 206\r\nno header\r\n\r\n",
}


@pytest.mark.parametrize("kind", RESTS)
@pytest.mark.parametrize("sums", [False, True])
def test_a_server_that_breaks_when_it_is_asked_for_the_rest_gives_all_of_it(
    tmp_path: Path, kind: str, sums: bool
) -> None:
    """Asked for the rest again and again, it would never send the file, in this run or any later one."""
    body, cut = noise(400_000), [True]
    files = with_sums({OBJECT: body}) if sums else {OBJECT: body}
    pages = {"/": "".join(f'<a href="{name}">x</a>' for name in ("images/", *(["MD5SUMS"] if sums else [])))}
    pages["/images/"] = f'<a href="{OBJECT.rpartition("/")[2]}">x</a>'

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        if path in pages:
            connection.send(answer(f"<title>Index of /</title>{pages[path]}".encode(), "Content-Type: text/html"))
        elif method == "HEAD":
            connection.send(answer(b"", status="405 Method Not Allowed"))
        elif path[1:] != OBJECT:
            connection.send(answer(files.get(path[1:], b""), status="200 OK" if path[1:] in files else "404 No"))
        elif headers.get("range", "bytes=0-0") != "bytes=0-0":
            sent = RESTS[kind](body, headers["range"])
            connection.send(sent)
            return bool(sent)
        else:
            whole = answer(body, 'ETag: "a"')
            connection.send(whole[: 140_000 if cut else None])
            return not (cut and cut.pop())
        return True

    patient = TransferOptions(retry_policy=RetryPolicy(attempts=10, first_wait=0.01, longest_wait=0.02, jitter=0.0))
    with raw_http.serving(app) as server:
        result = download(tmp_path, server.url, options=patient)
    assert (result.exit_code, tree(tmp_path)) == (0, {OBJECT: body})
    assert leftovers(tmp_path) == []


def test_a_server_that_sends_no_more_than_so_much_at_once_has_not_failed(tmp_path: Path) -> None:
    body = noise(400_000)
    events: list[Event] = []
    pages = {"/": '<a href="images/">x</a>', "/images/": f'<a href="{OBJECT.rpartition("/")[2]}">x</a>'}

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> None:
        if path in pages:
            connection.send(answer(f"<title>Index of /</title>{pages[path]}".encode(), "Content-Type: text/html"))
        elif path[1:] != OBJECT:
            connection.send(answer(b"", status="404 Not Found"))
        elif method == "HEAD":
            connection.send(answer(body, 'ETag: "a"').removesuffix(body))
        else:
            connection.send(_part(body, headers["range"], 90_000))

    with raw_http.serving(app) as server:
        options = TransferOptions(retry_policy=RetryPolicy(attempts=1), split_from=100_000)
        result = download(tmp_path, server.url, options=options, on_event=events.append)
        assert sum(method == "GET" for method, path, _ in server.seen if path[1:] == OBJECT) == 5
    assert (result.exit_code, tree(tmp_path)) == (0, {OBJECT: body})
    assert not any(isinstance(event, Retrying) for event in events)


@pytest.mark.parametrize("chunked", [False, True])
def test_body_cut_twice(tmp_path: Path, chunked: bool) -> None:
    with serving({OBJECT: BODY}, cut_after=2_500_000, cuts=2, chunked=chunked) as server:
        assert code(download(tmp_path, server.url)) == 0
        offsets = [seen.headers.get("range") for seen in server.gets(OBJECT)]
    assert offsets == [None, "bytes=2500000-", "bytes=5000000-"]
    assert tree(tmp_path) == {OBJECT: BODY}


def test_short_body_under_200(tmp_path: Path) -> None:
    """The Content-Length agrees with what was sent; only the listing knows better."""
    with serving({OBJECT: BODY}, short=1000, shorts=1) as server:
        assert code(download(tmp_path, server.url)) == 0
    assert tree(tmp_path) == {OBJECT: BODY}


def test_more_than_the_mirror_says_is_no_file(tmp_path: Path) -> None:
    """A part in chunks that is longer than its Content-Range: without size and digest nothing else would tell."""
    body, cut = BODY[:200_000], [True]
    shown = f'<title>Index of /</title><a href="{OBJECT.partition("/")[0]}/">images</a>'.encode()
    inner = f'<title>Index of /</title><a href="{OBJECT.rpartition("/")[2]}">image</a>'.encode()

    def app(connection: raw_http.Connection, method: str, path: str, headers: dict[str, str]) -> bool:
        if not path.endswith(".png"):
            page = {"/": shown, "/images/": inner}.get(path)
            kind = "Content-Type: text/html"
            connection.send(answer(page, kind) if page else answer(b"", status="404 Not Found"))
        elif method == "HEAD" or headers.get("range") == "bytes=0-0":
            # Nor does it tell the size in another way.
            connection.send(answer(b"", status="405 Method Not Allowed"))
        elif "range" in headers:
            first = int(headers["range"].partition("=")[2].rstrip("-"))
            rest = body[first:] + b"more"
            connection.send(
                b'HTTP/1.1 206 Partial Content\r\nETag: "a"\r\nContent-Range: bytes %d-%d/%d\r\n'
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
                % (first, len(body) - 1, len(body), len(rest), rest)
            )
        elif cut:
            cut.clear()
            connection.send(answer(body, 'ETag: "a"')[:150_000])
            return False
        else:
            connection.send(answer(body, 'ETag: "a"'))
        return True

    with raw_http.serving(app) as server:
        assert code(download(tmp_path, server.url)) == 0
    assert tree(tmp_path) == {OBJECT: body}


def test_short_body_under_200_again_and_again(tmp_path: Path) -> None:
    with serving(with_sums({OBJECT: BODY}), short=1000) as server:
        assert code(download(tmp_path, server.url)) in (ExitCode.INTEGRITY, ExitCode.UNREACHABLE)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_login_page_under_200(tmp_path: Path, kind: str) -> None:
    with serving({OBJECT: BODY}) as server:
        partly(tmp_path, server)
        server.faults.page, server.faults.page_type = LOGIN_PAGE, kind
        result = download(tmp_path, server.url)
        assert code(result) == ExitCode.ACCESS
        assert "login" in str(result.failures[0].error)
        assert tree(tmp_path) == {}
        server.faults.page = None
        before = server.sent
        assert code(download(tmp_path, server.url)) == 0
        assert server.sent - before == len(BODY) - HAVE
    assert tree(tmp_path) == {OBJECT: BODY}


def test_429_with_retry_after(tmp_path: Path) -> None:
    """The wait is the one that the server asked for, not the engine's own of ten milliseconds."""
    said: list[Event] = []
    with serving({OBJECT: BODY}) as server:

        def refuse(server: FaultServer, seen: Seen) -> None:
            times.append(time.monotonic())
            if seen.path == OBJECT and seen.method == "GET" and len(server.gets(OBJECT)) == 1:
                with server.guard:
                    server.faults.statuses = [429]

        times: list[float] = []
        server.faults.retry_after = "1"
        server.faults.statuses = []
        server.on_request = refuse
        # The listing's own requests are let through: the first GET of the object arms the refusal of the second.
        server.faults.cut_after, server.faults.cuts = HAVE, 1
        assert code(download(tmp_path, server.url, on_event=said.append)) == 0
        gets = server.gets(OBJECT)
    waits = [event.wait for event in said if isinstance(event, Retrying)]
    assert 1.0 in waits
    assert times[-1] - times[-2] >= 1.0
    assert len(gets) == 3
    assert tree(tmp_path) == {OBJECT: BODY}


def test_503_twice(tmp_path: Path) -> None:
    with serving({OBJECT: BODY}) as server:
        partly(tmp_path, server)

        def refuse(server: FaultServer, seen: Seen) -> None:
            if seen.path == OBJECT and seen.method == "GET" and len(server.gets(OBJECT)) == 2:
                with server.guard:
                    server.faults.statuses = [503, 503]

        server.on_request = refuse
        server.faults.cut_after, server.faults.cuts = 1_000_000, 1
        assert code(download(tmp_path, server.url)) == 0
        assert len(server.gets(OBJECT)) == 5
    assert tree(tmp_path) == {OBJECT: BODY}


def test_authorization_stays_with_its_host(tmp_path: Path) -> None:
    class Known:
        def host(self, name: str) -> Login | None:
            return Login("reader", Secret("open sesame"), "a test", ("127.0.0.1", "localhost"))

        def bearer(self, name: str) -> None:
            """There is no token."""

    with (
        serving({OBJECT: BODY}) as other,
        serving(with_sums({OBJECT: BODY}), login=("reader", "open sesame")) as server,
    ):
        there = other.url.replace("127.0.0.1", "localhost")

        def redirect(server: FaultServer, seen: Seen) -> None:
            server.faults.redirect = there if seen.path == OBJECT else None

        server.on_request = redirect
        assert code(download(tmp_path, server.url, credentials=Known())) == 0
        assert any("authorization" in seen.headers for seen in server.seen)
        assert other.gets(OBJECT)
        assert not any("authorization" in seen.headers or "cookie" in seen.headers for seen in other.seen)
    assert tree(tmp_path) == {OBJECT: BODY}


def test_no_password_on_the_command_line(tmp_path: Path) -> None:
    """There is no option that takes one, and an address that carries one is refused before anybody is asked."""
    program = Path(sys.executable).with_name("cxrprep")
    with serving({OBJECT: BODY}) as server:
        url = server.url.replace("//", "//reader:sesame@")
        words = [str(program), "download", "nih-chestxray14", str(tmp_path / "nih"), "--source", url]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert server.seen == []
    assert done.returncode == ExitCode.USAGE
    assert "netrc" in done.stderr
    assert "sesame" not in done.stderr + done.stdout


_PROGRAM = """
import sys
from pathlib import Path
from tests.transfer.runs import download
from cxrprep.transfer.options import TransferOptions
options = TransferOptions(split_from=int(sys.argv[3]))
sys.exit(download(Path(sys.argv[1]), sys.argv[2], options=options).exit_code)
"""


def recorded(root: Path) -> int:
    """How many bytes the sidecars of ``root`` call written."""
    found = [json.loads(path.read_text()) for path in (root / ".cxrprep" / "parts").glob("*.json")]
    return sum(done for one in found for _, _, done in one["segments"])


@pytest.mark.slow
@pytest.mark.parametrize("split_from", [1 << 30, 1 << 20])
def test_kill_9_costs_what_came_since_the_last_record_which_is_made_each_second(
    tmp_path: Path, split_from: int
) -> None:
    assert partial_file._CHECKPOINT_SECONDS == 1.0
    body = noise(40_000_000)
    # Four connections, or one, of the same speed together: the whole takes five seconds and more.
    step = 80_000 if split_from > len(body) else 20_000
    with serving(with_sums({OBJECT: body}), drip=(step, 0.01)) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(tmp_path), server.url, str(split_from)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        states = {0}
        deadline = time.monotonic() + 100
        # Two records, the second of more than the first.
        while len(states) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            states.add(max(*states, recorded(tmp_path)))
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = recorded(tmp_path)
        assert kept >= max(states) > 1_000_000
        before = len(server.seen)
        server.faults.drip = None
        assert code(download(tmp_path, server.url, options=TransferOptions(split_from=split_from))) == 0
        asked = [seen.headers["range"] for seen in server.seen[before:] if seen.path == OBJECT and seen.method == "GET"]
    assert tree(tmp_path) == {OBJECT: body}
    bounds = [one.removeprefix("bytes=").partition("-")[::2] for one in asked]
    assert sum(int(last or len(body) - 1) + 1 - int(first) for first, last in bounds) == len(body) - kept


# ---- beyond the table ----


def test_wrong_bytes_are_kept_aside_and_fetched_once_more(tmp_path: Path) -> None:
    said: list[Event] = []
    with serving(with_sums({OBJECT: BODY})) as server:

        def spoil(server: FaultServer, seen: Seen) -> None:
            server.faults.corrupt = int(seen.path == OBJECT and len(server.gets(OBJECT)) == 1)

        server.on_request = spoil
        assert code(download(tmp_path, server.url, on_event=said.append)) == 0
        assert len(server.gets(OBJECT)) == 2
    assert tree(tmp_path) == {OBJECT: BODY}
    assert (tmp_path / ".cxrprep" / "bad" / f"{OBJECT}.bad").read_bytes()[1:] == BODY[1:]
    assert any(isinstance(event, Note) and event.level == "warning" for event in said)


def test_wrong_bytes_twice_are_exit_4(tmp_path: Path) -> None:
    with serving(with_sums({OBJECT: BODY, image(2): b"fine"})) as server:

        def spoil(server: FaultServer, seen: Seen) -> None:
            server.faults.corrupt = int(seen.path == OBJECT and seen.method == "GET")

        server.on_request = spoil
        result = download(tmp_path, server.url, options=TransferOptions(connections=1, retry_policy=QUICK))
        assert code(result) == ExitCode.INTEGRITY
        assert len(server.gets(OBJECT)) == 2
    assert tree(tmp_path) == {image(2): b"fine"}
    assert ".bad" in result.failures[0].error.hint  # type: ignore[union-attr]  # it failed


def test_an_expired_address_keeps_progress(tmp_path: Path) -> None:
    with serving({OBJECT: BODY}) as server:

        def expire(server: FaultServer, seen: Seen) -> None:
            server.faults.forbidden = OBJECT if len(server.gets(OBJECT)) > 1 else None

        server.on_request = expire
        server.faults.cut_after, server.faults.cuts = HAVE, 1
        assert code(download(tmp_path, server.url)) == ExitCode.ACCESS
        server.on_request = None
        server.faults.forbidden = None
        before = server.sent
        assert code(download(tmp_path, server.url)) == 0
        assert server.sent - before == len(BODY) - HAVE
    assert tree(tmp_path) == {OBJECT: BODY}


@pytest.mark.parametrize("split_from", [1 << 30, 1 << 20])
def test_a_file_that_changes_midway(tmp_path: Path, split_from: int) -> None:
    options = TransferOptions(retry_policy=QUICK, split_from=split_from)
    with serving({OBJECT: BODY}) as server:

        def change(server: FaultServer, seen: Seen) -> None:
            if seen.method == "GET" and len(server.gets(OBJECT)) == 2:
                server.files = {OBJECT: OTHER}

        server.on_request = change
        server.faults.cut_after, server.faults.cuts = HAVE, 1
        assert code(download(tmp_path, server.url, options=options)) == 0
    assert tree(tmp_path) == {OBJECT: OTHER}


def test_gzip_on_the_way_is_taken_off(tmp_path: Path) -> None:
    with serving(with_sums({OBJECT: BODY[:100_000]}), compress=True) as server:
        assert code(download(tmp_path, server.url)) == 0
    assert tree(tmp_path) == {OBJECT: BODY[:100_000]}


@pytest.mark.slow
def test_a_slow_drip_is_no_fault(tmp_path: Path) -> None:
    """It takes longer than the time-out in all, and between two drops only a fifteenth of it."""
    with serving(with_sums({OBJECT: BODY[:200_000]}), drip=(10_000, 0.2)) as server:
        assert code(download(tmp_path, server.url, timeout=3)) == 0
        assert len(server.gets(OBJECT)) == 1
    assert tree(tmp_path) == {OBJECT: BODY[:200_000]}


def test_a_server_that_stays_away_is_exit_6_and_does_not_cost_an_attempt_a_file(tmp_path: Path) -> None:
    files = {image(n): noise(2_000, n) for n in range(1, 200)}
    with serving(with_sums(files)) as server:

        def away(server: FaultServer, seen: Seen) -> None:
            with server.guard:
                server.faults.statuses = [503] if seen.path in files and seen.method == "GET" else []

        server.on_request = away
        result = download(tmp_path, server.url, options=TransferOptions(connections=2, retry_policy=QUICK))
        assert code(result) == ExitCode.UNREACHABLE
        assert result.left > 100
