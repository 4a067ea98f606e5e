"""Asking for a file before it is opened: the answer belongs to that file, and nothing is lost when it is not read."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cxrprep.credentials.lookup import Credentials, Login
from cxrprep.credentials.secret import Secret
from cxrprep.errors import SourceUnreachableError
from cxrprep.model import RemoteFile
from cxrprep.sources.base import AsksAhead, SourceOptions
from cxrprep.sources.http import HttpSource
from tests.servers.faults import FaultServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxrprep.sources.base import ByteStream

FILES = {f"file-{number}.bin": bytes([number]) * (1_000 + number) for number in range(5)}
FIRST, SECOND, THIRD = (RemoteFile(name) for name in sorted(FILES)[:3])


class _Netrc(Credentials):
    def host(self, name: str) -> Login | None:
        return Login("ada", Secret("s3cret"), "a test", hosts=(name,)) if name == "127.0.0.1" else None


@contextmanager
def source(server: FaultServer, **options: object) -> Iterator[HttpSource]:
    opened = HttpSource(server.url, SourceOptions(timeout=5, **options))  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


def read(stream: ByteStream) -> bytes:
    pieces, buffer = b"", memoryview(bytearray(4_096))
    with stream:
        while count := stream.readinto(buffer):
            pieces += bytes(buffer[:count])
    return pieces


def test_what_was_asked_for_is_requested_once() -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        assert isinstance(here, AsksAhead)
        assert read(here.open(FIRST)) == FILES[FIRST.key]
        assert here.ask(SECOND)
        assert read(here.open(SECOND)) == FILES[SECOND.key]
        assert [seen.path for seen in server.seen] == [FIRST.key, SECOND.key]


def test_no_connection_is_made_to_ask() -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        assert not here.ask(FIRST)
        stream = here.open(FIRST)
        assert not here.ask(SECOND)
        assert read(stream) == FILES[FIRST.key]
        assert here.ask(SECOND)
        assert not here.ask(THIRD)
        assert read(here.open(THIRD)) == FILES[THIRD.key]
        assert read(here.open(SECOND)) == FILES[SECOND.key]


def test_a_range_of_it_is_another_request() -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        read(here.open(FIRST))
        assert here.ask(SECOND)
        assert read(here.open(SECOND, 400)) == FILES[SECOND.key][400:]
        assert read(here.open(SECOND)) == FILES[SECOND.key]


def test_what_is_withdrawn_is_asked_for_anew() -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        read(here.open(FIRST))
        assert here.ask(SECOND)
        here.withdraw(SECOND)
        here.withdraw(THIRD)
        server.files[SECOND.key] = b"something newer"
        assert read(here.open(SECOND)) == b"something newer"


def test_a_server_that_hung_up_meanwhile_is_asked_anew() -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        read(here.open(FIRST))
        server.faults.hang_up = 1
        assert here.ask(SECOND)
        assert read(here.open(SECOND)) == FILES[SECOND.key]
        assert len(server.gets(SECOND.key)) == 2


def test_a_session_that_ended_meanwhile_is_begun_again() -> None:
    with serving(dict(FILES)) as server, source(server, credentials=_Netrc()) as here:
        server.faults.login, server.faults.session = ("ada", "s3cret"), True
        read(here.open(FIRST))
        server.faults.session = False
        assert here.ask(SECOND)
        assert read(here.open(SECOND)) == FILES[SECOND.key]
        assert server.logins == 2


def test_a_login_that_goes_with_each_request_goes_with_this_one() -> None:
    with serving(dict(FILES)) as server, source(server, credentials=_Netrc()) as here:
        server.faults.login = ("ada", "s3cret")
        read(here.open(FIRST))
        assert here.ask(SECOND)
        assert read(here.open(SECOND)) == FILES[SECOND.key]
        assert ["authorization" in seen.headers for seen in server.gets(SECOND.key)] == [True]


def test_the_login_does_not_follow_to_another_host() -> None:
    with (
        serving(dict(FILES)) as other,
        serving(dict(FILES)) as server,
        source(server, credentials=_Netrc()) as here,
    ):
        server.faults.login = ("ada", "s3cret")
        read(here.open(FIRST))
        server.faults.redirect = other.url
        assert here.ask(SECOND)
        assert read(here.open(SECOND)) == FILES[SECOND.key]
        assert [seen.path for seen in other.seen] == [SECOND.key]
        assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize("number", range(3))
def test_closing_drops_what_was_asked_for(number: int) -> None:
    with serving(dict(FILES)) as server, source(server) as here:
        read(here.open(FIRST))
        if number:
            assert here.ask(SECOND)
        here.close()
        if number == 2:
            with pytest.raises(SourceUnreachableError):
                here.open(SECOND)
        assert not here.ask(THIRD)
