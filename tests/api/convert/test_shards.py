"""Shards as their readers see them: WebDataset, Hugging Face's datasets, plain tar and plain Parquet."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import cxrprep
from cxrprep.errors import UsageError
from cxrprep.executors import Engine
from tests.api.convert import hospital
from tests.api.convert.commands import tree
from tests.generators.small import nih_chestxray14
from tests.parts import need

INLINE = Engine("inline")


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    root = tmp_path / "nih"
    nih_chestxray14.write(root)
    cxrprep.extract_labels(root)
    return root


def convert(root: Path, to: str, **more: Any) -> Path:
    value = cxrprep.convert(root, recipe="square-224", to=to, engine=INLINE, **more).value
    assert value.failed == 0
    return Path(value.out)


def pixels(root: Path) -> dict[str, np.ndarray]:
    """What the same recipe makes as plain files, by image id."""
    out = convert(root, "files")
    rows = pq.read_table(out / "manifests/images.parquet", columns=["image_id", "path"]).to_pylist()
    return {row["image_id"]: cv2.imread(str(out / row["path"]), cv2.IMREAD_UNCHANGED) for row in rows}


def test_hugging_face_opens_parquet_shards_as_images_with_labels_by_split(
    nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    wanted, out = pixels(nih), convert(nih, "parquet", per_shard=2)
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in found.items()} == {"train_val": 4, "test": 3}
    seen = {}
    for part in found.values():
        for row in part:
            assert np.array_equal(np.asarray(row["image"]), wanted[row["image_id"]])
            seen[row["image_id"]] = row
    assert len(seen) == 7
    assert seen["00000003_001"]["label_hernia"] == 1
    assert seen["00000003_001"]["label_mass"] == 0
    assert seen["00000003_001"]["view"] == "AP"
    assert seen["00000003_001"]["boxes"][0]["label"]
    assert "label_edema" in seen["00000003_001"]


def test_webdataset_reads_the_tar_shards(nih: Path) -> None:
    need("webdataset")
    import webdataset as wds

    wanted, out = pixels(nih), convert(nih, "webdataset", per_shard=2)
    shards = sorted(str(path) for path in out.glob("*.tar"))
    assert [Path(shard).name for shard in shards] == [
        "nih-chestxray14-test-000000.tar",
        "nih-chestxray14-test-000001.tar",
        "nih-chestxray14-train_val-000000.tar",
        "nih-chestxray14-train_val-000001.tar",
    ]
    samples = []
    for shard in shards:
        # The library's own reader, on a file that is closed again: its WebDataset leaves that to the collector.
        with Path(shard).open("rb") as stream:
            members = wds.tariterators.tar_file_expander([{"url": shard, "stream": stream}])
            samples += list(wds.tariterators.group_by_keys(members))
    assert len(samples) == 7
    for sample in samples:
        row = json.loads(sample["json"])
        assert sample["__key__"] == row["image_id"]
        assert np.array_equal(cv2.imdecode(np.frombuffer(sample["png"], np.uint8), -1), wanted[row["image_id"]])
        assert row["label_cardiomegaly"] in (0, 1)
        assert row["split"] in ("train_val", "test")


def test_hugging_face_streams_the_tar_shards(nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    out = convert(nih, "webdataset")
    files = sorted(str(path) for path in out.glob("*.tar"))
    found = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == 7
    assert found[0]["png"].size == (224, 224)


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
def test_the_manifest_names_shard_and_member(tmp_path: Path, to: str) -> None:
    root = hospital.write(tmp_path / "in")
    out = convert(root, to, out=tmp_path / "out", per_shard=4)
    for row in pq.read_table(out / "manifests/images.parquet").to_pylist():
        shard, _, member = row["path"].rpartition("/")
        if to == "webdataset":
            with tarfile.open(out / shard) as archive:
                held = archive.extractfile(member)
                assert held is not None
                data = held.read()
        else:
            images = pq.read_table(out / shard).column("image").to_pylist()
            data = next(image["bytes"] for image in images if image["path"] == member)
        assert len(data) == row["bytes"]
        assert cv2.imdecode(np.frombuffer(data, np.uint8), -1).shape == (row["height"], row["width"])


def test_keys_hold_no_dot_and_no_two_are_alike(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a/b.png", "a__b.png", "a.1.png", "a_1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(hospital.png(hospital.small(len(name))))
    out = convert(root, "webdataset", out=tmp_path / "out")
    with tarfile.open(out / "images-000000.tar") as archive:
        names = archive.getnames()
    assert len(set(names)) == 8
    assert all(name.count(".") == 1 for name in names)


def test_long_names_and_the_same_bytes_everywhere(tmp_path: Path) -> None:
    root = tmp_path / "in"
    name = "/".join(["ein sehr langer Ordnername für Röntgenbilder"] * 5) + "/bild.png"
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(hospital.png(hospital.small(1)))
    first = convert(root, "webdataset", out=tmp_path / "a")
    second = convert(root, "webdataset", out=tmp_path / "b")
    assert tree(first) == tree(second)
    with tarfile.open(first / "images-000000.tar") as archive:
        row = json.load(io.TextIOWrapper(archive.extractfile(archive.getmembers()[1])))
    assert row["source_path"] == name


def test_labels_that_changed_change_the_shards_and_no_pixel_is_computed_again(nih: Path) -> None:
    out = convert(nih, "parquet")
    table = nih / "Data_Entry_2017_v2020.csv"
    text = table.read_text()
    table.write_text(text.replace("00000002_000.png,No Finding", "00000002_000.png,Edema"))
    cxrprep.extract_labels(nih)
    value = cxrprep.convert(nih, recipe="square-224", to="parquet", engine=INLINE).value
    assert (value.converted, value.kept) == (0, 7)
    rows = pq.read_table(out / "data/train_val-00000-of-00001.parquet").to_pylist()
    assert next(row["label_edema"] for row in rows if row["image_id"] == "00000002_000") == 1


def test_an_unknown_form_is_refused(nih: Path) -> None:
    with pytest.raises(UsageError, match="unknown form"):
        cxrprep.convert(nih, recipe="square-224", to="zarr")
