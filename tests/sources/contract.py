"""What each source promises, as tests. A source subclasses ``SourceContract`` and says how to serve some files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import google_crc32c
import pytest

from cxrprep.credentials.lookup import Credentials
from cxrprep.errors import AccessError, CxrprepError, ExitCode, NotInSourceError, SourceUnreachableError
from cxrprep.model import Digest, RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, ByteStream, Source, SourceOptions
from tests.servers.processes import closed_port

MARK = "hunter2secret"
_RNG = random.Random(4)
FILES: dict[str, bytes] = {
    "images/00000001_000.png": _RNG.randbytes(40_000),
    "images/00000001_001.png": _RNG.randbytes(3),
    "images/00000002_000.png": _RNG.randbytes(70_001),
    "images/with space & (paren).png": _RNG.randbytes(1_000),
    "Data_Entry_2017_v2020.csv": b"Image Index,Finding Labels\n" * 40,
    "train_val_list.txt": b"00000001_000.png\n",
}


@dataclasses.dataclass
class Subject:
    """A service that runs, and how to reach it.

    ``refuse(status)`` makes it answer 401 or 403 from now on, ``fail(status, retry_after)`` another status;
    ``nowhere(port)`` is an address at which nobody listens. A source that has no such thing leaves it ``None``.
    ``keys`` translates a key of ``files`` into the source's own. ``secrets`` must show nowhere. ``goes_on`` says that a
    source which has begun keeps what it was given when others are refused, ``lists_alone`` that it lists without
    asking anybody.
    """

    url: str
    files: dict[str, bytes] = dataclasses.field(default_factory=lambda: dict(FILES))
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    refuse: Callable[[int], None] | None = None
    fail: Callable[[int, str], None] | None = None
    nowhere: Callable[[int], tuple[str, dict[str, str]]] | None = None
    keys: Callable[[str], str] = str
    secrets: tuple[str, ...] = (MARK,)
    goes_on: bool = False
    lists_alone: bool = False
    extra_keys: frozenset[str] = frozenset()
    refused_access: frozenset[AccessState] = frozenset(
        {AccessState.REJECTED, AccessState.MISSING, AccessState.UNSIGNED, AccessState.EXPIRED}
    )


def credentials(environment: dict[str, str], home: Path) -> Credentials:
    return Credentials(environment={"CXRPREP_KEYRING": "0", **environment}, home=home)


def content(stream: ByteStream, step: int = 7_777) -> bytes:
    """The rest of a stream, read in odd pieces."""
    pieces = []
    buffer = memoryview(bytearray(step))
    with stream:
        while count := stream.readinto(buffer):
            assert 0 < count <= step
            pieces.append(bytes(buffer[:count]))
    return b"".join(pieces)


def digest_of(data: bytes, algorithm: str) -> str:
    if algorithm == "crc32c":
        return f"{google_crc32c.value(data):08x}"
    if algorithm == "crc32":
        return f"{zlib.crc32(data):08x}"
    return hashlib.new(algorithm, data).hexdigest()


def shows(error: BaseException) -> str:
    """All that a person or a log could see of an error."""
    hint = error.hint if isinstance(error, CxrprepError) else ""
    return f"{error} {error!r} {hint} {''.join(traceback.format_exception(error))}"


class SourceContract:
    """Subclass it, say which ``schemes`` it stands for, and write ``serve``: a context that yields a ``Subject``.

    ``request`` is pytest's, for servers that several tests share.
    """

    schemes: ClassVar[tuple[str, ...]] = ()

    @contextmanager
    def serve(self, tmp_path: Path) -> Iterator[Subject]:
        raise NotImplementedError
        yield

    @pytest.fixture(autouse=True)
    def _fixtures(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    @pytest.fixture
    def port(self) -> Iterator[int]:
        """Nobody listens there."""
        with closed_port() as port:
            yield port

    @pytest.fixture
    def subject(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
        with self.serve(tmp_path) as subject:
            for name, value in subject.environment.items():
                monkeypatch.setenv(name, value)
            yield subject

    @pytest.fixture
    def source(self, subject: Subject, tmp_path: Path) -> Iterator[Source]:
        with contextlib.closing(self.make(subject, tmp_path)) as source:
            yield source

    @staticmethod
    def make(subject: Subject, home: Path, url: str = "", **options: Any) -> Source:
        have = credentials(subject.environment, home)
        return open_source(
            url or subject.url, SourceOptions(**{"credentials": have, "timeout": 5, **subject.options, **options})
        )

    @staticmethod
    def find(subject: Subject, source: Source, key: str) -> RemoteFile:
        wanted = subject.keys(key)
        return next(file for file in source.list() if file.key == wanted)

    # ---- the listing ----

    def test_the_listing_names_every_file_and_states_what_is_true(self, subject: Subject, source: Source) -> None:
        listing = source.list()
        assert iter(listing) is listing, "a listing is streamed, not a list"
        files = {file.key: file for file in listing}
        assert set(files) - subject.extra_keys == {subject.keys(key) for key in subject.files}
        for key, data in subject.files.items():
            file = files[subject.keys(key)]
            assert not file.key.startswith("/")
            assert file.size in (None, len(data))
            if file.digest is not None:
                assert file.digest == Digest(file.digest.algorithm, digest_of(data, file.digest.algorithm))
            assert file.validator is None or file.validator
            assert file.modified is None or file.modified.tzinfo is not None

    def test_two_listings_say_the_same(self, subject: Subject, source: Source) -> None:
        assert [*source.list()] == [*source.list()]

    def test_a_prefix_limits_the_listing(self, subject: Subject, source: Source) -> None:
        keys = [file.key for file in source.list()]
        prefix = subject.keys("images/00000001_000.png")[:-7]
        assert [file.key for file in source.list(prefix)] == [key for key in keys if key.startswith(prefix)]
        assert [*source.list("no/such/folder/")] == []

    # ---- bytes ----

    def test_every_file_comes_whole(self, subject: Subject, source: Source) -> None:
        listed = {file.key: file for file in source.list()}
        for key, data in subject.files.items():
            file = listed[subject.keys(key)]
            stream = source.open(file)
            assert isinstance(stream, ByteStream)
            assert stream.offset == 0
            assert stream.length in (None, len(data))
            stated = stream.digest
            assert content(stream) == data
            if stated is not None:
                assert stated == Digest(stated.algorithm, digest_of(data, stated.algorithm))

    @pytest.mark.parametrize("bounds", [(0, 1), (1, None), (12_345, None), (12_345, 20_000), (70_000, None)])
    def test_a_stream_says_where_it_begins(
        self, subject: Subject, source: Source, bounds: tuple[int, int | None]
    ) -> None:
        offset, end = bounds
        key = "images/00000002_000.png"
        data = subject.files[key]
        stream = source.open(self.find(subject, source, key), offset, end)
        assert stream.offset in (0, offset)
        expected = data[stream.offset : end] if stream.offset == offset else data
        assert stream.length in (None, len(data))
        assert content(stream) == expected

    def test_behind_the_last_byte_there_is_nothing(self, subject: Subject, source: Source) -> None:
        key = "images/00000002_000.png"
        data = subject.files[key]
        with source.open(self.find(subject, source, key), len(data)) as stream:
            assert content(stream) == data[stream.offset :]

    def test_the_validator_is_the_same_each_time(self, subject: Subject, source: Source) -> None:
        file = self.find(subject, source, "images/00000002_000.png")
        seen = set()
        for offset in (0, 0, 5_000):
            with source.open(file, offset) as stream:
                seen.add(stream.validator)
        assert len(seen) == 1
        if file.validator is not None:
            assert seen == {file.validator}, "the listing and the stream speak of the content in the same words"

    def test_a_stream_may_be_left_in_the_middle_and_closed_twice(self, subject: Subject, source: Source) -> None:
        file = self.find(subject, source, "images/00000002_000.png")
        for _ in range(3):
            stream = source.open(file)
            assert stream.readinto(memoryview(bytearray(10))) > 0
            stream.close()
            stream.close()
        assert content(source.open(file)) == subject.files["images/00000002_000.png"]

    def test_many_threads_at_once(self, subject: Subject, source: Source) -> None:
        files = [*source.list()] * 5
        own = {subject.keys(key): data for key, data in subject.files.items()}
        with ThreadPoolExecutor(8) as pool:
            for file, data in zip(files, pool.map(lambda f: content(source.open(f)), files), strict=True):
                if file.key in own:
                    assert data == own[file.key]

    # ---- what goes wrong ----

    def test_a_file_that_is_not_there(self, subject: Subject, source: Source) -> None:
        gone = subject.keys("images/00009999_000.png")
        with pytest.raises(NotInSourceError) as caught:
            source.open(RemoteFile(gone)).close()
        assert caught.value.exit_code is ExitCode.PARTIAL
        assert "00009999_000.png" in str(caught.value)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_says_what_to_do_and_no_secret(
        self, subject: Subject, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        if subject.refuse is None:
            pytest.skip("this source has no access to be refused")
        source = self.make(subject, tmp_path)
        file = self.find(subject, source, "images/00000002_000.png")
        subject.refuse(status)
        fresh = self.make(subject, tmp_path)
        with caplog.at_level("DEBUG"):
            calls: list[Callable[[], object]] = [lambda: fresh.open(file).close()]
            if not subject.lists_alone:
                calls.append(lambda: [*fresh.list()])
            if not subject.goes_on:
                calls.append(lambda: source.open(file).close())
            for call in calls:
                with pytest.raises(AccessError) as caught:
                    call()
                assert caught.value.exit_code is ExitCode.ACCESS
                assert caught.value.hint, "the next step is missing"
                assert not any(secret in shows(caught.value) for secret in subject.secrets)
        assert not any(secret in caplog.text for secret in subject.secrets)
        access = fresh.access()
        assert access.state in subject.refused_access
        assert access.advice
        source.close()
        fresh.close()

    def test_a_server_that_asks_for_patience(self, subject: Subject, tmp_path: Path) -> None:
        if subject.fail is None:
            pytest.skip("this source has no server")
        source = self.make(subject, tmp_path)
        file = self.find(subject, source, "images/00000002_000.png")
        subject.fail(429, "17")
        with pytest.raises(SourceUnreachableError) as caught:
            source.open(file).close()
        assert caught.value.retry_after == 17
        assert caught.value.exit_code is ExitCode.UNREACHABLE
        assert not any(secret in shows(caught.value) for secret in subject.secrets)
        source.close()

    def test_nobody_listens(self, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        if subject.nowhere is None:
            pytest.skip("this source has no server")
        with contextlib.closing(self.make(subject, tmp_path)) as here:
            file = self.find(subject, here, "images/00000002_000.png")
        url, environment = subject.nowhere(port)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        moved = dataclasses.replace(subject, environment={**subject.environment, **environment})
        source = self.make(moved, tmp_path, url)
        calls: list[Callable[[], object]] = [lambda: source.open(file).close(), source.access]
        if not subject.lists_alone:
            calls.append(lambda: [*source.list()])
        for call in calls:
            with pytest.raises(SourceUnreachableError) as caught:
                call()
            assert caught.value.hint
            assert not any(secret in shows(caught.value) for secret in subject.secrets)
        source.close()

    # ---- the source itself ----

    def test_access_is_granted_or_open(self, subject: Subject, source: Source) -> None:
        access = source.access()
        assert access.state in (AccessState.GRANTED, AccessState.OPEN)
        assert not any(secret in repr(access) for secret in subject.secrets)

    def test_its_address_opens_it_again_and_shows_no_secret(
        self, subject: Subject, source: Source, tmp_path: Path
    ) -> None:
        before = source.address
        keys = [file.key for file in source.list()]
        assert source.address == before, "what a folder remembers does not change while a source is used"
        again = self.make(subject, tmp_path, source.address)
        with contextlib.closing(again):
            assert type(again) is type(source)
            assert [file.key for file in again.list()] == keys
        seen = f"{source.address} {source!r} {vars(source)!r}"
        assert not any(secret in seen for secret in subject.secrets)

    def test_politeness_is_stated_and_the_user_may_choose(self, subject: Subject, tmp_path: Path) -> None:
        source = self.make(subject, tmp_path, connections=3)
        assert source.politeness.connections == 3
        assert source.politeness.ranges >= 1
        source.close()

    def test_closing_twice_is_no_error(self, subject: Subject, source: Source) -> None:
        [*source.list()]
        source.close()
        source.close()
