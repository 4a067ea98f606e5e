"""Shards of an export that worker processes or a Dask cluster make: byte for byte those of one process."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.events import Advanced, Event, Note
from cxrprep.executors import Engine
from cxrprep.manifest.export.run import ExportOptions, export
from tests.executors.cluster import cluster, joined
from tests.manifest.made import made
from tests.parts import need
from tests.sample import some


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.mark.parametrize("form", ["webdataset", "hf"])
def test_processes_make_the_shards_of_one_process(root: Path, tmp_path: Path, form: str) -> None:
    data = cxrprep.load(root)
    for name, engine in (("one", None), ("two", Engine("local", jobs=2))):
        result = export(data, form, tmp_path / name, options=ExportOptions(per_shard=1, engine=engine))
        assert result.images == len(data)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) > len(data)


@pytest.mark.slow
def test_a_cluster_makes_the_shards_of_one_process(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("dask")
    monkeypatch.chdir(tmp_path)
    with cluster(2) as address:
        for form in ("webdataset", "hf", "csv"):
            cxrprep.export(root, form=form, out=f"here-{form}")
            cxrprep.export(root, form=form, out=f"there-{form}", engine="dask", scheduler=address)
            assert files(Path(f"there-{form}")) == files(Path(f"here-{form}"))
            # What is done is done.
            cxrprep.export(root, form=form, out=f"there-{form}", engine="dask", scheduler=address)
            assert files(Path(f"there-{form}")) == files(Path(f"here-{form}"))


@pytest.mark.long
@pytest.mark.parametrize("unseen", ["root", "out"])
def test_workers_that_do_not_see_a_folder_make_nothing(root: Path, tmp_path: Path, unseen: str) -> None:
    need("dask")
    its, out = tmp_path / "its", tmp_path / "out"
    its.mkdir()
    folder = {"root": root, "out": out}[unseen]
    (its / "sitecustomize.py").write_text(
        f"import os.path; there = os.path.isdir; os.path.isdir = lambda p: p != {os.fspath(folder)!r} and there(p)"
    )
    with cluster(1, its) as address, pytest.raises(UsageError, match="does not see"):
        cxrprep.export(root, form="webdataset", out=out, engine=Engine("dask", scheduler=address))
    assert not list(out.rglob("*.tar"))


@pytest.mark.long
@pytest.mark.parametrize("sees", some([True, False], one_in=2))
def test_a_worker_that_joins_late_makes_shards_where_it_sees_the_folders(
    root: Path, tmp_path: Path, sees: bool
) -> None:
    need("dask")
    from distributed import Client

    its, out, told = tmp_path / "its", tmp_path / "out", list[Event]()
    its.mkdir()
    if not sees:
        (its / "sitecustomize.py").write_text(
            f"import os.path; there = os.path.isdir; os.path.isdir = lambda p: p != {os.fspath(out)!r} and there(p)"
        )
    data = cxrprep.load(root)
    export(data, "webdataset", tmp_path / "one", options=ExportOptions(per_shard=1))
    out.mkdir()
    with cluster(1) as address, contextlib.ExitStack() as late, Client(address) as client:

        def join(event: Event) -> None:
            told.append(event)
            if isinstance(event, Advanced) and sum(isinstance(one, Advanced) for one in told) == 1:
                late.enter_context(joined(address, its))
                while len(client.scheduler_info()["workers"]) < 2:
                    time.sleep(0.05)

        engine = Engine("dask", scheduler=address).needing([str(root), str(out)])
        export(data, "webdataset", out, options=ExportOptions(per_shard=1, engine=engine), on_event=join)
        # What is said of one that does not fit comes with the next work, if there is any.
        refused = [one.message for one in told if isinstance(one, Note) and "it gets no work" in one.message]
        assert sees <= (not refused)
    assert files(out) == files(tmp_path / "one")
