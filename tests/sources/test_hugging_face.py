"""Hugging Face: which commit is read, which digest is stated, who is let in, and where the token does not go."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxrprep
from cxrprep.api.download_context import FetchOptions
from cxrprep.credentials.lookup import Credentials
from cxrprep.errors import (
    AccessError,
    CxrprepError,
    ExitCode,
    SourceNotFoundError,
    SourceUnreachableError,
    UsageError,
)
from cxrprep.model import Digest
from cxrprep.sources import open_source
from cxrprep.sources.base import AccessState, Source, SourceOptions
from cxrprep.sources.urls import behind
from tests.generators.small import chexpert
from tests.servers import hugging_face
from tests.servers.hugging_face import NAME, TOKEN, Hub
from tests.servers.loopback import Reply, Request, as_json
from tests.sources.contract import content, credentials, shows

SHA = hashlib.sha256(b"image" * 50).hexdigest().encode()
FILES = {"images/train/a.png": b"image" * 50, "train.csv": b"Path\n", "README.md": b"# card\n"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hugging_face.serving(FILES, page_size=2) as hub:
        monkeypatch.setenv("CXRPREP_HUGGINGFACE_URL", hub.url)
        yield hub


def source_of(home: Path, url: str = f"hf://datasets/{NAME}", token: str = TOKEN) -> Source:
    have = credentials({"HF_TOKEN": token} if token else {}, home)
    return open_source(url, SourceOptions(credentials=have, timeout=5))


def test_large_files_state_their_sha256_and_come_from_another_host(hub: Hub, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    files = {file.key: file for file in source.list()}
    assert set(files) == set(FILES)
    assert files["images/train/a.png"].digest == Digest("sha256", hashlib.sha256(b"image" * 50).hexdigest())
    assert files["train.csv"].digest is None
    for key, file in files.items():
        with source.open(file, 3) as stream:
            assert stream.validator == file.validator, "whichever copy of the network answers"
            assert content(stream) == FILES[key][3:]
    assert hub.storage is not None
    assert not any("authorization" in request.headers for request in hub.storage.seen)
    assert source.access().state is AccessState.GRANTED


def test_a_mirror_of_the_hub_is_named_as_for_its_own_tools(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.delenv("CXRPREP_HUGGINGFACE_URL")
    source = source_of(tmp_path)
    assert {file.key for file in source.list()} == set(FILES)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example.org")
    with pytest.raises(UsageError, match=r"HF_ENDPOINT names mirror\.example\.org without encryption"):
        source_of(tmp_path)


def test_listing_and_bytes_are_of_one_commit(hub: Hub, tmp_path: Path) -> None:
    first = hub.revisions["main"]
    source = source_of(tmp_path)
    files = [*source.list()]
    hub.commit({"images/train/a.png": b"other"})
    assert {file.key: content(source.open(file)) for file in files} == FILES
    assert [file.key for file in source_of(tmp_path).list()] == ["images/train/a.png"]
    pinned = source_of(tmp_path, f"hf://datasets/{NAME}@{first}/images")
    assert [file.key for file in pinned.list()] == ["train/a.png"]
    assert content(pinned.open(next(pinned.list()))) == b"image" * 50
    with pytest.raises(SourceNotFoundError, match="revision"):
        [*source_of(tmp_path, f"hf://datasets/{NAME}@none").list()]


def test_a_file_whose_digest_cannot_be_read_has_none(hub: Hub, tmp_path: Path) -> None:
    assert hub.server is not None
    own = hub.server.app

    def spoil(request: Request) -> Reply:
        answer = own(request)
        return dataclasses.replace(answer, body=answer.body.replace(b'"oid": "' + SHA, b'"oid": "' + SHA[:9]))

    hub.server.app = spoil
    files = {file.key: file for file in source_of(tmp_path).list()}
    assert set(files) == set(FILES)
    assert files["images/train/a.png"].digest is None


def test_each_refusal_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    file = next(source_of(tmp_path).list())
    hub.known.add("hf_stranger")
    for token, state, words in (
        ("", AccessState.MISSING, "HF_TOKEN"),
        ("hf_stranger", AccessState.UNSIGNED, "accept the terms at https://huggingface.co/datasets/"),
        ("hf_wrong", AccessState.REJECTED, "https://huggingface.co/settings/tokens"),
    ):
        source = source_of(tmp_path, token=token)
        with pytest.raises(AccessError) as caught:
            source.open(file)
        assert words in caught.value.hint
        assert not (token and token in shows(caught.value))
        assert source.access().state is state
    for token, code in (("", ExitCode.ACCESS), (TOKEN, ExitCode.USAGE)):
        with pytest.raises(CxrprepError) as found:
            [*source_of(tmp_path, "hf://datasets/nobody/nothing", token).list()]
        assert found.value.exit_code is code


def test_the_token_follows_no_page_to_another_host(hub: Hub, tmp_path: Path) -> None:
    assert hub.server is not None
    answer = hub.answer
    hub.server.app = lambda request: (
        as_json([], Link='<http://localhost:1/next>; rel="next"') if "/tree/" in request.path else answer(request)
    )
    with pytest.raises(SourceUnreachableError):
        [*source_of(tmp_path).list()]


@pytest.mark.parametrize("body", [b"[1]", b"{}", b"[", b"[{}]", b"[" * 100_000])
def test_what_is_no_tree_is_an_error(hub: Hub, tmp_path: Path, body: bytes) -> None:
    assert hub.server is not None
    answer = hub.answer
    hub.server.app = lambda request: Reply(200, body) if "/tree/" in request.path else answer(request)
    with pytest.raises(SourceUnreachableError):
        [*source_of(tmp_path).list()]


def test_a_token_is_found_where_the_hubs_own_tools_keep_it(tmp_path: Path) -> None:
    def origin(**environment: str) -> str | None:
        found = credentials(environment, tmp_path).hugging_face()
        return found.origin if found is not None else None

    assert origin() is None
    assert origin(HUGGING_FACE_HUB_TOKEN="a", HF_TOKEN="b") == "HF_TOKEN"
    path = tmp_path / ".cache/huggingface/token"
    path.parent.mkdir(parents=True)
    path.write_text(f"{TOKEN}\n")
    assert origin() == str(path)
    (tmp_path / "token").write_text("two words")
    with pytest.raises(AccessError, match="holds no token"):
        origin(HF_HOME=str(tmp_path))


def test_pages_are_addresses() -> None:
    page = f"https://huggingface.co/datasets/{NAME}"
    assert behind(page) == behind(f"{page}/tree/main") == f"hf://datasets/{NAME}"
    assert behind(f"{page}/tree/v2/images") == f"hf://datasets/{NAME}@v2/images"


def test_chexpert_from_hugging_face(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chexpert.write(tmp_path / "kaggle", layout="kaggle")
    found = {p.relative_to(tmp_path / "kaggle").as_posix(): p for p in (tmp_path / "kaggle").rglob("*") if p.is_file()}
    images = {name: path.read_bytes() for name, path in found.items() if name.endswith(".jpg")}
    tables = {name: path.read_bytes() for name, path in found.items() if name.endswith(".csv")}
    hub.commit({f"images/{name}": data for name, data in images.items()} | tables)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    root = tmp_path / "root"
    done = cxrprep.download(
        "chexpert",
        root,
        source="huggingface",
        options=FetchOptions(credentials=Credentials(keyring=False)),
    )
    assert done.exit_code == 0
    for name, data in (images | tables).items():
        assert (root / "CheXpert-v1.0-512" / name).read_bytes() == data
    assert cxrprep.verify(root).exit_code == 0
    labels = cxrprep.extract_labels(root)
    assert labels.exit_code == 0
