"""Large files in several ranges at once, through each service's own redirects and rules, against one digest."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrprep.datasets.catalog import find_dataset
from cxrprep.model import Digest, RemoteFile
from cxrprep.planning.build import make_plan
from cxrprep.record.record import Record
from cxrprep.sources import open_source
from cxrprep.sources.base import SourceOptions
from cxrprep.transfer import range_fetch
from cxrprep.transfer.downloader import Transfer
from cxrprep.transfer.options import TransferOptions
from tests.servers import box, google, kaggle
from tests.servers.azurite import Azurite
from tests.servers.loopback import Server
from tests.sources.contract import credentials, digest_of
from tests.transfer.runs import QUICK

NAME = "images_001.tar.gz"
DATA = random.Random(8).randbytes(3_000_000)
Service = tuple[str, dict[str, str], dict[str, object], Server | None]


@contextlib.contextmanager
def _google(azure: Azurite) -> Iterator[Service]:
    del azure
    with google.serving({NAME: DATA}) as bucket:
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": google.address(bucket)}, {}, bucket.server


@contextlib.contextmanager
def _box(azure: Azurite) -> Iterator[Service]:
    del azure
    known = (RemoteFile(NAME, len(DATA), Digest("md5", digest_of(DATA, "md5")), "static:h.gz"),)
    with box.serving({NAME: DATA}, {"h.gz": NAME}) as service:
        yield f"box://nihcc/{box.VANITY}", {"CXRPREP_BOX_URL": box.address(service)}, {"known": known}, service.cloud


@contextlib.contextmanager
def _portal(azure: Azurite) -> Iterator[Service]:
    container = f"r{secrets.token_hex(6)}"
    azure.put(container, {NAME: DATA})
    yield "url://chexpert", {"CHEXPERT_URL": azure.sas(container)}, {}, None


@contextlib.contextmanager
def _kaggle(azure: Azurite) -> Iterator[Service]:
    del azure
    with kaggle.serving({"images_001/images/00000001_000.png": DATA}, public=True) as service:
        assert service.api is not None
        address = f"kaggle://owner/data/{NAME.replace('.tar.gz', '.zip')}"
        yield address.replace("images_001", "archive"), {"CXRPREP_KAGGLE_URL": service.api.url}, {}, service.storage


@pytest.mark.parametrize("serve", [_google, _box, _portal, _kaggle], ids=["google", "box", "portal", "kaggle"])
def test_several_ranges_make_one_file(
    tmp_path: Path, azure: Azurite, monkeypatch: pytest.MonkeyPatch, serve: object
) -> None:
    with serve(azure) as (url, environment, options, server):  # type: ignore[operator]  # one of the four above
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        source = open_source(
            url, SourceOptions(**{"credentials": credentials(environment, tmp_path), "timeout": 5, **options})
        )
        assert source.politeness.ranges > 1
        layout = find_dataset("nih-chestxray14").layout()
        monkeypatch.setattr(range_fetch, "_SMALLEST", 1 << 20)
        chosen = TransferOptions(retry_policy=QUICK, split_from=1_000_000, connections=4, keep_archives=True)
        with (
            contextlib.closing(source),
            Record.open(tmp_path / "root") as record,
            Transfer(record, layout, options=chosen) as transfer,
        ):
            plan = make_plan(
                source.list(), layout, dataset="nih-chestxray14", release="v2020", mirror=source.address,
                local_state=transfer.local_state(), unpack=lambda path: path.endswith(".zip"),
            )  # fmt: skip
            result = transfer.run(plan, source)
        assert result.failures == []
        got = {path.name: path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file()}
        assert got.get(NAME, got.get("00000001_000.png")) == DATA
        if server is not None:
            ranges = {request.headers["range"] for request in server.seen if "range" in request.headers}
            assert len([r for r in ranges if not r.startswith("bytes=0-0")]) >= 3, "it came in parts"
