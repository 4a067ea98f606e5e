"""Outputs of one folder are not replaced by those of another: two exports of a hospital both begin with IM0001."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import cxrprep
from cxrprep.api.convert_previous import has_digest
from cxrprep.errors import UsageError
from cxrprep.executors import Engine
from cxrprep.images.conversion import ConvertItem
from cxrprep.images.radiograph import DEFAULT_LIMITS
from cxrprep.model import Digest
from tests.api.convert.commands import tree
from tests.manifest.made import made


def convert(root: Path, out: Path, **more: object) -> object:
    return cxrprep.convert(root, **{"recipe": "square-224", "out": out, "engine": Engine("inline"), **more}).value


def images(folder: Path, *names: str, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    draws = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(draws.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / name)
    return folder


def sources(out: Path) -> list[str]:
    return sorted(pq.read_table(out / "manifests/images.parquet").column("source_path").to_pylist())


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return images(tmp_path / "first", "IM1.png", "IM2.png", "IM3.png", seed=1)


@pytest.fixture
def out(tmp_path: Path, first: Path) -> Path:
    convert(first, tmp_path / "out")
    return tmp_path / "out"


def test_another_folder_with_the_same_names_of_files_is_refused(tmp_path: Path, out: Path) -> None:
    second = images(tmp_path / "second", "IM1.png", "IM2.png", seed=2)
    before = tree(out)
    for _ in range(2):
        with pytest.raises(UsageError, match="another folder whose files have the same names") as error:
            convert(second, out)
        assert "--allow-loss" in error.value.hint
        assert tree(out) == before
    convert(second, out, allow_loss=True)
    assert tree(out) != before


def test_another_folder_whose_outputs_would_have_the_same_names_is_refused(tmp_path: Path, out: Path) -> None:
    second = images(tmp_path / "second", "IM1.tif", "IM2.tif", seed=1)
    before = tree(out)
    with pytest.raises(UsageError, match=r"the first: IM1\.tif"):
        convert(second, out)
    assert tree(out) == before


def test_another_folder_with_names_of_its_own_is_added(tmp_path: Path, first: Path, out: Path) -> None:
    second = images(tmp_path / "second", "other.png", seed=2)
    convert(second, out)
    assert sources(out) == ["IM1.png", "IM2.png", "IM3.png", "other.png"]
    convert(first, out)
    assert sources(out) == ["IM1.png", "IM2.png", "IM3.png", "other.png"]


def test_images_that_changed_where_they_were_are_made_anew(first: Path, out: Path) -> None:
    before = tree(out)
    images(first, "IM1.png", "IM2.png", "IM3.png", seed=3)
    assert convert(first, out).converted == 3
    assert tree(out) != before


def test_a_folder_that_was_moved_is_the_same_folder(tmp_path: Path, first: Path, out: Path) -> None:
    shutil.move(first, tmp_path / "moved")
    images(tmp_path / "moved", "IM2.png", seed=3)
    assert convert(tmp_path / "moved", out).failed == 0
    assert sources(out) == ["IM1.png", "IM2.png", "IM3.png"]


@pytest.mark.parametrize("changed", [{"frame": 1}, {"to": "webdataset"}])
def test_a_recipe_that_makes_all_anew_drops_no_image_of_another_folder(
    tmp_path: Path, first: Path, changed: dict[str, object]
) -> None:
    out, form = tmp_path / "anew", {"to": changed.get("to", "files")}
    convert(first, out, **form)
    second = images(tmp_path / "second", "IM1.png", "other.png", seed=1)
    before = tree(out)
    with pytest.raises(UsageError, match="2 images of other sources") as error:
        convert(second, out, **changed)
    assert "--allow-loss" in error.value.hint
    assert tree(out) == before
    convert(first, out, **changed)
    assert sources(out) == ["IM1.png", "IM2.png", "IM3.png"]


def test_images_are_not_made_anew_from_a_folder_that_knows_less_of_them(tmp_path: Path) -> None:
    root, out = tmp_path / "nih", tmp_path / "out"
    made("nih-chestxray14", root)
    convert(root, out)
    shutil.copytree(root, tmp_path / "bare", ignore=shutil.ignore_patterns("manifests", "*.csv", ".cxrprep"))
    before = tree(out)
    with pytest.raises(UsageError, match="would be converted again and lose") as error:
        convert(tmp_path / "bare", out, frame=1, dataset="nih-chestxray14")
    assert "--allow-loss" in error.value.hint
    assert tree(out) == before
    cxrprep.build_manifest(out, split_by="patient")
    assert convert(root, out, frame=1).failed == 0
    assert tree(out) != before


def test_a_source_is_held_against_the_kind_of_digest_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    item = ConvertItem(str(path), "a.png", digest=Digest("sha256", hashlib.sha256(b"bytes").hexdigest()))
    told = {name: f"{name}:{hashlib.new(name, b'bytes').hexdigest()}" for name in ("md5", "sha256")}
    assert [has_digest(item, stated, DEFAULT_LIMITS) for stated in told.values()] == [True, True]
    assert has_digest(item, f"md5:{'0' * 32}", DEFAULT_LIMITS) is False
    path.unlink()
    assert has_digest(item, told["md5"], DEFAULT_LIMITS) is None
