"""A redirect leads to another host (a CDN, a login page), which refuses: nothing is said of the service's own login."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cxrprep.errors import AccessError
from cxrprep.model import RemoteFile
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from tests.servers.box import TOKEN as BOX_TOKEN
from tests.servers.loopback import Reply, Request, running
from tests.servers.s3 import KEYS, NOBODY
from tests.sources.contract import credentials

COMMIT = "a" * 40
OF_THE_SERVICE = ("Google", "AWS", "Hugging Face", "Box ", "PhysioNet", "signed URL", "bucket", "token")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("gs://bucket", {"STORAGE_EMULATOR_HOST": "{}"}),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "{}", **NOBODY}),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "{}", **NOBODY, **KEYS}),
        (f"hf://datasets/owner/data@{COMMIT}", {"CXRPREP_HUGGINGFACE_URL": "{}", "HF_TOKEN": "hf_secret"}),
        ("box://nihcc/name", {"CXRPREP_BOX_URL": "{}"}),
        ("box://nihcc/name", {"CXRPREP_BOX_URL": "{}", "BOX_DEVELOPER_TOKEN": BOX_TOKEN}),
        ("url://chexpert", {"CHEXPERT_URL": "{}/container?sv=2021&sr=c&sp=rl&sig=abc"}),
        ("physionet://mimic-cxr/2.1.0", {"CXRPREP_PHYSIONET_URL": "{}"}),
    ],
)
def test_a_refusal_of_another_host_is_not_the_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, settings: dict[str, str], status: int
) -> None:
    def app(request: Request) -> Reply:
        if request.headers["host"].startswith("localhost"):
            return Reply(status, b"who are you?")
        return Reply(302, b"", {"Location": f"{server.url.replace('127.0.0.1', 'localhost')}/elsewhere"})

    with running(app) as server:
        for name, value in settings.items():
            monkeypatch.setenv(name, value.format(server.url))
        have = credentials({name: value.format(server.url) for name, value in settings.items()}, tmp_path)
        with closing(open_source(source, SourceOptions(credentials=have, timeout=5))) as opened:
            kind = "static:abc" if source.startswith("box") else None
            with pytest.raises(AccessError, match=r"localhost:\d+/elsewhere") as caught:
                opened.open(RemoteFile("a.png", validator=kind))
    said = caught.value.message + caught.value.hint
    assert not [word for word in OF_THE_SERVICE if word in said]
