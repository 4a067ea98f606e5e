"""A labeler of another package: its own observations, in shards and on a cluster too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxrprep.api.report_labels import label_reports
from cxrprep.executors import Engine
from cxrprep.model import Shard
from tests.executors.cluster import cluster
from tests.labels.nlp.collections import folder
from tests.labels.nlp.test_label_sources import run
from tests.parts import need

MODULE = """
class Ours:
    name, version, digest, at_once, observations = "ours", "7", "sha256:0", 2, ("Edema", "Own Thing")

    def __init__(self, options):
        self.options = options

    def labels(self, texts):
        return [{"Edema": -1 if "edema" in text else None, "Own Thing": 1} for text in texts]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    points = "[cxrprep.labelers]\nours = ours_labeler:Ours\n"
    about = {"ours-7.dist-info/METADATA": "Name: ours\n", "ours-7.dist-info/entry_points.txt": points}
    folder(tmp_path / "site", {"ours_labeler.py": MODULE, **about})
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return folder(tmp_path / "reports", {f"{n}.txt": f"{('No effusion', 'Mild edema')[n % 2]} {n}." for n in range(9)})


def table(out: Path) -> Path:
    return out / "manifests" / "label_sources" / "ours" / "report_labels.parquet"


def labelled(reports: Path, out: Path, **more: Any) -> bytes:
    label_reports(out, reports=reports, labeler="ours", **more)
    return table(out).read_bytes() if table(out).exists() else b""


def test_it_is_a_label_source_with_observations_of_its_own(site: Path, tmp_path: Path, reports: Path) -> None:
    run("extract-labels", tmp_path / "root", "--reports", reports, "--labeler", "ours")
    rows = pq.read_table(table(tmp_path / "root")).to_pylist()
    assert [row["label_edema"] for row in rows] == [None, -1] * 4 + [None]
    assert [row["label_own_thing"] for row in rows] == [1] * 9


def test_shards_in_any_order_give_the_bytes_of_one_run(site: Path, tmp_path: Path, reports: Path) -> None:
    whole = labelled(reports, tmp_path / "whole")
    for index in (3, 1):
        assert not labelled(reports, tmp_path / "parts", shard=Shard(index, 3))
    assert labelled(reports, tmp_path / "parts", shard=Shard(2, 3)) == whole


@pytest.mark.long
def test_a_dask_cluster_gives_the_bytes_of_one_process(site: Path, tmp_path: Path, reports: Path) -> None:
    need("dask")
    with cluster(2, site) as scheduler:
        spread = labelled(reports, tmp_path / "spread", engine=Engine("dask", scheduler=scheduler))
    assert spread == labelled(reports, tmp_path / "whole", engine=Engine(jobs=1))
