"""Answers that are none: a network's login page, JSON of another form, half a listing, a damaged archive."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrprep.errors import CxrprepError, ExitCode
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.sources.remote_zip import RemoteZip
from tests.servers import box, loopback
from tests.sources.contract import content, credentials
from tests.sources.test_remote_zip import Wire

JSON, HTML = "application/json", "text/html"
BODIES = {
    "nothing": (b"", JSON),
    "a login page": (b"<!DOCTYPE html><html><body><form>Sign in to the hotel</form></body></html>", HTML),
    "a login page called JSON": (b"<html><body>Sign in</body></html>", JSON),
    "half an object": (b'{"items": [{"name": "a', JSON),
    "a list": (b"[1, 2, 3]", JSON),
    "null": (b"null", JSON),
    "a number": (b"7", JSON),
    "items that are none": (b'{"items": [7], "datasetFiles": [7], "entries": [7]}', JSON),
    "items without names": (b'{"items": [{}], "datasetFiles": [{"totalBytes": "x"}], "entries": [{}]}', JSON),
    "bytes": (bytes(range(256)), "application/octet-stream"),
    "XML": (b"<EnumerationResults><Blobs><Blob><Name>a</Name>", "application/xml"),
    "a folder without items": (
        b'<script>Box.postStreamData = {"/app-api/enduserapp/shared-folder": 7};</script>',
        HTML,
    ),
}
SERVICES = {
    "kaggle": ("kaggle://owner/data", "CXRPREP_KAGGLE_URL", {}),
    "google": ("gs://bucket", "STORAGE_EMULATOR_HOST", {}),
    "box": (f"box://nihcc/{box.VANITY}", "CXRPREP_BOX_URL", {}),
    "box API": (f"box://nihcc/{box.VANITY}", "CXRPREP_BOX_URL", {"BOX_DEVELOPER_TOKEN": box.TOKEN}),
    "physionet": ("physionet://mimic-cxr/2.1.0", "CXRPREP_PHYSIONET_URL", {}),
}


T = TypeVar("T")


def answered(ask: Callable[[], Iterable[T]]) -> tuple[CxrprepError | None, list[T]]:
    """What ``ask`` gives, or the error it ends with: one of ours, no bug, with a next step. Others are raised."""
    try:
        return None, [*ask()]
    except CxrprepError as error:
        if error.exit_code is ExitCode.BUG or not error.hint:
            raise AssertionError(f"no next step: {error!r}") from error
        return error, []


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("service", [*SERVICES, "portal"])
def test_an_answer_that_is_none_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, body: str
) -> None:
    data, kind = BODIES[body]
    reply = loopback.Reply(200, data, {"Content-Type": kind})
    with loopback.running(lambda request: reply) as server:
        if service == "portal":
            url, variables = "url://chexpert", {"CHEXPERT_URL": f"{server.url}/box?sr=c&sp=rl&sig=secret"}
        else:
            url, name, login = SERVICES[service]
            variables = {name: server.url, **login}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        options = SourceOptions(credentials=credentials(variables, tmp_path), timeout=5)
        with closing(open_source(url, options)) as source:
            said, files = answered(source.list)
    assert said is None or "secret" not in f"{said!r} {said.hint}"
    assert all(file.key and (file.size is None or file.size >= 0) for file in files)


_MEMBERS = {f"folder/{n}.jpg": random.Random(n).randbytes(400) for n in range(6)}


def _archive() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _MEMBERS.items():
            archive.writestr(name, data)
    return raw.getvalue()


_WHOLE = _archive()


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, len(_WHOLE))),
)
def test_a_damaged_archive_is_no_bug(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(_WHOLE)
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(bytes(data[:cut]))
    archive = RemoteZip(
        "a.zip", f"test://{hash(bytes(data[:cut]))}", path.stat().st_size, '"v1"', Wire(path).open_range
    )
    answered(lambda: (content(archive.open(file)) for file in archive.members()))
