"""Images in shards, handed over as files are: every form of export, and both loaders."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import ImageError
from cxrprep.executors import Engine
from tests.manifest.made import made
from tests.parts import need

INLINE = Engine("inline")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return made("nih-chestxray14", tmp_path_factory.mktemp("nih"))


@pytest.fixture(scope="module")
def files(nih, tmp_path_factory):
    out = tmp_path_factory.mktemp("files") / "out"
    cxrprep.convert(nih, recipe="square-224", out=out, engine=INLINE)
    return out


@pytest.fixture(scope="module", params=["webdataset", "parquet"])
def shards(request, nih, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / request.param
    cxrprep.convert(nih, recipe="square-224", out=out, to=request.param, per_shard=2, engine=INLINE)
    return out


@pytest.mark.parametrize("form", ["csv", "coco", "webdataset", "hf", "original"])
def test_an_export_is_that_of_the_files(files, shards, form, tmp_path):
    found = []
    for root in (files, shards):
        made_ = cxrprep.export(root, form=form, out=tmp_path / root.name / form).value
        found.append({path.name: path for path in made_.files})
    assert found[0].keys() == found[1].keys()
    for name, path in found[0].items():
        other = found[1][name]
        if name.endswith(".parquet"):
            ours, theirs = pq.read_table(path).to_pylist(), pq.read_table(other).to_pylist()
            for row in (*ours, *theirs):
                row["image"] = row["image"]["bytes"]
            assert ours == theirs
        elif name.endswith(".tar"):
            assert path.read_bytes() == other.read_bytes()
        elif name.endswith((".csv", ".json", ".md")):
            # Paths, and who made what, are all that differs.
            assert len(path.read_text().splitlines()) == len(other.read_text().splitlines())


def test_loaders(files, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    ours, theirs = cxrprep.load(files), cxrprep.load(shards)
    assert ours.stated.column("image_id").to_pylist() == theirs.stated.column("image_id").to_pylist()
    need("torch")
    first, second = ours.torch(), theirs.torch()
    again = pickle.loads(pickle.dumps(second))
    for index in (6, 0, 3, 1):
        assert np.array_equal(first[index]["image"], second[index]["image"])
        assert np.array_equal(first[index]["image"], again[index]["image"])
    need("datasets")
    first, second = ours.hf(), theirs.hf()
    assert len(first) == len(second) == 7
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(np.asarray(one["image"]), np.asarray(other["image"]))
        assert one["label_mass"] == other["label_mass"]


def test_a_shard_that_lacks_an_image_is_named(shards, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(shards, root)
    for path in [*root.glob("*.tar"), *(root / "data").glob("*.parquet")]:
        path.write_bytes(b"")
    with pytest.raises(ImageError, match="does not hold"):
        cxrprep.export(root, form="webdataset", out=tmp_path / "out")
